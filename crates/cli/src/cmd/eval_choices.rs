//! `ragduet eval choices`: rank classification.

use crate::common::numbers::{count, number};
use crate::common::{self, Usage, counter};
use anyhow::{Context as _, Result};
use ragduet_data::{ChoiceRecord, read_choices};
use ragduet_generator::Generator;
use ragduet_generator::choices::{ChoiceOptions, ChoiceScores, choose_all};
use ragduet_generator::contexts::ContextConfig;
use ragduet_joint::pipeline::trained_with;
use ragduet_torch::{Precision, device};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `eval choices`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Generator folder (a Hugging Face language model, or `best` of a run), Hugging Face id or GGUF file.
    #[arg(short, long)]
    generator: String,
    /// Files of multiple-choice records; a file is a task (named by the file up to the first dot) unless its records
    /// name theirs.
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    map: common::MapArgs,
    /// Number of records per file, the first ones.
    #[arg(long, value_parser = count)]
    questions: Option<usize>,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Compute precision: auto, fp32 or bf16.
    #[arg(long, default_value = "auto")]
    precision: Precision,
    /// Prompt settings (TOML, the keys of `[prompt]`); those of the run that trained the generator if not given.
    #[arg(long, value_name = "FILE")]
    prompt: Option<PathBuf>,
    /// Passages per prompt; as in training if not given.
    #[arg(long, value_parser = number::<usize>(0, 1000))]
    contexts: Option<usize>,
    /// Exponent of length normalization; that of the training run if not given, else 1.
    #[arg(long, value_parser = number::<f64>(0.0, 10.0))]
    length_norm: Option<f64>,
    /// Tokens per forward pass.
    #[arg(long, default_value_t = 8192, value_parser = count)]
    tokens: usize,
    /// Write log-likelihoods and predictions of each record to this file (JSON Lines).
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(&self, quiet: bool) -> Result<()> {
        let device = device::parse(&self.device).map_err(|e| Usage(e.to_string()))?;
        let dir = ragduet_nn::hub::resolve(&self.generator)?;
        let generator = Generator::load(&dir, device, self.precision.resolve(device))
            .with_context(|| format!("cannot load the generator `{}`", self.generator))?;
        let trained = trained_with(&dir)?;
        let prompt = match &self.prompt {
            Some(path) => ragduet_train::config::load(path, &[])?,
            None => trained.as_ref().map(|t| t.prompt.clone()).unwrap_or_default(),
        };
        let usual = trained.as_ref().map_or(5, |t| t.contexts);
        let options = ChoiceOptions {
            prompt: &prompt,
            contexts: ContextConfig::retrieved(self.contexts.unwrap_or(usual)),
            length_norm: self.length_norm.or(trained.and_then(|t| t.length_norm)).unwrap_or(1.0),
            tokens: self.tokens,
            seed: 0,
        };
        let mut chosen = Vec::new();
        for path in &self.data {
            let bad = self.map.bad_rows(None)?;
            let most = self.questions.unwrap_or(usize::MAX);
            let records: Vec<ChoiceRecord> =
                read_choices(path, &bad)?.take(most).collect::<Result<_, _>>()?;
            let name = task_of(path);
            let bar = counter("choosing", Some(records.len() as u64), quiet);
            let (choices, report) =
                choose_all(&generator, &records, &name, &options, &mut |n| bar.set_position(n as u64))?;
            bar.finish_and_clear();
            tracing::info!("{}: {report}", path.display());
            chosen.extend(choices);
        }
        if let Some(path) = &self.save {
            let mut out = ragduet_files::OutputFile::create(path)?;
            for c in &chosen {
                serde_json::to_writer(&mut out, c)?;
                out.write_all(b"\n")?;
            }
            out.finish()?;
        }
        let scores = ChoiceScores::of(&chosen)?;
        if self.json {
            return common::print_json(&scores);
        }
        println!("{scores}");
        Ok(())
    }
}

/// The file's name up to its first dot.
fn task_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().to_string()
}
