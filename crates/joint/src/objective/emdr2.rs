//! EMDR2: Sachan et al., 2021 (arXiv 2106.05346): the marginal likelihood, with the generator's part held fixed.
//!
//! The papers (also Atlas', arXiv 2208.03299) write it over whole answers; the authors' code and Atlas' both marginalise
//! each token. Atlas divides the generator's logits by 0.01 first, which makes another distribution of them; not so here.

use super::marginal::MarginalSettings;
use super::{AnswerLogProbs, Evidence, Marginal, Normalise, ObjectiveLoss};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// -log sum_z p(z|x) p(y|x,z), the gradient to p(z|x) alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Emdr2 {
    /// Divides the similarities.
    pub score_temperature: f64,
    /// Over what passages are summed: as both codes (`token`) or as written (`sequence`).
    pub marginal: Marginal,
    /// What the sum over tokens and questions is divided by.
    pub normalise: Normalise,
}

impl Default for Emdr2 {
    fn default() -> Self {
        Self { score_temperature: 1.0, marginal: Marginal::Token, normalise: Normalise::Tokens }
    }
}

impl Emdr2 {
    pub(super) fn loss(&self, e: &Evidence<'_>, answers: &AnswerLogProbs) -> ObjectiveLoss {
        let fixed = AnswerLogProbs { values: answers.values.detach(), mask: answers.mask.shallow_clone() };
        let settings =
            MarginalSettings { score_temperature: self.score_temperature, normalise: self.normalise };
        settings.loss(e, &fixed, self.marginal)
    }
}
