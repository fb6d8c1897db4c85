//! What is in data for generators: records, preferences, completions with a label.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::record::text_key;
use crate::stats::{Distribution, Lengths, Sizes, spread};
use crate::{
    BadRows, Message, Prompt, RagRecord, ReadReport, Result, Style, read_judged, read_preferences, read_rag,
};

/// Records of questions, conversations, instructions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RecordStats {
    /// Records.
    pub records: u64,
    /// Of them questions for the prompt's template.
    pub questions: u64,
    /// Of them conversations and instructions.
    pub conversations: u64,
    /// Of them prompts and texts as they are.
    pub plain: u64,
    /// Records with an answer.
    pub with_answers: u64,
    /// Records with several answers.
    pub with_several_answers: u64,
    /// Records with passages.
    pub with_contexts: u64,
    /// Records with golden passages.
    pub with_gold: u64,
    /// Records of which a golden passage is among the passages.
    pub gold_found: u64,
    /// Records of which an answer is a part of a passage, letters' case aside.
    pub answer_in_contexts: u64,
    /// Records with earlier turns.
    pub with_history: u64,
    /// Records with a system message.
    pub with_system: u64,
    /// Records whose question was there before, with the same earlier turns.
    pub repeated: u64,
    /// Passages per record that has any.
    pub contexts_per_record: Distribution,
    /// Earlier messages per record that has any.
    pub history_per_record: Distribution,
    /// Lengths of the questions.
    pub question_lengths: Lengths,
    /// Lengths of the answers that are learned: the first of each record.
    pub answer_lengths: Lengths,
    /// Lengths of the passages.
    pub context_lengths: Lengths,
    /// What reading met.
    pub read: ReadReport,
}

/// Pairs of a chosen and a rejected answer, or completions with a label.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PreferenceStats {
    /// Pairs, or completions.
    pub rows: u64,
    /// Prompts that are conversations.
    pub conversations: u64,
    /// Rows whose prompt was there before.
    pub repeated_prompts: u64,
    /// Pairs whose chosen answer is the longer one.
    pub chosen_longer: u64,
    /// Completions that are good.
    pub good: u64,
    /// Lengths of the prompts, all turns together.
    pub prompt_lengths: Lengths,
    /// Lengths of the chosen answers, or of the good completions.
    pub chosen_lengths: Lengths,
    /// Lengths of the rejected answers, or of the bad completions.
    pub rejected_lengths: Lengths,
    /// Whether the rows are completions with a label.
    pub labelled: bool,
    /// What reading met.
    pub read: ReadReport,
}

/// Describes records.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn record_stats(path: impl AsRef<Path>, bad: &BadRows) -> Result<RecordStats> {
    let mut stats = RecordStats::default();
    let (mut seen, mut questions, mut answers, mut contexts) =
        (HashSet::new(), Sizes::default(), Sizes::default(), Sizes::default());
    let (mut per_record, mut turns) = (Vec::new(), Vec::new());
    for record in read_rag(path, bad)? {
        let r: RagRecord = record?;
        stats.records += 1;
        match r.style {
            Style::Question => stats.questions += 1,
            Style::Chat => stats.conversations += 1,
            Style::Plain => stats.plain += 1,
        }
        stats.with_answers += u64::from(!r.answers.is_empty());
        stats.with_several_answers += u64::from(r.answers.len() > 1);
        stats.with_gold += u64::from(!r.gold.is_empty());
        let found = r.gold.iter().any(|gold| r.contexts.iter().any(|f| f.passage.id == gold.id));
        stats.gold_found += u64::from(found);
        let texts: Vec<String> = r.contexts.iter().map(|f| f.passage.full_text()).collect();
        let folded: Vec<String> = texts.iter().map(|text| text.to_lowercase()).collect();
        let holds = |answer: &String| {
            let answer = answer.trim().to_lowercase();
            !answer.is_empty() && folded.iter().any(|text| text.contains(&answer))
        };
        stats.answer_in_contexts += u64::from(r.answers.iter().any(holds));
        texts.iter().for_each(|text| contexts.add(text));
        if !texts.is_empty() {
            stats.with_contexts += 1;
            per_record.push(texts.len() as u32);
        }
        let system = r.history.iter().filter(|m| matches!(m.role(), "system" | "developer")).count();
        stats.with_system += u64::from(system > 0);
        if r.history.len() > system {
            stats.with_history += 1;
            turns.push((r.history.len() - system) as u32);
        }
        questions.add(&r.question);
        if let Some(answer) = r.answers.first() {
            answers.add(answer);
        }
        let said: Vec<&str> = r.history.iter().map(Message::content).collect();
        // Texts without a question are told apart by themselves.
        let own =
            if r.question.is_empty() { r.answers.first().cloned().unwrap_or_default() } else { r.question };
        let key = text_key(&format!("{}\n{own}", said.join("\n")));
        stats.repeated += u64::from(!seen.insert(key));
    }
    stats.contexts_per_record = Distribution::of(per_record);
    stats.history_per_record = Distribution::of(turns);
    stats.question_lengths = questions.lengths();
    stats.answer_lengths = answers.lengths();
    stats.context_lengths = contexts.lengths();
    stats.read = bad.report();
    Ok(stats)
}

/// Sums up rows of prompts with answers.
#[derive(Default)]
struct Tally {
    stats: PreferenceStats,
    seen: HashSet<u64>,
    prompts: Sizes,
    chosen: Sizes,
    rejected: Sizes,
}

impl Tally {
    fn prompt(&mut self, prompt: &Prompt) {
        let text = match prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Turns(turns) => {
                self.stats.conversations += 1;
                turns.iter().map(Message::content).collect::<Vec<_>>().join("\n")
            }
        };
        self.stats.rows += 1;
        self.stats.repeated_prompts += u64::from(!self.seen.insert(text_key(&text)));
        self.prompts.add(&text);
    }

    fn stats(self, bad: &BadRows) -> PreferenceStats {
        PreferenceStats {
            prompt_lengths: self.prompts.lengths(),
            chosen_lengths: self.chosen.lengths(),
            rejected_lengths: self.rejected.lengths(),
            read: bad.report(),
            ..self.stats
        }
    }
}

/// Describes pairs of a chosen and a rejected answer.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn preference_stats(path: impl AsRef<Path>, bad: &BadRows) -> Result<PreferenceStats> {
    let mut tally = Tally::default();
    for pair in read_preferences(path, bad)? {
        let pair = pair?;
        tally.prompt(&pair.prompt);
        let (chosen, rejected) = (pair.chosen.content(), pair.rejected.content());
        tally.chosen.add(chosen);
        tally.rejected.add(rejected);
        tally.stats.chosen_longer += u64::from(chosen.chars().count() > rejected.chars().count());
    }
    Ok(tally.stats(bad))
}

/// Describes completions with a label.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn judged_stats(path: impl AsRef<Path>, bad: &BadRows) -> Result<PreferenceStats> {
    let mut tally = Tally::default();
    tally.stats.labelled = true;
    for row in read_judged(path, bad)? {
        let row = row?;
        tally.prompt(&row.prompt);
        tally.stats.good += u64::from(row.good);
        let sizes = if row.good { &mut tally.chosen } else { &mut tally.rejected };
        sizes.add(row.completion.content());
    }
    Ok(tally.stats(bad))
}

/// A line of a table.
pub(crate) fn line(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<40}{value:>22}")
}

impl fmt::Display for RecordStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in [
            ("records", self.records),
            ("  questions", self.questions),
            ("  conversations and instructions", self.conversations),
            ("  prompts and texts as they are", self.plain),
            ("with answers", self.with_answers),
            ("with several answers", self.with_several_answers),
            ("with passages", self.with_contexts),
            ("with an answer in a passage", self.answer_in_contexts),
            ("with gold passages", self.with_gold),
            ("with a gold passage among the passages", self.gold_found),
            ("with earlier turns", self.with_history),
            ("with a system message", self.with_system),
            ("repeated questions", self.repeated),
        ] {
            line(f, name, value)?;
        }
        let per = |d: &Distribution| format!("{:.2} ({})", d.mean, d.max);
        line(f, "passages per record        mean (max)", per(&self.contexts_per_record))?;
        line(f, "earlier turns per record   mean (max)", per(&self.history_per_record))?;
        line(f, "question words      p50 / p95 / max", spread(&self.question_lengths.words))?;
        line(f, "answer words        p50 / p95 / max", spread(&self.answer_lengths.words))?;
        line(f, "passage words       p50 / p95 / max", spread(&self.context_lengths.words))?;
        writeln!(f, "\n{}", self.read)
    }
}

impl fmt::Display for PreferenceStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, chosen, rejected) = match self.labelled {
            true => ("completions with a label", "good", "bad"),
            false => ("pairs", "chosen", "rejected"),
        };
        line(f, what, self.rows)?;
        line(f, "prompts that are conversations", self.conversations)?;
        line(f, "repeated prompts", self.repeated_prompts)?;
        match self.labelled {
            true => line(f, "good completions", self.good)?,
            false => line(f, "chosen answer is the longer one", self.chosen_longer)?,
        }
        line(f, "prompt words        p50 / p95 / max", spread(&self.prompt_lengths.words))?;
        line(f, &format!("{chosen:<20}p50 / p95 / max"), spread(&self.chosen_lengths.words))?;
        line(f, &format!("{rejected:<20}p50 / p95 / max"), spread(&self.rejected_lengths.words))?;
        writeln!(f, "\n{}", self.read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
        fs_err::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn records_are_counted() {
        let f = file(
            "{\"question\":\"who is it\",\"contexts\":[{\"id\":\"a\",\"text\":\"It is The Moon here\"},\"x y\"],\"gold\":[\"a\"],\"answers\":[\"the moon\",\"moon\"]}\n\
             {\"question\":\"who is it\",\"answers\":[]}\n\
             {\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"v\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n\
             {\"text\":\"all of it\"}\n",
        );
        let s = record_stats(f.path(), &BadRows::default()).unwrap();
        assert_eq!((s.records, s.questions, s.conversations, s.plain), (4, 2, 1, 1));
        assert_eq!((s.with_answers, s.with_several_answers, s.with_contexts), (3, 1, 1));
        assert_eq!((s.with_gold, s.gold_found, s.answer_in_contexts, s.repeated), (1, 1, 1, 1));
        assert_eq!((s.with_history, s.with_system), (1, 1));
        assert_eq!((s.contexts_per_record.max, s.history_per_record.max), (2, 2));
        assert_eq!((s.question_lengths.words.max, s.answer_lengths.words.max), (3, 3));
        assert!(s.to_string().contains("4 rows read"), "{s}");
    }

    #[test]
    fn preferences_are_counted() {
        let f = file(
            "{\"prompt\":\"p\",\"chosen\":\"c c\",\"rejected\":\"r\"}\n\
             {\"prompt\":[{\"role\":\"user\",\"content\":\"p\"}],\"chosen\":\"c\",\"rejected\":\"r r\"}\n",
        );
        let s = preference_stats(f.path(), &BadRows::default()).unwrap();
        assert_eq!((s.rows, s.conversations, s.repeated_prompts, s.chosen_longer), (2, 1, 1, 1));
        let f = file(
            "{\"prompt\":\"p\",\"completion\":\"c\",\"label\":true}\n{\"prompt\":\"q\",\"completion\":\"c d\",\"label\":false}\n",
        );
        let s = judged_stats(f.path(), &BadRows::default()).unwrap();
        assert_eq!((s.rows, s.good, s.rejected_lengths.words.max), (2, 1, 2));
        assert!(s.to_string().contains("completions with a label"));
    }
}
