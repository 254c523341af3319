//! Texts that look like credentials although nobody here knows them.
//! Owns: the usual shapes: prefixes of vendors' keys, bearer tokens, JWTs, private keys, assignments, URL parameters.
//! Never: decides that a text is harmless; it is the second net behind the broker's list of known secrets.

use crate::broker::REDACTED;

/// Beginnings of keys of well-known vendors.
const PREFIXES: &[&str] =
    &["sk-", "ghp_", "gho_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "xapp-", "AKIA", "ASIA", "AIza", "xai-", "hf_"];
/// Bytes behind such a beginning from which on it is taken for a key.
const KEY_REST_BYTES: usize = 12;
/// Parameters of a URL that hold credentials.
const PARAMETERS: &[&str] = &["key", "sig", "signature", "code"];

/// Whether a member, variable or parameter of this name holds a credential.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name: String = name.to_ascii_lowercase().replace('-', "_");
    const NAMES: &[&str] = &[
        "authorization",
        "proxy_authorization",
        "cookie",
        "set_cookie",
        "token",
        "api_key",
        "apikey",
        "x_api_key",
        "api_secret",
        "secret",
        "credential",
        "credentials",
        "client_secret",
        "password",
        "passwd",
        "passphrase",
        "private_key",
        "access_key",
        "secret_key",
        "master_key",
        "x_goog_api_key",
    ];
    NAMES.contains(&name.as_str())
        || ["_token", "_secret", "_password", "_api_key", "_private_key", "_credential", "_access_key", "_secret_key"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
}

/// `text` with everything that looks like a credential replaced.
pub(super) fn redact(text: &str) -> String {
    let text = private_keys(text);
    let text = assignments(&text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    let mut before = None;
    while let Some(c) = rest.chars().next() {
        let starts_word = before.is_none_or(|before: char| !before.is_ascii_alphanumeric() && before != '_');
        match starts_word.then(|| credential(rest)).flatten() {
            Some((kept, length)) => {
                out.push_str(&rest[..kept]);
                out.push_str(REDACTED);
                before = Some('>');
                rest = &rest[length..];
            }
            None => {
                out.push(c);
                before = Some(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    out
}

/// A credential at the beginning of `rest`: how much of it is kept, and where it ends.
fn credential(rest: &str) -> Option<(usize, usize)> {
    for name in ["Bearer ", "bearer ", "Basic ", "basic "] {
        if let Some(token) = rest.strip_prefix(name) {
            let length = word(token);
            return (length >= 8).then_some((name.len(), name.len() + length));
        }
    }
    for prefix in PREFIXES {
        if rest.starts_with(prefix) {
            let length = word(rest);
            return (length >= prefix.len() + KEY_REST_BYTES).then_some((0, length));
        }
    }
    if rest.starts_with("eyJ") {
        let length = word(rest);
        let parts: Vec<&str> = rest[..length].split('.').collect();
        return (parts.len() == 3 && parts.iter().all(|part| part.len() >= 8)).then_some((0, length));
    }
    let name_end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c))?;
    let value = rest[name_end..].strip_prefix('=')?;
    let name = &rest[..name_end];
    if !PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) && !is_secret_name(name) {
        return None;
    }
    let length = value.find(|c: char| c.is_whitespace() || "&\"'<>;,)]}".contains(c)).unwrap_or(value.len());
    (length >= 4).then_some((name_end + 1, name_end + 1 + length))
}

/// Bytes up to the end of a token.
fn word(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || c.is_control() || "\"'`,;()[]{}<>\\&".contains(c)).unwrap_or(text.len())
}

/// `NAME: value` and `NAME=value` lines of names that hold credentials lose the rest of the line.
fn assignments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim_start();
        let name = trimmed.split([':', '=']).next().unwrap_or_default();
        let separator = trimmed.as_bytes().get(name.len());
        let bare = name.trim().trim_start_matches("export ").trim_matches('"');
        let is_assignment = separator.is_some() && !bare.contains(char::is_whitespace) && is_secret_name(bare);
        // An authorisation keeps its scheme; the token behind it is found by its own rule.
        if is_assignment && !bare.eq_ignore_ascii_case("authorization") {
            let kept = line.len() - trimmed.len() + name.len() + 1;
            out.push_str(&line[..kept]);
            out.push(' ');
            out.push_str(REDACTED);
            if line.ends_with('\n') {
                out.push('\n');
            }
        } else {
            out.push_str(line);
        }
    }
    out
}

/// Blocks of private keys, with or without an end.
fn private_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN ") {
        let head = &rest[begin..];
        let first_line = head.split('\n').next().unwrap_or_default();
        if !first_line.contains("PRIVATE KEY") {
            let kept = begin + "-----BEGIN ".len();
            out.push_str(&rest[..kept]);
            rest = &rest[kept..];
            continue;
        }
        out.push_str(&rest[..begin]);
        out.push_str(REDACTED);
        let end = head.find("-----END ").and_then(|end| {
            let tail = &head[end + "-----END ".len()..];
            tail.find("-----").map(|close| end + "-----END ".len() + close + "-----".len())
        });
        rest = end.map_or("", |end| &head[end..]);
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_replaced_and_what_does_not_stays() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJlMTIz";
        for (text, expected) in [
            ("key sk-ant-0123456789abcdef end", "key <redacted> end".to_string()),
            ("\"sk-proj-0123456789abcdef\"", "\"<redacted>\"".to_string()),
            ("ghp_0123456789abcdefABCDEF", "<redacted>".to_string()),
            ("Authorization: Bearer abcdefgh12345", "Authorization: Bearer <redacted>".to_string()),
            ("see https://x.example/?a=1&key=abcdef&b=2", "see https://x.example/?a=1&key=<redacted>&b=2".to_string()),
            ("https://x/?access_token=abcdef", "https://x/?access_token=<redacted>".to_string()),
            ("OPENAI_API_KEY=abc def\nnext", "OPENAI_API_KEY= <redacted>\nnext".to_string()),
            ("  password: hunter2 and more\n", "  password: <redacted>\n".to_string()),
            ("export DB_PASSWORD=x", "export DB_PASSWORD= <redacted>".to_string()),
            (&format!("token {jwt}!"), "token <redacted>".to_string()),
            (
                "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nb",
                "a\n<redacted>\nb".to_string(),
            ),
            ("-----BEGIN PRIVATE KEY-----\nMIIE", "<redacted>".to_string()),
        ] {
            assert_eq!(redact(text), expected, "{text}");
        }
        for text in [
            "",
            "risk-free and task-oriented-programming-words",
            "sk-short",
            "max_output_tokens: 5",
            "the token is what we call it",
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
            "keyboard=x monkey=y",
            "Bearer of news",
            "Grüße an alle",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
