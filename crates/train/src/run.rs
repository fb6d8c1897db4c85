//! The training loop, once: whatever a [`Recipe`] trains goes through [`run`], which owns the order of things.
//!
//! Per step: plan (mining, refreshing), batch, update, log, measure and keep the best, checkpoint, stop. A checkpoint
//! holds the place in the data, and the order of an epoch is a pure function of (data, config, seed, epoch): a resumed
//! run repeats on the CPU what the uninterrupted one does, bit for bit.

use crate::bases;
use crate::card::RunFacts;
use crate::checkpoint::{self, Checkpoints, recover, replace_dir};
use crate::recipe::{At, Epoch, Evaluated, Facts, Flow, Line, Log, Recipe, RunState};
use crate::resume::Position;
use crate::{
    DeviceLossMeter, EvalSchedule, Learner, MetricSink, Progress, RecipeConfig, Result, RunContext,
    RunOptions, World, config as settings, interrupt, state,
};
use ragduet_text::CutLog;
use ragduet_torch::weights::write_atomic;
use ragduet_torch::{Device, rng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome<S> {
    /// Optimiser steps done.
    pub step: u64,
    /// Whether it came to its end: all steps done, or stopped early (and not interrupted).
    pub finished: bool,
    /// `best/`: the best model by the dev set, the last one where there is none. `None` where an interrupted run has
    /// written none yet.
    pub model_dir: Option<PathBuf>,
    /// Dev before training, where this call measured it.
    pub before: Option<Evaluated<S>>,
    /// Dev with the best model that this call measured.
    pub best: Option<Evaluated<S>>,
    /// Units (pairs, tokens: the recipe's) per second of training steps.
    pub units_per_second: f64,
    /// Rows of the data that were bad and moved aside.
    pub bad_rows: u64,
}

/// A recipe after its run, and what the run came to.
#[derive(Debug)]
pub struct Finished<R: Recipe> {
    /// With the last step's weights.
    pub recipe: R,
    /// What it came to.
    pub outcome: Outcome<R::Scores>,
}

/// Trains what `build` makes, into the run folder, or goes on where its last checkpoint stands.
///
/// # Errors
/// A folder that cannot be used, settings and data that do not fit, a loss that is no number, memory, files.
pub fn run<C: RecipeConfig, R: Recipe>(
    config: &C,
    options: &RunOptions,
    build: impl FnOnce(&RunContext) -> Result<R, R::Error>,
) -> Result<Finished<R>, R::Error> {
    let resolved = settings::to_toml(config)?;
    let context = RunContext::open(config, options, &resolved)?;
    interrupt::install();
    rng::seed(config.run().seed);
    // A start that comes to nothing leaves nothing, so that the corrected one finds its folder as this one did.
    let mut start = context.dir.start(options.resume);
    let recipe = build(&context)?;
    context.report_bad_rows()?;
    let mut d = Driver::new(config, options, recipe, context, resolved)?;

    let resumed = d.resume()?;
    d.recipe.ready(resumed, &mut d.run)?;
    start.succeeded();
    if d.eval.at_start && !resumed {
        d.measure()?;
    }
    let mut epoch = None;
    while !d.is_over() {
        if d.recipe.before_step(&mut d.run)? == Flow::Replan {
            epoch = None;
        }
        let window = d.next_window(&mut epoch)?;
        d.step(&window)?;
        let wanted = d.recipe.after_step(&mut d.run)?;
        if wanted || d.measures_now() {
            d.measure()?;
        }
        let over = d.is_over();
        if !over {
            d.recipe.end_of_step(&mut d.run)?;
        }
        let asked = d.run.world.any(interrupt::asked() || d.run.at.step >= d.stop_at);
        if over || asked || d.saves_now() {
            d.checkpoint()?;
        }
        if asked && !over {
            d.run.log.progress.finish();
            tracing::info!("stopped at step {}; go on with --resume", d.run.at.step);
            return Ok(d.finished(false));
        }
    }
    d.run.log.progress.finish();
    d.end()?;
    Ok(d.finished(true))
}

struct Driver<'a, C, R: Recipe> {
    config: &'a C,
    recipe: R,
    run: RunState,
    eval: EvalSchedule,
    position: Position,
    checkpoints: Checkpoints,
    /// The checkpoint to go on from.
    from: Option<PathBuf>,
    stop_at: u64,
    device: Device,
    resolved: String,
    before: Option<Evaluated<R::Scores>>,
    best: Option<Evaluated<R::Scores>>,
    /// The step at which this process went on.
    resumed_at: Option<u64>,
    meters: Vec<(&'static str, DeviceLossMeter)>,
    units: u64,
    busy: f64,
    /// Holds the run folder's lock.
    context: RunContext,
}

impl<'a, C: RecipeConfig, R: Recipe> Driver<'a, C, R> {
    fn new(
        config: &'a C,
        options: &RunOptions,
        mut recipe: R,
        context: RunContext,
        resolved: String,
    ) -> Result<Self, R::Error> {
        let (run, per_epoch) = (config.run(), recipe.steps_per_epoch());
        let total = run.total(per_epoch, C::EPOCHS);
        recipe.begin(total)?;
        tracing::info!("{}; {total} steps, {per_epoch:.1} per epoch; seed {}", recipe.describe(), run.seed);
        let dir = context.dir.path().to_path_buf();
        let checkpoints = Checkpoints::open(&dir, config.save().keep)?;
        recover(dir.join("best")).map_err(crate::Error::from)?;
        let found = if options.resume { checkpoints.latest()? } else { None };
        if options.resume && found.is_none() {
            tracing::warn!("the run has saved no checkpoint yet: it starts from the beginning");
        }
        let saved = found.as_ref().map(|f| state::read_position::<Position>(&f.1)).transpose()?;
        let saved = saved.unwrap_or_default();
        let done = saved.step;
        let log = Log {
            sink: MetricSink::open(&dir, options.resume.then_some((done, saved.log_bytes)))?,
            progress: Progress::new(total, done, options.quiet),
        };
        let at = At { total, ..At::default() };
        Ok(Self {
            config,
            recipe,
            run: RunState { at, world: World::single(), dir, examples: String::new(), log },
            eval: config.eval(),
            position: Position::default(),
            checkpoints,
            from: found.map(|f| f.1),
            stop_at: options.stop_after.map_or(u64::MAX, |n| done + n),
            device: context.device,
            resolved,
            before: None,
            best: None,
            resumed_at: None,
            meters: Vec::new(),
            units: 0,
            busy: 0.0,
            context,
        })
    }

    /// Restores the newest checkpoint; whether there was one.
    fn resume(&mut self) -> Result<bool, R::Error> {
        let data = self.recipe.fingerprint();
        let bases = bases::of(&self.resolved).map_err(crate::Error::from)?;
        let Some(path) = self.from.take() else {
            (self.position.data, self.position.bases) = (data, bases);
            return Ok(false);
        };
        let saved = state::read_position::<Position>(&path)?;
        saved.check_data(data, self.context.dir.path())?;
        saved.check_bases(&bases, self.context.dir.path())?;
        if self.device == Device::Cpu {
            saved.say_threads(ragduet_torch::device::threads());
        }
        (self.run.at.step, self.run.at.epoch, self.run.at.window) = (saved.step, saved.epoch, saved.window);
        self.recipe.restore_extra(&path, &mut self.run)?;
        let parameters = self.recipe.parameters();
        let mut learners = self.recipe.learners();
        for (name, learner) in &mut learners {
            learner.done = saved.learners.get(*name).copied().unwrap_or(saved.step);
        }
        let optimizers = learners.into_iter().map(|(n, l)| (n, &mut l.optimizer)).collect();
        state::restore(&path, &parameters, optimizers, self.device)?;
        saved.say_changes(&self.run.at, self.recipe.steps_per_epoch());
        self.run.at.window = saved.place_in_epoch(self.recipe.steps_per_epoch());
        self.position = Position { bases, ..saved };
        self.check_best();
        let step = self.run.at.step;
        self.resumed_at = Some(step);
        match self.is_over() {
            true => tracing::info!("the run had come to its end at step {step}: nothing is left to do"),
            false => tracing::info!("resumed at step {step}"),
        }
        Ok(true)
    }

    /// A best model that is gone is not one to beat.
    fn check_best(&mut self) {
        let best = &mut self.position.best;
        let (Some(_), Err(e)) = (best.best, checkpoint::check(&self.run.dir.join("best"))) else { return };
        tracing::warn!(
            "the best model, of step {}, cannot be used ({e}): the next measurement makes a new best/",
            best.best_step
        );
        *best = crate::EarlyStopping::default();
    }

    /// Whether nothing is left to train.
    fn is_over(&self) -> bool {
        let at = &self.run.at;
        at.step >= at.total
            || self.position.best.should_stop(self.eval.stop.as_ref())
            || self.recipe.is_over(&self.run)
    }

    /// The next window, of the next epoch where this one has none left.
    fn next_window(
        &mut self,
        epoch: &mut Option<Epoch<R::Batch, R::Error>>,
    ) -> Result<Vec<R::Batch>, R::Error> {
        loop {
            let at = &mut self.run.at;
            if epoch.is_none() {
                let planned = self.recipe.epoch(at.epoch, at.window)?;
                at.windows = planned.windows;
                if planned.windows == Some(0) {
                    let why = "an epoch has no step: the data is smaller than a batch, which is dropped";
                    return Err(crate::Error::State { path: self.run.dir.clone(), why: why.into() }.into());
                }
                *epoch = Some(planned);
            }
            if let Some(window) = epoch.as_mut().and_then(|e| e.rest.next()) {
                return window;
            }
            (at.epoch, at.window) = (at.epoch + 1, 0);
            *epoch = None;
        }
    }

    /// One optimiser step and its line of the log.
    fn step(&mut self, window: &[R::Batch]) -> Result<(), R::Error> {
        let ids: Vec<String> = window.iter().flat_map(|b| self.recipe.ids(b)).take(8).collect();
        self.run.examples = ids.join(", ");
        let started = Instant::now();
        let lines = self.recipe.step(window, &mut self.run)?;
        self.busy += started.elapsed().as_secs_f64();
        self.units += window.iter().map(|b| self.recipe.units(b)).sum::<u64>();
        self.run.at.step += 1;
        self.run.at.window += 1;
        for line in &lines {
            let Some(loss) = &line.loss else { continue };
            let step = self.run.at.step;
            let ids = self.run.examples.clone();
            let on_cpu = self.device == Device::Cpu;
            let meter = self.meter(line.kind);
            meter.add(loss, step, line.lr.unwrap_or(0.0), [ids.as_str()])?;
            // Free on the CPU; a device is not waited for between lines of the log.
            if on_cpu {
                meter.check()?;
            }
        }
        self.show(&lines);
        let at = self.run.at;
        if at.step.is_multiple_of(self.config.run().log_every.max(1)) || at.step == at.total {
            lines.into_iter().try_for_each(|line| self.write(line))?;
        }
        Ok(())
    }

    fn meter(&mut self, kind: &'static str) -> &mut DeviceLossMeter {
        let at = self.meters.iter().position(|(k, _)| *k == kind).unwrap_or_else(|| {
            let parts = self.position.losses.get(kind).copied().unwrap_or_default();
            self.meters.push((kind, DeviceLossMeter::from_parts(parts)));
            self.meters.len() - 1
        });
        &mut self.meters[at].1
    }

    /// What was added up since the last line of the log, of a meter that this call has not used yet as the checkpoint had it.
    fn losses(&self) -> BTreeMap<String, (f64, u64)> {
        let mut all = self.position.losses.clone();
        all.extend(self.meters.iter().map(|(kind, m)| ((*kind).to_string(), m.parts())));
        all
    }

    fn speed(&self) -> f64 {
        self.units as f64 / self.busy.max(1e-9)
    }

    fn show(&mut self, lines: &[Line]) {
        let speed = self.speed();
        let means: Vec<String> = self
            .meters
            .iter()
            .map(|(kind, m)| format!("{} {:.4}", if *kind == "train" { "loss" } else { kind }, m.mean()))
            .collect();
        let lr = lines.iter().find_map(|l| l.lr).unwrap_or(0.0);
        self.run
            .log
            .progress
            .step(self.run.at.step, || format!("{} lr {lr:.2e} {speed:.1} {}/s", means.join(" "), R::UNIT));
    }

    fn write(&mut self, line: Line) -> Result<(), R::Error> {
        let per_second = format!("{}_per_second", R::UNIT);
        let mut values: Vec<(&str, f64)> = Vec::new();
        if line.loss.is_some() {
            values.push(("loss", self.meter(line.kind).take()?));
        }
        values.extend(line.lr.map(|v| ("lr", v)));
        values.extend(line.grad_norm.map(|v| ("grad_norm", v)));
        values.push(("epoch", self.recipe.epochs_done(&self.run.at)));
        values.push((&per_second, self.speed()));
        for (name, term) in &line.terms {
            values.push((
                name,
                f64::try_from(term).map_err(|e| crate::Error::from(ragduet_torch::Error::from(e)))?,
            ));
        }
        values.extend(line.values.iter().copied());
        Ok(self.run.log.write(line.kind, self.run.at.step, &values)?)
    }

    fn measures_now(&self) -> bool {
        let (at, e) = (&self.run.at, &self.eval);
        let by_steps = e.every_steps > 0 && at.step.is_multiple_of(e.every_steps);
        let by_epochs =
            e.every_epochs > 0 && self.ended_epoch().is_some_and(|n| n.is_multiple_of(e.every_epochs));
        by_steps || by_epochs || at.step == at.total
    }

    /// How many passes over the data are done, where the last step ended one.
    fn ended_epoch(&self) -> Option<u64> {
        let at = self.run.at;
        if at.windows.is_some() {
            return (at.windows == Some(at.window)).then_some(at.epoch + 1);
        }
        // A stream's steps know no borders of epochs.
        let done = |at: &At| self.recipe.epochs_done(at) as u64;
        let (step, window) = (at.step.saturating_sub(1), at.window.saturating_sub(1));
        (done(&at) > done(&At { step, window, ..at })).then(|| done(&at))
    }

    fn saves_now(&self) -> bool {
        let every = self.config.save().every_steps;
        every > 0 && self.run.at.step.is_multiple_of(every)
    }

    /// A loss that was left on the device is looked at before anything is kept.
    fn check_losses(&mut self) -> Result<(), R::Error> {
        Ok(self.meters.iter_mut().try_for_each(|(_, m)| m.check())?)
    }

    /// Measures the model and keeps it where it is the best so far.
    fn measure(&mut self) -> Result<(), R::Error> {
        self.check_losses()?;
        let Some(scores) = self.recipe.evaluate(&mut self.run)? else { return Ok(()) };
        let step = self.run.at.step;
        let said: Vec<String> = scores.named.iter().map(|(n, v)| format!("{n} {v:.4}")).collect();
        self.run.log.say(|| match step {
            0 => tracing::info!("dev before training: {}", said.join("  ")),
            _ => tracing::info!("dev at step {step}: {}", said.join("  ")),
        });
        let values: Vec<(&str, f64)> = scores.named.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        self.run.log.write("dev", step, &values)?;
        self.recipe.evaluated(&scores, &mut self.run)?;
        if step == 0 {
            self.before = Some(scores.clone());
        }
        let min_gain = self.eval.stop.map_or(0.0, |s| s.min_gain);
        let better = self.position.best.update_towards(self.recipe.goal(), scores.main, step, min_gain);
        // A measure that is no number leaves a model all the same.
        if better || !self.run.dir.join("best").is_dir() {
            self.keep_best(Some(&scores))?;
            self.best = Some(scores);
        }
        Ok(())
    }

    /// Writes `best/`, the model as the ecosystem reads it, and `best.json`, how it came about.
    fn keep_best(&mut self, dev: Option<&Evaluated<R::Scores>>) -> Result<(), R::Error> {
        let step = self.run.at.step;
        let name = self.run.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let facts = Facts { step, before: self.before.as_ref(), dev, name: &name, config: &self.resolved };
        let card = self.recipe.card().map(|card| {
            let before = facts.before.map_or(&[][..], |e| &e.named);
            let after = dev.map_or(&[][..], |e| &e.named);
            card.markdown(&RunFacts { name: &name, step, config: &self.resolved, before, after })
        });
        replace_dir(&self.run.dir.join("best"), |d| -> Result<(), R::Error> {
            self.recipe.save_model(d, &facts)?;
            match &card {
                Some(text) => {
                    Ok(write_atomic(&d.join("README.md"), text.as_bytes()).map_err(crate::Error::from)?)
                }
                None => Ok(()),
            }
        })?;
        let mut said = serde_json::Map::from_iter([("step".to_string(), json!(step))]);
        said.extend(self.recipe.best_facts(dev));
        let text = format!("{:#}\n", Value::Object(said));
        write_atomic(&self.run.dir.join("best.json"), text.as_bytes()).map_err(crate::Error::from)?;
        self.recipe.kept_best(&self.run)
    }

    fn checkpoint(&mut self) -> Result<(), R::Error> {
        self.check_losses()?;
        let at = self.run.at;
        let learners = self.recipe.learners().iter().map(|(n, l)| ((*n).to_string(), l.done())).collect();
        let position = Position {
            step: at.step,
            epoch: at.epoch,
            window: at.window,
            total: at.total,
            steps_per_epoch: self.recipe.steps_per_epoch(),
            learners,
            log_bytes: self.run.log.sink.bytes()?,
            losses: self.losses(),
            threads: ragduet_torch::device::threads(),
            ..self.position.clone()
        };
        let parameters = self.recipe.parameters();
        self.checkpoints.save(at.step, |dir| -> Result<(), R::Error> {
            self.recipe.save_extra(dir, &self.run)?;
            let learners: Vec<(&str, &mut Learner)> = self.recipe.learners();
            let optimizers = learners.iter().map(|(n, l)| (*n, &l.optimizer)).collect();
            Ok(state::save(dir, &parameters, optimizers, self.device, &position)?)
        })?;
        self.position = position;
        Ok(())
    }

    /// What the end of a run leaves: a model where no dev set chose one, the last word on whether it helped.
    fn end(&mut self) -> Result<(), R::Error> {
        let best = self.position.best;
        if best.best.is_none() && self.best.is_none() {
            self.keep_best(None)?;
        }
        if best.best.is_some() && best.best_step == 0 && self.run.at.step > 0 {
            tracing::warn!(
                "no measurement was better than the one before training: best/ is the model that training started from"
            );
        }
        self.say_cut()?;
        self.recipe.finish(&mut self.run)
    }

    /// Counts in one line the texts that were too long for their limit, and how much of them was not read.
    fn say_cut(&mut self) -> Result<(), R::Error> {
        let log = CutLog::take();
        let all = log.total();
        if all.cut > 0 {
            match self.resumed_at {
                // What was read before the resume is in that run's count.
                Some(step) => tracing::warn!("since the resume at step {step}: texts {log}"),
                None => tracing::warn!("texts {log}"),
            }
            let values =
                [("texts", all.texts as f64), ("cut", all.cut as f64), ("unread_share", all.unread_share())];
            self.run.log.write("cut", self.run.at.step, &values)?;
        }
        Ok(())
    }

    fn finished(self, finished: bool) -> Finished<R> {
        let best = self.run.dir.join("best");
        let outcome = Outcome {
            step: self.run.at.step,
            finished,
            model_dir: best.is_dir().then_some(best),
            units_per_second: self.speed(),
            before: self.before,
            best: self.best,
            bad_rows: self.context.bad_rows.report().bad_rows(),
        };
        drop(self.context);
        Finished { recipe: self.recipe, outcome }
    }
}

#[cfg(test)]
mod tests;
