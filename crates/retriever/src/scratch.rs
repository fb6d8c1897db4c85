//! A small encoder from nothing: tokenizer trained on the corpus, random weights. For domains whose language no
//! pretrained model has seen, and for trying the whole path in minutes.

use crate::Result;
use crate::biencoder::{BiEncoder, Settings};
use crate::head::{Dense, Head};
use crate::representation::RepresentationConfig;
use crate::tower::Tower;
use ragduet_nn::{fresh_encoder, fresh_masked_lm};
use ragduet_text::{Prompts, WordPieceOptions, train_wordpiece};
use ragduet_torch::{Compute, Device};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Architecture of a new encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScratchArchitecture {
    /// BERT: learned absolute positions.
    #[default]
    Bert,
    /// ModernBERT: rotary positions, global attention in every layer. Soft prompts do not shift its relative positions.
    ModernBert,
}

/// New encoder with random weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScratchModel {
    /// Architecture: `bert` or `modernbert`.
    pub architecture: ScratchArchitecture,
    /// Vocabulary size of the WordPiece tokenizer.
    pub vocab_size: usize,
    /// Hidden size.
    pub hidden_size: i64,
    /// Number of transformer layers.
    pub layers: i64,
    /// Number of attention heads.
    pub heads: i64,
    /// Inner size of the feed-forward layers.
    pub intermediate_size: i64,
    /// Maximum sequence length in tokens.
    pub max_positions: i64,
    /// Dropout of hidden states and attention probabilities.
    pub dropout: f64,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
}

impl Default for ScratchModel {
    fn default() -> Self {
        Self {
            architecture: ScratchArchitecture::default(),
            vocab_size: 8000,
            hidden_size: 256,
            layers: 4,
            heads: 4,
            intermediate_size: 1024,
            max_positions: 512,
            dropout: 0.1,
            initializer_range: 0.02,
        }
    }
}

impl ScratchModel {
    /// Trains the tokenizer on `texts` and draws the weights (seed the generators first). `max_tokens`: of queries and of
    /// passages.
    pub fn build<'a>(
        &self,
        texts: impl Iterator<Item = &'a str> + Send,
        representation: RepresentationConfig,
        prompts: Prompts,
        (max_query_tokens, max_passage_tokens): (usize, usize),
        device: Device,
        compute: Compute,
    ) -> Result<BiEncoder> {
        let options = WordPieceOptions {
            vocab_size: self.vocab_size,
            max_len: self.max_positions as usize,
            ..WordPieceOptions::default()
        };
        let tokenizer = representation.add_tokens(train_wordpiece(texts, &options)?)?;
        let config = self.config(tokenizer.vocab_size(), tokenizer.pad_id().unwrap_or(0));
        let (model, head) = match &representation {
            RepresentationConfig::Dense(_) => (fresh_encoder(config, device)?, Head::default()),
            RepresentationConfig::LateInteraction(late) => {
                let model = fresh_encoder(config, device)?;
                let dense = Dense::fresh(model.encoder.hidden_size(), late.dim, device)?;
                (model, Head::projection(dense))
            }
            RepresentationConfig::Sparse(_) => (fresh_masked_lm(config, device)?, Head::default()),
        };
        let representation = representation.resolve(&tokenizer)?;
        let settings = Settings { representation, prompts, max_query_tokens, max_passage_tokens };
        let tower = Tower { model, head, adapter: None, base: String::new() };
        BiEncoder { query_tower: tower, passage_tower: None, tokenizer, settings, device, compute }.check()
    }

    /// `config.json` as transformers writes it.
    fn config(&self, vocab_size: usize, pad: u32) -> Value {
        let mut config = json!({
            "vocab_size": vocab_size, "hidden_size": self.hidden_size, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "intermediate_size": self.intermediate_size,
            "max_position_embeddings": self.max_positions, "initializer_range": self.initializer_range,
            "pad_token_id": pad,
        });
        let own = match self.architecture {
            ScratchArchitecture::Bert => json!({
                "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu",
                "hidden_dropout_prob": self.dropout, "attention_probs_dropout_prob": self.dropout,
                "type_vocab_size": 2, "layer_norm_eps": 1e-12,
            }),
            // The tokens that ModernBERT's defaults name are beyond a small vocabulary.
            ScratchArchitecture::ModernBert => json!({
                "architectures": ["ModernBertModel"], "model_type": "modernbert", "hidden_activation": "gelu",
                "attention_dropout": self.dropout, "embedding_dropout": self.dropout, "mlp_dropout": self.dropout,
                "global_attn_every_n_layers": 1, "norm_eps": 1e-5, "bos_token_id": null, "eos_token_id": null,
                "cls_token_id": null, "sep_token_id": null,
            }),
        };
        if let (Value::Object(all), Value::Object(own)) = (&mut config, own) {
            all.extend(own);
        }
        config
    }
}
