//! `ragduet quickstart`: the whole story on the shipped dataset.

mod together;

use super::retrieve;
use super::train::print_table;
use crate::common::{Usage, counter};
use anyhow::Result;
use ragduet_data::{BadRows, RagRecord, ReadOptions, read_rag};
use ragduet_generator::Generator;
use ragduet_generator::answers::{AnswerOptions, AnswerScores, Answered, answer_all};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::recipe::config::SftConfig;
use ragduet_generator::recipe::{self as generating, sft};
use ragduet_index::{FusionConfig, LexicalConfig};
use ragduet_metrics::evaluate;
use ragduet_retriever::engine::{Engine, System};
use ragduet_retriever::evaluate::{EvalSet, evaluate_model};
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::contrastive::{RunOptions, initial_model, train};
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{BiEncoder, EncodeSettings, Side, encode_texts};
use ragduet_torch::device;
use ragduet_train::config;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use together::Together;

/// Arguments of `quickstart`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Project folder, with configs/ and datasets/.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// Run folder; that of an earlier quickstart is replaced.
    #[arg(long, default_value = "runs/quickstart")]
    out: PathBuf,
    /// Override a key of configs/retriever/quickstart.toml.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of all four trainings, instead of `run.seed` of the three files in configs/.
    #[arg(long)]
    seed: Option<u64>,
}

/// What a quickstart leaves in its folder: a retriever's run, and what the later steps write.
const LEFT: [&str; 15] = [
    "config.toml",
    "config.hash",
    "environment.json",
    "metrics.jsonl",
    "tensorboard",
    "checkpoints",
    "best",
    "best.json",
    "bad_rows.jsonl",
    "run.lock",
    "retrieved",
    "generator",
    "closed-book",
    "joint",
    "teacher",
];

/// Removes an earlier quickstart; a folder that holds anything else is left alone.
fn clear(out: &Path) -> Result<()> {
    if !out.join("environment.json").is_file() {
        return Ok(());
    }
    for entry in fs_err::read_dir(out)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let resumed = ["config.resumed-", "environment.resumed-"].iter().any(|p| name.starts_with(p));
        if !LEFT.contains(&name.as_str()) && !resumed && !name.ends_with(".ragduet") {
            let why =
                format!("{}: holds {name}, which no quickstart wrote; give another --out", out.display());
            return Err(Usage(why).into());
        }
    }
    Ok(fs_err::remove_dir_all(out)?)
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        let file = self.project.join("configs/retriever/quickstart.toml");
        if !file.is_file() {
            return Err(Usage(format!("{} is not here; give --project", file.display())).into());
        }
        let seed: Vec<String> = self.seed.iter().map(|s| format!("run.seed={s}")).collect();
        let sets: Vec<String> = self.set.iter().chain(&seed).cloned().collect();
        let mut config: RetrieverConfig = config::load(&file, &sets)?;
        let data = self.project.join(&config.data.train);
        config.data.train.clone_from(&data);
        config.data.dev = Some(data.clone());
        clear(&self.out)?;
        let started = std::time::Instant::now();
        println!("1. A small encoder with random weights, its tokenizer trained on {}.", data.display());
        let test_options = ReadOptions { split: Some("test".into()), ..ReadOptions::default() };
        let test = EvalSet::read(&data, &test_options, None, 0, &BadRows::default())?;
        let encode = EncodeSettings::default();
        let measures = &config.eval.measures;
        let measure = |model: &_| -> Result<_> {
            let bar = counter("ranking the test split", Some(test.passages.len() as u64), quiet);
            let r = evaluate_model(model, &test, measures, DEPTH, &encode, &mut |n, _| bar.set_position(n))?;
            bar.finish_and_clear();
            Ok(r.0)
        };
        let before = measure(&initial_model(&config)?)?;
        println!("2. Training it on questions and passages; hard negatives are mined again as it learns.");
        let options = RunOptions { quiet, ..RunOptions::new(&self.out) };
        let outcome = train(&config, &options)?;
        if !outcome.finished {
            return Err(crate::common::Stopped(format!(
                "stopped at step {}; the quickstart begins anew",
                outcome.step
            ))
            .into());
        }
        let device = device::parse(&config.run.device)?;
        let model = st_dir::load(
            &self.out.join("best"),
            device,
            config.run.precision.resolve(device),
            &Overrides::default(),
        )?;
        let after = measure(&model)?;
        println!("3. Questions about facts it has never seen (the test split):\n");
        let words = System::of_words(&LexicalConfig::default(), &test)?;
        let engine = Engine::new(vec![Rc::new(words)], FusionConfig::default())?;
        let by_words = evaluate(&test.qrels, &engine.rank(&test, DEPTH, &encode)?, measures);
        print_table(&[
            ("BM25, no training", Some(&by_words)),
            ("untrained", Some(&before)),
            ("trained", Some(&after)),
        ]);

        let passages: Vec<String> = test.passages.iter().map(|(_, t)| t.clone()).collect();
        let rows = encode_texts(&model, Side::Passage, &passages, &encode, &mut |_, _| ())?;
        let dim = model.dim() as usize;
        // Three questions from all over the split, whatever the model makes of them.
        for (id, question) in test.queries.iter().step_by((test.queries.len() / 3).max(1)).take(3) {
            let query =
                encode_texts(&model, Side::Query, std::slice::from_ref(question), &encode, &mut |_, _| ())?;
            let score = |row: &[f32]| row.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>();
            let mut ranked: Vec<(usize, f32)> = rows.chunks_exact(dim).map(score).enumerate().collect();
            ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
            println!("\n{question}");
            for (rank, (i, s)) in ranked.iter().take(2).enumerate() {
                let (pid, text) = &test.passages[*i];
                let mark = if test.qrels.grade(id, pid).is_some_and(|g| g > 0) { "*" } else { " " };
                println!(" {mark}{}. {s:.3}  {text}", rank + 1);
            }
        }
        println!("   (* holds the answer)\n");
        let reader =
            Reader { project: &self.project, out: &self.out, data: &data, model: &model, seed: &seed, quiet };
        let read = reader.run()?;
        let together = Together {
            project: &self.project,
            out: &self.out,
            data: &data,
            retriever: &config,
            reader: &read,
            seed: &seed,
            quiet,
        };
        together.run()?;
        println!(
            "\nModels (sentence-transformers folders and, in generator/ and joint/best/generator, transformers ones), \
             metrics, TensorBoard events and checkpoints are in {out}. Ask what was trained jointly:\n  ragduet ask \
             --run {joint} \"...\"",
            out = self.out.display(),
            joint = self.out.join(together::FOLDER).display(),
        );
        println!("It took {:.0} s.", started.elapsed().as_secs_f64());
        Ok(())
    }
}

/// The second half of the story: a generator that reads what the retriever finds.
struct Reader<'a> {
    project: &'a Path,
    out: &'a Path,
    data: &'a Path,
    model: &'a BiEncoder,
    /// `run.seed=N`, where one is asked for.
    seed: &'a [String],
    quiet: bool,
}

/// Ranks that are measured.
const DEPTH: usize = 1000;
/// Passages kept per question.
const FOUND: usize = 5;
/// Questions answered at a time.
const BATCH: usize = 64;

impl Reader<'_> {
    /// The config that the generator learned to read with.
    fn run(&self) -> Result<SftConfig> {
        println!("4. What the retriever finds for each question, as records for a generator.");
        let files = self.retrieve(["train", "dev", "test"])?;
        let [train, dev, test] = &files[..] else { anyhow::bail!("a split was not read") };
        println!(
            "5. A small language model with random weights learns to answer from a passage; another one without."
        );
        let set = |key: &str, path: &Path| format!("{key}={}", path.display());
        let files = [set("data.train", train), set("data.dev", dev)];
        let common: Vec<String> = files.into_iter().chain(self.seed.iter().cloned()).collect();
        let file = self.project.join("configs/generator/quickstart.toml");
        let read: SftConfig = config::load(&file, &common)?;
        // Without passages there is little to read in a step, and nothing to exchange or to cut.
        let alone = [
            "contexts.count=0",
            "contexts.substitute_rate=0.0",
            "contexts.excerpt_epochs=0",
            "batch.tokens=512",
            "run.max_steps=400",
        ];
        let alone: Vec<String> = common.iter().cloned().chain(alone.map(String::from)).collect();
        let recall: SftConfig = config::load(&file, &alone)?;
        let records: Vec<RagRecord> = read_rag(test, &BadRows::default())?.collect::<Result<_, _>>()?;
        let closed = self.answers(&recall, &self.out.join("closed-book"), &records)?;
        let open = self.answers(&read, &self.out.join("generator"), &records)?;
        println!(
            "6. The same questions about facts that neither has seen (the test split), exact match and token F1:\n"
        );
        println!("{:<24}{:>14}{:>10}", "", "exact match", "f1");
        for (name, answers) in [("from memory", &closed), ("from what is retrieved", &open)] {
            let s = AnswerScores::of(answers);
            println!("{name:<24}{:>14.4}{:>10.4}", s.exact_match, s.f1);
        }
        let held = AnswerScores::of(&open).answer_in_contexts;
        println!("   (the passage shown holds the answer to {:.0} % of the questions)", 100.0 * held);
        for a in open.iter().step_by((open.len() / 3).max(1)).take(3) {
            println!("\n{}\n  {}   (right: {})", a.question, a.answer, a.golds.join(", "));
        }
        Ok(read)
    }

    fn retrieve(&self, splits: [&str; 3]) -> Result<Vec<PathBuf>> {
        let measures = ["recall@1".parse()?];
        let wanted = retrieve::Wanted {
            data: self.data,
            splits: &splits.map(String::from),
            answers: None,
            k: FOUND,
            measures: &measures,
            rerank: None,
        };
        let found =
            retrieve::run(self.model, &wanted, &EncodeSettings::default(), &BadRows::default(), self.quiet)?;
        let dir = self.out.join("retrieved");
        splits.iter().zip(&found).map(|(split, f)| retrieve::write_into(&dir, split, &f.records)).collect()
    }

    /// Trains a generator and answers with the best of the run.
    fn answers(&self, config: &SftConfig, out: &Path, records: &[RagRecord]) -> Result<Vec<Answered>> {
        let options = generating::RunOptions { quiet: self.quiet, ..generating::RunOptions::new(out) };
        let outcome = sft::train(config, &options)?.run;
        if !outcome.finished {
            return Err(crate::common::Stopped(format!(
                "stopped at step {}; the quickstart begins anew",
                outcome.step
            ))
            .into());
        }
        let device = device::parse(&config.run.device)?;
        let generator = Generator::load(&out.join("best"), device, config.run.precision.resolve(device))?;
        let options = AnswerOptions {
            prompt: &config.prompt,
            contexts: ContextConfig::retrieved(config.contexts.count),
            decode: &config.eval.decode,
            batch: BATCH,
            seed: config.run.seed,
        };
        let bar = counter("answering the test split", Some(records.len() as u64), self.quiet);
        let (answers, _) = answer_all(&generator, records, &options, &mut |n| bar.set_position(n as u64))?;
        bar.finish_and_clear();
        Ok(answers)
    }
}
