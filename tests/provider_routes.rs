//! The routes file: what is accepted, what is refused, and that a refusal never shows a value.

#[allow(dead_code, reason = "a part of it is used")]
#[path = "support/rng.rs"]
mod rng;

use std::path::PathBuf;

use kheish_daemon::providers::{RouteCredential, Routes, RoutesError, Severity};
use rng::Rng;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kheish-routes-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("scratch file");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("scratch file is ours");
    }
}

fn environment(name: &str) -> Option<String> {
    (name == "KEY_VARIABLE").then(|| "sk-from-environment".to_string())
}

fn load(name: &str, text: &str) -> Result<Routes, RoutesError> {
    Routes::load(&Scratch::new(name, text).0, None, &environment)
}

/// Code and line of a finding.
type Found = (&'static str, Option<usize>);

fn errors(name: &str, text: &str) -> Vec<Found> {
    let error = load(name, text).map(|routes| format!("{routes:?}")).expect_err(text);
    let errors = error.diagnostics.iter().filter(|it| it.severity == Severity::Error);
    errors.map(|it| (it.code, it.line)).collect()
}

const MAIN: &str = "[routes.main]\ndriver = 'openai'\ndefault_model = 'gpt-5.4'\nauth_ref = 'openai.prod'\n";

#[test]
fn the_documented_minimum_is_accepted_and_gets_the_documented_defaults() {
    let scratch = Scratch::new("minimum", MAIN);
    let routes = Routes::load(&scratch.0, None, &environment).expect("valid");
    let route = routes.default_route();
    assert_eq!((route.id.as_str(), route.default_model.as_str()), ("main", "gpt-5.4"));
    assert_eq!(route.target().to_string(), "https://api.openai.com/v1/responses");
    assert!(matches!(&route.credential, RouteCredential::AuthRef(slot) if slot == "openai.prod"));
    let ms = route.timeouts;
    assert_eq!((ms.connect_ms, ms.first_byte_ms, ms.idle_ms, ms.total_ms), (10_000, 120_000, 90_000, Some(600_000)));
    assert!(route.capabilities.multimodal_input && route.capabilities.matrix_version == 2);
    assert!(routes.diagnostics().is_empty());
    assert_eq!(routes.source().path, scratch.0);
    let digest = ring::digest::digest(&ring::digest::SHA256, MAIN.as_bytes());
    assert_eq!(routes.source().sha256, digest.as_ref());
    let models = ["gpt-5.4-mini", "o4-mini", "claude-sonnet-4-6", "", "gpt-\n", "ollama"];
    assert_eq!(models.map(|model| route.accepts_model(model)), [true, true, false, false, false, false]);
}

#[test]
fn the_endpoint_is_appended_once() {
    for (base, target) in [
        ("http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/responses"),
        ("http://127.0.0.1:1/v1/", "http://127.0.0.1:1/v1/responses"),
        ("http://127.0.0.1:1/v1/responses", "http://127.0.0.1:1/v1/responses"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1/responses"),
    ] {
        let routes = load("endpoint", &format!("{MAIN}base_url = '{base}'\n")).expect("valid");
        assert_eq!(routes.default_route().target().to_string(), target);
    }
}

#[test]
fn every_broken_rule_is_found_with_its_line() {
    let route = |fields: &str| format!("[routes.main]\ndriver = 'openai'\ndefault_model = 'gpt-5.4'\n{fields}\n");
    let local = |fields: &str| route(&format!("base_url = 'http://127.0.0.1:1'\n{fields}"));
    let anthropic = |fields: &str| {
        format!("[routes.main]\ndriver = 'anthropic'\ndefault_model = 'claude-sonnet-4-6'\nauth_ref = 'a'\n{fields}\n")
    };
    // Two routes with these failovers.
    let chain = |first: &str, second: &str| {
        let second = MAIN.replace("main", "two") + &format!("failover = '{second}'\n");
        format!("default_route = 'main'\n{MAIN}failover = '{first}'\n{second}")
    };
    let page = include_str!("../docs/operators/routes.md");
    let cases: Vec<(String, Vec<Found>)> = vec![
        (String::new(), vec![("no_routes", None)]),
        ("[routes]\n".to_string(), vec![("no_routes", None)]),
        ("routes = 3\n".to_string(), vec![("wrong_type", Some(1)), ("no_routes", None)]),
        ("[routes\n".to_string(), vec![("toml_syntax", Some(1))]),
        (format!("{MAIN}{MAIN}"), vec![("toml_syntax", Some(5))]),
        (format!("version = 2\n{MAIN}"), vec![("version_unsupported", Some(1))]),
        (format!("version = '1'\n{MAIN}"), vec![("wrong_type", Some(1))]),
        (format!("default_route = 'x'\n{MAIN}"), vec![("default_route_unknown", Some(1))]),
        (format!("{MAIN}{}", MAIN.replace("main", "two")), vec![("default_route_missing", Some(1))]),
        (MAIN.replace("main", "'a/b'"), vec![("route_id_invalid", Some(1))]),
        (MAIN.replace("main", "'a b'"), vec![("route_id_invalid", Some(1))]),
        (MAIN.replace("main", "''"), vec![("route_id_invalid", Some(1))]),
        (MAIN.replace("'openai'", "'anthropic'"), vec![("model_not_in_family", Some(3))]),
        (MAIN.replace("'openai'", "'openai_compatible'"), vec![("base_url_missing", Some(1))]),
        (
            format!("{}project = 'p'\n", MAIN.replace("'openai'", "'xai'").replace("gpt-5.4", "grok-5")),
            vec![("key_of_other_driver", Some(5))],
        ),
        (MAIN.replace("'openai'", "'open-ai'"), vec![("driver_unsupported", Some(2))]),
        ("[routes.main]\ndefault_model = 'gpt-5'\nauth_ref = 'a'\n".to_string(), vec![("driver_missing", Some(1))]),
        ("[routes.main]\ndriver = 'openai'\nauth_ref = 'a'\n".to_string(), vec![("default_model_missing", Some(1))]),
        (MAIN.replace("gpt-5.4", "  "), vec![("default_model_invalid", Some(3))]),
        (MAIN.replace("gpt-5.4", "claude-sonnet-4-6"), vec![("model_not_in_family", Some(3))]),
        (format!("{MAIN}model_support = 'some'\n"), vec![("model_support_invalid", Some(5))]),
        (MAIN.replace("openai.prod", " x"), vec![("auth_ref_invalid", Some(4))]),
        (MAIN.replace("openai.prod", ""), vec![("auth_ref_invalid", Some(4))]),
        (MAIN.replace("openai.prod", "a/b"), vec![("auth_ref_invalid", Some(4))]),
        (format!("{MAIN}api_key = 'sk-1'\n"), vec![("credential_conflict", Some(5))]),
        (format!("{MAIN}api_key_env = 'KEY_VARIABLE'\n"), vec![("credential_conflict", Some(5))]),
        (route("api_key = 'sk-1'\napi_key_env = 'KEY_VARIABLE'"), vec![("credential_conflict", Some(5))]),
        (format!("{MAIN}openai_auth_source = 'codex'\n"), vec![("credential_conflict", Some(5))]),
        (local("openai_auth_source = 'codex'"), vec![("auth_source_unsupported", Some(5))]),
        (route("api_key = ' '"), vec![("api_key_invalid", Some(4))]),
        (route("api_key = \"sk-1\\n\""), vec![("api_key_invalid", Some(4))]),
        (route("api_key_env = 'NOT_SET'"), vec![("api_key_env_missing", Some(4))]),
        (route("api_key_env = ''"), vec![("api_key_env_missing", Some(4))]),
        (route(""), vec![("credential_missing", Some(1))]),
        (route("base_url = 'https://gateway.example.com'"), vec![("credential_missing", Some(1))]),
        (format!("{MAIN}base_url = 'gateway'\n"), vec![("base_url_invalid", Some(5))]),
        (format!("{MAIN}base_url = 'https://u:p@gateway'\n"), vec![("base_url_invalid", Some(5))]),
        (local("organization = 'a'\norganization_env = 'KEY_VARIABLE'"), vec![("label_conflict", Some(6))]),
        (local("project_env = 'NOT_SET'"), vec![("label_env_missing", Some(5))]),
        (local("project = 'two words'"), vec![("label_invalid", Some(5))]),
        (local("anthropic_version = 'x'"), vec![("key_of_other_driver", Some(5))]),
        (local("anthropic_beta_headers = ['a']"), vec![("key_of_other_driver", Some(5))]),
        (anthropic("anthropic_beta_headers = 'a'"), vec![("wrong_type", Some(5))]),
        (anthropic("anthropic_beta_headers = ['a', 1]"), vec![("wrong_type", Some(5))]),
        (anthropic("anthropic_beta_headers = ['a,b']"), vec![("beta_header_invalid", Some(5))]),
        (anthropic("anthropic_beta_headers = ['']"), vec![("beta_header_invalid", Some(5))]),
        (anthropic("anthropic_auth_source = 'claude_code'"), vec![("credential_conflict", Some(5))]),
        (
            anthropic("anthropic_auth_source = 'claude_code'").replace("auth_ref = 'a'", "api_key = 'k'"),
            vec![("auth_source_unsupported", Some(5))],
        ),
        (anthropic("image_edit = true"), vec![("unsupported_capability_override", Some(5))]),
        (local("context_window_tokens = 3999"), vec![("context_window_out_of_range", Some(5))]),
        (local("max_concurrency = 0"), vec![("max_concurrency_out_of_range", Some(5))]),
        (local("max_concurrency = 1025"), vec![("max_concurrency_out_of_range", Some(5))]),
        (local("failover = 'nowhere'"), vec![("failover_unknown", Some(5))]),
        (local("failover = 'main'"), vec![("failover_cycle", Some(5))]),
        (chain("two", "main"), vec![("failover_cycle", Some(6)), ("failover_cycle", Some(11))]),
        (local("ca_file = '/does/not/exist.pem'"), vec![("ca_file_unusable", Some(5))]),
        (local("idle_timeout_ms = 9"), vec![("timeout_out_of_range", Some(5))]),
        (local("total_timeout_ms = 3600001"), vec![("timeout_out_of_range", Some(5))]),
        (local("idle_timeout_ms = -1"), vec![("wrong_type", Some(5))]),
        (local("multimodal_input = 'no'"), vec![("wrong_type", Some(5))]),
        (local("auth_reff = 'x'"), vec![("unknown_key", Some(5))]),
        (format!("defualt_route = 'main'\n{MAIN}"), vec![("unknown_key", Some(1))]),
    ];
    for (text, expected) in cases {
        assert_eq!(errors("rule", &text), expected, "{text}");
        for (code, _) in expected {
            assert!(page.contains(&format!("`{code}`")), "docs/operators/routes.md does not tell of {code}");
        }
    }
}

#[test]
fn an_unknown_key_is_named_by_place_and_suggestion_and_nothing_of_the_file_is_repeated() {
    let secret = "sk-proj-SECRET123";
    let broken = [
        format!("{MAIN}auth_reff = '{secret}'\n"),
        format!("{MAIN}'{secret}' = 'x'\n"),
        format!("{MAIN}idle_timeout_ms = '{secret}'\n"),
        format!("{MAIN}base_url = 'https://{secret}@h'\n"),
        format!("{MAIN}base_url = 'https://h?key={secret}'\n"),
        format!("{MAIN}model_support = '{secret}'\n"),
        format!("{MAIN}organization = '{secret} x'\n"),
        format!("{MAIN}api_key = \"{secret}\n"),
        format!("{MAIN}api_key = '{secret}'\napi_key = '{secret}'\n"),
        format!("default_route = '{secret}'\n{MAIN}"),
        MAIN.replace("'openai'", &format!("'{secret}'")),
        MAIN.replace("main", &format!("'{secret} x'")),
    ];
    for text in broken {
        let error = load("secret", &text).map(|_| ()).expect_err(&text);
        let shown = format!("{error} {error:?} {}", serde_json::to_string(&error.diagnostics).expect("JSON"));
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(shown.contains("; next: "), "{shown}");
    }
    let error = load("suggestion", &format!("{MAIN}  auth_reff = 'x'\n")).map(|_| ()).expect_err("unknown key");
    let expected = "line 5, column 3: route \"main\": unknown key; next: did you mean `auth_ref`? [unknown_key]";
    assert!(error.to_string().ends_with(expected), "{error}");
    let resolved =
        load("debug", "[routes.a]\ndriver = 'openai'\ndefault_model = 'gpt-5'\napi_key = 'sk-proj-SECRET123'\n");
    assert!(!format!("{:?}", resolved.expect("valid")).contains("SECRET"));
}

#[test]
fn an_inline_key_works_and_is_remarked_upon() {
    let text = "[routes.main]\ndriver = 'openai'\ndefault_model = 'm'\nmodel_support = 'any'\n\
                base_url = 'http://gateway.example.com/v1'\napi_key_env = 'KEY_VARIABLE'\n";
    let routes = load("inline", text).expect("valid");
    let RouteCredential::Inline(secret) = &routes.default_route().credential else { panic!("no inline credential") };
    assert_eq!(secret.expose(), b"sk-from-environment");
    let found: Vec<_> = routes.diagnostics().iter().map(|it| (it.severity, it.code, it.line)).collect();
    let expected =
        [(Severity::Warning, "credential_over_http", Some(5)), (Severity::Info, "inline_credential", Some(6))];
    assert_eq!(found, expected);
}

#[test]
fn a_default_from_the_command_line_must_exist_and_does_not_repair_the_file() {
    let two = format!("{MAIN}{}", MAIN.replace("main", "two"));
    let scratch = Scratch::new("default", &format!("default_route = 'main'\n{two}"));
    let id = |name| {
        let routes = Routes::load(&scratch.0, Some(name), &environment);
        routes.map(|routes| routes.default_route().id.clone()).map_err(|error| error.diagnostics[0].code)
    };
    assert_eq!((id("two"), id("three")), (Ok("two".to_string()), Err("default_route_unknown")));
    let broken = Scratch::new("no-default", &two);
    let error = Routes::load(&broken.0, Some("two"), &environment).map(|_| ()).expect_err("no default_route");
    assert_eq!(error.diagnostics[0].code, "default_route_missing");
}

#[test]
fn a_file_that_is_missing_too_long_or_no_text_is_refused_by_name() {
    let missing = std::env::temp_dir().join("kheish-routes-that-do-not-exist.toml");
    let error = Routes::load(&missing, None, &environment).map(|_| ()).expect_err("missing");
    assert!(error.to_string().contains("kheish-routes-that-do-not-exist.toml"), "{error}");
    assert_eq!(errors("long", &"#".repeat(1024 * 1024 + 1)), [("too_large", None)]);
    let scratch = Scratch::new("binary", "");
    std::fs::write(&scratch.0, [0xff, 0xfe]).expect("scratch file");
    let error = Routes::load(&scratch.0, None, &environment).map(|_| ()).expect_err("binary");
    assert_eq!(error.diagnostics[0].code, "not_utf8");
}

#[test]
fn the_shipped_routes_files_are_valid() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, default) in [("deploy/routes.default.toml", "openai"), ("deploy/demo/routes.toml", "demo")] {
        let routes = Routes::load(&root.join(file), None, &environment).expect(file);
        assert_eq!((routes.default_route().id.as_str(), routes.diagnostics().len()), (default, 0));
    }
    let script = root.join("deploy/demo/script.toml");
    kheish_daemon::scripted::Script::load(&script).expect("the demo's script is valid");
}

/// The TOML blocks of a page.
fn toml_blocks(page: &str) -> Vec<&str> {
    page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_file_on_the_page_for_operators_is_one_that_the_daemon_takes() {
    let page = include_str!("../docs/operators/routes.md");
    let blocks = toml_blocks(page);
    let mut drivers = Vec::new();
    for block in &blocks {
        let routes = load("page", block).unwrap_or_else(|error| panic!("{block}\n{error}"));
        assert_eq!(routes.diagnostics(), [], "{block}");
        drivers.extend(routes.iter().map(|route| route.driver.as_str()));
        // Each key of a route that is shown has its command.
        for slot in block.lines().filter_map(|line| line.strip_prefix("auth_ref = \"")?.strip_suffix('"')) {
            assert!(page.contains(&format!("kheish-daemon secrets set {slot} --provider ")), "{slot}");
        }
    }
    for driver in ["openai", "anthropic", "google", "xai", "openrouter", "openai_compatible"] {
        assert!(drivers.contains(&driver), "no file for {driver}");
    }
}

#[test]
fn the_page_tells_every_key_and_no_other() {
    let page = include_str!("../docs/operators/routes.md");
    let section = page.split("In a route:").nth(1).and_then(|rest| rest.split("Each timeout").next()).expect("a table");
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let documented: Vec<&str> = cells.flat_map(|(keys, _)| keys.split(", ")).map(|key| key.trim_matches('`')).collect();
    let source = include_str!("../src/providers/routes_file.rs");
    let table = source.split("const ROUTE_KEYS").nth(1).and_then(|rest| rest.split("];").next()).expect("the keys");
    let known: Vec<&str> =
        table.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next()).collect();
    let mut missing: Vec<&str> = known.iter().filter(|key| !documented.contains(key)).copied().collect();
    // Named in a sentence: they are refused.
    missing.retain(|key| !["openai_auth_file", "anthropic_credentials_file"].contains(key));
    assert_eq!(missing, Vec::<&str>::new());
    assert!(documented.iter().all(|key| known.contains(key)), "{documented:?}");
}

/// Each cell of the table of abilities on the page is what the daemon takes.
#[test]
fn an_ability_can_be_taken_away_and_not_given_to_a_driver_that_lacks_it() {
    let page = include_str!("../docs/operators/routes.md");
    let table = page.split("| driver | `multimodal_input`").nth(1).expect("a table");
    let keys = [
        "multimodal_input",
        "native_web_search",
        "image_generation",
        "image_edit",
        "audio_generation",
        "transcription",
    ];
    let mut rows = 0;
    for line in table.lines().skip(2).take_while(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let driver = cells[0].trim_matches('`');
        for (key, cell) in keys.iter().zip(&cells[1..]) {
            let file = |flag: &str| {
                let base = "base_url = 'http://127.0.0.1:1'";
                format!("[routes.a]\ndriver = '{driver}'\ndefault_model = 'm'\nmodel_support = 'any'\n{base}\n{flag}\n")
            };
            let shown = |flag: &str| {
                let routes = load("ability", &file(flag)).ok()?;
                let all = serde_json::to_value(routes.default_route().capabilities).expect("JSON");
                all[*key].as_bool()
            };
            let has = *cell == "yes";
            let expected = (Some(has), Some(false), has.then_some(true));
            let found = (shown(""), shown(&format!("{key} = false")), shown(&format!("{key} = true")));
            assert_eq!(found, expected, "{driver} {key}");
        }
        rows += 1;
    }
    assert_eq!(rows, 6);
}

#[test]
fn the_shipped_file_is_whole_with_every_example_in_use() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/routes.default.toml");
    let text = std::fs::read_to_string(path).expect("the shipped file");
    let in_use = |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_string();
    let all: Vec<String> = text.lines().map(in_use).collect();
    let routes = load("shipped", &all.join("\n")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(routes.diagnostics(), []);
    let drivers: Vec<&str> = routes.iter().map(|route| route.driver.as_str()).collect();
    assert_eq!(drivers, ["anthropic", "google", "openai_compatible", "openai", "openrouter", "xai"]);
}

#[test]
fn limits_and_ways_out_of_a_route_are_read() {
    let text = format!(
        "default_route = 'main'\n{MAIN}max_concurrency = 3\ncontext_window_tokens = 8000\nfailover = 'two'\n[routes.two]\ndriver = 'anthropic'\n\
         default_model = 'claude-sonnet-4-6'\nauth_ref = 'a'\nanthropic_beta_headers = ['one-1', 'two-2']\n"
    );
    let routes = load("ways-out", &text).expect("valid");
    let (main, two) = (routes.default_route(), routes.get("two").expect("there"));
    assert_eq!((main.max_concurrency, main.failover.as_deref()), (Some(3), Some("two")));
    assert_eq!((main.compact_at_tokens(), two.compact_at_tokens()), (6_400, 150_000));
    assert_eq!((two.anthropic_beta.as_deref(), two.failover.as_deref()), (Some("one-1,two-2"), None));
}

/// Files that nobody would write: pieces of good ones in the wrong places. Nothing panics, every error has its next step,
/// and no value of the file is repeated.
#[test]
fn mutated_files_are_judged_without_a_panic_and_without_a_word_of_theirs() {
    const SECRET: &str = "sk-live-SECRET-0123456789";
    const TOKENS: [&str; 16] = [
        "=",
        "[",
        "]",
        "[[",
        "\"",
        "'",
        "\n",
        "#",
        "routes.",
        "true",
        "-1",
        "99999999999999999999",
        "0x",
        "{}",
        "\u{0}",
        "é",
    ];
    let base = include_str!("../deploy/routes.default.toml").replace("\n#[", "\n[").replace("\n#", "\n");
    let base = format!("{base}api_key = '{SECRET}'\n");
    let scratch = Scratch::new("mutated", "");
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let mut text = base.clone();
        for _ in 0..1 + rng.below(5) {
            let boundary = |at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let mut place = || boundary(rng.below(text.len() as u64 + 1) as usize);
            let (at, other) = (place(), place());
            let (from, to) = (at.min(other), boundary(at.max(other).min(at.min(other) + 60)));
            match rng.below(3) {
                0 => text.insert_str(at, TOKENS[rng.below(TOKENS.len() as u64) as usize]),
                1 => text.replace_range(from..to, ""),
                _ => {
                    let piece = text[from..to].to_string();
                    text.insert_str(at, &piece);
                }
            }
        }
        std::fs::write(&scratch.0, &text).expect("scratch file");
        if let Err(error) = Routes::load(&scratch.0, None, &environment) {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("SECRET"), "seed {seed}: {shown}");
            for finding in error.diagnostics.iter().filter(|it| it.severity == Severity::Error) {
                assert!(finding.message.contains("; next: "), "seed {seed}: {finding}");
            }
        }
    }
}
