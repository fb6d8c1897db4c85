//! `ragduet classify`, and `ragduet eval classifier`.

use crate::common::numbers::count;
use crate::common::{self, Usage, counter};
use anyhow::{Context, Result};
use ragduet_classifier::{Answer, Classifier, Scores};
use ragduet_data::{BadRows, LabelledRecord, read_labelled};
use ragduet_torch::{Precision, device};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The classifier and how it runs.
#[derive(Debug, clap::Args)]
pub struct ClassifierArgs {
    /// Classifier folder (a Hugging Face sequence-classification model, or `best` of a run) or Hugging Face id.
    #[arg(short, long)]
    pub model: String,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Compute precision: auto, fp32 or bf16.
    #[arg(long, default_value = "auto")]
    pub precision: Precision,
    /// Maximum tokens of a text, longer ones are truncated; the model's maximum if not given.
    #[arg(long, value_parser = count)]
    pub max_tokens: Option<usize>,
    /// Tokens per forward pass.
    #[arg(long, default_value_t = 16_384, value_parser = count)]
    pub batch_tokens: usize,
}

impl ClassifierArgs {
    /// Loads the model.
    pub fn load(&self) -> Result<Classifier> {
        let device = device::parse(&self.device).map_err(|e| Usage(e.to_string()))?;
        let dir = ragduet_nn::hub::resolve(&self.model)?;
        let mut model = Classifier::load(&dir, device, self.precision.resolve(device))
            .with_context(|| format!("cannot load the classifier `{}`", self.model))?;
        if let Some(most) = self.max_tokens {
            let limit = model.model.max_tokens();
            if most == 0 || most > limit {
                return Err(Usage(format!("--max-tokens: from 1 to {limit} with this model")).into());
            }
            model.max_tokens = most;
        }
        Ok(model)
    }
}

/// Arguments of `classify`.
///
/// Writes a line of JSON per text: its id (or number), the label with its probability and those of all labels; of a
/// regression, the number.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ClassifierArgs,
    /// Texts, or pairs of texts (JSON Lines, JSON, CSV, TSV, Parquet).
    #[arg(short, long, required_unless_present = "text", conflicts_with = "text")]
    input: Option<PathBuf>,
    #[command(flatten)]
    map: common::MapArgs,
    /// A single text.
    #[arg(long)]
    text: Option<String>,
    /// Second text of a pair.
    #[arg(long, requires = "text")]
    pair: Option<String>,
    /// Output file; standard output if not given.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Move bad rows to this file instead of stopping.
    #[arg(long, value_name = "FILE")]
    skip_bad_rows: Option<PathBuf>,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        if let (Some(input), Some(out)) = (&self.input, &self.out) {
            common::outputs::not_the_input(input, out)?;
        }
        let records = match (&self.input, self.text) {
            (Some(path), _) => read(path, false, self.map.bad_rows(self.skip_bad_rows.as_ref())?)?,
            (None, text) => {
                vec![LabelledRecord {
                    id: None,
                    text: text.unwrap_or_default(),
                    pair: self.pair,
                    label: None,
                }]
            }
        };
        let model = self.model.load()?;
        let logits = score(&model, &records, self.model.batch_tokens, quiet)
            .with_context(|| self.model.model.clone())?;
        let mut lines = String::new();
        for (i, (r, l)) in records.iter().zip(&logits).enumerate() {
            let id = r.id.clone().map_or_else(|| json!(i + 1), Value::from);
            lines += &serde_json::to_string(&described(&model, id, l))?;
            lines.push('\n');
        }
        match &self.out {
            Some(path) => ragduet_files::write(path, lines)?,
            None => std::io::stdout().lock().write_all(lines.as_bytes())?,
        }
        Ok(())
    }
}

fn described(model: &Classifier, id: Value, logits: &[f64]) -> Value {
    let named = |scores: &[f64]| -> Map<String, Value> {
        model.labels.names.iter().cloned().zip(scores.iter().map(|s| json!(s))).collect()
    };
    match model.labels.answer(logits) {
        Answer::Class { label, score, scores } => {
            json!({"id": id, "label": label, "score": score, "scores": named(&scores)})
        }
        Answer::Classes { labels, scores } => json!({"id": id, "labels": labels, "scores": named(&scores)}),
        Answer::Value { score } => json!({"id": id, "score": score}),
    }
}

fn read(path: &Path, labelled: bool, bad: BadRows) -> Result<Vec<LabelledRecord>> {
    let records = read_labelled(path, labelled, &bad)?.collect::<std::result::Result<Vec<_>, _>>()?;
    common::report_bad_rows(&bad)?;
    if records.is_empty() {
        anyhow::bail!("{}: no usable row", path.display());
    }
    Ok(records)
}

fn score(
    model: &Classifier,
    records: &[LabelledRecord],
    tokens: usize,
    quiet: bool,
) -> Result<Vec<Vec<f64>>> {
    let bar = counter("classifying", Some(records.len() as u64), quiet);
    let texts: Vec<_> = records.iter().map(|r| (r.text.as_str(), r.pair.as_deref())).collect();
    let logits = model.score(&texts, tokens.max(1), &mut |n| bar.inc(n as u64))?;
    bar.finish_and_clear();
    Ok(logits)
}

/// Arguments of `eval classifier`.
#[derive(Debug, clap::Args)]
pub struct ClassifierEval {
    #[command(flatten)]
    model: ClassifierArgs,
    /// Labelled texts (JSON Lines, JSON, CSV, TSV, Parquet).
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    map: common::MapArgs,
    /// Move bad rows to this file instead of stopping.
    #[arg(long, value_name = "FILE")]
    skip_bad_rows: Option<PathBuf>,
    /// Write the prediction for each text to this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ClassifierEval {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        let records = read(&self.data, true, self.map.bad_rows(self.skip_bad_rows.as_ref())?)?;
        let model = self.model.load()?;
        let targets = model.targets(&records).with_context(|| self.data.display().to_string())?;
        let logits = score(&model, &records, self.model.batch_tokens, quiet)
            .with_context(|| self.model.model.clone())?;
        let scores = Scores::of(&model.labels, &targets, &logits)?;
        if let Some(path) = &self.save {
            let mut lines = String::new();
            for (i, (r, l)) in records.iter().zip(&logits).enumerate() {
                let id = r.id.clone().map_or_else(|| json!(i + 1), Value::from);
                let mut line = described(&model, id, l);
                line["gold"] = serde_json::to_value(&r.label)?;
                lines += &serde_json::to_string(&line)?;
                lines.push('\n');
            }
            ragduet_files::write(path, lines)?;
        }
        if self.json {
            return common::print_json(
                &json!({"texts": records.len(), "labels": model.labels.names, "scores": scores}),
            );
        }
        print_scores(&model.labels.names, &scores);
        Ok(())
    }
}

/// The figures, and those of each class.
pub fn print_scores(names: &[String], scores: &Scores) {
    for (name, value) in scores.named() {
        println!("{name:<16}{value:>10.4}");
    }
    if scores.classes().is_empty() {
        return;
    }
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0).clamp(14, 40) + 2;
    println!("\n{:<width$}{:>10}{:>10}{:>10}{:>10}", "label", "precision", "recall", "f1", "support");
    for (name, c) in names.iter().zip(scores.classes()) {
        println!("{name:<width$}{:>10.4}{:>10.4}{:>10.4}{:>10}", c.precision, c.recall, c.f1, c.support);
    }
}
