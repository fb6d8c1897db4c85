//! TensorBoard's event files.
//!
//! No TensorBoard crate is maintained (tensorboard-rs is declared inactive by its author, tfrecord's last release is
//! of 2023), so events are written here: the container is length, checksum, message, checksum (TFRecord), and the
//! messages are four small protobufs, by `prost`'s derive.

use crate::Result;
use fs_err as fs;
use prost::Message;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Appends events to one file.
#[derive(Debug)]
pub(crate) struct EventWriter {
    out: BufWriter<fs::File>,
}

impl EventWriter {
    /// A new file in `dir`. `restart_at`: the first step of a resumed run; TensorBoard then drops what earlier files
    /// say of this step and later ones.
    pub(crate) fn create(dir: &Path, restart_at: Option<i64>, time: f64) -> Result<Self> {
        fs::create_dir_all(dir)?;
        // TensorBoard reads files in the order of their names; two of one second must not be one file.
        let count = fs::read_dir(dir)?.count();
        let name = format!("events.out.tfevents.{}.{count:04}.ragduet", time as u64);
        let mut writer = Self { out: BufWriter::new(fs::File::create_new(dir.join(name))?) };
        let version = Some("brain.Event:2".into());
        writer.put(&Event { wall_time: time, file_version: version, ..Event::default() })?;
        if let Some(step) = restart_at {
            let session_log = Some(SessionLog { status: SESSION_START });
            writer.put(&Event { wall_time: time, step, session_log, ..Event::default() })?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// The values of a step, by tag.
    pub(crate) fn scalars<'a>(
        &mut self,
        step: i64,
        time: f64,
        values: impl Iterator<Item = (String, f64)> + 'a,
    ) -> Result<()> {
        let value = values.map(|(tag, v)| SummaryValue { tag, simple_value: Some(v as f32) }).collect();
        self.put(&Event { wall_time: time, step, summary: Some(Summary { value }), ..Event::default() })
    }

    /// Hands everything to the operating system.
    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    fn put(&mut self, event: &Event) -> Result<()> {
        Ok(self.out.write_all(&record(event))?)
    }
}

/// An event in its container.
fn record(event: &Event) -> Vec<u8> {
    let body = event.encode_to_vec();
    let length = (body.len() as u64).to_le_bytes();
    let parts: [&[u8]; 4] =
        [&length, &masked_crc(&length).to_le_bytes(), &body, &masked_crc(&body).to_le_bytes()];
    parts.concat()
}

/// TFRecord masks its checksums, since a checksum of data that holds checksums is a weak one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

const SESSION_START: i32 = 1;

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
    /// Optional, as it is a member of a `oneof`: a 0 that is not written is no value to TensorBoard.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scalars(step: i64, values: &[(&str, f32)]) -> Event {
        let value =
            values.iter().map(|(t, v)| SummaryValue { tag: t.to_string(), simple_value: Some(*v) }).collect();
        Event { wall_time: 1e9 + 0.25, step, summary: Some(Summary { value }), ..Event::default() }
    }

    /// `tests/golden/events.tfevents`, written by the tensorboard package (`make_events.py` beside it).
    #[test]
    fn byte_for_byte_as_tensorboard_writes_them() {
        let start = SessionLog { status: SESSION_START };
        let events = [
            Event { wall_time: 1e9, file_version: Some("brain.Event:2".into()), ..Event::default() },
            Event { wall_time: 1e9 + 0.125, step: 3, session_log: Some(start), ..Event::default() },
            scalars(0, &[("train/loss", 2.5), ("train/lr", 0.0)]),
            scalars(300, &[("train/loss", f32::NAN), ("dev/ndcg@10", -1e-6)]),
            scalars(1 << 40, &[("größe", f32::INFINITY)]),
        ];
        let ours: Vec<u8> = events.iter().flat_map(record).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/events.tfevents");
        assert_eq!(ours, std::fs::read(path).unwrap());
    }

    #[test]
    fn files_can_be_read_back() {
        let dir = tempfile::tempdir().unwrap();
        for restart in [None, Some(3)] {
            let mut w = EventWriter::create(dir.path(), restart, 7.0).unwrap();
            w.scalars(5, 8.0, [("a".to_string(), 0.0)].into_iter()).unwrap();
            w.flush().unwrap();
        }
        let mut files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), 2, "two files of one second are two files");
        let read: Vec<Vec<Event>> = files.iter().map(|f| parse(&std::fs::read(f).unwrap())).collect();
        assert_eq!(read[0].len(), 2);
        assert_eq!(read[0][0].file_version.as_deref(), Some("brain.Event:2"));
        assert_eq!(read[0][1].summary.as_ref().unwrap().value[0].simple_value, Some(0.0));
        let start = &read[1][1];
        assert_eq!((start.step, start.session_log.as_ref().unwrap().status), (3, SESSION_START));
    }

    fn parse(mut bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        while !bytes.is_empty() {
            let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(masked_crc(&bytes[..8]).to_le_bytes(), bytes[8..12]);
            let body = &bytes[12..12 + n];
            assert_eq!(masked_crc(body).to_le_bytes(), bytes[12 + n..16 + n]);
            events.push(Event::decode(body).unwrap());
            bytes = &bytes[16 + n..];
        }
        events
    }
}
