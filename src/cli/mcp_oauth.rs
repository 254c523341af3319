//! `mcp oauth …`: accounts at MCP servers.
//! Owns: the order of a login: find, register, listen, exchange, hand over; and what is printed meanwhile.
//! May touch: the network through `net`, a browser.
//! Never: prints or keeps a token; the finished account goes to the daemon alone.

use std::time::{Duration, Instant};

use argh::{ArgsInfo, FromArgs};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::client::decode;
use super::context::Context;
use super::exit::{CliError, Exit};
use super::json_text::Document;
use super::overview::show_object;
use super::path::Path;
use super::secret_value::Sources;
use super::sessions::post_object;
use super::verbs::Command;
use crate::clock::{Clock, SystemClock};
use crate::limits::{MCP_LOGIN_S_DEFAULT, MCP_LOGIN_S_MAX};
use crate::mcp::discovery::Discovery;
use crate::mcp::login::Login as Exchange;
use crate::net::{Callback, Cancel, Purpose};
use crate::secret::Secret;

fn account(server: &str, slot: Option<&str>) -> Path {
    let slot = slot.map_or_else(|| format!("mcp.oauth.{server}"), str::to_string);
    Path::new("/v1/runtime/auth/accounts").segment(&slot)
}

/// log in at an MCP server's authorization server and store the account
#[derive(FromArgs, ArgsInfo)]
pub struct Login {
    /// the server
    #[argh(positional)]
    server: String,
    /// its URL, as in the configuration
    #[argh(option, arg_name = "url")]
    url: String,
    /// scopes, separated by commas; those that the server has refused calls for or names otherwise
    #[argh(option, arg_name = "scopes")]
    scopes: Option<String>,
    /// print the address to open as JSON on standard error, and open no browser
    #[argh(switch)]
    no_open: bool,
    /// port of 127.0.0.1 that the browser comes back to; any free one otherwise
    #[argh(option, arg_name = "port")]
    callback_port: Option<u16>,
    /// id of a client that was registered before
    #[argh(option, arg_name = "id")]
    client_id: Option<String>,
    /// https address of a document about the client, which is its id where the authorization server reads such documents
    #[argh(option, arg_name = "url")]
    client_metadata_url: Option<String>,
    /// its secret; visible in process lists, prefer one of the others
    #[argh(option, arg_name = "value")]
    client_secret: Option<String>,
    /// read its secret from this environment variable
    #[argh(option, arg_name = "name")]
    client_secret_env: Option<String>,
    /// read its secret from this file, less one line end
    #[argh(option, arg_name = "path")]
    client_secret_file: Option<String>,
    /// read its secret from standard input, less one line end
    #[argh(switch)]
    client_secret_stdin: bool,
    /// slot of the account; mcp.oauth.<server> otherwise
    #[argh(option, arg_name = "name")]
    slot: Option<String>,
    /// give up after this many seconds
    #[argh(option, arg_name = "seconds")]
    timeout_sec: Option<u64>,
    /// take http for servers on this host
    #[argh(switch)]
    allow_http_for_loopback: bool,
}

#[derive(Serialize)]
struct Opened<'a> {
    authorization_url: &'a str,
    redirect_uri: &'a str,
    slot_id: &'a str,
}

impl Login {
    fn client_secret(&mut self, context: &mut Context<'_>) -> Result<Option<Secret>, CliError> {
        let sources = Sources {
            value: self.client_secret.take(),
            from_env: self.client_secret_env.take(),
            from_file: self.client_secret_file.take(),
            stdin: self.client_secret_stdin,
        };
        let is_given =
            sources.value.is_some() || sources.from_env.is_some() || sources.from_file.is_some() || sources.stdin;
        if !is_given {
            return Ok(None);
        }
        if self.client_id.is_none() {
            return Err(CliError::invalid("the client's secret", "there is no --client-id", "give both or none"));
        }
        sources.read(context.env, context.stdin).map(Some)
    }
}

impl Login {
    /// The address of the client's document.
    fn client_document(&mut self) -> Result<Option<String>, CliError> {
        let Some(url) = self.client_metadata_url.take() else { return Ok(None) };
        match url.strip_prefix("https://").and_then(|rest| rest.split_once('/')) {
            Some((host, path)) if !host.is_empty() && !path.is_empty() && !url.contains('#') => Ok(Some(url)),
            _ => Err(CliError::invalid(
                "--client-metadata-url",
                "it is no https address with a path",
                "give the address of the document",
            )),
        }
    }
}

impl Command for Login {
    fn run(mut self, context: &mut Context<'_>) -> Result<(), CliError> {
        let failed = |error: &dyn std::fmt::Display| CliError::component("mcp oauth login", error);
        let secret = self.client_secret(context)?;
        let seconds = self.timeout_sec.unwrap_or(MCP_LOGIN_S_DEFAULT).clamp(1, MCP_LOGIN_S_MAX);
        let until = Instant::now() + Duration::from_secs(seconds);
        let slot = self.slot.clone().unwrap_or_else(|| format!("mcp.oauth.{}", self.server));
        let (net, cancel) = (context.net()?, Cancel::new());
        let discovery = Discovery {
            net: &net,
            purpose: Purpose::CommandLine,
            allow_http_for_loopback: self.allow_http_for_loopback,
            cancel: &cancel,
        };
        let discovered = discovery.discover(&self.url).map_err(|error| failed(&error))?;
        let given = match &self.scopes {
            Some(text) => {
                Some(text.split([',', ' ']).filter(|scope| !scope.is_empty()).map(str::to_string).collect::<Vec<_>>())
            }
            None => wanted_scopes(context, &self.server)?,
        };
        let scopes = Exchange::scopes(&discovered, given);
        let callback = Callback::bind(self.callback_port.unwrap_or(0)).map_err(|error| failed(&error))?;
        let redirect_uri = callback.redirect_uri();
        let document = self.client_document()?.and_then(|url| Exchange::client_of_document(&discovered, url));
        let client = match (self.client_id.take(), document) {
            (Some(id), _) => Exchange::client(&discovered, id, secret),
            (None, Some(client)) => client,
            (None, None) => discovery.register(&discovered, &redirect_uri, &scopes).map_err(|error| failed(&error))?,
        };
        let login = Exchange::begin(discovered, client, redirect_uri, scopes).map_err(|error| failed(&error))?;
        let url = login.authorization_url();
        let opened = Opened { authorization_url: &url, redirect_uri: &login.redirect_uri, slot_id: &slot };
        context.out.note(&Document::of(&opened).compact());
        if !self.no_open {
            open(&url);
        }
        let exchanged = callback.wait(until, |query| match discovery.exchange(&login, query) {
            Ok(tokens) => (Ok(tokens), "The login is complete. This window can be closed."),
            Err(error) => (Err(error), "The login failed. The command line says why."),
        });
        let tokens = exchanged.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let text = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
        let expires_at_ms =
            tokens.expires_in_s.map(|seconds| SystemClock.now_ms().saturating_add(seconds.saturating_mul(1_000)));
        let found = &login.discovered;
        let body = json!({
            "slot_id": slot,
            "server_name": self.server,
            "resource": found.resource,
            "issuer": found.issuer,
            "authorization_endpoint": found.authorization_endpoint,
            "token_endpoint": found.token_endpoint,
            "client_id": login.client.id,
            "client_secret": login.client.secret.as_ref().map(text),
            "token_endpoint_auth_method": login.client.auth,
            "access_token": text(&tokens.access_token),
            "refresh_token": tokens.refresh_token.as_ref().map(text),
            "expires_at_ms": expires_at_ms,
            "scopes": tokens.scopes,
        });
        let body = Secret::new(serde_json::to_vec(&body).map_err(|error| failed(&error))?);
        let path = Path::new("/v1/runtime/auth/accounts/mcp-oauth");
        let document = context.client()?.post_secret(&path, &body)?;
        context.out.document(&document)
    }
}

/// The scopes that the daemon would have for the server's account after it was refused a call for lack of some.
fn wanted_scopes(context: &Context<'_>, server: &str) -> Result<Option<Vec<String>>, CliError> {
    let path = Path::new("/v1/mcp/servers").segment(server);
    #[derive(Deserialize)]
    struct Server {
        #[serde(default)]
        wanted_scopes: Vec<String>,
    }
    match context.client()?.get(&path) {
        Ok(document) => {
            let Server { wanted_scopes } = decode(&document, "the MCP server")?;
            Ok(Some(wanted_scopes).filter(|scopes| !scopes.is_empty()))
        }
        // A login may come before the configuration.
        Err(error) if error.exit() == Exit::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens the address without a shell. That there is no browser is no failure: the address was printed.
fn open(url: &str) {
    let mut command = std::process::Command::new("xdg-open");
    command.arg(url).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let _no_browser = command.stderr(std::process::Stdio::null()).spawn();
}

/// show the account at an MCP server: never its tokens
#[derive(FromArgs, ArgsInfo)]
pub struct Show {
    /// the server
    #[argh(positional)]
    server: String,
    /// slot of the account; mcp.oauth.<server> otherwise
    #[argh(option, arg_name = "name")]
    slot: Option<String>,
}

impl Command for Show {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        show_object(context, account(&self.server, self.slot.as_deref()))
    }
}

/// refresh the account's token now
#[derive(FromArgs, ArgsInfo)]
pub struct Refresh {
    /// the server
    #[argh(positional)]
    server: String,
    /// slot of the account; mcp.oauth.<server> otherwise
    #[argh(option, arg_name = "name")]
    slot: Option<String>,
}

impl Command for Refresh {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post_object(context, &account(&self.server, self.slot.as_deref()).then("/refresh"), None)
    }
}

/// delete the account here; its authorization server is not told
#[derive(FromArgs, ArgsInfo)]
pub struct Logout {
    /// the server
    #[argh(positional)]
    server: String,
    /// slot of the account; mcp.oauth.<server> otherwise
    #[argh(option, arg_name = "name")]
    slot: Option<String>,
}

impl Command for Logout {
    fn run(self, context: &mut Context<'_>) -> Result<(), CliError> {
        post_object(context, &account(&self.server, self.slot.as_deref()).then("/revoke"), None)
    }
}
