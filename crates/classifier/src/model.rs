//! A classifier: a model with its tokenizer and labels, as one folder that transformers loads.
//!
//! A new head is trained beside an adapter. With LoRA it is saved as peft's `modules_to_save`, so that peft loads the
//! folder; with the other methods in `head.safetensors`. Class names, for which peft has no place, are in
//! `labels.json`.

use crate::error::{Error, Result, bad, catch};
use crate::labels::{Answer, LabelSet, Target};
use crate::scores::Scores;
use ragduet_data::LabelledRecord;
use ragduet_nn::peft::{self, Adapter, PeftConfig, TaskType};
use ragduet_nn::{Mode, PackedTokens, SequenceClassifier, hub};
use ragduet_text::{EncodeOptions, Encoding, PairOptions, Tokenizer};
use ragduet_torch::weights::{Weights, save_tensors, write_atomic};
use ragduet_torch::{Bits, Compute, Device, Kind, ParamStore, Tensor, no_grad};
use std::path::Path;

/// What is classified: a text, or two.
pub type Text<'a> = (&'a str, Option<&'a str>);

/// A model that says what texts are.
#[derive(Debug)]
pub struct Classifier {
    /// The model.
    pub model: SequenceClassifier,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What it can say.
    pub labels: LabelSet,
    /// Where it runs.
    pub device: Device,
    /// In what precision.
    pub compute: Compute,
    /// Longest text in tokens, special ones included; longer ones are cut.
    pub max_tokens: usize,
    /// What acts over the model, where something does.
    pub adapter: Option<Adapter>,
    /// The folder or hub id that an adapter names as its base.
    base: String,
}

/// Beside an adapter: what peft's config has no place for.
const LABELS: &str = "labels.json";
/// The head of an adapter that has no `modules_to_save`.
const HEAD: &str = "head.safetensors";

impl Classifier {
    /// From a classifier's folder, or an adapter's, whose base is then loaded as well.
    ///
    /// # Errors
    /// A folder that does not load, or whose tokenizer has more tokens than the model embeds.
    pub fn load(dir: &Path, device: Device, compute: Compute) -> Result<Self> {
        if !peft::is_adapter_dir(dir) {
            return Self::with_labels(dir, device, compute, None);
        }
        let path = dir.join(LABELS);
        let text = fs_err::read(&path)?;
        let labels: LabelSet =
            serde_json::from_slice(&text).map_err(|source| ragduet_train::Error::Json { path, source })?;
        let base = peft::base_of(dir)?;
        let folder = hub::resolve(&base)?;
        let mut c = Self::with_labels(&folder, device, compute, Some(labels))?;
        c.base = base;
        c.model.params.set_trainable(|_| false);
        let head = dir.join(HEAD);
        if head.is_file() {
            let head = Weights::open_file(&head)?;
            let _guard = no_grad();
            for name in head.names() {
                let Some(p) = c.model.params.get(name) else {
                    return Err(Error::Unusable(format!("{HEAD}: the base has no `{name}`")));
                };
                p.shallow_clone().copy_(&head.load(name, device)?);
                c.model.params.iter().filter(|(n, _)| *n == name).for_each(|(_, p)| {
                    let _ = p.tensor.set_requires_grad(true);
                });
            }
        }
        c.take(Adapter::load(c.model.base(device), dir)?);
        Ok(c)
    }

    /// Whether this is the folder of a classifier's adapter.
    pub fn is_adapter(dir: &Path) -> bool {
        peft::is_adapter_dir(dir) && dir.join(LABELS).is_file()
    }

    /// From a folder of any model: where it is no classifier with these labels, the output layer (and what else a bare
    /// model lacks) is drawn from the global generators.
    ///
    /// # Errors
    /// As [`Classifier::load`].
    pub fn with_labels(
        dir: &Path,
        device: Device,
        compute: Compute,
        labels: Option<LabelSet>,
    ) -> Result<Self> {
        Self::with_labels_quantised(dir, device, compute, labels, None)
    }

    /// [`Classifier::with_labels`] with the layers' weights in 8 or 4 bits.
    ///
    /// # Errors
    /// As [`Classifier::load`].
    pub fn with_labels_quantised(
        dir: &Path,
        device: Device,
        compute: Compute,
        labels: Option<LabelSet>,
        bits: Option<Bits>,
    ) -> Result<Self> {
        if labels.is_some() && peft::is_adapter_dir(dir) {
            return Err(bad("model.base", "is an adapter: work it into its base first (`ragduet merge`)"));
        }
        let wanted = labels.as_ref().map(LabelSet::to_config);
        let mut model = SequenceClassifier::load_quantised(dir, device, wanted.as_ref(), bits)?;
        let tokenizer = Tokenizer::from_dir(dir)?;
        let labels = labels.unwrap_or_else(|| LabelSet::from_config(model.labels(), model.problem()));
        let (rows, words) = (model.vocab_size(), tokenizer.vocab_size());
        if words > rows {
            return Err(Error::Unusable(format!(
                "the tokenizer has {words} tokens but the model embeds only {rows}: they do not belong together"
            )));
        }
        // transformers finds the last token of a padded text by it.
        if !model.is_encoder()
            && model.config.get("pad_token_id").is_none_or(serde_json::Value::is_null)
            && let (Some(map), Some(pad)) =
                (model.config.as_object_mut(), tokenizer.pad_id().or(tokenizer.eos_id()))
        {
            map.insert("pad_token_id".into(), pad.into());
        }
        let max_tokens = model.max_tokens().min(tokenizer.model_max_length().unwrap_or(usize::MAX));
        let base = std::path::absolute(dir)?.display().to_string();
        Ok(Self { model, tokenizer, labels, device, compute, max_tokens, adapter: None, base })
    }

    /// Puts a new adapter over the model; of the model itself only the new head trains. Draws from the global
    /// generators.
    ///
    /// # Errors
    /// Settings that do not fit the model.
    pub fn adapt(&mut self, config: &PeftConfig) -> Result<()> {
        let fresh = self.model.new_parts();
        let mut config = config.clone();
        if let PeftConfig::Lora(c) = &mut config {
            // As peft has it: the head is trained in a copy that the adapter owns.
            for module in self.model.head_modules() {
                let new = fresh.iter().any(|p| p.starts_with(&format!("{module}.")));
                // peft's classes for classification name the whole of `classifier`.
                let whole = module.split_once('.').filter(|(top, _)| *top == "classifier");
                let module = whole.map_or(module.as_str(), |(top, _)| top).to_string();
                if new && !c.modules_to_save.contains(&module) {
                    c.modules_to_save.push(module);
                }
            }
            self.model.params.set_trainable(|_| false);
        } else {
            self.model.params.set_trainable(|name| fresh.iter().any(|f| f == name));
        }
        self.take(Adapter::fresh(self.model.base(self.device), &config)?);
        Ok(())
    }

    /// Prompts and prefixes take positions from texts.
    fn take(&mut self, adapter: Adapter) {
        let left = self.model.max_tokens().saturating_sub(adapter.config.places());
        self.max_tokens = self.max_tokens.min(left);
        self.adapter = Some(adapter);
    }

    /// Works the adapter into the model.
    ///
    /// # Errors
    /// An adapter that is no change of weights.
    pub fn merge(&mut self) -> Result<()> {
        if let Some(a) = self.adapter.take() {
            a.merge(&self.model.params)?;
        }
        Ok(())
    }

    /// How a forward pass runs.
    pub fn mode(&self, train: bool) -> Mode {
        Mode { train, compute: self.compute, adapter: self.adapter.as_ref().map(|a| a.id) }
    }

    /// What is trained, by name: all of the model, or the adapter and a new head.
    pub fn trained(&self) -> Vec<(String, Tensor)> {
        match &self.adapter {
            None => self.model.params.named(),
            Some(a) => a.params.named().into_iter().chain(self.model.params.trainable()).collect(),
        }
    }

    /// The parameters of the model, and of the adapter where there is one.
    pub fn stores(&self) -> impl Iterator<Item = &ParamStore> {
        [&self.model.params].into_iter().chain(self.adapter.as_ref().map(|a| &a.params))
    }

    /// Number of scalars in all, and of those that train.
    pub fn count(&self) -> (u64, u64) {
        self.stores().map(ParamStore::count).fold((0, 0), |a, c| (a.0 + c.0, a.1 + c.1))
    }

    /// Writes the folder; of an adapter only what it is itself.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs_err::create_dir_all(dir)?;
        match &self.adapter {
            None => self.model.save(dir)?,
            Some(a) => {
                a.save(dir, TaskType::SequenceClassification, &self.base)?;
                let path = dir.join(LABELS);
                let text = serde_json::to_vec_pretty(&self.labels)
                    .map_err(|source| ragduet_train::Error::Json { path: path.clone(), source })?;
                write_atomic(&path, &text)?;
                let head = self.model.params.trainable();
                if !head.is_empty() {
                    save_tensors(&dir.join(HEAD), &head, &[("format", "pt")])?;
                }
            }
        }
        Ok(self.tokenizer.save(dir)?)
    }

    /// Token ids of texts, cut to [`Classifier::max_tokens`] (of two texts, the longer one), and how many were cut.
    ///
    /// # Errors
    /// A text that is no token at all.
    pub fn encode(&self, texts: &[Text<'_>]) -> Result<(Vec<Encoding>, usize)> {
        let mut out: Vec<Encoding> = vec![Encoding::default(); texts.len()];
        let single: Vec<usize> = (0..texts.len()).filter(|&i| texts[i].1.is_none()).collect();
        let double: Vec<usize> = (0..texts.len()).filter(|&i| texts[i].1.is_some()).collect();
        let max_len = Some(self.max_tokens);
        // transformers does not strip, and it is what the folder is read with elsewhere.
        let options = EncodeOptions { max_len, strip: false, ..EncodeOptions::default() };
        let alone: Vec<&str> = single.iter().map(|&i| texts[i].0).collect();
        let (encodings, of_single) = self.tokenizer.encode_batch_counted(&alone, &options)?;
        for (&i, e) in single.iter().zip(encodings) {
            out[i] = e;
        }
        let options = PairOptions { max_len, strip: false, ..PairOptions::default() };
        let pairs: Vec<(&str, &str)> =
            double.iter().map(|&i| (texts[i].0, texts[i].1.unwrap_or_default())).collect();
        let (encodings, of_pairs) = self.tokenizer.encode_pairs_counted(&pairs, &options)?;
        for (&i, e) in double.iter().zip(encodings) {
            out[i] = e;
        }
        if let Some(i) = out.iter().position(Encoding::is_empty) {
            return Err(Error::Unusable(format!("text {} has no tokens: {:?}", i + 1, texts[i].0)));
        }
        Ok((out, (of_single.cut + of_pairs.cut) as usize))
    }

    /// Logits [texts, labels], f32.
    pub fn logits(&self, texts: &[&Encoding], mode: Mode) -> Tensor {
        let ids = texts.iter().map(|e| (e.ids.as_slice(), e.type_ids.as_slice()));
        self.model.forward(&PackedTokens::new(ids, self.device), mode)
    }

    /// The logits of each text without gradients, in batches of about `tokens` tokens, longest first. `done` is told
    /// how many texts a batch had.
    ///
    /// # Errors
    /// As [`Classifier::encode`]; memory that runs out.
    pub fn score(
        &self,
        texts: &[Text<'_>],
        tokens: usize,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>> {
        let (encodings, _) = self.encode(texts)?;
        self.score_encoded(&encodings, tokens, done)
    }

    /// [`Classifier::score`] of texts that are tokens already.
    ///
    /// # Errors
    /// Memory that runs out; weights that give no number.
    pub fn score_encoded(
        &self,
        encodings: &[Encoding],
        tokens: usize,
        done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<f64>>> {
        let mut order: Vec<usize> = (0..encodings.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(encodings[i].len()));
        let mut out = vec![Vec::new(); encodings.len()];
        let mut rest = order.as_slice();
        while let Some(&longest) = rest.first() {
            let (now, later) = rest.split_at((tokens / encodings[longest].len()).clamp(1, rest.len()));
            let batch: Vec<&Encoding> = now.iter().map(|&i| &encodings[i]).collect();
            let logits = catch("classifying", "take smaller batches", || -> Result<Vec<f64>> {
                let _guard = no_grad();
                let logits = self.logits(&batch, self.mode(false)).to_kind(Kind::Double).view(-1);
                Ok(Vec::try_from(logits.to_device(Device::Cpu)).map_err(ragduet_torch::Error::from)?)
            })?;
            if let Some(bad) = logits.iter().find(|x| !x.is_finite()) {
                return Err(Error::Unusable(format!(
                    "the classifier gave {bad}: its weights hold NaN or infinity, or overflow in this precision (try \
                     precision fp32)"
                )));
            }
            for (&i, row) in now.iter().zip(logits.chunks(logits.len() / now.len())) {
                out[i] = row.to_vec();
            }
            done(now.len());
            rest = later;
        }
        Ok(out)
    }

    /// What it says of each text.
    ///
    /// # Errors
    /// As [`Classifier::score`].
    pub fn classify(&self, texts: &[Text<'_>], tokens: usize) -> Result<Vec<Answer>> {
        Ok(self.score(texts, tokens, &mut |_| ())?.iter().map(|l| self.labels.answer(l)).collect())
    }

    /// What records ask for.
    ///
    /// # Errors
    /// A label that is none of the classifier's.
    pub fn targets(&self, records: &[LabelledRecord]) -> Result<Vec<Target>> {
        records.iter().enumerate().map(|(i, r)| self.labels.target(i, r)).collect()
    }

    /// How good it is on labelled records, and the logits of each.
    ///
    /// # Errors
    /// As [`Classifier::targets`] and [`Classifier::score`].
    pub fn evaluate(&self, records: &[LabelledRecord], tokens: usize) -> Result<(Scores, Vec<Vec<f64>>)> {
        let targets = self.targets(records)?;
        let logits = self.score(&texts(records), tokens, &mut |_| ())?;
        Ok((Scores::of(&self.labels, &targets, &logits)?, logits))
    }
}

/// The texts of records.
pub(crate) fn texts(records: &[LabelledRecord]) -> Vec<Text<'_>> {
    records.iter().map(|r| (r.text.as_str(), r.pair.as_deref())).collect()
}
