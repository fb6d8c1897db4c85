//! `ragduet generate`: answers to a file of records.

use crate::common::numbers::number;
use crate::common::{self, Usage, counter};
use anyhow::{Context, Result};
use ragduet_data::{Columns, RagRecord, read_rag};
use ragduet_generator::Generator;
use ragduet_generator::answers::{AnswerOptions, answer_all};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::decode::DecodeConfig;
use ragduet_generator::prepare::{ExampleChoice, FewShotConfig, PromptConfig};
use ragduet_joint::pipeline::trained_with;
use ragduet_torch::weights::write_atomic;
use ragduet_torch::{Precision, Quantize, device};
use ragduet_train::config;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

/// The generator and how it answers; shared by the commands that answer.
#[derive(Debug, Clone, clap::Args)]
pub struct GeneratorArgs {
    /// Generator folder (a Hugging Face language model, or `best` of a run), Hugging Face id or GGUF file.
    #[arg(short, long)]
    pub generator: Option<String>,
    /// Device: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Compute precision: auto, fp32 or bf16.
    #[arg(long, default_value = "auto")]
    pub precision: Precision,
    /// Keeps the layers' weights in 8 or 4 bits: none, int8 or nf4. Less memory, and slower.
    #[arg(long, default_value = "none")]
    pub quantize: Quantize,
    /// Prompt settings (TOML, the keys of `[prompt]`); those of the run that trained the generator if not given.
    #[arg(long, value_name = "FILE")]
    pub prompt: Option<PathBuf>,
    /// Passages per prompt; as in training if not given, 0: closed-book.
    #[arg(long, value_parser = number::<usize>(0, 1000))]
    pub contexts: Option<usize>,
    /// Few-shot examples: records with questions, passages and answers.
    #[arg(long, value_name = "FILE")]
    pub examples: Option<PathBuf>,
    /// Columns of the examples by role, those of the data.
    #[arg(skip)]
    pub columns: Columns,
    /// Few-shot examples per prompt, 4 if not given; 0: none (zero-shot).
    #[arg(long, value_parser = number::<usize>(0, 1000))]
    pub shots: Option<usize>,
    /// Choice of the examples: similar (questions, by BM25) or random (the same for all).
    #[arg(long, value_name = "HOW")]
    pub choose: Option<ExampleChoice>,
    /// Maximum number of generated tokens.
    #[arg(long, default_value_t = 128, value_parser = number::<usize>(1, 1_000_000))]
    pub max_new_tokens: usize,
    /// Sampling instead of greedy decoding.
    #[arg(long)]
    pub sample: bool,
    /// Sampling temperature.
    #[arg(long, value_parser = number::<f64>(0.0, 1000.0))]
    pub temperature: Option<f64>,
    /// Top-k sampling.
    #[arg(long, value_parser = number::<usize>(0, 10_000_000))]
    pub top_k: Option<usize>,
    /// Top-p (nucleus) sampling.
    #[arg(long, value_parser = number::<f64>(0.0, 1.0))]
    pub top_p: Option<f64>,
    /// Min-p sampling.
    #[arg(long, value_parser = number::<f64>(0.0, 1.0))]
    pub min_p: Option<f64>,
    /// Repetition penalty (above 1).
    #[arg(long, value_parser = number::<f64>(0.001, 1000.0))]
    pub repetition_penalty: Option<f64>,
    /// Number of beams.
    #[arg(long, value_parser = number::<usize>(1, 1024))]
    pub beams: Option<usize>,
    /// Stop string; may be given several times.
    #[arg(long)]
    pub stop: Vec<String>,
    /// Random seed of sampling.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Answers generated per batch.
    #[arg(long, default_value_t = 16, value_parser = number::<usize>(1, 1 << 20))]
    pub batch: usize,
}

impl GeneratorArgs {
    fn given(&self) -> Result<&str> {
        self.generator.as_deref().ok_or_else(|| Usage("give a generator with -g".into()).into())
    }

    /// Loads the model.
    pub fn load(&self) -> Result<Generator> {
        let device = device::parse(&self.device).map_err(|e| Usage(e.to_string()))?;
        let generator = self.given()?;
        let dir = ragduet_nn::hub::resolve(generator)?;
        Generator::load_to_answer(&dir, device, self.precision.resolve(device), self.quantize, None)
            .with_context(|| format!("cannot load the generator `{generator}`"))
    }

    /// Decoding.
    pub fn decode(&self) -> DecodeConfig {
        DecodeConfig {
            max_new_tokens: Some(self.max_new_tokens),
            do_sample: Some(self.sample),
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            num_beams: self.beams,
            stop_strings: self.stop.clone(),
            seed: self.seed,
            ..DecodeConfig::default()
        }
    }

    /// How prompts are made: as given, or as the run did that trained the model.
    pub fn prompt(&self) -> Result<(PromptConfig, ContextConfig)> {
        let trained = trained_with(&ragduet_nn::hub::resolve(self.given()?)?)?;
        if trained.is_none() && self.prompt.is_none() {
            tracing::info!("the generator's folder has no prompt settings: the default prompt is used");
        }
        let prompt = match &self.prompt {
            Some(path) => config::load(path, &[])?,
            None => trained.as_ref().map(|t| t.prompt.clone()).unwrap_or_default(),
        };
        let prompt = self.few_shot(prompt)?;
        let usual = trained.map_or(5, |t| t.contexts);
        Ok((prompt, ContextConfig::retrieved(self.contexts.unwrap_or(usual))))
    }
}

impl GeneratorArgs {
    /// The prompt with the few-shot examples that are asked for.
    fn few_shot(&self, mut prompt: PromptConfig) -> Result<PromptConfig> {
        if let Some(file) = &self.examples {
            let config = prompt.examples.get_or_insert_with(|| FewShotConfig::new(file));
            (config.file, config.columns) = (file.clone(), self.columns.clone());
        }
        if self.shots == Some(0) {
            (prompt.examples, prompt.template.shots) = (None, Vec::new());
            return Ok(prompt);
        }
        match &mut prompt.examples {
            Some(config) => {
                config.count = self.shots.unwrap_or(config.count);
                config.choose = self.choose.unwrap_or(config.choose);
            }
            None if self.shots.is_some() || self.choose.is_some() => {
                let flag = if self.shots.is_some() { "--shots" } else { "--choose" };
                return Err(Usage(format!(
                    "{flag}: give the records that examples are taken from: --examples FILE"
                ))
                .into());
            }
            None => {}
        }
        Ok(prompt)
    }
}

/// Arguments of `generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    generator: GeneratorArgs,
    /// Records with questions and passages (`ragduet retrieve` writes them).
    #[arg(short, long)]
    input: PathBuf,
    #[command(flatten)]
    map: common::MapArgs,
    /// Output file, one JSON object per answer. An existing file of the same generator, prompt and decoding is continued:
    /// answered questions are skipped. What made it is in FILE.made-by.json.
    #[arg(short, long)]
    out: PathBuf,
}

/// Questions answered between two writes.
const WRITE_EVERY: usize = 256;

impl Args {
    /// Runs the command.
    pub fn run(mut self, quiet: bool) -> Result<()> {
        common::outputs::not_the_input(&self.input, &self.out)?;
        self.generator.columns = self.map.columns()?;
        // A device or a pipe holds no answers to go on with.
        let stream = ragduet_files::is_stream(&self.out);
        let mut out =
            fs_err::OpenOptions::new().create(!stream).read(!stream).append(true).open(&self.out)?;
        // Held until the file is closed, however this process ends.
        if !stream && flock(&out, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Usage(format!(
                "{}: another process writes it; wait for it, or choose another --out",
                self.out.display()
            ))
            .into());
        }
        let done = if stream { HashSet::new() } else { answered_ids(&self.out)? };
        let (prompt, contexts) = self.generator.prompt()?;
        let decode = self.generator.decode();
        if !stream {
            MadeBy::new(&self.generator, &prompt, &contexts, &decode)?.claim(&self.out, done.is_empty())?;
        }
        let bad = self.map.bad_rows(None)?;
        let records: Vec<RagRecord> = read_rag(&self.input, &bad)?
            .filter(|r| r.as_ref().map_or(true, |r| !done.contains(&r.id)))
            .collect::<Result<_, _>>()?;
        if !done.is_empty() {
            tracing::info!("{} questions are answered already; {} to go", done.len(), records.len());
        }
        let generator = self.generator.load()?;
        let options = AnswerOptions {
            prompt: &prompt,
            contexts,
            decode: &decode,
            batch: self.generator.batch,
            seed: self.generator.seed,
        };
        options.log_first(&generator, &records)?;
        options.warn_of_unshown(&generator, &records)?;
        let bar = counter("answering", Some(records.len() as u64), quiet);
        let started = std::time::Instant::now();
        let mut before = 0;
        for chunk in records.chunks(WRITE_EVERY) {
            let (answers, _) =
                answer_all(&generator, chunk, &options, &mut |n| bar.set_position((before + n) as u64))?;
            let mut text = Vec::new();
            for a in &answers {
                serde_json::to_writer(&mut text, a)?;
                text.push(b'\n');
            }
            out.write_all(&text)?;
            before += chunk.len();
        }
        bar.finish_and_clear();
        let seconds = started.elapsed().as_secs_f64();
        println!("{}: {} answers in {seconds:.1} s", self.out.display(), records.len());
        Ok(())
    }
}

/// What made a file's answers, kept beside it: answers of another generator are not mixed with them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct MadeBy {
    generator: String,
    /// A hash of the generator's folder.
    weights: String,
    prompt: serde_json::Value,
    contexts: serde_json::Value,
    decode: serde_json::Value,
    quantize: String,
    /// A hash of the few-shot examples' file.
    #[serde(default)]
    examples: Option<String>,
}

impl MadeBy {
    fn new(
        args: &GeneratorArgs,
        prompt: &PromptConfig,
        contexts: &ContextConfig,
        decode: &DecodeConfig,
    ) -> Result<Self> {
        let dir = ragduet_nn::hub::resolve(args.given()?)?;
        let weights = ragduet_nn::fingerprint::of_model(&dir);
        Ok(Self {
            generator: args.given()?.to_owned(),
            weights: weights.with_context(|| format!("{}", dir.display()))?,
            prompt: serde_json::to_value(prompt)?,
            contexts: serde_json::to_value(contexts)?,
            decode: serde_json::to_value(decode)?,
            quantize: format!("{:?}", args.quantize),
            examples: prompt.examples_digest()?,
        })
    }

    /// Makes an empty file this one's, or checks that one with answers is.
    fn claim(&self, out: &Path, empty: bool) -> Result<()> {
        let mut path = out.as_os_str().to_owned();
        path.push(".made-by.json");
        let path = PathBuf::from(path);
        if empty {
            return Ok(write_atomic(&path, &serde_json::to_vec_pretty(self)?)?);
        }
        let refuse =
            |why: String| Err(Usage(format!("{}: {why}; choose another --out", out.display())).into());
        if !path.is_file() {
            return refuse(format!("nothing says what made its answers ({} is not there)", path.display()));
        }
        let old: Self =
            serde_json::from_slice(&fs_err::read(&path)?).with_context(|| format!("{}", path.display()))?;
        let differs = [
            ("generator", old.weights != self.weights),
            ("prompt", old.prompt != self.prompt),
            ("file of few-shot examples", old.examples != self.examples),
            ("number of passages", old.contexts != self.contexts),
            ("decoding", old.decode != self.decode),
            ("quantization", old.quantize != self.quantize),
        ];
        let differs: Vec<&str> = differs.iter().filter_map(|(name, on)| on.then_some(*name)).collect();
        match differs.is_empty() {
            true => Ok(()),
            false => refuse(format!(
                "its answers are by {} with another {}",
                old.generator,
                differs.join(" and another ")
            )),
        }
    }
}

/// Ids that an earlier, perhaps killed, call has answered; a torn last line is cut off.
fn answered_ids(path: &Path) -> Result<HashSet<String>> {
    let mut ids = HashSet::new();
    if !path.exists() {
        return Ok(ids);
    }
    let mut good = 0u64;
    let mut input = std::io::BufReader::new(fs_err::File::open(path)?);
    let mut line = Vec::new();
    let mut number = 0;
    while input.read_until(b'\n', &mut line)? > 0 {
        number += 1;
        let whole = line.ends_with(b"\n");
        match serde_json::from_slice::<serde_json::Value>(&line) {
            Ok(row) if whole => {
                if let Some(id) = row.get("id").and_then(serde_json::Value::as_str) {
                    ids.insert(id.to_string());
                }
                good += line.len() as u64;
            }
            _ if whole => {
                return Err(
                    Usage(format!("{}:{number} is no answer; choose another --out", path.display())).into()
                );
            }
            _ => break,
        }
        line.clear();
    }
    fs_err::OpenOptions::new().write(true).open(path)?.set_len(good)?;
    Ok(ids)
}
