//! EMDR2: Sachan et al., 2021 (arXiv 2106.05346): the marginal likelihood, with the generator's part held fixed.
//!
//! The papers (also Atlas', arXiv 2208.03299) write it over whole answers; the authors' code and Atlas' both marginalize
//! each token. Atlas divides the generator's logits by 0.01 first, which makes another distribution of them; not so here.

use super::marginal::MarginalSettings;
use super::{AnswerLogProbs, Evidence, Marginal, Normalize, ObjectiveLoss};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// EMDR2: -log sum_z p(z|x) p(y|x,z) with gradients to p(z|x) only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Emdr2 {
    /// Temperature of the retriever's similarities.
    pub score_temperature: f64,
    /// Marginalization: per token (both published codes) or over the whole answer (the papers' formula).
    pub marginal: Marginal,
    /// Normalization of the loss.
    pub normalize: Normalize,
}

impl Default for Emdr2 {
    fn default() -> Self {
        Self { score_temperature: 1.0, marginal: Marginal::Token, normalize: Normalize::Tokens }
    }
}

impl Emdr2 {
    pub(super) fn loss(&self, e: &Evidence<'_>, answers: &AnswerLogProbs) -> ObjectiveLoss {
        let fixed = AnswerLogProbs { values: answers.values.detach(), mask: answers.mask.shallow_clone() };
        let settings =
            MarginalSettings { score_temperature: self.score_temperature, normalize: self.normalize };
        settings.loss(e, &fixed, self.marginal)
    }
}
