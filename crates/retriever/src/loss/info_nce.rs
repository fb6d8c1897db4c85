//! InfoNCE: cross-entropy of each query's positive among candidates (van den Oord et al., 2018, arXiv 1807.03748).
//!
//! -(1/B) sum_i [ s(i, p_i) - log sum_{j in C_i} exp s(i, j) ], s = scale * similarity.
//!
//! Settings of it: MultipleNegativesRanking (cosine, scale 20), DPR's negative log-likelihood (dot product, scale 1,
//! hard negatives of all queries as candidates: Karpukhin et al., 2020, arXiv 2004.04906).

use super::{LossBatch, RetrievalLoss, bad, mask, smoothed_cross_entropy};
use crate::Result;
use ragduet_torch::{Kind, Tensor, no_grad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// InfoNCE. MultipleNegativesRanking and DPR's loss are settings of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InfoNce {
    /// Whether positives of other queries in the batch are negatives.
    pub in_batch_negatives: bool,
    /// Whether hard negatives of other queries in the batch are negatives.
    pub share_hard_negatives: bool,
    /// Whether a query's own hard negatives are negatives. ColBERTv2 sets it to false beside a distillation over the
    /// same negatives.
    pub own_negatives: bool,
    /// Symmetric loss: adds the passage-to-query direction over the queries of the batch.
    pub symmetric: bool,
    /// Label smoothing: share of the target distribution spread evenly over the candidates.
    pub label_smoothing: f64,
    /// False-negative masking by score: a candidate is masked when its similarity (before the temperature) exceeds the
    /// positive's minus this margin (GISTEmbed, arXiv 2402.16829, with the model as its own guide). Absent: no masking.
    pub mask_above_positive_minus: Option<f64>,
}

impl Default for InfoNce {
    fn default() -> Self {
        Self {
            in_batch_negatives: true,
            share_hard_negatives: true,
            own_negatives: true,
            symmetric: false,
            label_smoothing: 0.0,
            mask_above_positive_minus: None,
        }
    }
}

impl InfoNce {
    pub(super) fn check(&self) -> Result<Self> {
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(bad("loss.info_nce.label_smoothing", "must be at least 0 and below 1"));
        }
        Ok(self.clone())
    }

    /// Candidates that are not negatives of a query (nor its positive): [queries, passages], true = hidden.
    fn hidden(&self, b: &LossBatch<'_>, similarity: &Tensor, labels: &Tensor) -> Tensor {
        let (rows, columns) = (similarity.size()[0], similarity.size()[1]);
        let r = b.relations;
        let device = similarity.device();
        let barred = r.also_relevant.iter().chain(&r.own_copies).copied();
        let mut hidden = mask(rows, columns, barred, device);
        if !(self.in_batch_negatives && self.share_hard_negatives) {
            let mut hard = vec![false; columns as usize];
            r.negatives.iter().flatten().for_each(|&c| hard[c] = true);
            let own = |i: usize| std::iter::once(r.positive[i]).chain(r.negatives[i].iter().copied());
            let allowed = (0..rows as usize).flat_map(|i| {
                let others = (0..columns as usize).filter(|&c| {
                    if hard[c] {
                        self.share_hard_negatives && self.in_batch_negatives
                    } else {
                        self.in_batch_negatives
                    }
                });
                others.chain(own(i)).map(move |c| (i, c)).collect::<Vec<_>>()
            });
            hidden = hidden.logical_or(&mask(rows, columns, allowed, device).logical_not());
        }
        if !self.own_negatives {
            let own = r.negatives.iter().enumerate().flat_map(|(i, n)| n.iter().map(move |&c| (i, c)));
            hidden = hidden.logical_or(&mask(rows, columns, own, device));
        }
        if let Some(margin) = self.mask_above_positive_minus {
            let _guard = no_grad();
            let bound = similarity.gather(1, &labels.unsqueeze(1), false) - margin;
            hidden = hidden.logical_or(&similarity.gt_tensor(&bound));
        }
        // The positive itself always stays.
        let is_label = Tensor::zeros_like(&hidden).scatter_value(1, &labels.unsqueeze(1), 1);
        hidden.logical_and(&is_label.logical_not())
    }
}

impl RetrievalLoss for InfoNce {
    fn loss(&self, b: &LossBatch<'_>) -> Tensor {
        let similarity = b.similarities();
        let labels: Vec<i64> = b.relations.positive.iter().map(|&c| c as i64).collect();
        let labels = Tensor::from_slice(&labels).to_device(similarity.device());
        let hidden = self.hidden(b, &similarity, &labels);
        let logits = &similarity * b.scale;
        let forth = smoothed_cross_entropy(&logits, &hidden, &labels, self.label_smoothing);
        if !self.symmetric {
            return forth;
        }
        // Each positive among the queries: column i of the positives' scores, with the same pairs hidden.
        let back = logits.index_select(1, &labels).transpose(0, 1);
        let same = labels.unsqueeze(0).eq_tensor(&labels.unsqueeze(1));
        let n = labels.size()[0];
        let diagonal = Tensor::eye(n, (Kind::Bool, labels.device()));
        let back_hidden = hidden
            .index_select(1, &labels)
            .transpose(0, 1)
            .logical_or(&same)
            .logical_and(&diagonal.logical_not());
        let own = Tensor::arange(n, (Kind::Int64, labels.device()));
        (forth + smoothed_cross_entropy(&back, &back_hidden, &own, self.label_smoothing)) / 2.0
    }

    fn needs_negatives(&self) -> bool {
        !self.in_batch_negatives
    }

    fn needs_teacher(&self) -> bool {
        false
    }
}
