//! Supervised fine-tuning: question, contexts, answer.
//!
//! Examples of an epoch are made anew (other distractors, dropped golden passages), shuffled and laid one after another
//! into forward passes of `batch.tokens`. The loss of a step is the mean over the learned tokens of its whole window.
//! Batches are a pure function of (data, config, seed, epoch): a checkpoint stores a place, and a resumed run repeats
//! on the CPU what the uninterrupted one does, bit for bit.

use super::config::SftConfig;
use super::parts::{bad_rows, build, optimizer, save_best, trainable};
use crate::answers::{AnswerOptions, AnswerScores, answer_all};
use crate::contexts::ContextConfig;
use crate::error::{Error, Result, catch};
use crate::model::Generator;
use crate::packed::PackedExamples;
use crate::prepare::{PrepareReport, Preparer};
use crate::substitute::Substitutes;
use ragduet_data::{RagRecord, read_records};
use ragduet_text::TrainExample;
use ragduet_torch::optim::Optimizer;
use ragduet_torch::{Kind, Tensor, device, grad, rng};
use ragduet_train::checkpoint::{Checkpoints, recover};
use ragduet_train::{
    EarlyStopping, LossMeter, MetricSink, Progress, RunDir, RunOptions, Schedule, config as settings,
    interrupt, state, update,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Whether the run came to its end (and was not interrupted).
    pub finished: bool,
    /// The best model's folder (the last one's, where there is no dev set).
    pub model_dir: PathBuf,
    /// The dev set with the best model.
    pub best: Option<AnswerScores>,
    /// What became of the training records in the last epoch made.
    pub prepared: PrepareReport,
    /// Tokens per second, evaluation left out.
    pub tokens_per_second: f64,
    /// Learned tokens per second.
    pub targets_per_second: f64,
}

/// Where a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Position {
    step: u64,
    epoch: u64,
    /// Windows of the epoch that are done.
    window: usize,
    best: EarlyStopping,
}

/// Trains as the config says, into `options.out`.
pub fn train(config: &SftConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let device = device::parse(&config.device)?;
    let resolved = settings::to_toml(config)?;
    let dir = RunDir::open(&options.out, &resolved, options.resume, device)?;
    interrupt::install();

    // Build.
    rng::seed(config.seed);
    let (records, dev) = read(config, &options.out)?;
    let generator =
        build(&config.model, config.peft.as_ref(), config.precision.resolve(device), device, || {
            texts(&records)
        })?;
    let mut optimizer = optimizer(&config.optim, &generator)?;
    let parameters = generator.trained().named();
    let preparer =
        Preparer::new(&generator, &config.prompt, config.contexts.clone(), config.batch.tokens, config.seed)?;
    let substitutes = Substitutes::of(&records);
    let source = (records.as_slice(), &substitutes);
    let (mut windows, mut report) = epoch(&preparer, source, config, 0)?;
    let planned = windows.len() as u64 * config.train.epochs;
    let total = config.train.max_steps.map_or(planned, |m| m.min(planned));
    let schedule = Schedule::new(config.optim.schedule, config.optim.warmup, total);
    let (all, training) = trainable(&generator);
    tracing::info!(
        "{report}; {training} of {all} parameters train ({:.1} %); {total} steps, {} per epoch; {} on {device:?}, seed {}",
        100.0 * training as f64 / all as f64,
        windows.len(),
        generator.compute,
        config.seed,
    );

    // Resume.
    let checkpoints = Checkpoints::open(&options.out, config.save.keep)?;
    recover(&options.out.join("best"))?;
    let found = if options.resume { checkpoints.latest()? } else { None };
    if options.resume && found.is_none() {
        tracing::warn!("the run has saved no checkpoint yet: it starts from the beginning");
    }
    let mut sink = MetricSink::open(dir.path(), options.resume.then(|| found.as_ref().map_or(0, |f| f.0)))?;
    let mut at = Position::default();
    if let Some((step, path)) = &found {
        at = state::restore(path, &parameters, &mut optimizer, device)?;
        tracing::info!("resumed at step {step}");
        if at.epoch > 0 {
            (windows, report) = epoch(&preparer, source, config, at.epoch)?;
        }
    }

    // Train.
    let mut progress = Progress::new(total, at.step, options.quiet);
    let mut meter = LossMeter::default();
    let stop_at = options.stop_after.map_or(u64::MAX, |n| at.step + n);
    let (mut tokens, mut targets, mut busy) = (0u64, 0u64, 0.0f64);
    let mut best = None;
    let mut give_up = false;
    while at.step < total && !give_up {
        if at.window >= windows.len() {
            (at.epoch, at.window) = (at.epoch + 1, 0);
            (windows, report) = epoch(&preparer, source, config, at.epoch)?;
            if windows.is_empty() {
                continue;
            }
        }
        let window = &windows[at.window];
        let started = Instant::now();
        let lr = config.optim.lr * schedule.factor(at.step);
        let (value, norm) = step(config, &generator, &mut optimizer, window, lr, at.step + 1)?;
        busy += started.elapsed().as_secs_f64();
        let now: usize = window.iter().map(PackedExamples::tokens).sum();
        let learned: usize = window.iter().map(|b| b.targets.len()).sum();
        tokens += now as u64;
        targets += learned as u64;
        at.step += 1;
        at.window += 1;
        meter.add(value, at.step, lr)?;
        let speed = tokens as f64 / busy;
        progress.step(at.step, || format!("loss {:.4} lr {lr:.2e} {speed:.0} tokens/s", meter.mean()));
        if at.step.is_multiple_of(config.train.log_every.max(1)) || at.step == total {
            let values = [
                ("loss", meter.take()),
                ("lr", lr),
                ("grad_norm", norm),
                ("epoch", at.epoch as f64 + at.window as f64 / windows.len() as f64),
                ("tokens_per_second", speed),
                ("tokens", now as f64),
                ("targets", learned as f64),
            ];
            sink.write("train", at.step, &values)?;
        }
        let every = config.eval.every_steps;
        let last = at.step == total;
        if (last || (every > 0 && at.step.is_multiple_of(every))) && !dev.is_empty() {
            let scores = evaluate(config, &generator, &dev)?;
            progress.aside(|| {
                tracing::info!(
                    "dev at step {}: exact match {:.4}  f1 {:.4}  answer in contexts {:.4} ({} questions)",
                    at.step,
                    scores.exact_match,
                    scores.f1,
                    scores.answer_in_contexts,
                    scores.questions
                );
            });
            sink.write("dev", at.step, &scores.named())?;
            let min_gain = config.eval.stop.map_or(0.0, |s| s.min_gain);
            if at.best.update(scores.f1, at.step, min_gain) {
                save_best(&generator, &options.out, &facts(at.step, Some(&scores), &report))?;
                best = Some(scores);
            }
            give_up = at.best.should_stop(config.eval.stop.as_ref());
        }
        let asked = interrupt::asked() || at.step >= stop_at;
        let due = config.save.every_steps > 0 && at.step.is_multiple_of(config.save.every_steps);
        if due || asked || give_up || last {
            checkpoints.save(at.step, |d| state::save(d, &parameters, &optimizer, device, &at))?;
        }
        if asked && !last {
            progress.finish();
            tracing::info!("stopped at step {}; go on with --resume", at.step);
            return Ok(outcome(options, &at, false, best, report, (tokens, targets, busy)));
        }
    }
    progress.finish();
    if dev.is_empty() {
        save_best(&generator, &options.out, &facts(at.step, None, &report))?;
    }
    Ok(outcome(options, &at, true, best, report, (tokens, targets, busy)))
}

fn facts(step: u64, dev: Option<&AnswerScores>, prepared: &PrepareReport) -> serde_json::Value {
    serde_json::json!({"step": step, "dev": dev, "prepared": prepared})
}

fn outcome(
    options: &RunOptions,
    at: &Position,
    finished: bool,
    best: Option<AnswerScores>,
    prepared: PrepareReport,
    (tokens, targets, busy): (u64, u64, f64),
) -> Outcome {
    Outcome {
        step: at.step,
        finished,
        model_dir: options.out.join("best"),
        best,
        prepared,
        tokens_per_second: tokens as f64 / busy.max(1e-9),
        targets_per_second: targets as f64 / busy.max(1e-9),
    }
}

fn read(config: &SftConfig, out: &Path) -> Result<(Vec<RagRecord>, Vec<RagRecord>)> {
    let bad = bad_rows(config.data.skip_bad_rows, out);
    let all = |path: &Path, most: usize| -> Result<Vec<RagRecord>> {
        let rows = read_records(path, config.data.format, &bad)?;
        Ok(rows.take(most).collect::<std::result::Result<_, _>>()?)
    };
    let records = all(&config.data.train, usize::MAX)?;
    let most = if config.eval.questions == 0 { usize::MAX } else { config.eval.questions };
    let dev = config.data.dev.as_deref().map_or(Ok(Vec::new()), |path| all(path, most))?;
    let moved = bad.report().bad_rows();
    if moved > 0 {
        tracing::warn!("{moved} bad rows were moved to {}", out.join("bad_rows.jsonl").display());
    }
    Ok((records, dev))
}

/// The optimiser steps of an epoch: windows of forward passes.
fn epoch(
    preparer: &Preparer<'_>,
    (records, substitutes): (&[RagRecord], &Substitutes),
    config: &SftConfig,
    epoch: u64,
) -> Result<(Vec<Vec<PackedExamples>>, PrepareReport)> {
    let mut order: Vec<usize> = (0..records.len()).collect();
    let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&epoch.to_le_bytes(), config.seed);
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    let made: Vec<(Option<TrainExample>, PrepareReport)> = order
        .par_iter()
        .map(|&i| {
            let mut report = PrepareReport::default();
            let record = substitutes.apply(&records[i], config.contexts.substitute_rate, config.seed, epoch);
            let built = preparer.example(&record, epoch, &mut report)?;
            Ok((built.ok(), report))
        })
        .collect::<Result<_>>()?;
    let mut report = PrepareReport::default();
    let mut examples = Vec::with_capacity(made.len());
    for (example, one) in made {
        report.add(&one);
        examples.extend(example);
    }
    if examples.is_empty() {
        return Err(Error::Unusable(format!("nothing to train on: {report}")));
    }
    let batches = PackedExamples::pack(examples, config.batch.tokens);
    let mut windows: Vec<Vec<PackedExamples>> = Vec::new();
    for batch in batches {
        match windows.last_mut() {
            Some(w) if w.len() < config.batch.accumulate => w.push(batch),
            _ => windows.push(vec![batch]),
        }
    }
    Ok((windows, report))
}

/// One optimiser step: the loss, and the gradients' norm before clipping.
fn step(
    config: &SftConfig,
    generator: &Generator,
    optimizer: &mut Optimizer,
    window: &[PackedExamples],
    lr: f64,
    number: u64,
) -> Result<(f64, f64)> {
    optimizer.clear_grads()?;
    let learned: usize = window.iter().map(|b| b.targets.len()).sum();
    let mut sum = 0.0;
    for batch in window {
        sum += catch("a training step", "lower batch.tokens and raise batch.accumulate", || {
            let nll = batch.nll(generator, generator.mode(true));
            let share = config.loss.share(&nll, learned as u64);
            grad::backward(&[share.shallow_clone()], &[Tensor::ones_like(&share)])?;
            Ok(f64::try_from(share.detach().to_kind(Kind::Double)).map_err(ragduet_torch::Error::from)?)
        })?;
    }
    let norm = update(&config.optim, optimizer, sum, lr, number)?;
    Ok((sum, norm))
}

fn evaluate(config: &SftConfig, generator: &Generator, dev: &[RagRecord]) -> Result<AnswerScores> {
    let options = AnswerOptions {
        prompt: &config.prompt,
        contexts: ContextConfig::retrieved(config.eval.contexts.unwrap_or(config.contexts.count)),
        decode: &config.eval.decode,
        batch: config.eval.batch,
        seed: config.seed,
    };
    Ok(AnswerScores::of(&answer_all(generator, dev, &options, &mut |_| ())?.0))
}

/// What a new tokenizer is trained on.
fn texts(records: &[RagRecord]) -> Vec<&str> {
    let all = records.iter().flat_map(|r| {
        let passages = r.contexts.iter().map(|f| &f.passage).chain(&r.gold);
        let own = [r.question.as_str()].into_iter().chain(r.answers.iter().map(String::as_str));
        let said = r.history.iter().map(|m| m.content.as_str());
        passages.map(|p| p.text.as_str()).chain(said).chain(own)
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScratchGenerator;
    use ragduet_nn::{Mode, PackedTokens};
    use ragduet_torch::{Compute, Device, no_grad};

    /// The definition: log-softmax of the whole logits, text by text.
    fn plain(g: &Generator, e: &TrainExample) -> f64 {
        let packed = PackedTokens::from_ids([e.ids.as_slice()], Device::Cpu);
        let hidden = g.model.causal().unwrap().forward(&packed, Mode::eval(Compute::F32));
        let log_p = g.model.kind.logits(&hidden, Mode::eval(Compute::F32)).log_softmax(-1, Kind::Float);
        let on = (1..e.ids.len()).filter(|&i| e.loss[i]);
        on.map(|i| -log_p.double_value(&[i as i64 - 1, i64::from(e.ids[i])])).sum()
    }

    #[test]
    fn packed_examples_lose_what_they_lose_alone_and_a_window_is_a_mean_over_its_tokens() {
        ragduet_torch::device::set_threads(1);
        rng::seed(4);
        let size =
            ScratchGenerator { vocab_size: 280, hidden_size: 32, layers: 2, ..ScratchGenerator::default() };
        let g =
            size.build(["some words to learn pieces from"].into_iter(), Device::Cpu, Compute::F32).unwrap();
        let example = |n: usize, from: usize| TrainExample {
            ids: (0..n).map(|i| ((i * 37 + from * 11) % 250) as u32 + 5).collect(),
            loss: (0..n).map(|i| i >= from).collect(),
            source: 0,
            parts: Vec::new(),
        };
        let examples = [example(9, 4), example(30, 28), example(2, 1), example(17, 0)];
        let want: f64 = {
            let _g = no_grad();
            examples.iter().map(|e| plain(&g, e)).sum::<f64>()
        };
        let tokens: usize = examples.iter().map(TrainExample::targets).sum();
        let window = [
            PackedExamples::of(examples[..3].iter().cloned()),
            PackedExamples::of(examples[3..].iter().cloned()),
        ];
        let learned: usize = window.iter().map(|b| b.targets.len()).sum();
        assert_eq!(learned, tokens);
        let have: f64 = window
            .iter()
            .map(|b| f64::try_from(b.nll(&g, Mode::eval(Compute::F32)).sum(Kind::Double)).unwrap())
            .sum();
        assert!((have - want).abs() < 1e-4 * want, "{have} {want}");
    }

    /// transformers' `labels` loss on the same batch, padded (`tests/golden/make_seq2seq.py`).
    #[test]
    fn an_encoder_decoders_loss_is_that_of_transformers() {
        ragduet_torch::device::set_threads(1);
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/seq2seq.json")).unwrap();
        let rows = |key: &str| -> Vec<Vec<u32>> { serde_json::from_value(golden[key].clone()).unwrap() };
        let examples = rows("sources").into_iter().zip(rows("targets")).map(|(source, target)| {
            let n = source.len();
            let ids: Vec<u32> = source.into_iter().chain([0]).chain(target).collect();
            TrainExample { loss: (0..ids.len()).map(|i| i > n).collect(), ids, source: n, parts: Vec::new() }
        });
        let batch = PackedExamples::of(examples);
        for name in ["t5", "flan_t5"] {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/golden/lm").join(name);
            let tokenizer = ragduet_text::train_byte_bpe(["a"], &Default::default()).unwrap();
            let model = ragduet_nn::load_language_model(&dir, Device::Cpu).unwrap();
            let g = Generator::new(model, tokenizer, Device::Cpu, Compute::F32);
            let nll = batch.nll(&g, Mode::eval(Compute::F32));
            let loss = crate::loss::SftLoss::Nll.share(&nll, batch.targets.len() as u64);
            let want = golden["models"][name]["loss"].as_f64().unwrap();
            let have = f64::try_from(loss).unwrap();
            assert!((have - want).abs() < 1e-5 * want, "{name}: {have} {want}");
        }
    }

    /// Loss and gradients of a window that transformers computes over padded batches (tests/golden/make_sft.py).
    #[test]
    fn a_window_has_the_loss_and_gradients_of_padded_batches() {
        ragduet_torch::device::set_threads(1);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sft");
        let dir = tempfile::tempdir().unwrap();
        for name in ["config.json", "generation_config.json", "model.safetensors"] {
            std::fs::copy(golden.join(name), dir.path().join(name)).unwrap();
        }
        let options = ragduet_text::ByteBpeOptions { vocab_size: 280, ..Default::default() };
        ragduet_text::train_byte_bpe(["some words"], &options).unwrap().save(dir.path()).unwrap();
        let g = Generator::load(dir.path(), Device::Cpu, Compute::F32).unwrap();
        let text = std::fs::read_to_string(golden.join("window.json")).unwrap();
        let want: serde_json::Value = serde_json::from_str(&text).unwrap();
        let example = |e: &serde_json::Value| TrainExample {
            ids: serde_json::from_value(e["ids"].clone()).unwrap(),
            loss: serde_json::from_value(e["loss"].clone()).unwrap(),
            source: 0,
            parts: Vec::new(),
        };
        let window: Vec<PackedExamples> = want["batches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|b| PackedExamples::of(b.as_array().unwrap().iter().map(example)))
            .collect();
        let learned: usize = window.iter().map(|b| b.targets.len()).sum();
        assert_eq!(learned as u64, want["items"].as_u64().unwrap());
        g.model.params.set_trainable(|_| true);
        let mut loss = 0.0;
        for batch in &window {
            let share =
                crate::loss::SftLoss::Nll.share(&batch.nll(&g, Mode::eval(Compute::F32)), learned as u64);
            share.backward();
            loss += f64::try_from(share.detach()).unwrap();
        }
        let expected = want["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-5 * expected, "{loss} {expected}");
        let grads = ragduet_torch::weights::Weights::open_file(&golden.join("grads.safetensors")).unwrap();
        for (name, parameter) in g.model.params.iter() {
            let want = grads.load(name, Device::Cpu).unwrap();
            let apart = (parameter.tensor.grad() - &want).abs().max().double_value(&[]);
            let size = want.abs().max().double_value(&[]);
            assert!(size > 0.0 && apart < 1e-4 * size, "{name}: {apart} of {size}");
        }
    }
}
