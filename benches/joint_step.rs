//! What a joint step costs beside its parts measured alone.
//!
//!     cargo run --release -p ragduet-benches --bin joint_step -- RETRIEVER GENERATOR BEIR [k] [questions]
//!
//! such as `runs/quickstart/best runs/quickstart/generator/best datasets/maravel 10`. Parts: encoding the questions and
//! what was over-fetched, without a graph; scoring the answers under K passages each, without a graph; the encoder over
//! questions and passages with its backward pass; the generator over its prompts with its backward pass. Each part
//! tokenises its texts and makes its prompts, as in the step; it neither clips nor updates weights, which the step does. The
//! step is that of `train joint` with PDist and SFT, both encoders learning.

use ragduet_data::{BadRows, Found, RagRecord, read_questions};
use ragduet_generator::Generator;
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::packed::PackedExamples;
use ragduet_generator::prepare::{PrepareReport, Preparer, PromptConfig};
use ragduet_joint::corpus::Corpus;
use ragduet_joint::objective::Needs;
use ragduet_joint::recipe::config::JointConfig;
use ragduet_joint::recipe::{RunOptions, train};
use ragduet_joint::refreshed_index::RefreshedIndex;
use ragduet_joint::retrieve::{Asked, RetrievalConfig, retrieve};
use ragduet_joint::score::{AnswerScorer, Group};
use ragduet_nn::Mode;
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{BiEncoder, Side};
use ragduet_torch::{Device, Kind, Precision, Tensor, grad, no_grad};
use rayon::prelude::*;
use serde_json::json;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

const STEPS: u64 = 12;
const ROUNDS: usize = 3;
const QUERY_TOKENS: usize = 48;
const PASSAGE_TOKENS: usize = 128;
const PROMPT_TOKENS: usize = 400;
const BUDGET: usize = 8192;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Median seconds of `f` over some runs, after one.
fn time(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let mut runs = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        f()?;
        runs.push(started.elapsed().as_secs_f64());
    }
    runs.sort_by(f64::total_cmp);
    Ok(runs[runs.len() / 2])
}

fn embed(m: &BiEncoder, side: Side, texts: &[ragduet_text::Encoding], train: bool) -> Result<Tensor> {
    let mode = if train { Mode::train(m.compute) } else { Mode::eval(m.compute) };
    Ok(m.embed(side, &texts.iter().collect::<Vec<_>>(), mode)?)
}

fn parts(retriever: &Path, generator: &Path, data: &Path, k: usize, questions: usize) -> Result<[f64; 4]> {
    let compute = Precision::Auto.resolve(Device::Cpu);
    let overrides = Overrides {
        max_query_tokens: Some(QUERY_TOKENS),
        max_passage_tokens: Some(PASSAGE_TOKENS),
        ..Overrides::default()
    };
    let m = st_dir::load(retriever, Device::Cpu, compute, &overrides)?;
    let g = Generator::load(generator, Device::Cpu, compute)?;
    for (_, p) in m.parameters() {
        let _ = p.set_requires_grad(true);
    }
    g.model.params.set_trainable(|_| true);
    let bad = BadRows::default();
    let corpus = Corpus::read(data, &bad)?;
    let (records, _) = read_questions(data, "train", None, &bad)?;
    let records = &records[..questions.min(records.len())];
    let config = RetrievalConfig { k, overfetch: 2 * k, ..RetrievalConfig::default() };
    let index = RefreshedIndex::build(&m, corpus.texts(), &config.index, &config.encode(), 0)?;
    let asked: Vec<String> = records.iter().map(|r| r.question.clone()).collect();
    let wide = RetrievalConfig { k: 2 * k, ..config.clone() };
    let fetched =
        retrieve(&m, corpus.texts(), &index, Asked { questions: &asked, barred: &[] }, &wide, false)?;
    let passages = |take: usize| -> Result<Vec<ragduet_text::Encoding>> {
        let rows: BTreeSet<u32> = fetched.rows.iter().flat_map(|r| r.iter().take(take).copied()).collect();
        let picked: Vec<String> = rows.iter().map(|&row| corpus.texts()[row as usize].clone()).collect();
        Ok(m.tokenize(Side::Passage, &picked)?)
    };
    let queries = || m.tokenize(Side::Query, &asked);

    let prompt: PromptConfig = serde_json::from_value(json!({"max_tokens": PROMPT_TOKENS}))?;
    let preparer = Preparer::new(&g, &prompt, ContextConfig::retrieved(1), BUDGET, 0)?;
    let groups = |most: usize| -> Result<Vec<Group>> {
        let all: Vec<_> = records.iter().zip(&fetched.rows).collect();
        let made = all.par_iter().map(|(r, rows)| {
            let mut examples = Vec::new();
            for &row in rows.iter().take(most) {
                let contexts = vec![Found { passage: corpus.passage(row).clone(), score: None }];
                let one = RagRecord { contexts, gold: Vec::new(), ..(*r).clone() };
                examples.extend(preparer.example(&one, 0, &mut PrepareReport::default())?.ok());
            }
            Ok(Group { name: r.id.clone(), examples })
        });
        Ok(made.collect::<std::result::Result<_, ragduet_generator::Error>>()?)
    };

    let retrieval = time(|| {
        let _guard = no_grad();
        drop(embed(&m, Side::Query, &queries()?, false)?);
        embed(&m, Side::Passage, &passages(2 * k)?, false).map(drop)
    })?;
    let scoring = time(|| {
        let scorer = AnswerScorer::new(&g, &groups(k)?, BUDGET)?;
        Ok(scorer.score(Needs::Alone, g.mode(false), false).map(|_| ())?)
    })?;
    let encoder = time(|| {
        let all = Tensor::cat(
            &[embed(&m, Side::Query, &queries()?, true)?, embed(&m, Side::Passage, &passages(k)?, true)?],
            0,
        );
        Ok(grad::backward(&[all.shallow_clone()], &[all.ones_like()])?)
    })?;
    let reader = time(|| {
        let own = groups(1)?.into_iter().flat_map(|g| g.examples).collect();
        for b in &PackedExamples::pack(own, BUDGET) {
            let loss = b.nll(&g, g.mode(true)).sum(Kind::Float);
            grad::backward(&[loss.shallow_clone()], &[loss.ones_like()])?;
        }
        Ok(())
    })?;
    Ok([retrieval, scoring, encoder, reader])
}

/// Seconds of a step, by what they went into.
fn step(retriever: &Path, generator: &Path, data: &Path, k: usize, questions: usize) -> Result<[f64; 4]> {
    let out = std::env::temp_dir().join(format!("ragduet-joint-step-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&out);
    let config: JointConfig = serde_json::from_value(json!({
        "run": {"device": "cpu", "max_steps": STEPS},
        "data": {"train": data},
        "retriever": {
            "towers": "both",
            "model": {"base": retriever, "max_query_tokens": QUERY_TOKENS, "max_passage_tokens": PASSAGE_TOKENS},
        },
        "generator": {
            "model": {"base": generator}, "prompt": {"max_tokens": PROMPT_TOKENS}, "contexts": {"count": 1},
            "batch_tokens": BUDGET,
        },
        "retrieval": {"k": k, "overfetch": 2 * k},
        "refresh": {"every_steps": 0},
        "objective": {"distillation": {"score_temperature": 0.05}},
        "batch": {"size": questions},
        "save": {"every_steps": 0},
    }))?;
    let done = train(&config, &RunOptions { quiet: true, ..RunOptions::new(&out) })?;
    std::fs::remove_dir_all(&out)?;
    let s = done.seconds;
    Ok([s.retrieval, s.scoring, s.retriever, s.generator].map(|x| x / STEPS as f64))
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [retriever, generator, data, rest @ ..] = args.as_slice() else {
        return Err("RETRIEVER GENERATOR BEIR [k] [questions]".into());
    };
    let number = |at: usize, default: usize| rest.get(at).map_or(Ok(default), |s| s.parse());
    let (k, questions) = (number(0, 10)?, number(1, 16)?);
    let (retriever, generator, data) = (Path::new(retriever), Path::new(generator), Path::new(data));
    println!("K = {k}, {questions} questions a step; milliseconds\n");
    println!("| | retrieval | scoring | retriever | generator | sum | step / parts |");
    println!("|---|---|---|---|---|---|---|");
    for _ in 0..ROUNDS {
        let alone = parts(retriever, generator, data, k, questions)?;
        let whole = step(retriever, generator, data, k, questions)?;
        for (name, row, ratio) in [
            ("parts alone", alone, String::new()),
            ("in the step", whole, format!("{:.2}", whole.iter().sum::<f64>() / alone.iter().sum::<f64>())),
        ] {
            let cells: Vec<String> = row.iter().map(|s| format!("{:.0}", 1e3 * s)).collect();
            println!("| {name} | {} | {:.0} | {ratio} |", cells.join(" | "), 1e3 * row.iter().sum::<f64>());
        }
    }
    Ok(())
}
