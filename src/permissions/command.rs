//! Shell commands, read twice: narrowly for what allows, widely for what restricts.
//! Owns: both readings.
//! Never: claims to understand a shell. What it does not surely understand is not allowed by a rule; and a text can
//! always be built that hides a command from the wide reading, so a deny of a command is a fence and no wall: the wall
//! is the sandbox.

use crate::limits::{PERMISSION_COMMAND_BYTES_MAX, PERMISSION_PATTERN_BYTES_MAX};

/// The words that a command must begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandPrefix(Vec<String>);

impl CommandPrefix {
    /// Reads the words; only such as need no quoting.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+,-=".contains(&byte);
        let words: Vec<String> = text.split(' ').map(str::to_string).collect();
        let legal = text.len() <= PERMISSION_PATTERN_BYTES_MAX
            && words.iter().all(|word| !word.is_empty() && word.bytes().all(plain))
            && !words[0].contains('=');
        legal.then_some(Self(words))
    }

    /// Whether every command that begins with `other` begins with `self`.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

/// A command as a tool was given it.
#[derive(Debug)]
pub(super) struct ShellCommand {
    /// Its words, if it is one simple command and nothing in it means anything to a shell.
    simple: Option<Vec<String>>,
    /// Everything in it that could be a word of some command; `None` for one too long to be judged.
    words: Option<Vec<Word>>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Word {
    text: String,
    /// The shell would put something else in its place.
    opaque: bool,
    /// It stands where the name of a command stands.
    leads: bool,
    /// Words with one number belong to one simple command.
    segment: usize,
}

impl ShellCommand {
    pub(super) fn read(text: &str) -> Self {
        if text.len() > PERMISSION_COMMAND_BYTES_MAX {
            return Self { simple: None, words: None };
        }
        Self { simple: simple_words(text), words: Some(Scanner::scan(text)) }
    }

    /// Whether it is one simple command that begins with the words of `prefix`. What an allow goes by.
    pub(super) fn is_surely(&self, prefix: &CommandPrefix) -> bool {
        self.simple.as_ref().is_some_and(|words| words.starts_with(&prefix.0))
    }

    /// Whether the words of `prefix` occur in it, in order and within one simple command, quotes and escapes aside; a
    /// path that ends in the first word counts as that word. So does an expansion where a command's name stands, since
    /// nobody can tell what it becomes. What denies and asks go by.
    pub(super) fn may_contain(&self, prefix: &CommandPrefix) -> bool {
        let Some(words) = &self.words else { return true };
        words.iter().enumerate().any(|(at, word)| {
            if word.opaque && word.leads {
                return true;
            }
            let is_first = word.text == prefix.0[0] || word.text.rsplit('/').next() == Some(prefix.0[0].as_str());
            is_first && follows(&words[at + 1..], word.segment, &prefix.0[1..])
        })
    }
}

/// Every word of a command line in the wide reading, quotes and escapes removed, but for those that the shell would put
/// something else in the place of. Empty for one too long to be read.
pub(crate) fn words(text: &str) -> Vec<String> {
    if text.len() > PERMISSION_COMMAND_BYTES_MAX {
        return Vec::new();
    }
    Scanner::scan(text).into_iter().filter(|word| !word.opaque).map(|word| word.text).collect()
}

/// Whether `wanted` occurs in order among the words of the segment; options may stand between. An expansion may be
/// any of them.
fn follows(words: &[Word], segment: usize, wanted: &[String]) -> bool {
    let mut wanted = wanted.iter();
    let Some(mut next) = wanted.next() else { return true };
    for word in words.iter().filter(|word| word.segment == segment) {
        if word.opaque {
            return true;
        }
        if word.text == *next {
            match wanted.next() {
                Some(further) => next = further,
                None => return true,
            }
        }
    }
    false
}

/// The words of a command in which no character has a meaning to a shell but blanks and quotes around plain text.
fn simple_words(text: &str) -> Option<Vec<String>> {
    // Unquoted letters outside ASCII may be blanks in some locale.
    let inert = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,-=".contains(c);
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        end if end == c => break,
                        active if active.is_control() => return None,
                        '$' | '`' | '\\' | '!' if c == '"' => return None,
                        plain => word.push(plain),
                    }
                }
            }
            _ if inert(c) => word.get_or_insert_default().push(c),
            _ => return None,
        }
    }
    words.extend(word);
    // An assignment before the command changes what its name means.
    (!words.first()?.contains('=')).then_some(words)
}

/// Words after which the name of a command is still to come.
const LEADERS: &[&str] = &[
    "if", "then", "else", "elif", "do", "while", "until", "time", "!", "{", "exec", "command", "builtin", "env",
    "nohup", "nice", "sudo", "doas", "xargs", "eval", "setsid", "timeout",
];

/// The wide reading: quotes and escapes dropped, every separator taken for what it would be outside quotes.
struct Scanner {
    words: Vec<Word>,
    word: Word,
    /// A word has begun, though it may be empty.
    in_word: bool,
    segment: usize,
    segments: usize,
    /// The next word is a command's name.
    leads: bool,
    /// The next word is where output goes.
    redirects: bool,
    /// Outer commands around a substitution.
    outer: Vec<(char, usize)>,
}

impl Scanner {
    fn scan(text: &str) -> Vec<Word> {
        let mut scanner = Self {
            words: Vec::new(),
            word: Word::default(),
            in_word: false,
            segment: 0,
            segments: 0,
            leads: true,
            redirects: false,
            outer: Vec::new(),
        };
        // A line that is continued is one line.
        for c in text.replace("\\\r\n", "").replace("\\\n", "").chars() {
            scanner.take(c);
        }
        scanner.end_word();
        scanner.words
    }

    fn take(&mut self, c: char) {
        match c {
            '\'' | '"' | '\\' => self.in_word = true,
            ';' | '|' | '&' | '\n' | '\r' => self.begin_segment(),
            '(' => self.enter(c),
            '`' => match self.outer.last() {
                Some(('`', _)) => self.leave(),
                _ => {
                    self.expand();
                    self.enter(c);
                }
            },
            ')' => self.leave(),
            '<' | '>' => {
                // `2>` is no word.
                if self.word.text.bytes().all(|digit| digit.is_ascii_digit()) && !self.word.opaque {
                    self.word = Word::default();
                    self.in_word = false;
                }
                self.end_word();
                self.redirects = true;
            }
            '{' | '}' if !self.in_word => {
                self.word.text.push(c);
                self.in_word = true;
            }
            '$' | '*' | '?' | '[' | ']' | '{' | '}' | '~' => {
                self.expand();
                self.word.text.push(c);
            }
            _ if c.is_whitespace() || c.is_control() => self.end_word(),
            _ => {
                // `{rm,-rf}` is expanded, `{ rm; }` is not.
                if self.word.text == "{" {
                    self.word.opaque = true;
                }
                self.word.text.push(c);
                self.in_word = true;
            }
        }
    }

    fn expand(&mut self) {
        self.word.opaque = true;
        self.in_word = true;
    }

    fn end_word(&mut self) {
        if !std::mem::take(&mut self.in_word) {
            return;
        }
        let mut word = std::mem::take(&mut self.word);
        word.segment = self.segment;
        if std::mem::take(&mut self.redirects) {
            self.words.push(word);
            return;
        }
        let is_assignment = word.text.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        });
        word.leads = self.leads && !is_assignment;
        if self.leads && !is_assignment && !LEADERS.contains(&word.text.as_str()) {
            self.leads = false;
        }
        self.words.push(word);
    }

    fn begin_segment(&mut self) {
        self.end_word();
        self.segments += 1;
        self.segment = self.segments;
        self.leads = true;
        self.redirects = false;
    }

    fn enter(&mut self, opening: char) {
        self.end_word();
        let outer = self.segment;
        self.outer.push((opening, outer));
        self.begin_segment();
    }

    fn leave(&mut self) {
        match self.outer.pop() {
            // What follows a substitution goes on with the words of the command around it.
            Some((_, outer)) => {
                self.end_word();
                self.segment = outer;
                self.leads = false;
                self.redirects = false;
            }
            None => self.begin_segment(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surely(prefix: &str, command: &str) -> bool {
        ShellCommand::read(command).is_surely(&CommandPrefix::parse(prefix).expect(prefix))
    }

    fn may_contain(prefix: &str, command: &str) -> bool {
        ShellCommand::read(command).may_contain(&CommandPrefix::parse(prefix).expect(prefix))
    }

    #[test]
    fn plain_commands_are_surely_what_they_begin_with() {
        for command in [
            "git status",
            "  git\tstatus  ",
            "git status --short src/a.rs",
            "git status 'a file; not a command'",
            "git status \"two words & more\"",
            "'git' status",
            "git \"status\"",
            "git status 'Grüße $HOME `x`'",
        ] {
            assert!(surely("git status", command), "{command:?}");
        }
        for command in
            ["git", "git stash", "git statusx", "gitstatus", "xgit status", "git  commit status", "/bin/git status"]
        {
            assert!(!surely("git status", command), "{command:?}");
        }
    }

    #[test]
    fn nothing_that_a_shell_gives_a_meaning_to_is_surely_anything() {
        for tail in [
            "; rm -rf /",
            "&& rm x",
            "|| rm x",
            "| sh",
            "& rm x",
            "\nrm x",
            "\r\nrm x",
            "\rrm x",
            "$(rm x)",
            "`rm x`",
            "${IFS}x",
            "$HOME",
            "\"$(rm x)\"",
            "\"`rm x`\"",
            "\"$X\"",
            "> /etc/passwd",
            ">>x",
            "< /etc/shadow",
            "2>x",
            "&>x",
            "<(rm x)",
            ">(rm x)",
            "<<< x",
            "<<EOF\nx\nEOF",
            "*",
            "?",
            "[a]",
            "{a,b}",
            "~",
            "~root",
            "# rm",
            "!",
            "!!",
            "\"!x\"",
            "^a^b",
            "\\",
            "\\\nrm",
            "\"\\\"\"",
            "$'\\n'",
            "$\"x\"",
            "(rm)",
            "'unfinished",
            "\"unfinished",
            "\0",
            "\u{1b}[2J",
            "\u{a0}x",
            "\u{3000}x",
            "ü",
            "; ",
            "&",
        ] {
            let command = format!("git status {tail}");
            assert!(!surely("git status", &command), "{command:?}");
            let joined = format!("git status{tail}");
            assert!(!surely("git status", &joined), "{joined:?}");
        }
        for command in ["GIT_DIR=x git status", "PATH=/tmp git status", "", " ", "'' git status", "#", "! git status"] {
            assert!(!surely("git status", command), "{command:?}");
        }
        let long = format!("git status {}", "x".repeat(PERMISSION_COMMAND_BYTES_MAX));
        assert!(!surely("git status", &long), "a command too long to be judged");
    }

    #[test]
    fn a_restricted_command_is_found_wherever_it_stands() {
        for command in [
            "rm -rf /",
            "ls; rm x",
            "ls && rm x",
            "ls || rm x",
            "ls | xargs rm",
            "ls & rm x",
            "ls\nrm x",
            "(rm x)",
            "{ rm x; }",
            "echo $(rm x)",
            "echo `rm x`",
            "echo \"$(rm x)\"",
            "/bin/rm x",
            "../bin/rm x",
            "\\rm x",
            "r\\m x",
            "r''m x",
            "\"rm\" x",
            "'r'\"m\" x",
            "r\\\nm x",
            "sudo -u root rm x",
            "env A=b rm x",
            "A=b rm x",
            "sh -c 'rm x'",
            "sh -c \"cd /; rm x\"",
            "find . -exec rm {} +",
            "if true; then rm x; fi",
            "for f in a b; do rm $f; done",
            "cat <(rm x)",
            "> out rm x",
            "2>/dev/null rm x",
            "case a in a) rm x;; esac",
            "eval rm x",
            "time rm x",
            // Where nobody can tell what runs.
            "$CMD x",
            "${X} x",
            "r$Y x",
            "$(cat command) x",
            "`cat command` x",
            "/bin/r? x",
            "/b*/rm x",
            "{rm,-rf,x}",
            "ls; $CMD",
            "sudo $CMD",
            "A=b $CMD",
            ">out $CMD",
            "echo $(ls; $CMD)",
        ] {
            assert!(may_contain("rm", command), "{command:?}");
        }
        let long = "x".repeat(PERMISSION_COMMAND_BYTES_MAX + 1);
        assert!(may_contain("rm", &long), "a command too long to be judged");
    }

    #[test]
    fn a_command_without_the_restricted_one_is_left_alone() {
        for command in [
            "ls",
            "echo $HOME",
            "ls *.rs | wc -l",
            "cargo test -- --nocapture 2>&1",
            "echo $(date) $USER",
            "for f in *; do cat $f; done",
            "grep firm x",
            "cat rm.txt",
            "{ ls; }",
            "echo `date` $HOME",
            "A=$(date) ls",
        ] {
            assert!(!may_contain("rm", command), "{command:?}");
        }
    }

    #[test]
    fn several_words_are_found_with_options_between_but_not_across_commands() {
        for command in ["git push", "git -C x push --force", "git $X", "git \"push\"", "ls; git --no-pager push"] {
            assert!(may_contain("git push", command), "{command:?}");
        }
        for command in ["git pull; echo push", "push git", "git status", "git pull | grep push", "echo git"] {
            assert!(!may_contain("git push", command), "{command:?}");
        }
    }

    #[test]
    fn prefixes_are_plain_words() {
        for text in ["", " ", "a  b", " a", "a ", "a;b", "$X", "a b*", "A=b c", "a\tb", "a\n", "ä", "'a'"] {
            assert_eq!(CommandPrefix::parse(text), None, "{text:?}");
        }
        let read = |text| CommandPrefix::parse(text).expect(text);
        assert!(read("git").covers(&read("git push")) && !read("git push").covers(&read("git")));
    }
}
