//! A generator: a decoder-only language model with its tokenizer, as one folder that transformers loads.

use crate::decode::{DecodeConfig, cut_at_stop, generate};
use crate::decode::{Generated, Hooks, Request, Stepper};
use crate::error::{Error, Result, catch};
use fs_err as fs;
use ragduet_nn::{
    CausalLm, KvCache, LanguageModel, PackedTokens, fresh_language_model, load_language_model,
    save_language_model,
};
use ragduet_text::{ByteBpeOptions, Tokenizer, train_byte_bpe};
use ragduet_torch::{Compute, Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::Path;

/// A language model that answers.
#[derive(Debug)]
pub struct Generator {
    /// The model.
    pub model: LanguageModel,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where it runs.
    pub device: Device,
    /// In what precision.
    pub compute: Compute,
}

impl Generator {
    /// From a folder (`ragduet_nn::hub` turns an id into one).
    ///
    /// # Errors
    /// A folder that does not load, or whose tokenizer has more tokens than the model embeds.
    pub fn load(dir: &Path, device: Device, compute: Compute) -> Result<Self> {
        let model = load_language_model(dir, device)?;
        let tokenizer = Tokenizer::from_dir(dir)?;
        Self { model, tokenizer, device, compute }.check()
    }

    fn check(self) -> Result<Self> {
        if self.model.causal().is_none() {
            return Err(Error::Unusable("encoder-decoders cannot be used as generators yet".into()));
        }
        let (rows, words) = (self.lm().vocab_size(), self.tokenizer.vocab_size());
        if words > rows {
            return Err(Error::Unusable(format!(
                "the tokenizer has {words} tokens but the model embeds only {rows}: they do not belong together"
            )));
        }
        Ok(self)
    }

    /// Writes the folder: configs, weights, tokenizer.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        save_language_model(&self.model, dir)?;
        Ok(self.tokenizer.save(dir)?)
    }

    /// The forward pass.
    pub fn lm(&self) -> &dyn CausalLm {
        match &self.model.kind {
            ragduet_nn::LmKind::Causal(lm) => lm.as_ref(),
            ragduet_nn::LmKind::Seq2Seq(_) => unreachable!("refused when the generator was made"),
        }
    }

    /// Tokens that end an answer: the model's, else the tokenizer's.
    pub fn eos(&self) -> Vec<u32> {
        let own = &self.model.generation.eos_token_id;
        if own.is_empty() { self.tokenizer.eos_id().into_iter().collect() } else { own.clone() }
    }

    /// The most tokens of prompt and answer.
    pub fn max_tokens(&self) -> usize {
        let lm = self.lm();
        lm.max_tokens().unwrap_or_else(|| lm.context_length())
    }

    /// A fresh cache over the model, for [`crate::decode::generate`].
    pub fn stepper(&self, sequences: usize, capacity: usize) -> CausalStepper<'_> {
        CausalStepper {
            generator: self,
            cache: self.lm().new_cache(sequences, capacity, self.compute, self.device),
        }
    }

    /// Continues prompts, at most `batch` at a time, shortest first so that little waits for the longest; results are
    /// in the order of the prompts. `progress` is told how many are done.
    ///
    /// # Errors
    /// Those of [`generate`]; a prompt that leaves no room for an answer.
    pub fn answer(
        &self,
        requests: &[Request],
        config: &DecodeConfig,
        batch: usize,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<Generated>>> {
        let decoding = config.resolve(self.model.generation.file.as_ref(), &self.eos())?;
        for key in &decoding.ignored {
            tracing::warn!("generation_config.json: {key} is not supported and has no effect");
        }
        if let Some(limit) = self.lm().max_tokens() {
            let room = |r: &Request| r.prompt.len() + decoding.max_new_tokens <= limit;
            if let Some(at) = requests.iter().position(|r| !room(r)) {
                return Err(Error::Unusable(format!(
                    "prompt {at} has {} tokens and {} may be generated, but the model has {limit} positions",
                    requests[at].prompt.len(),
                    decoding.max_new_tokens
                )));
            }
        }
        let detokenize = |ids: &[u32]| Ok(self.tokenizer.decode(ids, true)?);
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|&i| requests[i].prompt.len());
        let mut out = vec![Vec::new(); requests.len()];
        let mut done = 0;
        for chunk in order.chunks(batch.max(1)) {
            let picked: Vec<Request> = chunk.iter().map(|&i| requests[i].clone()).collect();
            let longest = picked.iter().map(|r| r.prompt.len()).max().unwrap_or(0);
            let mut stepper = self.stepper(picked.len(), longest + decoding.max_new_tokens);
            let hooks = Hooks { detokenize: Some(&detokenize), on_token: None };
            for (&i, generated) in chunk.iter().zip(generate(&mut stepper, &picked, &decoding, hooks)?) {
                out[i] = generated;
            }
            done += chunk.len();
            progress(done);
        }
        Ok(out)
    }

    /// The text of an answer, up to the first of the stop strings.
    pub fn text(&self, generated: &Generated, stops: &[String]) -> Result<String> {
        let text = self.tokenizer.decode(generated.content(), true)?;
        Ok(cut_at_stop(&text, stops).trim().to_string())
    }
}

/// A causal model and its cache, for decoding.
#[derive(Debug)]
pub struct CausalStepper<'a> {
    generator: &'a Generator,
    cache: KvCache,
}

impl Stepper for CausalStepper<'_> {
    fn step(&mut self, tokens: &[Vec<u32>]) -> Result<Tensor> {
        let g = self.generator;
        catch("generation", "generate fewer answers at a time (--batch), or shorten the prompts", || {
            let batch = PackedTokens::from_ids(tokens.iter().map(Vec::as_slice), g.device);
            let hidden = g.lm().extend(&batch, &mut self.cache);
            // Only what follows the last token of each sequence is asked for.
            let hidden = if tokens.iter().all(|t| t.len() == 1) {
                hidden
            } else {
                let last: Vec<i64> = batch.segments.offsets()[1..].iter().map(|end| end - 1).collect();
                hidden.index_select(0, &Tensor::from_slice(&last).to_device(g.device))
            };
            Ok(g.lm().logits(&hidden, g.compute))
        })
    }

    fn reorder(&mut self, from: &[usize]) -> Result<()> {
        self.cache.reorder(from);
        Ok(())
    }

    fn vocab_size(&self) -> usize {
        self.generator.lm().vocab_size()
    }
}

/// Size of a new generator, a Llama, with a byte-level BPE tokenizer of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ScratchGenerator {
    /// Tokens.
    pub vocab_size: usize,
    /// Size of a hidden state.
    pub hidden_size: i64,
    /// Transformer layers.
    pub layers: i64,
    /// Attention heads.
    pub heads: i64,
    /// Key and value heads.
    pub kv_heads: i64,
    /// Size of the feed-forward layer.
    pub intermediate_size: i64,
    /// Longest prompt and answer.
    pub max_positions: usize,
    /// Whether the output projection is the embedding.
    pub tied: bool,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
}

impl Default for ScratchGenerator {
    fn default() -> Self {
        Self {
            vocab_size: 8000,
            hidden_size: 256,
            layers: 4,
            heads: 4,
            kv_heads: 2,
            intermediate_size: 768,
            max_positions: 1024,
            tied: true,
            initializer_range: 0.02,
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
        let options = ByteBpeOptions {
            vocab_size: self.vocab_size,
            max_len: self.max_positions,
            ..ByteBpeOptions::default()
        };
        let tokenizer = train_byte_bpe(texts, &options)?;
        let config = json!({
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
        });
        let model = fresh_language_model(config, device)?;
        Generator { model, tokenizer, device, compute }.check()
    }
}
