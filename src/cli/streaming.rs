//! Showing a stream: JSON lines, or a run's text for a person.
//! Owns: which of the two it is, and when a run's stream ends.
//! May touch: the client and the streams it is handed.
//! Never: lets a person's view stand in for the data; JSON lines have everything.

use std::io;

use super::client::{Client, Stop, decode};
use super::context::Context;
use super::exit::CliError;
use super::live::Live;
use super::output::output_error;
use super::path::Path;
use super::run_view::RunView;
use super::runs::run_path;
use super::stream::{Flow, Follow, Happening, follow};

/// A stream to print.
pub struct StreamRequest {
    /// Its path.
    pub path: Path,
    /// Begin behind this event.
    pub cursor: Option<u64>,
    /// Open it again when it ends.
    pub reconnect: bool,
    /// A person may be shown text instead of JSON lines.
    pub may_be_text: bool,
    /// End with this run.
    pub until_end_of: Option<String>,
}

impl StreamRequest {
    /// Prints the stream until it ends.
    ///
    /// # Errors
    /// As the client's, or standard output failed.
    pub fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let client = context.client()?;
        let as_text = self.may_be_text && context.out.is_for_a_person();
        let mut live = Live::new(self.until_end_of.is_none());
        let mut was_open = false;
        let mut watch = Watch { run_id: self.until_end_of.clone(), is_due: false, has_ended: false };
        let what = Follow {
            client: &client,
            path: self.path.clone(),
            cursor: self.cursor,
            reconnect: self.reconnect,
            stop: Stop::default(),
        };
        let out = &mut context.out;
        let result = follow(&what, &mut |happening| match happening {
            Happening::Opened => {
                // Asked only now that the stream is open: an end between the two is seen by one of them.
                watch.is_due = true;
                if as_text {
                    live.opened(out.stdout).map_err(output_error)?;
                }
                let is_first = !std::mem::replace(&mut was_open, true);
                let view = watch.look(&client)?;
                // Without a cursor nothing is replayed, so the text of a run that has ended is taken from its view.
                if let Some(view) = view.filter(|_| is_first && as_text && self.cursor.is_none()) {
                    live.finished(&view, out.stdout).map_err(output_error)?;
                    return Ok(Flow::Stop);
                }
                Ok(Flow::Continue)
            }
            Happening::Frame(frame) => {
                if as_text {
                    live.frame(&frame, out.stdout).map_err(output_error)?;
                } else {
                    out.line(&frame.document().compact())?;
                }
                if watch.run_id.is_some() && is_end_of_run(&frame.event, &frame.data) {
                    return Ok(Flow::Stop);
                }
                if frame.event != "heartbeat" {
                    return Ok(Flow::Continue);
                }
                // The replay, if there was one, is over when a heartbeat comes.
                watch.look(&client)?;
                Ok(if watch.has_ended { Flow::Stop } else { Flow::Continue })
            }
            Happening::Interrupted(message) => {
                if as_text {
                    live.interrupted(out.stdout).map_err(output_error)?;
                } else {
                    out.note(&message);
                }
                Ok(Flow::Continue)
            }
        });
        if as_text {
            live.end(context.out.stdout).map_err(output_error)?;
        }
        result
    }
}

/// Whether the run that a stream is to end with has ended before the stream could tell.
struct Watch {
    run_id: Option<String>,
    /// The question is open.
    is_due: bool,
    has_ended: bool,
}

impl Watch {
    /// Asks if that is due, and gives the view of a run that has ended. A daemon that does not answer just now
    /// is asked again at the next heartbeat.
    fn look(&mut self, client: &Client) -> Result<Option<RunView>, CliError> {
        let Some(run_id) = self.run_id.as_ref().filter(|_| self.is_due) else { return Ok(None) };
        let view: RunView = match client.get(&run_path(run_id)) {
            Ok(document) => decode(&document, "the run's view")?,
            Err(error) if error.is_transient() => return Ok(None),
            Err(error) => return Err(error),
        };
        self.is_due = false;
        self.has_ended = view.is_final();
        Ok(Some(view).filter(RunView::is_final))
    }
}

/// Whether an event of a run's own stream says that the run has ended.
pub fn is_end_of_run(event: &str, data: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Data {
        run: RunView,
    }
    event == "run_updated" && serde_json::from_str::<Data>(data).is_ok_and(|data| data.run.is_final())
}

/// Shows a run's text on `out` until the run has ended or `stop` is used. The text is a convenience:
/// whatever goes wrong ends it quietly.
pub fn show_live(client: &Client, run_id: &str, stop: Stop, out: &mut dyn io::Write) {
    let mut live = Live::new(false);
    let path = run_path(run_id).then("/stream");
    let what = Follow { client, path, cursor: Some(0), reconnect: true, stop };
    let _ = follow(&what, &mut |happening| {
        let shown = match &happening {
            Happening::Opened => live.opened(out),
            Happening::Interrupted(_) => live.interrupted(out),
            Happening::Frame(frame) => live.frame(frame, out),
        };
        shown.map_err(output_error)?;
        let ends = matches!(&happening, Happening::Frame(frame) if is_end_of_run(&frame.event, &frame.data));
        Ok(if ends { Flow::Stop } else { Flow::Continue })
    });
    let _ = live.end(out);
}
