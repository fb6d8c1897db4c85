//! LambdaLoss (Wang et al., 2018, "The LambdaLoss framework for ranking metric optimization"): a logistic loss of each pair
//! whose labels differ, weighted by what its exchange costs in nDCG; unweighted it is RankNet (Burges et al., 2005). As
//! sentence-transformers' `LambdaLoss` and `RankNetLoss`: base-2 logarithms, the mean over pairs.

use super::{ABSENT, Candidates, RankingLoss, positive};
use crate::Result;
use crate::error::bad;
use ragduet_torch::{Kind, Tensor, no_grad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Weighting scheme of the pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// NDCG-Loss1: gain over discount of the first of the pair; all pairs count.
    NdcgLoss1,
    /// NDCG-Loss2: differences of gains and of discounts at the pair's rank distance.
    NdcgLoss2,
    /// LambdaRank: change in nDCG when the pair is swapped.
    LambdaRank,
    /// NDCG-Loss2++: `mu` times NDCG-Loss2 plus LambdaRank.
    #[default]
    NdcgLoss2Plus,
}

/// LambdaLoss. Labels are relevance gains; a teacher's raw scores are not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lambda {
    /// Weighting scheme.
    pub scheme: Scheme,
    /// Weight of NDCG-Loss2 in `ndcg_loss2_plus`.
    pub mu: f64,
    /// Truncation: only pairs within the current top k count; absent: all pairs.
    pub k: Option<i64>,
    /// Factor of score differences in the logistic function.
    pub sigma: f64,
}

/// RankNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RankNet {
    /// Truncation: only pairs within the current top k count; absent: all pairs.
    pub k: Option<i64>,
    /// Factor of score differences in the logistic function.
    pub sigma: f64,
}

impl Default for Lambda {
    fn default() -> Self {
        Self { scheme: Scheme::default(), mu: 10.0, k: None, sigma: 1.0 }
    }
}

impl Default for RankNet {
    fn default() -> Self {
        Self { k: None, sigma: 1.0 }
    }
}

impl Lambda {
    pub(super) fn check(&self) -> Result<Self> {
        positive("loss.lambda.sigma", self.sigma)?;
        at_least_one("loss.lambda.k", self.k)?;
        if !(self.mu >= 0.0 && self.mu.is_finite()) {
            return Err(bad("loss.lambda.mu", "must be 0 or more"));
        }
        Ok(self.clone())
    }
}

impl RankNet {
    pub(super) fn check(&self) -> Result<Self> {
        positive("loss.rank_net.sigma", self.sigma)?;
        at_least_one("loss.rank_net.k", self.k)?;
        Ok(self.clone())
    }
}

fn at_least_one(key: &str, k: Option<i64>) -> Result<()> {
    if k.is_some_and(|k| k < 1) { Err(bad(key, "must be 1 or more")) } else { Ok(()) }
}

impl RankingLoss for Lambda {
    fn loss(&self, c: &Candidates<'_>) -> Tensor {
        let weights = |p: &Places| match self.scheme {
            Scheme::NdcgLoss1 => (&p.gains / &p.discounts).unsqueeze(2),
            Scheme::NdcgLoss2 => p.by_distance(),
            Scheme::LambdaRank => p.by_exchange(),
            Scheme::NdcgLoss2Plus => p.by_distance() * self.mu + p.by_exchange(),
        };
        pairwise(c, self.k, self.sigma, self.scheme == Scheme::NdcgLoss1, Some(&weights))
    }
}

impl RankingLoss for RankNet {
    fn loss(&self, c: &Candidates<'_>) -> Tensor {
        pairwise(c, self.k, self.sigma, false, None)
    }
}

/// Candidates in the order of their present scores.
struct Places {
    /// Gains over the ideal DCG, [questions, places].
    gains: Tensor,
    /// log2(1 + place), places from 1, [1, places].
    discounts: Tensor,
}

impl Places {
    fn differences(&self) -> Tensor {
        (self.gains.unsqueeze(2) - self.gains.unsqueeze(1)).abs()
    }

    fn by_exchange(&self) -> Tensor {
        let d = self.discounts.reciprocal();
        (d.unsqueeze(2) - d.unsqueeze(1)).abs() * self.differences()
    }

    fn by_distance(&self) -> Tensor {
        let n = self.discounts.size()[1];
        let options = (Kind::Int64, self.discounts.device());
        let place = Tensor::arange(n, options);
        let distance = (place.unsqueeze(1) - place.unsqueeze(0)).abs();
        // 1 / log2(1 + distance) - 1 / log2(2 + distance); 0 for a candidate and itself.
        let of = |extra: f64| (distance.to_kind(self.gains.kind()) + extra).log2().reciprocal();
        let delta = (of(1.0) - of(2.0)).abs().masked_fill(&distance.eq(0), 0.0);
        delta.unsqueeze(0) * self.differences()
    }
}

/// Below this a probability counts as this, as there.
const LEAST: f64 = 1e-10;

fn pairwise(
    c: &Candidates<'_>,
    k: Option<i64>,
    sigma: f64,
    every_pair: bool,
    weights: Option<&dyn Fn(&Places) -> Tensor>,
) -> Tensor {
    let kind = c.scores.kind();
    let absent = c.real.logical_not();
    let (scores, order) = c.scores.masked_fill(&absent, ABSENT).sort_stable(true, -1, true);
    let real = c.real.gather(1, &order, false);
    let labels = c.labels.gather(1, &order, false);
    let n = scores.size()[1];
    let k = k.unwrap_or(n).min(n);
    let both = |t: &Tensor, f: &dyn Fn(&Tensor, &Tensor) -> Tensor| f(&t.unsqueeze(2), &t.unsqueeze(1));
    let counted = {
        let _guard = no_grad();
        let mut counted = both(&real, &|a, b| a.logical_and(b));
        if !every_pair {
            counted = counted.logical_and(&both(&labels, &|a, b| (a - b).gt(0.0)));
        }
        let first = Tensor::arange(n, (Kind::Int64, scores.device())).lt(k);
        counted.logical_and(&first.unsqueeze(1).logical_and(&first.unsqueeze(0)).unsqueeze(0))
    };
    // Pairs that do not count must not reach the logarithm.
    let apart = both(&scores, &|a, b| a - b).masked_fill(&counted.logical_not(), 0.0);
    let mut log_p = (apart * sigma).log_sigmoid().clamp_min(LEAST.ln());
    if let Some(weights) = weights {
        let weight = {
            let _guard = no_grad();
            let labels = labels.clamp_min(0.0).masked_fill(&real.logical_not(), 0.0);
            let gain = |l: &Tensor| (l * std::f64::consts::LN_2).exp() - 1.0;
            let place = Tensor::arange_start(1, n + 1, (Kind::Float, scores.device())).to_kind(kind);
            let discounts = (place + 1.0).log2().unsqueeze(0);
            let (ideal, _) = labels.sort(-1, true);
            let best = (gain(&ideal) / &discounts).narrow(1, 0, k);
            let best = best.sum_dim_intlist([-1i64].as_slice(), true, kind).clamp_min(LEAST);
            weights(&Places { gains: gain(&labels) / best, discounts })
        };
        log_p = (log_p * weight).clamp_min(LEAST.ln());
    }
    let counted = counted.to_kind(kind);
    let sum = (log_p * &counted).sum(kind) / std::f64::consts::LN_2;
    -sum / counted.sum(kind).clamp_min(1.0)
}
