//! Answers that a vendor gives in parts: what came is sent back as it is, and the model goes on.
//! Owns: the asking again after a pause, and the joining of the parts.
//! Never: keeps a part by itself; a crash between two of them has the whole answer asked for again.

use super::live_text::LiveText;
use super::run::Carried;
use super::turn::{Asked, Left};
use crate::core::Note;
use crate::limits::PROVIDER_PAUSES_MAX;
use crate::providers::{Message, Origin, Stop, TEXT_SEPARATOR, TurnOutcome, Usage};

impl Carried<'_> {
    /// Asks on the present route until there is a whole answer or none. Each request is an action of its own.
    pub(super) fn ask_route(&mut self, mut notes: Vec<Note>, live: &mut LiveText) -> Result<Asked, Left> {
        let mut begun: Option<TurnOutcome> = None;
        live.restart();
        for pauses in 0.. {
            let before = begun.as_ref().map(|begun| self.begun(begun));
            match self.ask_once(std::mem::take(&mut notes), live, before)? {
                Asked::Answered(response, part) => {
                    let mut whole = match begun.take() {
                        Some(before) => joined(before, part),
                        None => part,
                    };
                    if whole.stop != Stop::Pause {
                        return Ok(Asked::Answered(response, whole));
                    }
                    if pauses >= PROVIDER_PAUSES_MAX {
                        // As an answer that was cut: its items would ask for more of the same.
                        (whole.stop, whole.items) = (Stop::Length, Vec::new());
                        return Ok(Asked::Answered(response, whole));
                    }
                    notes = vec![response];
                    live.pause();
                    begun = Some(whole);
                }
                refused => return Ok(refused),
            }
        }
        unreachable!("the last pause returns")
    }

    /// What came so far, as it goes back.
    fn begun(&self, begun: &TurnOutcome) -> Message {
        let (tool_calls, items) = self.normalised(Vec::new(), begun.items.clone());
        let origin = Origin { route: self.route.id.clone(), model: self.model.clone() };
        Message::Assistant { text: self.redact(&begun.text), tool_calls, items, origin }
    }
}

/// Two parts as one answer. Of the input the newest figure counts, which holds the parts before it; of the output all.
fn joined(before: TurnOutcome, part: TurnOutcome) -> TurnOutcome {
    let texts: Vec<String> = [before.text, part.text].into_iter().filter(|text| !text.is_empty()).collect();
    let usage = match (before.usage, part.usage) {
        (Some(before), Some(part)) => Some(Usage {
            output_tokens: before.output_tokens.saturating_add(part.output_tokens),
            reasoning_tokens: before.reasoning_tokens.saturating_add(part.reasoning_tokens),
            ..part
        }),
        (before, part) => part.or(before),
    };
    // What of the items is dropped for the end, is dropped for the beginning.
    let items = match part.stop {
        Stop::Length | Stop::Refusal => Vec::new(),
        Stop::Done | Stop::ToolCalls | Stop::Pause => before.items.into_iter().chain(part.items).collect(),
    };
    TurnOutcome { text: texts.join(TEXT_SEPARATOR), items, usage, ..part }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str, item: &str, stop: Stop, output_tokens: u64) -> TurnOutcome {
        let raw = serde_json::value::RawValue::from_string(item.to_string()).expect("JSON");
        let usage = Usage { input_tokens: 10 * output_tokens, output_tokens, ..Usage::default() };
        let (tool_calls, response_id) = (Vec::new(), Some(text.to_string()));
        TurnOutcome { text: text.to_string(), items: vec![raw], tool_calls, usage: Some(usage), stop, response_id }
    }

    #[test]
    fn parts_are_one_answer_in_their_order() {
        let whole = joined(part("one", "1", Stop::Pause, 3), part("two", "2", Stop::Done, 4));
        assert_eq!(
            (whole.text.as_str(), whole.stop, whole.response_id.as_deref()),
            ("one\n\ntwo", Stop::Done, Some("two"))
        );
        assert_eq!(whole.items.iter().map(|item| item.get()).collect::<Vec<_>>(), ["1", "2"]);
        let usage = whole.usage.expect("counted");
        assert_eq!((usage.input_tokens, usage.output_tokens), (40, 7));
        let cut = joined(part("one", "1", Stop::Pause, 3), part("", "2", Stop::Length, 4));
        assert_eq!((cut.text.as_str(), cut.items.len()), ("one", 0));
    }
}
