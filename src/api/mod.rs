//! The control plane's API: one route table, and what stands before and behind its handlers.
//! Owns: routing, access, strict parsing, paging, CORS, the access log and the OpenAPI document.
//! May touch: the edge's types; the context that the route table is written for.
//! Never: decides anything about sessions or runs; that is the core's.

pub mod access_log;
pub mod accounts;
pub mod agent_routes;
pub mod agent_schemas;
pub mod agents;
mod approval_routes;
pub mod approval_schemas;
pub mod approvals;
pub mod audit;
pub mod auth;
pub mod auth_schemas;
pub mod builtin;
pub mod call;
mod connector_chat;
mod connector_events;
mod connector_external;
mod connector_http;
mod connector_routes;
pub mod connector_schemas;
mod connectors;
pub mod context;
mod contract_routes;
pub mod contract_schemas;
pub mod contracts;
pub mod cors;
pub mod debug;
mod deliveries;
mod delivery_events;
mod delivery_routes;
mod delivery_schemas;
mod doctor_routes;
pub mod doctor_schemas;
pub mod errors;
pub mod events;
pub mod front;
pub mod input_parts;
pub mod json;
pub mod limiter;
pub mod metrics;
pub mod openapi;
pub mod paging;
pub mod permissions;
pub mod query;
pub mod questions;
pub mod readiness;
pub mod references;
mod reply_targets;
pub mod request_mac;
pub mod resource_schemas;
pub mod route;
pub mod route_choice;
pub mod routes;
pub mod run_events;
pub mod run_view;
pub mod runs;
pub mod runtime;
pub mod runtime_auth;
pub mod runtime_changes;
mod runtime_routes;
pub mod runtime_schemas;
pub mod schemas;
pub mod secrets;
pub mod session_settings;
pub mod sessions;
pub mod status;
pub mod streams;
pub mod submit;
pub mod tasks;
pub mod text;
pub mod waiting;
mod witness;

#[cfg(test)]
pub(crate) mod testing;
