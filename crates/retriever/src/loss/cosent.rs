//! CoSENT (Su, 2022, <https://kexue.fm/archives/8847>; sentence-transformers' `CoSENTLoss`): of two pairs, the one with
//! the greater label is to be more similar, whichever queries they belong to:
//!
//! log(1 + sum over pairs with y_i > y_j of exp(s_j - s_i)), s = scale * similarity.
//!
//! Pairs are those of each query with its positive and with its own negatives; their labels are the scores of the data
//! (graded judgements) or of a teacher. Only the order of labels counts. sentence-transformers' scale of 20 is the default
//! temperature of 0.05.

use super::{LossBatch, Relations, RetrievalLoss, candidates, own_candidates, teacher};
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of CoSENT.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CoSent {
    /// Whether only pairs of one query are compared. Needed where scores mean nothing across queries, as margins do.
    pub within_query: bool,
}

impl RetrievalLoss for CoSent {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let (columns, real) = candidates(b.relations, b.device());
        let scores = b.similarities().gather(1, &columns, false) * b.scale;
        let labels = teacher(b.relations, &scores).masked_select(&real);
        let query = Tensor::arange(columns.size()[0], (Kind::Int64, b.device()));
        let query = query.unsqueeze(1).expand_as(&columns).masked_select(&real);
        let scores = scores.masked_select(&real);
        // [i, j]: whether pair i is to be more similar than pair j.
        let mut ordered = labels.unsqueeze(1).gt_tensor(&labels.unsqueeze(0));
        if self.within_query {
            ordered = ordered.logical_and(&query.unsqueeze(1).eq_tensor(&query.unsqueeze(0)));
        }
        let gaps = (scores.unsqueeze(0) - scores.unsqueeze(1)).masked_select(&ordered);
        // The 1 is exp(0).
        let zero = Tensor::zeros([1], (scores.kind(), scores.device()));
        Tensor::cat(&[zero, gaps], 0).logsumexp([0i64].as_slice(), false)
    }

    fn wanted(&self, relations: &Relations, passages: usize) -> Option<Vec<bool>> {
        Some(own_candidates(relations, passages))
    }

    fn takes_scored_pairs(&self) -> bool {
        true
    }

    fn needs_negatives(&self) -> bool {
        false
    }

    fn needs_teacher(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{Compared, LossConfig, fixed_scale};
    use ragduet_testkit::check_gradient;
    use ragduet_torch::{Device, rng};

    const SCALE: f64 = 3.0;

    /// Three queries, one without negatives; passage 4 is two queries' negative.
    fn relations() -> Relations {
        Relations {
            positive: vec![0, 1, 2],
            negatives: vec![vec![3, 4], vec![], vec![4]],
            also_relevant: vec![(0, 1)],
            own_copies: Vec::new(),
            teacher: Some(vec![vec![2.0, 0.5, -1.0], vec![1.0], vec![0.5, 0.75]]),
        }
    }

    fn similarities() -> Tensor {
        rng::seed(5);
        Tensor::randn([3, 5], (Kind::Double, Device::Cpu))
    }

    fn value(config: &str, s: &Tensor, scale: &Tensor) -> Tensor {
        let loss = serde_json::from_str::<LossConfig>(config).unwrap().build().unwrap();
        loss.loss(&LossBatch::new(Compared::Similarities(s), &relations(), scale))
    }

    const CONFIGS: [&str; 2] = [r#"{"cosent": {}}"#, r#"{"cosent": {"within_query": true}}"#];

    #[test]
    fn it_is_its_formula() {
        let s = similarities();
        let at = |q: i64, p: i64| s.double_value(&[q, p]);
        // (query, similarity, label)
        let pairs = [
            (0, at(0, 0), 2.0),
            (0, at(0, 3), 0.5),
            (0, at(0, 4), -1.0),
            (1, at(1, 1), 1.0),
            (2, at(2, 2), 0.5),
            (2, at(2, 4), 0.75),
        ];
        for (config, within) in CONFIGS.into_iter().zip([false, true]) {
            let mut sum = 1.0;
            for (q, s_i, y_i) in pairs {
                for (r, s_j, y_j) in pairs {
                    if y_i > y_j && (!within || q == r) {
                        sum += (SCALE * (s_j - s_i)).exp();
                    }
                }
            }
            let have = f64::try_from(value(config, &s, &fixed_scale(SCALE, &s))).unwrap();
            assert!((have - f64::ln(sum)).abs() < 1e-9, "{config}: {have}, {}", sum.ln());
        }
    }

    #[test]
    fn gradients_are_the_numerical_ones() {
        let scale = Tensor::from_slice(&[SCALE]).squeeze();
        for config in CONFIGS {
            check_gradient(&[similarities(), scale.shallow_clone()], 1e-6, |x| value(config, &x[0], &x[1]));
        }
    }

    #[test]
    fn labels_that_are_all_equal_ask_for_nothing() {
        let s = similarities().set_requires_grad(true);
        let even = Relations { teacher: Some(vec![vec![1.0; 3], vec![1.0], vec![1.0; 2]]), ..relations() };
        let scale = fixed_scale(SCALE, &s);
        let loss = CoSent::default().loss(&LossBatch::new(Compared::Similarities(&s), &even, &scale));
        assert_eq!(f64::try_from(&loss).unwrap(), 0.0);
        loss.backward();
        assert_eq!(f64::try_from(s.grad().abs().max()).unwrap(), 0.0);
    }
}
