//! Questions: list them, answer, decline and withdraw them.
//! Owns: the routes with `/questions`, and the check that answers fit their questions.
//! Never: decides which question is open; the core does, in the batch that records the answer.

use serde::{Deserialize, Serialize};

use super::approvals::{answer_hashes, decided_run, page_of, words};
use super::call::Call;
use super::context::Api;
use super::json;
use super::paging::{Page, PageRequest};
use super::runs;
use super::sessions::{SessionView, known};
use super::submit::idempotency_key;
use super::waiting::QuestionView;
use crate::core::{Answer, Command, QuestionAnswer, Target, UserQuestion, WaitsFor};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::{RunId, SessionId};
use crate::limits::QUESTION_ANSWER_BYTES_MAX;
use crate::redaction;

/// Body of the routes that answer a question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveBody {
    idempotency_key: Option<String>,
    resolution: ResolutionBody,
}

/// What a person says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolutionBody {
    request_id: String,
    #[serde(default)]
    answers: Vec<AnswerBody>,
    #[serde(default)]
    declined: bool,
    justification: Option<String>,
}

/// The answer to one question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerBody {
    question_id: String,
    #[serde(default)]
    selected_option_ids: Vec<String>,
    freeform_answer: Option<String>,
}

/// Body of the route that withdraws a question; may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelBody {
    idempotency_key: Option<String>,
    justification: Option<String>,
}

/// An open question in a list.
#[derive(Debug, Serialize)]
struct PendingQuestion {
    session_id: SessionId,
    agent_id: String,
    run_id: RunId,
    run_kind: &'static str,
    requester_agent_id: String,
    requester_session_id: SessionId,
    requester_run_id: RunId,
    requester_tool_call_id: String,
    request: QuestionView,
}

fn listed(api: &Api, call: &Call, session: Option<SessionId>) -> Result<Response, Problem> {
    let request = PageRequest::read(&call.query)?;
    let (runs, total_count, next) = page_of(api, &request, WaitsFor::UserQuestion, session)?;
    let mut items = Vec::new();
    for run in runs {
        let Some(open) = &run.step.question else { continue };
        let agent_id = format!("agent-{}", run.session_number);
        items.push(PendingQuestion {
            session_id: run.position.session.clone(),
            agent_id: agent_id.clone(),
            run_id: run.position.id,
            run_kind: "input",
            requester_agent_id: agent_id,
            requester_session_id: run.position.session.clone(),
            requester_run_id: run.position.id,
            requester_tool_call_id: open.call.clone(),
            request: view_at(api, open.seq)?,
        });
    }
    Ok(Page { items, total_count, next, order: "waiting_since_ms_asc,run_id_asc" }.answer(&request))
}

fn view_at(api: &Api, seq: crate::ids::Seq) -> Result<QuestionView, Problem> {
    let record = api.reader.read(seq)?;
    QuestionView::of(&record).map_err(|error| Problem::new(&codes::INTERNAL_ERROR, error.to_string()))
}

/// `GET /v1/questions`.
pub fn list(api: &Api, call: &Call) -> Result<Response, Problem> {
    listed(api, call, call.query.session("session_id"))
}

/// `GET /v1/sessions/{session_id}/questions`.
pub fn list_of_session(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session = call.session_id()?;
    known(api, &session)?;
    listed(api, call, Some(session))
}

/// Checks that answers fit the questions of a request, all of them.
fn fit(questions: &[UserQuestion], answers: &[QuestionAnswer]) -> Result<(), Problem> {
    for (place, answer) in answers.iter().enumerate() {
        let id = &answer.question_id;
        let Some(question) = questions.iter().find(|question| question.id == *id) else {
            return Err(Problem::new(&codes::QUESTION_UNKNOWN_ANSWER, format!("there is no question {id:?}")));
        };
        if answers[..place].iter().any(|other| other.question_id == *id) {
            return Err(Problem::new(&codes::QUESTION_DUPLICATE_ANSWER, format!("question {id:?} is answered twice")));
        }
        let selected = &answer.selected_option_ids;
        if selected.is_empty() && answer.freeform_answer.is_none() {
            return Err(Problem::new(&codes::QUESTION_ANSWER_EMPTY, format!("the answer to {id:?} says nothing")));
        }
        for (at, option) in selected.iter().enumerate() {
            if selected[..at].contains(option) {
                let detail = format!("option {option:?} of question {id:?} is selected twice");
                return Err(Problem::new(&codes::QUESTION_DUPLICATE_OPTION, detail));
            }
            if question.options.iter().all(|known| known.id != *option) {
                let detail = format!("question {id:?} has no option {option:?}");
                return Err(Problem::new(&codes::QUESTION_OPTION_NOT_FOUND, detail));
            }
        }
        if selected.len() > 1 && !question.multi_select {
            let detail = format!("question {id:?} takes one option");
            return Err(Problem::new(&codes::QUESTION_SINGLE_SELECT_VIOLATION, detail));
        }
    }
    for question in questions {
        let answer = answers.iter().find(|answer| answer.question_id == question.id);
        let missing =
            || Problem::new(&codes::QUESTION_ANSWER_MISSING, format!("question {:?} has no answer", question.id));
        match (&question.form, answer) {
            (None, None) => return Err(missing()),
            (None, Some(_)) => {}
            (Some(_), answer) => {
                crate::mcp::form::value(question, answer).map_err(|cause| match answer {
                    None => missing(),
                    Some(_) => {
                        let detail = format!("the answer to {:?} does not fit: {cause}", question.id);
                        Problem::new(&codes::QUESTION_ANSWER_INVALID, detail)
                    }
                })?;
            }
        }
    }
    Ok(())
}

fn answers_of(body: Vec<AnswerBody>) -> Result<Vec<QuestionAnswer>, Problem> {
    body.into_iter()
        .map(|answer| {
            let freeform_answer = answer.freeform_answer.filter(|text| !text.trim().is_empty());
            if freeform_answer.as_ref().is_some_and(|text| text.len() > QUESTION_ANSWER_BYTES_MAX) {
                let detail = format!("an answer has more than {QUESTION_ANSWER_BYTES_MAX} bytes");
                return Err(Problem::new(&codes::BAD_REQUEST, detail));
            }
            Ok(QuestionAnswer {
                question_id: answer.question_id,
                selected_option_ids: answer.selected_option_ids,
                // A person may paste a key: the journal and the model are told what is left of it.
                freeform_answer: freeform_answer.map(|text| redaction::text(&text)),
            })
        })
        .collect()
}

fn resolve(api: &Api, call: &Call, target: Target) -> Result<RunId, Problem> {
    let body: ResolveBody = json::parse(&call.body)?;
    let key = idempotency_key(call.idempotency_key()?, body.idempotency_key.as_deref())?;
    let ResolutionBody { request_id: id, answers, declined, justification } = body.resolution;
    let answers = answers_of(answers)?;
    if declined && !answers.is_empty() {
        let detail = "the request is declined and answered; next: do one of the two";
        return Err(Problem::new(&codes::QUESTION_DECLINED_WITH_ANSWERS, detail));
    }
    // What is not open any more was answered before, or is refused by the core, which also knows repeated keys.
    let open = api.core.waiting_run(target.clone())?.and_then(|run| run.step.question.clone());
    if let Some(open) = open.filter(|open| open.id == id)
        && !declined
    {
        fit(&view_at(api, open.seq)?.questions, &answers)?;
    }
    let answer = Answer { id, answers, declined, justification: words("justification", justification)? };
    let idempotency =
        key.map(|key| answer_hashes(&api.request_mac, "questions", &target, &key, &format!("{answer:?}")));
    let command = Command::ResolveQuestion { target, answer: Box::new(answer), idempotency };
    decided_run(api.core.request(command, Some(call.actor()))?)
}

/// `POST /v1/runs/{run_id}/questions`: answers 202 once the answer is durable.
pub fn resolve_of_run(api: &Api, call: &Call) -> Result<Response, Problem> {
    let run = resolve(api, call, Target::Run(call.run_id()?))?;
    Ok(Response::json(202, &runs::shown(api, run)?))
}

/// `POST /v1/sessions/{session_id}/questions`: the same for the session's active run, answered with the session.
pub fn resolve_of_session(api: &Api, call: &Call) -> Result<Response, Problem> {
    let session = call.session_id()?;
    resolve(api, call, Target::Session(session.clone()))?;
    Ok(Response::json(200, &SessionView::from(known(api, &session)?)))
}

/// `POST /v1/runs/{run_id}/questions/{question_id}/cancel`: cancels the run with its question.
pub fn cancel(api: &Api, call: &Call) -> Result<Response, Problem> {
    let run = call.run_id()?;
    let id = call.param("question_id")?.into_owned();
    let body: CancelBody = json::parse_or_default(&call.body)?;
    let key = idempotency_key(call.idempotency_key()?, body.idempotency_key.as_deref())?;
    let justification = words("justification", body.justification)?;
    let said = format!("cancel {id} {justification:?}");
    let idempotency = key.map(|key| answer_hashes(&api.request_mac, "questions", &Target::Run(run), &key, &said));
    let command = Command::CancelQuestion { run, id, justification, idempotency };
    let run = decided_run(api.core.request(command, Some(call.actor()))?)?;
    Ok(Response::json(200, &runs::shown(api, run)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_in_which_an_answer_does_not_fit_has_its_code() {
        let questions: Vec<UserQuestion> = serde_json::from_str(
            r#"[{"id":"one","question":"?","options":[{"id":"a","label":"A"},{"id":"b","label":"B"}]},
                {"id":"many","question":"?","options":[{"id":"a","label":"A"},{"id":"b","label":"B"}],"multi_select":true},
                {"id":"free","question":"?"}]"#,
        )
        .unwrap();
        let good =
            r#"{"question_id":"many","selected_option_ids":["a","b"]},{"question_id":"free","freeform_answer":"x"}"#;
        let table = [
            (r#"{"question_id":"one","selected_option_ids":["a"]}"#, good, None),
            (r#"{"question_id":"one","freeform_answer":"neither"}"#, good, None),
            (r#"{"question_id":"one","selected_option_ids":["a"]}"#, "", Some("question_answer_missing")),
            (r#"{"question_id":"two","freeform_answer":"x"}"#, good, Some("question_unknown_answer")),
            (r#"{"question_id":"one","selected_option_ids":["c"]}"#, good, Some("question_option_not_found")),
            (r#"{"question_id":"one","selected_option_ids":["a","a"]}"#, good, Some("question_duplicate_option")),
            (
                r#"{"question_id":"one","selected_option_ids":["a","b"]}"#,
                good,
                Some("question_single_select_violation"),
            ),
            (r#"{"question_id":"one"}"#, good, Some("question_answer_empty")),
            (r#"{"question_id":"one","freeform_answer":"  "}"#, good, Some("question_answer_empty")),
            (r#"{"question_id":"free","freeform_answer":"y"}"#, good, Some("question_duplicate_answer")),
        ];
        for (first, rest, expected) in table {
            let list = if rest.is_empty() { format!("[{first}]") } else { format!("[{first},{rest}]") };
            let bodies: Vec<AnswerBody> = serde_json::from_str(&list).unwrap();
            let code = fit(&questions, &answers_of(bodies).unwrap()).err().map(|problem| problem.code.code);
            assert_eq!(code, expected, "{list}");
        }
    }
}
