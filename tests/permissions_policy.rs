//! Decisions: the reference's matrix, what rules of several scopes do to each other, and properties over random rules.
//! Owns: the checks of `permissions::Policy` as its callers see it. Never: looks inside.

use std::slice;

use kheish_daemon::permissions::{
    ArgumentMatcher, Behavior, Effective, Facts, Mode, Policy, Question, Rule, RuleScope, Verdict,
};
use serde_json::value::RawValue;

#[path = "support/rng.rs"]
mod rng;

use Behavior::{Allow, Ask, Deny};
use rng::Rng;

const WORKSPACE: &str = "/srv/work";

fn rule(scope: RuleScope, pattern: &str, behavior: Behavior) -> Rule {
    Rule { scope, tool_name_pattern: pattern.to_string(), argument: None, behavior, reason: None }
}

fn on(rule: Rule, argument: ArgumentMatcher) -> Rule {
    Rule { argument: Some(argument), ..rule }
}

fn command(text: &str) -> ArgumentMatcher {
    ArgumentMatcher::CommandPrefix(text.to_string())
}

fn path(text: &str) -> ArgumentMatcher {
    ArgumentMatcher::Path(text.to_string())
}

fn host(text: &str) -> ArgumentMatcher {
    ArgumentMatcher::Host(text.to_string())
}

fn verdict(policy: &Policy, tool: &str, input: &str, mode: Effective) -> Verdict {
    let input = RawValue::from_string(input.to_string()).expect("tests write JSON");
    policy.decide(&Question {
        tool,
        facts: Facts::of_name(tool),
        input: &input,
        mode,
        workspace_root: WORKSPACE,
        base: WORKSPACE,
    })
}

fn decide(rules: &[Rule], tool: &str, input: &str) -> Behavior {
    let policy = Policy::new(rules).expect("legal rules");
    verdict(&policy, tool, input, Mode::Default.into()).decision
}

fn bash(text: &str) -> String {
    serde_json::json!({ "command": text }).to_string()
}

#[test]
fn the_matrix_is_the_references() {
    // default, acceptEdits, bypassPermissions, plan, dontAsk
    let rows: &[(&[&str], [Behavior; 5])] = &[
        (&["bash"], [Ask, Ask, Allow, Deny, Deny]),
        (&["write_file", "edit_file", "apply_patch"], [Ask, Allow, Allow, Deny, Deny]),
        (&["mcp__linear__create", "mcp__x"], [Ask, Ask, Allow, Deny, Deny]),
        (
            &["list_mcp_resources", "list_mcp_resource_templates", "read_mcp_resource", "exit_plan_mode"],
            [Ask, Ask, Allow, Ask, Deny],
        ),
        (
            &[
                "read_file",
                "list_files",
                "glob_search",
                "grep_search",
                "web_fetch",
                "schedule_get",
                "get_goal",
                "task_output",
            ],
            [Allow, Allow, Allow, Allow, Allow],
        ),
        (&["task_stop", "todo_write", "use_skill", "emit_output"], [Allow, Allow, Allow, Deny, Allow]),
    ];
    let none = Policy::default();
    for (tools, expected) in rows {
        for tool in *tools {
            let found = Mode::ALL.map(|mode| verdict(&none, tool, "{}", mode.into()).decision);
            assert_eq!(found, *expected, "{tool}");
            let denied = Policy::new(&[rule(RuleScope::User, tool, Deny)]).expect("legal");
            let found = Mode::ALL.map(|mode| verdict(&denied, tool, "{}", mode.into()).decision);
            assert_eq!(found, [Deny; 5], "{tool} with an explicit deny");
        }
    }
}

#[test]
fn the_tools_table_agrees_with_the_reference() {
    for def in kheish_daemon::tools::TOOLS {
        assert_eq!(def.facts(), Facts::of_name(def.name), "{}", def.name);
    }
}

#[test]
fn a_verdict_says_what_the_mode_did_and_which_rule_decided() {
    let rules = [
        Rule { reason: Some("no network".to_string()), ..rule(RuleScope::Project, "web_*", Deny) },
        rule(RuleScope::User, "*", Allow),
    ];
    let policy = Policy::new(&rules).expect("legal");
    let json = |tool: &str, mode: Mode| serde_json::to_value(verdict(&policy, tool, "{}", mode.into())).expect("JSON");
    assert_eq!(
        json("web_fetch", Mode::BypassPermissions),
        serde_json::json!({"decision": "deny", "base_decision": "deny", "effective_mode": "bypassPermissions",
            "scope": "project", "matched_rule_pattern": "web_*", "matched_rule_origin": "static", "reason": "no network"})
    );
    assert_eq!(
        json("bash", Mode::DontAsk),
        serde_json::json!({"decision": "allow", "base_decision": "allow", "effective_mode": "dontAsk", "scope": "user",
            "matched_rule_pattern": "*", "matched_rule_origin": "static"})
    );
    let none = Policy::default();
    let effect = |tool: &str, mode: Effective| verdict(&none, tool, "{}", mode).mode_effect;
    assert_eq!(effect("edit_file", Mode::AcceptEdits.into()), Some("accept_edits_auto_allowed_edit_approval"));
    assert_eq!(effect("bash", Mode::BypassPermissions.into()), Some("bypass_permissions_auto_allowed_approval"));
    assert_eq!(effect("read_file", Mode::Plan.into()), Some("plan_mode_allowed_read_only_or_coordination_tool"));
    assert_eq!(effect("bash", Mode::Plan.into()), Some("plan_mode_denied_non_whitelisted_tool"));
    assert_eq!(effect("bash", Mode::DontAsk.into()), Some("dont_ask_denied_approval"));
    assert_eq!(effect("bash", Mode::Default.into()), None);
    let contained = verdict(&none, "exit_plan_mode", "{}", Effective::of(Mode::DontAsk, Some(Mode::Plan)));
    assert_eq!(
        (contained.decision, contained.effective_mode, contained.mode_effect),
        (Deny, Mode::Plan, Some("dont_ask_denied_approval"))
    );
}

/// In a comparable daemon a default `*` allow of session scope hid every rule of the user and the project.
#[test]
fn the_default_never_hides_a_rule_and_a_deny_of_any_scope_wins() {
    use RuleScope::{Project, Session, User};
    assert_eq!(decide(&[rule(User, "read_file", Deny)], "read_file", "{}"), Deny);
    assert_eq!(decide(&[rule(User, "read_file", Ask)], "read_file", "{}"), Ask);
    assert_eq!(decide(&[rule(Project, "bash", Allow)], "bash", "{}"), Allow);
    let servers = [rule(User, "mcp__*", Ask), rule(Project, "mcp__linear__*", Allow)];
    assert_eq!(decide(&servers, "mcp__linear__create", "{}"), Allow, "the narrower target");
    assert_eq!(decide(&servers, "mcp__github__create", "{}"), Ask);
    assert_eq!(
        decide(&[rule(User, "mcp__*", Deny), rule(Session, "mcp__linear__*", Allow)], "mcp__linear__x", "{}"),
        Deny
    );
    assert_eq!(decide(&[rule(User, "*", Allow), rule(User, "bash", Deny)], "bash", "{}"), Deny);
    assert_eq!(decide(&[rule(Session, "bash", Allow), rule(User, "*", Deny)], "bash", "{}"), Deny);
    // The same target: the narrower scope speaks for itself, whichever way.
    assert_eq!(decide(&[rule(User, "bash", Ask), rule(Session, "bash", Allow)], "bash", "{}"), Allow);
    assert_eq!(decide(&[rule(User, "bash", Allow), rule(Session, "bash", Ask)], "bash", "{}"), Ask);
    // Neither is narrower: a person decides.
    let crossed = [rule(User, "write_file", Ask), on(rule(User, "*", Allow), path("docs/**"))];
    assert_eq!(decide(&crossed, "write_file", r#"{"path":"docs/a"}"#), Ask);
}

#[test]
fn a_command_rule_allows_only_what_it_surely_is() {
    use RuleScope::User;
    let rules = [on(rule(User, "bash", Allow), command("git status")), on(rule(User, "bash", Deny), command("rm"))];
    for (text, expected) in [
        ("git status", Allow),
        ("git status --short", Allow),
        ("git status; ls", Ask),
        ("git status; rm -rf /", Deny),
        ("git status $(rm -rf /)", Deny),
        ("git status && curl x | sh", Ask),
        ("git status > /etc/x", Ask),
        ("git status\nls", Ask),
        ("git push", Ask),
        ("sh -c 'rm x'", Deny),
        ("$X", Deny),
    ] {
        assert_eq!(decide(&rules, "bash", &bash(text)), expected, "{text:?}");
    }
    // Arguments that two readers could understand differently.
    for (input, expected) in [
        (r#"{"command":"git status","command":"rm -rf /"}"#, Deny),
        (r#"{"command":"rm -rf /","command":"git status"}"#, Deny),
        (r#"{"command":"git status","x":1,"x":2}"#, Deny),
        (r#"{"command":["git","status"]}"#, Deny),
        (r#"{"command":null}"#, Ask),
        (r#"{"comm\u0061nd":"git status"}"#, Allow),
        (r#"["git status"]"#, Deny),
        (r#""git status""#, Deny),
        ("null", Deny),
        ("{}", Ask),
    ] {
        assert_eq!(decide(&rules, "bash", input), expected, "{input}");
    }
}

#[test]
fn a_path_rule_speaks_of_every_path_of_a_call() {
    use RuleScope::{Project, User};
    let rules = [on(rule(Project, "*", Allow), path("src/**")), on(rule(User, "*", Deny), path("secrets/**"))];
    for (tool, input, expected) in [
        ("write_file", r#"{"path":"src/a.rs"}"#, Allow),
        ("write_file", r#"{"path":"/srv/work/src/a.rs"}"#, Allow),
        ("write_file", r#"{"path":"docs/a"}"#, Ask),
        ("write_file", r#"{"path":"src/../secrets/key"}"#, Deny),
        ("write_file", r#"{"path":"../work/src/a"}"#, Deny),
        ("read_file", r#"{"path":"secrets/key"}"#, Deny),
        ("read_file", r#"{"path":"./secrets//key"}"#, Deny),
        ("read_file", r#"{"path":"secrets"}"#, Deny),
        ("read_file", r#"{"path":7}"#, Deny),
        ("apply_patch", r#"{"hunks":[{"path":"src/a"},{"path":"src/b"}]}"#, Allow),
        ("apply_patch", r#"{"hunks":[{"path":"src/a"},{"path":"docs/b"}]}"#, Ask),
        ("apply_patch", r#"{"hunks":[{"path":"src/a"},{"path":"secrets/b"}]}"#, Deny),
        ("apply_patch", r#"{"hunks":[{"path":"src/a"},{}]}"#, Deny),
        // A search sees what lies below its base.
        ("grep_search", r#"{"pattern":"x","base":"src"}"#, Allow),
        ("grep_search", r#"{"pattern":"x"}"#, Deny),
        ("glob_search", r#"{"pattern":"../secrets/*","base":"src"}"#, Deny),
        ("glob_search", r#"{"pattern":"{..,x}/secrets/*","base":"src"}"#, Deny),
        ("grep_search", r#"{"pattern":"a","glob":"/etc/*","base":"src"}"#, Deny),
        ("grep_search", r#"{"pattern":"a..b","glob":"*.rs","base":"src"}"#, Allow),
        // A path rule says nothing of a shell.
        ("bash", r#"{"command":"cat secrets/key","workdir":"src"}"#, Ask),
    ] {
        assert_eq!(decide(&rules, tool, input), expected, "{tool} {input}");
    }
    let policy = Policy::new(&rules).expect("legal");
    let input = RawValue::from_string(r#"{"path":"src/a"}"#.to_string()).expect("JSON");
    let question = Question {
        tool: "write_file",
        facts: Facts::of_name("write_file"),
        input: &input,
        mode: Mode::Default.into(),
        workspace_root: "not/absolute",
        base: "not/absolute",
    };
    assert_eq!(policy.decide(&question).decision, Deny, "without a workspace nothing can be judged");
}

#[test]
fn a_host_rule_reads_a_url_strictly() {
    use RuleScope::User;
    let rules = [on(rule(User, "web_fetch", Allow), host("docs.example.com")), rule(User, "web_*", Ask)];
    let denied = [on(rule(User, "web_fetch", Deny), host("*.internal.example"))];
    for (url, allowed, restricted) in [
        ("https://docs.example.com/x", Allow, Allow),
        ("https://DOCS.example.com.:443/", Allow, Allow),
        ("https://docs.example.com@evil.com/", Ask, Deny),
        ("https://evil.com/docs.example.com", Ask, Allow),
        ("https://docs.example.com\\@evil.com", Ask, Deny),
        ("http://db.internal.example/", Ask, Deny),
        ("http://internal.example/", Ask, Allow),
        ("http://2130706433/", Ask, Deny),
        ("not a url", Ask, Deny),
    ] {
        let input = serde_json::json!({ "url": url }).to_string();
        assert_eq!(decide(&rules, "web_fetch", &input), allowed, "{url} by the allow");
        assert_eq!(decide(&denied, "web_fetch", &input), restricted, "{url} by the deny");
    }
}

#[test]
fn rules_that_cannot_be_used_are_refused_with_their_reason() {
    let user = |pattern: &str| rule(RuleScope::User, pattern, Allow);
    for (rules, part) in [
        (vec![user("")], "is no tool name"),
        (vec![user("a*b")], "is no tool name"),
        (vec![user("**")], "is no tool name"),
        (vec![user("mcp__ä*")], "is no tool name"),
        (vec![user(&"x".repeat(300))], "is no tool name"),
        (vec![on(user("bash"), command("git; rm"))], "plain words"),
        (vec![on(user("bash"), path("../x"))], "no path pattern"),
        (vec![on(user("bash"), host("*"))], "no host"),
        (vec![user("bash"), rule(RuleScope::User, "bash", Deny)], "same target"),
        (vec![Rule { reason: Some("a\nb".to_string()), ..user("bash") }], "control characters"),
        (vec![Rule { reason: Some("x".repeat(600)), ..user("bash") }], "control characters"),
    ] {
        let error = Policy::new(&rules).expect_err(part).to_string();
        assert!(error.contains(part) && error.contains("next: "), "{error}");
    }
}

#[test]
fn a_revision_follows_the_rules_and_nothing_else() {
    let (one, two) = (rule(RuleScope::User, "bash", Deny), rule(RuleScope::Project, "*", Ask));
    let revision = |rules: &[Rule]| Policy::new(rules).expect("legal").revision();
    assert_eq!(revision(&[one.clone(), two.clone()]), revision(&[two.clone(), one.clone()]));
    assert_ne!(revision(&[one.clone(), two.clone()]), revision(slice::from_ref(&one)));
    assert_ne!(revision(slice::from_ref(&one)), revision(&[Rule { behavior: Ask, ..one.clone() }]));
    assert_eq!(revision(slice::from_ref(&one)), revision(&[Rule { reason: Some("why".to_string()), ..one.clone() }]));
    let session = rule(RuleScope::Session, "bash", Deny);
    let with = Policy::new(slice::from_ref(&one))
        .and_then(|policy| policy.with_session(slice::from_ref(&session)))
        .expect("legal");
    assert_eq!(with.revision(), revision(&[session, one]));
}

const TOOLS: &[&str] =
    &["bash", "write_file", "read_file", "grep_search", "web_fetch", "mcp__a__x", "task_stop", "unheard_of"];
const PATTERNS: &[&str] =
    &["*", "bash", "write_file", "read_*", "mcp__*", "mcp__a__*", "web_fetch", "task_stop", "w*", "grep_search"];
const COMMANDS: &[&str] = &["git", "git status", "rm", "ls", "cargo test"];
const PATHS: &[&str] = &["src/**", "src/a.rs", "**", "**/.env", "/etc/**", "docs/*"];
const HOSTS: &[&str] = &["a.example", "*.a.example", "*.example", "127.0.0.1"];
const INPUTS: &[&str] = &[
    "{}",
    "null",
    r#"{"command":"git status"}"#,
    r#"{"command":"git status; rm x"}"#,
    r#"{"command":"$X"}"#,
    r#"{"command":"ls","command":"rm"}"#,
    r#"{"path":"src/a.rs"}"#,
    r#"{"path":"a/.env"}"#,
    r#"{"path":"../x"}"#,
    r#"{"path":"/etc/passwd"}"#,
    r#"{"base":"docs","pattern":"x"}"#,
    r#"{"url":"https://x.a.example/"}"#,
    r#"{"url":"https://a.example@b/"}"#,
    r#"{"url":"http://127.0.0.1/"}"#,
];

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.below(from.len() as u64) as usize]
}

fn random_rule(rng: &mut Rng) -> Rule {
    let scope = [RuleScope::User, RuleScope::Project, RuleScope::Session][rng.below(3) as usize];
    let behavior = [Allow, Ask, Deny][rng.below(3) as usize];
    let plain = rule(scope, pick(rng, PATTERNS), behavior);
    if rng.chance(2) {
        return plain;
    }
    match rng.below(3) {
        0 => on(plain, command(pick(rng, COMMANDS))),
        1 => on(plain, path(pick(rng, PATHS))),
        _ => on(plain, host(pick(rng, HOSTS))),
    }
}

/// Rules without two of one scope for one target.
fn random_rules(rng: &mut Rng) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for _ in 0..rng.below(8) {
        let fresh = random_rule(rng);
        let mut more = rules.clone();
        more.push(fresh);
        if Policy::new(&more).is_ok() {
            rules = more;
        }
    }
    rules
}

#[test]
fn random_rules_keep_the_promises() {
    for seed in rng::seeds(10_000) {
        let mut rng = Rng::new(seed);
        let rules = random_rules(&mut rng);
        let policy = Policy::new(&rules).expect("legal");
        let (tool, input) = (pick(&mut rng, TOOLS), pick(&mut rng, INPUTS));
        let decisions = Mode::ALL.map(|mode| verdict(&policy, tool, input, mode.into()));
        let [default, accept, bypass, plan, dont_ask] = &decisions;
        let base = default.base_decision;

        // Every mode starts from the same base and only the generous ones widen it.
        assert!(decisions.iter().all(|verdict| verdict.base_decision == base), "seed {seed}");
        assert_eq!(default.decision, base, "seed {seed}");
        assert!(plan.decision <= base && dont_ask.decision <= base, "seed {seed}: plan or dontAsk widened");
        assert!(dont_ask.decision != Ask, "seed {seed}: dontAsk left something to be asked");
        assert!(base != Ask || dont_ask.decision == Deny, "seed {seed}: dontAsk allows what asks");
        assert!(base != Ask || plan.decision != Allow, "seed {seed}: plan allows what asks");
        assert!(accept.decision >= base && bypass.decision >= accept.decision, "seed {seed}");
        assert!(
            base != Deny || decisions.iter().all(|verdict| verdict.decision == Deny),
            "seed {seed}: a deny did not stay"
        );

        // A deny that matches by itself wins among the others.
        for deny in rules.iter().filter(|rule| rule.behavior == Deny) {
            let alone = Policy::new(slice::from_ref(deny)).expect("legal");
            let speaks = verdict(&alone, tool, input, Mode::Default.into()).matched_rule.is_some();
            assert!(!speaks || base == Deny, "seed {seed}: {deny:?} did not win over {rules:?}");
        }

        // The order in which rules were written means nothing.
        let mut turned = rules.clone();
        turned.reverse();
        let turned = Policy::new(&turned).expect("legal");
        assert_eq!(verdict(&turned, tool, input, Mode::Default.into()), *default, "seed {seed}");

        // Adding a deny or an ask never widens; adding an allow never narrows.
        let mut more = rules.clone();
        let fresh = random_rule(&mut rng);
        more.push(fresh.clone());
        if let Ok(policy) = Policy::new(&more) {
            for (mode, before) in Mode::ALL.into_iter().zip(&decisions) {
                let after = verdict(&policy, tool, input, mode.into()).decision;
                let holds = match fresh.behavior {
                    Deny | Ask => after <= before.decision,
                    Allow => after >= before.decision,
                };
                assert!(holds, "seed {seed}: {fresh:?} turned {:?} into {after:?}", before.decision);
            }
        }

        // The whole daemon in dontAsk: no session's own mode is more generous than dontAsk itself.
        for session in [None].into_iter().chain(Mode::ALL.map(Some)) {
            let contained = verdict(&policy, tool, input, Effective::of(Mode::DontAsk, session));
            assert!(contained.decision <= dont_ask.decision, "seed {seed}: {session:?} escapes containment");
        }

        // A child that is at most as permissive as its parent is so for every call.
        for (child, of_child) in Mode::ALL.into_iter().zip(&decisions) {
            for (parent, of_parent) in Mode::ALL.into_iter().zip(&decisions) {
                let holds = !child.is_at_most(parent) || of_child.decision <= of_parent.decision;
                assert!(holds, "seed {seed}: {child:?} is more permissive than {parent:?}");
            }
        }
    }
}

/// A child with `secrets` as its workspace names the same file `key.txt`: the rule did not find it there.
#[test]
fn a_relative_pattern_holds_for_whoever_has_only_a_part_of_the_workspace() {
    let decide = |behavior, tool: &str, below: &str, named: &str| {
        let policy = Policy::new(&[on(rule(RuleScope::User, "*", behavior), path("secrets/**"))]).expect("legal rules");
        let input = RawValue::from_string(serde_json::json!({ "path": named }).to_string()).expect("tests write JSON");
        let base = format!("{WORKSPACE}/{below}");
        let mode = Mode::Default.into();
        let facts = Facts::of_name(tool);
        policy.decide(&Question { tool, facts, input: &input, mode, workspace_root: WORKSPACE, base: &base }).decision
    };
    for (tool, below, named) in [
        ("read_file", "secrets", "key.txt"),
        ("write_file", "secrets", "key.txt"),
        ("read_file", "secrets/deep", "../key.txt"),
        ("list_files", "secrets", "."),
        ("read_file", "other", "../secrets/key.txt"),
    ] {
        assert_eq!(decide(Deny, tool, below, named), Deny, "{tool} {named} in {below}");
    }
    assert_eq!(decide(Deny, "read_file", "src", "secrets/key.txt"), Allow, "src/secrets is another place");
    assert_eq!(decide(Allow, "write_file", "src", "secrets/key.txt"), Ask, "nor does an allowance reach there");
    assert_eq!(decide(Allow, "write_file", "secrets", "key.txt"), Allow);
}

#[test]
fn modes_have_two_spellings_and_no_third() {
    for (text, mode) in [
        ("default", Mode::Default),
        ("acceptEdits", Mode::AcceptEdits),
        ("accept-edits", Mode::AcceptEdits),
        ("bypassPermissions", Mode::BypassPermissions),
        ("bypass-permissions", Mode::BypassPermissions),
        ("plan", Mode::Plan),
        ("dontAsk", Mode::DontAsk),
        ("dont-ask", Mode::DontAsk),
    ] {
        assert_eq!(Mode::parse(text), Ok(mode));
        assert_eq!(serde_json::from_value::<Mode>(serde_json::json!(text)).ok(), Some(mode));
    }
    for text in ["", "Default", "dontask", "dont_ask", "bypass", "plan "] {
        assert!(Mode::parse(text).expect_err(text).to_string().contains("next: use"), "{text}");
    }
    assert!(!Mode::Plan.is_at_most(Mode::DontAsk) && !Mode::DontAsk.is_at_most(Mode::Plan));
}
