//! Shapes that a session holds its input and the answers of its runs to.
//! Owns: the routes that set, show and clear them.
//! Never: takes a schema that cannot be held to in full; changes what queued or active runs were accepted with.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::call::Call;
use super::context::Api;
use super::session_settings::update;
use super::sessions::known;
use crate::contract::contract_issues;
use crate::core::{InputContract, OutputContract, SessionChange};
use crate::http::Response;
use crate::http::problem::{Code, Problem, codes};
use crate::ids::SessionId;
use crate::limits::{CONTRACT_REPAIRS_DEFAULT, OUTPUT_REPAIRS_MAX};

#[derive(Serialize)]
struct InputView {
    session_id: SessionId,
    /// Null where there is none.
    input_contract: Option<InputContract>,
}

#[derive(Serialize)]
struct OutputView {
    session_id: SessionId,
    /// Null where there is none.
    output_contract: Option<OutputContract>,
}

/// Body that sets a session's input contract.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputBody {
    input_contract: InputFields,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputFields {
    schema: Value,
}

/// Body that sets a session's output contract.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputBody {
    output_contract: OutputFields,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputFields {
    schema: Value,
    max_repair_attempts: Option<u32>,
}

/// Refuses a schema with an issue, naming all of them.
fn require_supported(schema: &Value, code: &'static Code) -> Result<(), Problem> {
    let issues = contract_issues(schema);
    if issues.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = issues.iter().map(ToString::to_string).collect();
    Err(Problem::new(code, told.join("; ")))
}

/// `GET /v1/sessions/{session_id}/input-contract`.
pub fn get_input(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session_id = known(api, &call.session_id()?)?.session.id;
    let own = api.core.session_settings(&session_id);
    let input_contract = own.and_then(|own| own.input_contract.clone());
    Ok(Response::json(200, &InputView { session_id, input_contract }))
}

/// `GET /v1/sessions/{session_id}/output-contract`.
pub fn get_output(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session_id = known(api, &call.session_id()?)?.session.id;
    let own = api.core.session_settings(&session_id);
    let output_contract = own.and_then(|own| own.output_contract.clone());
    Ok(Response::json(200, &OutputView { session_id, output_contract }))
}

/// `POST` and `PUT /v1/sessions/{session_id}/input-contract`: for input that comes from now on.
pub fn set_input(api: &Api, call: &Call) -> Result<Response, Problem> {
    let InputBody { input_contract: InputFields { schema } } = call.json()?;
    require_supported(&schema, &codes::INPUT_CONTRACT_SCHEMA_UNSUPPORTED)?;
    update(api, call, SessionChange::InputContract(Some(InputContract { schema })))
}

/// `POST` and `PUT /v1/sessions/{session_id}/output-contract`: for runs that are submitted from now on.
pub fn set_output(api: &Api, call: &Call) -> Result<Response, Problem> {
    let OutputBody { output_contract: OutputFields { schema, max_repair_attempts } } = call.json()?;
    require_supported(&schema, &codes::OUTPUT_CONTRACT_SCHEMA_UNSUPPORTED)?;
    let max_repair_attempts = max_repair_attempts.unwrap_or(CONTRACT_REPAIRS_DEFAULT);
    if max_repair_attempts > OUTPUT_REPAIRS_MAX {
        let detail = format!("max_repair_attempts is above {OUTPUT_REPAIRS_MAX}");
        return Err(Problem::new(&codes::BAD_REQUEST, detail));
    }
    update(api, call, SessionChange::OutputContract(Some(OutputContract { schema, max_repair_attempts })))
}

/// `DELETE /v1/sessions/{session_id}/input-contract`.
pub fn clear_input(api: &Api, call: &Call) -> Result<Response, Problem> {
    update(api, call, SessionChange::InputContract(None))
}

/// `DELETE /v1/sessions/{session_id}/output-contract`.
pub fn clear_output(api: &Api, call: &Call) -> Result<Response, Problem> {
    update(api, call, SessionChange::OutputContract(None))
}
