//! `ragduet eval generator` and `ragduet eval rag`: answers measured, with and without what they were given.

mod compare;

use crate::cmd::generate::GeneratorArgs;
use crate::cmd::retrieve::{self, Retrieved};
use crate::common::numbers::count;
use crate::common::{self, ModelArgs, RerankArgs, counter};
use anyhow::{Context as _, Result};
use compare::System;
use ragduet_data::{MissingPolicy, RagRecord, no_answers, read_rag};
use ragduet_generator::Generator;
use ragduet_generator::answers::{AnswerOptions, Answered, answer_all};
use ragduet_generator::bertscore::BertScorer;
use ragduet_generator::entailment::Judge;
use ragduet_generator::faithfulness::Condition;
use ragduet_generator::report::{Judged, Judges, Report};
use ragduet_joint::pipeline::{GENERATOR, RETRIEVER};
use ragduet_metrics::Measure;
use ragduet_metrics::wordnet::WordNet;
use ragduet_nn::hub;
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What both commands measure.
#[derive(Debug, clap::Args)]
struct Wanted {
    /// Also answer without passages, with another question's passages and with shuffled passages.
    #[arg(long)]
    compare: bool,
    /// Compare with another system on the same questions: a number of few-shot examples (0: zero-shot), or another
    /// generator (folder or Hugging Face id; with its own prompt settings). May be given several times.
    #[arg(long, value_name = "SHOTS|DIR")]
    against: Vec<String>,
    /// WordNet's `dict` folder, for METEOR's synonym matching.
    #[arg(long, value_name = "DIR")]
    wordnet: Option<PathBuf>,
    /// Encoder for BERTScore (folder or Hugging Face id), with :N for the output of layer N.
    #[arg(long, value_name = "DIR[:LAYER]")]
    bertscore: Option<String>,
    /// Natural-language-inference model (a classifier with a label `entailment`; folder or Hugging Face id): whether
    /// the passages entail each sentence of an answer.
    #[arg(long, value_name = "DIR")]
    nli: Option<String>,
    /// Write passages, answer and measures of each question to this file (JSON Lines).
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `eval generator`.
#[derive(Debug, clap::Args)]
pub struct GeneratorEval {
    #[command(flatten)]
    generator: GeneratorArgs,
    /// Records with questions, passages and answers.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    map: common::MapArgs,
    /// Number of questions, the first of the file.
    #[arg(long, value_parser = count)]
    questions: Option<usize>,
    #[command(flatten)]
    wanted: Wanted,
}

/// Arguments of `eval rag`.
#[derive(Debug, clap::Args)]
pub struct RagEval {
    /// Joint run folder: provides retriever and generator unless others are given.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// Retriever folder or Hugging Face id.
    #[arg(short, long)]
    model: Option<String>,
    #[command(flatten)]
    generator: GeneratorArgs,
    /// A collection: corpus, questions and judgements, as a BEIR folder has them.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    map: common::MapArgs,
    /// Split.
    #[arg(long, default_value = "test")]
    split: String,
    /// Answers by question (JSON Lines with `_id` and `answers`); those of the collection if not given, which a BEIR
    /// folder has in answers.jsonl.
    #[arg(long)]
    answers: Option<PathBuf>,
    /// Number of questions, the first of the split.
    #[arg(long, value_parser = count)]
    questions: Option<usize>,
    /// Judgements whose query has no text or whose passage the corpus lacks: `warn` counts them, `error` stops.
    #[arg(long, value_name = "POLICY", default_value = "warn", value_parser = common::missing_policy)]
    missing: MissingPolicy,
    #[command(flatten)]
    rerank: RerankArgs,
    #[command(flatten)]
    wanted: Wanted,
}

impl Wanted {
    /// Loads what measures need, where the generator runs and as precisely.
    fn judges(&self, generator: &Generator) -> Result<Judges> {
        let (device, compute) = (generator.device, generator.compute);
        let bertscore = |given: &String| -> Result<BertScorer> {
            let layered = given.rsplit_once(':').and_then(|(dir, n)| Some((dir, n.parse().ok()?)));
            let (dir, layer) = layered.map_or((given.as_str(), None), |(dir, n)| (dir, Some(n)));
            let dir = hub::resolve(dir)?;
            BertScorer::load(&dir, layer, device, compute).with_context(|| format!("--bertscore {given}"))
        };
        let nli = |given: &String| -> Result<Judge> {
            Judge::load(&hub::resolve(given)?, device, compute).with_context(|| format!("--nli {given}"))
        };
        Ok(Judges {
            wordnet: self.wordnet.as_ref().map(WordNet::open).transpose()?,
            bertscore: self.bertscore.as_ref().map(bertscore).transpose()?,
            entailment: self.nli.as_ref().map(nli).transpose()?,
        })
    }
}

/// A condition's name in tables.
fn name_of(c: Condition) -> &'static str {
    match c {
        Condition::With => "with passages",
        Condition::Without => "without",
        Condition::Mismatched => "another's",
        Condition::Shuffled => "reordered",
    }
}

/// Reports under each condition that is wanted; the answers are those with the own passages.
struct Outcome {
    answers: Vec<Answered>,
    judged: Vec<Judged>,
    reports: Vec<(&'static str, Report)>,
    /// The first row is the system itself.
    systems: Vec<System>,
}

fn measure(args: &GeneratorArgs, records: &[RagRecord], wanted: &Wanted, quiet: bool) -> Result<Outcome> {
    // What cannot be compared is said before anything is answered.
    wanted.against.iter().try_for_each(|other| args.instead(other).prompt().map(|_| ()))?;
    let generator = args.load()?;
    let judges = wanted.judges(&generator)?;
    let (prompt, contexts) = args.prompt()?;
    let decode = args.decode();
    let conditions: &[Condition] = if wanted.compare { &Condition::ALL } else { &[Condition::With] };
    // Only what is shown changes places.
    let own: Vec<_> =
        records.iter().map(|r| r.contexts.iter().take(contexts.count).cloned().collect::<Vec<_>>()).collect();
    let mut outcome =
        Outcome { answers: Vec::new(), judged: Vec::new(), reports: Vec::new(), systems: Vec::new() };
    for &condition in conditions {
        let shown = condition.contexts(&own, args.seed);
        let records: Vec<RagRecord> =
            records.iter().zip(shown).map(|(r, contexts)| RagRecord { contexts, ..r.clone() }).collect();
        let options = AnswerOptions {
            prompt: &prompt,
            contexts: contexts.clone(),
            decode: &decode,
            batch: args.batch,
            seed: args.seed,
        };
        if condition == Condition::With {
            options.log_first(&generator, &records)?;
            options.warn_of_unshown(&generator, &records)?;
        }
        let bar = counter("answering", Some(records.len() as u64), quiet);
        let (answers, report) =
            answer_all(&generator, &records, &options, &mut |n| bar.set_position(n as u64))?;
        bar.finish_and_clear();
        tracing::info!("{}: {report}", name_of(condition));
        let (report, judged) = Report::of(&answers, &judges)?;
        outcome.reports.push((name_of(condition), report));
        if condition == Condition::With {
            (outcome.answers, outcome.judged) = (answers, judged);
        }
    }
    if !wanted.against.is_empty() {
        outcome.systems.push(System::new(args, &prompt, &outcome.answers)?);
        drop((generator, judges));
    }
    for other in &wanted.against {
        outcome.systems.push(compare::answered(&args.instead(other), records, quiet)?);
    }
    Ok(outcome)
}

/// A line per question: the answer with its measures, and what the retriever had to do with it.
fn save(path: &Path, outcome: &Outcome, records: &[RagRecord]) -> Result<()> {
    let mut out = ragduet_files::OutputFile::create(path)?;
    for ((a, judged), r) in outcome.answers.iter().zip(&outcome.judged).zip(records) {
        let mut line = serde_json::to_value(a)?;
        if let (Some(map), serde_json::Value::Object(more)) =
            (line.as_object_mut(), serde_json::to_value(judged)?)
        {
            map.extend(more);
        }
        let shown: Vec<_> = a
            .contexts
            .iter()
            .map(|c| {
                let found = r.contexts.iter().position(|f| f.passage.id == c.id);
                let score = found.and_then(|i| r.contexts[i].score);
                json!({
                    "id": c.id, "title": c.title, "text": c.text, "rank": found.map(|i| i + 1), "score": score,
                    "gold": a.gold_ids.contains(&c.id),
                })
            })
            .collect();
        if let Some(map) = line.as_object_mut() {
            map.insert("passages".into(), shown.into());
            map.insert("gold".into(), json!(a.gold_ids));
        }
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(out.finish()?)
}

/// A table with a column per condition. `above`: figures that no condition changes.
fn print_table(head: &str, above: &[(String, f64)], reports: &[(&'static str, Report)]) {
    let names: String = reports.iter().map(|(n, _)| format!("{n:>15}")).collect();
    println!("{head:<33}{names}");
    for (name, value) in above {
        println!("{:<13}{name:<20}{value:>15.4}", "retrieval");
    }
    let columns: Vec<_> = reports.iter().map(|(_, r)| r.rows()).collect();
    for (i, row) in columns[0].iter().enumerate() {
        if columns.iter().all(|c| c[i].value.is_none()) {
            continue;
        }
        let cell = |c: &Vec<ragduet_generator::report::Row>| match c[i].value {
            Some(v) => format!("{v:>15.4}"),
            None => format!("{:>15}", "-"),
        };
        let cells: String = columns.iter().map(cell).collect();
        println!("{:<13}{:<20}{cells}", row.section, row.name);
    }
}

impl GeneratorEval {
    /// Runs the command.
    pub fn run(mut self, quiet: bool) -> Result<()> {
        self.generator.columns = self.map.columns()?;
        let bad = self.map.bad_rows(None)?;
        let records: Vec<RagRecord> = read_rag(&self.data, &bad)?
            .take(self.questions.unwrap_or(usize::MAX))
            .collect::<Result<_, _>>()?;
        let without = records.iter().filter(|r| r.answers.is_empty()).count();
        if without == records.len() && without > 0 {
            return Err(anyhow::anyhow!(no_answers(&self.data, without)));
        }
        if without > 0 {
            tracing::warn!(
                "{}: {without} of {} questions have no answer: exact match, F1 and the measures of text leave them out",
                self.data.display(),
                records.len()
            );
        }
        let outcome = measure(&self.generator, &records, &self.wanted, quiet)?;
        if let Some(path) = &self.wanted.save {
            save(path, &outcome, &records)?;
        }
        let compared = compare::rows(&outcome.systems)?;
        if self.wanted.json {
            let mut all: serde_json::Map<_, _> =
                outcome.reports.iter().map(|(n, r)| (n.to_string(), json!(r))).collect();
            if !compared.is_empty() {
                all.insert("systems".into(), json!(compared));
            }
            return common::print_json(&all);
        }
        let known = match without {
            0 => String::new(),
            n => format!(", {} with answers", records.len() - n),
        };
        print_table(&format!("{} questions{known}", records.len()), &[], &outcome.reports);
        compare::print(&compared);
        Ok(())
    }
}

impl RagEval {
    /// Runs the command.
    pub fn run(mut self, quiet: bool) -> Result<()> {
        self.generator.columns = self.map.columns()?;
        if let Some(run) = &self.run {
            let (dir, _) = common::pipeline(run)?;
            self.model.get_or_insert_with(|| dir.join(RETRIEVER).display().to_string());
            self.generator.generator.get_or_insert_with(|| dir.join(GENERATOR).display().to_string());
        }
        let (_, contexts) = self.generator.prompt()?;
        let others =
            self.wanted.against.iter().map(|other| Ok(self.generator.instead(other).prompt()?.1.count));
        let deepest = others.collect::<Result<Vec<usize>>>()?.into_iter().max().unwrap_or(0);
        let k = contexts.count.max(1);
        let bad = self.map.bad_rows(None)?;
        bad.set_missing(self.missing);
        let model =
            self.model.clone().ok_or_else(|| common::Usage("give a retriever with -m, or --run".into()))?;
        let retriever = ModelArgs::new(model, &self.generator.device, self.generator.precision);
        let model = retriever.load()?;
        let rerank = self.rerank.load(&self.generator.device, self.generator.precision)?;
        let mut measures: Vec<Measure> = ["ndcg@10", "mrr@10", "recall@1", "recall@5"]
            .iter()
            .map(|m| m.parse())
            .collect::<Result<_, _>>()?;
        if ![1, 5].contains(&k) {
            measures.push(format!("recall@{k}").parse()?);
        }
        let what = retrieve::Wanted {
            data: &self.data,
            splits: std::slice::from_ref(&self.split),
            answers: self.answers.as_deref(),
            // As deep as the measures look; only the first k are shown.
            k: k.max(deepest).max(10),
            measures: &measures,
            rerank: rerank.as_ref(),
        };
        let found = retrieve::run(&model, &what, &retriever.encode_settings(), &bad, quiet)?;
        let Some(Retrieved { mut records, scores, judged }) = found.into_iter().next() else {
            anyhow::bail!("{}: the split {} was not read", self.data.display(), self.split);
        };
        records.truncate(self.questions.unwrap_or(usize::MAX));
        let outcome = measure(&self.generator, &records, &self.wanted, quiet)?;
        if let Some(path) = &self.wanted.save {
            save(path, &outcome, &records)?;
        }
        let compared = compare::rows(&outcome.systems)?;
        let above: Vec<(String, f64)> =
            measures.iter().filter_map(|&m| Some((m.to_string(), scores.mean(m)?))).collect();
        if self.wanted.json {
            let mut all: serde_json::Map<_, _> =
                outcome.reports.iter().map(|(n, r)| (n.to_string(), json!(r))).collect();
            let mut retrieval: std::collections::BTreeMap<String, serde_json::Value> =
                above.into_iter().map(|(name, value)| (name, json!(value))).collect();
            retrieval.insert("queries".into(), json!(judged));
            all.insert("retrieval".into(), json!(retrieval));
            if !compared.is_empty() {
                all.insert("systems".into(), json!(compared));
            }
            return common::print_json(&all);
        }
        let of = if records.len() < judged { format!(" (retrieval: {judged})") } else { String::new() };
        print_table(&format!("{} questions{of}, {k} passages", records.len()), &above, &outcome.reports);
        compare::print(&compared);
        Ok(())
    }
}
