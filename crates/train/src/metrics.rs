//! Where numbers go: `metrics.jsonl`, one object per line, and TensorBoard events beside it.

use crate::Result;
use crate::events::EventWriter;
use fs_err as fs;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes the metrics of a run.
#[derive(Debug)]
pub struct MetricSink {
    jsonl: fs::File,
    events: EventWriter,
}

impl MetricSink {
    /// Opens the sinks of a run. `resumed`: the step of the checkpoint, and how long `metrics.jsonl` was then; what was
    /// written behind belongs to a future that was lost with the process and is cut off.
    pub fn open(dir: &Path, resumed: Option<(u64, u64)>) -> Result<Self> {
        let path = dir.join("metrics.jsonl");
        if let (Some((_, bytes)), true) = (resumed, path.exists()) {
            let file = fs::OpenOptions::new().write(true).open(&path)?;
            if file.metadata()?.len() > bytes {
                file.set_len(bytes)?;
            }
        }
        let jsonl = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        let restart = resumed.map(|(step, _)| signed(step).saturating_add(1));
        let events = EventWriter::create(&dir.join("tensorboard"), restart, now())?;
        Ok(Self { jsonl, events })
    }

    /// How long `metrics.jsonl` is; for [`MetricSink::open`].
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.jsonl.metadata()?.len())
    }

    /// Writes values of one kind (`train`, `dev`, `mining`) at a step. NaN and infinity become null in
    /// `metrics.jsonl`, which knows neither.
    pub fn write(&mut self, kind: &str, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let time = now();
        let mut line = self.head(kind, step, time);
        for (name, value) in values {
            debug_assert!(!["step", "kind", "time"].contains(name), "`{name}` is a key of every line");
            line.insert(name.to_string(), json!(value));
        }
        self.line(line)?;
        let tagged = values.iter().map(|(name, v)| (format!("{kind}/{name}"), *v));
        self.events.scalars(signed(step), time, tagged)?;
        self.events.flush()
    }

    /// Writes a structured record, under `value`, to `metrics.jsonl` only.
    pub fn record(&mut self, kind: &str, step: u64, value: &impl Serialize) -> Result<()> {
        let mut line = self.head(kind, step, now());
        line.insert("value".into(), json!(value));
        self.line(line)
    }

    fn head(&self, kind: &str, step: u64, time: f64) -> Map<String, Value> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        line.insert("kind".into(), kind.into());
        line.insert("time".into(), json!(time));
        line
    }

    /// One call for the whole line, so that a killed process tears at most the last one.
    fn line(&mut self, line: Map<String, Value>) -> Result<()> {
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        Ok(self.jsonl.write_all(text.as_bytes())?)
    }
}

/// Keeps the lines up to a step. A line that a crash tore (also in the midst of a character) goes, too.
fn signed(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(dir: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }

    #[test]
    fn lines_hold_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = MetricSink::open(dir.path(), None).unwrap();
        sink.write("train", 1, &[("loss", 0.5), ("lr", f64::NAN), ("x", f64::INFINITY)]).unwrap();
        sink.record("note", 2, &json!({"a": [1]})).unwrap();
        // Readable while the run goes on.
        let lines = lines(dir.path());
        assert_eq!((lines[0]["step"].as_u64(), lines[0]["kind"].as_str()), (Some(1), Some("train")));
        assert_eq!(lines[0]["loss"], 0.5);
        assert!(lines[0]["lr"].is_null() && lines[0]["x"].is_null());
        assert_eq!(lines[1]["value"]["a"][0], 1);
    }

    #[test]
    fn resuming_cuts_the_future_and_torn_lines() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = MetricSink::open(dir.path(), None).unwrap();
        let mut marks = Vec::new();
        for step in 1..=4 {
            sink.write("train", step, &[("loss", 1.0 / step as f64)]).unwrap();
            marks.push((step, sink.bytes().unwrap()));
            // Of the same step, but behind its checkpoint.
            sink.write("mining", step, &[("chosen", 1.0)]).unwrap();
        }
        drop(sink);
        let path = dir.path().join("metrics.jsonl");
        let mut bytes = std::fs::read(&path).unwrap();
        // Torn within a two-byte character: not even UTF-8.
        bytes.extend_from_slice(b"{\"step\":1,\"kind\":\"gr\xc3");
        std::fs::write(&path, &bytes).unwrap();
        let mut sink = MetricSink::open(dir.path(), Some(marks[1])).unwrap();
        sink.write("train", 3, &[("loss", 9.0)]).unwrap();
        let read: Vec<_> = lines(dir.path()).iter().map(|l| (l["step"].clone(), l["loss"].clone())).collect();
        let want =
            [(json!(1), json!(1.0)), (json!(1), Value::Null), (json!(2), json!(0.5)), (json!(3), json!(9.0))];
        assert_eq!(read, want);
        assert_eq!(std::fs::read_dir(dir.path().join("tensorboard")).unwrap().count(), 2);
    }
}
