//! Dev while training: what a turn gained, which state is the best, whose turns end, and what a run leaves behind.

use super::evaluate::{DevScores, Sample, evaluate};
use super::joint::Run;
use super::sides::{keep, parameters, put_back};
use super::state::best_of;
use super::turns::Who;
use crate::pipeline::{self, Pipeline};
use crate::{Error, Result};
use ragduet_retriever::st_dir;
use ragduet_torch::weights::write_atomic;
use ragduet_train::Progress;
use ragduet_train::checkpoint::replace_dir;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

impl Run<'_> {
    /// Dev with an index that is fresh, which training goes on with.
    pub(super) fn evaluate(&mut self) -> Result<(DevScores, Vec<Sample>)> {
        self.bring_index_up_to_date()?;
        let since = Instant::now();
        let scored =
            evaluate(self.config, &self.retriever, &self.generator, &self.index, &self.corpus, &self.dev)?;
        self.seconds.evaluation += since.elapsed().as_secs_f64();
        Ok(scored)
    }

    /// Measures dev; what a turn that has just ended gained; keeps what is best; ends the turns of a side that no
    /// longer gains.
    pub(super) fn measure(&mut self, ended: Option<Who>, progress: &Progress) -> Result<()> {
        let (scores, samples) = self.evaluate()?;
        let step = self.at.step;
        progress.aside(|| tracing::info!("dev at step {step}: {scores}"));
        self.sink.write("dev", step, &scores.named())?;
        if let (Some(who), Some((_, before))) = (ended, self.at.last) {
            let gains: Vec<(&str, f64)> = scores
                .named()
                .into_iter()
                .zip(before.named())
                .map(|((name, now), (_, then))| (name, now - then))
                .collect();
            self.sink.write(&format!("gain_{who}"), step, &gains)?;
            let said: Vec<String> =
                gains.iter().map(|(n, g)| format!("{} {g:+.4}", n.replace('_', " "))).collect();
            progress.aside(|| tracing::info!("the {who}'s turn gained {}", said.join("  ")));
        }
        self.at.last = Some((step, scores));
        let judged: &[Who] = match ended {
            Some(Who::Retriever) => &[Who::Retriever],
            Some(Who::Generator) => &[Who::Generator],
            None => &[Who::Retriever, Who::Generator],
        };
        for &who in judged {
            if self.learns(who) && self.judge(who, &scores)? {
                self.end(who, progress)?;
            }
        }
        self.look_at_contexts(&scores, progress)?;
        if self.at.best.update(scores.measure(self.config.eval.best), step, 0.0) {
            self.best = Some(scores);
            self.save_best(Some((&scores, &samples)))?;
        }
        Ok(())
    }

    /// Takes a side's measure; keeps its state where it is the best; whether its turns should end.
    pub(super) fn judge(&mut self, who: Who, scores: &DevScores) -> Result<bool> {
        let (stop, value) = match who {
            Who::Retriever => (self.config.retriever.stop, scores.recall.unwrap_or(scores.answer_recall)),
            Who::Generator => (self.config.generator.stop, scores.f1),
        };
        let Some(stop) = stop else { return Ok(false) };
        let step = self.at.step;
        let state = self.at.side(who);
        if state.best.update(value, step, stop.min_gain) {
            keep(&best_of(self.dir.path(), who), &parameters(who, &self.retriever, &self.generator))?;
        }
        Ok(state.best.should_stop(Some(&stop)))
    }

    pub(super) fn end(&mut self, who: Who, progress: &Progress) -> Result<()> {
        let state = *self.at.side(who);
        self.at.side(who).stopped = true;
        put_back(&best_of(self.dir.path(), who), &parameters(who, &self.retriever, &self.generator))?;
        if who == Who::Retriever && self.retriever.moves_passages() {
            self.at.moved = self.at.step;
            // Its passages are others than those of the index, whichever step that was made after.
            self.rebuild()?;
            self.put_index(Instant::now(), progress)?;
        }
        let text = format!(
            "the {who}'s turns no longer help ({} measurements without gain): it stays as it was after step {} ({:.4})",
            state.best.waited,
            state.best.best_step,
            state.best.best.unwrap_or(f64::NAN)
        );
        progress.aside(|| tracing::info!("step {}: {text}", self.at.step));
        Ok(self.sink.record("stopped", self.at.step, &json!({"side": who, "text": text}))?)
    }

    pub(super) fn look_at_contexts(&mut self, scores: &DevScores, progress: &Progress) -> Result<()> {
        let ignoring =
            self.config.generator.contexts.count > 0 && scores.context_gain < self.config.alarm.context_gain;
        if ignoring && !self.at.ignoring {
            let text = format!(
                "the generator ignores its contexts: a token of the right answer is {:+.4} nats likelier with its own \
                 passages than with another question's. Let it learn from passages that hold the answers first \
                 (`train generator`), or begin the retriever's turns later (retriever.start_at)",
                scores.context_gain
            );
            self.alarm("ignored_contexts", text, progress)?;
        }
        self.at.ignoring = ignoring;
        Ok(())
    }

    /// Writes `best/`: both models as the ecosystem reads them, the index, and what makes a pipeline of them.
    pub(super) fn save_best(&self, dev: Option<(&DevScores, &[Sample])>) -> Result<()> {
        let out = self.dir.path();
        let contexts = self.config.generator.contexts.count;
        replace_dir::<Error>(&out.join("best"), |d| {
            st_dir::save(&self.retriever.model, &d.join(pipeline::RETRIEVER), None)?;
            self.generator.model.save(&d.join(pipeline::GENERATOR))?;
            self.index.save(&d.join(pipeline::INDEX), &self.corpus)?;
            let c = self.config;
            let corpus = std::path::absolute(c.data.corpus.as_ref().unwrap_or(&c.data.train))?;
            let s = &self.retriever.model.settings;
            Pipeline {
                corpus,
                contexts,
                prompt: c.generator.prompt.clone(),
                decode: c.eval.decode.clone(),
                max_query_tokens: s.max_query_tokens,
                max_passage_tokens: s.max_passage_tokens,
            }
            .save(d)
        })?;
        let facts = json!({"step": self.at.step, "dev": dev.map(|d| d.0)});
        write_json(&out.join("best.json"), &facts)?;
        match dev {
            Some((_, samples)) => write_json(&out.join(AFTER), &json!({"samples": samples})),
            None => Ok(()),
        }
    }

    /// `samples.jsonl` and `table.json`, which `ragduet report` shows.
    pub(super) fn finish(&mut self) -> Result<()> {
        let out = self.dir.path();
        let read = |name: &str| -> Option<serde_json::Value> {
            serde_json::from_slice(&fs_err::read(out.join(name)).ok()?).ok()
        };
        let (Some(before), Some(after)) = (read(BEFORE), read(AFTER)) else { return Ok(()) };
        let mut lines = String::new();
        for (i, r) in self.dev.iter().take(self.config.eval.samples).enumerate() {
            let line = json!({
                "question": r.question, "answers": r.answers,
                "before": before["samples"][i], "after": after["samples"][i],
            });
            lines += &format!("{line}\n");
        }
        write_atomic(&out.join("samples.jsonl"), lines.as_bytes())?;
        let scores =
            |value: &serde_json::Value| -> Option<DevScores> { serde_json::from_value(value.clone()).ok() };
        self.before = self.before.or_else(|| scores(&before["scores"]));
        self.best = self.best.or_else(|| scores(&read("best.json")?["dev"]));
        let (Some(before), Some(best)) = (self.before, self.best) else { return Ok(()) };
        let columns: Vec<String> = before.named().iter().map(|(n, _)| n.replace('_', " ")).collect();
        let row = |name: &str, s: &DevScores| json!({"name": name, "values": s.named().iter().map(|(_, v)| v).collect::<Vec<_>>()});
        let rows = [row("before (dev)", &before), row("best (dev)", &best)];
        write_json(&out.join("table.json"), &json!({"columns": columns, "rows": rows}))
    }
}

pub(super) const BEFORE: &str = "dev-before.json";
const AFTER: &str = "dev-best.json";

pub(super) fn write_json(path: &Path, value: &serde_json::Value) -> Result<()> {
    Ok(write_atomic(path, format!("{value:#}\n").as_bytes())?)
}
