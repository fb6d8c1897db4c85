//! Corpus substitution (Longpre et al., 2021, arXiv 2109.05052): in the passages of a training record, its answer is
//! exchanged for another record's of the same form, and that one is learned.
//!
//! What a passage says is then the only way to be right: a small training set cannot be learned by heart, and a large
//! model cannot answer from what it knew before.
//!
//! It is what lets a model of a million weights learn to read the shipped corpus in minutes: with the answers as they
//! are, it memorizes all 4,196 of them instead.

use ragduet_data::{Passage, RagRecord};
use std::borrow::Cow;
use std::collections::HashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Answers of a training set, by form.
#[derive(Debug)]
pub struct Substitutes {
    by_form: HashMap<Form, Vec<String>>,
}

/// What makes one answer stand where another stood.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Form {
    /// A figure, with what follows it ("metres").
    Number(String),
    /// A name, by how many words it has (4: more).
    Name(usize),
    /// Anything else, by how many words it has.
    Phrase(usize),
}

impl Form {
    fn of(answer: &str) -> Self {
        let words = answer.split_whitespace().count().min(4);
        match answer.chars().next() {
            Some(c) if c.is_numeric() => {
                Form::Number(answer.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
            }
            Some(c) if c.is_uppercase() => Form::Name(words),
            _ => Form::Phrase(words),
        }
    }
}

impl Substitutes {
    /// From the first answers of the records.
    pub fn of(records: &[RagRecord]) -> Self {
        let mut by_form: HashMap<Form, Vec<String>> = HashMap::new();
        for answer in records.iter().filter_map(|r| r.answers.first()) {
            by_form.entry(Form::of(answer)).or_default().push(answer.clone());
        }
        for list in by_form.values_mut() {
            list.sort_unstable();
            list.dedup();
        }
        Self { by_form }
    }

    /// The record with another answer, in `rate` of the cases (a function of seed, epoch and id). It stays as it is
    /// where the answer has no other of its form, is part of the question, or stands in no golden passage.
    pub fn apply<'a>(&self, record: &'a RagRecord, rate: f64, seed: u64, epoch: u64) -> Cow<'a, RagRecord> {
        let key = xxh3_64_with_seed(record.id.as_bytes(), seed ^ epoch.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The upper bits decide whether, the lower ones which.
        if rate <= 0.0 || (key >> 40) as f64 / (1u64 << 24) as f64 >= rate {
            return Cow::Borrowed(record);
        }
        self.exchange(record, key & 0xff_ffff_ffff).map_or(Cow::Borrowed(record), Cow::Owned)
    }

    fn exchange(&self, record: &RagRecord, key: u64) -> Option<RagRecord> {
        let old = record.answers.first()?;
        let others = self.by_form.get(&Form::of(old))?;
        let start = (key % others.len().max(1) as u64) as usize;
        let next = || others.get((start + 1) % others.len());
        let new = others.get(start).filter(|o| *o != old).or_else(next)?;
        if new == old || occurs(&record.question, old) || occurs(&record.question, new) {
            return None;
        }
        let mut out = record.clone();
        let rewrite = |p: &mut Passage| {
            let text = replace(&p.text, old, new);
            let here = text != p.text;
            p.text = text;
            if let Some(title) = &mut p.title {
                *title = replace(title, old, new);
            }
            here
        };
        let mut changed = false;
        for passage in &mut out.gold {
            changed |= rewrite(passage);
        }
        for found in &mut out.contexts {
            let gold = record.gold.iter().any(|g| g.id == found.passage.id);
            changed |= rewrite(&mut found.passage) && gold;
        }
        out.answers = vec![new.clone()];
        changed.then_some(out)
    }
}

fn occurs(text: &str, words: &str) -> bool {
    replace(text, words, "\0") != text
}

/// Replaces whole words; at the start of a sentence, too.
fn replace(text: &str, old: &str, new: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    while let Some((at, found)) = find(rest, old) {
        let (before, after) = (&rest[..at], &rest[at + found.len()..]);
        let alone = !inside(before.chars().next_back().or_else(|| out.chars().next_back()))
            && !inside(after.chars().next());
        out.push_str(before);
        match (alone, found == old) {
            (false, _) => out.push_str(found),
            (true, true) => out.push_str(new),
            (true, false) => out.push_str(&capitalised(new)),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The next occurrence, as it is or with its first letter in upper case.
fn find<'a>(text: &'a str, words: &str) -> Option<(usize, &'a str)> {
    if words.is_empty() {
        return None;
    }
    let upper = capitalised(words);
    let hits = [words, &upper].map(|w| text.find(w).map(|at| (at, w.len())));
    let (at, n) = hits.into_iter().flatten().min()?;
    Some((at, &text[at..at + n]))
}

fn capitalised(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or(String::new(), |c| c.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_data::Found;

    fn record(id: &str, question: &str, answer: &str, text: &str) -> RagRecord {
        let passage = Passage { id: format!("p{id}"), title: None, text: text.into() };
        RagRecord {
            id: id.into(),
            question: question.into(),
            answers: vec![answer.into(), format!("alias of {answer}")],
            contexts: vec![Found { passage: passage.clone(), score: None }],
            gold: vec![passage],
            ..RagRecord::default()
        }
    }

    #[test]
    fn whole_answers_are_exchanged_for_their_like() {
        let records = vec![
            record("1", "How tall is it?", "12 metres", "It is 12 metres tall, not 112 metres."),
            record("2", "How wide?", "7 metres", "7 metres wide."),
            record("3", "What is it of?", "black pine", "Black pine, tarred. The black pine smells."),
            record("4", "And this?", "grey slate", "Roofed with grey slate."),
            record("5", "Who lives in Ober?", "Ober", "Ober is empty."),
            record("6", "Who?", "Vesan Lorrell", "It was Vesan Lorrell."),
        ];
        let s = Substitutes::of(&records);
        let one = s.apply(&records[0], 1.0, 1, 0);
        assert_eq!(one.answers, ["7 metres"]);
        assert_eq!(one.gold[0].text, "It is 7 metres tall, not 112 metres.");
        assert_eq!(one.contexts[0].passage.text, one.gold[0].text);
        let three = s.apply(&records[2], 1.0, 1, 0);
        assert_eq!(three.gold[0].text, "Grey slate, tarred. The grey slate smells.");
        // Part of the question, or without its like.
        for i in [4, 5] {
            assert_eq!(*s.apply(&records[i], 1.0, 1, 0), records[i]);
        }
    }

    #[test]
    fn the_rate_is_kept_and_the_choice_repeats() {
        let records: Vec<RagRecord> = (0..2000)
            .map(|i| record(&i.to_string(), "How tall?", &format!("{i} metres"), &format!("{i} metres.")))
            .collect();
        let s = Substitutes::of(&records);
        let changed = |epoch| -> Vec<bool> {
            records.iter().map(|r| s.apply(r, 0.25, 7, epoch).answers != r.answers).collect()
        };
        let share = changed(0).iter().filter(|c| **c).count();
        assert!((400..600).contains(&share), "{share}");
        assert_eq!(changed(3), changed(3));
        assert_ne!(changed(3), changed(4));
    }
}
