//! `ragduet retrieve`.

use crate::common::numbers::count;
use crate::common::{self, ModelArgs, RerankArgs, Reranker, counter};
use anyhow::Result;
use ragduet_data::{
    Answers, BadRows, Collection, Found, MissingPolicy, Passage, RagRecord, ReadOptions, rag_line,
};
use ragduet_files::OutputFile;
use ragduet_metrics::{Evaluation, Measure, evaluate};
use ragduet_retriever::evaluate::{EvalSet, evaluate_splits};
use ragduet_retriever::{BiEncoder, EncodeSettings};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `retrieve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A collection: corpus, questions and judgements, as a BEIR folder has them.
    #[arg(long)]
    data: PathBuf,
    /// Splits, such as train,dev,test: the corpus is encoded once for all.
    #[arg(long, default_value = "train", value_delimiter = ',')]
    split: Vec<String>,
    /// Answers by question (JSON Lines with `_id` and `answers`); those of the collection if not given, which a BEIR
    /// folder has in answers.jsonl.
    #[arg(long)]
    answers: Option<PathBuf>,
    /// Passages per question.
    #[arg(short, default_value_t = 10, value_parser = count)]
    k: usize,
    #[command(flatten)]
    rerank: RerankArgs,
    /// Output file: records for `train generator` and `generate` (JSON Lines). With several splits a folder, in which each
    /// is SPLIT.rag.jsonl.
    #[arg(short, long)]
    out: PathBuf,
    /// Move bad rows to this file instead of stopping.
    #[arg(long, value_name = "FILE")]
    skip_bad_rows: Option<PathBuf>,
    #[command(flatten)]
    map: common::MapArgs,
    /// Judgements whose query has no text or whose passage the corpus lacks: `warn` counts them, `error` stops.
    #[arg(long, value_name = "POLICY", default_value = "warn", value_parser = common::missing_policy)]
    missing: MissingPolicy,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        let mut splits = self.split.clone();
        splits.sort();
        if let Some(pair) = splits.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(common::Usage(format!("--split names {} twice", pair[0])).into());
        }
        if splits.len() > 1 && self.out.is_file() {
            let why = format!("{} is a file; with several splits -o is a folder", self.out.display());
            return Err(common::Usage(why).into());
        }
        let model = self.model.load()?;
        let bad = self.map.bad_rows(self.skip_bad_rows.as_ref())?;
        bad.set_missing(self.missing);
        let rerank = self.rerank.load(&self.model.device, self.model.precision)?;
        let measures = ["recall@1".parse()?, format!("recall@{}", self.k).parse()?];
        let wanted = Wanted {
            data: &self.data,
            splits: &self.split,
            answers: self.answers.as_deref(),
            k: self.k,
            measures: &measures,
            rerank: rerank.as_ref(),
        };
        let found = run(&model, &wanted, &self.model.encode_settings(), &bad, quiet)?;
        for (split, found) in self.split.iter().zip(found) {
            let path = if self.split.len() == 1 {
                write(&self.out, &found.records)?;
                self.out.clone()
            } else {
                write_into(&self.out, split, &found.records)?
            };
            let shown: Vec<String> = found.scores.mean.iter().map(|(m, v)| format!("{m} {v:.4}")).collect();
            println!(
                "{}: {} questions with {} passages each; {}",
                path.display(),
                found.records.len(),
                self.k,
                shown.join(", ")
            );
        }
        Ok(())
    }
}

/// Writes records, a line each.
pub fn write(path: &Path, records: &[RagRecord]) -> Result<()> {
    let mut out = OutputFile::create(path)?;
    for record in records {
        writeln!(out, "{}", rag_line(record))?;
    }
    Ok(out.finish()?)
}

/// Writes the records of a split into a folder; the file.
pub fn write_into(dir: &Path, split: &str, records: &[RagRecord]) -> Result<PathBuf> {
    fs_err::create_dir_all(dir)?;
    let path = dir.join(format!("{split}.rag.jsonl"));
    write(&path, records)?;
    Ok(path)
}

/// What is looked for, and where.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// A collection.
    pub data: &'a Path,
    /// Its splits.
    pub splits: &'a [String],
    /// Answers by question; absent: those of the collection.
    pub answers: Option<&'a Path>,
    /// Passages per question.
    pub k: usize,
    /// What the ranking is measured by.
    pub measures: &'a [Measure],
    /// What puts the best passages in another order.
    pub rerank: Option<&'a Reranker>,
}

/// What was found.
#[derive(Debug)]
pub struct Retrieved {
    /// A record per question that has answers.
    pub records: Vec<RagRecord>,
    /// How good the ranking is, over all judged questions.
    pub scores: Evaluation,
    /// Judged questions, whether they have answers or not.
    pub judged: usize,
}

/// Ranks the corpus for each question of each split.
pub fn run(
    model: &BiEncoder,
    wanted: &Wanted<'_>,
    settings: &EncodeSettings,
    bad: &BadRows,
    quiet: bool,
) -> Result<Vec<Retrieved>> {
    let options = ReadOptions { split: wanted.splits.first().cloned(), ..ReadOptions::default() };
    let collection = Collection::open(wanted.data, &options, bad)?;
    let answers = collection.answers(wanted.answers, bad)?;
    let sets = EvalSet::of_splits(&collection, wanted.splits, bad)?;
    // Read before: bad rows are counted.
    let corpus: HashMap<String, Passage> = collection
        .corpus(&bad.silenced())?
        .map(|p| p.map(|p| (p.id.clone(), p)))
        .collect::<Result<_, _>>()?;
    common::report_bad_rows(bad)?;
    let bar = counter("encoding passages", Some(corpus.len() as u64), quiet);
    let depth = wanted.k.max(wanted.rerank.map_or(0, |r| r.depth));
    let ranked =
        evaluate_splits(model, &sets, wanted.measures, depth, settings, &mut |n, _| bar.set_position(n))?;
    bar.finish_and_clear();
    let mut all = Vec::new();
    for ((split, set), (mut scores, mut run)) in wanted.splits.iter().zip(&sets).zip(ranked) {
        if let Some(reranker) = wanted.rerank {
            run = reranker.ranking(set, &run, quiet)?;
            scores = evaluate(&set.qrels, &run, wanted.measures);
        }
        run.truncate(wanted.k);
        let records = records(wanted, split, set, &run, &corpus, &answers)?;
        all.push(Retrieved { records, scores, judged: set.qrels.len() });
    }
    Ok(all)
}

/// A record for each question that has answers.
fn records(
    wanted: &Wanted<'_>,
    split: &str,
    set: &EvalSet,
    run: &ragduet_metrics::Run,
    corpus: &HashMap<String, Passage>,
    answers: &Answers,
) -> Result<Vec<RagRecord>> {
    let (mut records, mut unanswered) = (Vec::new(), 0);
    for (id, question) in &set.queries {
        let Some(answers) = answers.get(id) else {
            unanswered += 1;
            continue;
        };
        let contexts =
            run.get(id).unwrap_or_default().iter().filter_map(|(p, score)| {
                Some(Found { passage: corpus.get(p)?.clone(), score: Some(*score) })
            });
        let mut relevant: Vec<&String> =
            set.qrels.get(id).into_iter().flatten().filter(|(_, g)| **g > 0).map(|(p, _)| p).collect();
        relevant.sort();
        let gold = relevant.into_iter().filter_map(|p| corpus.get(p).cloned());
        records.push(RagRecord {
            id: id.clone(),
            question: question.clone(),
            answers: answers.clone(),
            contexts: contexts.collect(),
            gold: gold.collect(),
            ..RagRecord::default()
        });
    }
    if unanswered > 0 {
        let path = wanted.answers.unwrap_or(wanted.data);
        if records.is_empty() {
            let found: Vec<&str> = answers.keys().take(3).map(String::as_str).collect();
            anyhow::bail!(
                "none of the {unanswered} questions of the split {} has an answer in {}, which has answers to {}{}",
                split,
                path.display(),
                if found.is_empty() { "none" } else { "ids such as " },
                found.join(", ")
            );
        }
        tracing::warn!("{unanswered} questions have no answer in {} and were left out", path.display());
    }
    Ok(records)
}
