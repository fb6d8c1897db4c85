//! `ragduet eval`: rankings; answers are in `eval_answers`, choices in `eval_choices`.

use crate::common::{self, ModelArgs, ReadArgs, RerankArgs, counter};
use anyhow::{Context, Result};
use ragduet_metrics::significance::{Resampling, randomisation};
use ragduet_metrics::{Evaluation, Measure, Qrels, Run, evaluate};
use ragduet_retriever::evaluate::{EvalSet, default_measures, evaluate_model};
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Rank a corpus for judged queries by exact search and score the ranking as trec_eval does.
    ///
    /// Example: ragduet eval retriever -m sentence-transformers/all-MiniLM-L6-v2 --data scifact --split test
    Retriever(Box<Retriever>),
    /// Answer a file of records and score the answers: exact match, token F1, what the passages are worth.
    ///
    /// Example: ragduet eval generator -g runs/reader/best --data test.rag.jsonl --compare
    Generator(Box<super::eval_answers::GeneratorEval>),
    /// Find passages, answer, and measure the whole: retrieval, answers, faithfulness.
    ///
    /// Example: ragduet eval rag -m runs/retriever/best -g runs/reader/best --data datasets/maravel --compare
    Rag(Box<super::eval_answers::RagEval>),
    /// Measure a classifier on labelled texts.
    ///
    /// Example: ragduet eval classifier -m runs/topics/best --data test.jsonl
    Classifier(super::classify::ClassifierEval),
    /// Choose among the choices of records by their likelihood, and score what was chosen, task by task.
    ///
    /// Example: ragduet eval choices -g runs/tfew/best --data title.test.jsonl verify.test.jsonl
    Choices(Box<super::eval_choices::Args>),
    /// Score a TREC run file.
    ///
    /// Example: ragduet eval run run.trec --qrels qrels/test.tsv --compare other.trec
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
struct Retriever {
    #[command(flatten)]
    model: ModelArgs,
    /// A BEIR directory, or a file of examples whose passages are then the corpus.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Measures, such as ndcg@10,recall@100,mrr.
    #[arg(long, value_delimiter = ',')]
    measures: Vec<Measure>,
    /// Passages ranked per query.
    #[arg(long, default_value_t = 1000)]
    depth: usize,
    /// Judge on all judged passages and a sample of the others, up to this many in all.
    #[arg(long)]
    max_passages: Option<usize>,
    /// Write the ranking as a TREC run file.
    #[arg(long, value_name = "FILE")]
    save_run: Option<PathBuf>,
    /// Compare with this TREC run file, by a paired randomisation test.
    #[arg(long, value_name = "FILE", conflicts_with = "rerank")]
    compare: Option<PathBuf>,
    /// With --rerank both rankings are measured, and compared by a paired randomisation test.
    #[command(flatten)]
    rerank: RerankArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// The run file.
    run: PathBuf,
    /// Judgements (BEIR or TREC form).
    #[arg(long)]
    qrels: PathBuf,
    /// Measures.
    #[arg(long, value_delimiter = ',')]
    measures: Vec<Measure>,
    /// Compare with this run file, by a paired randomisation test.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        match self.what {
            What::Retriever(a) => retriever(&a, quiet),
            What::Generator(a) => a.run(quiet),
            What::Rag(a) => a.run(quiet),
            What::Classifier(a) => a.run(quiet),
            What::Choices(a) => a.run(quiet),
            What::Run(a) => {
                let qrels = Qrels::read(&a.qrels)?;
                let run = Run::read_trec(&a.run)?;
                let measures = or_default(&a.measures);
                let result = evaluate(&qrels, &run, &measures);
                let other = other(a.compare.as_ref(), &qrels, &measures)?;
                report(&result, &qrels, &measures, other.as_ref(), None, a.json)
            }
        }
    }
}

fn or_default(measures: &[Measure]) -> Vec<Measure> {
    if measures.is_empty() { default_measures() } else { measures.to_vec() }
}

fn retriever(a: &Retriever, quiet: bool) -> Result<()> {
    let model = a.model.load()?;
    let bad = a.read.bad_rows();
    let mut options = a.read.options();
    options.split.get_or_insert_with(|| "test".into());
    let set = EvalSet::read(&a.data, &options, a.max_passages, 0, &bad)?;
    common::report_bad_rows(&bad);
    let measures = or_default(&a.measures);
    let bar = counter("encoding passages", Some(set.passages.len() as u64), quiet);
    let started = std::time::Instant::now();
    let (mut result, mut run) =
        evaluate_model(&model, &set, &measures, a.depth, &a.model.encode_settings(), &mut |n, _| {
            bar.set_position(n);
        })?;
    bar.finish_and_clear();
    let mut compared = other(a.compare.as_ref(), &set.qrels, &measures)?;
    if let Some(reranker) = a.rerank.load(&a.model.device, a.model.precision)? {
        run = reranker.ranking(&set, &run, quiet)?;
        compared = Some(std::mem::replace(&mut result, evaluate(&set.qrels, &run, &measures)));
    }
    let seconds = started.elapsed().as_secs_f64();
    if let Some(path) = &a.save_run {
        run.write_trec(path, "ragduet").with_context(|| format!("cannot write {}", path.display()))?;
    }
    tracing::info!(
        "{} queries over {} passages in {seconds:.1} s, {} on {:?}",
        set.queries.len(),
        set.passages.len(),
        model.compute,
        model.device
    );
    report(&result, &set.qrels, &measures, compared.as_ref(), Some(seconds), a.json)
}

/// What a TREC run file that is compared with comes to.
fn other(path: Option<&PathBuf>, qrels: &Qrels, measures: &[Measure]) -> Result<Option<Evaluation>> {
    path.map(|path| Ok(evaluate(qrels, &Run::read_trec(path)?, measures))).transpose()
}

fn report(
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
