//! Servers' tools in the engine's toolbox, and the three tools that read servers' resources and prompts.
//! Owns: from a model's call to a request, and back.
//! May touch: the servers of this room.
//! Never: decides whether a call may run; gives a session a tool that was not offered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Mcp;
use super::asking::UnderWay;
use super::catalogue::PREFIX;
use super::config::Transport;
use super::content;
use super::error::McpError;
use super::headers;
use super::record::Chain;
use super::server::{Connection, Server, Switch};
use super::session::Ask;
use crate::core::QuestionResolved;
use crate::engine::{Called, Caller, DaemonTool, WorkerScope};
use crate::ids::SessionId;
use crate::limits::{MCP_ASK_MS_MAX, MCP_LIST_ENTRIES_MAX, MCP_TOOLS_OFFERED_MAX};
use crate::net::Cancel;
use crate::tools::{RoomTool, ToolDef, ToolOutput};

/// Who asks, and how long there is time.
pub(super) struct Errand<'a> {
    pub chain: Chain<'a>,
    pub session: Option<&'a SessionId>,
    pub until: Instant,
    pub cancel: &'a Cancel,
    /// The call that people may be asked for.
    pub asker: Option<&'a Arc<UnderWay>>,
    /// An agent asks that was given a part of the workspace, or to read only.
    pub confined: bool,
}

/// Whether an agent has less of the workspace than a server on this host.
fn is_confined(scope: &WorkerScope) -> bool {
    scope.read_only || !scope.workspace.is_empty()
}

impl Errand<'_> {
    /// Refuses a server that reaches further than the agent that asks.
    fn admit(&self, server: &Server) -> Result<(), McpError> {
        match server.config.transport {
            Transport::Stdio(_) if self.confined => Err(McpError::NotGranted { server: server.config.name.clone() }),
            _ => Ok(()),
        }
    }

    fn left_ms(&self) -> u64 {
        u64::try_from(self.until.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u64::MAX).max(1)
    }

    fn ask<'b>(&'b self, method: &'b str, params: Value, about: Option<&'b str>) -> Ask<'b> {
        Ask {
            method,
            params,
            about,
            param_headers: Vec::new(),
            chain: self.chain,
            session: self.session,
            limit_ms: self.left_ms(),
            cancel: self.cancel,
            is_owner: false,
            asker: self.asker,
        }
    }
}

/// One of the tools that read what servers have beside tools.
struct Helper {
    name: &'static str,
    description: &'static str,
    schema: &'static str,
    /// The capability that a server must have.
    needs: &'static str,
}

const LIST_SCHEMA: &str = r#"{"type":"object","properties":{"server":{"type":"string","maxLength":64,"description":"Only this server. Default: all."}},"additionalProperties":false}"#;

const HELPERS: [Helper; 5] = [
    Helper {
        name: "list_mcp_resources",
        description: "Lists resources of the connected MCP servers.",
        schema: LIST_SCHEMA,
        needs: "resources",
    },
    Helper {
        name: "list_mcp_resource_templates",
        description: "Lists templates of addresses of resources of the connected MCP servers.",
        schema: LIST_SCHEMA,
        needs: "resources",
    },
    Helper {
        name: "read_mcp_resource",
        description: "Reads one resource of an MCP server.",
        schema: r#"{"type":"object","properties":{"server":{"type":"string","minLength":1,"maxLength":64,"description":"The server."},"uri":{"type":"string","minLength":1,"maxLength":4096,"description":"The resource's address, as it was listed."}},"required":["server","uri"],"additionalProperties":false}"#,
        needs: "resources",
    },
    Helper {
        name: "list_mcp_prompts",
        description: "Lists prompts that the connected MCP servers offer.",
        schema: LIST_SCHEMA,
        needs: "prompts",
    },
    Helper {
        name: "get_mcp_prompt",
        description: "Gets one prompt of an MCP server, filled with arguments.",
        schema: r#"{"type":"object","properties":{"server":{"type":"string","minLength":1,"maxLength":64,"description":"The server."},"name":{"type":"string","minLength":1,"maxLength":1024,"description":"The prompt."},"arguments":{"type":"object","description":"Texts by name."}},"required":["server","name"],"additionalProperties":false}"#,
        needs: "prompts",
    },
];

fn helper_tool(helper: &Helper, servers: Vec<String>) -> Arc<RoomTool> {
    Arc::new(RoomTool {
        name: helper.name.to_string(),
        description: helper.description.to_string(),
        input_schema: helper.schema.to_string(),
        timeout_ms: crate::limits::MCP_TOOL_TIMEOUT_S_DEFAULT * 1_000,
        may_ask: false,
        servers,
        digest: String::new(),
    })
}

impl Mcp {
    /// The server and the tool that are offered as `name`; also while the server is not connected.
    fn offered_as(&self, name: &str) -> Option<(Arc<Server>, Arc<RoomTool>)> {
        name.strip_prefix(PREFIX)?;
        self.servers().find_map(|server| {
            let known = server.known();
            let tool = known.catalogue.offered(name).filter(|_| known.switch == Switch::On)?.offered.clone();
            Some((server.clone(), tool))
        })
    }

    fn names(&self) -> Vec<String> {
        self.servers().map(|server| server.config.name.clone()).collect()
    }

    fn has_capability(&self, needs: &str) -> bool {
        self.servers().any(|server| {
            let known = server.known();
            known.connection.is_some() && known.hello.is_some_and(|hello| hello.has(needs))
        })
    }

    /// Calls a tool by the server's own spelling of its name.
    pub(super) fn call_tool(
        &self,
        server: &Server,
        tool: &str,
        arguments: Value,
        errand: &Errand<'_>,
    ) -> Result<ToolOutput, McpError> {
        errand.admit(server)?;
        let Connection { session, catalogue } = server.ready(errand.left_ms(), errand.cancel)?;
        let Some(found) = catalogue.named(tool) else {
            return Err(McpError::UnknownTool { server: server.config.name.clone(), tool: tool.to_string() });
        };
        let arguments = without_nulls(arguments, &found.offered.input_schema);
        let mut ask = errand.ask("tools/call", json!({"name": tool, "arguments": arguments}), Some(tool));
        ask.param_headers = headers::of_arguments(&found.header_places, &arguments);
        let _listed = errand.asker.map(|call| session.inbox.list(call));
        let result = server.noted(session.request(&ask))?;
        Ok(content::of_call(&server.config.name, tool, &result, found.has_output_schema))
    }

    /// Calls a tool by the name that models are offered.
    fn call_offered(&self, name: &str, input: Value, errand: &Errand<'_>) -> Result<ToolOutput, McpError> {
        let unknown = |server: &str| McpError::UnknownTool { server: server.to_string(), tool: name.to_string() };
        let Some((server, tool)) = self.offered_as(name) else { return Err(unknown("")) };
        match server.known().catalogue.offered(&tool.name) {
            Some(found) => self.call_tool(&server, &found.name.clone(), input, errand),
            None => Err(unknown(&server.config.name)),
        }
    }

    fn help(&self, name: &str, input: &Value, errand: &Errand<'_>) -> Result<ToolOutput, McpError> {
        let named = input["server"].as_str();
        let server = |name: Option<&str>| {
            let name = name.unwrap_or_default();
            self.server(name).ok_or_else(|| McpError::UnknownServer { server: name.chars().take(64).collect() })
        };
        match name {
            "read_mcp_resource" => {
                let server = server(named)?;
                errand.admit(&server)?;
                let uri = input["uri"].as_str().unwrap_or_default();
                let connection = server.ready(errand.left_ms(), errand.cancel)?;
                let result =
                    connection.session.request(&errand.ask("resources/read", json!({"uri": uri}), Some(uri)))?;
                Ok(content::of_contents(&server.config.name, "contents", &result))
            }
            "get_mcp_prompt" => {
                let server = server(named)?;
                errand.admit(&server)?;
                let prompt = input["name"].as_str().unwrap_or_default();
                let arguments = match &input["arguments"] {
                    Value::Object(arguments) => arguments.clone(),
                    _ => Map::new(),
                };
                let params = json!({"name": prompt, "arguments": arguments});
                let connection = server.ready(errand.left_ms(), errand.cancel)?;
                let result = connection.session.request(&errand.ask("prompts/get", params, Some(prompt)))?;
                Ok(content::of_contents(&server.config.name, "messages", &result))
            }
            _ => {
                let (method, key, needs) = match name {
                    "list_mcp_resources" => ("resources/list", "resources", "resources"),
                    "list_mcp_resource_templates" => ("resources/templates/list", "resourceTemplates", "resources"),
                    _ => ("prompts/list", "prompts", "prompts"),
                };
                let servers = match named {
                    Some(_) => vec![server(named)?],
                    None => self.servers().filter(|server| server.known().connection.is_some()).cloned().collect(),
                };
                let (mut lists, mut is_cut) = (Vec::new(), false);
                for server in servers {
                    let ready = errand.admit(&server).and_then(|()| server.ready(errand.left_ms(), errand.cancel));
                    let connection = match ready {
                        Ok(connection) => connection,
                        // As below.
                        Err(error) if named.is_none() => {
                            is_cut = true;
                            log::info!("{error}");
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    if !connection.session.hello.get().is_some_and(|hello| hello.has(needs)) {
                        continue;
                    }
                    let ask = errand.ask(method, Value::Null, None);
                    match connection.session.list(method, key, &ask, MCP_LIST_ENTRIES_MAX) {
                        Ok((entries, cut)) => {
                            is_cut |= cut;
                            lists.push((server.config.name.clone(), entries));
                        }
                        // One server that has no answer does not hide the others.
                        Err(error) if named.is_none() => {
                            is_cut = true;
                            log::warn!("{error}");
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(content::of_lists(key, lists, is_cut))
            }
        }
    }
}

/// Arguments without optional ones that are null: models write them, and servers refuse them.
fn without_nulls(arguments: Value, schema: &str) -> Value {
    let Value::Object(arguments) = arguments else { return json!({}) };
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let is_required =
        |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name));
    Value::Object(arguments.into_iter().filter(|(name, value)| !value.is_null() || is_required(name)).collect())
}

impl DaemonTool for Mcp {
    fn has(&self, def: &ToolDef) -> bool {
        HELPERS.iter().any(|helper| helper.name == def.name) || def.name.starts_with(PREFIX)
    }

    fn offered(&self, _session: &SessionId, cancel: &Cancel) -> Vec<Arc<RoomTool>> {
        let mut offered = Vec::new();
        for server in self.servers() {
            // A server that is being connected is waited for; one that cannot be had is left out of this run.
            if let Ok(connection) = server.ready(u64::MAX, cancel) {
                offered.extend(connection.catalogue.tools.iter().map(|tool| tool.offered.clone()));
            }
        }
        offered.truncate(MCP_TOOLS_OFFERED_MAX);
        let helpers = HELPERS.iter().filter(|helper| self.has_capability(helper.needs));
        offered.extend(helpers.map(|helper| helper_tool(helper, self.names())));
        offered
    }

    fn find(&self, _session: &SessionId, name: &str) -> Option<Arc<RoomTool>> {
        match HELPERS.iter().find(|helper| helper.name == name) {
            Some(helper) => (self.servers().next().is_some()).then(|| helper_tool(helper, self.names())),
            None => self.offered_as(name).map(|(_, tool)| tool),
        }
    }

    fn begin(&self, caller: &Caller, def: &ToolDef, input: &RawValue, limit_ms: u64, cancel: &Cancel) -> Called {
        let asking = self.offered_as(def.name).filter(|(_, tool)| tool.may_ask);
        let Some((server, _)) = asking else {
            return Called::Over(DaemonTool::call(self, caller, def, input, limit_ms, cancel));
        };
        let (mcp, caller_there, name) = (self.clone(), caller.clone(), def.name.to_string());
        let arguments: Value = serde_json::from_str(input.get()).unwrap_or_default();
        let job = move |under_way: &Arc<UnderWay>| {
            let caller = caller_there;
            let errand = Errand {
                chain: Chain::Run { run: caller.run, call: &caller.call },
                session: Some(&caller.session),
                // Its time is that of whoever waits for it; while people are asked it stands still.
                until: Instant::now() + Duration::from_millis(limit_ms.saturating_add(MCP_ASK_MS_MAX)),
                cancel: &under_way.cancel,
                asker: Some(under_way),
                confined: is_confined(&caller.scope),
            };
            mcp.call_offered(&name, arguments, &errand).unwrap_or_else(|error| failed(&error))
        };
        match self.desk().begin(&server.config.name, caller.run, &caller.call, job) {
            Some(under_way) => under_way.wait(limit_ms, cancel),
            None => Called::Over(DaemonTool::call(self, caller, def, input, limit_ms, cancel)),
        }
    }

    fn resume(&self, caller: &Caller, answer: &QuestionResolved, limit_ms: u64, cancel: &Cancel) -> Option<Called> {
        self.desk().resume(caller.run, &caller.call, answer, limit_ms, cancel)
    }

    fn call(&self, caller: &Caller, def: &ToolDef, input: &RawValue, limit_ms: u64, cancel: &Cancel) -> ToolOutput {
        let errand = Errand {
            chain: Chain::Run { run: caller.run, call: &caller.call },
            session: Some(&caller.session),
            until: Instant::now() + Duration::from_millis(limit_ms),
            cancel,
            asker: None,
            confined: is_confined(&caller.scope),
        };
        let input: Value = serde_json::from_str(input.get()).unwrap_or_default();
        let outcome = if HELPERS.iter().any(|helper| helper.name == def.name) {
            self.help(def.name, &input, &errand)
        } else {
            self.call_offered(def.name, input, &errand)
        };
        outcome.unwrap_or_else(|error| failed(&error))
    }
}

/// What a model is told of a call that has no result.
pub(super) fn failed(error: &McpError) -> ToolOutput {
    let content = json!({"error": error.to_string(), "code": error.code()}).to_string();
    ToolOutput { content, is_error: true, truncated: false, overflow: None }
}
