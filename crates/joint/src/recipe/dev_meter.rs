//! Dev while training: what a turn gained, and the tables and samples that a run leaves behind.

use super::alternation::Trainee;
use super::evaluate::{DevScores, Sample};
use crate::Result;
use ragduet_data::RagRecord;
use ragduet_torch::weights::write_atomic;
use ragduet_train::RunState;
use serde_json::{Value, json};
use std::path::Path;

/// Scores and samples before training, and samples of the best models.
const BEFORE: &str = "dev-before.json";
const AFTER: &str = "dev-best.json";

/// What was measured on dev.
#[derive(Debug, Default)]
pub(super) struct DevMeter {
    /// The last scores, and the step they were taken after; part of a checkpoint.
    pub last: Option<(u64, DevScores)>,
    /// Samples of the last measurement.
    pub samples: Vec<Sample>,
    /// Before training, and of the best models; also of a run that was resumed, once it has ended.
    pub before: Option<DevScores>,
    pub best: Option<DevScores>,
}

impl DevMeter {
    /// Takes the scores before training.
    pub fn start(&mut self, scores: DevScores, dir: &Path) -> Result<()> {
        self.last = Some((0, scores));
        write_json(&dir.join(BEFORE), &json!({"scores": scores, "samples": self.samples}))
    }

    /// Takes the scores after a step, which may have ended a turn: then what it gained is said.
    pub fn take(&mut self, scores: DevScores, ended: Option<Trainee>, run: &mut RunState) -> Result<()> {
        let step = run.at.step;
        if let (Some(who), Some((_, before))) = (ended, self.last) {
            let both = scores.named().into_iter().zip(before.named());
            let gains: Vec<(&str, f64)> = both.map(|((name, now), (_, then))| (name, now - then)).collect();
            run.log.write(&format!("gain_{who}"), step, &gains)?;
            let said: Vec<String> =
                gains.iter().map(|(n, g)| format!("{} {g:+.4}", n.replace('_', " "))).collect();
            run.log.say(|| tracing::info!("the {who}'s turn gained {}", said.join("  ")));
        }
        self.last = Some((step, scores));
        Ok(())
    }

    /// Keeps the samples of the best models.
    pub fn keep_samples(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(AFTER), &json!({"samples": self.samples}))
    }

    /// Writes `samples.jsonl` and `table.json`, which `ragduet report` shows, of the first `samples` questions.
    pub fn finish(&mut self, dev: &[RagRecord], samples: usize, dir: &Path) -> Result<()> {
        let (Some(after), Some(best)) = (read_json(&dir.join(AFTER)), read_json(&dir.join("best.json")))
        else {
            return Ok(());
        };
        // Where dev was not measured before training there is nothing to compare with.
        let before = read_json(&dir.join(BEFORE)).unwrap_or_default();
        let mut lines = String::new();
        for (i, r) in dev.iter().take(samples).enumerate() {
            let line = json!({
                "question": r.question, "answers": r.answers,
                "before": before["samples"][i], "after": after["samples"][i],
            });
            lines += &format!("{line}\n");
        }
        write_atomic(&dir.join("samples.jsonl"), lines.as_bytes())?;
        let scores = |value: &Value| -> Option<DevScores> { serde_json::from_value(value.clone()).ok() };
        (self.before, self.best) = (scores(&before["scores"]), scores(&best["dev"]));
        let Some(best) = self.best else { return Ok(()) };
        let columns: Vec<String> = best.named().iter().map(|(n, _)| n.replace('_', " ")).collect();
        let row = |name: &str, s: DevScores| json!({"name": name, "values": s.named().iter().map(|(_, v)| v).collect::<Vec<_>>()});
        let before = self.before.map(|s| row("before (dev)", s));
        let rows: Vec<Value> = before.into_iter().chain([row("best (dev)", best)]).collect();
        write_json(&dir.join("table.json"), &json!({"columns": columns, "rows": rows}))
    }
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    Ok(write_atomic(path, format!("{value:#}\n").as_bytes())?)
}

fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs_err::read(path).ok()?).ok()
}
