//! The index of a run: rebuilt when a refresh is due, saved for checkpoints, brought up to date for an evaluation.
//!
//! An evaluation refreshes the index, because it needs a fresh one anyway; training goes on with it. A background
//! refresh begins and takes effect at set steps, from weights that were written to a folder (tensors stay with their
//! thread), so it is as reproducible as a blocking one; a checkpoint links the index and those weights, and a run
//! killed during a refresh goes on as if it had not been.

use super::config::JointConfig;
use super::links;
use crate::corpus::Corpus;
use crate::refresh::{Background, RefreshConfig};
use crate::refreshed_index::RefreshedIndex;
use crate::retrieve::{Asked, Candidates, RetrievalConfig, retrieve};
use crate::{Error, Result};
use ragduet_retriever::BiEncoder;
use ragduet_train::RunState;
use ragduet_train::checkpoint::replace_dir;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Folders of a run, and of its checkpoints: the index, and the weights that a background refresh encodes with.
const INDEX: &str = "index";
const SNAPSHOT: &str = "refresh";

/// The index and when it was made.
#[derive(Debug)]
pub(super) struct IndexRefresh<'a> {
    /// What is searched.
    pub live: RefreshedIndex,
    /// Seconds spent on it.
    pub seconds: f64,
    state: IndexState,
    background: Option<Background>,
    corpus: Arc<Corpus>,
    refresh: &'a RefreshConfig,
    retrieval: &'a RetrievalConfig,
}

/// Steps of the index; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct IndexState {
    /// The step whose weights it was made with.
    of_step: u64,
    /// The last step that changed passage embeddings.
    moved: u64,
    /// The step after which a background refresh began.
    pending: Option<u64>,
    /// Shares of stale passages of the last steps.
    stale: Vec<f64>,
}

impl<'a> IndexRefresh<'a> {
    /// An index without rows, until [`IndexRefresh::build`] or [`IndexRefresh::restore`].
    pub fn new(config: &'a JointConfig, model: &BiEncoder, corpus: Arc<Corpus>) -> Result<Self> {
        let (refresh, retrieval) = (&config.refresh, &config.retrieval);
        let live = RefreshedIndex::empty(model, &retrieval.index)?;
        let state = IndexState::default();
        Ok(Self { live, seconds: 0.0, state, background: None, corpus, refresh, retrieval })
    }

    /// Encodes the corpus with the weights of this step.
    pub fn build(&mut self, model: &BiEncoder, step: u64, dir: &Path) -> Result<()> {
        let c = self.retrieval;
        self.live = RefreshedIndex::build(model, self.corpus.texts(), &c.index, &c.encode(), step)?;
        self.write(dir)
    }

    /// Whether passages have other embeddings than those of the index.
    pub fn is_stale(&self) -> bool {
        self.state.moved > self.live.step
    }

    /// The passages of some questions, and how stale the index was for them.
    pub fn retrieve(&mut self, model: &BiEncoder, asked: Asked<'_>) -> Result<Candidates> {
        let texts = self.corpus.texts();
        let found = retrieve(model, texts, &self.live, asked, self.retrieval, self.is_stale())?;
        self.state.stale.push(1.0 - found.overlap);
        let excess = self.state.stale.len().saturating_sub(10);
        self.state.stale.drain(..excess);
        Ok(found)
    }

    /// Notes that a step changed passage embeddings.
    pub fn passages_moved(&mut self, step: u64) {
        self.state.moved = step;
    }

    /// Refreshes the index where that is due, or takes one that was made in the background.
    pub fn refresh_if_due(&mut self, model: &BiEncoder, run: &mut RunState) -> Result<()> {
        let done = run.at.step;
        if let (Some(started), Some(lag)) = (self.state.pending, self.refresh.background_steps) {
            if done >= started + lag {
                let since = Instant::now();
                if let Some(background) = self.background.take() {
                    self.live = background.finish()?;
                    self.put(since, run)?;
                }
                self.state.pending = None;
            }
            return Ok(());
        }
        if !self.is_stale() || !self.refresh.is_due(done, self.live.step, &self.state.stale)? {
            return Ok(());
        }
        if self.refresh.background_steps.is_none() {
            return self.refresh(model, run);
        }
        let how = (&self.retrieval.index, self.retrieval.encode());
        self.background = Some(Background::start(model, &run.dir.join(SNAPSHOT), &self.corpus, how, done)?);
        self.state.pending = Some(done);
        Ok(())
    }

    /// Refreshes the index with the weights as they are.
    pub fn refresh(&mut self, model: &BiEncoder, run: &mut RunState) -> Result<()> {
        let (since, c) = (Instant::now(), self.retrieval);
        self.live = RefreshedIndex::build(model, self.corpus.texts(), &c.index, &c.encode(), run.at.step)?;
        self.put(since, run)
    }

    /// Refreshes a stale index.
    pub fn bring_up_to_date(&mut self, model: &BiEncoder, run: &mut RunState) -> Result<()> {
        if !self.is_stale() {
            return Ok(());
        }
        // What is made in the background is older than what is made now.
        if let Some(background) = self.background.take() {
            let since = Instant::now();
            background.finish()?;
            self.seconds += since.elapsed().as_secs_f64();
            self.state.pending = None;
        }
        self.refresh(model, run)
    }

    fn put(&mut self, since: Instant, run: &mut RunState) -> Result<()> {
        self.write(&run.dir)?;
        self.state.stale.clear();
        let (seconds, step) = (since.elapsed().as_secs_f64(), self.live.step);
        self.seconds += seconds;
        let passages = self.corpus.len();
        run.log.say(|| {
            tracing::info!(
                "index of {passages} passages refreshed with the weights of step {step} in {seconds:.1} s"
            );
        });
        let values = [("seconds", seconds), ("of_step", step as f64)];
        Ok(run.log.write("refresh", run.at.step, &values)?)
    }

    /// Replaces the folder that checkpoints link to.
    fn write(&mut self, dir: &Path) -> Result<()> {
        self.state.of_step = self.live.step;
        replace_dir::<Error>(&dir.join(INDEX), |d| self.live.save(d, &self.corpus))
    }

    /// Links the index, and the weights of a background refresh, into a checkpoint.
    pub fn save(&self, checkpoint: &Path, dir: &Path) -> Result<IndexState> {
        links::link(&dir.join(INDEX), &checkpoint.join(INDEX))?;
        if self.state.pending.is_some() {
            links::link(&dir.join(SNAPSHOT), &checkpoint.join(SNAPSHOT))?;
        }
        Ok(self.state.clone())
    }

    /// Opens a checkpoint's index, as the run's again.
    pub fn restore(&mut self, state: IndexState, checkpoint: &Path, dir: &Path) -> Result<()> {
        for name in [INDEX, SNAPSHOT] {
            links::replace(&checkpoint.join(name), &dir.join(name))?;
        }
        self.live = RefreshedIndex::open(&dir.join(INDEX), state.of_step)?;
        self.state = state;
        Ok(())
    }

    /// Goes on with a background refresh that a checkpoint was made in.
    pub fn resume_background(&mut self, model: &BiEncoder, dir: &Path) {
        let Some(started) = self.state.pending else { return };
        self.background = Some(Background::resume(
            &dir.join(SNAPSHOT),
            model,
            &self.corpus,
            (&self.retrieval.index, self.retrieval.encode()),
            started,
        ));
    }
}
