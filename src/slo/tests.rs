//! Each row at its thresholds, and what missing evidence comes to.
//! Owns: a healthy sample, of which each case changes one thing.
//! Never: waits; a sample carries its own time.

use serde_json::{Value, json};

use super::*;

const HOUR_MS: u64 = 3_600_000;
const NOW_MS: u64 = 1_764_057_600_000;

fn healthy() -> Value {
    let probe = |name: &str| {
        json!({"name": name, "path": format!("/{name}"), "state": "ok", "writable": true, "code": "write_probe_ok",
               "space": {"used_percent": 40, "inodes_used_percent": 3}})
    };
    let quiet = json!({"count": 0, "windows_10m": [0, 0, 0]});
    json!({
        "snapshot_at_ms": NOW_MS,
        "health": {"ok": true},
        "storage": {"ok": true, "probes": [probe("workspace_root"), probe("state_root")]},
        "provider_readiness": {"active_route_ready": true, "active_route_state": "ok",
                               "active_route_state_since_ms": NOW_MS - HOUR_MS},
        "runs": {"held": false, "copy_held": false, "queued": 0, "running": 0, "waiting_for_approval": 0, "waiting_for_user_question": 0},
        "delivery": {"unresolved_dead_lettered": 0, "dead_letter_growth": quiet},
        "control_plane": {"rate_limits": {"auth_rate_limited": quiet, "cors_origin_rate_limited": quiet}},
        "runtime": {"debug_level": "off", "debug": {}},
    })
}

fn sample(at_ms: u64, readyz: u16, status: Value) -> Sample {
    Sample { at_ms, readyz: Ok(readyz), status: Ok(status) }
}

/// The healthy status with a part of it replaced.
fn with(changes: &[(&str, Value)]) -> Value {
    let mut status = healthy();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        status.pointer_mut(parent).expect("a place")[name] = value.clone();
    }
    status
}

fn row_of(report: &Report, id: &str) -> (Level, bool) {
    let row = report.rows.iter().find(|row| row.id == id).expect("a row of the table");
    (row.level, row.evidence_missing)
}

fn judge(id: &str, profile: Profile, changes: &[(&str, Value)]) -> Level {
    let report = evaluate(&[sample(0, 200, with(changes))], &Thresholds::default(), profile);
    let (level, missing) = row_of(&report, id);
    assert!(!missing, "{id} {changes:?}: {report:?}");
    // One thing was changed, so no other row may move.
    for row in report.rows.iter().filter(|row| row.id != id) {
        let shared = ["storage", "disk", "health"].contains(&row.id);
        assert!(row.level == Level::Ok || shared, "{id} {changes:?} moved {row:?}");
    }
    level
}

#[test]
fn a_healthy_daemon_raises_nothing() {
    for profile in [Profile::Staging, Profile::Production] {
        let report = evaluate(&[sample(0, 200, healthy())], &Thresholds::default(), profile);
        assert_eq!((report.ok, report.level), (true, Level::Ok), "{report:?}");
        assert_eq!(report.rows.len(), ROWS.len());
    }
}

#[test]
fn ages_are_judged_at_their_thresholds() {
    let behind = |age_ms: u64| {
        vec![
            ("/runs/queued", json!(3)),
            ("/runs/oldest_queued_run_age_ms", json!(age_ms)),
            ("/runs/oldest_queued_behind_active_age_ms", json!(age_ms)),
            ("/runs/oldest_queued_behind_active_run_id", json!("run-8")),
            ("/runs/oldest_queued_behind_run_id", json!("run-7")),
            ("/runs/oldest_queued_behind_run_status", json!("running")),
        ]
    };
    let free = |age_ms: u64| vec![("/runs/queued", json!(3)), ("/runs/oldest_queued_run_age_ms", json!(age_ms))];
    let idle = |age_ms: u64| {
        vec![
            ("/runs/running", json!(1)),
            ("/runs/oldest_running_run_idle_ms", json!(age_ms)),
            ("/runs/oldest_idle_running_run_id", json!("run-7")),
        ]
    };
    let approval = |age_ms: u64| {
        vec![
            ("/runs/waiting_for_approval", json!(1)),
            ("/runs/oldest_waiting_for_approval_age_ms", json!(age_ms)),
            ("/runs/oldest_waiting_for_approval_run_id", json!("run-7")),
        ]
    };
    let question = |age_ms: u64| {
        vec![
            ("/runs/waiting_for_user_question", json!(1)),
            ("/runs/oldest_waiting_for_user_question_age_ms", json!(age_ms)),
            ("/runs/oldest_waiting_for_user_question_run_id", json!("run-7")),
        ]
    };
    type Changes = Vec<(&'static str, Value)>;
    type At<'a> = &'a dyn Fn(u64) -> Changes;
    let cases: [(&str, At<'_>, u64, u64); 5] = [
        ("queue_lag", &behind, HOUR_MS / 2, 2 * HOUR_MS),
        ("queue_lag", &free, HOUR_MS / 2, 2 * HOUR_MS),
        ("stale_runs", &idle, 2 * HOUR_MS, 6 * HOUR_MS),
        ("pending", &approval, 4 * HOUR_MS, 24 * HOUR_MS),
        ("pending", &question, 4 * HOUR_MS, 24 * HOUR_MS),
    ];
    for (id, at, warning_ms, page_ms) in cases {
        for (age_ms, expected) in [
            (0, Level::Ok),
            (warning_ms, Level::Ok),
            (warning_ms + 1, Level::Warning),
            (page_ms, Level::Warning),
            (page_ms + 1, Level::Page),
        ] {
            assert_eq!(judge(id, Profile::Production, &at(age_ms)), expected, "{id} at {age_ms}");
        }
    }
    let mut held = behind(90 * HOUR_MS);
    held.push(("/runs/held", json!(true)));
    assert_eq!(judge("queue_lag", Profile::Production, &held), Level::Ok, "nobody is late while an operator holds");
    let mut copy = behind(90 * HOUR_MS);
    copy.push(("/runs/copy_held", json!(true)));
    assert_eq!(judge("queue_lag", Profile::Production, &copy), Level::Ok, "what a copy brought is as old as it was");
}

#[test]
fn the_worse_of_two_waits_is_told() {
    let report = evaluate(
        &[sample(
            0,
            200,
            with(&[
                ("/runs/waiting_for_approval", json!(1)),
                ("/runs/oldest_waiting_for_approval_age_ms", json!(5 * HOUR_MS)),
                ("/runs/oldest_waiting_for_approval_run_id", json!("run-1")),
                ("/runs/waiting_for_user_question", json!(1)),
                ("/runs/oldest_waiting_for_user_question_age_ms", json!(HOUR_MS)),
                ("/runs/oldest_waiting_for_user_question_run_id", json!("run-2")),
            ]),
        )],
        &Thresholds::default(),
        Profile::Production,
    );
    let row = report.rows.iter().find(|row| row.id == "pending").expect("a row");
    assert_eq!((row.level, row.detail.as_str()), (Level::Warning, "run-1 has waited for an approval for 5 h 0 min"));
}

#[test]
fn a_route_alarms_once_its_state_has_lasted() {
    let route = |state: &str, age_ms: u64| {
        vec![
            ("/provider_readiness/active_route_ready", json!(state == "ok" || state == "warning")),
            ("/provider_readiness/active_route_state", json!(state)),
            ("/provider_readiness/active_route_state_since_ms", json!(NOW_MS - age_ms)),
        ]
    };
    for (state, age_ms, expected) in [
        ("ok", 99 * HOUR_MS, Level::Ok),
        ("warning", 299_999, Level::Ok),
        ("warning", 300_000, Level::Warning),
        ("warning", 99 * HOUR_MS, Level::Warning),
        ("error", 299_999, Level::Ok),
        ("error", 300_000, Level::Page),
        ("none", 300_000, Level::Page),
    ] {
        assert_eq!(
            judge("provider_readiness", Profile::Production, &route(state, age_ms)),
            expected,
            "{state} {age_ms}"
        );
    }
}

#[test]
fn consecutive_samples_page_and_a_single_one_warns() {
    let (good, bad) = (healthy(), with(&[("/health/ok", json!(false))]));
    let levels = |samples: &[(u64, u16, &Value)]| {
        let samples: Vec<Sample> =
            samples.iter().map(|(at, readyz, status)| sample(*at, *readyz, (*status).clone())).collect();
        let report = evaluate(&samples, &Thresholds::default(), Profile::Production);
        (row_of(&report, "readiness").0, row_of(&report, "health").0)
    };
    use Level::{Ok, Page, Warning};
    assert_eq!(levels(&[(0, 503, &bad)]), (Warning, Warning));
    assert_eq!(levels(&[(0, 503, &bad), (59_000, 503, &bad)]), (Page, Page));
    assert_eq!(levels(&[(0, 503, &good), (61_000, 503, &good)]), (Warning, Ok), "not within a minute of each other");
    assert_eq!(levels(&[(0, 503, &bad), (5_000, 200, &good)]), (Warning, Warning), "one bad sample");
    assert_eq!(levels(&[(0, 503, &bad), (5_000, 200, &good), (10_000, 503, &bad)]), (Warning, Warning));
    assert_eq!(levels(&[(0, 200, &good), (5_000, 503, &bad), (10_000, 503, &bad)]), (Page, Page));
}

#[test]
fn another_sample_is_wanted_only_while_it_could_change_the_verdict() {
    let thresholds = Thresholds::default();
    let bad = || sample(0, 503, healthy());
    assert!(needs_another_sample(&[], &thresholds));
    assert!(!needs_another_sample(&[sample(0, 200, healthy())], &thresholds));
    assert!(needs_another_sample(&[bad()], &thresholds));
    assert!(!needs_another_sample(&[bad(), bad()], &thresholds));
    let unhealthy = sample(0, 200, with(&[("/health/ok", json!(false))]));
    assert!(needs_another_sample(&[unhealthy], &thresholds));
}

#[test]
fn storage_warns_of_a_diagnostic_and_pages_at_once() {
    for (changes, expected) in [
        (vec![("/storage/probes/0/state", json!("warning"))], Level::Warning),
        (vec![("/storage/probes/1/state", json!("warning"))], Level::Warning),
        (vec![("/storage/ok", json!(false)), ("/storage/probes/1/state", json!("error"))], Level::Page),
        (vec![("/storage/ok", json!(false))], Level::Page),
    ] {
        assert_eq!(judge("storage", Profile::Staging, &changes), expected, "{changes:?}");
    }
    let space = |used: u64, inodes: u64| {
        vec![
            ("/storage/probes/1/space/used_percent", json!(used)),
            ("/storage/probes/1/space/inodes_used_percent", json!(inodes)),
        ]
    };
    for (used, inodes, expected) in [
        (80, 94, Level::Ok),
        (81, 0, Level::Warning),
        (90, 0, Level::Warning),
        (91, 0, Level::Page),
        (10, 95, Level::Page),
    ] {
        assert_eq!(judge("disk", Profile::Staging, &space(used, inodes)), expected, "{used} {inodes}");
    }
}

#[test]
fn dead_letters_page_in_production_and_warn_of_growth_in_staging() {
    let letters = |unresolved: u64, windows: [u64; 3]| {
        vec![
            ("/delivery/unresolved_dead_lettered", json!(unresolved)),
            ("/delivery/dead_letter_growth/windows_10m", json!(windows)),
        ]
    };
    for (unresolved, windows, staging, production) in [
        (0, [0, 0, 0], Level::Ok, Level::Ok),
        (1, [0, 0, 0], Level::Ok, Level::Page),
        (1, [1, 0, 0], Level::Warning, Level::Page),
        (0, [0, 3, 0], Level::Warning, Level::Warning),
        (4, [1, 3, 0], Level::Page, Level::Page),
        (0, [1, 0, 3], Level::Page, Level::Page),
    ] {
        let changes = letters(unresolved, windows);
        assert_eq!(judge("dead_letters", Profile::Staging, &changes), staging, "{changes:?}");
        assert_eq!(judge("dead_letters", Profile::Production, &changes), production, "{changes:?}");
    }
}

#[test]
fn in_staging_dead_letters_alone_do_not_page_as_ill_health() {
    let unhealthy = |codes: &[&str]| {
        let warnings: Vec<Value> = codes.iter().map(|code| json!({"severity": "warning", "code": code})).collect();
        with(&[("/health/ok", json!(false)), ("/health/warnings", json!(warnings))])
    };
    for (codes, staging, production) in [
        (&["delivery_dead_letters"][..], Level::Ok, Level::Page),
        (&["delivery_dead_letters", "hook_dead_letters"], Level::Page, Level::Page),
        (&[], Level::Page, Level::Page),
    ] {
        for (profile, expected) in [(Profile::Staging, staging), (Profile::Production, production)] {
            let samples = [sample(0, 200, unhealthy(codes)), sample(1, 200, unhealthy(codes))];
            let report = evaluate(&samples, &Thresholds::default(), profile);
            assert_eq!(row_of(&report, "health").0, expected, "{codes:?} {profile:?}");
        }
    }
}

#[test]
fn floods_warn_when_they_repeat_and_page_when_they_go_on() {
    for code in ["auth_rate_limited", "cors_origin_rate_limited"] {
        let pointer = format!("/control_plane/rate_limits/{code}/windows_10m");
        for (windows, expected) in [
            ([1, 0, 0], Level::Ok),
            ([2, 0, 0], Level::Warning),
            ([9, 9, 1], Level::Warning),
            ([2, 2, 2], Level::Page),
            ([0, 9, 9], Level::Ok),
        ] {
            let changes = [(pointer.as_str(), json!(windows))];
            assert_eq!(judge("rate_limits", Profile::Production, &changes), expected, "{code} {windows:?}");
        }
    }
}

#[test]
fn debug_capture_warns_outside_a_window_and_pages_when_it_is_forgotten() {
    let full = |age_ms: u64, ticket: Value, until: Value| {
        let debug = json!({"since_ms": NOW_MS - age_ms, "ticket": ticket, "until_ms": until});
        vec![("/runtime/debug_level", json!("full")), ("/runtime/debug", debug)]
    };
    let until = json!(NOW_MS + HOUR_MS);
    for (changes, expected) in [
        (full(0, json!("OPS-1"), until.clone()), Level::Ok),
        (full(0, Value::Null, until.clone()), Level::Warning),
        (full(0, json!("OPS-1"), Value::Null), Level::Warning),
        (full(1_800_000, json!("OPS-1"), until.clone()), Level::Ok),
        (full(1_800_001, json!("OPS-1"), until.clone()), Level::Page),
        (vec![("/runtime/debug_level", json!("redacted"))], Level::Ok),
    ] {
        assert_eq!(judge("debug_capture", Profile::Production, &changes), expected, "{changes:?}");
    }
}

/// Every value of the sample, by pointer.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (format!("{at}/{name}"), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(index, value)| (format!("{at}/{index}"), value)).collect()
        }
        _ => Vec::new(),
    };
    for (pointer, child) in children {
        found.push(pointer.clone());
        pointers(child, &pointer, found);
    }
}

#[test]
fn evidence_that_is_missing_or_of_another_kind_pages() {
    let full = with(&[
        ("/runs/running", json!(1)),
        ("/runs/oldest_running_run_idle_ms", json!(5)),
        ("/runs/oldest_idle_running_run_id", json!("run-7")),
        ("/runs/queued", json!(1)),
        ("/runs/oldest_queued_run_age_ms", json!(5)),
    ]);
    let mut all = Vec::new();
    pointers(&full, "", &mut all);
    // Told to people, or of parts that decide nothing by themselves.
    let decides_nothing =
        ["path", "code", "writable", "count", "inodes_used_percent", "debug", "active_route_state_since"];
    let mut checked = 0;
    for pointer in all {
        let name = pointer.rsplit('/').next().expect("a name");
        let is_of_the_workspace = pointer.starts_with("/storage/probes/0/") && !name.starts_with("state");
        if decides_nothing.contains(&name) || is_of_the_workspace || pointer == "/storage/probes/0" {
            continue;
        }
        for replacement in [Value::Null, json!({"other": [1]})] {
            let mut status = full.clone();
            *status.pointer_mut(&pointer).expect("it was found there") = replacement;
            let report = evaluate(&[sample(0, 200, status)], &Thresholds::default(), Profile::Production);
            assert_eq!(report.level, Level::Page, "without {pointer}: {report:?}");
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
    let unreachable = Sample { at_ms: 0, readyz: Err("refused".to_string()), status: Err("refused".to_string()) };
    let report = evaluate(&[unreachable], &Thresholds::default(), Profile::Production);
    assert!(report.rows.iter().all(|row| row.level == Level::Page && row.evidence_missing || row.id == "readiness"));
}

#[test]
fn thresholds_are_changed_by_name_and_by_nothing_else() {
    let parse = |text: &str| Thresholds::parse(text);
    let changed = parse("[queue_lag]\nwarning_ms = 5\npage_ms = 7\n\n[health]\npage_samples = 3\n").expect("legal");
    assert_eq!((changed.get("queue_lag", "warning_ms"), changed.get("queue_lag", "page_ms")), (5, 7));
    assert_eq!((changed.get("health", "page_samples"), changed.get("readiness", "page_samples")), (3, 2));
    assert_eq!(parse("").expect("legal"), Thresholds::default());
    let unknown = ThresholdError::UnknownRow { row: "queue".to_string() };
    assert_eq!(parse("[queue]\nwarning_ms = 5"), Err(unknown));
    let key = "warning".to_string();
    assert_eq!(parse("[queue_lag]\nwarning = 5"), Err(ThresholdError::UnknownKey { row: "queue_lag", key }));
    assert_eq!(parse("[disk]\nwarning_percent = 95"), Err(ThresholdError::Disordered { row: "disk" }));
    for text in
        ["[queue_lag]\nwarning_ms = -1", "[queue_lag]\nwarning_ms = \"5\"", "queue_lag = 3", "[", "[health.x]\ny=1"]
    {
        assert!(matches!(parse(text), Err(ThresholdError::Malformed { .. })), "{text}");
    }
    for error in [parse("[queue]\nx = 1"), parse("[storage]\nx = 1"), parse("["), parse("[disk]\nwarning_percent = 95")]
    {
        assert_eq!(error.expect_err("refused").to_string().matches("next:").count(), 1);
    }
}

#[test]
fn changed_thresholds_hold() {
    let status = with(&[
        ("/runs/running", json!(1)),
        ("/runs/oldest_running_run_idle_ms", json!(100)),
        ("/runs/oldest_idle_running_run_id", json!("run-7")),
    ]);
    let thresholds = Thresholds::parse("[stale_runs]\nwarning_ms = 10\npage_ms = 50").expect("legal");
    let report = evaluate(&[sample(0, 200, status)], &thresholds, Profile::Production);
    assert_eq!(row_of(&report, "stale_runs").0, Level::Page);
}

#[test]
fn every_row_has_both_alerts_and_names_a_next_command() {
    for row in ROWS {
        for severity in ["warning", "page"] {
            assert!(row.alerts.iter().any(|alert| alert.severity == severity), "{} has no {severity}", row.id);
        }
        assert!(!row.next.is_empty() && !row.component.is_empty(), "{}", row.id);
    }
    let names: Vec<String> =
        alert_rules().lines().filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_string)).collect();
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), names.len());
}
