//! Losses over embeddings: a file each, a variant each.
//!
//! All of them see the same thing, a [`LossBatch`]: the queries' embeddings, the embeddings of every distinct passage
//! of the batch, and which passage is what to which query. Ragged numbers of negatives are the normal case.

mod batch_kl;
mod cosent;
mod cosine_similarity;
mod embedding_mse;
mod flops;
mod info_nce;
mod kl;
mod margin_mse;
mod matryoshka;
mod sum;
mod triplet;

pub use batch_kl::BatchKl;
pub use cosent::CoSent;
pub use cosine_similarity::CosineSimilarity;
pub use embedding_mse::EmbeddingMse;
pub use flops::Flops;
pub use info_nce::InfoNce;
pub use kl::KlDistillation;
pub use margin_mse::MarginMse;
pub use matryoshka::Matryoshka;
pub use sum::{Sum, Term};
pub use triplet::Triplet;

use crate::{Error, Result};
use ragduet_torch::{Device, Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which passages belong to which queries in a batch. Columns are rows of the passage embeddings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Relations {
    /// The column of each query's positive.
    pub positive: Vec<usize>,
    /// The columns of each query's own negatives.
    pub negatives: Vec<Vec<usize>>,
    /// Further columns known to be relevant to a query: (query, column). Never negatives of it.
    pub also_relevant: Vec<(usize, usize)>,
    /// Columns that are a query's own text or id: (query, column). Neither relevant nor negatives.
    pub own_copies: Vec<(usize, usize)>,
    /// Teacher scores per query, first the positive's, then the own negatives', where the data has them.
    pub teacher: Option<Vec<Vec<f32>>>,
}

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub enum Compared<'a> {
    /// One vector a text.
    Vectors {
        /// [queries, dim], f32.
        queries: &'a Tensor,
        /// [passages, dim], f32.
        passages: &'a Tensor,
    },
    /// Similarities [queries, passages], f32, however they came about (MaxSim).
    Similarities(&'a Tensor),
}

/// What a loss is computed from.
#[derive(Debug, Clone, Copy)]
pub struct LossBatch<'a> {
    /// Vectors, or what their comparison gave.
    pub compared: Compared<'a>,
    /// The vectors that a larger model gives the same queries and passages, where the loss asks for them.
    pub teacher: Option<(&'a Tensor, &'a Tensor)>,
    /// Who belongs to whom.
    pub relations: &'a Relations,
    /// Multiplies similarities (1 / temperature), a scalar; learnable where the recipe says so.
    pub scale: &'a Tensor,
    /// How much of training is behind, 0 to 1, for what grows with it.
    pub progress: f64,
}

impl<'a> LossBatch<'a> {
    /// Without a teacher's vectors, and nothing that still grows.
    pub fn new(compared: Compared<'a>, relations: &'a Relations, scale: &'a Tensor) -> Self {
        Self { compared, teacher: None, relations, scale, progress: 1.0 }
    }

    /// [queries, passages].
    pub fn similarities(&self) -> Tensor {
        match self.compared {
            Compared::Vectors { queries, passages } => queries.matmul(&passages.transpose(0, 1)),
            Compared::Similarities(s) => s.shallow_clone(),
        }
    }

    fn device(&self) -> Device {
        match self.compared {
            Compared::Vectors { queries, .. } => queries.device(),
            Compared::Similarities(s) => s.device(),
        }
    }
}

/// A loss over one batch.
pub trait RetrievalLoss: std::fmt::Debug {
    /// The mean loss, a scalar.
    fn loss(&self, batch: &LossBatch<'_>) -> Tensor;

    /// Whether similarities are all that it needs; else it needs one vector a text.
    fn takes_similarities(&self) -> bool {
        true
    }

    /// Which similarities [queries, passages] it looks at, row by row; none: all.
    fn wanted(&self, _relations: &Relations, _passages: usize) -> Option<Vec<bool>> {
        None
    }

    /// Whether every query needs at least one negative of its own.
    fn needs_negatives(&self) -> bool;

    /// Whether every example needs teacher scores.
    fn needs_teacher(&self) -> bool;

    /// Whether scores are all that it learns from, so that a pair with a low score may stand where a positive does. A
    /// contrastive loss would take it for one.
    fn takes_scored_pairs(&self) -> bool {
        false
    }

    /// The highest score that it can learn, in size; none: any.
    fn max_score(&self) -> Option<f64> {
        None
    }

    /// Whether it compares with the vectors of a larger model.
    fn needs_teacher_vectors(&self) -> bool {
        false
    }
}

/// Retrieval loss and its settings, written as `[loss.info_nce]`, `[loss.triplet]` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossConfig {
    /// InfoNCE: softmax cross-entropy of the positive against hard and in-batch negatives.
    InfoNce(InfoNce),
    /// Triplet margin loss.
    Triplet(Triplet),
    /// Margin-MSE: mean squared error between the student's and the teacher's score margins.
    MarginMse(MarginMse),
    /// KL distillation over a query's own candidates, from teacher scores.
    Kl(KlDistillation),
    /// The order of scored pairs, across queries: labels of the data or a teacher's scores.
    #[serde(rename = "cosent")]
    CoSent(CoSent),
    /// Regression of the cosine similarity to the scores of pairs: mean squared error.
    CosineSimilarity(CosineSimilarity),
    /// Matryoshka wrapper: another loss at several embedding dimensions.
    Matryoshka(Matryoshka),
    /// Embedding distillation: mean squared error to a larger bi-encoder's embeddings.
    EmbeddingMse(EmbeddingMse),
    /// In-batch KL distillation: a larger bi-encoder's distribution over all passages of the batch.
    BatchKl(BatchKl),
    /// FLOPS regularization of sparse vectors; a term of `sum`.
    Flops(Flops),
    /// Weighted sum of losses.
    Sum(Sum),
}

impl Default for LossConfig {
    fn default() -> Self {
        Self::InfoNce(InfoNce::default())
    }
}

impl LossConfig {
    /// One of each, but for those that are made of other losses.
    fn examples() -> [Self; 9] {
        [
            Self::InfoNce(InfoNce::default()),
            Self::Triplet(Triplet::default()),
            Self::MarginMse(MarginMse::default()),
            Self::Kl(KlDistillation::default()),
            Self::CoSent(CoSent::default()),
            Self::CosineSimilarity(CosineSimilarity::default()),
            Self::EmbeddingMse(EmbeddingMse::default()),
            Self::BatchKl(BatchKl::default()),
            Self::Flops(Flops::default()),
        ]
    }

    /// The names, for messages, of the losses that something is true of: "a, b and c".
    pub fn names(which: impl Fn(&dyn RetrievalLoss) -> bool) -> String {
        let all = Self::examples();
        let fits = |c: &&Self| c.build().is_ok_and(|loss| which(&*loss));
        let names: Vec<String> = all.iter().filter(fits).map(Self::name).collect();
        match names.as_slice() {
            [] => "none".into(),
            [one] => one.clone(),
            [first @ .., last] => format!("{} and {last}", first.join(", ")),
        }
    }

    /// Its name in a config.
    pub fn name(&self) -> String {
        // An enum with settings is written as {name: settings}.
        let written = serde_json::to_value(self).unwrap_or_default();
        written.as_object().and_then(|o| o.keys().next().cloned()).unwrap_or_default()
    }

    /// The loss of these settings.
    pub fn build(&self) -> Result<Box<dyn RetrievalLoss>> {
        Ok(match self {
            Self::InfoNce(c) => Box::new(c.check()?),
            Self::Triplet(c) => Box::new(c.clone()),
            Self::MarginMse(c) => Box::new(c.clone()),
            Self::Kl(c) => Box::new(c.check()?),
            Self::CoSent(c) => Box::new(c.clone()),
            Self::CosineSimilarity(c) => Box::new(c.check()?),
            Self::Matryoshka(c) => Box::new(c.build()?),
            Self::EmbeddingMse(c) => Box::new(c.clone()),
            Self::BatchKl(c) => Box::new(c.check()?),
            Self::Flops(c) => Box::new(c.check()?),
            Self::Sum(c) => Box::new(c.build()?),
        })
    }

    /// Whether a student with vectors of `ours` numbers can learn from vectors of `theirs`.
    pub fn check_teacher_dim(&self, ours: i64, theirs: i64) -> Result<()> {
        match self {
            Self::EmbeddingMse(_) if ours != theirs => Err(bad(
                "loss.embedding_mse",
                format!(
                    "the teacher's vectors have {theirs} numbers, the model's {ours}: set model.projection = {theirs}, \
                         or take batch_kl"
                ),
            )),
            Self::Matryoshka(c) => c.inner.check_teacher_dim(ours, theirs),
            Self::Sum(c) => c.terms.iter().try_for_each(|t| t.loss.check_teacher_dim(ours, theirs)),
            _ => Ok(()),
        }
    }

    /// Whether it keeps sparse vectors sparse.
    pub fn is_sparsifying(&self) -> bool {
        match self {
            Self::Flops(_) => true,
            Self::Matryoshka(c) => c.inner.is_sparsifying(),
            Self::Sum(c) => c.terms.iter().any(|t| t.loss.is_sparsifying()),
            _ => false,
        }
    }

    /// Whether other queries' passages are negatives.
    pub fn has_in_batch_negatives(&self) -> bool {
        match self {
            Self::InfoNce(c) => c.in_batch_negatives,
            Self::Matryoshka(c) => c.inner.has_in_batch_negatives(),
            Self::Sum(c) => c.terms.iter().any(|t| t.loss.has_in_batch_negatives()),
            _ => false,
        }
    }

    /// Smallest embedding that the loss can be computed on.
    pub fn check_dim(&self, dim: i64) -> Result<()> {
        match self {
            Self::Matryoshka(c) => c.check_dim(dim),
            Self::Sum(c) => c.check_dim(dim),
            _ => Ok(()),
        }
    }
}

/// Own candidates of every query, padded: columns [queries, 1 + most negatives], positive first, and which are real.
fn candidates(relations: &Relations, device: Device) -> (Tensor, Tensor) {
    let width = 1 + relations.negatives.iter().map(Vec::len).max().unwrap_or(0);
    let (mut columns, mut real) = (Vec::new(), Vec::new());
    for (p, negatives) in relations.positive.iter().zip(&relations.negatives) {
        let row = std::iter::once(p).chain(negatives).map(|&c| c as i64);
        let filled = 1 + negatives.len();
        columns.extend(row.chain(std::iter::repeat_n(*p as i64, width - filled)));
        real.extend((0..width).map(|i| i < filled));
    }
    let shape = [relations.positive.len() as i64, width as i64];
    let columns = Tensor::from_slice(&columns).view(shape).to_device(device);
    (columns, Tensor::from_slice(&real).view(shape).to_device(device))
}

/// Each query's own candidates alone.
fn own_candidates(relations: &Relations, passages: usize) -> Vec<bool> {
    let mut out = vec![false; relations.positive.len() * passages];
    for (i, (p, negatives)) in relations.positive.iter().zip(&relations.negatives).enumerate() {
        for &c in std::iter::once(p).chain(negatives) {
            out[i * passages + c] = true;
        }
    }
    out
}

/// Teacher scores in the layout of [`candidates`], in the kind of the embeddings; 0 where padded.
fn teacher(relations: &Relations, like: &Tensor) -> Tensor {
    let width = 1 + relations.negatives.iter().map(Vec::len).max().unwrap_or(0);
    let mut flat = Vec::new();
    for row in relations.teacher.iter().flatten() {
        flat.extend(row.iter().take(width).copied());
        flat.extend(std::iter::repeat_n(0.0, width.saturating_sub(row.len())));
    }
    let shape = [relations.positive.len() as i64, width as i64];
    Tensor::from_slice(&flat).view(shape).to_kind(like.kind()).to_device(like.device())
}

/// Rows at unit length, as torch.nn.functional.normalize (norms below 1e-12 are 1e-12).
pub fn normalize(x: &Tensor) -> Tensor {
    x / x.norm_scalaropt_dim(2.0, [-1], true).clamp_min(1e-12)
}

/// Cross-entropy of `labels` [rows] under the softmax of `logits` [rows, candidates] without the candidates that are
/// `hidden`, which no label may be; `smoothing` of the target is spread evenly over those that are left.
pub(crate) fn smoothed_cross_entropy(
    logits: &Tensor,
    hidden: &Tensor,
    labels: &Tensor,
    smoothing: f64,
) -> Tensor {
    let kind = logits.kind();
    let log_p = logits.masked_fill(hidden, f64::NEG_INFINITY).log_softmax(1, kind);
    let hit = -log_p.gather(1, &labels.unsqueeze(1), false).mean(kind);
    if smoothing == 0.0 {
        return hit;
    }
    // Hidden candidates have log-probability -inf; they take no share of the target.
    let live = hidden.logical_not().to_kind(kind);
    let spread = log_p.masked_fill(hidden, 0.0).sum_dim_intlist([1i64].as_slice(), false, kind);
    let spread = (spread / live.sum_dim_intlist([1i64].as_slice(), false, kind)).mean(kind);
    hit * (1.0 - smoothing) - spread * smoothing
}

fn bad(key: &str, why: impl Into<String>) -> Error {
    Error::Config { key: key.into(), why: why.into() }
}

/// A boolean matrix with the given places set.
fn mask(rows: i64, columns: i64, places: impl Iterator<Item = (usize, usize)>, device: Device) -> Tensor {
    let mut flat = vec![false; (rows * columns) as usize];
    for (r, c) in places {
        flat[r * columns as usize + c] = true;
    }
    Tensor::from_slice(&flat).view([rows, columns]).to_device(device)
}

/// A scalar tensor for a fixed scale.
pub fn fixed_scale(value: f64, like: &Tensor) -> Tensor {
    Tensor::full(
        [],
        value,
        (if like.kind() == Kind::Double { Kind::Double } else { Kind::Float }, like.device()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_in_messages_have_every_loss() {
        let schema = serde_json::to_value(schemars::schema_for!(LossConfig)).unwrap();
        let variants = schema["oneOf"].as_array().unwrap().iter();
        let mut all: Vec<String> = variants.map(|v| v["required"][0].as_str().unwrap().to_string()).collect();
        // Those are made of others.
        all.retain(|name| name != "matryoshka" && name != "sum");
        assert_eq!(LossConfig::examples().iter().map(LossConfig::name).collect::<Vec<_>>(), all);
        assert_eq!(LossConfig::names(|l| l.needs_teacher_vectors()), "embedding_mse and batch_kl");
    }
}
