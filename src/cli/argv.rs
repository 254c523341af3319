//! From the words that were typed to one command with its options.
//! Owns: which word is a verb, an option, a value or an argument; the implied `serve`; suggestions.
//! May touch: the verb table.
//! Never: reads a value's meaning; never repeats a value in a message, since it may be a secret.

use argh::{CommandInfoWithArgs, FlagInfoKind, Optionality};

use super::exit::CliError;
use super::suggest::closest;
use super::verbs::{GROUPS, VERBS, Verb, split};
use super::{PROGRAM, globals};

/// One option as it was typed, or as the environment or a default supplied it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenOption {
    /// With its dashes.
    pub name: String,
    /// `None` for a switch.
    pub value: Option<String>,
}

/// Options and arguments, apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// In the order typed.
    pub options: Vec<GivenOption>,
    /// In the order typed.
    pub arguments: Vec<String>,
}

impl Given {
    /// Whether the option is there.
    pub fn has(&self, name: &str) -> bool {
        self.options.iter().any(|option| option.name == name)
    }

    /// The part that `info` knows, in the one spelling that argh reads without surprises.
    pub fn words_for(&self, info: &CommandInfoWithArgs) -> Vec<&str> {
        let mut words = Vec::new();
        for option in self.options.iter().filter(|option| info.flags.iter().any(|flag| flag.long == option.name)) {
            words.push(option.name.as_str());
            words.extend(option.value.as_deref());
        }
        if !self.arguments.is_empty() {
            words.push("--");
            words.extend(self.arguments.iter().map(String::as_str));
        }
        words
    }
}

/// What a help text is about.
#[derive(Debug, Clone, Copy)]
pub enum Topic {
    /// The program.
    Program,
    /// A group of verbs.
    Group(&'static str),
    /// One verb.
    Verb(&'static Verb),
}

/// What was asked for.
#[derive(Debug)]
pub enum Parsed {
    /// A help text.
    Help(Topic),
    /// The version.
    Version,
    /// A command.
    Command {
        /// Which one.
        verb: &'static Verb,
        /// Its own options and arguments.
        given: Given,
        /// The options that every command accepts.
        globals: Given,
    },
}

/// Reads the words after the program's name.
///
/// # Errors
/// [`CliError::Usage`], with a suggestion when a word is close to a known one.
pub fn parse(words: &[String]) -> Result<Parsed, CliError> {
    let mut reader = Reader { words, at: 0, globals: Given::default() };
    let mut group: Option<&'static str> = None;
    // A verb that is a group too, such as `doctor`, waits for the word behind it.
    let mut own: Option<&'static Verb> = None;
    while let Some(word) = reader.next() {
        match word {
            "-h" | "--help" => return Ok(Parsed::Help(own.map_or(topic(group), Topic::Verb))),
            "-V" | "--version" => return Ok(Parsed::Version),
            "help" => return help_words(group, &words[reader.at..]),
            _ if reader.global(word, &command_name(group))? => {}
            _ if word.starts_with('-') => {
                if let Some(own) = own {
                    reader.at -= 1;
                    return reader.verb(own, false);
                }
                let Some(group) = group else {
                    reader.at -= 1;
                    return reader.verb(serve(), true);
                };
                let verbs = verbs_of(Some(group)).collect::<Vec<_>>().join(", ");
                let message = format!("{} before a verb of `{group}` ({verbs})", describe_unknown(word, &[]));
                return Err(usage(message, &command_name(Some(group))));
            }
            _ => match resolve(group, word) {
                Some(Step::Verb(verb)) if is_group(verb) => (group, own) = (Some(verb.path), Some(verb)),
                Some(Step::Verb(verb)) => return reader.verb(verb, false),
                Some(Step::Group(found)) => group = Some(found),
                None => return Err(unknown_verb(group, word)),
            },
        }
    }
    if let Some(own) = own {
        return reader.verb(own, false);
    }
    match group {
        None => reader.verb(serve(), true),
        Some(group) => {
            let verbs = verbs_of(Some(group)).collect::<Vec<_>>().join(", ");
            Err(usage(format!("`{group}` needs a verb: {verbs}"), &command_name(Some(group))))
        }
    }
}

enum Step {
    Group(&'static str),
    Verb(&'static Verb),
}

fn topic(group: Option<&'static str>) -> Topic {
    group.map_or(Topic::Program, Topic::Group)
}

/// Whether words may follow the verb that make it another one.
fn is_group(verb: &Verb) -> bool {
    GROUPS.iter().any(|(path, _)| *path == verb.path)
}

fn serve() -> &'static Verb {
    super::verbs::find("serve").expect("serve is in the verb table")
}

fn resolve(group: Option<&str>, word: &str) -> Option<Step> {
    let verb = VERBS.iter().find(|verb| {
        let (of, name) = verb.split();
        of == group && (name == word || verb.aliases.contains(&word))
    });
    verb.map(Step::Verb).or_else(|| {
        let found = GROUPS.iter().find(|(path, _)| split(path) == (group, word))?;
        Some(Step::Group(found.0))
    })
}

/// The words that may follow the program (or the group), aliases left out.
fn verbs_of(group: Option<&str>) -> impl Iterator<Item = &'static str> {
    let groups = GROUPS.iter().filter(|(path, _)| super::verbs::find(path).is_none()).map(|(path, _)| split(path));
    VERBS.iter().map(Verb::split).chain(groups).filter(move |(of, _)| *of == group).map(|(_, name)| name)
}

fn unknown_verb(group: Option<&str>, word: &str) -> CliError {
    let aliases = VERBS.iter().filter(|verb| verb.split().0 == group).flat_map(|verb| verb.aliases.iter().copied());
    let known: Vec<&'static str> = verbs_of(group).collect();
    let mut message = match group {
        None => format!("unknown command {word:?}"),
        Some(group) => format!("unknown verb {word:?} of `{group}`"),
    };
    match closest(word, known.iter().copied().chain(aliases)) {
        Some(word) => message.push_str(&format!("; did you mean `{word}`?")),
        None => message.push_str(&format!(" (known: {})", known.join(", "))),
    }
    usage(message, &command_name(group))
}

fn help_words(mut group: Option<&'static str>, words: &[String]) -> Result<Parsed, CliError> {
    for word in words {
        match resolve(group, word) {
            Some(Step::Verb(verb)) if is_group(verb) && words.len() > 1 => group = Some(verb.path),
            Some(Step::Verb(verb)) => return Ok(Parsed::Help(Topic::Verb(verb))),
            Some(Step::Group(found)) => group = Some(found),
            None => return Err(unknown_verb(group, word)),
        }
    }
    Ok(Parsed::Help(topic(group)))
}

fn command_name(path: Option<&str>) -> String {
    path.map_or_else(|| PROGRAM.to_string(), |path| format!("{PROGRAM} {path}"))
}

fn usage(message: String, command: &str) -> CliError {
    CliError::Usage { message, command: command.to_string() }
}

struct Reader<'a> {
    words: &'a [String],
    at: usize,
    globals: Given,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// Takes `word` as a global option, with its value; false when it is none.
    fn global(&mut self, word: &str, command: &str) -> Result<bool, CliError> {
        for info in globals::infos() {
            if let Some(option) = self.option(word, &info, &[], command)? {
                add(&mut self.globals, option, &info, command)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Everything after the verb.
    fn verb(mut self, verb: &'static Verb, implied: bool) -> Result<Parsed, CliError> {
        let command = command_name(Some(verb.path));
        let info = (verb.info)();
        let mut given = Given::default();
        let mut options_ended = false;
        while let Some(word) = self.next() {
            let has_room = given.arguments.len() < info.positionals.len();
            match word {
                _ if options_ended => argument(&mut given, word, has_room, &info, &command)?,
                "--" => options_ended = true,
                "-h" | "--help" => return Ok(Parsed::Help(Topic::Verb(verb))),
                "-V" | "--version" => return Ok(Parsed::Version),
                _ if word.starts_with("--") => {
                    if let Some(option) = self.option(word, &info, &globals::infos(), &command)? {
                        add(&mut given, option, &info, &command)?;
                    } else if !self.global(word, &command)? {
                        let known: Vec<&str> = option_names(&info).chain(globals::option_names_of_all()).collect();
                        let note =
                            if implied { " (no command was given, so it was read as one of `serve`)" } else { "" };
                        return Err(usage(format!("{}{note}", describe_unknown(word, &known)), &command));
                    }
                }
                // `-` alone and words like `-abc` can be ids; where no argument is wanted they are slips.
                _ if word.len() > 1 && word.starts_with('-') && !has_room => {
                    return Err(usage(describe_unknown(word, &[]), &command));
                }
                _ => argument(&mut given, word, has_room, &info, &command)?,
            }
        }
        if let Some(missing) = missing_argument(&given, &info) {
            return Err(usage(format!("missing <{missing}>"), &command));
        }
        Ok(Parsed::Command { verb, given, globals: self.globals })
    }

    /// Takes `word` as an option of `info`; `None` when it is none.
    fn option(
        &mut self,
        word: &str,
        info: &CommandInfoWithArgs,
        others: &[CommandInfoWithArgs],
        command: &str,
    ) -> Result<Option<GivenOption>, CliError> {
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let Some(flag) = info.flags.iter().find(|flag| flag.long == name) else { return Ok(None) };
        let value = match (&flag.kind, inline) {
            (FlagInfoKind::Switch, None) => None,
            (FlagInfoKind::Switch, Some(_)) => return Err(usage(format!("{name} takes no value"), command)),
            (FlagInfoKind::Option { .. }, Some(value)) => Some(value.to_string()),
            (FlagInfoKind::Option { arg_name }, None) => match self.next() {
                None => return Err(usage(format!("{name} needs a value <{arg_name}>"), command)),
                // A forgotten value would silently swallow the next option.
                Some(next)
                    if option_names(info).chain(others.iter().flat_map(option_names)).any(|known| known == next) =>
                {
                    let message =
                        format!("{name} needs a value <{arg_name}>, found {next}; to pass that text: {name}={next}");
                    return Err(usage(message, command));
                }
                Some(next) => Some(next.to_string()),
            },
        };
        Ok(Some(GivenOption { name: name.to_string(), value }))
    }
}

fn add(given: &mut Given, option: GivenOption, info: &CommandInfoWithArgs, command: &str) -> Result<(), CliError> {
    let repeats = info.flags.iter().any(|flag| flag.long == option.name && flag.optionality == Optionality::Repeating);
    if given.has(&option.name) && !repeats && option.value.is_some() {
        return Err(usage(format!("{} was given twice", option.name), command));
    }
    given.options.push(option);
    Ok(())
}

fn argument(
    given: &mut Given,
    word: &str,
    has_room: bool,
    info: &CommandInfoWithArgs,
    command: &str,
) -> Result<(), CliError> {
    if !has_room {
        let wanted = match info.positionals.len() {
            0 => "takes no argument".to_string(),
            1 => "takes one argument; quote it when it contains blanks".to_string(),
            count => format!("takes at most {count} arguments; quote them when they contain blanks"),
        };
        return Err(usage(format!("one argument too many: the command {wanted}"), command));
    }
    given.arguments.push(word.to_string());
    Ok(())
}

fn missing_argument(given: &Given, info: &CommandInfoWithArgs) -> Option<String> {
    let missing = info.positionals.get(given.arguments.len())?;
    (missing.optionality == Optionality::Required).then(|| missing.name.to_string())
}

/// The names of a command's options.
pub fn option_names(info: &CommandInfoWithArgs) -> impl Iterator<Item = &'static str> + use<> {
    info.flags.iter().map(|flag| flag.long)
}

/// Names an unknown option without its value.
fn describe_unknown(word: &str, known: &[&str]) -> String {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    // A long word after a single dash may be a value that slipped; only its beginning is shown.
    let shown: String = if name.starts_with("--") { name.to_string() } else { name.chars().take(2).collect() };
    match closest(name, known.iter().copied()) {
        Some(known) => format!("unknown option {shown}; did you mean {known}?"),
        None => format!("unknown option {shown}"),
    }
}
