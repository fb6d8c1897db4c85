//! Training: a function and a config per method, as `ragduet train` has them.
//!
//! A config is TOML with the keys of `docs/config`: read from a file ([`load_config`]) or a text ([`parse_config`]); its
//! fields can be changed afterwards. A run writes its folder: `best/` (the model), checkpoints, metrics. Messages go to
//! `tracing`.
//!
//! ```no_run
//! use ragduet::train::{self, RetrieverConfig, RunOptions};
//!
//! let mut config: RetrieverConfig = train::load_config("configs/retriever/own-data.toml", &["optim.lr=3e-5"])?;
//! config.run.epochs = Some(3.0);
//! let outcome = train::retriever(&config, &RunOptions::new("runs/mine"))?;
//! println!("{} steps, ndcg@10 {:?}", outcome.step, outcome.score("ndcg@10"));
//! # Ok::<(), ragduet::Error>(())
//! ```

use crate::Result;
use crate::loss::RetrievalLoss;
pub use ragduet_classifier::recipe::ClassifierConfig;
pub use ragduet_generator::recipe::config::{DistilConfig, PreferenceConfig, SftConfig, TfewConfig};
use ragduet_generator::recipe::{distil as distilling, preference as preferring, sft, tfew as choosing};
pub use ragduet_joint::recipe::config::JointConfig;
use ragduet_reranker::cross_encoder_teacher;
pub use ragduet_reranker::recipe::config::CrossEncoderConfig;
pub use ragduet_retriever::recipe::config::RetrieverConfig;
pub use ragduet_retriever::recipe::contriever::ContrieverConfig;
use ragduet_retriever::recipe::{contrastive, contriever as unsupervised};
use ragduet_train::Evaluated;
pub use ragduet_train::RunOptions;
use ragduet_train::config::{self, Config};
use std::path::{Path, PathBuf};

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Optimizer steps done.
    pub step: u64,
    /// Whether the run came to its end (all steps, or early stopping); otherwise it was interrupted, and
    /// [`RunOptions::resume`] goes on with it.
    pub finished: bool,
    /// `best/` of the run folder: the best model by the dev set, the last one without a dev set. `None` where an interrupted
    /// run has written none yet.
    pub model: Option<PathBuf>,
    /// The dev set's scores by name before training; empty where they were not measured.
    pub before: Vec<(String, f64)>,
    /// Those of the best model.
    pub best: Vec<(String, f64)>,
    /// Rows of the data that were bad and moved aside (`data.skip_bad_rows`).
    pub bad_rows: u64,
    /// What the method counted: examples, and what was left out or truncated.
    pub notes: Vec<String>,
}

impl Outcome {
    /// A score of the best model by its name, such as `ndcg@10`.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.best.iter().find(|(n, _)| n == name).map(|(_, value)| *value)
    }

    fn new<S>(run: ragduet_train::Outcome<S>, notes: Vec<String>) -> Self {
        let named = |e: Option<Evaluated<S>>| e.map(|e| e.named).unwrap_or_default();
        Self {
            step: run.step,
            finished: run.finished,
            model: run.model_dir,
            before: named(run.before),
            best: named(run.best),
            bad_rows: run.bad_rows,
            notes,
        }
    }
}

/// Reads a config file (with what it `extends`) and applies overrides: `load_config(path, &["optim.lr=3e-5"])`.
///
/// # Errors
/// A key that is not known, a value of the wrong type: with file, line and column, or the override.
pub fn load_config<C: Config>(path: impl AsRef<Path>, overrides: &[&str]) -> Result<C> {
    let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_string()).collect();
    Ok(config::load(path.as_ref(), &overrides)?)
}

/// Reads a config from TOML text.
///
/// # Errors
/// As [`load_config`], with line and column.
pub fn parse_config<C: Config>(toml: &str) -> Result<C> {
    let wrong = |e: ragduet_train::toml::de::Error| ragduet_train::Error::Config {
        origin: "the config's text".into(),
        message: e.to_string(),
    };
    Ok(C::from_toml(toml).map_err(wrong)?)
}

/// Trains a retriever of any kind (dense, late interaction, sparse) on questions and passages.
///
/// # Errors
/// Settings, data or models that do not fit; a run folder that holds another run; a loss that is no number; memory.
pub fn retriever(config: &RetrieverConfig, options: &RunOptions) -> Result<Outcome> {
    let teacher = cross_encoder_teacher(config)?;
    Ok(Outcome::new(contrastive::train_with(config, options, teacher)?, Vec::new()))
}

/// [`retriever()`] with a loss of your own, instead of `[loss]` of the config; see [`crate::loss`]. The run folder does not
/// hold its settings: resume with the same loss.
///
/// # Errors
/// As there; a config that chooses a loss as well.
pub fn retriever_with_loss(
    config: &RetrieverConfig,
    options: &RunOptions,
    loss: Box<dyn RetrievalLoss>,
) -> Result<Outcome> {
    let teacher = cross_encoder_teacher(config)?;
    Ok(Outcome::new(contrastive::train_with_loss(config, options, teacher, loss)?, Vec::new()))
}

/// Trains a dense retriever from plain text, without questions (Contriever).
///
/// # Errors
/// As [`retriever()`].
pub fn contriever(config: &ContrieverConfig, options: &RunOptions) -> Result<Outcome> {
    Ok(Outcome::new(unsupervised::train(config, options)?, Vec::new()))
}

/// Fine-tunes a generator on questions, passages and answers (supervised).
///
/// # Errors
/// As [`retriever()`].
pub fn generator(config: &SftConfig, options: &RunOptions) -> Result<Outcome> {
    Ok(answers(sft::train(config, options)?))
}

fn answers(o: sft::Outcome) -> Outcome {
    let notes = vec![o.prepared.to_string()];
    Outcome::new(o.run, notes)
}

/// Distils a larger generator into a smaller one.
///
/// # Errors
/// As [`retriever()`].
pub fn distil(config: &DistilConfig, options: &RunOptions) -> Result<Outcome> {
    Ok(answers(distilling::train(config, options)?.student))
}

/// Optimizes a generator by preferences (DPO and its variants, ORPO, SimPO, KTO).
///
/// # Errors
/// As [`retriever()`].
pub fn preference(config: &PreferenceConfig, options: &RunOptions) -> Result<Outcome> {
    let o = preferring::train(config, options)?;
    Ok(Outcome::new(o.run, counted("rows", o.pairs, "too long and left out")))
}

/// Fine-tunes a generator on few records with answer choices (T-Few).
///
/// # Errors
/// As [`retriever()`].
pub fn tfew(config: &TfewConfig, options: &RunOptions) -> Result<Outcome> {
    let o = choosing::train(config, options)?;
    Ok(Outcome::new(o.run, counted("records", o.records, "too long and left out")))
}

/// Fine-tunes an encoder or a decoder-only model to classify texts or pairs of texts.
///
/// # Errors
/// As [`retriever()`].
pub fn classifier(config: &ClassifierConfig, options: &RunOptions) -> Result<Outcome> {
    let o = ragduet_classifier::recipe::train(config, options)?;
    Ok(Outcome::new(o.run, counted("texts", o.texts, "truncated")))
}

fn counted(what: &str, (all, some): (usize, usize), how: &str) -> Vec<String> {
    vec![format!("{all} {what}, {some} {how}")]
}

/// Trains a cross-encoder to re-rank what a first-stage retriever finds.
///
/// # Errors
/// As [`retriever()`].
pub fn cross_encoder(config: &CrossEncoderConfig, options: &RunOptions) -> Result<Outcome> {
    Ok(Outcome::new(ragduet_reranker::recipe::train(config, options)?.run, Vec::new()))
}

/// Trains a retriever and a generator together; [`Pipeline::open`](crate::Pipeline::open) opens the result.
///
/// # Errors
/// As [`retriever()`].
pub fn joint(config: &JointConfig, options: &RunOptions) -> Result<Outcome> {
    let o = ragduet_joint::recipe::train(config, options)?;
    let notes = o.prepared.left_out.iter().map(|(why, n)| format!("left out {n} times: {why}"));
    Ok(Outcome::new(o.run, notes.collect()))
}
