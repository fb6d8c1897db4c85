//! The training methods as the command line has them: what each is called, and what is printed of its outcome.

use super::{Job, Retrieval, Summary, TrainJob, job, retrieval};
use anyhow::Result;
use ragduet_classifier::recipe::{ClassifierConfig, RewardConfig};
use ragduet_generator::recipe::config::{DistilConfig, PreferenceConfig, SftConfig, TfewConfig};
use ragduet_generator::recipe::{distil, preference, sft, tfew};
use ragduet_joint::recipe::config::JointConfig;
use ragduet_metrics::Evaluation;
use ragduet_reranker::cross_encoder_teacher;
use ragduet_reranker::recipe::config::CrossEncoderConfig;
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::contrastive;
use ragduet_retriever::recipe::contriever;
use ragduet_retriever::recipe::contriever::ContrieverConfig;
use ragduet_train::{Evaluated, Outcome, RunOptions};
use serde_json::{Map, Value, json};
use std::path::Path;

/// All training methods. A new one is a row here and a [`TrainJob`].
pub static JOBS: &[Job] = &[
    job::<RetrieverConfig>(),
    job::<ContrieverConfig>(),
    job::<SftConfig>(),
    job::<DistilConfig>(),
    job::<PreferenceConfig>(),
    job::<TfewConfig>(),
    job::<ClassifierConfig>(),
    job::<RewardConfig>(),
    job::<CrossEncoderConfig>(),
    job::<JointConfig>(),
];

/// What all outcomes have, with measures before and after as a table. `unit`: what the speed counts.
fn summary<S>(o: &Outcome<S>, unit: &str) -> Summary {
    let named = |e: &Option<Evaluated<S>>| -> Value {
        e.as_ref().map_or(Value::Null, |e| {
            e.named.iter().map(|(n, v)| (n.clone(), json!(v))).collect::<Map<_, _>>().into()
        })
    };
    let json = Map::from_iter([
        ("before".to_string(), named(&o.before)),
        ("best".into(), named(&o.best)),
        (format!("{unit}_per_second"), json!(o.units_per_second)),
    ]);
    let columns = [("before", &o.before), ("best", &o.best)];
    let columns: Vec<(&str, &[(String, f64)])> =
        columns.iter().filter_map(|(n, e)| Some((*n, e.as_ref()?.named.as_slice()))).collect();
    let mut lines = table(&columns);
    // A run that had come to its end trains nothing.
    if o.units_per_second > 0.0 {
        lines.push(format!("{:.1} {unit}/s", o.units_per_second));
    }
    Summary {
        step: o.step,
        finished: o.finished,
        model: o.model_dir.clone(),
        bad_rows: o.bad_rows,
        json,
        lines,
    }
}

impl Summary {
    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.json.insert(key.into(), value.into());
        self
    }

    fn line(mut self, line: String) -> Self {
        self.lines.push(line);
        self
    }
}

impl TrainJob for RetrieverConfig {
    const NAME: &'static str = "retriever";
    const ABOUT: &'static str = "Train a retriever: dense, late interaction (ColBERT) or sparse (SPLADE); contrastive, or \
                                 by distillation";
    const EXAMPLE: &'static str =
        "ragduet train retriever -c configs/retriever/covid-qa.toml --set optim.lr=3e-5 --out runs/covid";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        let o = contrastive::train_with(self, options, cross_encoder_teacher(self)?)?;
        Ok(summary(&o, "pairs"))
    }
}

impl TrainJob for ContrieverConfig {
    const NAME: &'static str = "contriever";
    const ABOUT: &'static str =
        "Train a dense retriever from plain text, without queries or judgements (Contriever)";
    const EXAMPLE: &'static str =
        "ragduet train contriever -c configs/contriever/maravel.toml --out runs/unsupervised";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        Ok(summary(&contriever::train(self, options)?, "pairs"))
    }
}

impl TrainJob for SftConfig {
    const NAME: &'static str = "generator";
    const ABOUT: &'static str =
        "Fine-tune a generator on questions, retrieved passages and answers (supervised)";
    const EXAMPLE: &'static str =
        "ragduet train generator -c configs/generator/quickstart.toml --out runs/reader";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        Ok(answers(&sft::train(self, options)?))
    }

    fn retrieve(&mut self, r: &Retrieval, out: &Path, quiet: bool) -> Result<()> {
        retrieval::retrieve(r, self, out, quiet)
    }
}

fn answers(o: &sft::Outcome) -> Summary {
    summary(&o.run, "tokens")
        .with("prepared", json!(o.prepared))
        .with("targets_per_second", o.targets_per_second)
        .line(o.prepared.to_string())
}

impl TrainJob for DistilConfig {
    const NAME: &'static str = "distil";
    const ABOUT: &'static str =
        "Distil a larger generator into a smaller one: by its distribution over tokens, or its answers";
    const EXAMPLE: &'static str = "ragduet train distil -c configs/generator/distil.toml --out runs/student";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        let o = distil::train(self, options)?;
        let of_student = answers(&o.student);
        Ok(match o.teacher {
            None => of_student,
            Some(s) => of_student.with("teacher", json!(s)).line(format!("teacher: {s}")),
        })
    }
}

impl TrainJob for PreferenceConfig {
    const NAME: &'static str = "preference";
    const ABOUT: &'static str =
        "Preference optimization of a generator: DPO and its variants, ORPO, SimPO, KTO";
    const EXAMPLE: &'static str = "ragduet train preference -c configs/generator/dpo.toml --out runs/dpo";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        let o = preference::train(self, options)?;
        let line = format!("{} rows ({} too long and left out)", o.pairs.0, o.pairs.1);
        Ok(summary(&o.run, "pairs").with("pairs", o.pairs.0).with("too_long", o.pairs.1).line(line))
    }
}

impl TrainJob for TfewConfig {
    const NAME: &'static str = "tfew";
    const ABOUT: &'static str = "Few-shot fine-tuning of a generator on records with answer choices (T-Few)";
    const EXAMPLE: &'static str = "ragduet train tfew -c configs/generator/tfew.toml --out runs/tfew";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        let o = tfew::train(self, options)?;
        let line = format!("{} records ({} too long and left out)", o.records.0, o.records.1);
        Ok(summary(&o.run, "records").with("records", o.records.0).with("too_long", o.records.1).line(line))
    }
}

impl TrainJob for ClassifierConfig {
    const NAME: &'static str = "classifier";
    const ABOUT: &'static str =
        "Fine-tune an encoder or a decoder-only model to classify texts or pairs of texts";
    const EXAMPLE: &'static str =
        "ragduet train classifier -c configs/classifier/text.toml --out runs/topics";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        let o = ragduet_classifier::recipe::train(self, options)?;
        let (texts, cut) = o.texts;
        Ok(summary(&o.run, "texts")
            .with("labels", json!(o.labels.names))
            .with("texts", texts)
            .with("cut", cut)
            .line(format!("{texts} texts ({cut} truncated)")))
    }
}

impl TrainJob for RewardConfig {
    const NAME: &'static str = "reward";
    const ABOUT: &'static str = "Train a reward model on preferences (Bradley-Terry loss)";
    const EXAMPLE: &'static str = "ragduet train reward -c configs/reward/preferences.toml --out runs/reward";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        let o = ragduet_classifier::recipe::train_reward(self, options)?;
        let (pairs, cut) = o.pairs;
        let line = format!("{pairs} pairs ({cut} answers truncated)");
        Ok(summary(&o.run, "pairs").with("cut", cut).line(line))
    }
}

impl TrainJob for CrossEncoderConfig {
    const NAME: &'static str = "cross-encoder";
    const ABOUT: &'static str = "Train a cross-encoder to re-rank what a first-stage retriever finds";
    const EXAMPLE: &'static str =
        "ragduet train cross-encoder -c configs/reranker/covid-qa.toml --out runs/cross";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        let o = ragduet_reranker::recipe::train(self, options)?;
        let mut all = summary(&o.run, "pairs");
        if let Some(first) = &o.first_stage {
            let named: Vec<(String, f64)> = first.mean.iter().map(|(m, v)| (m.to_string(), v)).collect();
            let json: Map<String, Value> = named.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
            all.json.insert("first_stage".into(), json.into());
            all.lines.splice(0..0, table(&[("first stage", &named)]));
        }
        Ok(all)
    }
}

impl TrainJob for JointConfig {
    const NAME: &'static str = "joint";
    const ABOUT: &'static str = "Train a retriever and a generator together, each from the other's results";
    const EXAMPLE: &'static str = "ragduet train joint -c configs/joint/quickstart.toml --out runs/joint";

    fn check(&self) -> Result<()> {
        Ok(self.validate()?)
    }

    fn train(&self, options: &RunOptions) -> Result<Summary> {
        let o = ragduet_joint::recipe::train(self, options)?;
        let mut all = summary(&o.run, "questions")
            .with("seconds", json!(o.seconds))
            .with("left_out", json!(o.prepared.left_out))
            .line(format!("time: {}", o.seconds));
        all.lines.extend(o.prepared.left_out.iter().map(|(why, n)| format!("left out {n} times: {why}")));
        Ok(all)
    }
}

/// Measures as rows, systems as columns.
fn table(columns: &[(&str, &[(String, f64)])]) -> Vec<String> {
    let Some((_, first)) = columns.first() else { return Vec::new() };
    let head: String = columns.iter().map(|(n, _)| format!("{n:>14}")).collect();
    let mut out = vec![format!("{:<24}{head}", "")];
    out.extend(first.iter().map(|(name, _)| {
        let value = |all: &[(String, f64)]| all.iter().find(|(n, _)| n == name).map_or(f64::NAN, |(_, v)| *v);
        let row: String = columns.iter().map(|(_, all)| format!("{:>14.4}", value(all))).collect();
        format!("{:<24}{row}", name.replace('_', " "))
    }));
    out
}

/// Prints measures as rows, systems as columns; those that were not measured are left out.
pub fn print_table(columns: &[(&str, Option<&Evaluation>)]) {
    let named: Vec<(&str, Vec<(String, f64)>)> = columns
        .iter()
        .filter_map(|(n, e)| Some((*n, (*e)?.mean.iter().map(|(m, v)| (m.to_string(), v)).collect())))
        .collect();
    let columns: Vec<(&str, &[(String, f64)])> = named.iter().map(|(n, v)| (*n, v.as_slice())).collect();
    table(&columns).iter().for_each(|line| println!("{line}"));
}
