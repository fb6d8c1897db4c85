//! `ragduet eval retriever`: one system or several over the same questions, in one table.

use super::eval::{or_default, other, own_passages, report};
use crate::common::numbers::{count, number};
use crate::common::{
    self, FusionArgs, ModelOptions, ReadArgs, RerankArgs, Reranker, Usage, VectorArgs, WordArgs, counter,
    rerank,
};
use anyhow::{Context, Result};
use ragduet_index::{ExactConfig, IndexConfig, LexicalConfig, MultiVectorConfig, Precision, ResidualConfig};
use ragduet_metrics::significance::{Resampling, randomisation};
use ragduet_metrics::{Evaluation, Measure, Run, evaluate};
use ragduet_retriever::engine::{Engine, Hits, System};
use ragduet_retriever::evaluate::{EvalSet, evaluate_model};
use ragduet_retriever::{BiEncoder, Representation};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

/// Arguments of `eval retriever`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model folder or Hugging Face id: dense, late-interaction or sparse. May be given several times.
    #[arg(short, long = "model", value_name = "MODEL")]
    models: Vec<String>,
    #[command(flatten)]
    on: ModelOptions,
    /// Systems to evaluate: model (each model given), bm25, hybrid (BM25 fused with each model).
    #[arg(long, value_delimiter = ',', value_parser = ["model", "dense", "colbert", "sparse", "bm25", "hybrid"])]
    index: Vec<String>,
    /// Late interaction: bits per residual component of a compressed index (1, 2, 4, 8); 0: exact MaxSim.
    #[arg(long, default_value_t = 0, value_parser = number::<u8>(0, 8))]
    bits: u8,
    /// BM25 k1: term-frequency saturation.
    #[arg(long, default_value_t = LexicalConfig::default().k1, value_parser = number::<f64>(0.0, 1000.0))]
    k1: f64,
    /// BM25 b: document-length normalization.
    #[arg(long, default_value_t = LexicalConfig::default().b, value_parser = number::<f64>(0.0, 1.0))]
    b: f64,
    /// Drops passages with the id of their query, as BEIR's evaluation does (ArguAna, Quora).
    #[arg(long)]
    drop_identical_ids: bool,
    #[command(flatten)]
    words: WordArgs,
    #[command(flatten)]
    vectors: VectorArgs,
    #[command(flatten)]
    fusion: FusionArgs,
    /// Split on which the fusion weights are optimized.
    #[arg(long, value_name = "SPLIT")]
    learn_weights: Option<String>,
    /// A collection (such as a BEIR directory), or a file of examples whose passages are then the corpus.
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    /// Measures, such as ndcg@10,recall@100,mrr.
    #[arg(long, value_delimiter = ',')]
    measures: Vec<Measure>,
    /// Passages ranked per query.
    #[arg(long, default_value_t = 1000, value_parser = count)]
    depth: usize,
    /// Upper bound of the evaluated corpus: all judged passages and a random sample of the others.
    #[arg(long, value_parser = count)]
    max_passages: Option<usize>,
    /// Write the ranking as a TREC run file; for several systems a folder of run files.
    #[arg(long, value_name = "FILE")]
    save_run: Option<PathBuf>,
    /// TREC run file, compared by a paired randomization test.
    #[arg(long, value_name = "FILE", conflicts_with = "rerank")]
    compare: Option<PathBuf>,
    /// Rankings before and after re-ranking are both evaluated and compared by a paired randomization test.
    #[command(flatten)]
    rerank: RerankArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A row of the table.
#[derive(Debug, Serialize)]
struct Row {
    system: String,
    mean: Vec<(String, f64)>,
    /// Milliseconds for a question alone, from its text to its ranking.
    latency_ms: Option<f64>,
    bytes_per_passage: Option<f64>,
    /// Of the first measure against the first system's.
    p_value: Option<f64>,
    #[serde(skip)]
    evaluation: Evaluation,
}

impl Args {
    fn wants(&self, what: &[&str]) -> bool {
        self.index.iter().any(|i| what.contains(&i.as_str()))
    }

    fn several(&self) -> bool {
        self.models.len() != 1 || self.wants(&["bm25", "hybrid"])
    }

    fn set(&self, split: Option<&str>) -> Result<EvalSet> {
        let bad = self.read.bad_rows()?;
        let mut options = self.read.options();
        if let Some(split) = split {
            options.split = Some(split.into());
        }
        options.split.get_or_insert_with(|| "test".into());
        let set = EvalSet::read(&self.data, &options, self.max_passages, 0, &bad)?;
        common::report_bad_rows(&bad)?;
        Ok(set)
    }

    /// Runs the command.
    pub fn run(&self, quiet: bool) -> Result<()> {
        if self.models.is_empty() && !self.wants(&["bm25"]) {
            return Err(Usage("give a model with -m, or --index bm25".into()).into());
        }
        let set = self.set(None)?;
        let reranker = self.rerank.load(&self.on.device, self.on.precision)?;
        if self.several() {
            return self.compare_systems(&set, reranker.as_ref(), quiet);
        }
        let model = self.load(&self.models[0])?;
        let measures = or_default(&self.measures);
        let bar = counter("encoding passages", Some(set.passages.len() as u64), quiet);
        let started = Instant::now();
        let encode = self.on.encode_settings();
        let progress = &mut |n, _| bar.set_position(n);
        let compressed = match model.representation() {
            Representation::Dense(_) => self.vectors.config(model.dim() as usize)? != IndexConfig::default(),
            Representation::LateInteraction(_) => self.bits > 0,
            Representation::Sparse(_) => false,
        };
        let (compute, device) = (model.compute, model.device);
        let (mut result, mut run) = if compressed {
            let system = self.system(model, &set, quiet)?;
            let run = Engine::new(vec![system], self.fusion.config()?)?.rank(&set, self.depth, &encode)?;
            (evaluate(&set.qrels, &run, &measures), run)
        } else {
            evaluate_model(&model, &set, &measures, self.depth, &encode, progress)?
        };
        bar.finish_and_clear();
        if own_passages(&mut run, self.drop_identical_ids) {
            result = evaluate(&set.qrels, &run, &measures);
        }
        let mut compared = other(self.compare.as_ref(), &set.qrels, &measures, self.drop_identical_ids)?;
        if let Some(reranker) = &reranker {
            run = reranker.ranking(&set, &run, quiet)?;
            own_passages(&mut run, self.drop_identical_ids);
            compared = Some(std::mem::replace(&mut result, evaluate(&set.qrels, &run, &measures)));
        }
        let seconds = started.elapsed().as_secs_f64();
        if let Some(path) = &self.save_run {
            write(&run, path)?;
        }
        tracing::info!(
            "{} queries over {} passages in {seconds:.1} s, {} on {:?}",
            set.queries.len(),
            set.passages.len(),
            compute,
            device
        );
        report(&result, &set.qrels, &measures, compared.as_ref(), Some(seconds), self.json)
    }

    /// A model, unless something is asked for that has no meaning for it.
    fn load(&self, name: &str) -> Result<BiEncoder> {
        let model = self.on.load(name)?;
        match model.representation() {
            Representation::LateInteraction(_) | Representation::Sparse(_) if self.vectors.given() => {
                Err(Usage(
                    "--vectors, --dimensions, --rescore and --pq-parts go with models of one dense vector a text; \
                     vectors of tokens have --bits"
                        .into(),
                )
                .into())
            }
            Representation::Dense(_) | Representation::LateInteraction(_) | Representation::Sparse(_) => Ok(model),
        }
    }

    /// A model with an index of the set's passages.
    fn system(&self, model: BiEncoder, set: &EvalSet, quiet: bool) -> Result<Rc<System>> {
        let many = match self.bits {
            0 => MultiVectorConfig::Exact(ExactConfig { precision: Precision::F16 }),
            bits => MultiVectorConfig::Compressed(ResidualConfig { bits, ..ResidualConfig::default() }),
        };
        let bar = counter("encoding passages", Some(set.passages.len() as u64), quiet);
        let progress = &mut |n, _| bar.set_position(n);
        let single = self.vectors.config(model.dim() as usize)?;
        let system = System::of_model(model, set, &single, &many, &self.on.encode_settings(), progress)?;
        bar.finish_and_clear();
        Ok(Rc::new(system))
    }

    fn compare_systems(&self, set: &EvalSet, reranker: Option<&Reranker>, quiet: bool) -> Result<()> {
        let measures = or_default(&self.measures);
        let mut models = Vec::new();
        for name in &self.models {
            let shown = distinct(short(name), |n| models.iter().any(|(m, _): &(String, _)| m == n));
            models.push((shown, self.system(self.load(name)?, set, quiet)?));
        }
        let words = match self.wants(&["bm25", "hybrid"]) {
            true => {
                let config = LexicalConfig { k1: self.k1, b: self.b, ..self.words.config()? };
                Some(Rc::new(System::of_words(&config, set)?))
            }
            false => None,
        };
        let fusion = self.fusion.config()?;
        let mut engines: Vec<(String, Engine)> = Vec::new();
        if let Some(words) = words.as_ref().filter(|_| self.wants(&["bm25"])) {
            engines.push(("bm25".into(), Engine::new(vec![words.clone()], fusion.clone())?));
        }
        if self.index.is_empty() || self.wants(&["model", "dense", "colbert", "sparse"]) {
            for (name, system) in &models {
                engines.push((name.clone(), Engine::new(vec![system.clone()], fusion.clone())?));
            }
        }
        if let Some(words) = words.as_ref().filter(|_| self.wants(&["hybrid"])) {
            let dev = self.learn_weights.as_deref().map(|split| self.set(Some(split))).transpose()?;
            for (name, system) in &models {
                let mut engine = Engine::new(vec![words.clone(), system.clone()], fusion.clone())?;
                if let Some(dev) = &dev {
                    let learned = engine.learn_weights(dev, measures[0], &self.on.encode_settings())?;
                    tracing::info!(
                        "hybrid with {name}: weights {:?} (dev {} {:.4}, equal weights {:.4})",
                        learned.config.weights(),
                        measures[0],
                        learned.measure,
                        learned.measure_of_equal
                    );
                }
                engines.push((format!("hybrid bm25 + {name}"), engine));
            }
        }
        let mut rows: Vec<Row> = Vec::new();
        for (name, engine) in &engines {
            let run = engine.rank(set, self.depth, &self.on.encode_settings())?;
            let alone = self.latency(engine, set, None)?;
            let bytes = Some(engine.bytes_per_passage());
            self.push(&mut rows, name.clone(), &run, (Some(alone), bytes), set, &measures)?;
            if let Some(reranker) = reranker {
                let run = reranker.ranking(set, &run, quiet)?;
                let alone = self.latency(engine, set, Some(reranker))?;
                self.push(
                    &mut rows,
                    format!("{name}, re-ranked"),
                    &run,
                    (Some(alone), bytes),
                    set,
                    &measures,
                )?;
            }
        }
        if self.json {
            return common::print_json(&rows);
        }
        print(&rows, &measures);
        Ok(())
    }

    /// Milliseconds of a question alone, the median over some.
    fn latency(&self, engine: &Engine, set: &EvalSet, reranker: Option<&Reranker>) -> Result<f64> {
        let sample = if reranker.is_some() { 8 } else { 50 };
        let texts = rerank::texts(set);
        let mut times = Vec::new();
        // The first is for warming up.
        for (_, question) in set.queries.iter().cycle().take(sample.min(set.queries.len()) + 1) {
            let started = Instant::now();
            let question = std::slice::from_ref(question);
            let found: Vec<Hits> = engine.search(question, 100, None, &self.on.encode_settings())?;
            if let Some(r) = reranker {
                let passages: Vec<&str> =
                    found[0].iter().take(r.depth).map(|(id, _)| texts[id.as_str()]).collect();
                r.model.order(&question[0], &passages, rerank::TOKENS)?;
            }
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        times.remove(0);
        times.sort_by(f64::total_cmp);
        Ok(times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
    }

    fn push(
        &self,
        rows: &mut Vec<Row>,
        system: String,
        run: &Run,
        (latency_ms, bytes_per_passage): (Option<f64>, Option<f64>),
        set: &EvalSet,
        measures: &[Measure],
    ) -> Result<()> {
        let system = distinct(system, |name| rows.iter().any(|r| r.system == name));
        let mut run = run.clone();
        own_passages(&mut run, self.drop_identical_ids);
        let run = &run;
        if let Some(folder) = &self.save_run {
            // Names that differ in other than letters may be one file's.
            let mut files: Vec<String> = Vec::new();
            for system in rows.iter().map(|r| &r.system).chain([&system]) {
                let file = distinct(file_of(system), |name| files.iter().any(|f| f == name));
                files.push(file);
            }
            let file = files.pop().unwrap_or_default();
            write(run, &folder.join(format!("{file}.trec")))?;
        }
        let evaluation = evaluate(&set.qrels, run, measures);
        let column = |e: &Evaluation| e.column(measures[0]);
        let p_value =
            match rows.first().and_then(|first| Some((column(&evaluation)?, column(&first.evaluation)?))) {
                Some((own, first)) => Some(randomisation(&own, &first, &Resampling::default())?.p_value),
                None => None,
            };
        let mean =
            measures.iter().map(|&m| (m.to_string(), evaluation.mean(m).unwrap_or(f64::NAN))).collect();
        rows.push(Row { system, mean, latency_ms, bytes_per_passage, p_value, evaluation });
        Ok(())
    }
}

fn write(run: &Run, path: &Path) -> Result<()> {
    run.write_trec(path, "ragduet").with_context(|| format!("cannot write {}", path.display()))
}

/// A name, with a number behind it where it is taken.
fn distinct(name: String, taken: impl Fn(&str) -> bool) -> String {
    let mut tries = (2..).map(|n| format!("{name}-{n}"));
    let mut now = name.clone();
    while taken(&now) {
        now = tries.next().unwrap_or_default();
    }
    now
}

/// A system's name as a file's.
fn file_of(system: &str) -> String {
    system.chars().map(|c| if c.is_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

/// The last part of a model's name that says something.
fn short(name: &str) -> String {
    let parts: Vec<&str> = name.trim_end_matches('/').split('/').collect();
    match parts.as_slice() {
        [.., run, "best"] => (*run).into(),
        [.., last] => (*last).into(),
        [] => name.into(),
    }
}

fn print(rows: &[Row], measures: &[Measure]) {
    let width = rows.iter().map(|r| r.system.chars().count()).max().unwrap_or(0).max(6);
    let head: String = measures.iter().map(|m| format!("{:>12}", m.to_string())).collect();
    println!("{:<width$}{head}{:>12}{:>14}{:>10}", "system", "ms/query", "bytes/passage", "p");
    for r in rows {
        let values: String = r.mean.iter().map(|(_, v)| format!("{v:>12.4}")).collect();
        let or_none =
            |v: Option<f64>, digits: usize| v.map_or_else(|| "–".into(), |v| format!("{v:.digits$}"));
        println!(
            "{:<width$}{values}{:>12}{:>14}{:>10}",
            r.system,
            or_none(r.latency_ms, 2),
            or_none(r.bytes_per_passage, 0),
            or_none(r.p_value, 4)
        );
    }
    println!("p: {} against the first row's, paired randomisation", measures[0]);
}
