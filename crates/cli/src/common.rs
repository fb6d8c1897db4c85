//! What the commands share: logging, exit codes, models and data by the usual options, progress.

mod fusion;
pub mod npy;
pub mod numbers;
pub mod outputs;
pub mod rerank;
mod vectors;
mod words;

pub use fusion::FusionArgs;
pub use rerank::{RerankArgs, Reranker};
pub use vectors::VectorArgs;
pub use words::WordArgs;

use crate::common::numbers::{count, number};
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ragduet_data::{
    BadRowPolicy, BadRows, Columns, Format, MissingPolicy, PairLabels, Passages, ReadOptions,
};
use ragduet_joint::pipeline::Pipeline;
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{BiEncoder, EncodeSettings, Pooling};
use ragduet_torch::{Precision, device};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use tracing_subscriber::EnvFilter;

/// A wrong setting or argument: exit code 2 instead of 1.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A run that Ctrl-C or SIGTERM stopped, with a checkpoint: the exit code of the shell's own, which stops `&&`.
#[derive(Debug)]
pub struct Stopped(pub String);

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stopped {}

/// The exit code of a run that was stopped: 128 and the number of SIGINT.
const STOPPED: i32 = 130;

/// How an error about a bad row ends.
const MEND: &str = "; mend the row";

/// How the command that was given sets bad rows aside.
pub fn setting_aside(command: &clap::Command, matches: &clap::ArgMatches) -> Option<&'static str> {
    let (mut command, mut matches) = (command, matches);
    let mut trains = false;
    while let Some((name, inner)) = matches.subcommand() {
        trains |= name == "train";
        (command, matches) = (command.find_subcommand(name)?, inner);
    }
    if command.get_arguments().any(|a| a.get_id() == "skip_bad_rows") {
        return Some("--skip-bad-rows FILE");
    }
    trains.then_some("--set data.skip_bad_rows=true")
}

/// Sets logging up. `RAGDUET_LOG` overrides the flags, in the syntax of tracing's filter.
pub fn start(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => {
            "warn,ragduet_data=info,ragduet_retriever=info,ragduet_generator=info,ragduet_train=info,ragduet=info"
        }
        (_, 1) => {
            "info,ragduet_data=debug,ragduet_retriever=debug,ragduet_generator=debug,ragduet_train=debug,ragduet=debug"
        }
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("RAGDUET_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // A panic is reported once, as the error it becomes.
    std::panic::set_hook(Box::new(|info| tracing::debug!("{info}")));
}

/// Runs a command; a panic becomes an error that asks for a report.
pub fn without_panics(f: impl FnOnce() -> Result<()>) -> Result<()> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(payload) => {
            let text = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            let first = text.lines().next().unwrap_or_default();
            anyhow::bail!(
                "internal error: {first}\nThis is a bug of ragduet; run again with -v and report what it prints"
            )
        }
    }
}

/// Prints the chain of causes and chooses the exit code: 0 done, 1 failed, 2 wrong usage or config, 130 stopped.
///
/// `aside`: how the command sets bad rows aside, where it can.
pub fn finish(result: Result<()>, aside: Option<&str>) -> i32 {
    let Err(error) = result else { return 0 };
    if is_broken_pipe(&error) {
        return 0;
    }
    if error.is::<Stopped>() {
        eprintln!("{error}");
        return STOPPED;
    }
    let said = format!("{error:#}");
    match aside.filter(|_| said.ends_with(MEND)) {
        Some(how) => eprintln!("error: {said}, or set such rows aside with {how}"),
        None => eprintln!("error: {said}"),
    }
    if error.chain().any(is_usage) { 2 } else { 1 }
}

fn is_usage(e: &(dyn std::error::Error + 'static)) -> bool {
    macro_rules! is_config {
        ($($of:ident),*) => {
            $(matches!(e.downcast_ref::<$of::Error>(), Some($of::Error::Config { .. })))||*
        };
    }
    e.is::<Usage>()
        || is_config!(
            ragduet_data,
            ragduet_train,
            ragduet_retriever,
            ragduet_reranker,
            ragduet_classifier,
            ragduet_generator,
            ragduet_joint
        )
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Which model, and on what it runs.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelArgs {
    /// Model folder or Hugging Face id (`org/name` or `org/name@revision`).
    #[arg(short, long)]
    pub model: String,
    #[command(flatten)]
    pub options: ModelOptions,
}

/// On what a model runs, and what is wanted otherwise than its folder says.
#[derive(Debug, Clone, clap::Args)]
pub struct ModelOptions {
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Compute precision: auto (bf16 where the device is faster with it), fp32 or bf16.
    #[arg(long, default_value = "auto")]
    pub precision: Precision,
    /// Pooling of an encoder whose folder does not specify it: mean, cls, last_token, max, mean_sqrt_len or
    /// weighted_mean.
    #[arg(long)]
    pub pooling: Option<Pooling>,
    /// Maximum query length in tokens, instead of the model's.
    #[arg(long, value_parser = count)]
    pub max_query_tokens: Option<usize>,
    /// Maximum passage length in tokens, instead of the model's.
    #[arg(long, value_parser = count)]
    pub max_passage_tokens: Option<usize>,
    /// Tokens per forward pass during evaluation.
    #[arg(long, default_value_t = EncodeSettings::default().batch_tokens, value_parser = number::<u64>(1, u64::MAX))]
    pub batch_tokens: u64,
}

impl std::ops::Deref for ModelArgs {
    type Target = ModelOptions;

    fn deref(&self) -> &ModelOptions {
        &self.options
    }
}

impl ModelArgs {
    /// For a command that knows the model from elsewhere.
    pub fn new(model: String, device: &str, precision: Precision) -> Self {
        let options = ModelOptions {
            device: device.into(),
            precision,
            pooling: None,
            max_query_tokens: None,
            max_passage_tokens: None,
            batch_tokens: EncodeSettings::default().batch_tokens,
        };
        Self { model, options }
    }

    /// Loads the model.
    pub fn load(&self) -> Result<BiEncoder> {
        self.options.load(&self.model)
    }
}

impl ModelOptions {
    /// Loads a model.
    pub fn load(&self, model: &str) -> Result<BiEncoder> {
        let device = device::parse(&self.device).map_err(|e| Usage(e.to_string()))?;
        let dir = ragduet_nn::hub::resolve(model)?;
        let overrides = Overrides {
            pooling: self.pooling,
            max_query_tokens: self.max_query_tokens,
            max_passage_tokens: self.max_passage_tokens,
            ..Overrides::default()
        };
        st_dir::load(&dir, device, self.precision.resolve(device), &overrides)
            .with_context(|| format!("cannot load the model `{model}`"))
    }

    /// How texts are batched.
    pub fn encode_settings(&self) -> EncodeSettings {
        EncodeSettings { batch_tokens: self.batch_tokens, ..EncodeSettings::default() }
    }
}

/// Names of columns.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct MapArgs {
    /// Column of the data for a role, such as query=question or contexts=meta.passages; may be given several times.
    #[arg(long = "map", value_name = "ROLE=COLUMN")]
    pub map: Vec<String>,
}

impl MapArgs {
    /// The mapping.
    pub fn columns(&self) -> Result<Columns> {
        Columns::parse(&self.map).map_err(|e| Usage(format!("--map: {e}")).into())
    }

    /// The mapping as overrides of a training config.
    pub fn settings(&self) -> Result<Vec<String>> {
        let columns = self.columns()?;
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        Ok(columns.iter().map(|(role, column)| format!("data.columns.{role}={}", quoted(column))).collect())
    }

    /// What stops at a bad row, or moves it to a file, with these names.
    pub fn bad_rows(&self, sidecar: Option<&PathBuf>) -> Result<BadRows> {
        Ok(bad_rows(sidecar).with_columns(self.columns()?))
    }
}

/// How a dataset is read.
#[derive(Debug, Clone, clap::Args)]
pub struct ReadArgs {
    /// Data format, if the file name does not tell it (`ragduet data formats` lists them).
    #[arg(long)]
    pub format: Option<Format>,
    /// Split of a BEIR or MS MARCO folder.
    #[arg(long)]
    pub split: Option<String>,
    /// Corpus file, for examples that refer to passages by id.
    #[arg(long)]
    pub corpus: Option<PathBuf>,
    /// Query file, for examples that refer to queries by id.
    #[arg(long)]
    pub queries: Option<PathBuf>,
    /// Threshold for pairs with a score: from this score on a passage is relevant, below it a negative.
    #[arg(long, value_name = "SCORE", conflicts_with = "nli", allow_negative_numbers = true, value_parser = finite)]
    pub min_score: Option<f64>,
    /// Labels of pairs are NLI classes: entailments are positives, contradictions negatives, neutral pairs are left out.
    #[arg(long)]
    pub nli: bool,
    /// Move bad rows with the reason to this file (JSON Lines) instead of stopping.
    #[arg(long, value_name = "FILE")]
    pub skip_bad_rows: Option<PathBuf>,
    /// Judgements whose query has no text or whose passage the corpus lacks: `warn` counts them, `error` stops.
    #[arg(long, value_name = "POLICY", default_value = "warn", value_parser = missing_policy)]
    pub missing: MissingPolicy,
    #[command(flatten)]
    pub map: MapArgs,
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|n: &f64| n.is_finite()).ok_or_else(|| format!("`{text}` is no finite number"))
}

/// A policy by its name.
pub fn missing_policy(name: &str) -> Result<MissingPolicy, String> {
    match name {
        "warn" => Ok(MissingPolicy::Warn),
        "error" => Ok(MissingPolicy::Error),
        _ => Err("warn or error".into()),
    }
}

impl ReadArgs {
    /// The readers' options.
    pub fn options(&self) -> ReadOptions {
        ReadOptions {
            format: self.format,
            split: self.split.clone(),
            corpus: self.corpus.clone(),
            queries: self.queries.clone(),
            // clap has refused both at once, and what is no number.
            labels: PairLabels::of(self.min_score, self.nli).unwrap_or_default(),
        }
    }

    /// What happens to bad rows.
    pub fn bad_rows(&self) -> Result<BadRows> {
        let bad = self.map.bad_rows(self.skip_bad_rows.as_ref())?;
        bad.set_missing(self.missing);
        Ok(bad)
    }
}

/// The pipeline that a joint run wrote, and its folder.
pub fn pipeline(run: &Path) -> Result<(PathBuf, Pipeline)> {
    let Some(dir) = Pipeline::find(run) else {
        let why = format!("{}: no joint run here, or it has written no `best` yet", run.display());
        return Err(Usage(why).into());
    };
    let pipeline = Pipeline::read(&dir)?;
    Ok((dir, pipeline))
}

/// Stop at a bad row, or move it to a file.
pub fn bad_rows(sidecar: Option<&PathBuf>) -> BadRows {
    BadRows::new(match sidecar {
        Some(path) => BadRowPolicy::Skip { sidecar: path.clone() },
        None => BadRowPolicy::Fail,
    })
}

/// A corpus as texts for an encoder, which takes them on another thread, and their ids as they are taken, in order.
pub fn texts_and_ids(
    corpus: Passages,
) -> (impl Iterator<Item = ragduet_retriever::Result<String>> + Send, Receiver<String>) {
    let (send, receive) = channel();
    let texts = corpus.map(move |p| {
        let p = p?;
        // Sending fails only where nobody waits for ids any more.
        let _ = send.send(p.id.clone());
        Ok(p.full_text())
    });
    (texts, receive)
}

/// Counts in one line the texts that were too long for their limit, and how much of them was not read.
pub fn say_cut() {
    let log = ragduet_text::CutLog::take();
    if log.total().cut > 0 {
        tracing::warn!("texts {log}");
    }
}

/// Says what was skipped, when all data is read.
///
/// # Errors
/// Mapped columns that nothing has.
pub fn report_bad_rows(bad: &BadRows) -> Result<()> {
    let unmet = bad.unmet_columns();
    if !unmet.is_empty() {
        return Err(Usage(format!("--map {}: nothing that was read has it", unmet.join(", --map "))).into());
    }
    let report = bad.report();
    if report.left_out() {
        tracing::warn!("{report}");
    }
    Ok(())
}

/// A counter on a terminal; nothing elsewhere or when quiet.
pub fn counter(what: &'static str, total: Option<u64>, quiet: bool) -> ProgressBar {
    let bar = match total {
        Some(n) => ProgressBar::new(n),
        None => ProgressBar::no_length(),
    };
    let style = ProgressStyle::with_template("{msg} {human_pos}{len_note} {per_sec} {elapsed} eta {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("len_note", |s: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
            if let Some(n) = s.len() {
                let _ = write!(w, "/{n}");
            }
        });
    bar.set_style(style);
    bar.set_message(what);
    if quiet || !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar
}

/// Prints JSON for machines.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    Ok(())
}
