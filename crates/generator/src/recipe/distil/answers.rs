//! Learning from a teacher's answers: each record is answered once, and kept on disk.
//!
//! Records are answered some hundred at a time, in their order. What a group was answered is a file of records in the
//! store, named by a hash of the teacher, the records and how they are put to it: a run that was killed asks again for
//! the group it was at, and no other; another student of the same teacher asks for nothing.

use super::teacher::Teacher;
use crate::answers::{AnswerOptions, answer_all};
use crate::contexts::ContextConfig;
use crate::error::{Error, Result};
use crate::model::Generator;
use crate::recipe::config::{DistilConfig, SequenceConfig};
use ragduet_data::{BadRowPolicy, BadRows, RagRecord, Style, rag_line, read_rag};
use ragduet_metrics::answer::{exact_match, token_f1};
use ragduet_torch::weights::write_atomic;
use ragduet_train::Progress;
use serde::Serialize;
use std::path::Path;

/// Batches of answers that are kept together.
const GROUP: usize = 8;

/// What a teacher's answers are beside those of the data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TeacherScores {
    /// Records that it answered.
    pub answered: usize,
    /// Records that it gave an empty answer; nobody learns from these.
    pub empty: usize,
    /// Mean exact match with the data's answers, of the records that have one; none where no record has.
    pub exact_match: Option<f64>,
    /// Mean token F1 with them.
    pub f1: Option<f64>,
}

impl std::fmt::Display for TeacherScores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.exact_match, self.f1) {
            (Some(exact), Some(f1)) => write!(f, "exact match {exact:.4}, f1 {f1:.4}")?,
            _ => write!(f, "no answers in the data to compare with")?,
        }
        write!(f, " ({} records, {} answered with nothing)", self.answered, self.empty)
    }
}

/// Puts the teacher's answers in the place of the records' own.
///
/// # Errors
/// A teacher that does not load or answer; files.
pub(super) fn answer(
    records: &mut [RagRecord],
    teacher: &Teacher<'_>,
    config: &DistilConfig,
    sequence: &SequenceConfig,
    quiet: bool,
) -> Result<TeacherScores> {
    let options = AnswerOptions {
        prompt: sequence.prompt.as_ref().unwrap_or(&config.prompt),
        // What the student sees at first, with all that helps.
        contexts: ContextConfig { golden_drop_rate: 0.0, distractor_rate: 1.0, ..config.contexts.clone() },
        decode: &sequence.decode,
        batch: sequence.batch_size,
        seed: config.run.seed,
    };
    let mut asked = teacher.fingerprint()?;
    asked.update(format!("{options:?} {:?}", options.prompt.examples_digest()?).as_bytes());
    let mut loaded: Option<Generator> = None;
    let mut progress = Progress::new(records.len() as u64, 0, quiet);
    let mut scores = TeacherScores { answered: 0, empty: 0, exact_match: None, f1: None };
    let (mut measured, mut right, mut near) = (0usize, 0.0, 0.0);
    for group in records.chunks_mut(GROUP * sequence.batch_size) {
        let mut key = asked.clone();
        for record in &*group {
            key.update(rag_line(record).as_bytes());
            key.update(b"\n");
        }
        let path = teacher.store.join(format!("answers-{:032x}.rag.jsonl", key.digest128()));
        if !path.is_file() {
            if loaded.is_none() {
                loaded = Some(teacher.load()?);
            }
            if let Some(g) = &loaded {
                keep(&path, group, g, &options)?;
            }
        }
        let said = kept(&path, group.len())?;
        for (record, text) in group.iter_mut().zip(said) {
            if !record.answers.is_empty() {
                measured += 1;
                right += exact_match(&text, &record.answers);
                near += token_f1(&text, &record.answers);
            }
            scores.answered += 1;
            scores.empty += usize::from(text.is_empty());
            // The teacher's words take the place of the data's call or thought.
            record.reply = None;
            record.answers = match text.is_empty() {
                true => Vec::new(),
                false => vec![placed(record, text)],
            };
        }
        progress.step(scores.answered as u64, || "records answered by the teacher".into());
    }
    progress.finish();
    if measured > 0 {
        scores.exact_match = Some(right / measured as f64);
        scores.f1 = Some(near / measured as f64);
    }
    Ok(scores)
}

/// Answers a group and writes what was said.
fn keep(path: &Path, group: &[RagRecord], teacher: &Generator, options: &AnswerOptions<'_>) -> Result<()> {
    let (answered, _) = answer_all(teacher, group, options, &mut |_| ())?;
    let lines = answered.into_iter().map(|a| {
        let answers = if a.answer.is_empty() { Vec::new() } else { vec![a.answer] };
        let record = RagRecord { id: a.id, question: a.question, answers, ..RagRecord::default() };
        rag_line(&record) + "\n"
    });
    Ok(write_atomic(path, lines.collect::<String>().as_bytes())?)
}

/// What a group of so many was answered.
fn kept(path: &Path, records: usize) -> Result<Vec<String>> {
    let all = read_rag(path, &BadRows::new(BadRowPolicy::Fail))?;
    let all = all.collect::<std::result::Result<Vec<_>, _>>()?;
    if all.len() != records {
        let why = format!("{} holds {} answers of {records}: delete it", path.display(), all.len());
        return Err(Error::Unusable(why));
    }
    Ok(all.into_iter().map(|r| r.answers.into_iter().next().unwrap_or_default()).collect())
}

/// An answer in the form of the record: a completion of plain text starts as the one that it replaces.
fn placed(record: &RagRecord, text: String) -> String {
    match (record.style, record.answers.first()) {
        (Style::Plain, Some(old)) => old[..old.len() - old.trim_start().len()].to_string() + &text,
        _ => text,
    }
}
