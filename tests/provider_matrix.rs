//! Every driver against everything that a provider does, well or badly: the right end for the right reason, no hang
//! beyond the limits of the route, and no word more or less than the answer.

#[path = "support/port.rs"]
mod port;
mod provider_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use kheish_daemon::net::Cancel;
use kheish_daemon::providers::{Driver, ErrorClass, InputPart, Message, Stop, ToolSpec, TurnRequest};
use port::Port;
use provider_support::{PATIENCE, asks, attempt, requests, route, scripted_route, server, until_settled};

/// How a cell ends.
#[derive(Debug, Clone, PartialEq)]
enum End {
    /// An answer: text, stop, and each call's name and arguments.
    Answer(String, Stop, Vec<(String, String)>),
    /// A failure.
    Failure(ErrorClass),
}

use End::Failure;
use ErrorClass::{
    Auth, ContentFilter, ContextTooLong, InvalidRequest, MalformedStream, Overload, Quota, RateLimit, Timeout,
};

fn text(text: &str) -> End {
    End::Answer(text.to_string(), Stop::Done, Vec::new())
}

fn calls(text: &str, calls: &[(&str, &str)]) -> End {
    let calls = calls.iter().map(|(name, arguments)| (name.to_string(), arguments.to_string())).collect();
    End::Answer(text.to_string(), Stop::ToolCalls, calls)
}

/// One cell: turns of the script (used up in order, the last one for ever), further keys of the route, the end, and
/// the requests it takes.
struct Cell {
    name: &'static str,
    turns: Vec<String>,
    route: &'static str,
    end: End,
    requests: u32,
}

fn cell(name: &'static str, turns: &[&str], end: End, requests: u32) -> Cell {
    Cell { name, turns: turns.iter().map(|turn| turn.to_string()).collect(), route: "", end, requests }
}

/// Codes that differ between vendors.
struct Words {
    context: &'static str,
    quota: &'static str,
    quota_in_stream: &'static str,
    filter: End,
    refusal: End,
    doubled_ids: (End, u32),
    cut_arguments: &'static str,
}

fn words(driver: Driver) -> Words {
    let refused = End::Answer("I will not.".to_string(), Stop::Refusal, Vec::new());
    let doubled = (Failure(MalformedStream), 2);
    let openai = Words {
        context: "error = {status = 400, code = 'context_length_exceeded'}",
        quota: "error = {status = 429, type = 'insufficient_quota', retry_after = '1'}",
        quota_in_stream: "insufficient_quota",
        filter: Failure(ContentFilter),
        refusal: refused.clone(),
        doubled_ids: doubled.clone(),
        cut_arguments: "{\"a\":",
    };
    match driver {
        Driver::Openai | Driver::Xai => openai,
        // History is built from the calls here, so that an id given twice can be replaced.
        Driver::OpenaiCompatible | Driver::Openrouter => {
            Words { doubled_ids: (calls("", &[("f", "{}"), ("g", "{}")]), 1), ..openai }
        }
        Driver::Anthropic => Words {
            context: "error = {status = 400, message = 'prompt is too long: 9 tokens > 8 maximum'}",
            quota: "error = {status = 429, code = 'enforced_spend_limit_reached', retry_after = '1'}",
            quota_in_stream: "billing_error",
            ..openai
        },
        Driver::Google => Words {
            context: "error = {status = 400, message = 'The input token count (9) exceeds the maximum'}",
            quota: "error = {status = 402}",
            quota_in_stream: "insufficient_quota",
            filter: Failure(ContentFilter),
            refusal: Failure(ContentFilter),
            doubled_ids: doubled,
            // This vendor sends objects, so that there is nothing to cut.
            cut_arguments: "{}",
        },
    }
}

const LONG_PIECE: &str = "The quick brown fox jumps over the lazy dog; größer, 速い, \u{1f98a}. ";

fn cells(driver: Driver) -> Vec<Cell> {
    let words = words(driver);
    let long = LONG_PIECE.repeat(2_000);
    let answered = |turn: &str| format!("text = 'one two three'\nchunk_chars = 2\n{turn}");
    let ok = || text("one two three");
    let mut cells = vec![
        cell(
            "text",
            &["text = 'héllo \u{1f600}\u{2028}\u{85}.'\nchunk_chars = 1"],
            text("héllo \u{1f600}\u{2028}\u{85}."),
            1,
        ),
        cell("echo", &[""], text("cell:echo;"), 1),
        cell(
            "tool-call",
            &["text = 'see'\ntool_calls = [{name = 'f', arguments = '{\"a\":[1,2]}', call_id = 'c1'}]"],
            calls("see", &[("f", "{\"a\":[1,2]}")]),
            1,
        ),
        cell(
            "parallel",
            &[
                "tool_calls = [{name = 'f', arguments = '{\"a\":1}'}, {name = 'f', arguments = '{\"a\":2}'}, {name = 'g'}]",
            ],
            calls("", &[("f", "{\"a\":1}"), ("f", "{\"a\":2}"), ("g", "{}")]),
            1,
        ),
        cell("long", &[&format!("text = '''{long}'''\nchunk_chars = 40")], text(&long), 1),
        cell("refusal", &["refusal = 'I will not.'\nchunk_chars = 3"], words.refusal, 1),
        cell(
            "length",
            &[&answered("fault = {kind = 'incomplete'}")],
            End::Answer("one two three".to_string(), Stop::Length, Vec::new()),
            1,
        ),
        cell("filter", &[&answered("fault = {kind = 'incomplete', code = 'content_filter'}")], words.filter, 1),
        // Forms of a stream that are all the same.
        cell("crlf", &[&answered("line_end = 'crlf'")], ok(), 1),
        cell("cr", &[&answered("line_end = 'cr'")], ok(), 1),
        cell("comments", &[&answered("comments = true")], ok(), 1),
        cell("unknown-events", &[&answered("unknown_events = true")], ok(), 1),
        cell("padded", &[&answered("padding_bytes = 1000000")], ok(), 1),
        cell(
            "split",
            &["text = 'größer \u{1f98a}'\nchunk_chars = 2\nsplit_bytes = 1\nline_end = 'crlf'"],
            text("größer \u{1f98a}"),
            1,
        ),
        cell("no-usage", &[&answered("no_usage = true")], ok(), 1),
        cell(
            "lying-usage",
            &[&answered(
                "usage = {input_tokens = 3, cached_input_tokens = 9223372036854775807, \
                 output_tokens = 9223372036854775807, reasoning_tokens = 9223372036854775807}",
            )],
            ok(),
            1,
        ),
        cell(
            "bad-arguments",
            &["tool_calls = [{name = 'f', arguments = '{\"a\":', raw = true}]"],
            calls("", &[("f", words.cut_arguments)]),
            1,
        ),
        cell(
            "doubled-ids",
            &["tool_calls = [{name = 'f', call_id = 'c'}, {name = 'g', call_id = 'c'}]"],
            words.doubled_ids.0,
            words.doubled_ids.1,
        ),
        // Answers that are none.
        cell("401", &["error = {status = 401}"], Failure(Auth), 1),
        cell("403", &["error = {status = 403}"], Failure(Auth), 1),
        cell("402", &["error = {status = 402}"], Failure(Quota), 1),
        cell("404", &["error = {status = 404}"], Failure(InvalidRequest), 1),
        cell("413", &["error = {status = 413}"], Failure(InvalidRequest), 1),
        cell("422", &["error = {status = 422, param = 'store'}"], Failure(InvalidRequest), 1),
        cell("302", &["error = {status = 302}"], Failure(InvalidRequest), 1),
        cell("context", &[words.context], Failure(ContextTooLong), 1),
        cell("quota", &[words.quota], Failure(Quota), 1),
        cell("429", &["error = {status = 429}"], Failure(RateLimit), 4),
        cell("429-hint", &["times = 2\nerror = {status = 429, retry_after_ms = 1}", &answered("")], ok(), 3),
        cell("429-no", &["error = {status = 429, should_retry = false}"], Failure(RateLimit), 1),
        cell("429-far", &["error = {status = 429, retry_after = '300'}"], Failure(RateLimit), 1),
        cell("408", &["times = 1\nerror = {status = 408}", &answered("")], ok(), 2),
        cell("500", &["error = {status = 500}"], Failure(Overload), 4),
        cell("503", &["times = 1\nerror = {status = 503, retry_after = '0.001'}", &answered("")], ok(), 2),
        cell("529", &["times = 3\nerror = {status = 529}", &answered("")], ok(), 4),
        cell("failed", &[&answered("fault = {kind = 'failed'}")], Failure(Overload), 4),
        cell("error-event", &[&answered("fault = {kind = 'error_event', after_frames = 4}")], Failure(Overload), 4),
        cell(
            "quota-in-stream",
            &[&answered(&format!("fault = {{kind = 'error_event', code = '{}'}}", words.quota_in_stream))],
            Failure(Quota),
            1,
        ),
        cell("truncated", &[&answered("fault = {kind = 'truncate'}")], Failure(MalformedStream), 4),
        cell(
            "cut-then-well",
            &[&answered("times = 1\nfault = {kind = 'truncate', after_frames = 5}"), &answered("")],
            ok(),
            2,
        ),
        cell(
            "disconnected",
            &[&answered("fault = {kind = 'disconnect', after_frames = 5}")],
            Failure(MalformedStream),
            4,
        ),
        cell("reset", &[&answered("fault = {kind = 'reset', after_frames = 5}")], Failure(MalformedStream), 4),
        cell("reset-then-well", &[&answered("times = 1\nfault = {kind = 'reset'}"), &answered("")], ok(), 2),
        cell("nothing", &[&answered("fault = {kind = 'truncate', after_frames = 0}")], Failure(MalformedStream), 4),
        cell("not-json", &[&answered("fault = {kind = 'malformed', after_frames = 4}")], Failure(MalformedStream), 2),
        cell("not-utf8", &[&answered("fault = {kind = 'not_utf8', after_frames = 4}")], Failure(MalformedStream), 2),
        cell("giant-frame", &[&answered("padding_bytes = 9000000")], Failure(MalformedStream), 2),
        cell("html", &["text = 'x'\ncontent_type = 'text/html; charset=utf-8'"], Failure(MalformedStream), 2),
    ];
    let hurried = |name, turn: &str, route: &'static str| Cell {
        name,
        turns: vec![turn.to_string()],
        route,
        end: Failure(Timeout),
        requests: 4,
    };
    cells.push(hurried("stall", &answered("fault = {kind = 'hang', after_frames = 4}"), "idle_timeout_ms = 100\n"));
    cells.push(hurried(
        "stall-at-once",
        &answered("fault = {kind = 'hang', after_frames = 0}"),
        "idle_timeout_ms = 100\n",
    ));
    cells.push(hurried("late-head", "text = 'x'\ndelay_ms = 600000", "first_byte_timeout_ms = 100\n"));
    cells.push(hurried("endless", &answered("chunk_delay_ms = 60"), "total_timeout_ms = 200\n"));
    cells
}

fn script(cells: &[Cell]) -> String {
    let turn = |cell: &Cell, turn: &String| format!("[[turn]]\nmatch = 'cell:{};'\n{turn}\n", cell.name);
    cells.iter().flat_map(|cell| cell.turns.iter().map(move |it| turn(cell, it))).collect()
}

fn tools() -> Vec<ToolSpec> {
    let tool = |name: &str| ToolSpec {
        name: name.to_string(),
        description: "a tool".to_string(),
        input_schema: r#"{"type":"object","properties":{"a":{"type":"integer"}}}"#.into(),
    };
    vec![tool("f"), tool("g")]
}

fn every_cell_ends_as_it_should(driver: Driver) {
    let cells = cells(driver);
    let server = server(&script(&cells));
    let mut wrong = Vec::new();
    let (done, ended) = bounded(1);
    for cell in &cells {
        let route = scripted_route(driver, &server, cell.route);
        let (name, done) = (cell.name, done.clone());
        let before = requests(&server).len();
        std::thread::spawn(move || {
            let (messages, tools) = ([Message::user(format!("cell:{name};"))], tools());
            let request = TurnRequest { tools: &tools, ..asks(&route, &messages) };
            let settled = until_settled(&route, &request);
            done.send(settled).expect("test listens");
        });
        let Ok((result, shown, attempts)) = ended.recv_timeout(PATIENCE) else { panic!("{driver:?} {name} hangs") };
        let end = match result {
            Ok(outcome) => {
                if shown != outcome.text {
                    wrong.push(format!("{name}: showed {shown:?} of {:?}", outcome.text));
                }
                let calls = outcome.tool_calls.into_iter().map(|call| (call.name, call.arguments)).collect();
                End::Answer(outcome.text, outcome.stop, calls)
            }
            Err(error) => {
                assert!(error.to_string().contains("; next: "), "{error}");
                Failure(error.class)
            }
        };
        let sent = requests(&server).len() - before;
        if (&end, attempts, sent) != (&cell.end, cell.requests, cell.requests as usize) {
            let cut = |end: &End| format!("{end:?}").chars().take(300).collect::<String>();
            wrong.push(format!(
                "{name}: {} after {attempts}, not {} after {}",
                cut(&end),
                cut(&cell.end),
                cell.requests
            ));
        }
    }
    assert!(wrong.is_empty(), "{driver:?}:\n{}", wrong.join("\n"));
}

#[test]
fn openai_ends_every_cell_as_it_should() {
    every_cell_ends_as_it_should(Driver::Openai);
}

#[test]
fn openai_compatible_ends_every_cell_as_it_should() {
    every_cell_ends_as_it_should(Driver::OpenaiCompatible);
}

#[test]
fn anthropic_ends_every_cell_as_it_should() {
    every_cell_ends_as_it_should(Driver::Anthropic);
}

#[test]
fn google_ends_every_cell_as_it_should() {
    every_cell_ends_as_it_should(Driver::Google);
}

#[test]
fn openrouter_ends_every_cell_as_it_should() {
    every_cell_ends_as_it_should(Driver::Openrouter);
}

#[test]
fn xai_ends_every_cell_as_it_should() {
    every_cell_ends_as_it_should(Driver::Xai);
}

#[test]
fn pictures_and_documents_reach_every_vendor_and_stay_here_when_the_route_takes_none() {
    let bytes: Arc<[u8]> = Arc::from(&b"\x89PNG not really"[..]);
    let parts = vec![
        InputPart::Text("what is it?".to_string()),
        InputPart::Image { media_type: "image/png".to_string(), bytes: bytes.clone() },
        InputPart::Document { media_type: "application/pdf".to_string(), name: "a.pdf".to_string(), bytes },
    ];
    let messages = [Message::User { parts }];
    for driver in Driver::ALL {
        let server = server("");
        let (taking, not_taking) =
            (scripted_route(driver, &server, ""), scripted_route(driver, &server, "multimodal_input = false\n"));
        let (result, _) = attempt(&taking, &asks(&taking, &messages), &Cancel::new());
        assert_eq!(result.expect("answer").text, "what is it?", "{driver:?}");
        let body = requests(&server)[0]["body"].to_string();
        // printf '\x89PNG not really' | base64
        assert_eq!(body.matches("iVBORyBub3QgcmVhbGx5").count(), 2, "{driver:?}: {body}");
        let (result, _) = attempt(&not_taking, &asks(&not_taking, &messages), &Cancel::new());
        assert_eq!(result.expect_err("refused here").code.as_deref(), Some("input_not_supported"));
        assert_eq!(requests(&server).len(), 1, "{driver:?}");
    }
}

#[test]
fn cancelling_ends_a_stalled_stream_at_once_and_closes_its_socket() {
    for driver in Driver::ALL {
        let server = server("[default]\ntext = 'one two'\nfault = {kind = 'hang', after_frames = 3}\n");
        let route = scripted_route(driver, &server, "");
        let cancel = Cancel::new();
        let (done, ended) = bounded(1);
        let stalled = std::thread::spawn({
            let cancel = cancel.clone();
            move || {
                let messages = [Message::user("hi")];
                done.send(attempt(&route, &asks(&route, &messages), &cancel).0).expect("test listens");
            }
        });
        while requests(&server).is_empty() {
            std::thread::yield_now();
        }
        cancel.cancel();
        let result = ended.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{driver:?} hangs"));
        assert_eq!(result.expect_err("cancelled").class, ErrorClass::Cancelled, "{driver:?}");
        stalled.join().expect("attempt");
        // The server's own side ends when the peer closes; stopping it would wait otherwise.
        server.stop();
    }
}

#[test]
fn no_server_is_a_network_failure() {
    let port = Port::reserve();
    for driver in Driver::ALL {
        let route = route(driver, &format!("http://{}", port.address()), "");
        let messages = [Message::user("hi")];
        let started = Instant::now();
        let (result, ..) = until_settled(&route, &asks(&route, &messages));
        assert_eq!(result.expect_err("nobody listens").class, ErrorClass::Network, "{driver:?}");
        assert!(started.elapsed() < PATIENCE + Duration::from_secs(1));
    }
}
