//! What of an answer was shown, over all attempts of its call.
//! Owns: the decision what of a further attempt's text is new to those who watch.
//! Never: shows anything.

use crate::limits::SSE_PREVIEW_TEXT_BYTES_MAX;
use crate::providers::TEXT_SEPARATOR;

/// What a piece of text means to those who watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Nothing: it was shown before.
    Known,
    /// It continues what was shown.
    More(String),
    /// What was shown is void; this is the answer so far.
    Instead(String),
}

/// The text shown for one model call. Holds it once, bounded by what one stream may carry.
#[derive(Debug, Default)]
pub(super) struct LiveText {
    shown: String,
    /// Bytes of `shown` that the attempt in hand has repeated.
    at: usize,
    /// Bytes of `shown` that attempts do not repeat: what came before a pause of the vendor's.
    base: usize,
}

impl LiveText {
    /// Whether nothing was shown yet.
    pub(super) fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// A new attempt begins its answer from the start, or from the last pause on.
    pub(super) fn begin(&mut self) {
        self.at = self.base;
    }

    /// What was shown so far stands, and another request goes on behind it.
    pub(super) fn pause(&mut self) {
        self.base = self.at;
    }

    /// The whole answer begins again, on another route perhaps.
    pub(super) fn restart(&mut self) {
        (self.at, self.base) = (0, 0);
    }

    /// Takes more text of the attempt in hand. A model that says the same again is not shown again.
    pub(super) fn push(&mut self, text: &str) -> Piece {
        if self.base > 0 && self.at == self.base && !text.is_empty() {
            // The parts of an answer are joined like this.
            return self.take(&format!("{TEXT_SEPARATOR}{text}"));
        }
        self.take(text)
    }

    fn take(&mut self, text: &str) -> Piece {
        let ahead = &self.shown.as_bytes()[self.at..];
        let new = text.as_bytes();
        if ahead.starts_with(new) {
            self.at += new.len();
            return Piece::Known;
        }
        let repeated = ahead.len();
        if new.starts_with(ahead) && text.is_char_boundary(repeated) {
            let more = &text[repeated..];
            self.shown.push_str(more);
            self.at = self.shown.len();
            return Piece::More(more.to_string());
        }
        // What was repeated so far ends between two characters: it was pushed as text.
        self.shown.truncate(self.at);
        self.shown.push_str(text);
        self.at = self.shown.len();
        Piece::Instead(self.shown.clone())
    }

    /// The attempt in hand has succeeded; whether more was shown than it said.
    pub(super) fn is_too_long(&self) -> bool {
        self.at < self.shown.len()
    }
}

/// `text` in pieces that fit into one preview each, none cut within a character.
pub(super) fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = (0..=text.len().min(SSE_PREVIEW_TEXT_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end))?;
        let (piece, rest) = text.split_at(end);
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_shown_in_pieces_that_fit() {
        let text = "é".repeat(SSE_PREVIEW_TEXT_BYTES_MAX);
        let cut: Vec<&str> = pieces(&text).collect();
        assert!(cut.iter().all(|piece| piece.len() <= SSE_PREVIEW_TEXT_BYTES_MAX) && cut.concat() == text);
        assert_eq!(pieces("").count(), 0);
    }

    fn more(text: &str) -> Piece {
        Piece::More(text.to_string())
    }

    #[test]
    fn a_repeated_answer_is_shown_once_however_it_is_cut() {
        let mut live = LiveText::default();
        live.begin();
        assert_eq!([live.push("größ"), live.push("er ")], [more("größ"), more("er ")]);
        live.begin();
        assert_eq!([live.push("gr"), live.push("ößer Fu")], [Piece::Known, more("Fu")]);
        assert_eq!((live.push("chs"), live.is_too_long()), (more("chs"), false));
        live.begin();
        assert_eq!((live.push("größer Fuchs"), live.is_too_long()), (Piece::Known, false));
    }

    #[test]
    fn what_follows_a_pause_is_shown_behind_it_and_a_whole_new_answer_replaces_both() {
        let mut live = LiveText::default();
        live.restart();
        live.begin();
        assert_eq!(live.push("one"), more("one"));
        live.pause();
        live.begin();
        assert_eq!(live.push("two"), more("\n\ntwo"));
        live.begin();
        let again = [live.push("tw"), live.push("o!")];
        assert_eq!(again, [Piece::Known, more("!")], "an attempt repeats its own part only");
        live.begin();
        assert_eq!(live.push("three"), Piece::Instead("one\n\nthree".to_string()));
        live.restart();
        live.begin();
        assert_eq!(live.push("else"), Piece::Instead("else".to_string()));
    }

    #[test]
    fn another_answer_replaces_what_was_shown() {
        let mut live = LiveText::default();
        assert_eq!(live.push("one two"), more("one two"));
        live.begin();
        assert_eq!(live.push("one "), Piece::Known);
        assert_eq!(live.push("three"), Piece::Instead("one three".to_string()));
        assert_eq!(live.push("!"), more("!"));
        live.begin();
        assert_eq!((live.push("one"), live.is_too_long()), (Piece::Known, true));
        live.begin();
        // The same bytes up to the middle of a character are not the same text.
        let mut live = LiveText::default();
        live.push("aé");
        live.begin();
        assert_eq!(live.push("aè"), Piece::Instead("aè".to_string()));
    }
}
