//! Routes of webhooks, as `WEBHOOK_ROUTES_JSON` has them.
//! Owns: their fields, the text that a webhook becomes, and where its answer goes.
//! Never: shows a route's secret.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::secret::Secret;

#[derive(Deserialize)]
#[serde(default)]
struct Written {
    secret: Option<String>,
    signature_header: String,
    event_header: String,
    allowed_events: Vec<String>,
    prompt_template: Option<String>,
    callback_url: Option<String>,
    callback_url_field: Option<String>,
    allowed_callback_hosts: Vec<String>,
    session_mode: Option<String>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            secret: None,
            signature_header: "X-Hub-Signature-256".to_string(),
            event_header: "X-GitHub-Event".to_string(),
            allowed_events: Vec::new(),
            prompt_template: None,
            callback_url: None,
            callback_url_field: None,
            allowed_callback_hosts: Vec::new(),
            session_mode: None,
        }
    }
}

/// One route.
pub(super) struct Route {
    /// What senders sign with; none where nothing is checked.
    pub(super) secret: Option<Secret>,
    pub(super) signature_header: String,
    pub(super) event_header: String,
    allowed_events: Vec<String>,
    prompt_template: Option<String>,
    callback_url: Option<String>,
    callback_url_field: Option<String>,
    allowed_callback_hosts: Vec<String>,
    is_per_delivery: bool,
}

/// All routes by name.
pub(super) struct Routes(BTreeMap<String, Route>);

impl Routes {
    /// Reads them; without a text there are none.
    pub(super) fn parse(text: Option<&Secret>, session_mode: &str) -> Result<Self, String> {
        let Some(text) = text.filter(|text| !text.expose().trim_ascii().is_empty()) else {
            return Ok(Self(BTreeMap::new()));
        };
        let written: BTreeMap<String, Written> = serde_json::from_slice(text.expose())
            .map_err(|_| "WEBHOOK_ROUTES_JSON is no object of routes".to_string())?;
        let route = |written: Written| Route {
            // The two spellings of "no check"; blank is what an operator forgot to fill in, and the peer reads it so.
            secret: written
                .secret
                .filter(|secret| !secret.trim().is_empty() && secret != "INSECURE_NO_AUTH")
                .map(|secret| Secret::new(secret.into_bytes())),
            signature_header: written.signature_header,
            event_header: written.event_header,
            allowed_events: written.allowed_events,
            prompt_template: written.prompt_template,
            callback_url: written.callback_url,
            callback_url_field: written.callback_url_field,
            allowed_callback_hosts: written.allowed_callback_hosts,
            is_per_delivery: written.session_mode.as_deref().unwrap_or(session_mode) == "per_delivery",
        };
        Ok(Self(written.into_iter().map(|(name, written)| (name, route(written))).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Route> {
        self.0.get(name)
    }
}

impl Route {
    /// Whether events of this type are passed on.
    pub(super) fn allows(&self, event_type: &str) -> bool {
        self.allowed_events.is_empty() || self.allowed_events.iter().any(|allowed| allowed == event_type)
    }

    /// The event that a webhook becomes, without the sidecar's own name.
    pub(super) fn event(&self, name: &str, delivery: &str, event_type: &str, payload: &Value, at_ms: u64) -> Value {
        let path = if self.is_per_delivery { vec![name, delivery] } else { vec![name] };
        json!({
            "event_id": format!("webhook-{delivery}"),
            "fingerprint": delivery,
            "occurred_at_ms": at_ms,
            "actor_id": format!("webhook:{name}"),
            "source_kind": "webhook",
            "intent": "domain_event",
            "relation": null,
            "thread": {"path": path},
            "routing_key": null,
            "content": self.render(payload, event_type),
            "input_items": [],
            "attachments": [],
            "reply_route": self.reply_route(payload),
            "metadata": {"route": name, "event_type": event_type},
        })
    }

    /// `{event_type}`, `{payload}` and `{field.below.it}` in the template, or the payload itself.
    fn render(&self, payload: &Value, event_type: &str) -> String {
        let pretty = || serde_json::to_string_pretty(payload).unwrap_or_default();
        let Some(template) = self.prompt_template.as_deref().filter(|template| !template.is_empty()) else {
            return pretty();
        };
        let (mut out, mut rest) = (String::new(), template);
        while let Some((before, behind)) = rest.split_once('{') {
            let Some((path, further)) = behind.split_once('}') else { break };
            out.push_str(before);
            match path {
                "event_type" => out.push_str(event_type),
                "payload" => out.push_str(&pretty()),
                path => match field(payload, path) {
                    Some(Value::String(text)) => out.push_str(text),
                    None | Some(Value::Null) => {}
                    Some(other) => out.push_str(&other.to_string()),
                },
            }
            rest = further;
        }
        out + rest
    }

    fn reply_route(&self, payload: &Value) -> String {
        let of_field = || field(payload, self.callback_url_field.as_deref()?)?.as_str().map(str::to_string);
        match self.callback_url.clone().filter(|url| !url.is_empty()).or_else(of_field) {
            None => "{}".to_string(),
            Some(url) => {
                json!({"callback_url": url, "allowed_callback_hosts": self.allowed_callback_hosts}).to_string()
            }
        }
    }
}

fn field<'v>(payload: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(payload, |value, part| value.get(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Routes {
        Routes::parse(Some(&Secret::new(text.as_bytes().to_vec())), "per_delivery").expect("legal routes")
    }

    #[test]
    fn a_webhook_becomes_the_event_that_its_route_describes() {
        let routes = routes(
            r#"{"build": {"secret": "s", "prompt_template": "{event_type} of {repo.name}: {n}{gone}{",
                "callback_url_field": "answer.url", "allowed_callback_hosts": ["cb.example"], "allowed_events": ["push"]},
                "plain": {"session_mode": "per_route"}}"#,
        );
        let build = routes.get("build").expect("there");
        let payload = json!({"repo": {"name": "x"}, "n": 3, "answer": {"url": "https://cb.example/1"}});
        let event = build.event("build", "d-1", "push", &payload, 5);
        assert_eq!(event["content"], "push of x: 3{");
        assert_eq!(event["thread"]["path"], json!(["build", "d-1"]));
        assert_eq!(
            event["reply_route"],
            r#"{"allowed_callback_hosts":["cb.example"],"callback_url":"https://cb.example/1"}"#
        );
        assert!(build.allows("push") && !build.allows("other"));
        let plain = routes.get("plain").expect("there");
        let event = plain.event("plain", "d-1", "push", &payload, 5);
        assert_eq!((&event["thread"]["path"], &event["reply_route"]), (&json!(["plain"]), &json!("{}")));
        assert!(plain.secret.is_none() && plain.allows("anything"));
    }

    #[test]
    fn routes_that_are_none_are_refused_without_a_word_of_theirs() {
        for text in ["[1]", "{", r#"{"a": "hunter2-hunter2"}"#] {
            let error = Routes::parse(Some(&Secret::new(text.as_bytes().to_vec())), "").err().expect(text);
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(Routes::parse(None, "").expect("none").is_empty());
    }
}
