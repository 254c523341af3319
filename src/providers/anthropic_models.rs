//! What Anthropic's models accept, by name.
//! Owns: the one table that shapes thinking, effort, sampling and length, so that no model is sent what it refuses.
//! Never: asks the vendor: a gateway may not answer, and a run must not wait for it.

use super::message::Effort;

/// What one model accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ModelFacts {
    /// `thinking.type` `adaptive`.
    pub adaptive: bool,
    /// `thinking.type` `enabled` with a budget.
    pub budget: bool,
    /// The highest `output_config.effort`; `None` knows no effort.
    pub effort_max: Option<Effort>,
    /// Takes a temperature, under the older API version only.
    pub samples: bool,
    /// `output_config.format`.
    pub structured: bool,
    /// Most tokens of one answer, thinking included.
    pub output_tokens_max: u32,
}

const OLD: ModelFacts = ModelFacts {
    adaptive: false,
    budget: false,
    effort_max: None,
    samples: true,
    structured: false,
    output_tokens_max: 4_096,
};
const BUDGET: ModelFacts = ModelFacts { budget: true, output_tokens_max: 64_000, ..OLD };
const NEWEST: ModelFacts = ModelFacts {
    adaptive: true,
    budget: false,
    effort_max: Some(Effort::Max),
    samples: false,
    structured: true,
    output_tokens_max: 128_000,
};

/// Names by how they begin, the longer ones first. Whatever is not here is newer than this table and gets what the
/// newest models accept: nothing that any of them refuses.
const MODELS: [(&str, ModelFacts); 14] = [
    ("claude-3-5-", ModelFacts { output_tokens_max: 8_192, ..OLD }),
    ("claude-3-7-", BUDGET),
    ("claude-3-", OLD),
    ("claude-2", OLD),
    ("claude-instant", OLD),
    ("claude-opus-4-5", ModelFacts { effort_max: Some(Effort::High), structured: true, ..BUDGET }),
    ("claude-sonnet-4-5", ModelFacts { structured: true, ..BUDGET }),
    ("claude-haiku-4-5", ModelFacts { structured: true, ..BUDGET }),
    ("claude-opus-4-6", ModelFacts { budget: true, samples: true, ..NEWEST }),
    ("claude-sonnet-4-6", ModelFacts { budget: true, samples: true, output_tokens_max: 64_000, ..NEWEST }),
    ("claude-opus-4-1", ModelFacts { structured: true, output_tokens_max: 32_000, ..BUDGET }),
    ("claude-opus-4-2", ModelFacts { output_tokens_max: 32_000, ..BUDGET }),
    ("claude-opus-4-0", ModelFacts { output_tokens_max: 32_000, ..BUDGET }),
    ("claude-sonnet-4-2", BUDGET),
];

/// What `model` accepts.
pub(super) fn facts(model: &str) -> ModelFacts {
    // Gateways put a vendor in front: `anthropic/claude-…`, `anthropic.claude-…`.
    let name = model.find("claude-").map_or(model, |at| &model[at..]);
    MODELS.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(NEWEST, |(_, facts)| *facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dated_and_prefixed_names_find_their_model_and_unknown_ones_the_newest() {
        assert_eq!(facts("claude-3-5-haiku-20241022").output_tokens_max, 8_192);
        assert_eq!(facts("claude-sonnet-4-20250514"), BUDGET);
        assert_eq!(facts("claude-opus-4-20250514").output_tokens_max, 32_000);
        assert_eq!(facts("anthropic/claude-opus-4-5").effort_max, Some(Effort::High));
        assert!(facts("claude-sonnet-4-6").samples && facts("claude-sonnet-4-6").adaptive);
        for newest in ["claude-opus-4-7", "claude-opus-5", "claude-mythos-1", "some-alias"] {
            let facts = facts(newest);
            assert!(facts == NEWEST && !facts.samples && !facts.budget, "{newest}");
        }
    }
}
