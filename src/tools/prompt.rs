//! Does the end of an output ask somebody something?
//! Owns: what a question to a person looks like at the end of a command's output.
//! Never: takes part in a decision about permission; a wrong guess costs a command its time, and is said.
//!
//! A command has no terminal: what it reads from standard input ends at once, and what it reads from `/dev/tty` fails. What is
//! left are programs that ask again and again, and such as wait for an answer by another way.

/// What a person would be asked to press or type.
const MARKS: &[&str] = &["[y/n]", "(y/n)", "[yes/no]", "(yes/no)", "yes/no", "y/n", "[y/n/a]", "(y/n/a)"];
/// The end of a line that waits.
const ENDS: &[&str] = &[
    "continue?",
    "proceed?",
    "overwrite?",
    "replace?",
    "password:",
    "passphrase:",
    "username:",
    "passcode:",
    "login:",
    "to continue",
    "any key",
    "press enter",
    "press return",
    "hit enter",
    "hit return",
];
/// The beginning of a question that ends with a question mark.
const QUESTIONS: &[&str] = &["do you want", "do you wish", "do you really", "are you sure", "would you like", "ok to "];

/// The question at the end of `tail`, as it is written there; `None` where there is none. Looks at the last line that is not
/// empty, which must not have been ended: a program that waits leaves the cursor behind its question.
pub fn question(tail: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(tail);
    let line = text.rsplit(['\n', '\r']).next().unwrap_or_default().trim();
    if line.is_empty() {
        return None;
    }
    let lower = line.to_lowercase();
    // What stands behind a mark is a default answer or a colon, and short.
    let has_mark = MARKS.iter().any(|mark| lower.rfind(mark).is_some_and(|at| lower.len() - at - mark.len() <= 12));
    let end = lower.trim_end_matches([' ', '.', '>', '!', ')', ']']);
    let has_end = ENDS.iter().any(|word| end.ends_with(word));
    let is_question = end.ends_with('?') && QUESTIONS.iter().any(|begin| lower.contains(begin));
    (has_mark || has_end || is_question).then(|| super::output::cut_escaped_tail(line, 200).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unfinished_line_that_asks_is_told_from_output() {
        for asks in [
            "Do you want to continue? [Y/n] ",
            "building\nOverwrite existing file? (y/N)",
            "fatal: x\nPassword for 'https://host': \nPassword:",
            "Enter passphrase for key '/k':\nEnter passphrase:",
            "Press any key to continue . . . ",
            "Are you sure you want to delete everything?",
            "Proceed (yes/no)? ",
            "Hit ENTER",
            "log in as root\nlogin: ",
        ] {
            assert!(question(asks.as_bytes()).is_some(), "{asks:?}");
        }
        for tells in [
            "",
            "done\n",
            "Do you want to continue? [Y/n] y\n",
            "compiling 12/400",
            "Are you sure?\nyes\n",
            "tests passed, y/n answers are documented in chapter four",
            "downloading what you would like",
            "\u{1b}[2K\u{1b}[1G",
            "what?",
        ] {
            assert_eq!(question(tells.as_bytes()), None, "{tells:?}");
        }
    }

    #[test]
    fn a_long_line_and_bytes_that_are_no_text_are_bounded() {
        let long = format!("{} continue?", "x".repeat(100_000));
        assert!(question(long.as_bytes()).unwrap().len() <= 200);
        let mut bytes = vec![0xff; 2_000];
        bytes.extend_from_slice(b" [y/n] ");
        assert!(question(&bytes).is_some());
    }
}
