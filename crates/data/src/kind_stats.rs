//! What is in data of choices and of labelled texts.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::record::text_key;
use crate::record_stats::line;
use crate::stats::{Distribution, Lengths, Sizes, spread};
use crate::{BadRows, Label, LabelledRecord, ReadReport, Result, read_choices};

/// Questions with choices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChoiceStats {
    /// Records.
    pub records: u64,
    /// Records by task, where the rows name one.
    pub tasks: BTreeMap<String, u64>,
    /// Records with passages.
    pub with_contexts: u64,
    /// Records whose question was there before.
    pub repeated: u64,
    /// Records by the place of the right choice, from 0: where one place is most often right, guessing it scores.
    pub right: BTreeMap<usize, u64>,
    /// Records whose right choice is longer than all others.
    pub right_longest: u64,
    /// Choices per record.
    pub choices_per_record: Distribution,
    /// Lengths of the questions.
    pub question_lengths: Lengths,
    /// Lengths of the choices.
    pub choice_lengths: Lengths,
    /// What reading met.
    pub read: ReadReport,
}

/// Texts, or pairs of texts, most of them with a label.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TextStats {
    /// Texts.
    pub texts: u64,
    /// Of them pairs.
    pub pairs: u64,
    /// Of them without a label.
    pub unlabelled: u64,
    /// Of them with several labels.
    pub with_several_labels: u64,
    /// Texts that were there before.
    pub repeated: u64,
    /// Texts that were there before with another label.
    pub contradictions: u64,
    /// Texts by label. Scores are not classes, and are in `scores`.
    pub labels: BTreeMap<String, u64>,
    /// Scores, where labels are numbers with a fraction: smallest, mean and largest.
    pub scores: Option<[f64; 3]>,
    /// Lengths of the texts, both of a pair together.
    pub lengths: Lengths,
    /// What reading met.
    pub read: ReadReport,
}

/// Describes questions with choices.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn choice_stats(path: impl AsRef<Path>, bad: &BadRows) -> Result<ChoiceStats> {
    let mut stats = ChoiceStats::default();
    let (mut seen, mut questions, mut choices, mut per_record) =
        (HashSet::new(), Sizes::default(), Sizes::default(), Vec::new());
    for record in read_choices(path, bad)? {
        let r = record?;
        stats.records += 1;
        if let Some(task) = &r.task {
            *stats.tasks.entry(task.clone()).or_default() += 1;
        }
        stats.with_contexts += u64::from(!r.record.contexts.is_empty());
        stats.repeated += u64::from(!seen.insert(text_key(&r.record.question)));
        *stats.right.entry(r.answer).or_default() += 1;
        let length = |choice: &String| choice.chars().count();
        let right = r.choices.get(r.answer).map_or(0, length);
        let others = r.choices.iter().enumerate().filter(|(i, _)| *i != r.answer);
        stats.right_longest += u64::from(others.map(|(_, choice)| length(choice)).all(|n| n < right));
        per_record.push(r.choices.len() as u32);
        questions.add(&r.record.question);
        r.choices.iter().for_each(|choice| choices.add(choice));
    }
    stats.choices_per_record = Distribution::of(per_record);
    stats.question_lengths = questions.lengths();
    stats.choice_lengths = choices.lengths();
    stats.read = bad.report();
    Ok(stats)
}

/// Describes labelled texts.
///
/// # Errors
/// The first bad row with file and line, or as `bad` says.
pub fn text_stats(path: impl AsRef<Path>, bad: &BadRows) -> Result<TextStats> {
    let mut stats = TextStats::default();
    let (mut sizes, mut seen) = (Sizes::default(), HashMap::new());
    let (mut numbers, mut scored): (Vec<f64>, bool) = (Vec::new(), false);
    for record in crate::read_labelled(path, false, bad)? {
        let LabelledRecord { text, pair, label, .. } = record?;
        let both =
            [Some(text.as_str()), pair.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("\n");
        // Two texts are not what they are when written as one.
        let key = (text_key(&text), pair.as_deref().map(text_key));
        stats.texts += 1;
        stats.pairs += u64::from(pair.is_some());
        sizes.add(&both);
        let names: Vec<String> = match label {
            None => {
                stats.unlabelled += 1;
                Vec::new()
            }
            Some(Label::Number(n)) => {
                numbers.push(n);
                scored |= n.fract() != 0.0;
                vec![n.to_string()]
            }
            Some(Label::Name(name)) => vec![name],
            Some(Label::Names(names)) => {
                stats.with_several_labels += u64::from(names.len() > 1);
                names
            }
        };
        names.iter().for_each(|name| *stats.labels.entry(name.clone()).or_default() += 1);
        let said: BTreeSet<String> = names.into_iter().collect();
        let said = (!said.is_empty()).then(|| text_key(&said.into_iter().collect::<Vec<_>>().join("\n")));
        match seen.entry(key) {
            Entry::Vacant(new) => {
                new.insert(said);
            }
            Entry::Occupied(mut before) => {
                stats.repeated += 1;
                // Without a label a row says nothing that another could contradict.
                let known = *before.get();
                stats.contradictions += u64::from(said.is_some() && known.is_some() && known != said);
                before.insert(said.or(known));
            }
        }
    }
    if scored {
        let ends = numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &n| (a.min(n), b.max(n)));
        stats.scores = Some([ends.0, numbers.iter().sum::<f64>() / numbers.len() as f64, ends.1]);
        stats.labels.retain(|name, _| name.parse::<f64>().is_err());
    }
    stats.lengths = sizes.lengths();
    stats.read = bad.report();
    Ok(stats)
}

/// Names with their counts, the most frequent ones first.
fn counted(counts: &BTreeMap<String, u64>) -> Vec<(&String, u64)> {
    let mut all: Vec<(&String, u64)> = counts.iter().map(|(name, n)| (name, *n)).collect();
    all.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    all
}

/// Names that are shown.
const MOST: usize = 20;

fn names(f: &mut fmt::Formatter<'_>, what: &str, counts: &BTreeMap<String, u64>) -> fmt::Result {
    if counts.is_empty() {
        return Ok(());
    }
    line(f, what, counts.len())?;
    for (name, n) in counted(counts).into_iter().take(MOST) {
        line(f, &format!("  {}", crate::one_line(name, 30)), n)?;
    }
    match counts.len().checked_sub(MOST) {
        Some(more @ 1..) => line(f, "  others", format!("{more} (--json lists them)")),
        _ => Ok(()),
    }
}

impl fmt::Display for ChoiceStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(f, "records", self.records)?;
        names(f, "tasks", &self.tasks)?;
        line(f, "with passages", self.with_contexts)?;
        line(f, "repeated questions", self.repeated)?;
        for (place, n) in self.right.iter().take(MOST) {
            line(f, &format!("right choice is number {}", place + 1), n)?;
        }
        line(f, "right choice is the longest", self.right_longest)?;
        let per = &self.choices_per_record;
        line(f, "choices per record         mean (max)", format!("{:.2} ({})", per.mean, per.max))?;
        line(f, "question words      p50 / p95 / max", spread(&self.question_lengths.words))?;
        line(f, "choice words        p50 / p95 / max", spread(&self.choice_lengths.words))?;
        writeln!(f, "\n{}", self.read)
    }
}

impl fmt::Display for TextStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in [
            ("texts", self.texts),
            ("  pairs of texts", self.pairs),
            ("without a label", self.unlabelled),
            ("with several labels", self.with_several_labels),
            ("repeated texts", self.repeated),
            ("repeated texts with another label", self.contradictions),
        ] {
            line(f, name, value)?;
        }
        names(f, "labels", &self.labels)?;
        if let Some([least, mean, most]) = self.scores {
            line(f, "scores           min / mean / max", format!("{least} / {mean:.3} / {most}"))?;
        }
        line(f, "text words          p50 / p95 / max", spread(&self.lengths.words))?;
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
    fn choices_are_counted() {
        let f = file(
            "{\"prompt\":\"p\",\"choices\":[\"a\",\"long\"],\"answer\":1,\"task\":\"t\"}\n\
             {\"question\":\"p\",\"contexts\":[\"c\"],\"choices\":[\"a\",\"b\",\"c\"],\"answer\":\"a\"}\n",
        );
        let s = choice_stats(f.path(), &BadRows::default()).unwrap();
        assert_eq!((s.records, s.with_contexts, s.repeated, s.right_longest), (2, 1, 1, 1));
        assert_eq!((s.tasks["t"], s.right[&0], s.right[&1], s.choices_per_record.max), (1, 1, 1, 3));
        assert!(s.to_string().contains("right choice is number 2"), "{s}");
    }

    #[test]
    fn texts_are_counted() {
        let f = file(
            "{\"text\":\"a b\",\"label\":\"x\"}\n{\"text\":\"a b\",\"label\":\"y\"}\n{\"text\":\"c\",\"labels\":[\"x\",\"z\"]}\n\
             {\"sentence1\":\"d\",\"sentence2\":\"e\"}\n",
        );
        let s = text_stats(f.path(), &BadRows::default()).unwrap();
        assert_eq!((s.texts, s.pairs, s.unlabelled, s.with_several_labels), (4, 1, 1, 1));
        assert_eq!((s.repeated, s.contradictions, s.labels["x"], s.labels.len()), (1, 1, 2, 3));
        assert_eq!(s.scores, None);
        let f = file("{\"text\":\"a\",\"score\":1}\n{\"text\":\"b\",\"score\":4.5}\n");
        let s = text_stats(f.path(), &BadRows::default()).unwrap();
        assert_eq!((s.labels.len(), s.scores), (0, Some([1.0, 2.75, 4.5])));
        let f = file("{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":0}\n");
        assert_eq!(text_stats(f.path(), &BadRows::default()).unwrap().labels["1"], 1);
    }

    #[test]
    fn twins_contradict_where_both_have_a_label() {
        let rows = |rows: &[&str]| {
            let f = file(&rows.iter().map(|r| format!("{r}\n")).collect::<String>());
            let s = text_stats(f.path(), &BadRows::default()).unwrap();
            (s.repeated, s.contradictions)
        };
        let (x, y, none) =
            (r#"{"text":"a","label":"x"}"#, r#"{"text":"a","label":"y"}"#, r#"{"text":"a","label":null}"#);
        assert_eq!(rows(&[x, none, x]), (2, 0));
        assert_eq!(rows(&[x, none, y]), (2, 1));
        assert_eq!(
            rows(&[r#"{"text":"a","labels":["x","y"]}"#, r#"{"text":"a","labels":["y","x"]}"#]),
            (1, 0)
        );
        // Other pairs, whatever stands between their texts.
        let pair = |a: &str, b: &str| format!(r#"{{"sentence1":"{a}","sentence2":"{b}","label":1}}"#);
        assert_eq!(rows(&[&pair("a", "b c"), &pair("a b", "c"), &pair("a", "b  c")]), (1, 0));
    }
}
