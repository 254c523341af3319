//! The command line: what was typed becomes one request, one document, one exit code.
//! Owns: the commands of `kheish-daemon`; docs/cli.md describes them.
//! May touch: the standard streams, the environment, the network through `net`, a state root when offline.
//! Never: knows the core; the daemon's documents are printed as they came.

use std::io::{BufWriter, IsTerminal, Read, Write};
use std::process::ExitCode;

use argh::FromArgs;

mod accounts;
mod agents;
mod approvals;
mod argv;
#[cfg(test)]
mod argv_tests;
mod assets;
mod audit;
mod backup;
mod blobs;
mod client;
mod completions;
mod connector;
mod connectors;
mod context;
mod contracts;
mod debug;
mod deliveries;
#[cfg(test)]
mod docs_tests;
mod doctor;
mod doctor_canary;
mod doctor_probe;
mod doctor_routes;
mod duration;
mod environment;
mod events;
mod exit;
mod frame;
mod generation;
mod globals;
mod help;
mod hooks;
mod incident;
mod incident_collect;
mod input;
mod journal;
mod json_file;
mod json_text;
mod live;
mod man;
mod mcp;
mod mcp_oauth;
mod options;
mod output;
mod overview;
mod path;
mod permissions;
mod questions;
mod run_view;
mod runs;
mod runtime;
mod runtime_auth;
mod runtime_config;
mod scripted;
mod secret_value;
mod secrets;
mod serve;
mod session_settings;
mod sessions;
mod slo;
mod stream;
mod streaming;
mod suggest;
mod table;
mod tasks;
mod top;
mod top_view;
mod verbs;
mod version;
mod wait;

use crate::sandbox;
use argv::Parsed;
use context::Context;
use environment::Environment;
use exit::{CliError, Exit};
use globals::OutputMode;
use output::{Output, message_line, output_error};

/// The name in messages and help texts.
const PROGRAM: &str = "kheish-daemon";

/// Hidden: parses the command line that follows and does nothing, so that documents can be checked against the parser.
const CHECK_VERB: &str = "__check-command";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Before anything else: a worker must not read, open or start a thing that its jail does not know of.
    let mut first = std::env::args_os().skip(1);
    if first.next().is_some_and(|word| word == sandbox::WORKER_VERB) {
        return sandbox::inside::main(first.next().as_deref().and_then(std::ffi::OsStr::to_str));
    }
    let mut first = std::env::args_os().skip(1);
    if first.next().is_some_and(|word| word == crate::tasks::worker::WORKER_VERB) {
        return crate::tasks::worker::main(first.next().as_deref().and_then(std::ffi::OsStr::to_str));
    }
    let mut first = std::env::args_os().skip(1);
    if first.next().is_some_and(|word| word == crate::connectors::sidecar::worker::WORKER_VERB) {
        return crate::connectors::sidecar::worker::main(first.next().as_deref().and_then(std::ffi::OsStr::to_str));
    }
    let mut first = std::env::args_os().skip(1);
    if first.next().is_some_and(|word| word == crate::mcp::worker::WORKER_VERB) {
        return crate::mcp::worker::main(first.next().as_deref().and_then(std::ffi::OsStr::to_str));
    }
    let words = std::env::args_os().skip(1).map(|word| word.into_string()).collect::<Result<Vec<_>, _>>();
    let words = words
        .map_err(|_| CliError::Usage { message: "an argument is not UTF-8".to_string(), command: PROGRAM.to_string() });
    let stdout = std::io::stdout();
    let stdout_is_terminal = stdout.is_terminal();
    let mut stdout = BufWriter::new(stdout);
    let mut stderr = std::io::stderr();
    let result = words.and_then(|words| {
        let out = Output { stdout: &mut stdout, stderr: &mut stderr, stdout_is_terminal, mode: OutputMode::Pretty };
        run(&words, &Environment::of_process(), &mut std::io::stdin(), out)
    });
    let result = result.and_then(|()| stdout.flush().map_err(output_error));
    match result {
        Ok(()) => ExitCode::from(Exit::Success as u8),
        Err(CliError::OutputClosed) => ExitCode::from(Exit::Success as u8),
        Err(error) => {
            message_line(&mut stderr, &format!("Error: {error}"));
            ExitCode::from(error.exit() as u8)
        }
    }
}

/// Runs one command line.
fn run<'a>(
    words: &[String],
    env: &'a Environment,
    stdin: &'a mut dyn Read,
    mut out: Output<'a>,
) -> Result<(), CliError> {
    if words.first().is_some_and(|word| word == CHECK_VERB) {
        return check(&words[1..]);
    }
    match argv::parse(words)? {
        Parsed::Help(topic) => out.text(&help::render(topic)),
        Parsed::Version => out.text(&help::version()),
        Parsed::Command { verb, mut given, globals } => {
            let info = (verb.info)();
            options::complete(&mut given, &info, Some(verb.path), env)?;
            options::resolve_credentials(&mut given, env)?;
            let shared = globals::shared(&globals, env)?;
            out.mode = shared.output;
            let mut context = Context { out, env, stdin, shared, globals };
            (verb.run)(verb, &given.words_for(&info), &mut context)
        }
    }
}

/// Whether the words are a command line that would run; the environment's defaults are left out.
fn check(words: &[String]) -> Result<(), CliError> {
    let Parsed::Command { verb, mut given, globals } = argv::parse(words)? else { return Ok(()) };
    let (info, env) = ((verb.info)(), Environment::default());
    options::complete(&mut given, &info, Some(verb.path), &env)?;
    globals::shared(&globals, &env)?;
    (verb.check)(verb, &given.words_for(&info))
}

/// Fills an options struct from words that [`argv`] has put in order.
fn parse_words<C: FromArgs>(path: &str, words: &[&str]) -> Result<C, CliError> {
    let name: Vec<&str> = std::iter::once(PROGRAM).chain(path.split(' ').filter(|word| *word != PROGRAM)).collect();
    C::from_args(&name, words).map_err(|exit| {
        let lines: Vec<&str> = exit.output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let message = lines.join(" ");
        CliError::Usage { message: message.trim_start_matches("Error ").to_string(), command: name.join(" ") }
    })
}
