//! The last part of the story: retriever and generator teach each other, and everything beside everything in one table.

use crate::common::counter;
use anyhow::Result;
use ragduet_data::{BadRows, RagRecord, read_questions};
use ragduet_generator::Generator;
use ragduet_generator::recipe::config::SftConfig;
use ragduet_generator::recipe::parts;
use ragduet_generator::report::{Judges, Report};
use ragduet_joint::corpus::Corpus;
use ragduet_joint::pipeline::{GENERATOR, Pipeline, RETRIEVER, RagPipeline};
use ragduet_joint::recipe::config::JointConfig;
use ragduet_joint::recipe::{RunOptions, train};
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::contrastive::initial_model;
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{BiEncoder, Settings};
use ragduet_torch::{device, rng};
use ragduet_train::config;
use std::path::Path;
use std::sync::Arc;

/// Where in the run folder.
pub(super) const FOLDER: &str = "joint";
/// Questions of the test split in the table.
const QUESTIONS: usize = 400;
/// Recall is that of the first so many passages.
const DEPTH: usize = 5;
/// Questions answered at a time.
const BATCH: usize = 64;

/// What `best.json` says of the model that is kept.
#[derive(serde::Deserialize)]
struct Best {
    step: u64,
}

pub(super) struct Together<'a> {
    pub project: &'a Path,
    pub out: &'a Path,
    pub data: &'a Path,
    pub retriever: &'a RetrieverConfig,
    pub reader: &'a SftConfig,
    /// `run.seed=N`, where one is asked for.
    pub seed: &'a [String],
    pub quiet: bool,
}

impl Together<'_> {
    pub fn run(&self) -> Result<()> {
        println!("\n7. The two teach each other: from questions and answers, without any judged passage.");
        let out = self.out.join(FOLDER);
        let set = |key: &str, path: &Path| format!("{key}={}", path.display());
        let mut sets = vec![
            set("data.train", self.data),
            set("data.dev", self.data),
            set("retriever.model.base", &self.out.join("best")),
            set("generator.model.base", &self.out.join("generator/best")),
        ];
        sets.extend_from_slice(self.seed);
        let config: JointConfig = config::load(&self.project.join("configs/joint/quickstart.toml"), &sets)?;
        let options = RunOptions { quiet: self.quiet, ..RunOptions::new(&out) };
        let outcome = train(&config, &options)?;
        if !outcome.run.finished {
            return Err(crate::common::Stopped(format!(
                "stopped at step {}; the quickstart begins anew",
                outcome.run.step
            ))
            .into());
        }
        println!("   {} steps: {}", outcome.run.step, outcome.seconds);
        let best: Best = serde_json::from_str(&fs_err::read_to_string(out.join("best.json"))?)?;
        let start = if best.step == 0 { ", the start: training made no later one better" } else { "" };
        println!("   kept, by the dev split: step {}{start}", best.step);

        println!("8. All of it on the test split ({QUESTIONS} questions):\n");
        let (mut records, _) = read_questions(self.data, "test", None, &BadRows::default())?;
        records.truncate(QUESTIONS);
        let corpus = Arc::new(Corpus::read(self.data, &BadRows::default())?);
        println!(
            "{:<22}{:>12}{:>12}{:>14}{:>10}{:>12}",
            "", "recall@1", "recall@5", "exact match", "f1", "support"
        );
        let best = self.out.join("best");
        let (reader, joint) = (self.out.join("generator/best"), out.join("best"));
        let rows = [
            ("base", None, None),
            ("retriever alone", Some(best.clone()), None),
            ("generator alone", None, Some(reader.clone())),
            ("both, separately", Some(best), Some(reader)),
            ("both, jointly", Some(joint.join(RETRIEVER)), Some(joint.join(GENERATOR))),
        ];
        for (name, retriever, generator) in rows {
            let retriever = self.retriever(retriever.as_deref())?;
            let generator = self.generator(generator.as_deref(), &records)?;
            self.row(name, retriever, generator, &corpus, &records)?;
        }
        println!("   (support: share of an answer's words that its passage holds)");
        Ok(())
    }

    /// A trained retriever, or the one that training started from.
    fn retriever(&self, dir: Option<&Path>) -> Result<BiEncoder> {
        let Some(dir) = dir else { return Ok(initial_model(self.retriever)?) };
        let device = device::parse(&self.retriever.run.device)?;
        let m = &self.retriever.model;
        let overrides = Overrides {
            max_query_tokens: m.max_query_tokens,
            max_passage_tokens: m.max_passage_tokens,
            ..Overrides::default()
        };
        Ok(st_dir::load(dir, device, self.retriever.run.precision.resolve(device), &overrides)?)
    }

    /// Likewise.
    fn generator(&self, dir: Option<&Path>, records: &[RagRecord]) -> Result<Generator> {
        let c = self.reader;
        let device = device::parse(&c.run.device)?;
        let compute = c.run.precision.resolve(device);
        Ok(match dir {
            Some(dir) => Generator::load(dir, device, compute)?,
            None => {
                rng::seed(c.run.seed);
                parts::build(&c.model, None, compute, device, None, || {
                    records.iter().map(|r| r.question.as_str()).collect()
                })?
            }
        })
    }

    fn row(
        &self,
        name: &'static str,
        retriever: BiEncoder,
        generator: Generator,
        corpus: &Arc<Corpus>,
        records: &[RagRecord],
    ) -> Result<()> {
        let Settings { max_query_tokens, max_passage_tokens, .. } = retriever.settings;
        let settings = Pipeline {
            corpus: self.data.to_path_buf(),
            contexts: self.reader.contexts.count,
            prompt: self.reader.prompt.clone(),
            decode: self.reader.eval.decode.clone(),
            max_query_tokens,
            max_passage_tokens,
            columns: Default::default(),
        };
        let p = RagPipeline::assemble(settings, retriever, generator, Arc::clone(corpus))?;
        let found = p.retrieve(records, DEPTH)?;
        let recall = |k: usize| {
            let hit = |r: &&RagRecord| {
                r.contexts.iter().take(k).any(|f| r.gold.iter().any(|g| g.id == f.passage.id))
            };
            found.iter().filter(hit).count() as f64 / found.len().max(1) as f64
        };
        let bar = counter(name, Some(found.len() as u64), self.quiet);
        let answers = p.answer(&found, BATCH, &mut |n| bar.set_position(n as u64))?;
        bar.finish_and_clear();
        let (report, _) = Report::of(&answers, &Judges::default())?;
        let support = report.faithfulness.and_then(|f| f.support);
        let support = support.map_or_else(|| "-".to_string(), |s| format!("{s:.4}"));
        println!(
            "{name:<22}{:>12.4}{:>12.4}{:>14.4}{:>10.4}{support:>12}",
            recall(1),
            recall(DEPTH),
            report.answer.exact_match,
            report.answer.f1
        );
        Ok(())
    }
}
