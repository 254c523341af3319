//! The file of `--connectors-config`.
//! Owns: its four arrays of tables, and the way of its secrets out of its text.
//! May touch: that file, once.
//! Never: repeats a value in an error; leaves a secret in a buffer that is not wiped.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::check;
use super::config::{Settings, secret_fields};
use crate::core::ConnectorKind;
use crate::limits::{CONNECTORS_FILE_BYTES_MAX, CONNECTORS_MAX};
use crate::secret::Secret;

/// A connector of the file.
#[derive(Debug)]
pub struct FileConnector {
    /// Its kind.
    pub kind: ConnectorKind,
    /// Its name.
    pub name: String,
    /// Its configuration.
    pub settings: Settings,
    /// Secrets that the file itself holds, by field.
    pub inline: BTreeMap<String, Arc<Secret>>,
}

/// The file cannot be used.
#[derive(Debug)]
pub struct FileError {
    path: PathBuf,
    cause: String,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.cause)
    }
}

impl std::error::Error for FileError {}

/// Reads the file. It is refused while others than its owner can write it.
///
/// # Errors
/// Names the connector and the field.
pub fn load(path: &Path) -> Result<Vec<FileConnector>, FileError> {
    let refused = |cause: String| FileError { path: path.to_path_buf(), cause };
    let open = |error: std::io::Error| refused(format!("cannot be read: {error}; next: check the path and its owner"));
    let file = std::fs::File::open(path).map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    use std::os::unix::fs::MetadataExt;
    if metadata.mode() & 0o022 != 0 {
        let cause = "others than its owner can write it; next: chmod go-w";
        return Err(refused(cause.to_string()));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(CONNECTORS_FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(open)?;
    if text.len() > CONNECTORS_FILE_BYTES_MAX {
        return Err(refused(format!("it has more than {CONNECTORS_FILE_BYTES_MAX} bytes; next: shorten it")));
    }
    let found = parse(&text).map_err(refused)?;
    let holds_secrets = found.iter().any(|connector| !connector.inline.is_empty());
    if holds_secrets && metadata.mode() & 0o077 != 0 {
        let cause = "it holds secrets and others than its owner can read it; next: chmod 600, or use secret_ref";
        return Err(refused(cause.to_string()));
    }
    Ok(found)
}

/// Reads the text of a file.
///
/// # Errors
/// Names the connector and the field.
pub fn parse(text: &str) -> Result<Vec<FileConnector>, String> {
    let file: Map<String, Value> = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("line {line} is not valid TOML; next: check quotes, brackets and doubled keys there")
    })?;
    let mut found = Vec::new();
    let mut names = BTreeSet::new();
    for (section, tables) in file {
        let kind = section.strip_suffix("_connectors").and_then(ConnectorKind::parse).ok_or_else(|| {
            "a table is none of http_connectors, slack_connectors, telegram_connectors and external_connectors; next: \
             correct its name"
                .to_string()
        })?;
        let Value::Array(tables) = tables else {
            return Err(format!("{section} is no array of tables; next: write [[{section}]]"));
        };
        for table in tables {
            let Value::Object(table) = table else {
                return Err(format!("{section} has an entry that is no table; next: write [[{section}]]"));
            };
            let connector = connector(kind, table)?;
            if !names.insert((kind, connector.name.clone())) {
                return Err(format!("{kind} connector {} is there twice; next: rename one", connector.name));
            }
            found.push(connector);
        }
    }
    if found.len() > CONNECTORS_MAX {
        return Err(format!("it has more than {CONNECTORS_MAX} connectors; next: remove some"));
    }
    Ok(found)
}

fn connector(kind: ConnectorKind, mut table: Map<String, Value>) -> Result<FileConnector, String> {
    let Some(Value::String(name)) = table.remove("name") else {
        return Err(format!("a {kind} connector has no name; next: give it one"));
    };
    check::name(&name).map_err(|error| format!("{kind} connector {name:?}: {error}"))?;
    let of = |cause: String| format!("{kind} connector {name}: {cause}");
    let mut inline = BTreeMap::new();
    for field in secret_fields(kind) {
        take_secret(&mut table, field, field, &mut inline).map_err(of)?;
    }
    if let Some(Value::Array(teams)) = table.get_mut("team_bot_tokens") {
        for team in teams {
            let Value::Object(team) = team else { continue };
            let id = team.get("team_id").and_then(Value::as_str).unwrap_or_default().to_string();
            take_secret(team, "bot_token", &format!("team_bot_tokens.{id}"), &mut inline).map_err(of)?;
        }
    }
    let settings = Settings::read(kind, Value::Object(table)).map_err(of)?;
    check::settings(&settings).map_err(|error| of(error.to_string()))?;
    Ok(FileConnector { kind, name, settings, inline })
}

/// Puts a reference where `X`, `X_env` or `X_secret_ref` stands; `X` itself leaves the table.
fn take_secret(
    table: &mut Map<String, Value>,
    field: &str,
    key: &str,
    inline: &mut BTreeMap<String, Arc<Secret>>,
) -> Result<(), String> {
    let (value, env, slot) =
        (table.remove(field), table.remove(&format!("{field}_env")), table.remove(&format!("{field}_secret_ref")));
    let reference = match (value, env, slot) {
        (None, None, None) => return Ok(()),
        (Some(Value::String(value)), None, None) => {
            let value = Secret::new(value.into_bytes());
            if value.expose().trim_ascii().is_empty() {
                return Err(format!("{key} is blank; next: write the secret, or use {field}_secret_ref"));
            }
            inline.insert(key.to_string(), Arc::new(value));
            json!({"inline": true})
        }
        (None, Some(Value::String(env)), None) => json!({"env": env}),
        (None, None, Some(Value::String(slot))) => json!({"secret_ref": slot}),
        _ => {
            return Err(format!(
                "{key} is given more than once, or is no text; next: leave one of {field}, {field}_env and {field}_secret_ref"
            ));
        }
    };
    table.insert(field.to_string(), reference);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::config::SecretRef;

    #[test]
    fn a_file_with_secrets_is_refused_while_others_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("kheish-connectors-file-{}", std::process::id()));
        let with_secret = "[[http_connectors]]\nname = \"a\"\nbearer_token = \"a-token-of-a-test\"\n";
        let without = "[[http_connectors]]\nname = \"a\"\nbearer_token_secret_ref = \"a.b\"\n";
        let loads = |text: &str, mode: u32| {
            std::fs::write(&path, text).expect("a scratch file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("own file");
            load(&path).map(|found| found.len()).map_err(|error| error.cause)
        };
        assert_eq!((loads(with_secret, 0o600), loads(without, 0o644)), (Ok(1), Ok(1)));
        for mode in [0o604, 0o640] {
            assert!(loads(with_secret, mode).expect_err("readable").contains("chmod 600"), "{mode:o}");
        }
        assert!(loads(without, 0o622).expect_err("writable").contains("chmod go-w"));
        std::fs::remove_file(path).expect("own file");
    }

    #[test]
    fn the_four_arrays_are_read_with_their_secrets() {
        let found = parse(
            "[[http_connectors]]\nname = \"inbox\"\nhmac_secret_secret_ref = \"a.b\"\nrequire_hmac_signature = true\n\
             [[slack_connectors]]\nname = \"s\"\nsigning_secret_env = \"SLACK\"\n\
             [[slack_connectors.team_bot_tokens]]\nteam_id = \"T1\"\nbot_token = \"xoxb-0123456789\"\n\
             [[telegram_connectors]]\nname = \"t\"\nsecret_token = \"0123456789\"\nallowed_chat_ids = [-5]\n\
             [[external_connectors]]\nname = \"e\"\nplatform = \"x\"\nbase_url = \"https://bridge.example\"\n\
             shared_token_secret_ref = \"e.t\"\n[external_connectors.session_policy]\ncreate_if_missing = true\n",
        )
        .expect("a legal file");
        let secrets: Vec<String> = found
            .iter()
            .flat_map(|connector| {
                let name = &connector.name;
                connector.settings.secrets().into_iter().map(move |(field, secret)| match secret {
                    SecretRef::SecretRef(slot) => format!("{name}.{field}={slot}"),
                    SecretRef::Env(env) => format!("{name}.{field}=${env}"),
                    SecretRef::Inline(_) => format!("{name}.{field} in the file"),
                })
            })
            .collect();
        assert_eq!(
            secrets,
            [
                "e.shared_token=e.t",
                "inbox.hmac_secret=a.b",
                "s.signing_secret=$SLACK",
                "s.team_bot_tokens.T1 in the file",
                "t.secret_token in the file"
            ]
        );
        let teams = found.iter().find(|connector| connector.name == "s").expect("there");
        assert_eq!(teams.inline["team_bot_tokens.T1"].expose(), b"xoxb-0123456789");
    }

    #[test]
    fn what_is_wrong_is_named_without_its_value() {
        for (text, part) in [
            ("[[http_connectors]]\nname = \"a\"\nbearer_token = \"hunter2-hunter2\nx = 1", "line 3"),
            ("[[htp_connectors]]\nname = \"a\"", "a table is none of"),
            ("[[http_connectors]]\nname = \"metrics\"", "metrics"),
            ("[[http_connectors]]\nname = \"a\"", "allow_unauthenticated_ingress"),
            ("[[http_connectors]]\nname = \"a\"\nbearer_token = \" \"", "bearer_token is blank"),
            (
                "[[http_connectors]]\nname = \"a\"\nbearer_token = \"hunter2-hunter2\"\nbearer_token_env = \"X\"",
                "more than once",
            ),
            ("[[http_connectors]]\nname = \"a\"\nbearer_tken = \"hunter2-hunter2\"", "unknown field"),
            (
                "[[http_connectors]]\nname = \"a\"\nallow_unauthenticated_ingress = true\n[[http_connectors]]\nname = \"a\"\n\
                 allow_unauthenticated_ingress = true",
                "there twice",
            ),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}
