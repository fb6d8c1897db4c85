//! A cross-encoder: a classifier over pairs with one label.

use crate::{Error, Result};
use ragduet_classifier::{Classifier, LabelSet, Task, Text};
use ragduet_metrics::Run;
use ragduet_nn::hub;
use ragduet_nn::peft::PeftConfig;
use ragduet_retriever::evaluate::EvalSet;
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::{Pair, Teacher, TeacherConfig};
use ragduet_torch::{Compute, Device, device};
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
        match own.or_else(|| config.get("sbert_ce_default_activation_function")).and_then(Value::as_str) {
            None => Ok(Self::Sigmoid),
            Some(name) if name.ends_with(".Identity") => Ok(Self::Identity),
            Some(name) if name.ends_with(".Sigmoid") => Ok(Self::Sigmoid),
            Some(other) => Err(Error::Unusable(format!(
                "config.json: activation {other} is not known; Identity and Sigmoid are"
            ))),
        }
    }

    fn apply(self, logit: f64) -> f64 {
        match self {
            Self::Identity => logit,
            Self::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
        }
    }
}

/// A model that reads a question and a passage together and says how well they match.
#[derive(Debug)]
pub struct CrossEncoder {
    /// The model, its tokenizer and its one label.
    pub classifier: Classifier,
    /// Its scores.
    pub activation: Activation,
}

impl CrossEncoder {
    /// From a folder that sentence-transformers' `CrossEncoder` reads, or an adapter's.
    ///
    /// # Errors
    /// A folder that does not load, or a classifier with more than one label.
    pub fn load(dir: &Path, device: Device, compute: Compute) -> Result<Self> {
        let classifier = Classifier::load(dir, device, compute)?;
        let labels = classifier.labels.names.len();
        if labels != 1 {
            return Err(Error::Unusable(format!(
                "{}: a classifier with {labels} labels; a re-ranker has one",
                dir.display()
            )));
        }
        let activation = Activation::of(&classifier.model.config)?;
        Ok(Self { classifier, activation })
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
        Ok(Self::over(classifier, activation))
    }

    /// Over a classifier with one label.
    pub fn over(mut classifier: Classifier, activation: Activation) -> Self {
        if let Some(map) = classifier.model.config.as_object_mut() {
            let name = match activation {
                Activation::Identity => Activation::IDENTITY,
                Activation::Sigmoid => Activation::SIGMOID,
            };
            map.insert("sentence_transformers".into(), json!({"activation_fn": name, "version": "5.3.0"}));
            map.shift_remove("sbert_ce_default_activation_function");
        }
        Self { classifier, activation }
    }

    /// The logit of each pair, in batches of about `tokens` tokens. `done` is told how many pairs a batch had.
    ///
    /// # Errors
    /// A pair without tokens; memory that runs out.
    pub fn logits(&self, pairs: &[Pair<'_>], tokens: usize, done: &mut dyn FnMut(usize)) -> Result<Vec<f64>> {
        let texts: Vec<Text<'_>> = pairs.iter().map(|&(q, p)| (q, Some(p))).collect();
        let logits = self.classifier.score(&texts, tokens, done)?;
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
