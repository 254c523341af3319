//! What each driver puts on the wire and what it takes off it: headers and bodies, streams cut and split at every byte,
//! and history that goes back to the same model as it came and to another without what is private.

mod provider_support;

use kheish_daemon::net::Cancel;
use kheish_daemon::providers::{
    Driver, Effort, Message, Origin, OutputSchema, Reasoning, Stop, ToolChoice, ToolResult, ToolSpec, TurnOptions,
    TurnOutcome, TurnRequest,
};
use provider_support::{
    asks, attempt, last_request, model_of, read_stream, requests, scripted_route, server, stream_bytes,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// An answer with a bit of everything.
const RICH: &str = "[[turn]]\nmatch = 'hi'\ntimes = 1\ntext = 'größer \u{1f98a}\u{2028}two'\nchunk_chars = 4\n\
    thinking = 'hm'\nreasoning = 'b3BhcXVl'\nusage = {input_tokens = 9, cached_input_tokens = 4, output_tokens = 7, \
    reasoning_tokens = 2}\ntool_calls = [{name = 'f', arguments = '{\"a\":[1,2]}', call_id = 'c1'}, \
    {name = 'f', arguments = '{\"a\":3}', call_id = 'c2'}]\n";

fn tools() -> Vec<ToolSpec> {
    let input_schema = r#"{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}"#;
    vec![ToolSpec { name: "f".to_string(), description: "a tool".to_string(), input_schema: input_schema.into() }]
}

/// Everything of an outcome; none of it depends on how its bytes arrived.
fn parts(outcome: &TurnOutcome) -> String {
    format!("{outcome:#?}")
}

fn rich_stream(driver: Driver) -> Vec<u8> {
    let server = server(RICH);
    stream_bytes(&scripted_route(driver, &server, ""), &server, "hi")
}

#[test]
fn a_stream_reads_the_same_however_it_is_cut_and_whatever_legal_form_it_has() {
    for driver in Driver::ALL {
        let bytes = rich_stream(driver);
        let (whole, shown) = read_stream(driver, &bytes, bytes.len(), true).expect("answer");
        assert_eq!(
            (whole.text.as_str(), shown.as_str()),
            ("größer \u{1f98a}\u{2028}two", "größer \u{1f98a}\u{2028}two")
        );
        assert_eq!((whole.stop, whole.tool_calls.len()), (Stop::ToolCalls, 2), "{driver:?}");
        let usage = whole.usage.expect("figures");
        let figures = (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens, usage.reasoning_tokens);
        assert_eq!(figures, (9, 4, 7, 2), "{driver:?}");
        let expected = parts(&whole);
        for piece in 1..80 {
            let (outcome, shown) = read_stream(driver, &bytes, piece, true).expect("answer");
            assert_eq!((parts(&outcome), shown), (expected.clone(), whole.text.clone()), "{driver:?} {piece}");
        }
        let text = String::from_utf8(bytes).expect("UTF-8");
        let forms = [
            text.replace('\n', "\r\n"),
            text.replace('\n', "\r"),
            format!("\u{feff}: a comment\n\nid: 4\nretry: 10\nfoo: bar\n{text}"),
            // One event's data over several lines: between two tokens of JSON a line end means nothing.
            text.replace("data: {", "data: {\ndata:"),
            text.replace("data: ", "data:"),
            text.replace("\n\n", "\n: keep-alive\n\n"),
            text.replace("\n\n", "\n\ndata:\n\n"),
            text.lines().filter(|line| !line.starts_with("event:")).map(|line| format!("{line}\n")).collect(),
        ];
        for (number, form) in forms.iter().enumerate() {
            for piece in [1, 7, form.len()] {
                let (outcome, _) = read_stream(driver, form.as_bytes(), piece, true)
                    .unwrap_or_else(|error| panic!("{driver:?} form {number} in {piece}: {error}"));
                assert_eq!(parts(&outcome), expected, "{driver:?} form {number} in {piece}");
            }
        }
    }
}

#[test]
fn a_stream_that_ends_anywhere_before_its_end_is_truncated_and_never_an_answer() {
    for driver in Driver::ALL {
        let bytes = rich_stream(driver);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // Where the condition of success is met: the frame that says so is whole.
        let marker = match driver {
            Driver::Openai | Driver::Xai => "event: response.completed",
            Driver::OpenaiCompatible | Driver::Openrouter => "\"finish_reason\":\"tool_calls\"",
            Driver::Anthropic => "event: message_stop",
            Driver::Google => "\"finishReason\":\"STOP\"",
        };
        let at = text.find(marker).expect("the marker");
        let met = at + text[at..].find("\n\n").expect("a frame's end") + 2;
        for end in 0..met {
            for clean in [true, false] {
                match read_stream(driver, &bytes[..end], 4096, clean) {
                    Err(error) => assert!(error.is_truncation(), "{driver:?} {end} {clean}: {error}"),
                    Ok(_) => panic!("{driver:?} took {end} of {} bytes for an answer", bytes.len()),
                }
            }
        }
        let (outcome, _) = read_stream(driver, &bytes[..met], 4096, true).expect("the condition is met");
        assert_eq!(outcome.stop, Stop::ToolCalls, "{driver:?}");
    }
}

#[test]
fn exactly_one_header_carries_the_credential_in_the_vendors_form() {
    // printf %s sk-test | sha256sum
    let sha256 = "f3abf2a6cc4f00987743db5f544ba345b4899ae31f326d8ee9c4816de153c9e0";
    let bearer = (json!({"scheme": "Bearer", "sha256": sha256}), Value::Null);
    let named = |header: &str| (Value::Null, json!({"header": header, "sha256": sha256}));
    let old = "anthropic_version = \"2023-06-01\"\n";
    let cases = [
        (Driver::Openai, "", bearer.clone(), "/v1/responses"),
        (Driver::OpenaiCompatible, "", bearer.clone(), "/v1/chat/completions"),
        (Driver::Anthropic, "", bearer.clone(), "/v1/messages"),
        (Driver::Anthropic, old, named("x-api-key"), "/v1/messages"),
        (Driver::Google, "", named("x-goog-api-key"), "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse"),
        (Driver::Openrouter, "", bearer.clone(), "/v1/chat/completions"),
        (Driver::Xai, "", bearer, "/v1/responses"),
    ];
    for (driver, more, credential, path) in cases {
        let server = server("");
        let route = scripted_route(driver, &server, more);
        let messages = [Message::user("hi")];
        attempt(&route, &asks(&route, &messages), &Cancel::new()).0.expect("answer");
        let seen = last_request(&server);
        assert_eq!((seen["authorization"].clone(), seen["api_key"].clone()), credential, "{driver:?} {more}");
        assert_eq!(seen["path"], path);
        let version = match (driver, more) {
            (Driver::Anthropic, "") => json!("2026-10-21"),
            (Driver::Anthropic, _) => json!("2023-06-01"),
            _ => Value::Null,
        };
        assert_eq!(seen["anthropic_version"], version, "{driver:?}");
        assert_eq!(seen["anthropic_beta"], Value::Null, "{driver:?}");
    }
}

#[test]
fn the_betas_of_a_route_are_one_header() {
    let server = server("");
    let route = scripted_route(Driver::Anthropic, &server, "anthropic_beta_headers = ['one-1', 'two-2']");
    let messages = [Message::user("hi")];
    attempt(&route, &asks(&route, &messages), &Cancel::new()).0.expect("answer");
    assert_eq!(last_request(&server)["anthropic_beta"], "one-1,two-2");
}

#[test]
fn thinking_between_calls_is_asked_for_where_a_model_does_so_only_then() {
    let beta = |model: &str, own: &str, interleaved, tools: &[ToolSpec], choice| {
        let server = server("[default]\ntext = 'ok'\n");
        let route = scripted_route(Driver::Anthropic, &server, own);
        let messages = [Message::user("hi")];
        let mut request = TurnRequest { model, tools, ..asks(&route, &messages) };
        request.options.tool_choice = choice;
        request.options.reasoning = Reasoning { budget_tokens: Some(2_048), interleaved, ..Reasoning::default() };
        let answer = attempt(&route, &request, &Cancel::new()).0;
        if answer.is_ok() { last_request(&server)["anthropic_beta"].clone() } else { Value::from("no answer") }
    };
    let (tools, name) = (tools(), json!("interleaved-thinking-2025-05-14"));
    assert_eq!(beta("claude-sonnet-4-5", "", true, &tools, ToolChoice::Auto), name);
    assert_eq!(beta("claude-sonnet-4-5", "", false, &tools, ToolChoice::Auto), Value::Null);
    assert_eq!(beta("claude-sonnet-4-5", "", true, &[], ToolChoice::Auto), Value::Null, "between no calls");
    assert_eq!(beta("claude-opus-4-8", "", true, &tools, ToolChoice::Auto), Value::Null, "it does so by itself");
    assert_eq!(beta("claude-3-5-haiku-20241022", "", true, &tools, ToolChoice::Auto), Value::Null, "it does not think");
    let own = "anthropic_beta_headers = ['one-1']";
    assert_eq!(
        beta("claude-sonnet-4-5", own, true, &tools, ToolChoice::Auto),
        json!(format!("one-1,{}", "interleaved-thinking-2025-05-14"))
    );
    let same = "anthropic_beta_headers = ['interleaved-thinking-2025-05-14']";
    assert_eq!(beta("claude-sonnet-4-5", same, true, &tools, ToolChoice::Auto), name, "once");
}

/// The body that `driver` sends for `request`, which is completed with route, model and messages.
fn body_of(
    driver: Driver,
    model: &str,
    more: &str,
    messages: &[Message],
    change: &dyn Fn(&mut TurnRequest<'_>),
) -> Value {
    let server = server("[default]\ntext = 'ok'\n");
    let route = scripted_route(driver, &server, more);
    let mut request = TurnRequest { model, ..asks(&route, messages) };
    change(&mut request);
    attempt(&route, &request, &Cancel::new()).0.expect("answer");
    last_request(&server)["body"].clone()
}

#[test]
fn no_anthropic_model_is_sent_a_sampling_field_it_refuses() {
    let body = |model: &str, more: &str, effort| {
        body_of(Driver::Anthropic, model, more, &[Message::user("hi")], &|request| {
            request.temperature = Some(0.3);
            request.options.reasoning.effort = effort;
        })
    };
    let old = "anthropic_version = \"2023-06-01\"\n";
    for model in ["claude-opus-4-8", "claude-sonnet-4-6", "claude-3-5-haiku-20241022", "claude-something-new"] {
        for effort in [None, Some(Effort::None), Some(Effort::High)] {
            let body = body(model, "", effort).to_string();
            for field in ["temperature", "top_p", "top_k"] {
                assert!(!body.contains(field), "{model}: {body}");
            }
        }
    }
    assert_eq!(body("claude-3-5-haiku-20241022", old, None)["temperature"], json!(0.3));
    assert_eq!(body("claude-sonnet-4-6", old, None)["temperature"], json!(0.3));
    for (model, effort) in [("claude-opus-4-8", None), ("claude-sonnet-4-6", Some(Effort::Low))] {
        assert_eq!(body(model, old, effort).get("temperature"), None, "{model}");
    }
}

/// The second half of a tool turn, as the engine keeps it.
fn history(driver: Driver, first: &TurnOutcome, model: &str) -> Vec<Message> {
    let result = |call_id: &str, is_error| ToolResult {
        call_id: call_id.to_string(),
        name: "f".to_string(),
        content: "{\"sum\":5}".to_string(),
        is_error,
    };
    let origin = Origin { route: "main".to_string(), model: model.to_string() };
    let _same_for_all = driver;
    vec![
        Message::user("hi"),
        Message::Assistant {
            text: first.text.clone(),
            tool_calls: first.tool_calls.clone(),
            items: first.items.clone(),
            origin,
        },
        Message::ToolResults { results: vec![result("c1", false), result("c2", true)] },
        Message::user("and now?"),
    ]
}

#[test]
fn reasoning_goes_back_to_the_same_model_untouched_and_to_no_other_while_calls_and_results_always_do() {
    for driver in Driver::ALL {
        let server = server(RICH);
        let route = scripted_route(driver, &server, "");
        let model = model_of(driver);
        let tools = tools();
        let send = |messages: &[Message], model: &str| {
            let request = TurnRequest { tools: &tools, model, ..asks(&route, messages) };
            attempt(&route, &request, &Cancel::new()).0.expect("answer")
        };
        let first = send(&[Message::user("hi")], model);
        assert!(!first.items.is_empty(), "{driver:?}");
        send(&history(driver, &first, model), model);
        let same = last_request(&server)["body"].to_string();
        assert!(same.contains("b3BhcXVl"), "{driver:?}: {same}");
        assert!(!same.contains("cGFydA"), "the unfinished copy of the reasoning is not the one to keep");
        send(&history(driver, &first, "another-model"), model);
        let other = last_request(&server)["body"].to_string();
        assert!(!other.contains("b3BhcXVl") && !other.contains("hm"), "{driver:?}: {other}");
        for body in [&same, &other] {
            for part in ["größer \u{1f98a}\u{2028}two", "c1", "c2", "and now?", "sum"] {
                assert!(body.contains(part), "{driver:?} lost {part}: {body}");
            }
            // Each call and each result names its id once.
            assert_eq!((body.matches("\"c1\"").count(), body.matches("\"c2\"").count()), (2, 2), "{driver:?}: {body}");
        }
    }
}

#[test]
fn anthropic_gets_results_first_in_one_turn_and_no_blank_text() {
    let first = {
        let server = server(RICH);
        let bytes = stream_bytes(&scripted_route(Driver::Anthropic, &server, ""), &server, "hi");
        read_stream(Driver::Anthropic, &bytes, bytes.len(), true).expect("answer").0
    };
    let mut messages = history(Driver::Anthropic, &first, model_of(Driver::Anthropic));
    messages.insert(1, Message::user(" \n"));
    let body = body_of(Driver::Anthropic, model_of(Driver::Anthropic), "", &messages, &|_| {});
    let expected = json!([
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "b3BhcXVl"},
            {"type": "text", "text": "größer \u{1f98a}\u{2028}two"},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": [1, 2]}},
            {"type": "tool_use", "id": "c2", "name": "f", "input": {"a": 3}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": "{\"sum\":5}"},
            {"type": "tool_result", "tool_use_id": "c2", "content": "{\"sum\":5}", "is_error": true},
            {"type": "text", "text": "and now?"},
        ]},
    ]);
    assert_eq!(body["messages"], expected);
}

#[test]
fn google_gets_a_made_up_id_neither_with_the_call_nor_with_its_result() {
    let script = "[[turn]]\nmatch = 'hi'\ntimes = 1\nreasoning = 'AQID-_=='\ntool_calls = [{name = 'f'}]\n";
    let server = server(script);
    let route = scripted_route(Driver::Google, &server, "");
    let messages = [Message::user("hi")];
    let first = attempt(&route, &asks(&route, &messages), &Cancel::new()).0.expect("answer");
    let call_id = first.tool_calls[0].call_id.clone();
    for model in [model_of(Driver::Google), "another-model"] {
        let mut messages = history(Driver::Google, &first, model);
        let result = ToolResult { call_id: call_id.clone(), name: "f".into(), content: "5".into(), is_error: false };
        messages[2] = Message::ToolResults { results: vec![result] };
        attempt(&route, &asks(&route, &messages), &Cancel::new()).0.expect("answer");
        let body = last_request(&server)["body"].clone();
        assert!(!body.to_string().contains(&call_id), "{body}");
        assert_eq!(
            body["contents"][2]["parts"][0],
            json!({"functionResponse": {"name": "f", "response": {"output": "5"}}})
        );
        let is_same = model == model_of(Driver::Google);
        assert_eq!(body["contents"][1]["parts"][0].get("thoughtSignature"), is_same.then_some(&json!("AQID-_==")));
    }
}

#[test]
fn an_answer_cut_by_its_length_leaves_no_call_without_a_result() {
    let script = "[[turn]]\ntext = 'half'\nreasoning = 'b3BhcXVl'\ntool_calls = [{name = 'f', arguments = '{\"a\":', \
                  raw = true}]\nfault = {kind = 'incomplete'}\n";
    for driver in Driver::ALL {
        let server = server(script);
        let route = scripted_route(driver, &server, "");
        let messages = [Message::user("hi")];
        let outcome = attempt(&route, &asks(&route, &messages), &Cancel::new()).0.expect("answer");
        let left = (outcome.text.as_str(), outcome.stop, outcome.tool_calls.len(), outcome.items.len());
        assert_eq!(left, ("half", Stop::Length, 0, 0), "{driver:?}");
    }
}

#[test]
fn choices_schemas_and_effort_take_each_vendors_form() {
    let schema = r#"{"type":"object","properties":{"n":{"type":"integer","minimum":1}}}"#;
    let schema: &RawValue = serde_json::from_str(schema).expect("JSON");
    let tools = tools();
    let options = TurnOptions {
        tool_choice: ToolChoice::Tool("f"),
        parallel_tool_calls: Some(false),
        output_schema: Some(OutputSchema { name: "reply", schema }),
        reasoning: Reasoning::default(),
    };
    let effort = Reasoning { effort: Some(Effort::Low), summary: true, ..Reasoning::default() };
    let body = |driver, options: TurnOptions<'static>| {
        body_of(driver, model_of(driver), "", &[Message::user("hi")], &|request| {
            request.options = options;
            request.max_output_tokens = Some(77);
        })
    };
    // Lives as long as the test binary: the request is built in another function.
    let tools: &'static [ToolSpec] = Box::leak(tools.into_boxed_slice());
    let schema: &'static RawValue = Box::leak(schema.to_owned());
    let options = TurnOptions { output_schema: Some(OutputSchema { name: "reply", schema }), ..options };
    let with_tools = |driver| {
        body_of(driver, model_of(driver), "", &[Message::user("hi")], &|request| {
            request.tools = tools;
            request.options = options;
            request.max_output_tokens = Some(77);
        })
    };
    let loose = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}});
    let openai = with_tools(Driver::Openai);
    assert_eq!(openai["tool_choice"], json!({"type": "function", "name": "f"}));
    assert_eq!((&openai["parallel_tool_calls"], &openai["max_output_tokens"]), (&json!(false), &json!(77)));
    let format = json!({"type": "json_schema", "name": "reply", "schema": loose, "strict": false});
    assert_eq!(openai["text"]["format"], format);
    assert_eq!((&openai["store"], &openai["tools"][0]["strict"]), (&json!(false), &json!(false)));

    let xai = with_tools(Driver::Xai);
    assert_eq!((xai.get("instructions"), xai["tools"][0].get("strict")), (None, None));
    assert_eq!(xai["input"][0], json!({"role": "system", "content": [{"type": "input_text", "text": "Be brief."}]}));

    for driver in [Driver::OpenaiCompatible, Driver::Openrouter] {
        let chat = with_tools(driver);
        assert_eq!(chat["tool_choice"], json!({"type": "function", "function": {"name": "f"}}));
        assert_eq!((&chat["max_tokens"], &chat["stream_options"]), (&json!(77), &json!({"include_usage": true})));
        let format = json!({"type": "json_schema", "json_schema": {"name": "reply", "schema": loose, "strict": false}});
        assert_eq!(chat["response_format"], format);
        assert_eq!(chat["messages"][0], json!({"role": "system", "content": "Be brief."}));
    }

    let anthropic = with_tools(Driver::Anthropic);
    assert_eq!(anthropic["tool_choice"], json!({"type": "tool", "name": "f", "disable_parallel_tool_use": true}));
    assert_eq!((&anthropic["thinking"], &anthropic["max_tokens"]), (&json!({"type": "disabled"}), &json!(77)));
    let closed = json!({"type": "object", "additionalProperties": false,
                        "properties": {"n": {"type": "integer", "description": "(minimum: 1)"}}});
    assert_eq!(anthropic["output_config"]["format"], json!({"type": "json_schema", "schema": closed}));

    let google = with_tools(Driver::Google);
    let calling = json!({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}});
    assert_eq!(google["toolConfig"], calling);
    let config = json!({"maxOutputTokens": 77, "responseMimeType": "application/json", "responseJsonSchema": loose});
    assert_eq!(google["generationConfig"], config);

    let thinking = |driver| body(driver, TurnOptions { reasoning: effort, ..TurnOptions::default() });
    assert_eq!(thinking(Driver::Openai)["reasoning"], json!({"effort": "low", "summary": "auto"}));
    assert_eq!(thinking(Driver::Xai).get("reasoning"), None);
    assert_eq!(thinking(Driver::OpenaiCompatible)["reasoning_effort"], json!("low"));
    assert_eq!(thinking(Driver::Openrouter)["reasoning"], json!({"effort": "low", "summary": "auto"}));
    let adaptive = thinking(Driver::Anthropic);
    assert_eq!(adaptive["thinking"], json!({"type": "adaptive", "display": "summarized"}));
    assert_eq!(adaptive["output_config"], json!({"effort": "low"}));
    let config = json!({"includeThoughts": true, "thinkingLevel": "LOW"});
    assert_eq!(thinking(Driver::Google)["generationConfig"]["thinkingConfig"], config);
    // Without tools there is nothing to choose from.
    for driver in Driver::ALL {
        let body = body(driver, TurnOptions { tool_choice: ToolChoice::Required, ..TurnOptions::default() });
        assert!(body.get("tool_choice").is_none() && body.get("toolConfig").is_none(), "{driver:?}");
    }
}

#[test]
fn a_failure_in_plain_json_with_status_200_is_a_failure_of_its_class() {
    let script = "[default]\ntext = 'x'\ncontent_type = 'application/json'\n\
                  fault = {kind = 'error_event', after_frames = 0, code = 'RESOURCE_EXHAUSTED'}\n";
    let server = server(script);
    let route = scripted_route(Driver::Google, &server, "");
    let messages = [Message::user("hi")];
    let error = attempt(&route, &asks(&route, &messages), &Cancel::new()).0.expect_err("a failure");
    assert_eq!((error.class.code(), error.http_status), ("provider_rate_limit", Some(200)));
    assert_eq!(requests(&server).len(), 1);
}
