//! Joint training of a retriever and a generator.
//!
//! Each step retrieves for a batch of questions with the encoders as they are; then one model or both are trained on what
//! was found: the retriever by how likely its passages make the answers, the generator by the answers given its passages.
//! Everything that is drawn is a function of (seed, epoch, place), and a checkpoint holds the index, too: a resumed run
//! repeats on the CPU what the uninterrupted one does, bit for bit.

use super::alarms::Alarms;
use super::alternation::{Alternation, Trained, Trainee, Turn};
use super::config::{EvalConfig, GeneratorObjective, JointConfig};
use super::data::JointData;
use super::dev_meter::DevMeter;
use super::evaluate::{DevScores, evaluate};
use super::generator_step::supervised_step;
use super::index_refresh::{IndexRefresh, IndexState};
use super::kept_scores::KeptScores;
use super::preference_step::preference_step;
use super::retriever_step::{RetrieverBatch, retriever_step};
use super::seconds::Seconds;
use super::sides::{SideState, Sides};
use crate::diagnose::unique_share;
use crate::pipeline::{self, Pipeline, with_contexts};
use crate::retrieve::Asked;
use crate::{Error, Result};
use ragduet_data::RagRecord;
use ragduet_generator::prepare::PrepareReport;
use ragduet_retriever::st_dir;
use ragduet_torch::Tensor;
use ragduet_torch::weights::write_atomic;
use ragduet_train::{
    Epoch, Evaluated, Facts, Learner, Line, Recipe, RunContext, RunOptions, RunState, epoch_rng,
};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Steps, folder (`best/`: retriever, generator, index), scores, speed.
    pub run: ragduet_train::Outcome<DevScores>,
    /// Where the time went.
    pub seconds: Seconds,
    /// Records that could not be used, by reason.
    pub prepared: PrepareReport,
}

/// Trains as the config says, into `options.out`.
///
/// # Errors
/// Settings, data and models that cannot be used; a loss that is no number; whatever the machine refuses.
pub fn train(config: &JointConfig, options: &RunOptions) -> Result<Outcome> {
    config.validate()?;
    let done = ragduet_train::run(config, options, |context| Joint::build(config, context))?;
    let (joint, mut run) = (done.recipe, done.outcome);
    // Of a run that was resumed, as the run folder has them.
    let of = |scores: Option<DevScores>| scores.map(|s| s.evaluated(config.eval.best));
    run.before = run.before.or_else(|| of(joint.dev.before));
    run.best = run.best.or_else(|| of(joint.dev.best));
    let seconds = Seconds { refresh: joint.index.seconds, ..joint.seconds };
    Ok(Outcome { run, seconds, prepared: joint.report })
}

/// Both models, what they are trained on, and what the run knows of them.
#[derive(Debug)]
struct Joint<'a> {
    config: &'a JointConfig,
    data: JointData,
    sides: Sides,
    index: IndexRefresh<'a>,
    turn: Turn,
    /// Whose turn ended with the last step.
    ended: Option<Trainee>,
    alarms: Alarms,
    dev: DevMeter,
    /// Steps that each model is planned to take: (retriever, generator).
    planned: (u64, u64),
    seconds: Seconds,
    report: PrepareReport,
    /// What the generator said, where it is frozen.
    kept: KeptScores,
}

/// What a checkpoint holds beside parameters, optimizers and folders.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    turn: Turn,
    sides: [SideState; 2],
    index: IndexState,
    alarms: Alarms,
    dev: Option<(u64, DevScores)>,
    /// What decides when the index is refreshed for a measurement, and how rollouts are decoded.
    eval: EvalConfig,
}

const SAVED: &str = "joint.json";

impl Saved {
    fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(SAVED);
        let text = serde_json::to_vec(self)
            .map_err(|source| ragduet_train::Error::Json { path: path.clone(), source })?;
        Ok(write_atomic(&path, &text)?)
    }

    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(SAVED);
        let text = fs_err::read(&path)?;
        Ok(serde_json::from_slice(&text).map_err(|source| ragduet_train::Error::Json { path, source })?)
    }
}

impl<'a> Joint<'a> {
    fn build(config: &'a JointConfig, context: &RunContext) -> Result<Self> {
        context.bad_rows.set_missing(config.data.missing);
        let data = JointData::read(config, &context.bad_rows)?;
        let sides = Sides::build(config, context, data.texts())?;
        let index = IndexRefresh::new(config, &sides.retriever.model, Arc::clone(&data.corpus))?;
        let turn = config.alternation.begin(|who| sides.training(who).trains_at(0));
        Ok(Self {
            config,
            data,
            sides,
            index,
            turn,
            ended: None,
            alarms: Alarms::default(),
            dev: DevMeter::default(),
            planned: (0, 0),
            seconds: Seconds::default(),
            report: PrepareReport::default(),
            kept: KeptScores::default(),
        })
    }

    /// The models that are trained in the next step.
    fn trained(&self, run: &RunState) -> Trained {
        let is =
            |who| self.sides.training(who).trains_at(run.at.step) && Alternation::includes(self.turn, who);
        Trained { retriever: is(Trainee::Retriever), generator: is(Trainee::Generator) }
    }

    /// What the generator's scores are computed by.
    fn scored_by(&self) -> String {
        let generator = &self.sides.generator.model;
        format!("{} on {:?}", generator.compute, generator.device)
    }

    /// Ends the training of a model that no longer gains.
    fn end(&mut self, who: Trainee, run: &mut RunState) -> Result<()> {
        let best = self.sides.end(who, &run.dir)?;
        if who == Trainee::Retriever && self.sides.retriever.moves_passages() {
            // Its passages are others than those of the index, whichever step that was made after.
            self.index.passages_moved(run.at.step);
            self.index.refresh(&self.sides.retriever.model, run)?;
        }
        let text = format!(
            "the {who}'s turns no longer help ({} measurements without gain): it stays as it was after step {} ({:.4})",
            best.waited,
            best.best_step,
            best.best.unwrap_or(f64::NAN)
        );
        let step = run.at.step;
        run.log.say(|| tracing::info!("step {step}: {text}"));
        Ok(run.log.record("stopped", step, &json!({"side": who, "text": text}))?)
    }
}

impl Recipe for Joint<'_> {
    /// Places of questions.
    type Batch = Vec<usize>;
    type Scores = DevScores;
    type Error = Error;

    const UNIT: &'static str = "questions";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        self.sides.parameters()
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        self.sides.learners()
    }

    fn steps_per_epoch(&self) -> f64 {
        self.data.records.len().div_ceil(self.config.batch.size) as f64
    }

    fn fingerprint(&self) -> u64 {
        self.data.fingerprint()
    }

    fn describe(&self) -> String {
        let of = |who, steps| {
            let (all, own) = self.sides.count(who);
            format!("{who}: {own} of {all} parameters train, {steps} steps, {}", self.sides.compute(who))
        };
        format!(
            "{} questions, {} passages, {} questions a step; {}; {}",
            self.data.records.len(),
            self.data.corpus.len(),
            self.config.batch.size,
            of(Trainee::Retriever, self.planned.0),
            of(Trainee::Generator, self.planned.1)
        )
    }

    fn begin(&mut self, total: u64) -> Result<()> {
        let trains = |who, step| self.sides.training(who).trains_at(step);
        self.planned = self.config.alternation.planned(total, trains);
        self.sides.plan(self.planned);
        Ok(())
    }

    fn epoch(&mut self, epoch: u64, from: usize) -> Result<Epoch<Vec<usize>, Error>> {
        let mut order: Vec<usize> = (0..self.data.records.len()).collect();
        order.shuffle(&mut epoch_rng(self.config.run.seed, epoch));
        Ok(Epoch::of(&order, self.config.batch.size, 1, from))
    }

    fn units(&self, batch: &Vec<usize>) -> u64 {
        batch.len() as u64
    }

    fn ids(&self, batch: &Vec<usize>) -> Vec<String> {
        batch.iter().map(|&i| self.data.records[i].id.clone()).collect()
    }

    fn ready(&mut self, resumed: bool, run: &mut RunState) -> Result<()> {
        let model = &self.sides.retriever.model;
        if resumed {
            self.index.resume_background(model, &run.dir);
            return Ok(());
        }
        self.index.build(model, 0, &run.dir)
    }

    /// Retrieves, and trains the models whose turn it is.
    fn step(&mut self, window: &[Vec<usize>], run: &mut RunState) -> Result<Vec<Line>> {
        let (config, batch, trained) = (self.config, window.concat(), self.trained(run));
        let started = Instant::now();
        let asked: Vec<&RagRecord> = batch.iter().map(|&i| &self.data.records[i]).collect();
        let questions: Vec<String> = asked.iter().map(|r| r.question.clone()).collect();
        let stale = self.index.is_stale();
        let own: Vec<Vec<u32>> = batch.iter().map(|&i| self.data.own[i].clone()).collect();
        let whom = Asked { questions: &questions, barred: &own };
        let found = self.index.retrieve(&self.sides.retriever.model, whom)?;
        let records = with_contexts(&asked, &found, &self.data.corpus);
        self.seconds.retrieval += started.elapsed().as_secs_f64();

        let marginal = trained.generator && config.generator.objective == GeneratorObjective::Marginal;
        let (mut terms, mut lines) = (Vec::new(), Vec::new());
        if trained.retriever || marginal {
            let batch = RetrieverBatch {
                records: &records,
                questions: &batch,
                gold: batch.iter().map(|&i| self.data.gold[i].as_slice()).collect(),
                own: &own,
                found: &found,
                index: &self.index.live,
                stale,
                texts: self.data.corpus.texts(),
                trained: Trained { generator: marginal, ..trained },
            };
            let (sides, kept, report) = (&mut self.sides, &mut self.kept, &mut self.report);
            if let Some(m) = retriever_step(config, sides, &batch, kept, report, run)? {
                self.seconds.scoring += m.scoring;
                self.seconds.retriever += m.updating;
                if trained.retriever && self.sides.retriever.moves_passages() {
                    self.index.passages_moved(run.at.step + 1);
                }
                terms = vec![
                    ("entropy", m.entropy.shallow_clone()),
                    ("teacher_kl", m.divergence.shallow_clone()),
                ];
                lines.extend(m.lines());
            }
        }
        if trained.generator && !marginal {
            let started = Instant::now();
            let preferences = config.generator.objective == GeneratorObjective::Preferences;
            let step = if preferences { preference_step } else { supervised_step };
            let done = step(config, &mut self.sides.generator, &records, &mut self.report, run)?;
            self.seconds.generator += started.elapsed().as_secs_f64();
            lines.extend(done.map(|m| m.line()));
        }
        let mut values = vec![("unique_passages", unique_share(&found.rows)), ("overlap", found.overlap)];
        values.extend(self.data.gold_found(&batch, &found.rows).map(|share| ("gold_in_top_k", share)));
        values.extend(self.kept.share().map(|share| ("scored_before", share)));
        let commonest = self.alarms.watch(&found.rows, &self.data.corpus, config, run)?;
        values.extend(commonest.map(|share| ("commonest_passage", share)));
        lines.insert(0, Line { kind: "retrieval", terms, values, ..Line::default() });
        Ok(lines)
    }

    fn after_step(&mut self, run: &mut RunState) -> Result<bool> {
        let takes_turns = |who| self.sides.training(who).takes_turns(run.at.step, self.turn);
        (self.turn, self.ended) = self.config.alternation.next(self.turn, takes_turns);
        Ok(self.ended.is_some() && self.config.alternation.measures())
    }

    fn evaluate(&mut self, run: &mut RunState) -> Result<Option<Evaluated<DevScores>>> {
        let dev = &self.data.dev;
        // What a run ends with is the index of its last passages, also without a dev set.
        if dev.is_empty() && run.at.step < run.at.total {
            return Ok(None);
        }
        self.index.bring_up_to_date(&self.sides.retriever.model, run)?;
        if dev.is_empty() {
            return Ok(None);
        }
        let since = Instant::now();
        let models = (&self.sides.retriever.model, &self.sides.generator.model);
        let (scores, samples) = evaluate(self.config, models, &self.index.live, &self.data.corpus, dev)?;
        self.dev.samples = samples;
        self.seconds.evaluation += since.elapsed().as_secs_f64();
        Ok(Some(scores.evaluated(self.config.eval.best)))
    }

    fn evaluated(&mut self, dev: &Evaluated<DevScores>, run: &mut RunState) -> Result<()> {
        let (scores, step) = (dev.scores, run.at.step);
        if step == 0 {
            self.dev.start(scores, &run.dir)?;
            for who in Trainee::BOTH {
                self.sides.judge(who, &scores, step, &run.dir)?;
            }
            return Ok(());
        }
        let ended = self.ended;
        self.dev.take(scores, ended, run)?;
        for who in Trainee::BOTH.into_iter().filter(|who| ended.is_none_or(|e| e == *who)) {
            let learns = self.sides.training(who).takes_turns(step, self.turn);
            if learns && self.sides.judge(who, &scores, step, &run.dir)? {
                self.end(who, run)?;
            }
        }
        self.alarms.look_at_contexts(&scores, self.config, run)
    }

    fn is_over(&self, _run: &RunState) -> bool {
        !Trainee::BOTH.into_iter().any(|who| self.sides.training(who).goes_on())
    }

    fn end_of_step(&mut self, run: &mut RunState) -> Result<()> {
        self.index.refresh_if_due(&self.sides.retriever.model, run)
    }

    fn save_extra(&self, dir: &Path, run: &RunState) -> Result<()> {
        let saved = Saved {
            turn: self.turn,
            sides: self.sides.save(dir, &run.dir)?,
            index: self.index.save(dir, &run.dir)?,
            alarms: self.alarms.clone(),
            dev: self.dev.last,
            eval: self.config.eval.clone(),
        };
        self.kept.save(dir, &self.scored_by())?;
        saved.write(dir)
    }

    fn restore_extra(&mut self, dir: &Path, run: &mut RunState) -> Result<()> {
        let saved = Saved::read(dir)?;
        if saved.eval != self.config.eval {
            tracing::warn!(
                "[eval] differs: from step {} on the index is refreshed for measurements at other steps, or answers are \
                 generated otherwise",
                run.at.step
            );
        }
        self.sides.restore(saved.sides, dir, &run.dir)?;
        self.kept.restore(dir, &self.scored_by())?;
        self.index.restore(saved.index, dir, &run.dir)?;
        (self.turn, self.alarms, self.dev.last) = (saved.turn, saved.alarms, saved.dev);
        Ok(())
    }

    fn best_facts(&self, dev: Option<&Evaluated<DevScores>>) -> Map<String, Value> {
        Map::from_iter([("dev".to_string(), json!(dev.map(|e| e.scores)))])
    }

    /// Both models as the ecosystem reads them, the index, and what makes a pipeline of them.
    fn save_model(&self, dir: &Path, _facts: &Facts<'_, DevScores>) -> Result<()> {
        let c = self.config;
        let model = &self.sides.retriever.model;
        st_dir::save(model, &dir.join(pipeline::RETRIEVER))?;
        self.sides.generator.model.save(&dir.join(pipeline::GENERATOR))?;
        let (prompt, contexts) = (c.generator.prompt.clone(), c.generator.contexts.count);
        let settings = ragduet_generator::TrainedWith { prompt, contexts, length_norm: None };
        settings.save(&dir.join(pipeline::GENERATOR))?;
        self.index.live.save(&dir.join(pipeline::INDEX), &self.data.corpus)?;
        Pipeline {
            corpus: std::path::absolute(c.data.corpus.as_ref().unwrap_or(&c.data.train))?,
            contexts: c.generator.contexts.count,
            prompt: c.generator.prompt.lasting()?,
            decode: c.eval.decode.clone(),
            max_query_tokens: model.settings.max_query_tokens,
            max_passage_tokens: model.settings.max_passage_tokens,
            columns: c.data.columns.clone(),
        }
        .save(dir)
    }

    fn kept_best(&mut self, run: &RunState) -> Result<()> {
        if self.data.dev.is_empty() { Ok(()) } else { self.dev.keep_samples(&run.dir) }
    }

    fn finish(&mut self, run: &mut RunState) -> Result<()> {
        let eval = &self.config.eval;
        self.dev.finish(&self.data.dev, eval.answers_of(eval.samples), &run.dir)
    }
}
