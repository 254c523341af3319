//! A login at an authorization server: registration (RFC 7591), consent with a proof key (RFC 7636), exchange of the code.
//! Owns: the requests, and the checks of what comes back.
//! May touch: the network, through `net`; the random source.
//! Never: lets a code be used that came with another state, or a token be shown.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::discovery::{Discovered, Discovery, LoginError, refuse};
use crate::broker::ClientAuth;
use crate::net::Method;
use crate::oauth::basic_line;
use crate::secret::Secret;

/// Everything but the unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// As whom.
pub struct Client {
    /// Its id.
    pub id: String,
    /// Its secret, if it has one.
    pub secret: Option<Secret>,
    /// How it proves itself at the token endpoint.
    pub auth: ClientAuth,
}

/// A login under way.
pub struct Login {
    /// What was found.
    pub discovered: Discovered,
    /// As whom.
    pub client: Client,
    /// Where the browser comes back to.
    pub redirect_uri: String,
    /// What is asked for; empty leaves it to the server.
    pub scopes: Vec<String>,
    state: String,
    verifier: Zeroizing<String>,
}

/// What a login brought.
pub struct Tokens {
    /// The access token.
    pub access_token: Secret,
    /// The refresh token.
    pub refresh_token: Option<Secret>,
    /// Life of the access token in seconds.
    pub expires_in_s: Option<u64>,
    /// What it allows.
    pub scopes: Vec<String>,
}

#[derive(Deserialize)]
struct Registered {
    client_id: String,
    #[serde(default)]
    client_secret: Option<String>,
    #[serde(default)]
    token_endpoint_auth_method: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    refresh_token: Option<String>,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    scope: Option<String>,
}

fn random() -> Result<String, LoginError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    match SystemRandom::new().fill(&mut *bytes) {
        Ok(()) => Ok(URL_SAFE_NO_PAD.encode(*bytes)),
        Err(_) => refuse("the system's random source failed; next: check /dev/urandom"),
    }
}

/// The ways in which a client can prove itself, by the name that a server has for them.
const METHODS: [(&str, ClientAuth); 3] = [
    ("none", ClientAuth::None),
    ("client_secret_basic", ClientAuth::ClientSecretBasic),
    ("client_secret_post", ClientAuth::ClientSecretPost),
];

/// Whether the server takes a way. One that lists none takes all.
fn takes(discovered: &Discovered, wanted: ClientAuth) -> bool {
    let Some(listed) = &discovered.auth_methods else { return true };
    METHODS.into_iter().any(|(name, auth)| auth == wanted && listed.iter().any(|listed| listed == name))
}

/// The way in which a client with or without a secret proves itself: the one that it was registered with, where the server
/// takes it.
fn client_auth(discovered: &Discovered, given: Option<&str>, has_secret: bool) -> ClientAuth {
    let given = METHODS.into_iter().find(|(name, _)| Some(*name) == given).map(|(_, auth)| auth);
    match given.filter(|auth| takes(discovered, *auth) && (*auth == ClientAuth::None || has_secret)) {
        Some(auth) => auth,
        None if !has_secret => ClientAuth::None,
        None if takes(discovered, ClientAuth::ClientSecretBasic) => ClientAuth::ClientSecretBasic,
        None => ClientAuth::ClientSecretPost,
    }
}

impl Discovery<'_> {
    /// Registers this program as a client.
    ///
    /// # Errors
    /// The server registers nobody.
    pub fn register(
        &self,
        discovered: &Discovered,
        redirect_uri: &str,
        scopes: &[String],
    ) -> Result<Client, LoginError> {
        let Some(endpoint) = &discovered.registration_endpoint else {
            return refuse(
                "the authorization server registers no clients; next: register one there and give --client-id",
            );
        };
        // A public client, unless the server takes none.
        let wanted = METHODS.into_iter().find(|(_, auth)| takes(discovered, *auth)).map_or("none", |(name, _)| name);
        let mut body = json!({
            "client_name": "Kheish",
            "redirect_uris": [redirect_uri],
            "application_type": "native",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": wanted,
        });
        if !scopes.is_empty() {
            body["scope"] = scopes.join(" ").into();
        }
        let target = self.target("the registration endpoint", endpoint)?;
        let headers = [("content-type", "application/json"), ("accept", "application/json")];
        let mut response = self.send(Method::Post, &target, &headers, Some(body.to_string().as_bytes()))?;
        if !matches!(response.status, 200 | 201) {
            return refuse(format!("the client was not registered: HTTP {}; next: give --client-id", response.status));
        }
        let bytes = Zeroizing::new(response.body.read_to_end()?);
        let Ok(registered) = serde_json::from_slice::<Registered>(&bytes) else {
            return refuse("the answer to the registration has another form; next: give --client-id");
        };
        let secret = registered.client_secret.filter(|secret| !secret.is_empty());
        let given = registered.token_endpoint_auth_method.as_deref();
        let auth = client_auth(discovered, given, secret.is_some());
        let secret = secret.map(|text| Secret::new(text.into_bytes())).filter(|_| auth != ClientAuth::None);
        Ok(Client { id: registered.client_id, secret, auth })
    }

    /// Exchanges the code of a callback.
    ///
    /// # Errors
    /// The callback is not the one that was waited for, or the server gives no token.
    pub fn exchange(&self, login: &Login, query: &str) -> Result<Tokens, LoginError> {
        let code = login.code(query)?;
        let target = self.target("the token endpoint", &login.discovered.token_endpoint)?;
        let client = &login.client;
        let secret = client.secret.as_ref();
        let secret = secret.map(|secret| Zeroizing::new(String::from_utf8_lossy(secret.expose()).into_owned()));
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", login.redirect_uri.as_str()),
            ("code_verifier", login.verifier.as_str()),
            ("resource", login.discovered.resource.as_str()),
        ];
        let basic = match (client.auth, &client.secret) {
            (ClientAuth::ClientSecretBasic, Some(secret)) => Some(basic_line(&client.id, secret)),
            _ => None,
        };
        match &secret {
            _ if basic.is_some() => {}
            Some(secret) => fields.extend([("client_id", client.id.as_str()), ("client_secret", secret.as_str())]),
            None => fields.push(("client_id", client.id.as_str())),
        }
        let form = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect::<Vec<_>>();
        let form = Zeroizing::new(form.join("&"));
        let mut headers = vec![("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json")];
        headers.extend(basic.as_ref().map(|line| ("authorization", line.as_str())));
        let mut response = self.send(Method::Post, &target, &headers, Some(form.as_bytes()))?;
        if !(200..300).contains(&response.status) {
            return refuse(format!("the code was not exchanged: HTTP {}; next: log in again", response.status));
        }
        let bytes = Zeroizing::new(response.body.read_to_end()?);
        let Ok(answer) = serde_json::from_slice::<TokenAnswer>(&bytes) else {
            return refuse("the answer to the exchange has another form; next: log in again");
        };
        if answer.token_type.as_deref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return refuse("the token is no bearer token; next: ask the server's operators");
        }
        let scopes: Vec<String> = match answer.scope {
            Some(scope) => scope.split_whitespace().map(str::to_string).collect(),
            None => login.scopes.clone(),
        };
        if !login.scopes.is_empty() && scopes.iter().any(|scope| !login.scopes.contains(scope)) {
            return refuse("the server gave scopes that nobody asked for; next: log in again with --scopes");
        }
        let secret = |text: String| Secret::new(text.into_bytes());
        Ok(Tokens {
            access_token: secret(answer.access_token),
            refresh_token: answer.refresh_token.filter(|token| !token.is_empty()).map(secret),
            expires_in_s: answer.expires_in,
            scopes,
        })
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

impl Login {
    /// A login that begins: `scopes` as asked for, else those that the server names.
    ///
    /// # Errors
    /// There is no random source.
    pub fn begin(
        discovered: Discovered,
        client: Client,
        redirect_uri: String,
        scopes: Vec<String>,
    ) -> Result<Self, LoginError> {
        Ok(Self { discovered, client, redirect_uri, scopes, state: random()?, verifier: Zeroizing::new(random()?) })
    }

    /// Scopes of a login: those given, else those that the server names, with the one for refresh tokens where it has one.
    pub fn scopes(discovered: &Discovered, given: Option<Vec<String>>) -> Vec<String> {
        let mut scopes = given.or_else(|| discovered.scopes.clone()).unwrap_or_default();
        if discovered.has_offline_access && !scopes.iter().any(|scope| scope == "offline_access") {
            scopes.push("offline_access".to_string());
        }
        scopes
    }

    /// As a client that was registered before.
    pub fn client(discovered: &Discovered, id: String, secret: Option<Secret>) -> Client {
        Client { auth: client_auth(discovered, None, secret.is_some()), id, secret }
    }

    /// As the client whose metadata stands at `url`, where the server reads such documents.
    pub fn client_of_document(discovered: &Discovered, url: String) -> Option<Client> {
        discovered.reads_client_documents.then_some(Client { id: url, secret: None, auth: ClientAuth::None })
    }

    /// Where the person agrees.
    pub fn authorization_url(&self) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier.as_bytes()));
        let scope = self.scopes.join(" ");
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", self.client.id.as_str()),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("state", self.state.as_str()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
            ("resource", self.discovered.resource.as_str()),
        ];
        if !scope.is_empty() {
            fields.push(("scope", scope.as_str()));
        }
        if self.scopes.iter().any(|scope| scope == "offline_access") {
            fields.push(("prompt", "consent"));
        }
        let query: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let endpoint = &self.discovered.authorization_endpoint;
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        format!("{endpoint}{separator}{}", query.join("&"))
    }

    /// The code of a callback's query.
    fn code(&self, query: &str) -> Result<Zeroizing<String>, LoginError> {
        let field = |wanted: &str| {
            query.split('&').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                let value = value.replace('+', " ");
                (name == wanted).then(|| percent_decode_str(&value).decode_utf8_lossy().into_owned())
            })
        };
        let state = field("state").unwrap_or_default();
        // Before anything else of it is believed.
        if !bool::from(state.as_bytes().ct_eq(self.state.as_bytes())) {
            return refuse("the callback belongs to another login; nothing was stored; next: log in again");
        }
        match field("iss") {
            Some(issuer) if issuer != self.discovered.issuer => {
                return refuse("the callback comes from another authorization server; next: log in again");
            }
            None if self.discovered.names_issuer => {
                return refuse("the callback does not name its authorization server; next: log in again");
            }
            _ => {}
        }
        match (field("error"), field("code")) {
            (Some(_), _) => refuse("the login was refused in the browser; next: log in again and agree"),
            (None, Some(code)) if !code.is_empty() => Ok(Zeroizing::new(code)),
            _ => refuse("the callback brings no code; next: log in again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(names_issuer: bool) -> Login {
        let discovered = Discovered {
            resource: "https://a.example".to_string(),
            issuer: "https://as.example".to_string(),
            authorization_endpoint: "https://as.example/authorize".to_string(),
            names_issuer,
            ..Discovered::default()
        };
        let client = Login::client(&discovered, "client 1".to_string(), None);
        Login::begin(discovered, client, "http://127.0.0.1:1/callback".to_string(), vec!["read".to_string()]).unwrap()
    }

    #[test]
    fn a_code_counts_only_with_the_state_and_the_issuer_of_this_login() {
        let plain = login(false);
        let state = &plain.state;
        assert_eq!(plain.code(&format!("code=a%2Bb&state={state}")).unwrap().as_str(), "a+b");
        for query in [
            String::new(),
            "code=x".to_string(),
            "code=x&state=".to_string(),
            format!("code=x&state={state}x"),
            format!("state={state}"),
            format!("state={state}&error=access_denied"),
            format!("state={state}&error=access_denied&code=x"),
            format!("state={state}&code=x&iss=https://as.example/"),
            format!("state={state}&code=x&iss=https://other.example"),
        ] {
            assert!(plain.code(&query).is_err(), "{query}");
        }
        let strict = login(true);
        let state = &strict.state;
        assert!(strict.code(&format!("code=x&state={state}")).is_err());
        assert!(strict.code(&format!("code=x&state={state}&iss=https%3A%2F%2Fas.example")).is_ok());
    }

    #[test]
    fn the_authorization_url_says_everything_and_never_the_verifier() {
        let login = login(false);
        let url = login.authorization_url();
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, login.verifier.as_bytes()));
        let expected = format!(
            "https://as.example/authorize?response_type=code&client_id=client%201&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcallback\
             &state={}&code_challenge={challenge}&code_challenge_method=S256&resource=https%3A%2F%2Fa.example&scope=read",
            login.state
        );
        assert_eq!(url, expected);
        assert!(!url.contains(login.verifier.as_str()));
    }
}
