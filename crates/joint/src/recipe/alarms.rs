//! Alarms of a run: retrieval that collapses, a generator that ignores its contexts. Each is said once, and again after it
//! was over.

use super::config::JointConfig;
use super::evaluate::DevScores;
use crate::Result;
use crate::corpus::Corpus;
use crate::diagnose::Collapse;
use ragduet_train::RunState;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Answers by which a generator is judged, where not all of dev is answered.
const ENOUGH: usize = 20;

/// What is watched; part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Alarms {
    collapse: Collapse,
    /// Whether it was said that the generator ignores its contexts.
    ignoring: bool,
}

impl Alarms {
    /// Takes the passages found in a step; the share of the recent questions for which the commonest one was found.
    pub fn watch(
        &mut self,
        found: &[Vec<u32>],
        corpus: &Corpus,
        config: &JointConfig,
        run: &mut RunState,
    ) -> Result<Option<f64>> {
        if let Some((row, share)) = self.collapse.see(found, &config.alarm) {
            let text = format!(
                "retrieval collapses: passage `{}` is among those found for {:.0} % of the last questions, whatever \
                 they ask. Lower retriever.optim.lr or raise the objective's temperatures, and go back to a checkpoint \
                 from before",
                corpus.passage(row).id,
                100.0 * share
            );
            say("collapse", text, run.at.step + 1, run)?;
        }
        Ok(self.collapse.commonest().map(|(_, share)| share))
    }

    /// Takes a measurement of dev.
    pub fn look_at_contexts(
        &mut self,
        scores: &DevScores,
        config: &JointConfig,
        run: &mut RunState,
    ) -> Result<()> {
        // Of a few answers it says nothing.
        if (1..ENOUGH).contains(&scores.answered) {
            return Ok(());
        }
        let gain = scores.context_gain;
        let ignoring = config.generator.contexts.count > 0 && gain < config.alarm.context_gain;
        if ignoring && !self.ignoring {
            let text = format!(
                "the generator ignores its contexts: a token of the right answer is {gain:+.4} nats likelier with its own \
                 passages than with another question's. Let it learn from passages that hold the answers first \
                 (`train generator`), or begin the retriever's turns later (retriever.start_at)"
            );
            say("ignored_contexts", text, run.at.step, run)?;
        }
        self.ignoring = ignoring;
        Ok(())
    }
}

fn say(alarm: &str, text: String, step: u64, run: &mut RunState) -> Result<()> {
    run.log.say(|| tracing::warn!("step {step}: {text}"));
    Ok(run.log.record("alarm", step, &json!({"alarm": alarm, "text": text}))?)
}
