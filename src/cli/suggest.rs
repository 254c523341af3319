//! "Did you mean …?"
//! Owns: the distance between a misspelt word and the known ones.
//! Never: changes what was typed.

/// The known word closest to `typed`, when it is close enough to be what was meant.
pub fn closest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let bare = typed.trim_start_matches('-');
    if bare.is_empty() {
        return None;
    }
    known
        .map(|word| (score(bare, word.trim_start_matches('-')), word))
        .min_by_key(|(score, _)| *score)
        .filter(|(score, word)| *score <= 1 + word.trim_start_matches('-').len() / 4)
        .map(|(_, word)| word)
}

/// Edits between the words; a word that was only begun counts as one edit.
fn score(typed: &str, word: &str) -> usize {
    if typed.len() >= 3 && word.starts_with(typed) {
        return 1;
    }
    distance(typed.as_bytes(), word.as_bytes())
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before_previous: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut current = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut best = (previous[j] + usize::from(from != to)).min(previous[j + 1] + 1).min(current[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                best = best.min(before_previous[j - 1] + 1);
            }
            current.push(best);
        }
        before_previous = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_different_word_is_not() {
        let known = ["sessions", "runs", "status", "--token-file", "--token", "--output"];
        let table = [
            ("sesions", Some("sessions")),
            ("session", Some("sessions")),
            ("statsu", Some("status")),
            ("rusn", Some("runs")),
            ("stat", Some("status")),
            ("--tokne", Some("--token")),
            ("--out", Some("--output")),
            ("--tokenfile", Some("--token-file")),
            ("banana", None),
            ("x", None),
            ("--", None),
        ];
        for (typed, expected) in table {
            assert_eq!(closest(typed, known.into_iter()), expected, "{typed}");
        }
    }
}
