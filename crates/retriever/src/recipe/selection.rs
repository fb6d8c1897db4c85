//! What a run is measured on while it trains, and `best/`: the folder of the model that did best.

use super::config::EvalConfig;
use super::state::write_json;
use crate::Result;
use crate::biencoder::BiEncoder;
use crate::card::{CardFacts, model_card};
use crate::encode::EncodeSettings;
use crate::evaluate::{EvalSet, evaluate_model};
use crate::st_dir;
use crate::tower::Tower;
use ragduet_data::{BadRowPolicy, BadRows, ReadOptions};
use ragduet_metrics::Evaluation;
use ragduet_train::checkpoint::replace_dir;
use ragduet_train::{EarlyStopping, MetricSink};
use std::path::{Path, PathBuf};

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Whether all planned steps were done or early stopping ended the run (and not an interruption).
    pub finished: bool,
    /// The best model's folder (the last one's, where there is no dev set).
    pub model_dir: PathBuf,
    /// The dev set before training.
    pub before: Option<Evaluation>,
    /// The dev set with the best model.
    pub best: Option<Evaluation>,
    /// Training pairs per second, evaluation and mining left out.
    pub pairs_per_second: f64,
}

/// What the model card says of the run.
#[derive(Debug)]
pub(super) struct Facts {
    /// The folder or hub id that training started from; none: random weights.
    pub base: Option<String>,
    /// The training data.
    pub data: String,
    /// Examples in it.
    pub examples: usize,
    /// The resolved config.
    pub config: String,
}

/// The dev set, where there is one, and what was measured on it.
#[derive(Debug)]
pub(super) struct Selection<'a> {
    /// The run folder.
    pub run: &'a Path,
    pub eval: &'a EvalConfig,
    pub dev: Option<EvalSet>,
    pub facts: Facts,
    /// Before training.
    pub before: Option<Evaluation>,
    /// With the best model.
    pub best: Option<Evaluation>,
}

impl Selection<'_> {
    /// How texts are encoded outside of training steps.
    pub fn encode(&self) -> EncodeSettings {
        EncodeSettings { batch_tokens: self.eval.batch_tokens, ..EncodeSettings::default() }
    }

    fn evaluate(&self, model: &BiEncoder) -> Result<Option<Evaluation>> {
        let Some(dev) = &self.dev else { return Ok(None) };
        let e = self.eval;
        let (evaluation, _) =
            evaluate_model(model, dev, &e.measures, e.depth, &self.encode(), &mut |_, _| ())?;
        Ok(Some(evaluation))
    }

    /// Measures the model that training starts from.
    pub fn evaluate_start(&mut self, model: &BiEncoder) -> Result<()> {
        self.before = self.evaluate(model)?;
        report("before training", self.before.as_ref());
        Ok(())
    }

    /// Evaluates, logs, keeps the model if it is the best; whether patience is at its end.
    pub fn evaluate_and_keep_best(
        &mut self,
        model: &BiEncoder,
        sink: &mut MetricSink,
        stopping: &mut EarlyStopping,
        step: u64,
    ) -> Result<bool> {
        let Some(evaluation) = self.evaluate(model)? else { return Ok(false) };
        report(&format!("at step {step}"), Some(&evaluation));
        let named: Vec<(String, f64)> = evaluation.mean.iter().map(|(m, v)| (m.to_string(), v)).collect();
        let values: Vec<(&str, f64)> = named.iter().map(|(m, v)| (m.as_str(), *v)).collect();
        sink.write("dev", step, &values)?;
        let main = evaluation.mean(self.eval.measures[0]).unwrap_or(f64::NAN);
        let min_gain = self.eval.stop.map_or(0.0, |s| s.min_gain);
        if stopping.update(main, step, min_gain) {
            self.save(model, step, Some(&evaluation))?;
            self.best = Some(evaluation);
        }
        Ok(stopping.should_stop(self.eval.stop.as_ref()))
    }

    /// Writes `best/`: the model as the ecosystem reads it, its card, its figures; and checks the files.
    pub fn save(&self, model: &BiEncoder, step: u64, evaluation: Option<&Evaluation>) -> Result<()> {
        let name = self.run.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let card = model_card(
            model,
            &CardFacts {
                name: &name,
                base: self.facts.base.as_deref().unwrap_or("random weights"),
                data: &self.facts.data,
                examples: self.facts.examples,
                step,
                config: &self.facts.config,
                before: self.before.as_ref(),
                after: evaluation,
                measures: &self.eval.measures,
            },
        );
        let texts: Vec<String> =
            ["what is it?", "A longer passage, with a comma, 12 numbers and some unusual words: zyxomma."]
                .map(String::from)
                .to_vec();
        replace_dir(&self.run.join("best"), |d| {
            st_dir::save(model, d, Some(&card))?;
            st_dir::verify(model, d, &texts)
        })?;
        let facts = serde_json::json!({"step": step, "mean": evaluation.map(|e| &e.mean)});
        write_json(&self.run.join("best.json"), &facts)
    }

    /// What the run came to.
    pub fn outcome(self, step: u64, finished: bool, pairs_per_second: f64) -> Outcome {
        let model_dir = self.run.join("best");
        Outcome { step, finished, model_dir, before: self.before, best: self.best, pairs_per_second }
    }
}

fn report(when: &str, evaluation: Option<&Evaluation>) {
    if let Some(e) = evaluation {
        let text: Vec<String> = e.mean.iter().map(|(m, v)| format!("{m} {v:.4}")).collect();
        tracing::info!("dev {when}: {}", text.join("  "));
    }
}

/// What happens to bad rows: an error, or a file in the run folder.
pub(super) fn bad_rows(skip: bool, run: &Path) -> BadRows {
    BadRows::new(if skip {
        BadRowPolicy::Skip { sidecar: run.join("bad_rows.jsonl") }
    } else {
        BadRowPolicy::Fail
    })
}

/// Reads what is evaluated on.
pub(super) fn read_dev(
    path: Option<&Path>,
    split: &str,
    eval: &EvalConfig,
    seed: u64,
    bad: &BadRows,
) -> Result<Option<EvalSet>> {
    let options = ReadOptions { split: Some(split.into()), ..ReadOptions::default() };
    path.map(|path| EvalSet::read(path, &options, eval.max_passages, seed, bad)).transpose()
}

/// "n of m parameters train", with the model's place and precision.
pub(super) fn parameters_line(model: &BiEncoder) -> String {
    let resting: u64 = model.towers().map(Tower::resting).sum();
    let (all, training) = model.parameters().iter().fold((resting, 0), |(a, t), (_, p)| {
        let n = p.numel() as u64;
        (a + n, t + if p.requires_grad() { n } else { 0 })
    });
    let share = 100.0 * training as f64 / all.max(1) as f64;
    format!("{training} of {all} parameters train ({share:.1} %); {} on {:?}", model.compute, model.device)
}
