//! The Messages events folded: blocks, figures, stops and failures.
//! Owns: nothing but tests.
//! Never: ships.

use super::*;

fn fold(frames: &[&str]) -> Result<Option<(TurnOutcome, String, String)>, ProviderError> {
    let mut collector = MessagesCollector::default();
    let (mut text, mut thinking) = (String::new(), String::new());
    for frame in frames {
        let outcome = collector.frame(frame, &mut |event| match event {
            TurnEvent::TextDelta(delta) => text.push_str(delta),
            TurnEvent::ReasoningDelta(delta) => thinking.push_str(delta),
            TurnEvent::Started => {}
        })?;
        if let Some(outcome) = outcome {
            return Ok(Some((outcome, text, thinking)));
        }
    }
    Ok(None)
}

const START: &str = r#"{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":9,"cache_creation_input_tokens":5,"cache_read_input_tokens":4,"output_tokens":1}}}"#;
const STOP: &str = r#"{"type":"message_stop"}"#;

fn delta(reason: &str) -> String {
    format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}"}},"usage":{{"output_tokens":7}}}}"#)
}

#[test]
fn thinking_redacted_data_text_and_calls_go_back_byte_for_byte() {
    let end = delta("tool_use");
    let frames = [
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"need "}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"sum"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln+/=="}}"#,
        r#"{"type":"content_block_stop","index":0}"#,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"QUJD_-"}}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"so"}}"#,
        r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_9","name":"add","input":{},"caller":{"type":"direct"}}}"#,
        r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":""}}"#,
        r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"{\"a\": 2.50,"}}"#,
        r#"{"type":"content_block_delta","index":3,"delta":{"type":"input_json_delta","partial_json":"\"b\":3}"}}"#,
        r#"{"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"toolu_10","name":"now","input":{}}}"#,
        r#"{"type":"shiny_new","index":"x"}"#,
        &end,
        STOP,
    ];
    let (turn, text, thinking) = fold(&frames).expect("no error").expect("outcome");
    let items: Vec<&str> = turn.items.iter().map(|item| item.get()).collect();
    let expected = [
        r#"{"signature":"c2ln+/==","thinking":"need sum","type":"thinking"}"#,
        r#"{"data":"QUJD_-","type":"redacted_thinking"}"#,
        r#"{"text":"so","type":"text"}"#,
        r#"{"caller":{"type":"direct"},"id":"toolu_9","input":{"a": 2.50,"b":3},"name":"add","type":"tool_use"}"#,
        r#"{"id":"toolu_10","input":{},"name":"now","type":"tool_use"}"#,
    ];
    assert_eq!(items, expected);
    let calls: Vec<_> = turn.tool_calls.iter().map(|it| (&*it.call_id, &*it.name, &*it.arguments)).collect();
    assert_eq!(calls, [("toolu_9", "add", "{\"a\": 2.50,\"b\":3}"), ("toolu_10", "now", "{}")]);
    assert_eq!((turn.text.as_str(), text.as_str(), thinking.as_str()), ("so", "so", "need sum"));
    assert_eq!((turn.stop, turn.response_id.as_deref()), (Stop::ToolCalls, Some("msg_1")));
}

#[test]
fn input_is_the_sum_of_three_and_figures_not_told_again_keep_their_value() {
    let end = delta("end_turn");
    let (turn, ..) = fold(&[START, &end, STOP]).expect("no error").expect("outcome");
    let usage = Usage {
        input_tokens: 18,
        cached_input_tokens: 4,
        cache_write_tokens: 5,
        output_tokens: 7,
        reasoning_tokens: 0,
    };
    assert_eq!((turn.usage, turn.stop), (Some(usage), Stop::Done));
    let more = r#"{"type":"message_delta","delta":{},"usage":{"input_tokens":20,"output_tokens":8,"output_tokens_details":{"thinking_tokens":3}}}"#;
    let (turn, ..) = fold(&[START, &end, more, STOP]).expect("no error").expect("outcome");
    let usage = Usage { input_tokens: 29, output_tokens: 8, reasoning_tokens: 3, ..usage };
    assert_eq!(turn.usage, Some(usage));
}

#[test]
fn a_stream_is_an_answer_only_with_a_stop_reason_and_its_last_event() {
    let end = delta("end_turn");
    for frames in [&[START, &end][..], &[START][..], &[]] {
        assert!(fold(frames).expect("no error").is_none());
    }
    assert!(fold(&[START, STOP]).expect_err("no stop reason").is_truncation());
    assert!(MessagesCollector::default().end(true).expect_err("nothing came").is_truncation());
}

#[test]
fn stops_and_failures_have_their_class() {
    let text = |reason: &str| {
        let start = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"half"}}"#;
        fold(&[START, start, &delta(reason), STOP]).expect("no error").expect("outcome").0.stop
    };
    for (reason, stop) in [
        ("end_turn", Stop::Done),
        ("stop_sequence", Stop::Done),
        ("max_tokens", Stop::Length),
        ("model_context_window_exceeded", Stop::Length),
        ("pause_turn", Stop::Pause),
        ("refusal", Stop::Refusal),
        ("something_new", Stop::Done),
    ] {
        assert_eq!(text(reason), stop, "{reason}");
    }
    let silent = r#"{"type":"message_delta","delta":{"stop_reason":"refusal","stop_details":{"category":"bio"}}}"#;
    let refused = fold(&[START, silent, STOP]).expect_err("nothing was said");
    assert_eq!((refused.class, refused.message.contains("bio")), (ErrorClass::ContentFilter, true));
    let class = |frame: &str| fold(&[frame]).expect_err(frame).class;
    let error = |kind: &str| format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"m"}}}}"#);
    assert_eq!(class(&error("overloaded_error")), ErrorClass::Overload);
    assert_eq!(class(&error("rate_limit_error")), ErrorClass::RateLimit);
    assert_eq!(class(&error("authentication_error")), ErrorClass::Auth);
    assert_eq!(class(r#"{"type":"error"}"#), ErrorClass::Overload);
    assert_eq!(class(r#"{"error":{"type":"billing_error"}}"#), ErrorClass::Quota);
    for broken in [
        "{not json",
        r#"{"type":"message_start"}"#,
        r#"{"type":"content_block_start","index":-1,"content_block":{}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#,
    ] {
        assert_eq!(class(broken), ErrorClass::MalformedStream, "{broken}");
    }
}

#[test]
fn arguments_that_are_no_json_are_handed_on_and_sent_back_as_an_empty_object() {
    let end = delta("tool_use");
    let frames = [
        START,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"a\":"}}"#,
        &end,
        STOP,
    ];
    let (turn, ..) = fold(&frames).expect("no error").expect("outcome");
    assert_eq!(turn.tool_calls[0].arguments, "{\"a\":");
    assert_eq!(turn.items[0].get(), r#"{"id":"t","input":{},"name":"f","type":"tool_use"}"#);
}
