//! The escape battery: hostile attempts from commands and from file tools, none of which may come through.
//!
//! Every test first lets the same attempt come through outside, where that is possible and harms nobody, so that a
//! typing error is not taken for a wall. `KHEISH_ESCAPE_WITHOUT=private_root,landlock` takes walls down and shows which
//! tests notice; never as root. An attempt that comes through must harm nobody: a file is opened and not written, a mode
//! becomes what it was, nobody is signalled while the victim can be reached. Where the machine lacks a feature, the
//! test says that it was skipped.

#[path = "support/daemon.rs"]
mod daemon;
#[path = "sandbox_escape/files.rs"]
mod files;
#[path = "support/http.rs"]
mod http;
#[path = "sandbox_escape/kernel.rs"]
mod kernel;
#[path = "sandbox_escape/network.rs"]
mod network;
#[path = "support/port.rs"]
mod port;
#[path = "sandbox_escape/processes.rs"]
mod processes;
#[path = "sandbox_escape/resources.rs"]
mod resources;
#[path = "support/skip.rs"]
mod skip;
#[path = "sandbox_escape/stage.rs"]
mod stage;
#[path = "sandbox_escape/tools.rs"]
mod tools;
