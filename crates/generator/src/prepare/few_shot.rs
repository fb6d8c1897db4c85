//! Few-shot prompts: worked examples in front of the question, chosen from a file of records.

use crate::error::{Result, bad};
use ragduet_data::{BadRowPolicy, BadRows, Columns, RagRecord, Style, read_rag};
use ragduet_index::{LexicalConfig, LexicalIndex, SearchParams, Stemmer, Stopwords};
use ragduet_nn::fingerprint;
use ragduet_text::{Context, RagPrompt, Shot};
use ragduet_train::epoch_rng;
use rand::seq::SliceRandom;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Few-shot examples (`[prompt.examples]`). Examples written by hand are `prompt.template.shots`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FewShotConfig {
    /// Records with questions, passages and answers. A question is never its own example.
    pub file: PathBuf,
    /// Number of examples per prompt. Examples without room (half of `max_tokens`) are left out, the least similar first.
    #[serde(default = "four")]
    pub count: usize,
    /// Choice of the examples.
    #[serde(default)]
    pub choose: ExampleChoice,
    /// Number of passages per example, gold passages first.
    #[serde(default = "one")]
    pub passages: usize,
    /// Random seed of `choose = "random"`.
    #[serde(default)]
    pub seed: u64,
    /// Columns of the file by role, as `data.columns` for the data.
    #[serde(default, skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
}

impl FewShotConfig {
    /// Four similar examples of a file, with a passage each.
    pub fn new(file: &Path) -> Self {
        Self {
            file: file.into(),
            count: four(),
            choose: ExampleChoice::default(),
            passages: one(),
            seed: 0,
            columns: Columns::default(),
        }
    }

    /// A hash of the file: what is prompted with, whatever its name.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn digest(&self) -> Result<String> {
        Ok(fingerprint::of_corpus(&self.file)?)
    }
}

fn four() -> usize {
    4
}

fn one() -> usize {
    1
}

/// Choice of few-shot examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExampleChoice {
    /// The most similar questions by BM25; the most similar one comes last (Liu et al., 2022, arXiv 2101.06804).
    #[default]
    Similar,
    /// Random examples, the same for all questions.
    Random,
}

impl std::str::FromStr for ExampleChoice {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s {
            "similar" => Ok(ExampleChoice::Similar),
            "random" => Ok(ExampleChoice::Random),
            _ => Err(format!("`{s}`: similar or random")),
        }
    }
}

/// The examples of a file, to choose from.
#[derive(Debug)]
pub(super) struct Pool {
    config: FewShotConfig,
    shots: Vec<Shot>,
    /// Questions in the order of `shots`, as they are compared.
    asked: Vec<String>,
    index: Option<LexicalIndex>,
}

/// What makes two questions one.
fn same(question: &str) -> String {
    question.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// The pool of the last settings: a step of joint training prepares its prompts anew, and the file is read once.
type Last = Option<(FewShotConfig, RagPrompt, Arc<Pool>)>;

impl Pool {
    /// [`Pool::read`], or what it gave for the same settings before.
    ///
    /// # Errors
    /// As [`Pool::read`].
    pub fn of(config: &FewShotConfig, template: &RagPrompt) -> Result<Arc<Self>> {
        static LAST: Mutex<Last> = Mutex::new(None);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., pool)) = last.as_ref().filter(|(c, t, _)| c == config && t == template) {
            return Ok(Arc::clone(pool));
        }
        let pool = Arc::new(Self::read(config, template)?);
        *last = Some((config.clone(), template.clone(), Arc::clone(&pool)));
        Ok(pool)
    }

    /// Reads the file. `template` writes the answers, with citations where it asks for them.
    ///
    /// # Errors
    /// A file that cannot be read; fewer examples than asked for.
    fn read(config: &FewShotConfig, template: &RagPrompt) -> Result<Self> {
        const KEY: &str = "prompt.examples.file";
        if config.count == 0 {
            return Err(bad(
                "prompt.examples.count",
                "must be 1 or more; leave [prompt.examples] out for none",
            ));
        }
        if !template.shots.is_empty() {
            return Err(bad(
                "prompt.examples",
                "prompt.template.shots gives examples already: leave one of them out",
            ));
        }
        let records =
            read_rag(&config.file, &BadRows::new(BadRowPolicy::Fail).with_columns(config.columns.clone()))?
                .collect::<ragduet_data::Result<Vec<_>>>()?;
        let all = records.len();
        let (mut shots, mut asked, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for record in records {
            let question = same(&record.question);
            if let Some(shot) = shot(&record, template, config.passages)
                && seen.insert(question.clone())
            {
                shots.push(shot);
                asked.push(question);
            }
        }
        if shots.len() < config.count {
            let why = format!(
                "{}: {} examples are wanted, and {} of its {all} records are different questions with an answer",
                config.file.display(),
                config.count,
                shots.len()
            );
            return Err(bad(KEY, why));
        }
        tracing::debug!("{} examples to choose from, of {all} records", shots.len());
        let index = match config.choose {
            ExampleChoice::Random => {
                let mut order: Vec<usize> = (0..shots.len()).collect();
                order.shuffle(&mut epoch_rng(config.seed, 0));
                shots = order.iter().map(|&i| shots[i].clone()).collect();
                asked = order.iter().map(|&i| std::mem::take(&mut asked[i])).collect();
                None
            }
            ExampleChoice::Similar => {
                // Of short questions the small words say what is asked: who, when, how many.
                let words = LexicalConfig {
                    stopwords: Stopwords::None,
                    stemmer: Stemmer::Porter,
                    ..LexicalConfig::default()
                };
                let mut index = LexicalIndex::new(&words)?;
                index.add(&asked)?;
                Some(index)
            }
        };
        Ok(Self { config: config.clone(), shots, asked, index })
    }

    /// The examples of a question, the best last.
    pub fn choose(&self, question: &str) -> Result<Vec<Shot>> {
        let (own, count) = (same(question), self.config.count);
        let mut order: Vec<usize> = match &self.index {
            Some(index) => {
                let hits = index.search(&[question], &SearchParams::top(count + 1))?;
                hits[0].iter().map(|hit| hit.id as usize).collect()
            }
            None => Vec::new(),
        };
        // Where too few share a word, the first ones follow.
        let more: Vec<usize> = (0..self.shots.len()).filter(|i| !order.contains(i)).take(count + 1).collect();
        order.extend(more);
        order.retain(|&i| self.asked[i] != own);
        order.truncate(count);
        Ok(order.iter().rev().map(|&i| self.shots[i].clone()).collect())
    }
}

/// A record as an example: none without an answer, or of a form that has none of its own in front.
fn shot(record: &RagRecord, template: &RagPrompt, passages: usize) -> Option<Shot> {
    let answer = record.answers.first().filter(|_| record.style == Style::Question)?;
    let found = record.contexts.iter().map(|f| &f.passage);
    let gold: Vec<String> = record.gold.iter().map(|g| g.id.clone()).collect();
    let others = found.filter(|p| !gold.contains(&p.id));
    let shown = record.gold.iter().chain(others).take(passages);
    let contexts: Vec<Context> = shown.map(|p| Context::new(&p.id, p.title.clone(), &p.text)).collect();
    let answer = template.target(answer, &contexts, &gold);
    Some(Shot { contexts, question: record.question.clone(), answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(choose: ExampleChoice, count: usize) -> (tempfile::TempDir, Result<Pool>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("train.jsonl");
        let rows = [
            ("Who built the lighthouse of Maro?", "Ilsa Brand"),
            ("When did the harbor of Teno open?", "1872"),
            ("Who built the bridge of Teno?", "Olav Reem"),
            ("How long is the river Sall?", "90 km"),
            ("who built  the bridge of Teno?", "the same once more"),
        ];
        let line = |(i, (q, a)): (usize, &(&str, &str))| {
            serde_json::json!({"id": i.to_string(), "question": q, "answers": [a],
                "contexts": [{"id": "x", "text": "Other."}, {"id": "g", "text": format!("{a} it is.")}], "gold": ["g"]})
        };
        let text: Vec<String> = rows.iter().enumerate().map(|r| line(r).to_string()).collect();
        std::fs::write(&file, text.join("\n")).unwrap();
        let config = FewShotConfig { count, choose, seed: 7, ..FewShotConfig::new(&file) };
        let pool = Pool::read(&config, &RagPrompt::default());
        (dir, pool)
    }

    #[test]
    fn the_most_similar_question_comes_last_and_never_the_question_itself() {
        let (_dir, pool) = pool(ExampleChoice::Similar, 2);
        let pool = pool.unwrap();
        let asked = |q: &str| pool.choose(q).unwrap().iter().map(|s| s.question.clone()).collect::<Vec<_>>();
        let bridge = "Who built the bridge of Teno?";
        assert_eq!(asked("Who built the bridge of Maro?").len(), 2);
        assert_eq!(asked("Who built the old bridge of Teno?").last().unwrap(), bridge);
        assert!(!asked("Who built the bridge  of teno?").contains(&bridge.to_string()));
        // Nothing in common: still two.
        assert_eq!(asked("Warum?").len(), 2);
        let shot = pool.choose("Who built the old bridge of Teno?").unwrap().pop().unwrap();
        assert_eq!((shot.answer.as_str(), shot.contexts.len()), ("Olav Reem", 1));
        assert_eq!(shot.contexts[0].text, "Olav Reem it is.", "gold first");
    }

    #[test]
    fn random_examples_are_the_same_for_all_but_the_question_itself() {
        let (_dir, pool) = pool(ExampleChoice::Random, 3);
        let pool = pool.unwrap();
        let names = |q: &str| pool.choose(q).unwrap().iter().map(|s| s.question.clone()).collect::<Vec<_>>();
        assert_eq!(names("one"), names("another"));
        let own = names("one")[0].clone();
        let without = names(&own);
        assert_eq!(without.len(), 3);
        assert!(!without.contains(&own));
    }

    #[test]
    fn too_few_examples_are_an_error_that_counts_them() {
        let (_dir, pool) = pool(ExampleChoice::Similar, 5);
        let e = pool.unwrap_err().to_string();
        assert!(
            e.contains("prompt.examples.file") && e.contains("5 examples") && e.contains("4 of its 5"),
            "{e}"
        );
    }
}
