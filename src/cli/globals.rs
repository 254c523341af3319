//! The options that every command accepts.
//! Owns: their meaning and the token rules.
//! May touch: the token file.
//! Never: prints a token, or judges the connection options of a command that makes no connection.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgValue, FromArgs};

use super::argv::{Given, option_names};
use super::environment::Environment;
use super::exit::CliError;
use super::{options, parse_words};
use crate::limits::CLI_TOKEN_FILE_BYTES_MAX;
use crate::net::BaseUrl;
use crate::secret::Secret;

/// How documents are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputMode {
    /// JSON indented by two blanks; lists are tables on a terminal.
    Pretty,
    /// JSON on one line.
    Json,
}

impl FromArgValue for OutputMode {
    fn from_arg_value(value: &str) -> Result<Self, String> {
        match value {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("expected pretty or json".to_string()),
        }
    }
}

/// Global options that hold for every command.
#[derive(FromArgs, ArgsInfo)]
pub struct Shared {
    /// how to print: pretty (indented JSON; tables for lists on a terminal) or json (one line)
    #[argh(option, arg_name = "pretty|json")]
    pub output: OutputMode,
    /// PEM file with the only certificate authorities to trust for https
    #[argh(option, arg_name = "path")]
    pub ca_file: Option<String>,
}

/// Global options of the commands that talk to the daemon.
#[derive(FromArgs, ArgsInfo)]
pub struct Connection {
    /// address of the daemon: http://…, https://… or unix:/path
    #[argh(option, arg_name = "url")]
    pub base_url: String,
    /// bearer token; visible in process lists, prefer --token-file
    #[argh(option, arg_name = "token")]
    pub token: Option<String>,
    /// file that holds the bearer token
    #[argh(option, arg_name = "path")]
    pub token_file: Option<String>,
}

/// Both parts, for readers of the command line and of the help.
pub fn infos() -> [CommandInfoWithArgs; 2] {
    [Connection::get_args_info(), Shared::get_args_info()]
}

/// The names of all global options.
pub fn option_names_of_all() -> impl Iterator<Item = &'static str> {
    infos().into_iter().flat_map(|info| option_names(&info))
}

fn resolve<T: FromArgs + ArgsInfo>(given: &Given, env: &Environment) -> Result<T, CliError> {
    let mut given = given.clone();
    let info = T::get_args_info();
    options::complete(&mut given, &info, None, env)?;
    options::resolve_credentials(&mut given, env)?;
    parse_words(super::PROGRAM, &given.words_for(&info))
}

/// The options that hold for every command.
///
/// # Errors
/// A value is not one of the known ones.
pub fn shared(given: &Given, env: &Environment) -> Result<Shared, CliError> {
    resolve(given, env)
}

/// The daemon's address and the token to show it.
///
/// # Errors
/// Two token sources on one level, an unreadable or empty token, an address that is none.
pub fn connection(given: &Given, env: &Environment) -> Result<(BaseUrl, Option<Secret>), CliError> {
    let connection: Connection = resolve(given, env)?;
    let token = match (connection.token, connection.token_file) {
        (Some(token), _) => Some(trimmed_token("--token", Secret::new(token.into_bytes()))?),
        (None, Some(path)) => Some(trimmed_token(&path, read_token(Path::new(&path))?)?),
        (None, None) => None,
    };
    let base_url =
        BaseUrl::parse_or_unix(connection.base_url.trim()).map_err(|error| CliError::component("--base-url", error))?;
    Ok((base_url, token))
}

fn read_token(path: &Path) -> Result<Secret, CliError> {
    let refuse = |cause: String| CliError::File { path: path.into(), cause, next: "name a readable token file" };
    let mut file = File::open(path).map_err(|error| refuse(error.to_string()))?;
    let mut bytes = Vec::with_capacity(CLI_TOKEN_FILE_BYTES_MAX + 1);
    let bound = CLI_TOKEN_FILE_BYTES_MAX as u64 + 1;
    file.by_ref().take(bound).read_to_end(&mut bytes).map_err(|error| refuse(error.to_string()))?;
    let token = Secret::new(bytes);
    if token.len() > CLI_TOKEN_FILE_BYTES_MAX {
        return Err(refuse(format!("larger than {CLI_TOKEN_FILE_BYTES_MAX} bytes, so it is no token file")));
    }
    Ok(token)
}

fn trimmed_token(source: &str, token: Secret) -> Result<Secret, CliError> {
    let trimmed = token.expose().trim_ascii();
    if trimmed.is_empty() {
        return Err(CliError::invalid(source, "the token is empty", "give a token, or leave the option out"));
    }
    // What would split or end the header line is refused here, where the source can still be named.
    if !trimmed.iter().all(u8::is_ascii_graphic) {
        return Err(CliError::invalid(source, "the token has blanks or bytes outside ASCII", "give one bare token"));
    }
    Ok(Secret::new(trimmed.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::argv::GivenOption;

    fn given(options: &[(&str, &str)]) -> Given {
        let options =
            options.iter().map(|(name, value)| GivenOption { name: (*name).into(), value: Some((*value).into()) });
        Given { options: options.collect(), arguments: Vec::new() }
    }

    fn token(options: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Option<String>, String> {
        connection(&given(options), &Environment::of(env))
            .map(|(_, token)| token.map(|token| String::from_utf8(token.expose().to_vec()).expect("ASCII")))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_token_comes_from_the_nearest_level_and_conflicts_only_within_one() {
        let path = std::env::temp_dir().join(format!("kheish-cli-token-{}", std::process::id()));
        std::fs::write(&path, "  from-file \n").expect("temporary file");
        let file = path.to_str().expect("UTF-8 path");
        let both = [("KHEISH_DAEMON_TOKEN", "a"), ("KHEISH_DAEMON_TOKEN_FILE", file)];
        assert_eq!(token(&[], &[]), Ok(None));
        assert_eq!(token(&[], &[("KHEISH_DAEMON_TOKEN", " from-env ")]), Ok(Some("from-env".into())));
        assert_eq!(token(&[("--token", "x")], &both), Ok(Some("x".into())));
        assert_eq!(token(&[("--token-file", file)], &both), Ok(Some("from-file".into())));
        assert!(token(&[], &both).expect_err("two in the environment").contains("use one, not both"));
        assert!(token(&[("--token", "x"), ("--token-file", file)], &[]).expect_err("two options").contains("not both"));
        std::fs::remove_file(&path).expect("removed");
        let gone = token(&[("--token-file", file)], &[]).expect_err("the file is gone");
        assert!(gone.starts_with(file) && gone.contains("next:"), "{gone}");
    }

    #[test]
    fn a_token_that_would_break_the_header_is_refused_without_being_repeated() {
        for bad in ["", "  ", "s3cret\nX-Evil: 1", "s3cret value", "s3cr\u{e9}t"] {
            let error = token(&[("--token", bad)], &[]).expect_err(bad);
            assert!(!error.contains("s3cr"), "{error}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_by_its_rule_and_not_repeated() {
        for raw in ["ftp://a", "127.0.0.1:4000", "http://user:s3cr@a", "http://a?s3cr=1", "unix:s3cr"] {
            let error = connection(&given(&[("--base-url", raw)]), &Environment::default()).expect_err(raw).to_string();
            assert!(error.starts_with("--base-url: ") && !error.contains("s3cr"), "{error}");
        }
    }
}
