//! The weighted sum of losses: ColBERTv2's distillation with in-batch cross-entropy (Santhanam et al., 2021, arXiv
//! 2112.01488), distillation beside a contrastive loss.

use super::{LossBatch, LossConfig, Relations, RetrievalLoss, bad};
use crate::Result;
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weighted sum of losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// Terms of the sum.
    pub terms: Vec<Term>,
}

/// One term of the sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Weight of the term.
    #[serde(default = "one")]
    pub weight: f64,
    /// Loss of the term.
    pub loss: LossConfig,
}

fn one() -> f64 {
    1.0
}

impl Sum {
    pub(super) fn build(&self) -> Result<Built> {
        if self.terms.is_empty() {
            return Err(bad("loss.sum.terms", "give at least one loss"));
        }
        let part = |t: &Term| {
            if t.weight.is_nan() || t.weight <= 0.0 {
                return Err(bad("loss.sum.terms.weight", "must be above 0"));
            }
            Ok((t.weight, t.loss.build()?))
        };
        Ok(Built { terms: self.terms.iter().map(part).collect::<Result<_>>()? })
    }

    pub(super) fn check_dim(&self, dim: i64) -> Result<()> {
        self.terms.iter().try_for_each(|t| t.loss.check_dim(dim))
    }
}

#[derive(Debug)]
pub(super) struct Built {
    terms: Vec<(f64, Box<dyn RetrievalLoss>)>,
}

impl RetrievalLoss for Built {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let parts = self.terms.iter().map(|(weight, loss)| loss.loss(b) * *weight);
        parts.reduce(|a, b| a + b).unwrap_or_else(|| Tensor::zeros([], (Kind::Float, b.device())))
    }

    fn takes_similarities(&self) -> bool {
        self.terms.iter().all(|(_, l)| l.takes_similarities())
    }

    fn wanted(&self, relations: &Relations, passages: usize) -> Option<Vec<bool>> {
        let mut all: Option<Vec<bool>> = None;
        for (_, loss) in &self.terms {
            let part = loss.wanted(relations, passages)?;
            match &mut all {
                None => all = Some(part),
                Some(all) => all.iter_mut().zip(part).for_each(|(a, b)| *a |= b),
            }
        }
        all
    }

    fn needs_negatives(&self) -> bool {
        self.terms.iter().any(|(_, l)| l.needs_negatives())
    }

    fn needs_teacher(&self) -> bool {
        self.terms.iter().any(|(_, l)| l.needs_teacher())
    }

    fn takes_scored_pairs(&self) -> bool {
        self.terms.iter().all(|(_, l)| l.takes_scored_pairs())
    }

    fn max_score(&self) -> Option<f64> {
        self.terms.iter().filter_map(|(_, l)| l.max_score()).reduce(f64::min)
    }

    fn needs_teacher_vectors(&self) -> bool {
        self.terms.iter().any(|(_, l)| l.needs_teacher_vectors())
    }
}
