//! The route table's row type, and finding a row by method and path.
//! Owns: path syntax, matching, and the checks that a table is sound.
//! Never: decodes a path; literals match byte for byte, so no spelling reaches a route by a side door.

use std::borrow::Cow;

use crate::api::call::{Call, Reply};
use crate::api::query::{QueryParam, decode_escapes};
use crate::http::problem::{Code, Problem};
use crate::http::{Lane, Method, Response};
use crate::limits::ROUTE_PATH_PARAMS_MAX;

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody; outside authentication and CORS. Probes only.
    Public,
    /// Both roles.
    ReadOnly,
    /// The admin role.
    Admin,
    /// Whoever proves that the path's connector let it in: the handler sees to it. Outside authentication and CORS, and with
    /// any query, which the sender's signature may cover.
    Connector,
}

impl Access {
    /// The name in audit lines and in the OpenAPI document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::ReadOnly => "read_only",
            Self::Admin => "admin",
            Self::Connector => "connector",
        }
    }
}

/// A component of the OpenAPI document, see `schemas.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// The component of this name.
    Ref(&'static str),
    /// A bare array of that component, or the page envelope around it when the caller asks for a page.
    List(&'static str),
}

/// A request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Name of its component.
    pub schema: &'static str,
    /// Whether it may be left out.
    pub optional: bool,
}

/// What a route answers when all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Success {
    /// JSON.
    Json {
        /// 200, 201 or 202.
        status: u16,
        /// Its shape.
        schema: Schema,
    },
    /// 200 with plain text.
    Text,
    /// 200 with an OpenAPI document.
    OpenApi,
    /// 200 with server-sent events.
    Events,
}

/// How a route is served.
pub enum Handler<A> {
    /// Answers at once.
    Plain(fn(&A, &Call) -> Result<Response, Problem>),
    /// Answers through the reply, now or later, from any thread; streams are opened this way too.
    Deferred(fn(&A, Call, Reply)),
}

/// Where an act that succeeded leaves its trace for an auditor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// A line of the control-plane audit file.
    AuditFile,
    /// The journal record of the act itself, which names who asked for it: a second line for each run would
    /// double the writes of the main path and tell nothing more. A refusal still goes to the audit file.
    Journal,
}

/// One row. `A` is the context that the handlers need.
pub struct Route<A: 'static> {
    /// Method; a GET route serves HEAD too.
    pub method: Method,
    /// Path with `{name}` segments.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Longest body; 0 where a body makes no sense.
    pub body_bytes_max: usize,
    /// Who witnesses a success; without meaning for reads.
    pub witness: Witness,
    /// Where the handler runs; [`Lane::Inline`] only for handlers that never block.
    pub lane: Lane,
    /// One sentence for the OpenAPI document and docs/http-api.md.
    pub summary: &'static str,
    /// Query parameters; any other is refused.
    pub query: &'static [QueryParam],
    /// The JSON body, where there is one.
    pub request: Option<Request>,
    /// The good answer.
    pub success: Success,
    /// Problem codes of this route beyond those that every route of its kind has.
    pub problems: &'static [&'static Code],
    /// Who serves it.
    pub handler: Handler<A>,
}

impl<A> Route<A> {
    /// Names of the `{name}` segments, in order.
    pub fn path_params(&self) -> impl Iterator<Item = &'static str> {
        segments(self.path).filter_map(param_name)
    }

    /// Whether a call of it is an act to be audited.
    pub fn is_mutation(&self) -> bool {
        self.access == Access::Admin && !matches!(self.method, Method::Get | Method::Head | Method::Options)
    }
}

fn segments(path: &str) -> std::str::Split<'_, char> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

fn param_name(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'))
}

/// Positions of the variable segments in a request's path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Captures {
    spans: [(u32, u32); ROUTE_PATH_PARAMS_MAX],
    count: usize,
}

impl Captures {
    fn push(&self, span: (u32, u32)) -> Self {
        let mut more = *self;
        // A table with more is refused when the router is built.
        more.spans[more.count] = span;
        more.count += 1;
        more
    }

    /// The decoded text of the `index`th variable segment of `path`; `None` when it is not percent-encoded UTF-8.
    pub fn decode<'p>(&self, path: &'p str, index: usize) -> Option<Cow<'p, str>> {
        let (start, end) = *self.spans[..self.count].get(index)?;
        decode_escapes(path.get(start as usize..end as usize)?)
    }
}

/// What a path and method lead to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A row.
    Route {
        /// Its place in the table.
        index: usize,
        /// Where its variable segments are.
        captures: Captures,
    },
    /// The path has rows, but none with this method.
    OtherMethods {
        /// Value of the Allow header.
        allow: String,
        /// Whether all of them are public.
        public: bool,
    },
    /// No row has this path.
    Nothing,
}

/// The table as a tree of path segments.
pub struct Router {
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    literals: Vec<(&'static str, usize)>,
    param: Option<usize>,
    rows: Vec<Row>,
}

struct Row {
    index: usize,
    method: Method,
    public: bool,
}

impl Router {
    /// Builds the tree.
    ///
    /// # Panics
    /// The table is unsound: two rows with one method and path, a malformed path, a body on a method without
    /// one, or a public row that is no read.
    pub fn new<A>(routes: &[Route<A>]) -> Self {
        let mut router = Self { nodes: vec![Node::default()] };
        for (index, route) in routes.iter().enumerate() {
            check(route);
            let mut at = 0;
            for segment in segments(route.path) {
                at = router.child(at, segment);
            }
            let row =
                Row { index, method: route.method, public: matches!(route.access, Access::Public | Access::Connector) };
            let rows = &mut router.nodes[at].rows;
            assert!(rows.iter().all(|known| known.method != row.method), "{} {} twice", route.method, route.path);
            rows.push(row);
        }
        router
    }

    fn child(&mut self, at: usize, segment: &'static str) -> usize {
        let fresh = self.nodes.len();
        let node = &mut self.nodes[at];
        let known = match param_name(segment) {
            Some(_) => *node.param.get_or_insert(fresh),
            None => match node.literals.iter().find(|(literal, _)| *literal == segment) {
                Some((_, child)) => *child,
                None => {
                    node.literals.push((segment, fresh));
                    fresh
                }
            },
        };
        if known == fresh {
            self.nodes.push(Node::default());
        }
        known
    }

    /// Finds the row for a request. A literal segment wins over a variable one; a variable one is never empty.
    pub fn find(&self, method: Method, path: &str) -> Found {
        let Some(rest) = path.strip_prefix('/') else { return Found::Nothing };
        let Some((node, captures)) = self.walk(0, rest, 1, Captures::default()) else { return Found::Nothing };
        let wanted = if method == Method::Head { Method::Get } else { method };
        if let Some(row) = node.rows.iter().find(|row| row.method == wanted) {
            return Found::Route { index: row.index, captures };
        }
        let mut allow = Vec::new();
        for row in &node.rows {
            allow.push(row.method.as_str());
            if row.method == Method::Get {
                allow.push(Method::Head.as_str());
            }
        }
        Found::OtherMethods { allow: allow.join(", "), public: node.rows.iter().all(|row| row.public) }
    }

    /// `rest` begins at byte `at` of the path. Tries the variable child when the literal one leads nowhere.
    fn walk(&self, node: usize, rest: &str, at: usize, captures: Captures) -> Option<(&Node, Captures)> {
        let node = &self.nodes[node];
        let (segment, further) = match rest.split_once('/') {
            Some((segment, further)) => (segment, Some(further)),
            None => (rest, None),
        };
        let next = |child: usize, captures: Captures| match further {
            Some(further) => self.walk(child, further, at + segment.len() + 1, captures),
            None => Some((&self.nodes[child], captures)).filter(|(node, _)| !node.rows.is_empty()),
        };
        let literal = node.literals.iter().find(|(literal, _)| *literal == segment);
        literal.and_then(|(_, child)| next(*child, captures)).or_else(|| {
            let child = node.param.filter(|_| !segment.is_empty())?;
            next(child, captures.push((at as u32, (at + segment.len()) as u32)))
        })
    }
}

fn check<A>(route: &Route<A>) {
    let (method, path) = (route.method, route.path);
    let words = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let literal = |text: &str| {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
        !text.is_empty() && text != "." && text != ".." && text.bytes().all(legal)
    };
    assert!(path.starts_with('/'), "{path} does not begin with a slash");
    for segment in segments(path) {
        assert!(param_name(segment).map_or_else(|| literal(segment), words), "{path}: the segment {segment}");
    }
    assert!(route.path_params().count() <= ROUTE_PATH_PARAMS_MAX, "{path} has too many variable segments");
    let with_body = matches!(method, Method::Post | Method::Put | Method::Patch);
    assert!(with_body || matches!(method, Method::Get | Method::Delete), "{method} {path}: the method");
    assert!(with_body || route.request.is_none(), "{method} {path} has a body");
    assert!(route.request.is_some() == (route.body_bytes_max > 0), "{method} {path}: a body and its bound go together");
    let is_read = method == Method::Get;
    assert!(
        is_read || matches!(route.access, Access::Admin | Access::Connector),
        "{method} {path} changes something and is not admin"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: Method, path: &'static str) -> Route<()> {
        let request = matches!(method, Method::Post | Method::Put).then_some(Request { schema: "X", optional: true });
        Route {
            method,
            path,
            access: if method == Method::Get { Access::ReadOnly } else { Access::Admin },
            body_bytes_max: if request.is_some() { 10 } else { 0 },
            witness: Witness::AuditFile,
            lane: Lane::Inline,
            summary: "",
            query: &[],
            request,
            success: Success::Text,
            problems: &[],
            handler: Handler::Plain(|(), _| Ok(Response::empty(204))),
        }
    }

    fn table() -> Vec<Route<()>> {
        vec![
            route(Method::Get, "/healthz"),
            route(Method::Get, "/v1/runs"),
            route(Method::Post, "/v1/runs/prune"),
            route(Method::Get, "/v1/runs/{run_id}"),
            route(Method::Delete, "/v1/runs/{run_id}"),
            route(Method::Post, "/v1/runs/{run_id}/cancel"),
            route(Method::Get, "/v1/sessions/{session_id}/tasks/{task_id}"),
            route(Method::Get, "/v1/openapi.json"),
        ]
    }

    fn found(router: &Router, method: Method, path: &str) -> Option<(usize, Vec<String>)> {
        match router.find(method, path) {
            Found::Route { index, captures } => {
                Some((index, (0..captures.count).map(|n| captures.decode(path, n).unwrap().into_owned()).collect()))
            }
            _ => None,
        }
    }

    #[test]
    fn paths_lead_to_their_rows_and_nothing_else_does() {
        let router = Router::new(&table());
        type Case = (Method, &'static str, Option<(usize, &'static [&'static str])>);
        let cases: &[Case] = &[
            (Method::Get, "/healthz", Some((0, &[]))),
            (Method::Head, "/healthz", Some((0, &[]))),
            (Method::Get, "/v1/runs", Some((1, &[]))),
            (Method::Post, "/v1/runs/prune", Some((2, &[]))),
            (Method::Get, "/v1/runs/run-7", Some((3, &["run-7"]))),
            (Method::Get, "/v1/runs/a%2Fb%20c", Some((3, &["a/b c"]))),
            (Method::Delete, "/v1/runs/..", Some((4, &[".."]))),
            (Method::Post, "/v1/runs/run-7/cancel", Some((5, &["run-7"]))),
            (Method::Post, "/v1/runs/prune/cancel", Some((5, &["prune"]))),
            (Method::Get, "/v1/sessions/s/tasks/t", Some((6, &["s", "t"]))),
            (Method::Get, "/v1/openapi.json", Some((7, &[]))),
            (Method::Get, "/", None),
            (Method::Get, "", None),
            (Method::Get, "*", None),
            (Method::Get, "/healthz/", None),
            (Method::Get, "//healthz", None),
            (Method::Get, "/HEALTHZ", None),
            (Method::Get, "/%68ealthz", None),
            (Method::Get, "/v1", None),
            (Method::Get, "/v1/", None),
            (Method::Get, "/v1/runs/", None),
            (Method::Get, "/v1/runs//", None),
            (Method::Get, "/v1/runs/run-7/", None),
            (Method::Post, "/v1/runs//cancel", None),
            (Method::Get, "/v1/./runs", None),
            (Method::Get, "/v1/x/../runs", None),
            (Method::Get, "/v1/runs%2Frun-7", None),
            (Method::Get, "/v1/runs/run-7/cancel/x", None),
            (Method::Get, "/v1/sessions//tasks/t", None),
        ];
        for (method, path, expected) in cases {
            let expected = expected.map(|(index, params)| (index, params.iter().map(ToString::to_string).collect()));
            assert_eq!(found(&router, *method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_known_path_names_its_methods() {
        let router = Router::new(&table());
        for (method, path, allow) in [
            (Method::Post, "/healthz", "GET, HEAD"),
            (Method::Get, "/v1/runs/prune", "POST"),
            (Method::Put, "/v1/runs/x", "GET, HEAD, DELETE"),
            (Method::Other, "/v1/runs/x/cancel", "POST"),
            (Method::Head, "/v1/runs/x/cancel", "POST"),
        ] {
            assert_eq!(
                router.find(method, path),
                Found::OtherMethods { allow: allow.to_string(), public: false },
                "{method} {path}"
            );
        }
    }

    #[test]
    fn a_variable_segment_must_be_percent_encoded_utf_8() {
        let router = Router::new(&table());
        for path in ["/v1/runs/%", "/v1/runs/%4", "/v1/runs/%zz", "/v1/runs/%ff", "/v1/runs/a%c3"] {
            let Found::Route { captures, .. } = router.find(Method::Get, path) else { panic!("{path}") };
            assert_eq!(captures.decode(path, 0), None, "{path}");
        }
    }

    #[test]
    fn random_paths_agree_with_a_segment_by_segment_comparison() {
        let table = table();
        let router = Router::new(&table);
        let words = ["v1", "runs", "prune", "run-7", "cancel", "sessions", "tasks", "", "healthz", "..", "%2F", "é"];
        for seed in 1..=50_000u64 {
            let mut random = crate::api::testing::Random::new(seed);
            let path: String =
                (0..1 + random.below(6)).map(|_| format!("/{}", words[random.below(words.len())])).collect();
            let method = [Method::Get, Method::Post, Method::Delete, Method::Put][random.below(4)];
            let given: Vec<&str> = path[1..].split('/').collect();
            let fits = |route: &&Route<()>| {
                let wanted: Vec<&str> = segments(route.path).collect();
                wanted.len() == given.len()
                    && wanted
                        .iter()
                        .zip(&given)
                        .all(|(want, got)| want == got || (want.starts_with('{') && !got.is_empty()))
            };
            // The one with fewest variables is the most literal; this table has no ties.
            let best = table.iter().filter(fits).map(|route| route.path_params().count()).min();
            let expected = table
                .iter()
                .position(|route| fits(&route) && route.method == method && Some(route.path_params().count()) == best);
            match router.find(method, &path) {
                Found::Route { index, .. } => assert_eq!(Some(index), expected, "seed {seed}: {method} {path}"),
                Found::OtherMethods { .. } => {
                    assert_eq!((expected, best.is_some()), (None, true), "seed {seed}: {method} {path}");
                }
                Found::Nothing => assert_eq!(best, None, "seed {seed}: {method} {path}"),
            }
        }
    }

    #[test]
    fn an_unsound_table_does_not_start() {
        let unsound: Vec<Vec<Route<()>>> = vec![
            vec![route(Method::Get, "/a"), route(Method::Get, "/a")],
            vec![route(Method::Get, "/{a}"), route(Method::Get, "/{b}")],
            vec![route(Method::Get, "a")],
            vec![route(Method::Get, "/a/")],
            vec![route(Method::Get, "/a//b")],
            vec![route(Method::Get, "/A")],
            vec![route(Method::Get, "/{}")],
            vec![route(Method::Get, "/{a")],
            vec![route(Method::Get, "/..")],
            vec![route(Method::Get, "/{a}/{b}/{c}/{d}/{e}")],
            vec![route(Method::Options, "/a")],
            vec![Route { access: Access::ReadOnly, ..route(Method::Post, "/a") }],
            vec![Route { access: Access::Public, ..route(Method::Delete, "/a") }],
            vec![Route { body_bytes_max: 1, ..route(Method::Get, "/a") }],
            vec![Route { request: None, ..route(Method::Post, "/a") }],
        ];
        for (number, table) in unsound.into_iter().enumerate() {
            assert!(std::panic::catch_unwind(|| drop(Router::new(&table))).is_err(), "table {number} was accepted");
        }
    }
}
