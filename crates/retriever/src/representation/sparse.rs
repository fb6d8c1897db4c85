//! Sparse retrieval: a weight for every word of the vocabulary instead of numbers without a meaning (SPLADE: Formal et al.,
//! 2021, arXiv 2107.05720; SPLADE v2, arXiv 2109.10086). A masked language model's logits say which words a text is about;
//! few stay above 0, so that an inverted index can hold them.
//!
//! Sparse models share losses, gradient caching and the recipe as well: `embed` gives a weight for every vocabulary
//! term; search, mining and evaluation keep the non-zero ones. Max pooling sends a gradient to one token per term, and
//! none where the weight is 0: when few weights are non-zero, only those are computed with a graph (two gathers instead
//! of the product of tokens and vocabulary); at the beginning, when most are, the plain graph is used.

use crate::tower::Tower;
use crate::{Error, Result};
use ragduet_nn::{MlmHead, Mode, PackedTokens};
use ragduet_torch::ops::Segments;
use ragduet_torch::{Kind, Tensor, grad_enabled, no_grad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pooling of masked-language-model logits [tokens, vocabulary] to term weights [vocabulary], as in
/// sentence-transformers' `SpladePooling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SparseConfig {
    /// Pooling over the tokens of a text.
    pub pooling: SparsePooling,
    /// Activation of the logits.
    pub activation: SparseActivation,
}

/// Pooling over the tokens of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SparsePooling {
    /// Maximum (SPLADE v2 and later).
    #[default]
    Max,
    /// Sum (the first SPLADE).
    Sum,
}

/// Activation of the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SparseActivation {
    /// ln(1 + max(0, x)).
    #[default]
    Relu,
    /// ln(1 + ln(1 + max(0, x))) (Geng et al., 2025, arXiv 2504.14839).
    Log1pRelu,
}

impl SparseActivation {
    fn apply(self, logits: &Tensor) -> Tensor {
        let once = logits.relu().log1p();
        match self {
            Self::Relu => once,
            Self::Log1pRelu => once.log1p(),
        }
    }
}

/// Numbers that may be gathered for the backward pass: two tensors of 256 MB.
const GATHERED: i64 = 1 << 26;

impl SparseConfig {
    /// Weights [texts, words] by a tower's head.
    pub(super) fn encode(self, tower: &Tower, batch: &PackedTokens, mode: Mode) -> Result<Tensor> {
        let Some(head) = &tower.model.mlm_head else {
            return Err(Error::Unusable("a sparse model needs the head of a masked language model".into()));
        };
        let states = tower.states(batch, mode);
        Ok(self.apply(head, &states, &batch.segments, tower.mode(mode)))
    }

    /// States [tokens, hidden] to weights [texts, words], f32, at least 0.
    ///
    /// Logits of all tokens exist for one text at a time. With max pooling a gradient reaches only the one token of a text
    /// at which a word weighs most, and none where the weight is 0: where few weights are above 0, only those are computed
    /// with a graph, and the backward pass costs as much as there are of them instead of tokens times words.
    pub fn apply(self, head: &MlmHead, states: &Tensor, segments: &Segments, m: Mode) -> Tensor {
        self.apply_within(GATHERED, head, states, segments, m)
    }

    fn apply_within(
        self,
        gathered: i64,
        head: &MlmHead,
        states: &Tensor,
        segments: &Segments,
        m: Mode,
    ) -> Tensor {
        let x = head.transform(states, m);
        if self.pooling == SparsePooling::Sum {
            let sum = |x: Tensor| {
                self.activation.apply(&head.logits(&x, m)).sum_dim_intlist(
                    [0i64].as_slice(),
                    false,
                    Kind::Float,
                )
            };
            return Tensor::stack(&texts(&x, segments).map(sum).collect::<Vec<_>>(), 0);
        }
        if !(grad_enabled() && x.requires_grad()) {
            return self.activation.apply(&maxima(head, &x, segments, m).0);
        }
        let (most, at) = {
            let _guard = no_grad();
            maxima(head, &x.detach(), segments, m)
        };
        let active = most.gt(0.0).nonzero();
        if active.size()[0] * x.size()[1] > gathered {
            return self.activation.apply(&maxima(head, &x, segments, m).0);
        }
        let (text, word) = (active.select(1, 0), active.select(1, 1));
        let tokens = at.view(-1).index_select(0, &(&text * head.words() + &word));
        let logits = head.logits_of(&x.index_select(0, &tokens), &word);
        let weights = self.activation.apply(&logits);
        most.zeros_like().index_put(&[Some(text), Some(word)], &weights, false)
    }
}

fn texts<'a>(x: &'a Tensor, segments: &'a Segments) -> impl Iterator<Item = Tensor> + 'a {
    segments.offsets().windows(2).map(|w| x.narrow(0, w[0], w[1] - w[0]))
}

/// The greatest logit of each word in each text, [texts, words], and the row where it is.
fn maxima(head: &MlmHead, x: &Tensor, segments: &Segments, m: Mode) -> (Tensor, Tensor) {
    let (mut most, mut at) = (Vec::new(), Vec::new());
    for (text, start) in texts(x, segments).zip(segments.offsets()) {
        let (value, row) = head.logits(&text, m).max_dim(0, false);
        most.push(value);
        at.push(row + *start);
    }
    (Tensor::stack(&most, 0), Tensor::stack(&at, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_nn::{EncoderModel, fresh_masked_lm};
    use ragduet_torch::{Compute, Device};
    use serde_json::json;

    fn model() -> EncoderModel {
        let config = json!({
            "model_type": "bert", "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1,
            "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 20,
            "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
            "type_vocab_size": 2, "layer_norm_eps": 1e-12, "initializer_range": 0.3,
        });
        fresh_masked_lm(config, Device::Cpu).unwrap()
    }

    /// The weights of three texts, and all gradients of a function of them.
    fn pass(model: &EncoderModel, config: SparseConfig, gathered: i64) -> (Tensor, Vec<(String, Tensor)>) {
        let texts: [&[u32]; 3] = [&[1, 5, 9, 30], &[7], &[59, 2, 2, 8, 41, 3, 3]];
        let batch = PackedTokens::from_ids(texts, Device::Cpu);
        let mode = Mode::train(Compute::F32);
        let states = model.encoder.forward(&batch, mode);
        let head = model.mlm_head.as_ref().unwrap();
        let weights = config.apply_within(gathered, head, &states, &batch.segments, mode);
        let factors = Tensor::arange(3 * 60, (Kind::Float, Device::Cpu)).sin().view([3, 60]);
        let leaves: Vec<Tensor> = model.params.iter().map(|(_, p)| p.tensor.shallow_clone()).collect();
        let sum = (&weights * factors).sum(Kind::Float);
        let gradients = Tensor::run_backward(&[sum], &leaves, false, false);
        (weights.detach(), model.params.iter().map(|(n, _)| n.to_string()).zip(gradients).collect())
    }

    #[test]
    fn gathering_what_is_above_0_gives_the_weights_and_gradients_of_all_logits() {
        let model = model();
        for activation in [SparseActivation::Relu, SparseActivation::Log1pRelu] {
            let config = SparseConfig { pooling: SparsePooling::Max, activation };
            let ((dense, want), (gathered, got)) = (pass(&model, config, 0), pass(&model, config, i64::MAX));
            let active = i64::try_from(dense.gt(0.0).sum(Kind::Int64)).unwrap();
            assert!(active > 30 && active < 3 * 60, "{active} of 180 weights are above 0");
            assert!(gathered.allclose(&dense, 1e-5, 1e-6, false));
            for ((name, want), (_, got)) in want.iter().zip(&got) {
                let scale = f64::try_from(want.abs().max()).unwrap().max(1e-2);
                let far = f64::try_from((got - want).abs().max()).unwrap();
                assert!(far < 1e-4 * scale, "{name}: {far:.2e} of {scale:.2e}");
            }
        }
    }

    #[test]
    fn sums_weigh_repeated_words_more_than_the_greatest_alone() {
        let model = model();
        let max = pass(&model, SparseConfig::default(), 0).0;
        let sum = pass(&model, SparseConfig { pooling: SparsePooling::Sum, ..SparseConfig::default() }, 0).0;
        assert!(bool::try_from((&sum - &max).ge(-1e-5).all()).unwrap());
        // The second text has one token.
        assert!(sum.get(1).allclose(&max.get(1), 1e-6, 1e-6, false));
        assert!(!sum.get(2).allclose(&max.get(2), 1e-2, 1e-2, false));
    }
}
