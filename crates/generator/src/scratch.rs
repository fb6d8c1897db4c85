//! A small generator from nothing: tokenizer trained on the data, random weights.

use crate::error::{Result, bad};
use crate::model::Generator;
use ragduet_nn::fresh_language_model;
use ragduet_text::{ByteBpeOptions, Tokenizer, train_byte_bpe};
use ragduet_torch::{Compute, Device, Kind, ParamStore, Tensor, no_grad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Architecture of a new generator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScratchArchitecture {
    /// Llama (decoder-only).
    #[default]
    Llama,
    /// T5 with gated feed-forward and dropout 0.1 (encoder-decoder).
    T5,
}

/// How the attention layers of a new generator start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttentionStart {
    /// All four projections are drawn from a normal distribution.
    #[default]
    Normal,
    /// The value projection is a random orthogonal matrix and the output projection its transpose: a layer starts by
    /// passing on the tokens that it attends to. A small model then learns to copy from its prompt within some hundred
    /// steps. Llama only. After the mimetic initialization of Trockman and Kolter (2023, arXiv 2305.09828).
    Copy,
}

/// New generator with random weights and its own byte-level BPE tokenizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScratchGenerator {
    /// Architecture: `llama` or `t5`.
    pub architecture: ScratchArchitecture,
    /// Vocabulary size.
    pub vocab_size: usize,
    /// Hidden size.
    pub hidden_size: i64,
    /// Number of transformer layers; for T5 of the encoder and of the decoder each.
    pub layers: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Number of key-value heads (grouped-query attention); for T5 equal to `heads`.
    pub kv_heads: i64,
    /// Inner size of the feed-forward layers.
    pub intermediate_size: i64,
    /// Maximum length of prompt and answer in tokens; for T5 the nominal length.
    pub max_positions: usize,
    /// Whether the output projection shares the embedding matrix.
    pub tied: bool,
    /// Standard deviation of the initial weights (T5 scales by layer width instead).
    pub initializer_range: f64,
    /// Initialization of the attention layers: `normal` or `copy`.
    pub attention_start: AttentionStart,
}

impl Default for ScratchGenerator {
    fn default() -> Self {
        Self {
            architecture: ScratchArchitecture::Llama,
            vocab_size: 8000,
            hidden_size: 256,
            layers: 4,
            heads: 4,
            kv_heads: 2,
            intermediate_size: 768,
            max_positions: 1024,
            tied: true,
            initializer_range: 0.02,
            attention_start: AttentionStart::default(),
        }
    }
}

impl ScratchGenerator {
    /// Trains the tokenizer on `texts` and draws the weights (seed the generators first).
    pub fn build<'a>(
        &self,
        texts: impl Iterator<Item = &'a str> + Send,
        device: Device,
        compute: Compute,
    ) -> Result<Generator> {
        self.over(self.tokenizer(texts)?, device, compute)
    }

    /// A tokenizer of this size, trained on `texts`.
    pub fn tokenizer<'a>(&self, texts: impl Iterator<Item = &'a str> + Send) -> Result<Tokenizer> {
        let options = ByteBpeOptions {
            vocab_size: self.vocab_size,
            max_len: self.max_positions,
            ..ByteBpeOptions::default()
        };
        Ok(train_byte_bpe(texts, &options)?)
    }

    /// A model with this tokenizer, whose size then counts instead of `vocab_size`. Draws the weights (seed the generators
    /// first).
    pub fn over(&self, tokenizer: Tokenizer, device: Device, compute: Compute) -> Result<Generator> {
        let copies = self.attention_start == AttentionStart::Copy;
        let config = match self.architecture {
            ScratchArchitecture::Llama => self.llama(&tokenizer),
            ScratchArchitecture::T5 if copies => {
                return Err(bad("model.scratch.attention_start", "`copy` is for architecture = \"llama\""));
            }
            ScratchArchitecture::T5 => self.t5(&tokenizer),
        };
        let model = fresh_language_model(config, device)?;
        if copies {
            self.start_copying(&model.params)?;
        }
        Generator::new(model, tokenizer, device, compute).check()
    }

    /// Sets the value and output projections of every layer so that their product is the identity (where there are as
    /// many key-value heads as heads; else the projection onto the subspace that the values span).
    fn start_copying(&self, params: &ParamStore) -> Result<()> {
        let _guard = no_grad();
        let head = self.hidden_size / self.heads.max(1);
        let shared = self.heads / self.kv_heads.max(1);
        for layer in 0..self.layers {
            let named = |part: &str| {
                let name = format!("model.layers.{layer}.self_attn.{part}_proj.weight");
                let found = params.get(&name).map(Tensor::shallow_clone);
                found.ok_or_else(|| bad("model.scratch.attention_start", format!("the model has no {name}")))
            };
            let (mut value, mut out) = (named("v")?, named("o")?);
            let drawn = Tensor::randn([self.hidden_size, self.hidden_size], (Kind::Float, value.device()));
            let (orthogonal, _) = Tensor::linalg_qr(&drawn, "reduced");
            value.copy_(&orthogonal.narrow(0, 0, self.kv_heads * head));
            // Heads that share their values write them back in equal parts.
            let back = value.view([self.kv_heads, 1, head, self.hidden_size]) / shared as f64;
            let back = back.expand([self.kv_heads, shared, head, self.hidden_size], false);
            out.copy_(&back.reshape([self.heads * head, self.hidden_size]).tr());
        }
        Ok(())
    }

    fn t5(&self, tokenizer: &Tokenizer) -> serde_json::Value {
        json!({
            "model_type": "t5",
            "architectures": ["T5ForConditionalGeneration"],
            "is_encoder_decoder": true,
            "vocab_size": tokenizer.vocab_size(),
            "d_model": self.hidden_size,
            "d_kv": self.hidden_size / self.heads.max(1),
            "d_ff": self.intermediate_size,
            "num_layers": self.layers,
            "num_decoder_layers": self.layers,
            "num_heads": self.heads,
            "n_positions": self.max_positions,
            "relative_attention_num_buckets": 32,
            "relative_attention_max_distance": 128,
            "dropout_rate": 0.1,
            "layer_norm_epsilon": 1e-6,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": self.tied,
            "decoder_start_token_id": tokenizer.pad_id(),
            "eos_token_id": tokenizer.eos_id(),
            "pad_token_id": tokenizer.pad_id(),
        })
    }

    fn llama(&self, tokenizer: &Tokenizer) -> serde_json::Value {
        json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": tokenizer.vocab_size(),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "max_position_embeddings": self.max_positions,
            "initializer_range": self.initializer_range,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": self.tied,
            "bos_token_id": null,
            "eos_token_id": tokenizer.eos_id(),
            "pad_token_id": tokenizer.pad_id(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_torch::rng;

    fn small(attention_start: AttentionStart) -> ScratchGenerator {
        ScratchGenerator {
            vocab_size: 280,
            hidden_size: 32,
            layers: 2,
            attention_start,
            ..ScratchGenerator::default()
        }
    }

    fn built(size: &ScratchGenerator) -> Generator {
        rng::seed(3);
        size.build(["some words to learn pieces from"].into_iter(), Device::Cpu, Compute::F32).unwrap()
    }

    /// What a layer adds where all heads attend to one token: output projection times value projection.
    fn passed_on(size: &ScratchGenerator, g: &Generator, layer: i64) -> Tensor {
        let weight = |part: &str| {
            let name = format!("model.layers.{layer}.self_attn.{part}_proj.weight");
            g.model.params.get(&name).unwrap().detach()
        };
        let head = size.hidden_size / size.heads;
        let values = weight("v").view([size.kv_heads, 1, head, size.hidden_size]);
        let values =
            values.expand([size.kv_heads, size.heads / size.kv_heads, head, size.hidden_size], false);
        weight("o").matmul(&values.reshape([size.hidden_size, size.hidden_size]))
    }

    #[test]
    fn a_layer_starts_by_passing_on_what_it_attends_to() {
        ragduet_torch::device::set_threads(1);
        let identity = Tensor::eye(32, (Kind::Float, Device::Cpu));
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        let alike = ScratchGenerator { kv_heads: 4, ..small(AttentionStart::Copy) };
        let g = built(&alike);
        assert!(apart(&passed_on(&alike, &g, 0), &identity) < 1e-5);
        assert!(apart(&passed_on(&alike, &g, 1), &identity) < 1e-5);
        let weight = |layer: i64| {
            g.model.params.get(&format!("model.layers.{layer}.self_attn.v_proj.weight")).unwrap()
        };
        assert!(apart(weight(0), weight(1)) > 0.1, "each layer has its own");

        // Two key-value heads of four span half of the space; what is passed on is the projection onto it.
        let shared = ScratchGenerator { kv_heads: 2, ..small(AttentionStart::Copy) };
        let projection = passed_on(&shared, &built(&shared), 0);
        assert!(apart(&projection.matmul(&projection), &projection) < 1e-5);
        assert!((projection.trace().double_value(&[]) - 16.0).abs() < 1e-4);

        let normal = small(AttentionStart::Normal);
        assert!(apart(&passed_on(&normal, &built(&normal), 0), &identity) > 0.9);
    }

    #[test]
    fn a_t5_cannot_start_so() {
        let size = ScratchGenerator { architecture: ScratchArchitecture::T5, ..small(AttentionStart::Copy) };
        let texts = ["some words to learn pieces from"].into_iter();
        let e = size.build(texts, Device::Cpu, Compute::F32).unwrap_err().to_string();
        assert!(e.contains("model.scratch.attention_start"), "{e}");
    }
}
