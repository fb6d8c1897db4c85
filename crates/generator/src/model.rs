//! A generator: a language model with its tokenizer, as one folder that transformers loads.

use crate::decode::{DecodeConfig, Decoding, Generated, Hooks, Request, cut_at_stop, generate};
use crate::error::{Error, Result, bad};
use crate::sources::Sources;
use crate::stepper::{CausalStepper, Seq2SeqStepper};
use fs_err as fs;
use ragduet_nn::peft::{self, Adapter, PeftConfig, TaskType};
use ragduet_nn::{
    FrozenBase, LanguageModel, LmKind, Mode, PackedTokens, hub, load_language_model_over, save_language_model,
};
use ragduet_text::{Tokenizer, TrainExample};
use ragduet_torch::{Bits, Compute, Device, Kind, ParamStore, Quantize, Tensor, no_grad};
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
    /// What acts over the model, where something does.
    pub adapter: Option<Adapter>,
    /// The folder or hub id that an adapter names as its base; empty for a model that is nowhere yet.
    pub base: String,
}

impl Generator {
    /// A model that is in no folder yet.
    pub fn new(model: LanguageModel, tokenizer: Tokenizer, device: Device, compute: Compute) -> Self {
        Self { model, tokenizer, device, compute, adapter: None, base: String::new() }
    }

    /// From a model's folder, or an adapter's, whose base is then loaded as well (`ragduet_nn::hub` turns an id into
    /// a folder).
    ///
    /// # Errors
    /// A folder that does not load, or whose tokenizer has more tokens than the model embeds; an encoder-decoder that
    /// does not say what its answers start with.
    pub fn load(dir: &Path, device: Device, compute: Compute) -> Result<Self> {
        Self::load_quantised(dir, device, compute, None)
    }

    /// [`Generator::load`] with the weights of the model's (or the base's) layers in 8 or 4 bits. It answers, and trains
    /// through an adapter; it is not saved nor merged into.
    ///
    /// # Errors
    /// As [`Generator::load`].
    pub fn load_quantised(dir: &Path, device: Device, compute: Compute, bits: Option<Bits>) -> Result<Self> {
        Self::load_over(dir, device, compute, bits, None)
    }

    /// [`Generator::load_quantised`], with the frozen weights of a model in memory where that is over the same base.
    ///
    /// # Errors
    /// As [`Generator::load`].
    pub fn load_over(
        dir: &Path,
        device: Device,
        compute: Compute,
        bits: Option<Bits>,
        held: Option<&FrozenBase>,
    ) -> Result<Self> {
        if !peft::is_adapter_dir(dir) {
            let model = load_language_model_over(dir, device, bits, held)?;
            let tokenizer = Tokenizer::from_dir(dir)?;
            let base = std::path::absolute(dir)?.display().to_string();
            return Self { model, tokenizer, device, compute, adapter: None, base }.check();
        }
        let base = peft::base_of(dir)?;
        let folder = hub::resolve(&base)?;
        let model = load_language_model_over(&folder, device, bits, held)?;
        let own = dir.join("tokenizer.json").is_file();
        let tokenizer = Tokenizer::from_dir(if own { dir } else { &folder })?;
        model.params.set_trainable(|_| false);
        let adapter = Some(Adapter::load(model.base(device)?, dir)?);
        Self { model, tokenizer, device, compute, adapter, base }.check()
    }

    /// [`Generator::load`] for answers alone: where compute is bf16, the layers' weights are kept in bf16 alone.
    ///
    /// # Errors
    /// As [`Generator::load`].
    pub fn load_to_answer(
        dir: &Path,
        device: Device,
        compute: Compute,
        quantize: Quantize,
        held: Option<&FrozenBase>,
    ) -> Result<Self> {
        Self::load_over(dir, device, compute, peft::kept_as(dir, quantize, compute)?, held)
    }

    /// Puts a new adapter over the model, which no longer trains itself. Draws from the global generators.
    ///
    /// # Errors
    /// A model that has one, or that is in no folder that the adapter could name; settings that do not fit the model.
    pub fn adapt(&mut self, config: &PeftConfig) -> Result<()> {
        if self.adapter.is_some() {
            return Err(bad(
                "peft",
                "the base is an adapter itself: go on with it without [peft], or work it into its base (`ragduet merge`)",
            ));
        }
        if self.base.is_empty() {
            return Err(bad("peft", "an adapter goes over a trained model: give model.base"));
        }
        self.model.params.set_trainable(|_| false);
        self.adapter = Some(Adapter::fresh(self.model.base(self.device)?, config)?);
        Ok(())
    }

    /// Reads an adapter's folder over this model, beside what else there is; [`Generator::swap`] makes it the one that
    /// acts.
    ///
    /// # Errors
    /// A folder that does not fit the model.
    pub fn read_adapter(&self, dir: &Path) -> Result<Adapter> {
        Ok(Adapter::load(self.model.base(self.device)?, dir)?)
    }

    /// Puts another adapter, or none, in the place of the one that acts, and returns that one, which stays resident as long
    /// as it is held. The model's weights are not touched and no longer train themselves.
    pub fn swap(&mut self, adapter: Option<Adapter>) -> Option<Adapter> {
        self.model.params.set_trainable(|_| false);
        std::mem::replace(&mut self.adapter, adapter)
    }

    /// Works the adapter into the model, which is then a model like any other, in no folder yet.
    ///
    /// # Errors
    /// An adapter that is no change of weights.
    pub fn merge(&mut self) -> Result<()> {
        if let Some(a) = &self.adapter {
            a.merge(&self.model.params)?;
            self.adapter = None;
            self.base.clear();
        }
        Ok(())
    }

    fn task(&self) -> TaskType {
        match self.model.kind {
            LmKind::Causal(_) => TaskType::CausalLm,
            LmKind::Seq2Seq(_) => TaskType::Seq2SeqLm,
        }
    }

    /// How a forward pass runs.
    pub fn mode(&self, train: bool) -> Mode {
        let adapter = self.adapter.as_ref().map(|a| a.id);
        Mode { train, compute: self.compute, adapter }
    }

    /// What trains: the adapter's parameters where there is one, else the model's.
    pub fn trained(&self) -> &ParamStore {
        self.adapter.as_ref().map_or(&self.model.params, |a| &a.params)
    }

    /// Adds the token with which the chat template ends an answer to those that end a text, here and in what is saved:
    /// it is what the model learns as the end.
    fn with_turn_end(mut self) -> Result<Self> {
        if self.model.seq2seq().is_some() {
            return Ok(self);
        }
        let Some(template) = self.tokenizer.chat_template()? else { return Ok(self) };
        let (mut all, Some(end)) = (self.eos(), self.tokenizer.turn_end(&template)) else { return Ok(self) };
        if all.contains(&end) {
            return Ok(self);
        }
        all.push(end);
        let generation = &mut self.model.generation;
        let mut file = generation.file.take().unwrap_or_else(|| {
            // Without the file, config.json has these.
            let own = [
                ("bos_token_id", generation.bos_token_id),
                ("pad_token_id", generation.pad_token_id),
                ("decoder_start_token_id", generation.decoder_start_token_id),
            ];
            let own = own.into_iter().filter_map(|(key, id)| Some((key.to_owned(), id?.into())));
            serde_json::Value::Object(own.collect())
        });
        if let Some(map) = file.as_object_mut() {
            map.insert("eos_token_id".into(), all.clone().into());
        }
        generation.file = Some(file);
        generation.eos_token_id = all;
        Ok(self)
    }

    pub(crate) fn check(self) -> Result<Self> {
        if self.model.seq2seq().is_some() && self.decoder_start().is_none() {
            return Err(Error::Unusable(
                "neither config.json nor generation_config.json has a decoder_start_token_id".into(),
            ));
        }
        let (rows, words) = (self.model.kind.vocab_size(), self.tokenizer.vocab_size());
        if words > rows {
            return Err(Error::Unusable(format!(
                "the tokenizer has {words} tokens but the model embeds only {rows}: they do not belong together"
            )));
        }
        self.with_turn_end()
    }

    /// Writes the folder: configs, weights, tokenizer; of an adapter only what it is itself.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        match &self.adapter {
            Some(a) => a.save(dir, self.task(), &self.base)?,
            None => save_language_model(&self.model, dir)?,
        }
        Ok(self.tokenizer.save(dir)?)
    }

    /// What the answers of an encoder-decoder start with; None for decoder-only models, which continue their prompt.
    pub fn decoder_start(&self) -> Option<u32> {
        self.model.seq2seq()?;
        let generation = &self.model.generation;
        generation.decoder_start_token_id.or(generation.bos_token_id)
    }

    /// The hidden states of examples laid one after another, [tokens, hidden], f32; [`LmKind::head`] makes logits of
    /// them. Of an encoder-decoder the rows of a source are the encoder's, which see all of it and predict nothing.
    ///
    /// # Panics
    /// As the models' own passes, and where an example was made for the other kind of model.
    pub fn hidden_states<'e>(
        &self,
        examples: impl IntoIterator<Item = &'e TrainExample>,
        mode: Mode,
    ) -> Tensor {
        let examples: Vec<&TrainExample> = examples.into_iter().collect();
        let packed = |part: fn(&TrainExample) -> &[u32]| {
            PackedTokens::from_ids(examples.iter().map(|e| part(e)), self.device)
        };
        match &self.model.kind {
            LmKind::Causal(lm) => {
                assert!(examples.iter().all(|e| e.source == 0), "an example with a source");
                lm.forward(&packed(|e| &e.ids), mode)
            }
            LmKind::Seq2Seq(lm) => {
                let read = examples.iter().map(|e| (&e.ids[..e.source], e.parts.as_slice()));
                let sources = Sources::new(read, self.device);
                let encoded = sources.encode(lm.as_ref(), mode);
                let decoded =
                    lm.decode(&packed(|e| &e.ids[e.source..]), &encoded.states, &encoded.borders, mode);
                let (mut to, mut order) = (encoded.states.size()[0], Vec::new());
                for (e, rows) in examples.iter().zip(sources.rows(&encoded)) {
                    let target = (e.ids.len() - e.source) as i64;
                    order.extend(rows.into_iter().chain(to..to + target));
                    to += target;
                }
                let order = Tensor::from_slice(&order).to_device(self.device);
                Tensor::cat(&[encoded.states, decoded], 0).index_select(0, &order)
            }
        }
    }

    /// How much each token of the examples, laid one after another, is looked at while the learned ones are predicted:
    /// [tokens], f32, without a graph (`ragduet_nn::attention_mass`). Of an encoder-decoder that is cross-attention, and 0 for
    /// the target.
    ///
    /// # Panics
    /// As [`Generator::hidden_states`].
    pub fn attention_received(&self, examples: &[&TrainExample], mode: Mode) -> Tensor {
        let _guard = no_grad();
        let rows = |e: &TrainExample, from: usize| -> Vec<i64> {
            e.predicted().filter(|&i| e.loss[i]).map(|i| (i - 1 - from) as i64).collect()
        };
        match &self.model.kind {
            LmKind::Causal(lm) => {
                let readers: Vec<Vec<i64>> = examples.iter().map(|e| rows(e, 0)).collect();
                let batch = PackedTokens::from_ids(examples.iter().map(|e| e.ids.as_slice()), self.device);
                lm.attention_received(&batch, &readers, mode)
            }
            LmKind::Seq2Seq(lm) => {
                let readers: Vec<Vec<i64>> = examples.iter().map(|e| rows(e, e.source)).collect();
                let read = examples.iter().map(|e| (&e.ids[..e.source], e.parts.as_slice()));
                let sources = Sources::new(read, self.device);
                let encoded = sources.encode(lm.as_ref(), mode);
                let targets = examples.iter().map(|e| &e.ids[e.source..]);
                let targets = PackedTokens::from_ids(targets, self.device);
                let seen = lm.attention_received(&targets, &readers, &encoded.states, &encoded.borders, mode);
                // The last place stands for all rows of targets.
                let seen = Tensor::cat(&[&seen, &seen.new_zeros([1], (Kind::Float, self.device))], 0);
                let nothing = seen.size()[0] - 1;
                let order: Vec<i64> = examples
                    .iter()
                    .zip(sources.rows(&encoded))
                    .flat_map(|(e, rows)| {
                        rows.into_iter().chain(std::iter::repeat_n(nothing, e.ids.len() - e.source))
                    })
                    .collect();
                seen.index_select(0, &Tensor::from_slice(&order).to_device(self.device))
            }
        }
    }

    /// Tokens that end an answer: the model's, else the tokenizer's; and the chat template's own end of a turn.
    pub fn eos(&self) -> Vec<u32> {
        let own = &self.model.generation.eos_token_id;
        if own.is_empty() { self.tokenizer.eos_id().into_iter().collect() } else { own.clone() }
    }

    /// The most tokens of prompt and answer; of an encoder-decoder without positions as many as memory allows.
    pub fn max_tokens(&self) -> usize {
        self.positions().unwrap_or_else(|| self.model.causal().map_or(usize::MAX, |lm| lm.context_length()))
    }

    /// The tokens that learned positions leave beside what an adapter puts before a text; None where positions do not end.
    pub(crate) fn positions(&self) -> Option<usize> {
        let taken = self.adapter.as_ref().map_or(0, |a| a.config.places());
        self.model.kind.max_tokens().map(|n| n.saturating_sub(taken))
    }

    /// The tokens of prompt and answer that the model is meant for, where nothing else is asked for.
    pub fn usual_tokens(&self) -> usize {
        if self.model.causal().is_some() {
            return self.max_tokens();
        }
        let positions = self.model.config.get("n_positions").and_then(serde_json::Value::as_u64);
        let usual = positions.map(|n| n as usize).or(self.tokenizer.model_max_length());
        // What the T5 family was trained on.
        usual.unwrap_or(512).min(self.max_tokens())
    }

    /// Answers requests, all in one batch: [`crate::decode::generate`] on this model. An encoder-decoder reads the
    /// prompts and starts its answers on its own.
    ///
    /// # Errors
    /// Those of decoding; an empty prompt.
    pub fn generate(
        &self,
        requests: &[Request],
        decoding: &Decoding,
        hooks: Hooks<'_>,
    ) -> Result<Vec<Vec<Generated>>> {
        let lm = match &self.model.kind {
            LmKind::Causal(lm) => {
                let longest = requests.iter().map(|r| r.prompt.len()).max().unwrap_or(0);
                let capacity = longest + decoding.max_new_tokens;
                let mut stepper =
                    CausalStepper::new(lm.as_ref(), requests.len(), capacity, self.mode(false), self.device)?;
                return generate(&mut stepper, requests, decoding, hooks);
            }
            LmKind::Seq2Seq(lm) => lm.as_ref(),
        };
        if let Some(at) = requests.iter().position(|r| r.prompt.is_empty()) {
            return Err(Error::Unusable(format!("request {at} has an empty prompt")));
        }
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let start: Vec<u32> = self.decoder_start().into_iter().collect();
        let answers: Vec<Request> = requests
            .iter()
            .map(|r| Request { prompt: start.clone(), seed: r.seed, parts: Vec::new() })
            .collect();
        let read = requests.iter().map(|r| (r.prompt.as_slice(), r.parts.as_slice()));
        let sources = Sources::new(read, self.device);
        let capacity = decoding.max_new_tokens + 1;
        let mut stepper = Seq2SeqStepper::new(lm, &sources, capacity, self.mode(false), self.device)?;
        generate(&mut stepper, &answers, decoding, hooks)
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
        if let Some(limit) = self.positions() {
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
            let hooks = Hooks { detokenize: Some(&detokenize), on_token: None };
            for (&i, generated) in chunk.iter().zip(self.generate(&picked, &decoding, hooks)?) {
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
