//! The probes that need no token: `/readyz` and `/healthz`.
//! Owns: what their answers mean.
//! Never: takes a missing answer for a good one.

use super::finding::Findings;

/// What a request that may fail got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A reply of any status.
    Reply {
        /// Its status.
        status: u16,
        /// Header lines; names in lower case.
        headers: Vec<(String, String)>,
        /// The problem code or the beginning of the body, for the message.
        detail: String,
    },
    /// None.
    None {
        /// Why.
        cause: String,
    },
}

impl Answer {
    /// The values of a header.
    pub fn header_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let headers = match self {
            Self::Reply { headers, .. } => headers.as_slice(),
            Self::None { .. } => &[],
        };
        headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Judges both. Tells whether `/readyz` answered well.
pub fn judge(readyz: &Answer, healthz: &Answer, found: &mut Findings) -> bool {
    match readyz {
        Answer::None { cause } => found.add("readyz_unreachable", format!("GET /readyz: {cause}"), None),
        Answer::Reply { status, detail, .. } if !(200..300).contains(status) => {
            let message = format!("GET /readyz: HTTP {status}{}", after(detail));
            found.add("readyz_not_ready", message, Some(status.to_string()));
        }
        Answer::Reply { status, .. } => found.pass("readyz", format!("GET /readyz: HTTP {status}")),
    }
    match healthz {
        Answer::Reply { status, .. } if (200..300).contains(status) => {
            found.pass("healthz", format!("GET /healthz: HTTP {status}"));
        }
        Answer::Reply { status, detail, .. } => {
            let message = format!("GET /healthz: HTTP {status}{}", after(detail));
            found.add("healthz_failed", message, Some(status.to_string()));
        }
        Answer::None { cause } => found.add("healthz_failed", format!("GET /healthz: {cause}"), None),
    }
    matches!(readyz, Answer::Reply { status, .. } if (200..300).contains(status))
}

fn after(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" {detail}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(readyz: Answer, healthz: Answer) -> (bool, Vec<String>) {
        let mut found = Findings::default();
        let ready = judge(&readyz, &healthz, &mut found);
        (ready, found.verdict().checks.into_iter().map(|check| check.code).collect())
    }

    fn reply(status: u16) -> Answer {
        Answer::Reply { status, headers: Vec::new(), detail: String::new() }
    }

    #[test]
    fn anything_but_2xx_is_a_failure_and_so_is_silence() {
        let silence = || Answer::None { cause: "refused".into() };
        assert_eq!(check(reply(200), reply(200)), (true, vec!["readyz".into(), "healthz".into()]));
        assert_eq!(check(reply(503), reply(200)), (false, vec!["readyz_not_ready".into(), "healthz".into()]));
        assert_eq!(check(reply(302), reply(404)), (false, vec!["readyz_not_ready".into(), "healthz_failed".into()]));
        assert_eq!(check(silence(), silence()), (false, vec!["readyz_unreachable".into(), "healthz_failed".into()]));
    }
}
