//! The losses of T-Few (Liu et al., 2022, arXiv 2205.05638) over answers to choose from:
//!
//! - language model: -log p of the right choice, mean over its tokens;
//! - unlikelihood: -log(1 - p + 0.01) of the wrong choices, mean over their tokens. The 0.01, which bounds it where a
//!   model is sure of a wrong token, is in the authors' code and not in the paper. Their sum also runs over padding and
//!   over the right choices, where it adds a constant (-log 1.01 each) without a gradient; here it does not;
//! - length-normalised: -log softmax over the choices of (sum log p) / tokens^`length_norm`, mean over records.

use crate::error::{Result, bad};
use ragduet_torch::{Device, Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Added to 1 - p in the unlikelihood.
const SLACK: f64 = 1e-2;

/// Weights of the three T-Few losses; 0 switches a loss off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TfewLoss {
    /// Weight of the language-model loss of the correct choice.
    pub language_model: f64,
    /// Weight of the unlikelihood loss of the wrong choices.
    pub unlikelihood: f64,
    /// Weight of the softmax cross-entropy over choices by length-normalized likelihood.
    pub length_normalized: f64,
    /// Exponent of length normalization, in the loss and in rank classification; 0: none.
    pub length_norm: f64,
}

impl Default for TfewLoss {
    fn default() -> Self {
        Self { language_model: 1.0, unlikelihood: 1.0, length_normalized: 1.0, length_norm: 1.0 }
    }
}

/// What the losses are computed from: the choices of some records, sequence by sequence.
#[derive(Debug)]
pub struct TfewBatch<'a> {
    /// -log p of each token of each choice, one choice after another, `[tokens]`, f32 or f64.
    pub nll: &'a Tensor,
    /// Tokens of each choice, `[choices]`; they add up to the length of `nll`. The choices of a record are consecutive.
    pub tokens: &'a [usize],
    /// How many choices each record has, and which of them is right.
    pub records: &'a [(usize, usize)],
}

/// Totals of an accumulation window, by which the sums of its micro-batches are divided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TfewTotals {
    /// Records.
    pub records: usize,
    /// Tokens of right choices.
    pub right_tokens: usize,
    /// Tokens of wrong choices.
    pub wrong_tokens: usize,
}

impl TfewTotals {
    /// Of a batch.
    pub fn of(tokens: &[usize], records: &[(usize, usize)]) -> Self {
        let right: usize = rights(records).map(|i| tokens[i]).sum();
        let all: usize = tokens.iter().sum();
        Self { records: records.len(), right_tokens: right, wrong_tokens: all - right }
    }

    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.right_tokens += other.right_tokens;
        self.wrong_tokens += other.wrong_tokens;
    }
}

/// The shares of a batch in the losses of its window: scalars, unweighted.
#[derive(Debug)]
pub struct TfewShares {
    /// Language model.
    pub language_model: Tensor,
    /// Unlikelihood.
    pub unlikelihood: Tensor,
    /// Length-normalised.
    pub length_normalized: Tensor,
}

/// The places of the right choices among all.
fn rights(records: &[(usize, usize)]) -> impl Iterator<Item = usize> + '_ {
    records.iter().scan(0, |start, (choices, right)| {
        let at = *start + right;
        *start += choices;
        Some(at)
    })
}

impl TfewLoss {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// A weight below 0, none above it, a power below 0.
    pub fn check(&self) -> Result<()> {
        let weights = [
            ("language_model", self.language_model),
            ("unlikelihood", self.unlikelihood),
            ("length_normalized", self.length_normalized),
            ("length_norm", self.length_norm),
        ];
        for (key, value) in weights {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(bad(&format!("loss.{key}"), "must be 0 or more"));
            }
        }
        if weights[..3].iter().all(|(_, w)| *w == 0.0) {
            return Err(bad("loss", "all weights are 0: nothing would be learned"));
        }
        Ok(())
    }

    /// The shares of a batch; over a window of this batch alone they are the losses.
    ///
    /// # Panics
    /// Where lengths do not add up: bugs of the caller.
    pub fn shares(&self, batch: &TfewBatch<'_>, window: TfewTotals) -> TfewShares {
        let (nll, device) = (batch.nll, batch.nll.device());
        let (kind, choices) = (nll.kind(), batch.tokens.len());
        assert_eq!(choices, batch.records.iter().map(|r| r.0).sum::<usize>(), "choices");
        assert_eq!(nll.size(), [batch.tokens.iter().sum::<usize>() as i64], "tokens");
        let to = |v: &[i64]| Tensor::from_slice(v).to_device(device);
        let right: Vec<usize> = rights(batch.records).collect();
        let is_right = |choice: usize| right.binary_search(&choice).is_ok();
        let owner: Vec<i64> = batch.tokens.iter().enumerate().flat_map(|(i, &n)| vec![i as i64; n]).collect();
        let among = |wanted: bool| -> Vec<i64> {
            let on = owner.iter().enumerate().filter(|(_, o)| is_right(**o as usize) == wanted);
            on.map(|(i, _)| i as i64).collect()
        };
        let mean = |t: Tensor, n: usize| t.sum(kind) / n.max(1) as f64;
        let of_right = nll.index_select(0, &to(&among(true)));
        let of_wrong = nll.index_select(0, &to(&among(false)));
        let unlikely = ((-of_wrong).exp().neg() + (1.0 + SLACK)).log().neg();
        let sums = Tensor::zeros([choices as i64], (kind, device)).index_add(0, &to(&owner), nll);
        let scores = normalised(&sums.neg(), batch.tokens, self.length_norm);
        let places: Vec<i64> = right.iter().map(|&i| i as i64).collect();
        let margin =
            spread(&scores, batch.records).logsumexp([1], false) - scores.index_select(0, &to(&places));
        TfewShares {
            language_model: mean(of_right, window.right_tokens),
            unlikelihood: mean(unlikely, window.wrong_tokens),
            length_normalized: mean(margin, window.records),
        }
    }

    /// The weighted sum of shares.
    pub fn total(&self, shares: &TfewShares) -> Tensor {
        let weighted = [
            (self.language_model, &shares.language_model),
            (self.unlikelihood, &shares.unlikelihood),
            (self.length_normalized, &shares.length_normalized),
        ];
        let on = weighted.into_iter().filter(|(w, _)| *w > 0.0).map(|(w, t)| t * w);
        on.reduce(|a, b| a + b).unwrap_or_else(|| shares.language_model.zeros_like())
    }
}

/// Log-likelihoods of choices `[choices]`, each divided by a power of its length.
fn normalised(log_p: &Tensor, tokens: &[usize], power: f64) -> Tensor {
    let by: Vec<f64> = tokens.iter().map(|&n| (n.max(1) as f64).powf(-power)).collect();
    log_p * Tensor::from_slice(&by).to_device(log_p.device()).to_kind(log_p.kind())
}

/// Scores `[choices]` as `[records, most choices]`, -inf where a record has fewer.
fn spread(scores: &Tensor, records: &[(usize, usize)]) -> Tensor {
    let (widest, nothing) = (records.iter().map(|r| r.0).max().unwrap_or(0), scores.size()[0]);
    let mut from = 0;
    let mut places = Vec::with_capacity(records.len() * widest);
    for &(choices, _) in records {
        places.extend((0..widest).map(|i| if i < choices { (from + i) as i64 } else { nothing }));
        from += choices;
    }
    let none = Tensor::full([1], f64::NEG_INFINITY, (scores.kind(), scores.device()));
    let places = Tensor::from_slice(&places).to_device(scores.device());
    Tensor::cat(&[scores, &none], 0).index_select(0, &places).view([records.len() as i64, widest as i64])
}

/// The choice with the highest log-likelihood after division by a power of its length; the first of equals.
pub fn best_choice(log_p: &[f64], tokens: &[usize], power: f64) -> usize {
    let score = |i: usize| log_p[i] / (tokens[i].max(1) as f64).powf(power);
    (1..log_p.len()).fold(0, |best, i| if score(i) > score(best) { i } else { best })
}

/// -log p of choices `[choices]`, f64 on the CPU, from those of their tokens.
///
/// # Errors
/// Those of libtorch.
pub fn choice_sums(nll: &Tensor, tokens: &[usize]) -> Result<Vec<f64>> {
    let all: Vec<f64> = nll
        .detach()
        .to_device(Device::Cpu)
        .to_kind(Kind::Double)
        .try_into()
        .map_err(ragduet_torch::Error::from)?;
    let mut rest = all.as_slice();
    Ok(tokens
        .iter()
        .map(|&n| {
            let (own, behind) = rest.split_at(n);
            rest = behind;
            own.iter().sum()
        })
        .collect())
}
