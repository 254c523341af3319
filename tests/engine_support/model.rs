//! A model that is a function, and tools that are counters.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use kheish_daemon::engine::{InForce, RunWorker, Settings, StartWorker, WorkerScope};
use kheish_daemon::ids::SessionId;
use kheish_daemon::net::Cancel;
use kheish_daemon::permissions::{Behavior, Mode, Policy, Rule, RuleScope};
use kheish_daemon::sandbox::WorkerError;
use kheish_daemon::tools::ToolOutput;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{STREAM_HEAD, frames, message_item};
use crate::net_raw_server::{RawServer, read_request};

/// What the model answers: output items, or a status and a body for an error.
pub enum Answer {
    Items(Vec<Value>),
    Error(u16, Value),
}

/// Serves `answer`, which is handed the request's body and its number from 0.
pub fn model(answer: impl Fn(&Value, usize) -> Answer + Send + 'static) -> RawServer {
    let number = Mutex::new(0);
    RawServer::start(move |mut stream| {
        let request = read_request(&mut stream);
        let body = request.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |end| end + 4);
        let Ok(body) = serde_json::from_slice::<Value>(&request[body..]) else { return };
        let number = {
            let mut next = number.lock().unwrap();
            *next += 1;
            *next - 1
        };
        let text = match answer(&body, number) {
            Answer::Items(items) => {
                let mut events: Vec<Value> = items
                    .iter()
                    .enumerate()
                    .map(|(at, item)| json!({"type": "response.output_item.done", "output_index": at, "item": item}))
                    .collect();
                let input_tokens = body["input"].to_string().len() / 4;
                let usage = json!({"input_tokens": input_tokens, "output_tokens": 10});
                events.push(json!({"type": "response.completed",
                    "response": {"id": format!("resp_{number}"), "output": items, "usage": usage}}));
                STREAM_HEAD.to_string() + &frames(&events)
            }
            Answer::Error(status, body) => {
                let body = body.to_string();
                format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                     connection: close\r\n\r\n{body}",
                    body.len()
                )
            }
        };
        // A killed daemon has gone.
        let _client_may_be_gone = stream.write_all(text.as_bytes());
    })
}

pub fn call(id: &str, name: &str, arguments: Value) -> Value {
    json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments.to_string()})
}

pub fn bash(id: &str, command: &str) -> Value {
    call(id, "bash", json!({"command": command}))
}

pub fn done(text: &str) -> Answer {
    Answer::Items(vec![message_item(text)])
}

/// Results of tools in a request, in order: call id and text.
pub fn results(request: &Value) -> Vec<(String, String)> {
    let items = request["input"].as_array().expect("a list of items");
    let outputs = items.iter().filter(|item| item["type"] == "function_call_output");
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    outputs.map(|item| (text(&item["call_id"]), text(&item["output"]))).collect()
}

/// Tools that note what they are asked and do as they are told.
pub struct Bench {
    pub calls: Mutex<Vec<(String, Value)>>,
    pub counts: Mutex<BTreeMap<String, u32>>,
    pub started: Mutex<u32>,
    entered: Sender<()>,
    /// Told of every call that hangs.
    pub is_hanging: Receiver<()>,
    gate: (Sender<()>, Receiver<()>),
    /// Of each worker that was started.
    pub scopes: Mutex<Vec<WorkerScope>>,
}

impl Bench {
    pub fn new() -> Arc<Self> {
        let (entered, is_hanging) = bounded(64);
        Arc::new(Self {
            calls: Mutex::default(),
            counts: Mutex::default(),
            started: Mutex::default(),
            entered,
            is_hanging,
            gate: bounded(64),
            scopes: Mutex::default(),
        })
    }

    pub fn workers(self: &Arc<Self>) -> Arc<StartWorker> {
        let bench = self.clone();
        Arc::new(move |scope: &WorkerScope| {
            bench.scopes.lock().unwrap().push(scope.clone());
            *bench.started.lock().unwrap() += 1;
            Ok(Box::new(FakeWorker(bench.clone())) as Box<dyn RunWorker>)
        })
    }

    /// Lets one call of `gate` end.
    pub fn let_go(&self) {
        self.gate.0.send(()).unwrap();
    }

    /// What was run, in order: the command of a bash call, else the tool's name.
    pub fn ran(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        let name = |(tool, input): &(String, Value)| input["command"].as_str().unwrap_or(tool).to_string();
        calls.iter().map(name).collect()
    }
}

struct FakeWorker(Arc<Bench>);

impl RunWorker for FakeWorker {
    fn call(
        &mut self,
        tool: &str,
        input: &RawValue,
        limit_ms: u64,
        cancel: &Cancel,
    ) -> Result<ToolOutput, WorkerError> {
        let input: Value = serde_json::from_str(input.get()).unwrap();
        self.0.calls.lock().unwrap().push((tool.to_string(), input.clone()));
        let command = input["command"].as_str().unwrap_or_default();
        *self.0.counts.lock().unwrap().entry(command.to_string()).or_default() += 1;
        let output = |content: Value, is_error| {
            Ok(ToolOutput { content: content.to_string(), is_error, truncated: false, overflow: None })
        };
        let path = input["path"].as_str().unwrap_or_default().to_string();
        match if tool == "read_file" { path.as_str() } else { command } {
            "secret" => output(json!({"leaked": super::SECRET}), false),
            "large" => Ok(ToolOutput {
                content: json!({"part": "of it"}).to_string(),
                is_error: false,
                truncated: true,
                overflow: Some(format!("all of it, with {}", super::SECRET).into_bytes()),
            }),
            "hang" => {
                self.0.entered.send(()).unwrap();
                match cancel.wait(Duration::from_millis(limit_ms)) {
                    true => Err(WorkerError::Cancelled),
                    false => Err(WorkerError::TimedOut { deadline_ms: limit_ms }),
                }
            }
            "gate" => {
                self.0.entered.send(()).unwrap();
                self.0.gate.1.recv_timeout(super::PATIENCE).unwrap();
                output(json!({"ok": command}), false)
            }
            "panic" => panic!("a defect of a test"),
            "die" => Err(WorkerError::Died { cause: "test".to_string() }),
            command if command.starts_with("fail") => output(json!({"error": "no"}), true),
            _ => output(json!({"ok": command, "tool": tool, "path": input["path"]}), false),
        }
    }
}

/// Settings that a test changes while runs go on.
#[derive(Default)]
pub struct Changing(pub Mutex<InForce>);

impl Settings for Changing {
    fn in_force(&self, _session: &SessionId) -> InForce {
        self.0.lock().unwrap().clone()
    }
}

pub fn rule(tool: &str, behavior: Behavior) -> Rule {
    Rule { scope: RuleScope::User, tool_name_pattern: tool.to_string(), argument: None, behavior, reason: None }
}

/// Everything runs without asking.
pub fn bypass() -> InForce {
    InForce { mode: Mode::BypassPermissions.into(), ..InForce::default() }
}

pub fn policy(rules: &[Rule]) -> InForce {
    InForce { policy: Policy::new(rules).unwrap(), ..InForce::default() }
}
