//! Trains a retriever and a generator together.
//!
//! Each step retrieves for a batch of questions with the encoders as they are, and then one side or both learn from
//! what was found: the retriever from how likely its passages make the answers, the generator from answers behind its
//! passages. The index follows the passage encoder, dev is found and answered now and then, and what goes wrong is said.
//! Everything that is drawn is a function of (seed, epoch, place), and a checkpoint holds the index, too: a resumed run
//! repeats on the CPU what the uninterrupted one does, bit for bit.

use super::config::{JointConfig, Learns};
use super::evaluate::DevScores;
use super::generator_turn::{Learned, learn};
use super::index_life::write_index;
use super::measure::{BEFORE, write_json};
use super::preference_turn::prefer;
use super::retriever_turn::{Lesson, Taught, teach};
use super::sides::{GeneratorPart, RetrieverPart};
use super::state::{self, INDEX, Position, SNAPSHOT};
use super::turns::{Turns, Who};
use crate::corpus::Corpus;
use crate::diagnose::unique_share;
use crate::live_index::LiveIndex;
use crate::pipeline::with_contexts;
use crate::refresh::Background;
use crate::retrieve::{Candidates, retrieve};
use crate::{Error, Result};
use ragduet_data::{BadRowPolicy, BadRows, RagRecord, read_questions};
use ragduet_generator::prepare::PrepareReport;
use ragduet_torch::{device, rng};
use ragduet_train::checkpoint::{Checkpoints, recover};
use ragduet_train::{LossMeter, MetricSink, Progress, RunDir, RunOptions, config as settings, interrupt};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps done.
    pub step: u64,
    /// Whether the run came to its end (and was not interrupted).
    pub finished: bool,
    /// `best/` of the run: retriever, generator, index.
    pub dir: PathBuf,
    /// Dev before training, and at its best.
    pub before: Option<DevScores>,
    /// See `before`.
    pub best: Option<DevScores>,
    /// Where the time went.
    pub seconds: Seconds,
    /// Records that could not be used, by reason.
    pub prepared: PrepareReport,
}

/// Where the time of a run went, in seconds; of this process alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Seconds {
    /// Finding passages.
    pub retrieval: f64,
    /// How likely answers are under them.
    pub scoring: f64,
    /// The retriever's passes with gradient.
    pub retriever: f64,
    /// The generator's.
    pub generator: f64,
    /// Making the index anew, or waiting for it.
    pub refresh: f64,
    /// Finding and answering for dev.
    pub evaluation: f64,
}

impl Seconds {
    fn all(&self) -> [(&'static str, f64); 6] {
        [
            ("retrieval", self.retrieval),
            ("scoring", self.scoring),
            ("retriever", self.retriever),
            ("generator", self.generator),
            ("refresh", self.refresh),
            ("evaluation", self.evaluation),
        ]
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = self.all().iter().map(|(_, s)| s).sum::<f64>().max(1e-9);
        let shares: Vec<String> =
            self.all().iter().map(|(name, s)| format!("{name} {:.0} %", 100.0 * s / total)).collect();
        write!(f, "{} of {total:.0} s", shares.join(", "))
    }
}
/// A run under way.
pub(super) struct Run<'a> {
    pub config: &'a JointConfig,
    pub dir: RunDir,
    pub corpus: Arc<Corpus>,
    pub records: Vec<RagRecord>,
    /// Rows of each record's golden passages.
    pub gold: Vec<Vec<u32>>,
    pub dev: Vec<RagRecord>,
    pub retriever: RetrieverPart,
    pub generator: GeneratorPart,
    pub index: LiveIndex,
    pub background: Option<Background>,
    pub sink: MetricSink,
    pub at: Position,
    pub before: Option<DevScores>,
    pub best: Option<DevScores>,
    pub seconds: Seconds,
    pub report: PrepareReport,
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data and models that cannot be used; a loss that is no number; whatever the machine refuses.
pub fn train(config: &JointConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let device = device::parse(&config.device)?;
    let dir = RunDir::open(&options.out, &settings::to_toml(config)?, options.resume, device)?;
    interrupt::install();

    // Build.
    rng::seed(config.seed);
    let (records, dev, corpus) = read(config, &options.out)?;
    let per_epoch = records.len().div_ceil(config.train.questions) as u64;
    let planned = (config.train.epochs * per_epoch as f64).round().max(1.0) as u64;
    let total = config.train.max_steps.map_or(planned, |m| m.min(planned));
    let starts = |who, step| match who {
        Who::Retriever => !config.retriever.frozen && step >= config.retriever.start_at,
        Who::Generator => !config.generator.frozen && step >= config.generator.start_at,
    };
    let (retriever_steps, generator_steps) = config.turns.planned(total, starts);
    let questions = || records.iter().map(|r| r.question.as_str());
    let retriever = RetrieverPart::build(config, device, retriever_steps, || {
        corpus.texts().iter().cloned().chain(questions().map(String::from)).collect()
    })?;
    let generator = GeneratorPart::build(config, device, generator_steps, || {
        let answers = records.iter().flat_map(|r| r.answers.iter().map(String::as_str));
        corpus.texts().iter().map(String::as_str).chain(questions()).chain(answers).collect()
    })?;
    let gold = records.iter().map(|r| r.gold.iter().filter_map(|g| corpus.row(&g.id)).collect()).collect();
    describe(config, &records, &corpus, (&retriever, &generator), (retriever_steps, generator_steps));

    // Resume.
    let checkpoints = Checkpoints::open(&options.out, config.save.keep)?;
    recover(&options.out.join("best"))?;
    let found = if options.resume { checkpoints.latest()? } else { None };
    if options.resume && found.is_none() {
        tracing::warn!("the run has saved no checkpoint yet: it starts from the beginning");
    }
    let sink = MetricSink::open(dir.path(), options.resume.then(|| found.as_ref().map_or(0, |f| f.0)))?;
    let mut at = Position::new(config.turns.begin(|who| starts(who, 0)));
    let mut sides = (retriever, generator);
    let index = if let Some((step, path)) = &found {
        at = state::restore(path, dir.path(), &mut sides.0, &mut sides.1, device)?;
        tracing::info!("resumed at step {step}");
        LiveIndex::open(&dir.path().join(INDEX), at.index)?
    } else {
        let encode = config.retrieval.encode();
        let index = LiveIndex::build(&sides.0.model, corpus.texts(), &config.retrieval.index, &encode, 0)?;
        write_index(&index, dir.path(), &corpus)?;
        index
    };
    let (retriever, generator) = sides;
    let mut run = Run {
        config,
        dir,
        corpus: Arc::new(corpus),
        records,
        gold,
        dev,
        retriever,
        generator,
        index,
        background: None,
        sink,
        at,
        before: None,
        best: None,
        seconds: Seconds::default(),
        report: PrepareReport::default(),
    };
    if let Some(started) = run.at.pending {
        let m = &run.retriever.model;
        let limits = (m.settings.max_query_tokens, m.settings.max_passage_tokens);
        run.background = Some(Background::resume(
            &run.dir.path().join(SNAPSHOT),
            (m.device, m.compute),
            limits,
            &run.corpus,
            (&config.retrieval.index, config.retrieval.encode()),
            started,
        ));
    }
    if found.is_none() {
        run.start()?;
    }

    // Train.
    let mut progress = Progress::new(total, run.at.step, options.quiet);
    let (mut taught_loss, mut learned_loss) = (LossMeter::default(), LossMeter::default());
    let stop_at = options.stop_after.map_or(u64::MAX, |n| run.at.step + n);
    while run.at.step < total && (run.learns(Who::Retriever) || run.learns(Who::Generator)) {
        let batch = run.next_batch();
        let (taught, learned, found) = run.step(&batch)?;
        run.at.step += 1;
        let step = run.at.step;
        if let Some(t) = &taught {
            taught_loss.add(t.loss, step, t.lr)?;
        }
        if let Some(l) = &learned {
            learned_loss.add(l.loss, step, l.lr)?;
        }
        progress.step(step, || {
            format!("retriever {:.4} generator {:.4}", taught_loss.mean(), learned_loss.mean())
        });
        run.watch(&found, &progress)?;
        let last = step == total;
        if step.is_multiple_of(config.train.log_every.max(1)) || last {
            run.log((&taught, &mut taught_loss), (&learned, &mut learned_loss), &batch, &found)?;
        }
        let (turn, ended) = config.turns.next(run.at.turn, |who| run.learns(who));
        run.at.turn = turn;
        let measured = matches!(&config.turns, Turns::Alternating(a) if a.measure);
        let every = config.eval.every_steps;
        let due = every > 0 && step.is_multiple_of(every);
        if (last || due || (measured && ended.is_some())) && !run.dev.is_empty() {
            run.measure(ended, &progress)?;
        }
        let asked = interrupt::asked() || step >= stop_at;
        let save = config.save.every_steps > 0 && step.is_multiple_of(config.save.every_steps);
        let over = last || !(run.learns(Who::Retriever) || run.learns(Who::Generator));
        if !over {
            run.refresh_if_due(&progress)?;
        }
        if save || asked || over {
            let (dir, r, g, at) = (run.dir.path(), &run.retriever, &run.generator, &run.at);
            checkpoints.save(step, |d| state::save(d, dir, r, g, device, at))?;
        }
        if asked && !over {
            progress.finish();
            tracing::info!("stopped at step {step}; go on with --resume");
            return Ok(run.outcome(false));
        }
    }
    progress.finish();
    if run.dev.is_empty() {
        run.bring_index_up_to_date()?;
        run.save_best(None)?;
    }
    run.finish()?;
    Ok(run.outcome(true))
}

impl Run<'_> {
    /// Whether a side takes turns at this step.
    pub(super) fn learns(&self, who: Who) -> bool {
        let (frozen, start, state) = match who {
            Who::Retriever => {
                (self.config.retriever.frozen, self.config.retriever.start_at, &self.at.retriever)
            }
            Who::Generator => {
                (self.config.generator.frozen, self.config.generator.start_at, &self.at.generator)
            }
        };
        // A side that begins later is waited for.
        let waits = self.at.step < start;
        !frozen && !state.stopped && (!waits || self.at.turn.who.is_none())
    }

    /// Dev as it is before the first step: what gains are measured from.
    fn start(&mut self) -> Result<()> {
        if self.dev.is_empty() {
            return Ok(());
        }
        let (scores, samples) = self.evaluate()?;
        tracing::info!("dev before training: {scores}");
        self.sink.write("dev", 0, &scores.named())?;
        write_json(&self.dir.path().join(BEFORE), &json!({"scores": scores, "samples": samples}))?;
        self.before = Some(scores);
        self.at.last = Some((0, scores));
        for who in [Who::Retriever, Who::Generator] {
            self.judge(who, &scores)?;
        }
        self.at.best.update(scores.measure(self.config.eval.best), 0, 0.0);
        self.best = Some(scores);
        self.save_best(Some((&scores, &samples)))
    }

    /// The questions of the next step; epochs are shuffled by their seeds.
    fn next_batch(&mut self) -> Vec<usize> {
        let size = self.config.train.questions;
        if self.at.batch * size >= self.records.len() {
            (self.at.epoch, self.at.batch) = (self.at.epoch + 1, 0);
        }
        let mut order: Vec<usize> = (0..self.records.len()).collect();
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(&self.at.epoch.to_le_bytes(), self.config.seed);
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let from = self.at.batch * size;
        self.at.batch += 1;
        order[from..(from + size).min(order.len())].to_vec()
    }

    /// Retrieves, and lets those learn whose turn it is.
    fn step(&mut self, batch: &[usize]) -> Result<(Option<Taught>, Option<Learned>, Candidates)> {
        let config = self.config;
        let started = Instant::now();
        let asked: Vec<&RagRecord> = batch.iter().map(|&i| &self.records[i]).collect();
        let questions: Vec<String> = asked.iter().map(|r| r.question.clone()).collect();
        let moved = self.at.moved > self.index.step;
        let texts = self.corpus.texts();
        let found =
            retrieve(&self.retriever.model, texts, &self.index, &questions, &config.retrieval, moved)?;
        let records = with_contexts(&asked, &found, &self.corpus);
        self.seconds.retrieval += started.elapsed().as_secs_f64();
        let begun = |start: u64| self.at.step >= start;
        let takes = |who, start| self.learns(who) && begun(start) && Turns::includes(self.at.turn, who);
        let retriever_learns = takes(Who::Retriever, config.retriever.start_at);
        let generator_learns = takes(Who::Generator, config.generator.start_at);
        let marginal = config.generator.learns == Learns::Marginal;
        let (mut taught, mut learned) = (None, None);
        if retriever_learns || (marginal && generator_learns) {
            let gold: Vec<Vec<u32>> = batch.iter().map(|&i| self.gold[i].clone()).collect();
            let lesson =
                Lesson { records: &records, gold: &gold, found: &found, index: &self.index, moved, texts };
            let states = (&mut self.at.retriever, &mut self.at.generator);
            let both = marginal && generator_learns;
            taught = teach(
                config,
                &mut self.retriever,
                &mut self.generator,
                states,
                &lesson,
                both,
                &mut self.report,
            )?;
            if let Some(t) = &taught {
                self.seconds.scoring += t.scoring;
                self.seconds.retriever += t.updating;
                if self.retriever.moves_passages() {
                    self.at.moved = self.at.step + 1;
                }
            }
        }
        if generator_learns && !marginal {
            let started = Instant::now();
            let state = &mut self.at.generator;
            let turn = if config.generator.learns == Learns::Preferences { prefer } else { learn };
            learned = turn(config, &mut self.generator, state, &records, self.at.epoch, &mut self.report)?;
            self.seconds.generator += started.elapsed().as_secs_f64();
        }
        Ok((taught, learned, found))
    }

    /// Looks for collapse, and how stale the index is.
    fn watch(&mut self, found: &Candidates, progress: &Progress) -> Result<()> {
        self.at.stale.push(1.0 - found.overlap);
        let excess = self.at.stale.len().saturating_sub(10);
        self.at.stale.drain(..excess);
        if let Some((row, share)) = self.at.collapse.see(&found.rows, &self.config.alarm) {
            let text = format!(
                "retrieval collapses: passage `{}` is among those found for {:.0} % of the last questions, whatever \
                 they ask. Lower retriever.optim.lr or raise the objective's temperatures, and go back to a checkpoint \
                 from before",
                self.corpus.passage(row).id,
                100.0 * share
            );
            self.alarm("collapse", text, progress)?;
        }
        Ok(())
    }

    pub(super) fn alarm(&mut self, what: &str, text: String, progress: &Progress) -> Result<()> {
        progress.aside(|| tracing::warn!("step {}: {text}", self.at.step));
        Ok(self.sink.record("alarm", self.at.step, &json!({"alarm": what, "text": text}))?)
    }

    fn log(
        &mut self,
        (taught, taught_loss): (&Option<Taught>, &mut LossMeter),
        (learned, learned_loss): (&Option<Learned>, &mut LossMeter),
        batch: &[usize],
        found: &Candidates,
    ) -> Result<()> {
        let step = self.at.step;
        let known: Vec<(&Vec<u32>, &Vec<u32>)> =
            batch.iter().map(|&i| &self.gold[i]).zip(&found.rows).filter(|(g, _)| !g.is_empty()).collect();
        let hits = known.iter().filter(|(g, rows)| rows.iter().any(|r| g.contains(r))).count();
        let mut values = vec![("unique_passages", unique_share(&found.rows)), ("overlap", found.overlap)];
        if !known.is_empty() {
            values.push(("gold_in_top_k", hits as f64 / known.len() as f64));
        }
        if let Some((_, share)) = self.at.collapse.commonest() {
            values.push(("commonest_passage", share));
        }
        if let Some(t) = taught {
            values.push(("entropy", t.entropy));
            values.push(("teacher_kl", t.divergence));
        }
        self.sink.write("retrieval", step, &values)?;
        let epoch = self.at.epoch as f64
            + (self.at.batch * self.config.train.questions) as f64 / self.records.len().max(1) as f64;
        if let Some(t) = taught {
            let mut values =
                vec![("loss", taught_loss.take()), ("lr", t.lr), ("grad_norm", t.norm), ("epoch", epoch)];
            values.extend(t.contrastive.map(|c| ("contrastive", c)));
            self.sink.write("retriever", step, &values)?;
            if let Some((norm, lr)) = t.generator {
                self.sink.write("generator", step, &[("lr", lr), ("grad_norm", norm), ("epoch", epoch)])?;
            }
        }
        if let Some(l) = learned {
            let mut values = vec![
                ("loss", learned_loss.take()),
                ("lr", l.lr),
                ("grad_norm", l.norm),
                ("epoch", epoch),
                ("tokens", l.tokens as f64),
                ("targets", l.targets as f64),
            ];
            if let Some(r) = &l.rewards {
                values.push(("reward_margin", r.margin));
                values.extend(r.accuracy.map(|a| ("reward_accuracy", a)));
            }
            self.sink.write("generator", step, &values)?;
        }
        Ok(())
    }

    fn outcome(self, finished: bool) -> Outcome {
        Outcome {
            step: self.at.step,
            finished,
            dir: self.dir.path().join("best"),
            before: self.before,
            best: self.best,
            seconds: self.seconds,
            prepared: self.report,
        }
    }
}

fn read(config: &JointConfig, out: &Path) -> Result<(Vec<RagRecord>, Vec<RagRecord>, Corpus)> {
    let d = &config.data;
    let bad = BadRows::new(if d.skip_bad_rows {
        BadRowPolicy::Skip { sidecar: out.join("bad_rows.jsonl") }
    } else {
        BadRowPolicy::Fail
    });
    let (records, without) = read_questions(&d.train, &d.split, d.answers.as_deref(), &bad)?;
    if without > 0 {
        tracing::warn!("{}: {without} questions have no answer and were left out", d.train.display());
    }
    if records.is_empty() {
        return Err(Error::Unusable(format!("{}: no questions with answers", d.train.display())));
    }
    let dev = match &d.dev {
        None => Vec::new(),
        Some(path) => {
            let (mut dev, _) = read_questions(path, &d.dev_split, d.answers.as_deref(), &bad)?;
            if dev.is_empty() {
                return Err(Error::Unusable(format!("{}: no questions with answers", path.display())));
            }
            if config.eval.questions > 0 {
                dev.truncate(config.eval.questions);
            }
            dev
        }
    };
    let corpus = Corpus::read(d.corpus.as_ref().unwrap_or(&d.train), &bad)?;
    let report = bad.report();
    if report.bad_rows() > 0 {
        tracing::warn!("{report}");
    }
    Ok((records, dev, corpus))
}

fn describe(
    config: &JointConfig,
    records: &[RagRecord],
    corpus: &Corpus,
    (retriever, generator): (&RetrieverPart, &GeneratorPart),
    (retriever_steps, generator_steps): (u64, u64),
) {
    let share = |all: u64, training: u64| format!("{training} of {all} parameters train");
    let of = |parameters: Vec<(String, ragduet_torch::Tensor)>| {
        parameters.iter().fold((0, 0), |(all, training), (_, p)| {
            let n = p.numel() as u64;
            (all + n, training + if p.requires_grad() { n } else { 0 })
        })
    };
    let (all, training) = of(retriever.model.parameters());
    tracing::info!(
        "{} questions, {} passages, {} questions a step; seed {}",
        records.len(),
        corpus.len(),
        config.train.questions,
        config.seed
    );
    tracing::info!(
        "retriever: {}, {retriever_steps} steps; {}",
        share(all, training),
        retriever.model.compute
    );
    let (all, training) = ragduet_generator::recipe::parts::trainable(&generator.model);
    tracing::info!(
        "generator: {}, {generator_steps} steps; {}",
        share(all, training),
        generator.model.compute
    );
}
