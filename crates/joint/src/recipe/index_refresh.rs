//! The index of a run: made anew when it is due, put in place, brought up to date for an evaluation.

use super::joint::Run;
use super::state::{INDEX, SNAPSHOT};
use crate::corpus::Corpus;
use crate::live_index::LiveIndex;
use crate::refresh::Background;
use crate::{Error, Result};
use ragduet_train::Progress;
use ragduet_train::checkpoint::replace_dir;
use std::path::Path;
use std::time::Instant;

impl Run<'_> {
    /// Makes the index anew where that is due, or puts in place one that was made beside the training.
    pub(super) fn refresh_if_due(&mut self, progress: &Progress) -> Result<()> {
        let c = &self.config.refresh;
        let done = self.at.step;
        if let (Some(started), Some(lag)) = (self.at.pending, c.background_steps) {
            if done >= started + lag {
                let since = Instant::now();
                if let Some(background) = self.background.take() {
                    self.index = background.finish()?;
                    self.put_index(since, progress)?;
                }
                self.at.pending = None;
            }
            return Ok(());
        }
        let moved = self.at.moved > self.index.step;
        if !moved || !c.is_due(done, self.index.step, &self.at.stale)? {
            return Ok(());
        }
        if c.background_steps.is_some() {
            let snapshot = self.dir.path().join(SNAPSHOT);
            let how = (&self.config.retrieval.index, self.config.retrieval.encode());
            self.background =
                Some(Background::start(&self.retriever.model, &snapshot, &self.corpus, how, done)?);
            self.at.pending = Some(done);
            return Ok(());
        }
        let since = Instant::now();
        self.rebuild()?;
        self.put_index(since, progress)
    }

    pub(super) fn rebuild(&mut self) -> Result<()> {
        let (m, c) = (&self.retriever.model, &self.config.retrieval);
        self.index = LiveIndex::build(m, self.corpus.texts(), &c.index, &c.encode(), self.at.step)?;
        Ok(())
    }

    pub(super) fn put_index(&mut self, since: Instant, progress: &Progress) -> Result<()> {
        write_index(&self.index, self.dir.path(), &self.corpus)?;
        self.at.index = self.index.step;
        self.at.stale.clear();
        let seconds = since.elapsed().as_secs_f64();
        self.seconds.refresh += seconds;
        progress.aside(|| {
            tracing::info!(
                "index of {} passages refreshed with the weights of step {} in {seconds:.1} s",
                self.corpus.len(),
                self.index.step
            );
        });
        Ok(self.sink.write(
            "refresh",
            self.at.step,
            &[("seconds", seconds), ("of_step", self.index.step as f64)],
        )?)
    }

    pub(super) fn bring_index_up_to_date(&mut self) -> Result<()> {
        if self.at.moved > self.index.step {
            let since = Instant::now();
            // What is made beside the training is older than what is made now.
            if let Some(background) = self.background.take() {
                background.finish()?;
                self.at.pending = None;
            }
            self.rebuild()?;
            self.put_index(since, &Progress::new(0, 0, true))?;
        }
        Ok(())
    }
}

/// The index that a checkpoint links to; files are replaced, never written to.
pub(super) fn write_index(index: &LiveIndex, run: &Path, corpus: &Corpus) -> Result<()> {
    let dir = run.join(INDEX);
    replace_dir::<Error>(&dir, |d| index.save(d, corpus))
}
