//! What the command line is read as, row by row.
//! Owns: the table; every row goes through [`check`].
//! Never: asks argh; what it makes of the words is seen in tests/cli_*.rs.

use super::argv::{Given, Parsed, Topic, parse};
use super::verbs::VERBS;

fn spelled(given: &Given) -> String {
    let options = given.options.iter().map(|option| match &option.value {
        Some(value) => format!("{}={value}", option.name),
        None => option.name.clone(),
    });
    options.chain(given.arguments.iter().map(|argument| format!("<{argument}>"))).collect::<Vec<_>>().join(" ")
}

fn read(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| (*word).to_string()).collect();
    match parse(&words) {
        Ok(Parsed::Version) => "version".to_string(),
        Ok(Parsed::Help(Topic::Program)) => "help".to_string(),
        Ok(Parsed::Help(Topic::Group(name))) => format!("help {name}"),
        Ok(Parsed::Help(Topic::Verb(verb))) => format!("help {}", verb.path),
        Ok(Parsed::Command { verb, given, globals }) => {
            let mut text = verb.path.to_string();
            for part in [spelled(&given), spelled(&globals)] {
                text.push_str(" |");
                if !part.is_empty() {
                    text.push(' ');
                    text.push_str(&part);
                }
            }
            text
        }
        Err(error) => {
            assert_eq!(error.exit() as u8, 2, "{error}");
            format!("error {error}")
        }
    }
}

/// `expected`: the command, its own options and arguments, the global options; or the beginning of an error.
fn check(words: &[&str], expected: &str) {
    let found = read(words);
    let matches = if expected.starts_with("error ") { found.starts_with(expected) } else { found == expected };
    assert!(matches, "{words:?}\n  was read as {found}\n  instead of  {expected}");
}

#[test]
fn globals_are_taken_before_and_after_the_command() {
    let after = "runs get | <run-1> | --base-url=http://a --output=json";
    check(&["--base-url", "http://a", "--output", "json", "runs", "get", "run-1"], after);
    check(&["runs", "get", "run-1", "--base-url", "http://a", "--output", "json"], after);
    check(&["--base-url=http://a", "runs", "--output=json", "get", "run-1"], after);
    check(&["runs", "--base-url", "http://a", "get", "--output", "json", "run-1"], after);
    check(&["status", "--token-file=/a=b"], "status | | --token-file=/a=b");
}

#[test]
fn no_command_or_an_option_first_means_serve() {
    check(&[], "serve | |");
    check(&["--bind", "[::1]:1"], "serve | --bind=[::1]:1 |");
    check(&["--output", "json"], "serve | | --output=json");
    check(&["--ca-file", "a", "--hold"], "serve | --hold | --ca-file=a");
    check(&["serve", "--hold", "--bind=b"], "serve | --hold --bind=b |");
    check(&["start"], "serve | |");
    check(&["--trusted-proxy", "a", "--trusted-proxy=b"], "serve | --trusted-proxy=a --trusted-proxy=b |");
}

#[test]
fn aliases_are_their_verbs() {
    check(&["sessions", "open", "s"], "sessions create | <s> |");
    check(&["sessions", "send", "s", "t"], "sessions input | <s> <t> |");
    check(&["sessions", "show", "s"], "sessions get | <s> |");
    check(&["runs", "show", "r"], "runs get | <r> |");
    check(&["secrets", "show", "r"], "secrets get | <r> |");
    check(&["journal", "show"], "journal show | |");
}

#[test]
fn values_and_arguments_may_look_like_anything() {
    check(&["runs", "list", "--session-id", "-abc"], "runs list | --session-id=-abc |");
    check(&["runs", "list", "--session-id", "--x"], "runs list | --session-id=--x |");
    check(&["runs", "list", "--session-id", "--a=b"], "runs list | --session-id=--a=b |");
    check(&["runs", "list", "--session-id=--output"], "runs list | --session-id=--output |");
    check(&["runs", "list", "--session-id="], "runs list | --session-id= |");
    check(&["runs", "list", "--session-id", "-h"], "runs list | --session-id=-h |");
    check(&["runs", "get", "-abc"], "runs get | <-abc> |");
    check(&["runs", "get", "-"], "runs get | <-> |");
    check(&["runs", "get", "--", "--output"], "runs get | <--output> |");
    check(&["runs", "get", "--output", "json", "--", "--"], "runs get | <--> | --output=json");
    check(&["runs", "get", "help"], "runs get | <help> |");
    check(&["secrets", "set", "help", "--stdin"], "secrets set | --stdin <help> |");
    check(&["sessions", "input", "s", "{\"a\": 1}\n b"], "sessions input | <s> <{\"a\": 1}\n b> |");
    check(&["sessions", "input", "s", ""], "sessions input | <s> <> |");
}

#[test]
fn help_and_version_are_found_at_every_level() {
    check(&["-h"], "help");
    check(&["--help"], "help");
    check(&["help"], "help");
    check(&["--output", "json", "--help"], "help");
    check(&["sessions", "-h"], "help sessions");
    check(&["help", "sessions"], "help sessions");
    check(&["sessions", "help"], "help sessions");
    check(&["sessions", "help", "send"], "help sessions input");
    check(&["sessions", "input", "--wait", "--help"], "help sessions input");
    check(&["help", "runs", "wait"], "help runs wait");
    check(&["--bind", "x", "-h"], "help serve");
    check(&["-V"], "version");
    check(&["runs", "get", "-V"], "version");
    check(&["sessions", "--version"], "version");
}

#[test]
fn misspelt_words_are_met_with_a_suggestion() {
    check(
        &["sesions"],
        "error unknown command \"sesions\"; did you mean `sessions`?; next: run `kheish-daemon --help`",
    );
    check(&["server"], "error unknown command \"server\"; did you mean `serve`?");
    check(&["banana"], "error unknown command \"banana\" (known: serve, status, ");
    check(&["sessions", "craete"], "error unknown verb \"craete\" of `sessions`; did you mean `create`?");
    check(&["sessions", "oepn"], "error unknown verb \"oepn\" of `sessions`; did you mean `open`?");
    check(&["help", "rnus"], "error unknown command \"rnus\"; did you mean `runs`?");
    check(&["runs", "list", "--sesion-id", "a"], "error unknown option --sesion-id; did you mean --session-id?");
    check(&["runs", "list", "--base-ulr=a"], "error unknown option --base-ulr; did you mean --base-url?");
    check(&["--bnid=a"], "error unknown option --bnid; did you mean --bind? (no command was given");
    check(&["status", "--verbose"], "error unknown option --verbose; next:");
}

#[test]
fn what_is_missing_or_too_much_is_said() {
    check(&["sessions"], "error `sessions` needs a verb: create, list,");
    check(&["sessions", "--wait"], "error unknown option --wait before a verb of `sessions` (create,");
    check(&["runs", "get"], "error missing <run_id>; next: run `kheish-daemon runs get --help`");
    check(&["sessions", "input"], "error missing <session_id>");
    check(&["runs", "get", "a", "b"], "error one argument too many: the command takes one argument");
    check(&["status", "x"], "error one argument too many: the command takes no argument");
    check(&["status", "-x"], "error unknown option -x");
    check(&["runs", "list", "--limit"], "error --limit needs a value <n>");
    check(&["runs", "list", "--session-id", "--limit", "3"], "error --session-id needs a value <id>, found --limit");
    check(
        &["runs", "list", "--session-id", "--output", "json"],
        "error --session-id needs a value <id>, found --output",
    );
    check(&["--base-url"], "error --base-url needs a value <url>");
    check(&["runs", "list", "--page=yes"], "error --page takes no value");
    check(&["runs", "list", "--limit", "1", "--limit=2"], "error --limit was given twice");
    check(&["--token", "a", "status", "--token", "a"], "error --token was given twice");
}

#[test]
fn no_message_repeats_a_value() {
    for words in [
        &["secrets", "set", "slot", "s3cret-value"][..],
        &["secrets", "set", "slot", "--vlaue=s3cret-value"],
        &["secrets", "set", "slot", "--stdin=s3cret-value"],
        &["secrets", "set", "slot", "x", "-s3cret-value"],
        &["status", "--token", "s3cret-value", "--token", "s3cret-value"],
        &["status", "--tokne=s3cret-value"],
    ] {
        let found = read(words);
        assert!(found.starts_with("error ") && !found.contains("s3cret"), "{words:?}: {found}");
    }
}

#[test]
fn no_two_verbs_share_a_word() {
    let groups = super::verbs::GROUPS.iter().filter(|(path, _)| super::verbs::find(path).is_none());
    let mut words: Vec<(Option<&str>, &str)> = VERBS
        .iter()
        .flat_map(|verb| {
            let (group, name) = verb.split();
            std::iter::once(name).chain(verb.aliases.iter().copied()).map(move |word| (group, word))
        })
        // A group may be a verb as well; then the word behind it decides.
        .chain(groups.map(|(name, _)| (None, *name)))
        .collect();
    let count = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), count);
}

#[test]
fn a_verb_that_is_a_group_too_is_decided_by_the_word_behind_it() {
    check(&["doctor"], "doctor | |");
    check(&["doctor", "--cors-origin", "http://a"], "doctor | --cors-origin=http://a |");
    check(&["doctor", "--output", "json", "--offline"], "doctor | --offline | --output=json");
    check(&["doctor", "routes", "--check-auth"], "doctor routes | --check-auth |");
    check(
        &["--base-url", "http://a", "doctor", "--output", "json", "routes"],
        "doctor routes | | --base-url=http://a --output=json",
    );
    check(&["doctor", "--help"], "help doctor");
    check(&["doctor", "routes", "--help"], "help doctor routes");
    check(&["help", "doctor"], "help doctor");
    check(&["help", "doctor", "routes"], "help doctor routes");
    check(&["doctor", "rotes"], "error unknown verb \"rotes\" of `doctor`; did you mean `routes`?");
    check(&["doctor", "--cors-origin", "http://a", "routes"], "error one argument too many");
}
