//! What names a model route: sessions' policies, unfinished runs, the runtime configuration.
//! Owns: `GET /v1/runtime/route-references`.
//! May touch: the core's pages and the acceptance records of unfinished runs.
//! Never: lists what is in order; a reference is named only when its route does not exist.

use serde::Serialize;

use super::call::Call;
use super::context::Api;
use crate::core::{Body, Order, RunPosition, RunQuery, RunStatus};
use crate::http::Response;
use crate::http::problem::{Problem, codes};
use crate::ids::{RunId, SessionId};
use crate::limits::{ROUTE_REFERENCE_RUNS_MAX, ROUTE_REFERENCE_SESSIONS_PAGE, ROUTE_REFERENCES_NAMED_MAX};

/// One reference to a route that does not exist.
#[derive(Debug, Serialize)]
struct StaleReference {
    /// `run`, `session` or `runtime`.
    kind: &'static str,
    /// Id of the run or session; `default` for the runtime configuration.
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<SessionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<RunStatus>,
    route_id: String,
}

#[derive(Debug, Default, Serialize)]
struct References {
    /// Sessions with a route policy of their own.
    session_policy_count: u64,
    /// Runs that are not finished and whose route was looked up.
    run_count: u64,
    /// References to unknown routes, those beyond the list included.
    stale_count: u64,
    /// Not everything was looked at, or not every finding is listed.
    truncated: bool,
    stale: Vec<StaleReference>,
}

impl References {
    fn add(&mut self, stale: StaleReference) {
        self.stale_count += 1;
        if self.stale.len() < ROUTE_REFERENCES_NAMED_MAX {
            self.stale.push(stale);
        } else {
            self.truncated = true;
        }
    }
}

/// `GET /v1/runtime/route-references`.
pub fn list(api: &Api, _call: &Call) -> Result<Response, Problem> {
    let mut found = References::default();
    let is_known = |route: &str| api.routes.as_ref().is_some_and(|routes| routes.get(route).is_some());
    let view = api.core.view();
    if let Some(route_id) = view.runtime.settings().route_id.clone().filter(|route| !is_known(route)) {
        found.add(StaleReference { kind: "runtime", id: "default".into(), session_id: None, status: None, route_id });
    }
    for (session, settings) in api.core.all_session_settings() {
        let Some(route_id) = settings.route_policy.as_ref().and_then(|policy| policy.route_id.clone()) else {
            continue;
        };
        found.session_policy_count += 1;
        if !is_known(&route_id) && api.core.session(&session)?.is_some_and(|view| !view.session.ended) {
            let id = session.to_string();
            found.add(StaleReference { kind: "session", id, session_id: None, status: None, route_id });
        }
    }
    for run in unfinished(api, &mut found.truncated)? {
        found.run_count += 1;
        let route_id = route_of(api, &run)?;
        if !is_known(&route_id) {
            let (id, session_id) = (run.id.to_string(), Some(run.session));
            found.add(StaleReference { kind: "run", id, session_id, status: Some(run.status), route_id });
        }
    }
    Ok(Response::json(200, &found))
}

/// Runs that are not finished, at most [`ROUTE_REFERENCE_RUNS_MAX`].
fn unfinished(api: &Api, truncated: &mut bool) -> Result<Vec<RunPosition>, Problem> {
    let (mut runs, mut after) = (Vec::new(), 0);
    loop {
        let page = api.core.sessions(after, ROUTE_REFERENCE_SESSIONS_PAGE)?;
        for view in &page.items {
            after = view.session.number;
            let wanted = view.session.queue_runs + u32::from(view.active.is_some());
            if runs.len() + wanted as usize > ROUTE_REFERENCE_RUNS_MAX {
                *truncated = true;
                return Ok(runs);
            }
            collect(api, &view.session.id, wanted, &mut runs)?;
        }
        if !page.has_more || page.items.is_empty() {
            return Ok(runs);
        }
    }
}

/// The newest runs of a session first: what is not finished stands near the end of its list.
fn collect(api: &Api, session: &SessionId, wanted: u32, runs: &mut Vec<RunPosition>) -> Result<(), Problem> {
    let (mut left, mut after): (u32, Option<RunId>) = (wanted, None);
    while left > 0 {
        let query =
            RunQuery { session: Some(session.clone()), order: Order::Descending, after, limit: left.max(16) as usize };
        let page = api.core.runs(query)?;
        after = page.items.last().map(|run| run.id);
        for run in page.items.into_iter().filter(|run| !run.status.is_terminal()) {
            left = left.saturating_sub(1);
            runs.push(run);
        }
        if !page.has_more {
            break;
        }
    }
    Ok(())
}

fn route_of(api: &Api, run: &RunPosition) -> Result<String, Problem> {
    let record = api.reader.read(run.first_seq)?;
    match Body::decode(&record.kind, &record.body) {
        Ok(Body::RunAccepted(accepted)) => Ok(accepted.route),
        Ok(other) => {
            let detail = format!("record {} of {} is a {}", record.seq, run.id, other.kind());
            Err(Problem::new(&codes::INTERNAL_ERROR, detail))
        }
        Err(error) => Err(Problem::new(&codes::INTERNAL_ERROR, error.to_string())),
    }
}
