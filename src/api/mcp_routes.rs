//! Rows of the route table: MCP servers.
//! Owns: their paths with access class, body bound, schema and handler.
//! Never: holds logic; a handler lives with its resource.

use super::context::Api;
use super::mcp;
use super::route::{Access, Handler, Route};
use super::routes::{get, json, list, post, required};
use crate::http::Method;
use crate::http::problem::{Code, codes};
use crate::limits::MCP_REQUEST_BYTES_MAX;

const CHANGE: &[&Code] =
    &[&codes::MCP_SERVER_NOT_FOUND, &codes::RUNTIME_REVISION_CONFLICT, &codes::RUNTIME_VALIDATION_FAILED];

pub(super) const LIST: Route<Api> = get(
    "/v1/mcp/servers",
    Access::ReadOnly,
    "MCP servers, as they were seen last.",
    list("McpServer"),
    Handler::Plain(mcp::list),
);

pub(super) const GET: Route<Api> = Route {
    problems: &[&codes::MCP_SERVER_NOT_FOUND],
    ..get(
        "/v1/mcp/servers/{server}",
        Access::ReadOnly,
        "One MCP server.",
        json(200, "McpServer"),
        Handler::Plain(mcp::get),
    )
};

pub(super) const TOOLS: Route<Api> = Route {
    problems: &[&codes::MCP_SERVER_NOT_FOUND],
    ..get(
        "/v1/mcp/servers/{server}/tools",
        Access::ReadOnly,
        "The tools of an MCP server that models are offered.",
        list("McpTool"),
        Handler::Plain(mcp::tools),
    )
};

pub(super) const CALL: Route<Api> = Route {
    body_bytes_max: MCP_REQUEST_BYTES_MAX,
    problems: &[
        &codes::MCP_SERVER_NOT_FOUND,
        &codes::MCP_TOOL_NOT_FOUND,
        &codes::MCP_SERVER_DISABLED,
        &codes::MCP_NOT_CONNECTED,
        &codes::MCP_BUSY,
        &codes::MCP_CALL_FAILED,
    ],
    ..post(
        "/v1/mcp/servers/{server}/tools/call",
        "Call a tool of an MCP server; recorded like every external action. One such call at a time.",
        required("McpCall"),
        json(200, "McpCallResult"),
        Handler::Plain(mcp::call),
    )
};

pub(super) const ENABLE: Route<Api> = Route {
    problems: CHANGE,
    ..post(
        "/v1/mcp/servers/{server}/enable",
        "Use an MCP server again.",
        Some(super::route::Request { schema: "NoFields", optional: true }),
        json(200, "McpServer"),
        Handler::Plain(mcp::enable),
    )
};

pub(super) const DISABLE: Route<Api> = Route {
    problems: CHANGE,
    ..post(
        "/v1/mcp/servers/{server}/disable",
        "Switch an MCP server off: its process or connection ends with every call under way, now and after a restart.",
        Some(super::route::Request { schema: "NoFields", optional: true }),
        json(200, "McpServer"),
        Handler::Plain(mcp::disable),
    )
};

pub(super) const RECONNECT: Route<Api> = Route {
    problems: &[&codes::MCP_SERVER_NOT_FOUND, &codes::MCP_SERVER_DISABLED, &codes::MCP_NOT_CONNECTED, &codes::MCP_BUSY],
    ..post(
        "/v1/mcp/servers/{server}/reconnect",
        "End an MCP server's connection and make another.",
        Some(super::route::Request { schema: "NoFields", optional: true }),
        json(200, "McpServer"),
        Handler::Plain(mcp::reconnect),
    )
};

pub(super) const REMOVE: Route<Api> = Route {
    method: Method::Delete,
    problems: CHANGE,
    ..get(
        "/v1/mcp/servers/{server}",
        Access::Admin,
        "Remove an MCP server, also for later starts with the same configuration.",
        json(200, "McpRemoved"),
        Handler::Plain(mcp::remove),
    )
};
