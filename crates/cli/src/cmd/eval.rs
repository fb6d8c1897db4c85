//! `ragduet eval`: rankings; answers are in `eval_answers`, choices in `eval_choices`.

use crate::common;
use anyhow::Result;
use ragduet_metrics::significance::{Resampling, randomisation};
use ragduet_metrics::{Evaluation, Measure, Qrels, Run, evaluate};
use ragduet_retriever::evaluate::default_measures;
use std::path::{Path, PathBuf};

/// Arguments of `eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Evaluate retrieval with trec_eval's measures: dense, late-interaction and sparse models, BM25, hybrids, with or
    /// without re-ranking.
    ///
    /// Several systems come in one table, with a significance test, latency and index size.
    Retriever(Box<super::eval_retriever::Args>),
    /// Evaluate generated answers: exact match, token F1, and the effect of the passages.
    Generator(Box<super::eval_answers::GeneratorEval>),
    /// Evaluate a RAG pipeline: retrieval, answers, faithfulness.
    Rag(Box<super::eval_answers::RagEval>),
    /// Evaluate a classifier on labelled texts.
    Classifier(super::classify::ClassifierEval),
    /// Evaluate multiple-choice records by rank classification (likelihood of each choice), per task.
    Choices(Box<super::eval_choices::Args>),
    /// Evaluate a TREC run file.
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Run file.
    run: PathBuf,
    /// Relevance judgements (qrels; BEIR or TREC format).
    #[arg(long)]
    qrels: PathBuf,
    /// Measures.
    #[arg(long, value_delimiter = ',')]
    measures: Vec<Measure>,
    /// Second run file, compared by a paired randomization test.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Drops passages with the id of their query, as BEIR's evaluation does (ArguAna, Quora).
    #[arg(long)]
    drop_identical_ids: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        match self.what {
            What::Retriever(a) => a.run(quiet),
            What::Generator(a) => a.run(quiet),
            What::Rag(a) => a.run(quiet),
            What::Classifier(a) => a.run(quiet),
            What::Choices(a) => a.run(quiet),
            What::Run(a) => {
                let qrels = Qrels::read(&a.qrels)?;
                let mut run = Run::read_trec(&a.run)?;
                own_passages(&mut run, a.drop_identical_ids);
                let measures = or_default(&a.measures);
                let result = evaluate(&qrels, &run, &measures);
                say_missing(&a.run, &qrels, &result)?;
                let other = other(a.compare.as_ref(), &qrels, &measures, a.drop_identical_ids)?;
                report(&result, &qrels, &measures, other.as_ref(), None, a.json)
            }
        }
    }
}

/// Drops passages that are their query's own, by id, where that is wanted; else warns of them. Whether any were dropped.
pub(super) fn own_passages(run: &mut Run, drop: bool) -> bool {
    let mut without = run.clone();
    let own = without.drop_identical_ids();
    if own > 0 && drop {
        *run = without;
    } else if own > 0 {
        tracing::warn!(
            "{own} queries found the passage that has their own id; BEIR's evaluation leaves it out: --drop-identical-ids"
        );
    }
    own > 0 && drop
}

/// The measures asked for, or the usual ones.
pub(super) fn or_default(measures: &[Measure]) -> Vec<Measure> {
    if measures.is_empty() { default_measures() } else { measures.to_vec() }
}

/// What a TREC run file that is compared with comes to, without the queries' own passages where that is wanted.
pub(super) fn other(
    path: Option<&PathBuf>,
    qrels: &Qrels,
    measures: &[Measure],
    drop: bool,
) -> Result<Option<Evaluation>> {
    let evaluated = |path: &PathBuf| {
        let mut run = Run::read_trec(path)?;
        own_passages(&mut run, drop);
        let result = evaluate(qrels, &run, measures);
        say_missing(path, qrels, &result)?;
        Ok(result)
    };
    path.map(evaluated).transpose()
}

/// Counts in a warning the judged queries that a run file lacks, and its queries that nobody judged.
///
/// # Errors
/// A run file that has none of the judged queries.
pub(super) fn say_missing(path: &Path, qrels: &Qrels, result: &Evaluation) -> Result<()> {
    let (missing, judged) = (result.missing_queries, qrels.len());
    if missing == judged && judged > 0 {
        let example = qrels.iter().next().map(|(id, _)| id).unwrap_or_default();
        anyhow::bail!(
            "{}: it has none of the {judged} judged queries, such as {example:?}, and {} others: is it of this data set \
             and split?",
            path.display(),
            result.unjudged_queries
        );
    }
    if missing > 0 {
        tracing::warn!(
            "{}: {missing} of {judged} judged queries are not in the run and count as 0",
            path.display()
        );
    }
    if result.unjudged_queries > 0 {
        tracing::warn!(
            "{}: {} queries of the run are not judged and left out",
            path.display(),
            result.unjudged_queries
        );
    }
    Ok(())
}

/// Prints figures, beside those they are compared with.
pub(super) fn report(
    result: &Evaluation,
    qrels: &Qrels,
    measures: &[Measure],
    other: Option<&Evaluation>,
    seconds: Option<f64>,
    json: bool,
) -> Result<()> {
    let mut tests = Vec::new();
    if let Some(theirs) = other {
        for &m in measures {
            if let (Some(a), Some(b)) = (result.column(m), theirs.column(m)) {
                tests.push((
                    m,
                    theirs.mean(m).unwrap_or(0.0),
                    randomisation(&a, &b, &Resampling::default())?,
                ));
            }
        }
    }
    if json {
        let compared: serde_json::Map<String, serde_json::Value> = tests
            .iter()
            .map(|(m, mean, t)| (m.to_string(), serde_json::json!({"other": mean, "test": t})))
            .collect();
        return common::print_json(&serde_json::json!({
            "queries": qrels.len(), "mean": result.mean, "seconds": seconds, "compared": compared,
        }));
    }
    for &m in measures {
        let value = result.mean(m).unwrap_or(f64::NAN);
        match tests.iter().find(|(t, ..)| *t == m) {
            None => println!("{:<14} {value:.4}", m.to_string()),
            Some((_, theirs, t)) => println!(
                "{:<14} {value:.4}   other {theirs:.4}   difference {:+.4}   p = {:.4}",
                m.to_string(),
                t.difference,
                t.p_value
            ),
        }
    }
    Ok(())
}
