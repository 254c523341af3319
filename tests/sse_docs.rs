//! docs/events.md says what the code does.

use kheish_daemon::api::events::TABLE;
use kheish_daemon::limits::{
    SSE_CLIENT_BUFFER_BYTES_MAX, SSE_CREDENTIAL_CHECK_MS, SSE_ERROR_CUT_BYTES, SSE_FRAME_DATA_BYTES_MAX,
    SSE_HEARTBEAT_MS, SSE_OUTPUT_CUT_BYTES, SSE_STALL_MS, SSE_STREAMS_MAX,
};
use kheish_daemon::sse::{Audience, GapReason, RESPONSE_HEADERS};

fn document() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/events.md")).expect("docs/events.md is there")
}

#[test]
fn the_documented_table_is_the_table() {
    let document = document();
    let rows: Vec<&str> = document
        .lines()
        .skip_while(|line| !line.starts_with("| record kind |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<String> = TABLE
        .iter()
        .map(|(kind, wire)| match (wire.event(), wire.audience()) {
            (Some(event), Some(audience)) => {
                let carried = match audience {
                    Audience::Run => "global, session, run",
                    Audience::Session => "global, session",
                    Audience::Global => "global",
                };
                format!("| `{kind}` | `{event}` | {carried} |")
            }
            _ => format!("| `{kind}` | none | |"),
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn every_event_gap_reason_header_and_bound_is_documented() {
    let document = document();
    let mut wanted: Vec<String> =
        TABLE.iter().filter_map(|(_, wire)| wire.event()).map(|e| format!("| `{e}` |")).collect();
    wanted.extend(GapReason::ALL.iter().map(|reason| format!("`{}`", reason.as_str())));
    wanted.extend(RESPONSE_HEADERS.iter().map(|(name, value)| format!("`{name}: {value}`")));
    let thousands = |number: usize| {
        let digits = number.to_string();
        let head = (digits.len() - 1) % 3 + 1;
        let mut text = digits[..head].to_string();
        for group in digits.as_bytes()[head..].chunks(3) {
            text.push(',');
            text.push_str(std::str::from_utf8(group).expect("digits are text"));
        }
        text
    };
    wanted.extend([
        format!("at most {} bytes long", thousands(SSE_FRAME_DATA_BYTES_MAX)),
        format!("cut at {} KiB", SSE_ERROR_CUT_BYTES / 1024),
        format!("first {} KiB of `content`", SSE_OUTPUT_CUT_BYTES / 1024),
        format!("after {} s of silence", SSE_HEARTBEAT_MS / 1000),
        format!("At most {} KiB wait", SSE_CLIENT_BUFFER_BYTES_MAX / 1024),
        format!("takes nothing for {} s", SSE_STALL_MS / 1000),
        format!("At most {} streams are open", thousands(SSE_STREAMS_MAX)),
        format!("again every {} s", SSE_CREDENTIAL_CHECK_MS / 1000),
    ]);
    let missing: Vec<String> = wanted.into_iter().filter(|text| !document.contains(text.as_str())).collect();
    assert_eq!(missing, Vec::<String>::new());
}
