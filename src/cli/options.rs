//! One table: option → environment variable → default.
//! Owns: where an option's value comes from when the command line is silent, and which options exclude
//! each other.
//! May touch: the captured environment.
//! Never: applies a variable when the option, or one that excludes it, was given.

use argh::{CommandInfoWithArgs, FlagInfoKind, Optionality};

use super::argv::{Given, GivenOption};
use super::environment::Environment;
use super::exit::CliError;
use crate::config::{BIND_DEFAULT, STATE_ROOT_DEFAULT, WORKSPACE_ROOT_DEFAULT};
use crate::credential;

/// Which commands a row is about.
#[derive(Debug, Clone, Copy)]
pub enum Scope {
    /// The options that every command accepts.
    Global,
    /// These commands, by path.
    Verbs(&'static [&'static str]),
}

/// What holds when neither the command line nor the environment says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// Nothing.
    None,
    /// This value, as if it had been given.
    Value(&'static str),
    /// Decided elsewhere; the text is for the help.
    Described(&'static str),
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Where it is accepted.
    pub scope: Scope,
    /// With its dashes.
    pub option: &'static str,
    /// The variable that stands in for it.
    pub env: Option<&'static str>,
    /// When there is neither.
    pub default: Default,
    /// An empty variable is refused instead of ignored: an empty token must not switch authentication off.
    pub credential: bool,
}

const SERVE: Scope = Scope::Verbs(&["serve"]);
const AUDIT_KEY: Scope = Scope::Verbs(&["doctor", "audit checkpoint", "audit rotate-key"]);
const WAITING: Scope = Scope::Verbs(&[
    "runs wait",
    "sessions input",
    "sessions approve",
    "sessions deny",
    "approvals allow",
    "approvals deny",
    "approvals allow-all",
    "approvals deny-all",
    "questions answer",
]);
const STORE: Scope = Scope::Verbs(&[
    "doctor",
    "secrets set",
    "secrets get",
    "secrets list",
    "secrets delete",
    "secrets import",
    "mcp auth set",
    "secrets rekey",
    "incident collect",
    "journal verify",
    "journal show",
    "audit verify",
    "audit checkpoint",
    "audit public-key",
    "audit rotate-key",
    "audit relocate-key",
    "backup create",
]);

const fn row(scope: Scope, option: &'static str, env: &'static str, default: Default) -> Row {
    let env = if env.is_empty() { None } else { Some(env) };
    Row { scope, option, env, default, credential: false }
}

const fn credential(scope: Scope, option: &'static str, env: &'static str) -> Row {
    Row { scope, option, env: Some(env), default: Default::None, credential: true }
}

/// Every option that has a variable or a default.
pub const ROWS: &[Row] = &[
    row(Scope::Global, "--base-url", "KHEISH_DAEMON_URL", Default::Value("http://127.0.0.1:4000")),
    credential(Scope::Global, "--token", "KHEISH_DAEMON_TOKEN"),
    credential(Scope::Global, "--token-file", "KHEISH_DAEMON_TOKEN_FILE"),
    row(Scope::Global, "--output", "", Default::Value("pretty")),
    row(Scope::Global, "--ca-file", "KHEISH_CA_FILE", Default::Described("the host's bundle, else the built-in one")),
    row(SERVE, "--bind", "KHEISH_BIND", Default::Value(BIND_DEFAULT)),
    row(SERVE, "--state-root", "KHEISH_STATE_ROOT", Default::Value(STATE_ROOT_DEFAULT)),
    row(SERVE, "--workspace-root", "KHEISH_WORKSPACE_ROOT", Default::Value(WORKSPACE_ROOT_DEFAULT)),
    row(SERVE, "--routes-file", "KHEISH_ROUTES_FILE", Default::None),
    row(SERVE, "--connectors-config", "KHEISH_CONNECTORS_CONFIG", Default::None),
    row(SERVE, "--default-route", "KHEISH_DEFAULT_ROUTE", Default::Described("the routes file's")),
    row(SERVE, "--http-auth-mode", "KHEISH_HTTP_AUTH_MODE", Default::Value("auto")),
    credential(SERVE, "--http-admin-token", "KHEISH_DAEMON_ADMIN_TOKEN"),
    credential(SERVE, "--http-admin-token-file", "KHEISH_DAEMON_ADMIN_TOKEN_FILE"),
    credential(SERVE, "--http-readonly-token", "KHEISH_DAEMON_READONLY_TOKEN"),
    credential(SERVE, "--http-readonly-token-file", "KHEISH_DAEMON_READONLY_TOKEN_FILE"),
    row(SERVE, "--http-cors-allow-origin", "KHEISH_HTTP_CORS_ALLOW_ORIGINS", Default::None),
    row(SERVE, "--http-allowed-host", "KHEISH_HTTP_ALLOWED_HOSTS", Default::None),
    row(SERVE, "--trusted-proxy", "KHEISH_TRUSTED_PROXIES", Default::None),
    row(SERVE, "--hold", "KHEISH_HOLD", Default::None),
    row(
        SERVE,
        "--audit-signing-key-file",
        "KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY_FILE",
        Default::Described("audit-signing.key in the state root"),
    ),
    row(
        AUDIT_KEY,
        "--audit-signing-key-file",
        "KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY_FILE",
        Default::Described("audit-signing.key in the state root"),
    ),
    row(SERVE, "--approval-expires-after-s", "KHEISH_APPROVAL_EXPIRES_AFTER_S", Default::None),
    row(SERVE, "--drain-timeout-s", "KHEISH_DRAIN_TIMEOUT_S", Default::None),
    row(
        SERVE,
        "--queued-run-lag-threshold-ms",
        "KHEISH_QUEUED_RUN_LAG_WARNING_THRESHOLD_MS",
        Default::Described("1800000"),
    ),
    row(SERVE, "--stale-run-threshold-ms", "KHEISH_STALE_NON_TERMINAL_RUN_THRESHOLD_MS", Default::Described("1800000")),
    row(SERVE, "--segment-bytes", "KHEISH_SEGMENT_BYTES", Default::Described("64 MiB, less on a small file system")),
    row(SERVE, "--sandbox", "KHEISH_SANDBOX", Default::Value("auto")),
    row(SERVE, "--sandbox-read-only-path", "KHEISH_SANDBOX_READ_ONLY_PATHS", Default::None),
    row(SERVE, "--sandbox-network", "KHEISH_SANDBOX_NETWORK", Default::None),
    row(SERVE, "--egress-allow", "KHEISH_EGRESS_ALLOW", Default::None),
    row(SERVE, "--egress-allow-private", "KHEISH_EGRESS_ALLOW_PRIVATE", Default::None),
    row(SERVE, "--air-gapped", "KHEISH_AIR_GAPPED", Default::None),
    row(SERVE, "--web-fetch", "KHEISH_WEB_FETCH", Default::Value("off")),
    row(SERVE, "--mcp-config", "KHEISH_MCP_CONFIG", Default::None),
    row(SERVE, "--hooks-config", "KHEISH_HOOKS_CONFIG", Default::None),
    row(SERVE, "--mcp-discovery", "KHEISH_MCP_DISCOVERY", Default::Value("disabled")),
    row(SERVE, "--mcp-profile", "KHEISH_MCP_PROFILES", Default::None),
    row(SERVE, "--log-format", "KHEISH_LOG_FORMAT", Default::Value("auto")),
    row(SERVE, "--log-level", "KHEISH_LOG_LEVEL", Default::Value("info")),
    row(STORE, "--state-root", "KHEISH_STATE_ROOT", Default::None),
    row(WAITING, "--poll-interval-ms", "", Default::Value("500")),
    row(WAITING, "--transient-grace-ms", "KHEISH_DAEMON_WAIT_TRANSIENT_ERROR_GRACE_MS", Default::Value("15000")),
];

/// Variables that have no option, with the commands that read them.
pub const VARIABLES: &[(Scope, &str, &str)] = &[
    (
        Scope::Verbs(&[
            "serve",
            "doctor",
            "secrets set",
            "secrets get",
            "secrets list",
            "secrets delete",
            "secrets import",
            "mcp auth set",
            "secrets rekey",
            "backup verify",
            "backup restore",
        ]),
        "KHEISH_AUTH_STORE_MASTER_KEY",
        "master key of the auth store (from `secrets generate`)",
    ),
    (
        Scope::Verbs(&[
            "serve",
            "doctor",
            "secrets set",
            "secrets get",
            "secrets list",
            "secrets delete",
            "secrets import",
            "secrets rekey",
            "backup verify",
            "backup restore",
        ]),
        "KHEISH_AUTH_STORE_MASTER_KEY_FILE",
        "file that holds the master key; one of the two, not both",
    ),
    (SERVE, "KHEISH_DEBUG_REDACT_TOKENS", "texts to mask, separated by commas"),
    (SERVE, "KHEISH_DEBUG_REDACT_TOKENS_FILE", "file with further texts to mask"),
    (SERVE, "KHEISH_DEBUG_CAPTURE_KEY", "encrypts debug artifacts: base64 of 32 bytes"),
    (SERVE, "KHEISH_DEBUG_CAPTURE_KEY_FILE", "file that holds that key; one of the two, not both"),
    (SERVE, "KHEISH_DEBUG_CAPTURE_ENCRYPT", "auth-store: encrypt debug artifacts with a key derived from the store's"),
    (SERVE, "KHEISH_DEBUG_MAX_ARTIFACT_BYTES", "bytes of one debug artifact (4 MiB)"),
    (SERVE, "KHEISH_DEBUG_MAX_RUN_BYTES", "bytes of all debug artifacts of one run (32 MiB)"),
    (SERVE, "KHEISH_DEBUG_MAX_ARTIFACTS_PER_RUN", "debug artifacts of one run (64)"),
    (SERVE, "KHEISH_DEBUG_MAX_STORE_BYTES", "bytes of all debug artifacts (2 GiB)"),
    (SERVE, "KHEISH_DEBUG_TTL_MS", "age at which debug artifacts of ended runs go (7 days; 0: never)"),
    (SERVE, "KHEISH_DEBUG_GC_INTERVAL_MS", "time between two looks for old debug artifacts (1 hour)"),
    (
        SERVE,
        "KHEISH_EXTERNAL_ACTION_AUDIT_SIGNING_KEY",
        "the audit signing key itself, instead of a file; prefer --audit-signing-key-file",
    ),
];

/// Options of which at most one may be given on one level; the command line is one level, the environment
/// the other, and a level that says something silences the ones below.
const EXCLUSIVE: &[[&str; 2]] = &[
    ["--token", "--token-file"],
    ["--http-admin-token", "--http-admin-token-file"],
    ["--http-readonly-token", "--http-readonly-token-file"],
];

impl Scope {
    /// Whether the row is about `verb`; `None` stands for the global options.
    pub fn covers(self, verb: Option<&str>) -> bool {
        match (self, verb) {
            (Self::Global, None) => true,
            (Self::Verbs(paths), Some(verb)) => paths.contains(&verb),
            _ => false,
        }
    }
}

/// The row of an option of `verb` (`None`: a global one).
pub fn row_of(verb: Option<&str>, option: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.option == option && row.scope.covers(verb))
}

/// Adds to `given` what the environment and the defaults say about the options of `info`.
///
/// # Errors
/// Two options that exclude each other stand on one level, or a variable is unusable.
pub fn complete(
    given: &mut Given,
    info: &CommandInfoWithArgs,
    verb: Option<&str>,
    env: &Environment,
) -> Result<(), CliError> {
    for [first, second] in EXCLUSIVE {
        if given.has(first) && given.has(second) {
            return Err(CliError::invalid(format!("{first} and {second}"), "both were given", "use one, not both"));
        }
    }
    let silent: Vec<&argh::FlagInfo<'_>> = info
        .flags
        .iter()
        .filter(|flag| !given.has(flag.long) && !partner(flag.long).is_some_and(|partner| given.has(partner)))
        .collect();
    for flag in silent {
        let Some(row) = row_of(verb, flag.long) else { continue };
        if let Some(value) = from_environment(row, env)? {
            if let Some(other) = partner(flag.long).and_then(|partner| row_of(verb, partner))
                && from_environment(other, env)?.is_some()
            {
                let both = format!("{} and {}", row.env.unwrap_or_default(), other.env.unwrap_or_default());
                return Err(CliError::invalid(both, "both are set in the environment", "use one, not both"));
            }
            push(given, flag, row.env.unwrap_or_default(), value)?;
        } else if let Default::Value(value) = row.default {
            push(given, flag, "the default", value)?;
        }
    }
    Ok(())
}

/// Options that name a file with a secret: `credential:NAME` stands for one that the service manager handed over.
const SECRET_FILES: &[&str] = &[
    "--token-file",
    "--http-admin-token-file",
    "--http-readonly-token-file",
    "--audit-signing-key-file",
    "--new-key-file",
    "--encrypt-key-file",
    "--decrypt-key-file",
    "--from-file",
];

/// Puts the paths of credentials in the place of their names.
///
/// # Errors
/// A credential of that name cannot have been handed over.
pub fn resolve_credentials(given: &mut Given, env: &Environment) -> Result<(), CliError> {
    for option in given.options.iter_mut().filter(|option| SECRET_FILES.contains(&option.name.as_str())) {
        let Some(value) = option.value.as_mut().filter(|value| value.starts_with(credential::PREFIX)) else { continue };
        let path = credential::file_in(value.as_ref(), env.os(credential::DIRECTORY_VARIABLE))
            .map_err(|error| CliError::component(&option.name, error))?;
        *value = path.into_os_string().into_string().map_err(|_| {
            let next = "have the service manager use another directory";
            CliError::invalid(credential::DIRECTORY_VARIABLE, "the directory's name is not UTF-8", next)
        })?;
    }
    Ok(())
}

fn partner(option: &str) -> Option<&'static str> {
    EXCLUSIVE.iter().find_map(|[first, second]| match option {
        _ if option == *first => Some(*second),
        _ if option == *second => Some(*first),
        _ => None,
    })
}

/// A variable's value; an empty one counts as unset unless it is a credential.
fn from_environment<'a>(row: &Row, env: &'a Environment) -> Result<Option<&'a str>, CliError> {
    let Some(name) = row.env else { return Ok(None) };
    match env.get(name)? {
        Some(value) if value.trim().is_empty() && row.credential => {
            Err(CliError::invalid(name, "the variable is set but empty", "set it to a value, or unset it"))
        }
        Some(value) if value.trim().is_empty() => Ok(None),
        value => Ok(value),
    }
}

fn push(given: &mut Given, flag: &argh::FlagInfo<'_>, source: &str, value: &str) -> Result<(), CliError> {
    let mut add = |value: Option<&str>| {
        given.options.push(GivenOption { name: flag.long.to_string(), value: value.map(str::to_string) });
    };
    match (&flag.kind, &flag.optionality) {
        (FlagInfoKind::Switch, _) => match value.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => add(None),
            "0" | "false" | "no" | "off" => {}
            _ => {
                return Err(CliError::invalid(
                    source,
                    "neither true nor false",
                    "set it to true or false, or unset it",
                ));
            }
        },
        (FlagInfoKind::Option { .. }, Optionality::Repeating) => {
            value.split(',').map(str::trim).filter(|item| !item.is_empty()).for_each(|item| add(Some(item)));
        }
        (FlagInfoKind::Option { .. }, _) => add(Some(value)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use argh::ArgsInfo;

    use super::*;
    use crate::cli::serve::Serve;

    /// The options of `serve` after completion, without those that only carry a default.
    fn check(given: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Vec<(String, Option<String>)>, String> {
        let mut all = Given::default();
        for (name, value) in given {
            all.options.push(GivenOption { name: (*name).into(), value: Some((*value).into()) });
        }
        complete(&mut all, &Serve::get_args_info(), Some("serve"), &Environment::of(env)).map_err(|e| e.to_string())?;
        let defaults: Vec<_> = ROWS
            .iter()
            .filter_map(|row| match row.default {
                Default::Value(value) if row.scope.covers(Some("serve")) => Some((row.option, value)),
                _ => None,
            })
            .collect();
        let kept = |option: &GivenOption| {
            option.value.as_deref().is_none_or(|value| !defaults.contains(&(option.name.as_str(), value)))
        };
        Ok(all.options.into_iter().filter(kept).map(|option| (option.name, option.value)).collect())
    }

    fn some(name: &str, value: &str) -> (String, Option<String>) {
        (name.to_string(), Some(value.to_string()))
    }

    #[test]
    fn an_explicit_option_beats_the_environment_and_the_environment_beats_the_default() {
        assert_eq!(check(&[("--bind", "a:1")], &[("KHEISH_BIND", "b:2")]), Ok(vec![some("--bind", "a:1")]));
        assert_eq!(check(&[], &[("KHEISH_BIND", "b:2")]), Ok(vec![some("--bind", "b:2")]));
        assert_eq!(check(&[], &[("KHEISH_BIND", " ")]), Ok(vec![]), "an empty variable counts as unset");
    }

    #[test]
    fn options_that_exclude_each_other_conflict_within_one_level_only() {
        let file = ("--http-admin-token-file", "f");
        let in_env = ("KHEISH_DAEMON_ADMIN_TOKEN", "t");
        let file_in_env = ("KHEISH_DAEMON_ADMIN_TOKEN_FILE", "g");
        assert_eq!(check(&[file], &[in_env, file_in_env]), Ok(vec![some("--http-admin-token-file", "f")]));
        let both = check(&[], &[in_env, file_in_env]).expect_err("two on the level of the environment");
        assert!(both.contains("KHEISH_DAEMON_ADMIN_TOKEN_FILE") && both.contains("use one, not both"), "{both}");
        let both = check(&[file, ("--http-admin-token", "t")], &[]).expect_err("two on the command line");
        assert!(both.contains("--http-admin-token-file") && both.contains("use one, not both"), "{both}");
    }

    #[test]
    fn an_empty_credential_variable_is_refused_and_never_read_as_no_authentication() {
        let error = check(&[], &[("KHEISH_DAEMON_ADMIN_TOKEN", "")]).expect_err("an empty token");
        assert!(error.starts_with("KHEISH_DAEMON_ADMIN_TOKEN: the variable is set but empty"), "{error}");
    }

    #[test]
    fn switches_and_lists_are_read_from_the_environment() {
        for value in ["1", "true", "YES", "on"] {
            assert_eq!(check(&[], &[("KHEISH_HOLD", value)]), Ok(vec![("--hold".to_string(), None)]), "{value}");
        }
        for value in ["0", "false", "no", "OFF", ""] {
            assert_eq!(check(&[], &[("KHEISH_HOLD", value)]), Ok(vec![]), "{value}");
        }
        assert!(check(&[], &[("KHEISH_HOLD", "perhaps")]).is_err());
        assert_eq!(
            check(&[], &[("KHEISH_TRUSTED_PROXIES", "10.0.0.1, ,10.0.0.2")]),
            Ok(vec![some("--trusted-proxy", "10.0.0.1"), some("--trusted-proxy", "10.0.0.2")])
        );
    }

    #[test]
    fn a_credential_is_resolved_for_options_that_name_secrets_and_for_no_other() {
        let resolve = |option: &str, value: &str, env: &[(&str, &str)]| {
            let option = GivenOption { name: option.to_string(), value: Some(value.to_string()) };
            let mut given = Given { options: vec![option], arguments: Vec::new() };
            resolve_credentials(&mut given, &Environment::of(env)).map_err(|error| error.to_string())?;
            Ok::<_, String>(given.options.remove(0).value.expect("a value"))
        };
        let handed = [(credential::DIRECTORY_VARIABLE, "/run/credentials/k")];
        for option in SECRET_FILES {
            assert_eq!(resolve(option, "credential:a", &handed), Ok("/run/credentials/k/a".to_string()));
            let refused = resolve(option, "credential:a", &[]).expect_err("nothing was handed over");
            assert!(refused.starts_with(option) && refused.contains("next: "), "{refused}");
            let known = crate::cli::verbs::VERBS.iter().map(|verb| (verb.info)()).chain(crate::cli::globals::infos());
            assert!(known.into_iter().any(|info| info.flags.iter().any(|flag| flag.long == *option)), "{option}");
        }
        assert_eq!(resolve("--routes-file", "credential:a", &handed), Ok("credential:a".to_string()));
    }

    #[test]
    fn every_row_is_about_an_existing_option() {
        for row in ROWS {
            let verbs = match row.scope {
                Scope::Global => vec![None],
                Scope::Verbs(paths) => paths.iter().map(|path| Some(*path)).collect(),
            };
            for verb in verbs {
                let infos = match verb {
                    None => crate::cli::globals::infos().to_vec(),
                    Some(path) => vec![(crate::cli::verbs::find(path).expect("a row's verb exists").info)()],
                };
                let known = infos.iter().any(|info| info.flags.iter().any(|flag| flag.long == row.option));
                assert!(known, "{:?} has no {}", verb, row.option);
            }
        }
    }
}
