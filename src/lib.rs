//! kheish-daemon: owns AI-agent execution. docs/architecture.md has the map; start there.
//! Owns: the list of rooms.
//! Never: holds code; a room does.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod actor;
pub mod api;
pub mod audit;
pub mod backup;
pub mod blobs;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod commit;
pub mod config;
pub mod connectors;
pub mod contract;
pub mod core;
pub mod credential;
pub mod debug_capture;
pub mod delivery;
pub mod doctor;
pub mod engine;
pub mod hex;
pub mod hooks;
pub mod http;
pub mod ids;
pub mod incident;
pub mod journal;
pub mod limits;
pub mod logging;
pub mod mcp;
pub mod net;
pub mod oauth;
pub mod packages;
pub mod pause;
pub mod permissions;
pub mod providers;
pub mod recent;
pub mod redaction;
pub mod sandbox;
pub mod scripted;
pub mod secret;
pub mod serve;
pub mod slo;
pub mod sse;
pub mod state_root;
pub mod supervisor;
pub mod sys;
pub mod tasks;
pub mod tools;
pub mod upkeep;
pub mod web;
pub mod worker;
