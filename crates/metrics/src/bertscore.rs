//! BERTScore's matching: each token of one text finds its nearest in the other by cosine similarity. The encoder is
//! the caller's; here are only its vectors.
//!
//! As `bert-score` does it, a text's tokens include the special ones. They can be matched but weigh nothing: without
//! idf their weight is 0 and every other token's 1 (see [`plain_weights`]), with idf it follows from their being in
//! every reference (see [`Idf`]). A text that weighs nothing, such as an empty one, scores 0.

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use crate::rouge::Prf;
use crate::{Error, Result};

/// A text as the encoder sees it.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// A vector per token, special ones included, one after another (`tokens × dim`). Need not have unit length.
    pub vectors: &'a [f32],
    /// A weight per token.
    pub weights: &'a [f64],
}

/// Inverse document frequencies of token ids over a set of references.
#[derive(Debug, Clone)]
pub struct Idf {
    weights: HashMap<u32, f64>,
    unseen: f64,
}

impl Idf {
    /// `ln((n + 1) / (df + 1))` over the references' token ids, special tokens included.
    pub fn new<'a>(references: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut frequencies: HashMap<u32, usize> = HashMap::new();
        let mut references_seen = 0;
        for reference in references {
            references_seen += 1;
            for &id in reference.iter().collect::<HashSet<_>>() {
                *frequencies.entry(id).or_default() += 1;
            }
        }
        let n = f64::from(references_seen) + 1.0;
        let weights = frequencies.into_iter().map(|(id, df)| (id, (n / (df as f64 + 1.0)).ln())).collect();
        Self { weights, unseen: n.ln() }
    }

    /// The weights of a text's tokens; the highest for those that no reference has.
    pub fn weights(&self, ids: &[u32]) -> Vec<f64> {
        ids.iter().map(|id| self.weights.get(id).copied().unwrap_or(self.unseen)).collect()
    }
}

/// Weights without idf: 0 for the special tokens, 1 for the others.
pub fn plain_weights(ids: &[u32], special: &[u32]) -> Vec<f64> {
    ids.iter().map(|id| f64::from(!special.contains(id))).collect()
}

/// Scores a text against its references: for precision, recall and F1 each the best reference's. Zeros without
/// references. `dim` is the length of a vector.
///
/// # Errors
/// [`Error::Lengths`] where weights and vectors do not fit together; [`Error::BadSetting`] for a `dim` of 0, a vector
/// that is not finite, or a weight that is negative or not finite.
pub fn score(prediction: Tokens<'_>, references: &[Tokens<'_>], dim: usize) -> Result<Prf> {
    let prediction_units = units(prediction, dim)?;
    let mut best: Option<Prf> = None;
    for reference in references {
        let new =
            pair(&prediction_units, prediction.weights, &units(*reference, dim)?, reference.weights, dim);
        best = Some(best.map_or(new, |old| Prf {
            precision: old.precision.max(new.precision),
            recall: old.recall.max(new.recall),
            f1: old.f1.max(new.f1),
        }));
    }
    Ok(best.unwrap_or_default())
}

/// Scores every text of a corpus, in order; [`Prf::mean`] gives the corpus' figures.
///
/// # Errors
/// Those of [`score`]; [`Error::NoExamples`], [`Error::NoReference`].
pub fn corpus(examples: &[(Tokens<'_>, Vec<Tokens<'_>>)], dim: usize) -> Result<Vec<Prf>> {
    if examples.is_empty() {
        return Err(Error::NoExamples);
    }
    if let Some(example) = examples.iter().position(|(_, references)| references.is_empty()) {
        return Err(Error::NoReference { example });
    }
    examples.par_iter().map(|(prediction, references)| score(*prediction, references, dim)).collect()
}

/// Stretches scores so that unrelated texts, whose scores are the `baseline` of the encoder's layer, come out at 0:
/// `(x - b) / (1 - b)` for each field.
pub fn rescale(score: Prf, baseline: Prf) -> Prf {
    let stretch = |x: f64, b: f64| (x - b) / (1.0 - b);
    Prf {
        precision: stretch(score.precision, baseline.precision),
        recall: stretch(score.recall, baseline.recall),
        f1: stretch(score.f1, baseline.f1),
    }
}

/// The vectors at unit length; one without any stays zero.
fn units(tokens: Tokens<'_>, dim: usize) -> Result<Vec<f64>> {
    let Tokens { vectors, weights } = tokens;
    let bad = |setting, got: String, remedy| Err(Error::BadSetting { setting, got, remedy });
    if dim == 0 {
        return bad("the length of a token's vector", "0".into(), "give the encoder's hidden size");
    }
    if weights.len().checked_mul(dim) != Some(vectors.len()) {
        let what = "a text's vectors and its weights times the vector length";
        return Err(Error::Lengths { what, a: vectors.len(), b: weights.len().saturating_mul(dim) });
    }
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
        return bad("a token's weight", weight.to_string(), "weights are finite and not negative");
    }
    if let Some(value) = vectors.iter().find(|value| !value.is_finite()) {
        return bad("a value of a token's vector", value.to_string(), "the encoder has diverged");
    }
    let mut out = Vec::with_capacity(vectors.len());
    for vector in vectors.chunks_exact(dim) {
        let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        out.extend(vector.iter().map(|&x| f64::from(x) * scale));
    }
    Ok(out)
}

fn pair(p: &[f64], p_weights: &[f64], r: &[f64], r_weights: &[f64], dim: usize) -> Prf {
    let (p_sum, r_sum) = (p_weights.iter().sum::<f64>(), r_weights.iter().sum::<f64>());
    if p_sum == 0.0 || r_sum == 0.0 {
        return Prf::default();
    }
    let mut best_p = vec![f64::NEG_INFINITY; p_weights.len()];
    let mut best_r = vec![f64::NEG_INFINITY; r_weights.len()];
    for (a, best_p) in p.chunks_exact(dim).zip(&mut best_p) {
        for (b, best_r) in r.chunks_exact(dim).zip(&mut best_r) {
            let cosine = a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            *best_p = best_p.max(cosine);
            *best_r = best_r.max(cosine);
        }
    }
    let weighted = |best: &[f64], weights: &[f64], sum: f64| {
        best.iter().zip(weights).map(|(best, weight)| best * (weight / sum)).sum::<f64>()
    };
    let precision = weighted(&best_p, p_weights, p_sum);
    let recall = weighted(&best_r, r_weights, r_sum);
    let f1 = 2.0 * precision * recall / (precision + recall);
    Prf { precision, recall, f1: if f1.is_nan() { 0.0 } else { f1 } }
}
