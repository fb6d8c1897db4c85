//! Where numbers go: `metrics.jsonl` and TensorBoard events.
//!
//! No TensorBoard crate is maintained (tensorboard-rs is declared inactive by its author, tfrecord's last release is
//! of 2023), so events are written here: the container is length, checksum, message, checksum (TFRecord), and the
//! messages are four small protobufs, by `prost`.

use crate::{Error, Result};
use fs_err as fs;
use prost::Message;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes the metrics of a run.
#[derive(Debug)]
pub struct MetricSink {
    jsonl: BufWriter<fs::File>,
    events: BufWriter<fs::File>,
}

impl MetricSink {
    /// Opens the sinks of a run. Lines after step `resume_from` belong to a future that was lost with the process
    /// and are cut off.
    pub fn open(dir: &Path, resume_from: Option<u64>) -> Result<Self> {
        let path = dir.join("metrics.jsonl");
        if let (Some(step), true) = (resume_from, path.exists()) {
            cut_after(&path, step)?;
        }
        let jsonl = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        let board = dir.join("tensorboard");
        fs::create_dir_all(&board)?;
        // TensorBoard reads files in the order of their names; two of one second must not be one file.
        let count = fs::read_dir(&board)?.count();
        let name = format!("events.out.tfevents.{}.{count:04}.ragduet", now() as u64);
        let mut sink = Self {
            jsonl: BufWriter::new(jsonl),
            events: BufWriter::new(fs::File::create_new(board.join(name))?),
        };
        let version =
            Event { wall_time: now(), file_version: Some("brain.Event:2".into()), ..Event::default() };
        sink.event(&version)?;
        if let Some(step) = resume_from {
            // TensorBoard drops what earlier files say of later steps.
            let log = SessionLog { status: 1 };
            sink.event(&Event {
                wall_time: now(),
                step: step as i64 + 1,
                session_log: Some(log),
                ..Event::default()
            })?;
        }
        sink.flush()?;
        Ok(sink)
    }

    /// Writes values of one kind (`train`, `dev`, `mining`) at a step. NaN and infinity become null.
    pub fn write(&mut self, kind: &str, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let mut line = Map::new();
        line.insert("step".into(), step.into());
        line.insert("kind".into(), kind.into());
        line.insert("time".into(), json!(now()));
        line.extend(values.iter().map(|(k, v)| (k.to_string(), json!(v))));
        self.line(&Value::Object(line))?;
        let value = values
            .iter()
            .map(|(k, v)| SummaryValue { tag: format!("{kind}/{k}"), simple_value: Some(*v as f32) })
            .collect();
        let summary = Some(Summary { value });
        self.event(&Event { wall_time: now(), step: step as i64, summary, ..Event::default() })?;
        self.flush()
    }

    /// Writes a structured record to `metrics.jsonl` only.
    pub fn record(&mut self, kind: &str, step: u64, value: &impl Serialize) -> Result<()> {
        self.line(&json!({"step": step, "kind": kind, "time": now(), "value": value}))?;
        self.flush()
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        writeln!(self.jsonl, "{value}")?;
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        let bytes = event.encode_to_vec();
        let length = (bytes.len() as u64).to_le_bytes();
        self.events.write_all(&length)?;
        self.events.write_all(&masked_crc(&length).to_le_bytes())?;
        self.events.write_all(&bytes)?;
        self.events.write_all(&masked_crc(&bytes).to_le_bytes())?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.jsonl.flush()?;
        self.events.flush()?;
        Ok(())
    }
}

/// Mean of a loss between two log lines, and the guard against NaN.
#[derive(Debug, Default)]
pub struct LossMeter {
    sum: f64,
    count: u64,
}

impl LossMeter {
    /// Adds a step's loss.
    ///
    /// # Errors
    /// [`Error::NotFinite`] on NaN or infinity.
    pub fn add(&mut self, loss: f64, step: u64, lr: f64) -> Result<()> {
        if !loss.is_finite() {
            return Err(Error::NotFinite { what: "the loss", value: loss, step, lr });
        }
        self.sum += loss;
        self.count += 1;
        Ok(())
    }

    /// The mean so far.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// The mean, and starts anew.
    pub fn take(&mut self) -> f64 {
        let mean = self.mean();
        *self = Self::default();
        mean
    }
}

fn cut_after(path: &PathBuf, step: u64) -> Result<()> {
    let mut kept = Vec::new();
    for line in BufReader::new(fs::File::open(path)?).lines() {
        let line = line?;
        // A line torn by a crash does not parse and goes, too.
        let at = serde_json::from_str::<Value>(&line).ok().and_then(|v| v.get("step")?.as_u64());
        if at.is_some_and(|s| s <= step) {
            kept.extend_from_slice(line.as_bytes());
            kept.push(b'\n');
        }
    }
    Ok(ragduet_torch::weights::write_atomic(path, &kept)?)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// tensorflow/core/util/event.proto, the fields in use.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<SummaryValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SummaryValue {
    #[prost(string, tag = "1")]
    tag: String,
    // Optional, so that 0 is written: proto3 leaves a plain field at its default out.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_events_can_be_read_back_and_resuming_cuts_the_future() {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = MetricSink::open(dir.path(), None).unwrap();
        for step in 1..=4 {
            sink.write("train", step, &[("loss", 1.0 / step as f64), ("lr", f64::NAN)]).unwrap();
        }
        drop(sink);
        let _sink = MetricSink::open(dir.path(), Some(2)).unwrap();
        let text = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["loss"], 0.5);
        assert!(lines[1]["lr"].is_null());

        let mut files: Vec<_> =
            std::fs::read_dir(dir.path().join("tensorboard")).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        let bytes = std::fs::read(&files[0]).unwrap();
        let (mut at, mut events) = (0, Vec::new());
        while at < bytes.len() {
            let n = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let crc = |b: &[u8], c: &[u8]| assert_eq!(masked_crc(b).to_le_bytes(), c);
            crc(&bytes[at..at + 8], &bytes[at + 8..at + 12]);
            let body = &bytes[at + 12..at + 12 + n];
            crc(body, &bytes[at + 12 + n..at + 16 + n]);
            events.push(Event::decode(body).unwrap());
            at += 16 + n;
        }
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        let last = events.iter().rev().find(|e| e.summary.is_some()).unwrap();
        assert_eq!(last.step, 4);
        assert_eq!(last.summary.as_ref().unwrap().value[0].tag, "train/loss");
        // The check value of CRC-32C.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn nan_stops() {
        let mut m = LossMeter::default();
        m.add(2.0, 1, 1e-3).unwrap();
        let e = m.add(f64::NAN, 2, 1e-3).unwrap_err().to_string();
        assert!(e.contains("NaN at step 2") && e.contains("learning rate"), "{e}");
        assert_eq!(m.take(), 2.0);
    }
}
