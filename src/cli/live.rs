//! A run's text as it arrives, for a person.
//! Owns: putting previews and durable outputs together without showing anything twice.
//! May touch: the writer it is handed.
//! Never: passes a control character on; keeps the text it has shown.

use std::io::{self, Write};

use ring::digest::{Context, SHA256};
use serde::Deserialize;

use super::frame::Frame;
use super::json_text::terminal_safe;
use super::run_view::{OutputView, RunView};

#[derive(Deserialize)]
struct PreviewData {
    run_id: String,
    text: String,
    #[serde(default)]
    withdrawn: bool,
}

#[derive(Deserialize)]
struct OutputData {
    output: OutputView,
}

#[derive(Deserialize)]
struct RunData {
    run: RunView,
}

#[derive(Deserialize)]
struct GapData {
    #[serde(default)]
    reason: String,
}

/// Writes what a stream says about runs as text.
pub struct Live {
    /// The run whose text stands at the end of what was written.
    run_id: String,
    /// Digest and length of the previews shown since that run's last output.
    shown: Context,
    shown_bytes: usize,
    /// Nothing stands on the current line.
    at_line_start: bool,
    /// Several runs may appear, so each is announced.
    names_runs: bool,
    /// The stream is down, which has been said.
    is_down: bool,
}

impl Live {
    /// `names_runs`: announce which run speaks.
    pub fn new(names_runs: bool) -> Self {
        Self {
            run_id: String::new(),
            shown: Context::new(&SHA256),
            shown_bytes: 0,
            at_line_start: true,
            names_runs,
            is_down: false,
        }
    }

    /// Shows one event. A frame that does not have the expected form is not shown: the text is a
    /// convenience, `--output json` has everything.
    ///
    /// # Errors
    /// The writer failed.
    pub fn frame(&mut self, frame: &Frame, out: &mut dyn Write) -> io::Result<()> {
        match frame.event.as_str() {
            "preview" => match serde_json::from_str::<PreviewData>(&frame.data) {
                Ok(data) => self.preview(&data, out),
                Err(_) => Ok(()),
            },
            "output" => match serde_json::from_str::<OutputData>(&frame.data) {
                Ok(data) => self.output(&data.output, out),
                Err(_) => Ok(()),
            },
            "run_updated" => match serde_json::from_str::<RunData>(&frame.data) {
                Ok(data) => self.run_updated(&data.run, out),
                Err(_) => Ok(()),
            },
            "stream_gap" => {
                let reason = serde_json::from_str::<GapData>(&frame.data).map(|data| data.reason).unwrap_or_default();
                self.line(&format!("[events are missing here: {reason}]"), out)
            }
            _ => Ok(()),
        }
    }

    /// Shows the outputs of a finished run.
    ///
    /// # Errors
    /// The writer failed.
    pub fn finished(&mut self, run: &RunView, out: &mut dyn Write) -> io::Result<()> {
        for output in run.outputs() {
            self.output(output, out)?;
        }
        self.run_updated(run, out)
    }

    /// Says, once for each loss, that the stream was lost. What was shown of an answer may not be continued
    /// where it ended.
    ///
    /// # Errors
    /// The writer failed.
    pub fn interrupted(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.is_down, true) {
            return Ok(());
        }
        self.forget();
        self.line("[the connection was lost; waiting for the daemon]", out)
    }

    /// Says that a lost stream is back.
    ///
    /// # Errors
    /// The writer failed.
    pub fn opened(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.is_down, false) { self.line("[connected again]", out) } else { Ok(()) }
    }

    /// Ends the current line.
    ///
    /// # Errors
    /// The writer failed.
    pub fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        if !self.at_line_start {
            self.at_line_start = true;
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    fn preview(&mut self, preview: &PreviewData, out: &mut dyn Write) -> io::Result<()> {
        self.turn_to(&preview.run_id, out)?;
        if preview.withdrawn && self.shown_bytes > 0 {
            self.forget();
            return self.line("[the answer starts over]", out);
        }
        self.shown.update(preview.text.as_bytes());
        self.shown_bytes += preview.text.len();
        self.text(&preview.text, out)?;
        out.flush()
    }

    fn output(&mut self, output: &OutputView, out: &mut dyn Write) -> io::Result<()> {
        self.turn_to(&output.run_id, out)?;
        let content = output.content.as_str();
        let shown_bytes = self.shown_bytes;
        let is_continued = content
            .as_bytes()
            .get(..shown_bytes)
            .is_some_and(|head| ring::digest::digest(&SHA256, head).as_ref() == self.shown.clone().finish().as_ref());
        self.forget();
        match content.get(shown_bytes..).filter(|_| is_continued) {
            Some(rest) => self.text(rest, out)?,
            // Previews may be withdrawn or arrive with holes; what is durable is shown whole.
            None => {
                self.line("[the lines above were a preview; this is the text]", out)?;
                self.text(content, out)?;
            }
        }
        self.end(out)
    }

    fn run_updated(&mut self, run: &RunView, out: &mut dyn Write) -> io::Result<()> {
        let announce = self.names_runs || (run.is_final() && run.status != "completed");
        if !announce {
            return Ok(());
        }
        let error = run.error_text().map_or_else(String::new, |error| format!(": {error}"));
        self.line(&format!("[{} {}{error}]", run.run_id, run.status), out)
    }

    fn turn_to(&mut self, run_id: &str, out: &mut dyn Write) -> io::Result<()> {
        if self.run_id == run_id {
            return Ok(());
        }
        let is_first = self.run_id.is_empty();
        self.run_id = run_id.to_string();
        self.forget();
        if !is_first && self.names_runs {
            return self.line(&format!("[{run_id}]"), out);
        }
        self.end(out)
    }

    fn forget(&mut self) {
        self.shown = Context::new(&SHA256);
        self.shown_bytes = 0;
    }

    fn line(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        self.end(out)?;
        self.text(text, out)?;
        self.end(out)
    }

    fn text(&mut self, text: &str, out: &mut dyn Write) -> io::Result<()> {
        if let Some(last) = text.as_bytes().last() {
            self.at_line_start = *last == b'\n';
        }
        out.write_all(terminal_safe(text).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names_runs: bool, frames: &[(&str, &str)], expected: &str) {
        let mut out = Vec::new();
        let mut live = Live::new(names_runs);
        for (event, data) in frames {
            let frame = Frame { id: None, event: (*event).to_string(), data: (*data).to_string() };
            live.frame(&frame, &mut out).expect("a vector takes everything");
        }
        live.end(&mut out).expect("a vector takes everything");
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    const A: (&str, &str) = ("preview", r#"{"type":"preview","run_id":"run-1","text":"Hello "}"#);
    const B: (&str, &str) = ("preview", r#"{"type":"preview","run_id":"run-1","text":"wörld"}"#);
    const WHOLE: (&str, &str) = ("output", r#"{"type":"output","output":{"run_id":"run-1","content":"Hello wörld"}}"#);
    const DONE: (&str, &str) = ("run_updated", r#"{"run":{"run_id":"run-1","status":"completed"}}"#);

    #[test]
    fn text_appears_once_whether_previewed_wholly_partly_or_not_at_all() {
        check(false, &[A, B, WHOLE, DONE], "Hello wörld\n");
        check(false, &[A, WHOLE, DONE], "Hello wörld\n");
        check(false, &[WHOLE, DONE], "Hello wörld\n");
    }

    #[test]
    fn an_answer_that_starts_over_is_shown_from_its_start_and_only_once() {
        let over = ("preview", r#"{"type":"preview","run_id":"run-1","text":"","withdrawn":true}"#);
        check(false, &[B, over, A, B, WHOLE], "wörld\n[the answer starts over]\nHello wörld\n");
        check(false, &[over, A, B, WHOLE], "Hello wörld\n");
    }

    #[test]
    fn a_withdrawn_preview_is_followed_by_the_durable_text() {
        let withdrawn = "wörld\n[the lines above were a preview; this is the text]\nHello wörld\n";
        check(false, &[B, WHOLE], withdrawn);
        let repeated = "Hello Hello wörld\n[the lines above were a preview; this is the text]\nHello wörld\n";
        check(false, &[A, A, B, WHOLE], repeated);
    }

    #[test]
    fn a_lost_stream_is_told_once_and_the_durable_text_follows_whole() {
        let mut out = Vec::new();
        let mut live = Live::new(false);
        let show = |(event, data): (&str, &str), live: &mut Live, out: &mut Vec<u8>| {
            let frame = Frame { id: None, event: event.to_string(), data: data.to_string() };
            live.frame(&frame, out).expect("a vector takes everything");
        };
        live.opened(&mut out).expect("a vector takes everything");
        show(A, &mut live, &mut out);
        for _ in 0..2 {
            live.interrupted(&mut out).expect("a vector takes everything");
        }
        live.opened(&mut out).expect("a vector takes everything");
        show(WHOLE, &mut live, &mut out);
        let expected = "Hello \n[the connection was lost; waiting for the daemon]\n[connected again]\nHello wörld\n";
        assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
    }

    #[test]
    fn failures_gaps_and_other_runs_are_told_apart_from_the_text() {
        let failed = r#"{"run":{"run_id":"run-1","status":"failed","error":{"code":"provider_auth","message":"no"}}}"#;
        check(false, &[A, ("run_updated", failed)], "Hello \n[run-1 failed: provider_auth: no]\n");
        check(
            false,
            &[A, ("stream_gap", r#"{"reason":"replay_window"}"#)],
            "Hello \n[events are missing here: replay_window]\n",
        );
        let other = ("preview", r#"{"run_id":"run-2","text":"x"}"#);
        check(true, &[A, DONE, other], "Hello \n[run-1 completed]\n[run-2]\nx\n");
    }

    #[test]
    fn model_text_cannot_steer_the_terminal_and_unknown_frames_are_passed_over() {
        let evil = ("preview", "{\"run_id\":\"run-1\",\"text\":\"a\\u001b[2Jb\"}");
        check(false, &[("new_thing", "{}"), ("preview", "broken"), ("heartbeat", "{}"), evil], "a\\u{1b}[2Jb\n");
    }
}
