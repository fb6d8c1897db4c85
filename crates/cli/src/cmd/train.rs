//! `ragduet train`.

use super::search::{IndexArgs, Line};
use anyhow::Result;
use ragduet_classifier::recipe::ClassifierConfig;
use ragduet_data::{Found, Passage, RagRecord, Style, rag_line, read_records};
use ragduet_generator::recipe::choice_config::ChoiceConfig;
use ragduet_generator::recipe::config::{PreferenceRecipe, SftConfig};
use ragduet_generator::recipe::distil_config::DistilConfig;
use ragduet_generator::recipe::{self, distil, sft};
use ragduet_joint::recipe::config::JointConfig;
use ragduet_metrics::Evaluation;
use ragduet_reranker::CrossEncoder;
use ragduet_reranker::recipe::config::CrossEncoderConfig;
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::contrastive::{Outcome, RunOptions, train_with};
use ragduet_retriever::recipe::contriever::{self, ContrieverConfig};
use ragduet_retriever::{Teacher, TeacherConfig};
use ragduet_train::{RETRIEVED, RunDir, config};
use std::path::{Path, PathBuf};

/// Arguments of `train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Train a retriever: one vector a text, or one a token (`[model.late_interaction]`); contrastive, or from a teacher.
    ///
    /// Example: ragduet train retriever -c configs/retriever/covid-qa.toml --set optim.lr=3e-5 --out runs/covid
    Retriever(Common),
    /// Train a retriever from plain text, without questions or judgements (Contriever): two random crops of a chunk are
    /// a query and its passage. `train retriever` goes on from what it writes.
    ///
    /// Example: ragduet train contriever -c configs/contriever/maravel.toml --out runs/unsupervised
    Contriever(Common),
    /// Fine-tune a generator on questions, retrieved passages and answers; or, with `recipe = "choices"` in the
    /// config, on records with answers to choose from (T-Few).
    ///
    /// Example: ragduet train generator -c configs/generator/quickstart.toml --out runs/reader
    /// Example: ragduet train generator -c configs/generator/tfew.toml --out runs/tfew
    Generator {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        retrieval: Retrieval,
    },
    /// Let a larger generator teach a smaller one: its distribution over the next token, or its answers.
    ///
    /// Example: ragduet train distil -c configs/generator/distil.toml --out runs/student
    Distil(Common),
    /// Teach a generator which of two answers is better (DPO and its variants), or which are good (KTO).
    ///
    /// Example: ragduet train preference -c configs/generator/dpo.toml --out runs/dpo
    Preference(Common),
    /// Fine-tune an encoder or a decoder-only model to say what texts, or pairs of texts, are.
    ///
    /// Example: ragduet train classifier -c configs/classifier/topics.toml --out runs/topics
    Classifier(Common),
    /// Train a cross-encoder to re-rank what a first stage finds.
    ///
    /// Example: ragduet train cross-encoder -c configs/reranker/covid-qa.toml --out runs/cross
    CrossEncoder(Common),
    /// Train a retriever and a generator together: each learns from what the other makes of the same questions.
    ///
    /// Example: ragduet train joint -c configs/joint/quickstart.toml --out runs/joint
    Joint(Common),
    /// Print the JSON schema of a config, for editors.
    Schema {
        /// Of which.
        #[arg(default_value = "retriever", value_parser = ["retriever", "contriever", "generator", "distil", "choices", "preference", "classifier", "cross-encoder", "joint"])]
        of: String,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The config (TOML). With --resume the run's own is used.
    #[arg(short, long, required_unless_present = "resume")]
    config: Option<PathBuf>,
    /// Override a key: --set optim.lr=3e-5
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The run folder; runs/<name of the config> if not given.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with the run that is in the run folder.
    #[arg(long)]
    resume: bool,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// Passages for records that have none.
#[derive(Debug, clap::Args)]
struct Retrieval {
    /// Give records without contexts the best passages of this index; what was found is kept in the run folder.
    #[arg(long, conflicts_with = "resume")]
    index: Option<PathBuf>,
    /// The retriever, where it is not the one that the index was built with.
    #[arg(long, requires = "index")]
    retriever: Option<String>,
    /// The index's corpus, where it has moved.
    #[arg(long, requires = "index")]
    corpus: Option<PathBuf>,
    /// Passages per record.
    #[arg(short, default_value_t = 5, requires = "index")]
    k: usize,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        match self.what {
            What::Retriever(c) => retriever(&c, quiet),
            What::Contriever(c) => contriever(&c, quiet),
            What::Generator { common, retrieval } => generator(&common, &retrieval, quiet),
            What::Distil(c) => distil(&c, quiet),
            What::Preference(c) => preference(&c, quiet),
            What::Classifier(c) => classifier(&c, quiet),
            What::CrossEncoder(c) => cross_encoder(&c, quiet),
            What::Joint(c) => joint(&c, quiet),
            What::Schema { of } => {
                let schema = match of.as_str() {
                    "contriever" => config::schema::<ContrieverConfig>(),
                    "generator" => config::schema::<SftConfig>(),
                    "distil" => config::schema::<DistilConfig>(),
                    "choices" => config::schema::<ChoiceConfig>(),
                    "preference" => config::schema::<PreferenceRecipe>(),
                    "classifier" => config::schema::<ClassifierConfig>(),
                    "cross-encoder" => config::schema::<CrossEncoderConfig>(),
                    "joint" => config::schema::<JointConfig>(),
                    _ => config::schema::<RetrieverConfig>(),
                };
                print!("{schema}");
                Ok(())
            }
        }
    }
}

/// The run folder, and the config file: the run's own where none is given.
fn places(c: &Common) -> Result<(PathBuf, PathBuf)> {
    let out = match (&c.out, &c.config) {
        (Some(out), _) => out.clone(),
        (None, Some(config)) => PathBuf::from("runs").join(config.file_stem().unwrap_or_default()),
        (None, None) => return Err(crate::common::Usage("--resume needs --out or --config".into()).into()),
    };
    let file = match &c.config {
        Some(path) => path.clone(),
        None => {
            RunDir::config_of(&out)?;
            out.join("config.toml")
        }
    };
    Ok((out, file))
}

/// Fills the contexts of the records that have none, and points the config at what it wrote.
fn retrieve(r: &Retrieval, config: &mut SftConfig, out: &Path, quiet: bool) -> Result<()> {
    let Some(index) = &r.index else { return Ok(()) };
    if out.join("config.toml").exists() {
        let why = format!("{} holds a run already; choose another --out", out.display());
        return Err(crate::common::Usage(why).into());
    }
    let from = IndexArgs::new(index.clone(), r.retriever.clone(), r.corpus.clone(), &config.device);
    let dir = out.join(RETRIEVED);
    fs_err::create_dir_all(&dir)?;
    let sidecar = config.data.skip_bad_rows.then(|| dir.join("bad_rows.jsonl"));
    let bad = crate::common::bad_rows(sidecar.as_ref());
    let format = config.data.format.take();
    for (name, path) in [("train", Some(&mut config.data.train)), ("dev", config.data.dev.as_mut())] {
        let Some(path) = path else { continue };
        let mut records: Vec<RagRecord> = read_records(&*path, format, &bad)?.collect::<Result<_, _>>()?;
        // A plain prompt has no place for passages.
        let mut bare: Vec<&mut RagRecord> =
            records.iter_mut().filter(|r| r.contexts.is_empty() && r.style != Style::Plain).collect();
        let questions: Vec<String> = bare.iter().map(|r| r.question.clone()).collect();
        let found = if questions.is_empty() { Vec::new() } else { from.find(questions, r.k, None, quiet)? };
        for (record, found) in bare.iter_mut().zip(found) {
            let passage = |hit: Line| {
                let text = hit.text?;
                let passage = Passage { id: hit.id, title: hit.title, text };
                Some(Found { passage, score: Some(hit.score) })
            };
            record.contexts =
                found.hits.into_iter().map(passage).collect::<Option<_>>().ok_or_else(|| {
                    crate::common::Usage("the index's corpus is not at hand; give --corpus".into())
                })?;
        }
        tracing::info!("{name}: {} of {} records were given passages", bare.len(), records.len());
        let file = dir.join(format!("{name}.rag.jsonl"));
        let lines: String = records.iter().map(|r| rag_line(r) + "\n").collect();
        fs_err::write(&file, lines)?;
        *path = file;
    }
    crate::common::report_bad_rows(&bad);
    Ok(())
}

fn generator(c: &Common, r: &Retrieval, quiet: bool) -> Result<()> {
    let (out, file) = places(c)?;
    // Which of the two it is stands in the file; what is wrong with it is said when it is read as that.
    let seen = config::load::<serde_json::Value>(&file, &c.set).unwrap_or_default();
    if seen.get("recipe").is_some() {
        if r.index.is_some() {
            return Err(crate::common::Usage("records with choices bring their own contexts".into()).into());
        }
        return choices(c, out, &file, quiet);
    }
    let mut config: SftConfig = config::load(&file, &c.set)?;
    retrieve(r, &mut config, &out, quiet)?;
    let options = recipe::RunOptions { out, resume: c.resume, quiet, stop_after: None };
    learned(&sft::train(&config, &options)?, None, c.json)
}

fn distil(c: &Common, quiet: bool) -> Result<()> {
    let (out, file) = places(c)?;
    let config: DistilConfig = config::load(&file, &c.set)?;
    let options = recipe::RunOptions { out, resume: c.resume, quiet, stop_after: None };
    let o = distil::train(&config, &options)?;
    learned(&o.student, o.teacher, c.json)
}

/// What training on answers came to; `teacher`: how good the answers were, where they are a teacher's.
fn learned(o: &sft::Outcome, teacher: Option<distil::TeacherScores>, json: bool) -> Result<()> {
    if json {
        let mut said = serde_json::json!({
            "step": o.step, "finished": o.finished, "model": o.model_dir, "best": o.best, "prepared": o.prepared,
            "tokens_per_second": o.tokens_per_second, "targets_per_second": o.targets_per_second,
        });
        if let Some(scores) = teacher {
            said["teacher"] = serde_json::to_value(scores)?;
        }
        return crate::common::print_json(&said);
    }
    if !o.finished {
        println!("stopped at step {}", o.step);
        return Ok(());
    }
    println!("{}", o.prepared);
    if let Some(s) = teacher {
        println!("teacher: exact match {:.4}, f1 {:.4} ({} records)", s.exact_match, s.f1, s.answered);
    }
    if let Some(s) = o.best {
        println!("dev: exact match {:.4}, f1 {:.4} ({} questions)", s.exact_match, s.f1, s.questions);
    }
    println!(
        "{} steps, {:.0} tokens/s ({:.0} learned); model: {}",
        o.step,
        o.tokens_per_second,
        o.targets_per_second,
        o.model_dir.display()
    );
    Ok(())
}

fn choices(c: &Common, out: PathBuf, file: &Path, quiet: bool) -> Result<()> {
    let config: ChoiceConfig = config::load(file, &c.set)?;
    let options = recipe::RunOptions { out, resume: c.resume, quiet, stop_after: None };
    let o = recipe::choices::train(&config, &options)?;
    if c.json {
        return crate::common::print_json(&serde_json::json!({
            "step": o.step, "finished": o.finished, "model": o.model_dir, "best": o.best,
            "records": o.records.0, "too_long": o.records.1, "records_per_second": o.records_per_second,
        }));
    }
    if !o.finished {
        println!("stopped at step {}", o.step);
        return Ok(());
    }
    if let Some(scores) = o.best {
        println!("{scores}");
    }
    println!(
        "{} steps, {} records ({} too long), {:.1} a second; model: {}",
        o.step,
        o.records.0,
        o.records.1,
        o.records_per_second,
        o.model_dir.display()
    );
    Ok(())
}

fn preference(c: &Common, quiet: bool) -> Result<()> {
    let (out, file) = places(c)?;
    let config: PreferenceRecipe = config::load(&file, &c.set)?;
    let options = recipe::RunOptions { out, resume: c.resume, quiet, stop_after: None };
    let o = recipe::preference::train(&config, &options)?;
    if c.json {
        return crate::common::print_json(&serde_json::json!({
            "step": o.step, "finished": o.finished, "model": o.model_dir, "scores": o.scores,
            "pairs": o.pairs.0, "too_long": o.pairs.1,
        }));
    }
    if !o.finished {
        println!("stopped at step {}", o.step);
        return Ok(());
    }
    if let Some(s) = o.scores {
        let accuracy = s.rewards.accuracy.unwrap_or(f64::NAN);
        println!("loss {:.4}, margin {:.4}, accuracy {accuracy:.4}", s.loss, s.rewards.margin);
    }
    println!(
        "{} steps, {} rows ({} too long); model: {}",
        o.step,
        o.pairs.0,
        o.pairs.1,
        o.model_dir.display()
    );
    Ok(())
}

fn classifier(c: &Common, quiet: bool) -> Result<()> {
    let (out, file) = places(c)?;
    let config: ClassifierConfig = config::load(&file, &c.set)?;
    let options = ragduet_train::RunOptions { out, resume: c.resume, quiet, stop_after: None };
    let o = ragduet_classifier::recipe::train(&config, &options)?;
    if c.json {
        return crate::common::print_json(&serde_json::json!({
            "step": o.step, "finished": o.finished, "model": o.model_dir, "labels": o.labels.names, "best": o.best,
            "texts": o.texts.0, "cut": o.texts.1, "texts_per_second": o.texts_per_second,
        }));
    }
    if !o.finished {
        println!("stopped at step {}", o.step);
        return Ok(());
    }
    if let Some(s) = &o.best {
        super::classify::print_scores(&o.labels.names, s);
    }
    println!("{} steps, {:.1} texts/s; model: {}", o.step, o.texts_per_second, o.model_dir.display());
    Ok(())
}

fn cross_encoder(c: &Common, quiet: bool) -> Result<()> {
    let (out, file) = places(c)?;
    let config: CrossEncoderConfig = config::load(&file, &c.set)?;
    let options = ragduet_train::RunOptions { out, resume: c.resume, quiet, stop_after: None };
    let o = ragduet_reranker::recipe::train(&config, &options)?;
    if c.json {
        return crate::common::print_json(&serde_json::json!({
            "step": o.step, "finished": o.finished, "model": o.model_dir,
            "first_stage": o.first_stage.as_ref().map(|e| &e.mean), "best": o.best.as_ref().map(|e| &e.mean),
            "pairs_per_second": o.pairs_per_second,
        }));
    }
    if !o.finished {
        println!("stopped at step {}", o.step);
        return Ok(());
    }
    print_table(&[("first stage", o.first_stage.as_ref()), ("re-ranked", o.best.as_ref())]);
    println!("{} steps, {:.1} pairs/s; model: {}", o.step, o.pairs_per_second, o.model_dir.display());
    Ok(())
}

fn joint(c: &Common, quiet: bool) -> Result<()> {
    let (out, file) = places(c)?;
    let config: JointConfig = config::load(&file, &c.set)?;
    let options = recipe::RunOptions { out, resume: c.resume, quiet, stop_after: None };
    let o = ragduet_joint::recipe::train(&config, &options)?;
    if c.json {
        return crate::common::print_json(&serde_json::json!({
            "step": o.step, "finished": o.finished, "dir": o.dir, "before": o.before, "best": o.best,
            "seconds": o.seconds, "left_out": o.prepared.left_out,
        }));
    }
    if !o.finished {
        println!("stopped at step {}", o.step);
        return Ok(());
    }
    for (why, n) in &o.prepared.left_out {
        println!("left out {n} times: {why}");
    }
    if let (Some(before), Some(best)) = (o.before, o.best) {
        println!("{:<16}{:>12}{:>12}", "dev", "before", "best");
        for ((name, was), (_, is)) in before.named().into_iter().zip(best.named()) {
            println!("{:<16}{was:>12.4}{is:>12.4}", name.replace('_', " "));
        }
    }
    println!("{} steps: {}", o.step, o.seconds);
    println!("retriever, generator and index: {}", o.dir.display());
    Ok(())
}

fn retriever(c: &Common, quiet: bool) -> Result<()> {
    let (out, file) = places(c)?;
    let config: RetrieverConfig = config::load(&file, &c.set)?;
    let options = RunOptions { out, resume: c.resume, quiet, stop_after: None };
    let teacher: Option<Box<dyn Teacher>> = match &config.teacher {
        Some(TeacherConfig::CrossEncoder(named)) => {
            let device = ragduet_torch::device::parse(&config.device)?;
            let dir = ragduet_nn::hub::resolve(&named.path)?;
            Some(Box::new(CrossEncoder::load(&dir, device, config.precision.resolve(device))?))
        }
        _ => None,
    };
    report(&train_with(&config, &options, teacher)?, c.json)
}

fn contriever(c: &Common, quiet: bool) -> Result<()> {
    let (out, file) = places(c)?;
    let config: ContrieverConfig = config::load(&file, &c.set)?;
    let options = RunOptions { out, resume: c.resume, quiet, stop_after: None };
    report(&contriever::train(&config, &options)?, c.json)
}

fn report(o: &Outcome, json: bool) -> Result<()> {
    if json {
        return crate::common::print_json(&serde_json::json!({
            "step": o.step, "finished": o.finished, "model": o.model_dir,
            "before": o.before.as_ref().map(|e| &e.mean), "best": o.best.as_ref().map(|e| &e.mean),
            "pairs_per_second": o.pairs_per_second,
        }));
    }
    if !o.finished {
        println!("stopped at step {}", o.step);
        return Ok(());
    }
    print_table(&[("before", o.before.as_ref()), ("after", o.best.as_ref())]);
    println!("{} steps, {:.1} pairs/s; model: {}", o.step, o.pairs_per_second, o.model_dir.display());
    Ok(())
}

/// Measures as rows, systems as columns; those that were not measured are left out.
pub fn print_table(columns: &[(&str, Option<&Evaluation>)]) {
    let columns: Vec<(&str, &Evaluation)> = columns.iter().filter_map(|(n, e)| Some((*n, (*e)?))).collect();
    let Some((_, first)) = columns.first() else { return };
    let head: String = columns.iter().map(|(n, _)| format!("{n:>12}")).collect();
    println!("{:<12}{head}", "");
    for (m, _) in first.mean.iter() {
        let row: String =
            columns.iter().map(|(_, e)| format!("{:>12.4}", e.mean(m).unwrap_or(f64::NAN))).collect();
        println!("{:<12}{row}", m.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! read {
        ($kind:ty, $file:expr) => {
            config::load::<$kind>($file, &[]).unwrap_or_else(|e| panic!("{}: {e}", $file.display()))
        };
    }

    #[test]
    fn shipped_configs_are_what_their_commands_take() {
        let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let mut seen = 0;
        for area in ["retriever", "contriever", "reranker", "generator", "classifier", "joint"] {
            for entry in fs_err::read_dir(configs.join(area)).unwrap() {
                let file = entry.unwrap().path();
                let whole = read!(serde_json::Value, &file);
                let has = |key: &str| whole.get(key).is_some();
                match area {
                    "retriever" => read!(RetrieverConfig, &file).validate().unwrap(),
                    "contriever" => read!(ContrieverConfig, &file).validate().unwrap(),
                    "reranker" => read!(CrossEncoderConfig, &file).validate().unwrap(),
                    "classifier" => read!(ClassifierConfig, &file).validate().unwrap(),
                    "joint" => read!(JointConfig, &file).validate().unwrap(),
                    _ if has("teacher") => read!(DistilConfig, &file).validate().unwrap(),
                    _ if has("recipe") => drop(read!(ChoiceConfig, &file)),
                    _ if has("preference") => drop(read!(PreferenceRecipe, &file)),
                    _ => drop(read!(SftConfig, &file)),
                }
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen}");
    }
}
