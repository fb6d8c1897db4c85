//! Regression of the cosine similarity (Reimers and Gurevych, 2019, arXiv 1908.10084; sentence-transformers'
//! `CosineSimilarityLoss`): the mean of (cos(q, p) - y)^2 over scored pairs.
//!
//! Pairs are those of each query with its positive and with its own negatives, as the data scores them. With late
//! interaction there is no cosine: the model's similarity stands in its place.

use super::{
    Compared, LossBatch, Relations, RetrievalLoss, bad, candidates, normalize, own_candidates, teacher,
};
use crate::Result;
use ragduet_torch::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the cosine regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CosineSimilarity {
    /// The highest score that the data gives: scores are divided by it, since a cosine ends at 1. 5 for STS-B as it was
    /// published.
    pub max_score: f64,
}

impl Default for CosineSimilarity {
    fn default() -> Self {
        Self { max_score: 1.0 }
    }
}

impl CosineSimilarity {
    pub(super) fn check(&self) -> Result<Self> {
        match self.max_score > 0.0 && self.max_score.is_finite() {
            true => Ok(self.clone()),
            false => Err(bad("loss.cosine_similarity.max_score", "must be above 0")),
        }
    }
}

impl RetrievalLoss for CosineSimilarity {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let (columns, real) = candidates(b.relations, b.device());
        let all = match b.compared {
            Compared::Vectors { queries, passages } => {
                normalize(queries).matmul(&normalize(passages).transpose(0, 1))
            }
            Compared::Similarities(s) => s.shallow_clone(),
        };
        let cosines = all.gather(1, &columns, false);
        let labels = teacher(b.relations, &cosines) / self.max_score;
        let gaps = (cosines - labels).masked_select(&real);
        gaps.square().mean(gaps.kind())
    }

    fn wanted(&self, relations: &Relations, passages: usize) -> Option<Vec<bool>> {
        Some(own_candidates(relations, passages))
    }

    fn needs_negatives(&self) -> bool {
        false
    }

    fn needs_teacher(&self) -> bool {
        true
    }

    fn takes_scored_pairs(&self) -> bool {
        true
    }

    fn max_score(&self) -> Option<f64> {
        Some(self.max_score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{LossConfig, fixed_scale};
    use ragduet_testkit::check_gradient;
    use ragduet_torch::{Device, Kind, rng};

    fn relations() -> Relations {
        Relations {
            positive: vec![0, 1],
            negatives: vec![vec![2], vec![]],
            teacher: Some(vec![vec![4.0, 1.0], vec![2.5]]),
            ..Relations::default()
        }
    }

    fn value(queries: &Tensor, passages: &Tensor) -> Tensor {
        let config: LossConfig = serde_json::from_str(r#"{"cosine_similarity": {"max_score": 5}}"#).unwrap();
        let scale = fixed_scale(20.0, queries);
        let compared = Compared::Vectors { queries, passages };
        config.build().unwrap().loss(&LossBatch::new(compared, &relations(), &scale))
    }

    #[test]
    fn it_is_its_formula() {
        let queries = Tensor::from_slice(&[3.0f64, 4.0, 1.0, 0.0]).view([2, 2]);
        let passages = Tensor::from_slice(&[1.0f64, 0.0, 0.0, 2.0, 0.0, -1.0]).view([3, 2]);
        // Cosines 0.6, -0.8 and 0 against 0.8, 0.2 and 0.5.
        let want = (0.04 + 1.0 + 0.25) / 3.0;
        let have = f64::try_from(value(&queries, &passages)).unwrap();
        assert!((have - want).abs() < 1e-9, "{have}");
    }

    #[test]
    fn gradients_are_the_numerical_ones() {
        rng::seed(2);
        let random = |n| Tensor::randn([n, 4], (Kind::Double, Device::Cpu));
        check_gradient(&[random(2), random(3)], 1e-6, |x| value(&x[0], &x[1]));
    }

    #[test]
    fn settings_are_checked() {
        let config: LossConfig = serde_json::from_str(r#"{"cosine_similarity": {"max_score": 0}}"#).unwrap();
        assert!(config.build().unwrap_err().to_string().contains("max_score"));
    }
}
