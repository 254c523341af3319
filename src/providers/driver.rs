//! The drivers: which API a route speaks, and what follows from that alone.
//! Owns: names, default addresses, endpoints, credential headers, model families and default abilities.
//! Never: builds a body or reads an answer; each wire format has its own files.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::broker::Provider;
use crate::net::{BaseUrl, Target};

/// Which API a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Driver {
    /// OpenAI Responses, and servers compatible with it.
    Openai,
    /// Chat Completions as vLLM, llama.cpp, Ollama and gateways speak it.
    OpenaiCompatible,
    /// Anthropic Messages.
    Anthropic,
    /// Google `streamGenerateContent`.
    Google,
    /// Chat Completions as OpenRouter speaks it.
    Openrouter,
    /// Responses as xAI speaks it.
    Xai,
}

/// How a credential travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialHeader {
    /// `Authorization: Bearer …`.
    Bearer,
    /// This header, the credential alone.
    Named(&'static str),
}

/// Which of a vendor's abilities a driver has; the matrix of version 2, in the order of its columns:
/// multimodal input, native web search, image generation, image edit, audio generation, transcription.
pub(super) type Abilities = [bool; 6];

/// What stands in a path segment unescaped.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The version of Anthropic's API that is asked for when a route names none.
pub(super) const ANTHROPIC_VERSION: &str = "2026-10-21";
/// The version before it, which gateways and older hosted models still speak.
pub(super) const ANTHROPIC_VERSION_OLD: &str = "2023-06-01";

impl Driver {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Openai, Self::OpenaiCompatible, Self::Anthropic, Self::Google, Self::Openrouter, Self::Xai];

    /// The name used in routes files and views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::OpenaiCompatible => "openai_compatible",
            Self::Anthropic => "anthropic",
            Self::Google => "google",
            Self::Openrouter => "openrouter",
            Self::Xai => "xai",
        }
    }

    /// The driver of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|driver| driver.as_str() == name)
    }

    /// The provider that a credential slot of such a route belongs to.
    pub fn slot_provider(self) -> Provider {
        match self {
            Self::Openai | Self::OpenaiCompatible => Provider::OpenAi,
            Self::Anthropic => Provider::Anthropic,
            Self::Google => Provider::Google,
            Self::Openrouter => Provider::OpenRouter,
            Self::Xai => Provider::XAi,
        }
    }

    /// Whether `model` belongs to the vendor's own model family.
    pub(super) fn has_in_family(self, model: &str) -> bool {
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| model.starts_with(prefix));
        match self {
            Self::Openai => {
                starts(&["gpt-", "chatgpt-", "codex-", "computer-use-", "ft:gpt-"]) || is_openai_o_series(model)
            }
            Self::OpenaiCompatible => true,
            Self::Anthropic => starts(&["claude-"]),
            Self::Google => starts(&["gemini-", "gemma-"]),
            Self::Openrouter => model.contains('/'),
            Self::Xai => starts(&["grok-"]),
        }
    }

    /// Where the vendor's own API lives; a gateway has no address of its own.
    pub(super) fn base_url(self) -> Option<BaseUrl> {
        let url = match self {
            Self::Openai => "https://api.openai.com/v1",
            Self::OpenaiCompatible => return None,
            Self::Anthropic => "https://api.anthropic.com",
            Self::Google => "https://generativelanguage.googleapis.com/v1beta",
            Self::Openrouter => "https://openrouter.ai/api/v1",
            Self::Xai => "https://api.x.ai/v1",
        };
        Some(BaseUrl::parse(url).expect("the vendors' URLs are well-formed"))
    }

    /// The address at which `model` is asked for a streamed turn. A base URL may or may not hold the version and
    /// the endpoint already; neither is repeated.
    pub(super) fn target(self, base: &BaseUrl, model: &str) -> Target {
        let path = base.path();
        let unless = |end: &str, suffix: &'static str| if path.ends_with(end) { "" } else { suffix };
        match self {
            Self::Openai | Self::Xai => base.target(unless("/responses", "/responses")),
            Self::OpenaiCompatible | Self::Openrouter => base.target(unless("/chat/completions", "/chat/completions")),
            Self::Anthropic if path.ends_with("/v1") => base.target("/messages"),
            Self::Anthropic => base.target(unless("/v1/messages", "/v1/messages")),
            Self::Google => {
                let version = if path.is_empty() { "/v1beta" } else { "" };
                let model = utf8_percent_encode(model.strip_prefix("models/").unwrap_or(model), SEGMENT);
                base.target(&format!("{version}/models/{model}:streamGenerateContent?alt=sse"))
            }
        }
    }

    /// The header that carries the credential. Exactly one is sent.
    pub(super) fn credential_header(self, anthropic_version: &str) -> CredentialHeader {
        match self {
            Self::Google => CredentialHeader::Named("x-goog-api-key"),
            // Servers of the older version may know this form only; the current one takes keys and tokens alike.
            Self::Anthropic if anthropic_version == ANTHROPIC_VERSION_OLD => CredentialHeader::Named("x-api-key"),
            _ => CredentialHeader::Bearer,
        }
    }

    /// What the vendor's API can do beside text and tools.
    pub(super) fn abilities(self) -> Abilities {
        match self {
            Self::Anthropic => [true, true, false, false, false, false],
            Self::Google => [true, false, true, true, false, false],
            Self::Openai => [true; 6],
            // Most servers take pictures for models that see; none of the other abilities is common to them.
            Self::OpenaiCompatible => [true, false, false, false, false, false],
            Self::Openrouter => [true, false, true, true, true, true],
            Self::Xai => [true, true, true, true, false, false],
        }
    }
}

/// `o1`, `o3-mini`, `o4-mini` and their kind.
pub(super) fn is_openai_o_series(model: &str) -> bool {
    model.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_base_url_leads_to_the_turn_endpoint_once() {
        let cases = [
            (Driver::Openai, "http://h/v1", "/v1/responses"),
            (Driver::Openai, "http://h/v1/responses", "/v1/responses"),
            (Driver::Xai, "http://h/v1/", "/v1/responses"),
            (Driver::OpenaiCompatible, "http://h:8000/v1", "/v1/chat/completions"),
            (Driver::Openrouter, "http://h/api/v1/chat/completions", "/api/v1/chat/completions"),
            (Driver::Anthropic, "http://h", "/v1/messages"),
            (Driver::Anthropic, "http://h/v1", "/v1/messages"),
            (Driver::Anthropic, "http://h/gateway/v1/messages", "/gateway/v1/messages"),
            (Driver::Google, "http://h", "/v1beta/models/m%2F1:streamGenerateContent"),
            (Driver::Google, "http://h/v1", "/v1/models/m%2F1:streamGenerateContent"),
        ];
        for (driver, base, path) in cases {
            let target = driver.target(&BaseUrl::parse(base).expect("URL"), "m/1").to_string();
            assert!(target.ends_with(path) && target.matches("/v1").count() == path.matches("/v1").count(), "{target}");
        }
        let google = Driver::Google.target(&BaseUrl::parse("http://h/v1").expect("URL"), "models/gemini-3-pro");
        assert_eq!(google.to_string(), "http://h/v1/models/gemini-3-pro:streamGenerateContent");
    }

    #[test]
    fn names_are_those_of_routes_files_and_each_knows_its_family() {
        for driver in Driver::ALL {
            assert_eq!(Driver::parse(driver.as_str()), Some(driver));
            assert_eq!(serde_json::to_value(driver).expect("name"), driver.as_str());
        }
        assert_eq!(Driver::parse("open-ai"), None);
        let families = ["gpt-5.4", "anything", "claude-sonnet-5", "gemini-3-pro", "vendor/model", "grok-5"];
        for (driver, model) in Driver::ALL.into_iter().zip(families) {
            assert!(driver.has_in_family(model), "{driver:?} {model}");
        }
        assert!(!Driver::Anthropic.has_in_family("gpt-5") && !Driver::Openrouter.has_in_family("gpt-5"));
    }
}
