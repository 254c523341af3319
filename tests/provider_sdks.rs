//! The vendors' own Python clients, pointed at the scripted provider, read what the script says: so what our drivers
//! are tested against is what the vendors' clients understand. Runs where the clients can be imported by `python3`, or
//! by the interpreter that KHEISH_SDK_PYTHON names.

mod provider_support;
#[path = "support/skip.rs"]
mod skip;

use std::path::Path;
use std::process::Command;

use provider_support::server;

const SCRIPT: &str = r#"
[[turn]]
match = "say text"
text = "größer 🦊, twice"
chunk_chars = 3
usage = { input_tokens = 9, cached_input_tokens = 4, output_tokens = 7, reasoning_tokens = 2 }

[[turn]]
match = "use tools"
match_result = "5"
text = "It is five."

[[turn]]
match = "use tools"
thinking = "need a sum"
reasoning = "b3BhcXVl"
tool_calls = [{ name = "add", arguments = '{"a":2,"b":3}' }, { name = "add", arguments = '{"a":1,"b":1}' }]

[[turn]]
match = "decline"
refusal = "I will not."

[[turn]]
match = "too long"
text = "half"
fault = { kind = "incomplete" }

[[turn]]
match = "be busy"
error = { status = 429, code = "rate_limit_exceeded" }

[[turn]]
match = "no key"
error = { status = 401 }

[[turn]]
match = "fail midway"
text = "one two three"
chunk_chars = 3
fault = { kind = "error_event", after_frames = 3 }

[[turn]]
match = "busy once"
times = 1
error = { status = 429, retry_after_ms = 5 }

[[turn]]
match = "busy once"
text = "Now it works."
"#;

fn satisfies(vendor: &str) {
    let python = std::env::var("KHEISH_SDK_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let server = server(SCRIPT);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/provider_sdks/check.py");
    let base = format!("http://{}", server.local_addr());
    let output = Command::new(&python)
        .arg(script)
        .args([vendor, &base])
        // A proxy of the host's must not come between.
        .env("NO_PROXY", "127.0.0.1")
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip::skip(&format!("the {vendor} client"), &format!("{python} cannot be run: {error}")),
    };
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => {}
        Some(77) => skip::skip(&format!("the {vendor} client"), &text),
        code => panic!("the {vendor} client is not satisfied ({code:?}):\n{text}"),
    }
}

#[test]
fn the_scripted_provider_satisfies_the_openai_client() {
    satisfies("openai");
}

#[test]
fn the_scripted_provider_satisfies_the_anthropic_client() {
    satisfies("anthropic");
}

#[test]
fn the_scripted_provider_satisfies_the_google_client() {
    satisfies("google");
}
