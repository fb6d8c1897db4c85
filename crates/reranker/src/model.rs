//! A cross-encoder: a classifier over pairs with one label.

use crate::pairs::{Modules, PairTemplate};
use crate::{Error, Result};
use ragduet_classifier::{Classifier, LabelSet, Task, Text};
use ragduet_metrics::Run;
use ragduet_nn::hub;
use ragduet_nn::peft::PeftConfig;
use ragduet_retriever::evaluate::EvalSet;
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::{Pair, Teacher, TeacherConfig};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Kind, device, no_grad};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

/// What makes a score of the logit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The logit itself.
    Identity,
    /// Between 0 and 1.
    Sigmoid,
}

impl Activation {
    const IDENTITY: &'static str = "torch.nn.modules.linear.Identity";
    const SIGMOID: &'static str = "torch.nn.modules.activation.Sigmoid";

    /// As sentence-transformers finds it in `config.json`: its own entry, that of versions before 4, else the sigmoid.
    fn of(config: &Value) -> Result<Self> {
        let own = config.pointer("/sentence_transformers/activation_fn");
        Self::named(own.or_else(|| config.get("sbert_ce_default_activation_function")))
    }

    fn named(name: Option<&Value>) -> Result<Self> {
        match name.and_then(Value::as_str) {
            None => Ok(Self::Sigmoid),
            Some(name) if name.ends_with(".Identity") => Ok(Self::Identity),
            Some(name) if name.ends_with(".Sigmoid") => Ok(Self::Sigmoid),
            Some(other) => {
                Err(Error::Unusable(format!("activation_fn {other} is not known; Identity and Sigmoid are")))
            }
        }
    }

    fn apply(self, logit: f64) -> f64 {
        match self {
            Self::Identity => logit,
            Self::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
        }
    }
}

/// A language model as a classifier with one label: its output layer's rows of two tokens, less one another, are the
/// head, so that its logit is the difference of theirs at the last token.
fn of_language_model(
    dir: &Path,
    (yes, no): (u32, Option<u32>),
    device: Device,
    compute: Compute,
) -> Result<Classifier> {
    let labels = LabelSet::given(Task::Regression, vec!["LABEL_0".into()])?;
    let classifier = Classifier::with_labels(dir, device, compute, Some(labels))?;
    let config = &classifier.model.config;
    if let Some(cap) = config.get("final_logit_softcapping").filter(|v| !v.is_null()) {
        return Err(Error::Unusable(format!(
            "{}: final_logit_softcapping {cap} beside LogitScore is not supported",
            dir.display()
        )));
    }
    let weights = Weights::open_dir(dir)?;
    let tied = config.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false);
    let head = if tied {
        None
    } else {
        weights.names().find(|n| *n == "lm_head.weight" || *n == "embed_out.weight")
    };
    let table = weights.names().find(|n| n.ends_with("embed_tokens.weight") || n.ends_with("wte.weight"));
    let Some(name) = head.or(table) else {
        return Err(Error::Unusable(format!(
            "{}: no output layer, whose logits LogitScore reads",
            dir.display()
        )));
    };
    let _guard = no_grad();
    let rows = weights.load(name, device)?;
    let count = rows.size()[0];
    let row = |id: u32| match i64::from(id) < count {
        true => Ok(rows.narrow(0, i64::from(id), 1).to_kind(Kind::Float)),
        false => Err(Error::Unusable(format!("LogitScore's token {id} is beyond the vocabulary of {count}"))),
    };
    let score = match no {
        Some(no) => row(yes)? - row(no)?,
        None => row(yes)?,
    };
    let Some(to) = classifier.model.params.get("score.weight") else {
        return Err(Error::Unusable(format!(
            "{}: LogitScore over this architecture is not supported",
            dir.display()
        )));
    };
    to.shallow_clone().copy_(&score);
    Ok(classifier)
}

/// A model that reads a question and a passage together and says how well they match.
#[derive(Debug)]
pub struct CrossEncoder {
    /// The model, its tokenizer and its one label.
    pub classifier: Classifier,
    /// Its scores.
    pub activation: Activation,
    /// How pairs are read, where not as two texts.
    reading: Reading,
}

/// How pairs are read.
#[derive(Debug, Default)]
struct Reading {
    /// By a chat template.
    template: Option<PairTemplate>,
    /// What is put in front of the question, without one.
    prompt: String,
}

impl CrossEncoder {
    /// From a folder that sentence-transformers' `CrossEncoder` reads, or an adapter's.
    ///
    /// # Errors
    /// A folder that does not load, or a classifier with more than one label.
    pub fn load(dir: &Path, device: Device, compute: Compute) -> Result<Self> {
        let modules = Modules::read(dir)?;
        let folder = &modules.transformer;
        let classifier = match modules.score {
            None => Classifier::load(folder, device, compute)?,
            Some(tokens) => of_language_model(folder, tokens, device, compute)?,
        };
        let labels = classifier.labels.names.len();
        if labels != 1 {
            return Err(Error::Unusable(format!(
                "{}: a classifier with {labels} labels; a re-ranker has one",
                dir.display()
            )));
        }
        let activation = match &modules.activation {
            Some(_) => Activation::named(modules.activation.as_ref())?,
            None => Activation::of(&classifier.model.config)?,
        };
        let reading = match modules.chat {
            None => Reading { template: None, prompt: modules.prompt },
            Some(chat) => {
                let template = PairTemplate::new(&classifier.tokenizer, chat, modules.prompt)?;
                Reading { template: Some(template), prompt: String::new() }
            }
        };
        if !dir.join("modules.json").is_file() && classifier.tokenizer.chat_template()?.is_some() {
            tracing::warn!(
                "{}: the tokenizer has a chat template, by which sentence-transformers 6 would render pairs; here, in \
                 version 5 and in training they are two texts",
                dir.display()
            );
        }
        Ok(Self { classifier, activation, reading })
    }

    /// From a folder of any encoder or decoder-only model: where it is no cross-encoder, its head is drawn from the global
    /// generators.
    ///
    /// # Errors
    /// As [`CrossEncoder::load`].
    pub fn from_base(
        dir: &Path,
        device: Device,
        compute: Compute,
        peft: Option<&PeftConfig>,
        activation: Activation,
    ) -> Result<Self> {
        // The name that transformers gives the only label, so that a cross-encoder's head goes on.
        let labels = LabelSet::given(Task::Regression, vec!["LABEL_0".into()])?;
        let mut classifier = Classifier::with_labels(dir, device, compute, Some(labels))?;
        match peft {
            Some(peft) => classifier.adapt(peft)?,
            None => classifier.model.params.set_trainable(|_| true),
        }
        Self::over(classifier, activation)
    }

    /// Over a classifier with one label. Pairs are two texts; a chat template, by which sentence-transformers 6 would render
    /// them, is left out of the folder.
    ///
    /// # Errors
    /// A broken tokenizer_config.json.
    pub fn over(mut classifier: Classifier, activation: Activation) -> Result<Self> {
        classifier.tokenizer = classifier.tokenizer.without_chat_template()?;
        if let Some(map) = classifier.model.config.as_object_mut() {
            let name = match activation {
                Activation::Identity => Activation::IDENTITY,
                Activation::Sigmoid => Activation::SIGMOID,
            };
            map.insert("sentence_transformers".into(), json!({"activation_fn": name, "version": "5.3.0"}));
            map.shift_remove("sbert_ce_default_activation_function");
        }
        Ok(Self { classifier, activation, reading: Reading::default() })
    }

    /// The logit of each pair, in batches of about `tokens` tokens. `done` is told how many pairs a batch had.
    ///
    /// # Errors
    /// A pair without tokens; memory that runs out.
    pub fn logits(&self, pairs: &[Pair<'_>], tokens: usize, done: &mut dyn FnMut(usize)) -> Result<Vec<f64>> {
        let c = &self.classifier;
        let logits = match &self.reading.template {
            Some(template) => {
                let encodings = template.encode(&c.tokenizer, pairs, c.max_tokens)?;
                c.score_encoded(&encodings, tokens, done)?
            }
            None => {
                let prompt = &self.reading.prompt;
                let questions: Vec<String> = pairs.iter().map(|(q, _)| format!("{prompt}{q}")).collect();
                let texts: Vec<Text<'_>> =
                    questions.iter().zip(pairs).map(|(q, (_, p))| (q.as_str(), Some(*p))).collect();
                c.score(&texts, tokens, done)?
            }
        };
        Ok(logits.into_iter().filter_map(|row| row.first().copied()).collect())
    }

    /// The score of each pair, as sentence-transformers' `predict` gives it.
    ///
    /// # Errors
    /// As [`CrossEncoder::logits`].
    pub fn scores(&self, pairs: &[Pair<'_>], tokens: usize) -> Result<Vec<f64>> {
        let logits = self.logits(pairs, tokens, &mut |_| ())?;
        Ok(logits.into_iter().map(|l| self.activation.apply(l)).collect())
    }

    /// The order of passages for a question, best first: (place, logit). Equal logits keep their order.
    ///
    /// # Errors
    /// As [`CrossEncoder::logits`].
    pub fn order(&self, question: &str, passages: &[&str], tokens: usize) -> Result<Vec<(usize, f64)>> {
        let pairs: Vec<Pair<'_>> = passages.iter().map(|p| (question, *p)).collect();
        let mut out: Vec<(usize, f64)> =
            self.logits(&pairs, tokens, &mut |_| ())?.into_iter().enumerate().collect();
        out.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(out)
    }

    /// A ranking with the best `depth` passages of each question in this model's order, and what followed them behind, in
    /// the order that it had. Texts by name. `done` is told how many pairs a batch had.
    ///
    /// # Errors
    /// A name that has no text; those of [`CrossEncoder::logits`].
    pub fn rerank(
        &self,
        run: &Run,
        questions: &HashMap<&str, &str>,
        passages: &HashMap<&str, &str>,
        depth: usize,
        tokens: usize,
        done: &mut dyn FnMut(usize),
    ) -> Result<Run> {
        let text = |of: &HashMap<&str, &str>, what: &str, id: &str| {
            let text = of.get(id).map(|t| (*t).to_string());
            text.ok_or_else(|| Error::Unusable(format!("the ranking names {what} `{id}`, which has no text")))
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (query, docs) in run.iter() {
            let question = text(questions, "question", query)?;
            for (doc, _) in docs.iter().take(depth) {
                pairs.push((question.clone(), text(passages, "passage", doc)?));
            }
        }
        let borrowed: Vec<Pair<'_>> = pairs.iter().map(|(q, p)| (q.as_str(), p.as_str())).collect();
        let mut logits = self.logits(&borrowed, tokens, done)?.into_iter();
        let mut out = Run::new();
        for (query, docs) in run.iter() {
            let head = docs.len().min(depth);
            let mut new: Vec<(String, f32)> = docs[..head]
                .iter()
                .zip(logits.by_ref())
                .map(|((doc, _), logit)| (doc.clone(), logit as f32))
                .collect();
            let least = new.iter().map(|(_, s)| *s).fold(0.0f32, f32::min);
            new.extend(
                docs[head..].iter().enumerate().map(|(i, (d, _))| (d.clone(), least - 1.0 - i as f32)),
            );
            out.insert(query, new)?;
        }
        Ok(out)
    }

    /// [`CrossEncoder::rerank`] with the texts of a set.
    ///
    /// # Errors
    /// As there.
    pub fn rerank_set(
        &self,
        set: &EvalSet,
        run: &Run,
        depth: usize,
        tokens: usize,
        done: &mut dyn FnMut(usize),
    ) -> Result<Run> {
        self.rerank(run, &by_name(&set.queries), &by_name(&set.passages), depth, tokens, done)
    }

    /// Writes the folder.
    ///
    /// # Errors
    /// Where the folder cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        Ok(self.classifier.save(dir)?)
    }
}

/// Tokens of a forward pass of a teacher.
const TEACHING: usize = 16_384;

/// The cross-encoder that a retriever's config names as its teacher, for [`contrastive::train_with`]: the retriever's crate
/// knows none.
///
/// # Errors
/// A device that is not there, a folder that does not load.
///
/// [`contrastive::train_with`]: ragduet_retriever::recipe::contrastive::train_with
pub fn cross_encoder_teacher(config: &RetrieverConfig) -> Result<Option<Box<dyn Teacher>>> {
    let Some(TeacherConfig::CrossEncoder(named)) = &config.teacher else { return Ok(None) };
    let device = device::parse(&config.run.device)?;
    let dir = hub::resolve(&named.path)?;
    Ok(Some(Box::new(CrossEncoder::load(&dir, device, config.run.precision.resolve(device))?)))
}

impl Teacher for CrossEncoder {
    fn scores(&self, pairs: &[Pair<'_>]) -> ragduet_retriever::Result<Vec<f32>> {
        let logits = self
            .logits(pairs, TEACHING, &mut |_| ())
            .map_err(|e| ragduet_retriever::Error::Teacher(Box::new(e)))?;
        Ok(logits.into_iter().map(|l| l as f32).collect())
    }
}

fn by_name(all: &[(String, String)]) -> HashMap<&str, &str> {
    all.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect()
}
