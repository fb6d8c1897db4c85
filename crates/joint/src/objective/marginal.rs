//! Marginal likelihoods: Lewis et al., 2020 (arXiv 2005.11401), equations of section 2.1; transformers' `modeling_rag.py`.
//!
//! p(z|x) is the softmax over the passages found. transformers adds log p(z) at the second target position of a
//! RAG-Sequence and masks padding after it, so an answer of one token loses its prior; here it is kept.

use super::{AnswerLogProbs, Evidence, ObjectiveLoss, log_distribution};
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// -log sum_z p(z|x) prod_t p(y_t | x, z, y_<t).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RagSequence(pub MarginalSettings);

/// -sum_t log sum_z p(z|x) p(y_t | x, z, y_<t).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RagToken(pub MarginalSettings);

/// Settings of the marginal likelihoods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MarginalSettings {
    /// Temperature of the retriever's similarities: 1 as published for dot products; for a cosine retriever its
    /// training temperature, such as 0.05.
    pub score_temperature: f64,
    /// Normalization of the loss.
    pub normalize: Normalize,
}

impl Default for MarginalSettings {
    fn default() -> Self {
        Self { score_temperature: 1.0, normalize: Normalize::Tokens }
    }
}

/// Normalization of the loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// By answer tokens: with one passage it equals the supervised loss.
    #[default]
    Tokens,
    /// By questions, as published.
    Questions,
}

/// Marginalization over passages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Marginal {
    /// Over the whole answer.
    Sequence,
    /// Per answer token.
    #[default]
    Token,
}

impl MarginalSettings {
    /// The loss; `answers` with a graph train the generator, too.
    pub(super) fn loss(&self, e: &Evidence<'_>, answers: &AnswerLogProbs, over: Marginal) -> ObjectiveLoss {
        let prior = log_distribution(e.scores, self.score_temperature, e.present);
        let (likelihood, posterior) = match over {
            Marginal::Sequence => {
                let joint = &prior + answers.sums();
                let all = joint.logsumexp([-1i64].as_slice(), false).sum(None::<Kind>);
                (all, joint.detach().softmax(-1, None))
            }
            Marginal::Token => {
                let joint = prior.unsqueeze(-1) + &answers.values;
                let each = joint.logsumexp([1i64].as_slice(), false) * &answers.mask;
                // Of a passage for each token, the mean over the answer.
                let shares = joint.detach().softmax(1, None) * answers.mask.unsqueeze(1);
                let shares = shares.sum_dim_intlist([-1i64].as_slice(), false, None);
                (each.sum(None::<Kind>), shares / answers.lengths().clamp_min(1.0).unsqueeze(1))
            }
        };
        let by: Tensor = match self.normalize {
            Normalize::Tokens => answers.mask.sum(None::<Kind>).clamp_min(1.0),
            Normalize::Questions => Tensor::from(prior.size()[0].max(1) as f32).to_device(prior.device()),
        };
        ObjectiveLoss { loss: -likelihood / by, teacher: posterior, student: prior.detach().exp() }
    }
}
