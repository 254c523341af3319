//! `completions`: scripts by which shells complete command lines, made from the verb table.
//! Owns: what may follow which words, and its form in each shell.
//! Never: lists a word that the parser does not know.

use std::collections::BTreeSet;
use std::fmt::Write;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfoKind, FromArgValue, FromArgs};

use super::context::Context;
use super::exit::CliError;
use super::verbs::{Command, GROUPS, VERBS, find, split};
use super::{PROGRAM, globals};

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// GNU bash 4 or newer.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

impl FromArgValue for Shell {
    fn from_arg_value(value: &str) -> Result<Self, String> {
        match value {
            "bash" => Ok(Self::Bash),
            "zsh" => Ok(Self::Zsh),
            "fish" => Ok(Self::Fish),
            _ => Err("expected bash, zsh or fish".to_string()),
        }
    }
}

/// print the script by which a shell completes command lines
#[derive(FromArgs, ArgsInfo)]
pub struct Completions {
    /// bash, zsh or fish
    #[argh(positional)]
    shell: Shell,
}

impl Command for Completions {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        context.out.text(&script(self.shell))
    }
}

/// One word that may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Next {
    word: &'static str,
    about: &'static str,
}

/// What may follow the words of `path`, the program's name left out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    path: &'static str,
    words: Vec<Next>,
    options: Vec<Next>,
}

/// Every place in a command line after which a verb or an option may stand; the empty path is its beginning.
fn places() -> Vec<Place> {
    let mut paths = vec![""];
    paths.extend(GROUPS.iter().map(|(path, _)| *path));
    paths.extend(VERBS.iter().map(|verb| verb.path));
    let mut seen = BTreeSet::new();
    paths.retain(|path| seen.insert(*path));
    let place = |path: &'static str| {
        let group = (!path.is_empty()).then_some(path);
        let mut words: Vec<Next> = VERBS
            .iter()
            .filter(|verb| verb.split().0 == group)
            .map(|verb| Next { word: verb.split().1, about: (verb.info)().description })
            .collect();
        let groups = GROUPS.iter().filter(|(path, _)| find(path).is_none() && split(path).0 == group);
        words.extend(groups.map(|(path, summary)| Next { word: split(path).1, about: summary }));
        let options = find(path).map(|verb| options_of(&(verb.info)())).unwrap_or_default();
        Place { path, words, options }
    };
    paths.into_iter().map(place).collect()
}

fn options_of(info: &CommandInfoWithArgs) -> Vec<Next> {
    let flags = info.flags.iter().filter(|flag| flag.long != "--help");
    flags.map(|flag| Next { word: flag.long, about: flag.description }).collect()
}

fn global_options() -> Vec<Next> {
    let mut options: Vec<Next> = globals::infos().iter().flat_map(options_of).collect();
    options.push(Next { word: "--help", about: "help" });
    options.push(Next { word: "--version", about: "the version" });
    options
}

/// Options that take a value, in two lists: a place of the file system, and anything else.
fn with_value() -> (BTreeSet<&'static str>, BTreeSet<&'static str>) {
    let (mut files, mut others) = (BTreeSet::new(), BTreeSet::new());
    let infos = VERBS.iter().map(|verb| (verb.info)()).chain(globals::infos());
    for flag in infos.flat_map(|info| info.flags.iter()) {
        if let FlagInfoKind::Option { arg_name } = flag.kind {
            if matches!(arg_name, "path" | "dir" | "file") { &mut files } else { &mut others }.insert(flag.long);
        }
    }
    // One name, two meanings: a file may be offered for both.
    others.retain(|option| !files.contains(option));
    (files, others)
}

/// The script for `shell`.
fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

const HEADER: &str = "made by `kheish-daemon completions`; do not edit\n";

fn joined<'a>(words: impl IntoIterator<Item = &'a &'a str>, separator: &str) -> String {
    words.into_iter().copied().collect::<Vec<_>>().join(separator)
}

fn words_of(list: &[Next]) -> String {
    list.iter().map(|next| next.word).collect::<Vec<_>>().join(" ")
}

/// The lines of a `case` of bash and zsh: what may follow each path.
fn cases(out: &mut String, render: impl Fn(&Place) -> String) {
    for place in places() {
        let _ = writeln!(out, "    '{}') {} ;;", place.path, render(&place));
    }
}

/// The loop of bash and zsh that finds the path: options and their values are passed over, an unknown word ends it.
fn path_loop(word: &str) -> String {
    let (files, others) = with_value();
    let paths: Vec<&str> = places().iter().map(|place| place.path).filter(|path| !path.is_empty()).collect();
    format!(
        "    if [ -n \"$skip\" ]; then skip=; continue; fi\n    \
         case \"{word}\" in\n      \
         {}) skip=1; continue ;;\n      \
         -*) continue ;;\n    \
         esac\n    \
         case \"${{path:+$path }}{word}\" in\n      \
         {}) path=\"${{path:+$path }}{word}\" ;;\n      \
         *) break ;;\n    \
         esac\n",
        joined(files.iter().chain(&others), "|"),
        paths.iter().map(|path| format!("'{path}'")).collect::<Vec<_>>().join("|"),
    )
}

fn bash() -> String {
    let (files, _) = with_value();
    let mut out = format!("# bash completion for {PROGRAM}, {HEADER}_kheish_daemon() {{\n");
    out.push_str("  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path= skip= words= i\n");
    let _ = writeln!(
        out,
        "  case \"$prev\" in\n    {}) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n  esac",
        joined(&files, "|")
    );
    let _ = write!(out, "  for ((i = 1; i < COMP_CWORD; i++)); do\n{}  done\n", path_loop("${COMP_WORDS[i]}"));
    out.push_str("  case \"$path\" in\n");
    cases(&mut out, |place| format!("words='{}'", [words_of(&place.words), words_of(&place.options)].join(" ").trim()));
    let _ = writeln!(out, "  esac\n  case \"$cur\" in -*) words=\"$words {}\" ;; esac", words_of(&global_options()));
    out.push_str("  COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n");
    let _ = writeln!(out, "complete -F _kheish_daemon {PROGRAM}");
    out
}

/// `word:description` for zsh's `_describe`, inside single quotes.
fn described(list: &[Next]) -> String {
    let entry = |next: &Next| format!("'{}:{}'", next.word, next.about.replace('\'', "'\\''").replace(':', "\\:"));
    list.iter().map(entry).collect::<Vec<_>>().join(" ")
}

fn zsh() -> String {
    let (files, _) = with_value();
    let mut out = format!("#compdef {PROGRAM}\n# zsh completion for {PROGRAM}, {HEADER}_kheish_daemon() {{\n");
    out.push_str("  local path= skip= i\n  local -a verbs options\n");
    let _ = writeln!(out, "  case \"$words[CURRENT-1]\" in\n    {}) _files; return ;;\n  esac", joined(&files, "|"));
    // `path` is a special array in zsh; the loop is shared with bash, so the name is replaced.
    let steps = path_loop("$words[i]").replace("path", "place");
    let _ = write!(out, "  for ((i = 2; i < CURRENT; i++)); do\n{steps}  done\n");
    out = out.replace("local path= skip=", "local place= skip=");
    out.push_str("  case \"$place\" in\n");
    cases(&mut out, |place| format!("verbs=({}); options=({})", described(&place.words), described(&place.options)));
    let _ = writeln!(out, "  esac\n  options+=({})", described(&global_options()));
    out.push_str("  local found=1\n  (( $#verbs )) && _describe -t verbs command verbs && found=0\n");
    out.push_str("  if [[ \"$words[CURRENT]\" == -* || $#verbs -eq 0 ]]; then\n");
    out.push_str("    _describe -o -t options option options && found=0\n  fi\n  return found\n");
    out.push_str(
        "}\nif [ \"$funcstack[1]\" = _kheish_daemon ]; then _kheish_daemon \"$@\"; else compdef _kheish_daemon ",
    );
    let _ = writeln!(out, "{PROGRAM}; fi");
    out
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn fish() -> String {
    let (files, others) = with_value();
    let paths: Vec<&str> = places().iter().map(|place| place.path).filter(|path| !path.is_empty()).collect();
    let mut out = format!("# fish completion for {PROGRAM}, {HEADER}function __kheish_daemon_at\n");
    let _ = write!(
        out,
        "  set -l place ''\n  set -l skip 0\n  for word in (commandline -opc)[2..-1]\n    \
         if test $skip = 1\n      set skip 0\n      continue\n    end\n    \
         if contains -- $word {}\n      set skip 1\n      continue\n    end\n    \
         string match -q -- '-*' $word; and continue\n    \
         set -l longer (string trim \"$place $word\")\n    \
         contains -- $longer {}; or break\n    \
         set place $longer\n  end\n  test \"$place\" = \"$argv[1]\"\nend\n",
        joined(files.iter().chain(&others), " "),
        paths.iter().map(|path| quoted(path)).collect::<Vec<_>>().join(" "),
    );
    let _ = writeln!(out, "complete -c {PROGRAM} -f");
    let option = |out: &mut String, condition: &str, next: &Next| {
        let value = match next.word {
            word if files.contains(word) => " -r -F",
            word if others.contains(word) => " -x",
            _ => "",
        };
        let name = next.word.trim_start_matches('-');
        let _ = writeln!(out, "complete -c {PROGRAM}{condition} -l {name}{value} -d {}", quoted(next.about));
    };
    for next in global_options() {
        option(&mut out, "", &next);
    }
    for place in places() {
        let condition = format!(" -n {}", quoted(&format!("__kheish_daemon_at '{}'", place.path)));
        for next in &place.words {
            let _ = writeln!(out, "complete -c {PROGRAM}{condition} -a {} -d {}", next.word, quoted(next.about));
        }
        for next in &place.options {
            option(&mut out, &condition, next);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::argv;

    #[test]
    fn every_place_and_word_is_one_that_the_parser_knows() {
        for place in places() {
            for next in &place.words {
                let mut words: Vec<String> =
                    place.path.split(' ').filter(|word| !word.is_empty()).map(str::to_string).collect();
                words.extend([next.word.to_string(), "--help".to_string()]);
                assert!(argv::parse(&words).is_ok(), "{words:?}");
            }
            assert!(!place.words.is_empty() || find(place.path).is_some(), "{} leads nowhere", place.path);
        }
    }

    #[test]
    fn every_verb_and_every_option_is_in_every_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for verb in VERBS {
                assert!(script.contains(verb.path), "{shell:?}: {}", verb.path);
                for option in options_of(&(verb.info)()) {
                    let name = if shell == Shell::Fish { option.word.trim_start_matches('-') } else { option.word };
                    assert!(script.contains(name), "{shell:?}: {}", option.word);
                }
            }
        }
    }
}
