//! Shapes of a session's input and answers: `sessions set-input-contract`, `sessions set-output-contract`.
//! Owns: paths and bodies.
//! Never: judges a schema; the daemon does.

use argh::{ArgsInfo, FromArgs};
use serde::Serialize;
use serde_json::value::RawValue;

use super::context::Context;
use super::exit::CliError;
use super::json_file;
use super::json_text::Document;
use super::path::Path;
use super::sessions::post_object;
use super::verbs::Command;

fn path(session: &str, contract: &'static str) -> Path {
    Path::new("/v1/sessions").segment(session).then(contract)
}

fn clear(context: &mut Context<'_>, path: &Path) -> Result<(), CliError> {
    let document = context.client()?.delete(path)?;
    document.require_object(path.as_str())?;
    context.out.document(&document)
}

/// Either the schema, or none with `--clear`.
fn schema(
    file: Option<&str>,
    stdin: bool,
    is_clear: bool,
    context: &mut Context<'_>,
) -> Result<Option<Box<RawValue>>, CliError> {
    if !is_clear {
        return json_file::read(file, stdin, context.stdin).map(Some);
    }
    match file.is_some() || stdin {
        true => Err(CliError::invalid("--clear", "a schema was given with it", "leave out one of the two")),
        false => Ok(None),
    }
}

/// hold a session's input to a JSON Schema
#[derive(FromArgs, ArgsInfo)]
pub struct SetInput {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// read the schema from this file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
    /// read the schema from standard input
    #[argh(switch)]
    stdin: bool,
    /// take input of any shape again
    #[argh(switch)]
    clear: bool,
}

#[derive(Serialize)]
struct InputBody {
    input_contract: InputContract,
}

#[derive(Serialize)]
struct InputContract {
    schema: Box<RawValue>,
}

impl Command for SetInput {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = path(&self.session_id, "/input-contract");
        match schema(self.file.as_deref(), self.stdin, self.clear, context)? {
            None => clear(context, &path),
            Some(schema) => {
                let body = InputBody { input_contract: InputContract { schema } };
                post_object(context, &path, Some(&Document::of(&body)))
            }
        }
    }
}

/// hold the answers of a session's runs to a JSON Schema
#[derive(FromArgs, ArgsInfo)]
pub struct SetOutput {
    /// the session
    #[argh(positional)]
    session_id: String,
    /// read the schema from this file
    #[argh(option, arg_name = "path")]
    file: Option<String>,
    /// read the schema from standard input
    #[argh(switch)]
    stdin: bool,
    /// send an answer that does not fit back so often, up to 5
    #[argh(option, arg_name = "n")]
    max_repair_attempts: Option<u32>,
    /// take answers of any shape again
    #[argh(switch)]
    clear: bool,
}

#[derive(Serialize)]
struct OutputBody {
    output_contract: OutputContract,
}

#[derive(Serialize)]
struct OutputContract {
    schema: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_repair_attempts: Option<u32>,
}

impl Command for SetOutput {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        let path = path(&self.session_id, "/output-contract");
        match schema(self.file.as_deref(), self.stdin, self.clear, context)? {
            None => clear(context, &path),
            Some(schema) => {
                let contract = OutputContract { schema, max_repair_attempts: self.max_repair_attempts };
                post_object(context, &path, Some(&Document::of(&OutputBody { output_contract: contract })))
            }
        }
    }
}
