//! What a child agent may use: tools, routes, and its part of the workspace.
//! Owns: the scope, and that a child's is never wider than its parent's.
//! Never: decides about a call; rules and modes are looked at besides.

use serde::{Deserialize, Serialize};

use crate::limits::{
    AGENT_SCOPE_ROUTES_MAX, AGENT_SCOPE_TOOL_BYTES_MAX, AGENT_SCOPE_TOOLS_MAX, AGENT_WORKSPACE_BYTES_MAX,
    LABEL_BYTES_MAX,
};

/// Which tools: those that `allow` names, all if it is empty, but for those that `block` names. A name may end in `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolScope {
    /// Only these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Not these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub block: Vec<String>,
}

fn names(pattern: &str, tool: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => tool.starts_with(start),
        None => pattern == tool,
    }
}

impl ToolScope {
    fn grants(&self, tool: &str) -> bool {
        let allowed = self.allow.is_empty() || self.allow.iter().any(|pattern| names(pattern, tool));
        allowed && !self.block.iter().any(|pattern| names(pattern, tool))
    }

    fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.block.is_empty()
    }
}

/// What an agent may use. The default is everything that its session may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentScope {
    /// Tools: one entry for each ancestor that narrowed them, the outermost first. All of them must grant a tool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<ToolScope>,
    /// Ids of the routes that its runs may use; empty is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// Its directory below the daemon's workspace, without `.` and `..`; empty is all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workspace: String,
    /// Files can only be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// A wish for a scope, as the parent or an operator states it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeWish {
    /// Tools.
    pub tools: ToolScope,
    /// Routes.
    pub routes: Vec<String>,
    /// Directory, relative to the parent's.
    pub workspace: String,
    /// Files can only be read.
    pub read_only: bool,
}

impl AgentScope {
    /// Whether a call of this tool may be made at all.
    pub fn grants_tool(&self, tool: &str) -> bool {
        self.tools.iter().all(|scope| scope.grants(tool))
    }

    /// Whether a run may use this route.
    pub fn grants_route(&self, route: &str) -> bool {
        self.routes.is_empty() || self.routes.iter().any(|granted| granted == route)
    }

    /// The scope of a child that is wished for so. Whatever the wish, nothing is granted that `self` does not grant.
    ///
    /// # Errors
    /// The wish is malformed, or asks for a route that `self` lacks.
    pub fn narrowed(&self, wish: &ScopeWish) -> Result<Self, String> {
        for (what, list) in [("allowed", &wish.tools.allow), ("blocked", &wish.tools.block)] {
            let is_legal = |name: &String| {
                let name = name.strip_suffix('*').unwrap_or(name);
                name.len() <= AGENT_SCOPE_TOOL_BYTES_MAX && name.bytes().all(|b| b.is_ascii_graphic() && b != b'*')
            };
            if list.len() > AGENT_SCOPE_TOOLS_MAX || !list.iter().all(is_legal) || list.iter().any(String::is_empty) {
                return Err(format!(
                    "{what} tools are at most {AGENT_SCOPE_TOOLS_MAX} names of at most {AGENT_SCOPE_TOOL_BYTES_MAX} \
                     bytes, with * only at their end"
                ));
            }
        }
        let is_label = |id: &String| !id.is_empty() && id.len() <= LABEL_BYTES_MAX && !id.contains(char::is_control);
        if wish.routes.len() > AGENT_SCOPE_ROUTES_MAX || !wish.routes.iter().all(is_label) {
            return Err(format!("routes are at most {AGENT_SCOPE_ROUTES_MAX} ids"));
        }
        if let Some(wider) = wish.routes.iter().find(|route| !self.grants_route(route)) {
            return Err(format!("route {wider:?} is not granted to the parent"));
        }
        let mut tools = self.tools.clone();
        tools.extend((!wish.tools.is_empty()).then(|| wish.tools.clone()));
        let routes = if wish.routes.is_empty() { self.routes.clone() } else { wish.routes.clone() };
        let workspace = below(&self.workspace, &wish.workspace)?;
        Ok(Self { tools, routes, workspace, read_only: self.read_only || wish.read_only })
    }
}

/// `directory` below `base`; both relative.
fn below(base: &str, directory: &str) -> Result<String, String> {
    let is_whole = |part: &&str| !part.is_empty() && *part != ".";
    let parts: Vec<&str> = directory.split('/').filter(is_whole).collect();
    let is_bad = directory.starts_with('/') || parts.contains(&"..") || directory.contains(char::is_control);
    if is_bad || directory.len() > AGENT_WORKSPACE_BYTES_MAX {
        return Err("the workspace of a child is a directory below its parent's, as a relative path without ..".into());
    }
    let joined: Vec<&str> = base.split('/').filter(is_whole).chain(parts).collect();
    Ok(joined.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(allow: &[&str], block: &[&str]) -> ScopeWish {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        ScopeWish { tools: ToolScope { allow: list(allow), block: list(block) }, ..ScopeWish::default() }
    }

    #[test]
    fn whatever_a_grandchild_asks_for_it_gets_nothing_that_its_parents_lack() {
        let child = AgentScope::default().narrowed(&wish(&["read_file", "mcp__*", "bash"], &["mcp__db__*"])).unwrap();
        let asked = [wish(&["*"], &[]), wish(&[], &[]), wish(&["write_file", "mcp__db__drop", "bash"], &["bash"])];
        let tools = ["read_file", "write_file", "bash", "mcp__x__y", "mcp__db__drop", "spawn_agent", ""];
        for asked in asked {
            let grandchild = child.narrowed(&asked).unwrap();
            for tool in tools {
                assert!(!grandchild.grants_tool(tool) || child.grants_tool(tool), "{tool} by {asked:?}");
            }
        }
        let granted: Vec<&str> = tools.into_iter().filter(|tool| child.grants_tool(tool)).collect();
        assert_eq!(granted, ["read_file", "bash", "mcp__x__y"]);
    }

    #[test]
    fn directories_stay_below_the_parents_and_read_only_stays() {
        let at = |workspace: &str, read_only| ScopeWish { workspace: workspace.into(), read_only, ..wish(&[], &[]) };
        let child = AgentScope::default().narrowed(&at("a/./b//", true)).unwrap();
        assert_eq!((child.workspace.as_str(), child.read_only), ("a/b", true));
        let grandchild = child.narrowed(&at("c", false)).unwrap();
        assert_eq!((grandchild.workspace.as_str(), grandchild.read_only), ("a/b/c", true));
        for bad in ["..", "a/../..", "/etc", "a/..", "x\0y"] {
            assert!(child.narrowed(&at(bad, false)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_route_that_the_parent_lacks_is_refused() {
        let over = |routes: &[&str]| ScopeWish {
            routes: routes.iter().map(|route| route.to_string()).collect(),
            ..ScopeWish::default()
        };
        let child = AgentScope::default().narrowed(&over(&["a", "b"])).unwrap();
        assert!(child.narrowed(&over(&["a"])).unwrap().grants_route("a"));
        assert!(!child.narrowed(&over(&["a"])).unwrap().grants_route("b"));
        assert!(child.narrowed(&over(&["a", "c"])).is_err());
        assert_eq!(child.narrowed(&over(&[])).unwrap().routes, ["a", "b"]);
    }
}
