//! What a classifier can say, and what records want it to say.

use crate::error::{Error, Result};
use ragduet_data::{Label, LabelledRecord};
use ragduet_nn::Labels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Single-label classification.
    #[default]
    Classification,
    /// Multi-label classification.
    MultiLabel,
    /// Regression to one number.
    Regression,
}

impl Task {
    /// As `config.json` has it under `problem_type`.
    fn problem(self) -> &'static str {
        match self {
            Task::Classification => "single_label_classification",
            Task::MultiLabel => "multi_label_classification",
            Task::Regression => "regression",
        }
    }
}

/// The task and the names of the classes (of a regression, of the number).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelSet {
    /// The kind of answer.
    pub task: Task,
    /// By place in the logits.
    pub names: Vec<String>,
}

/// What a record's text is said to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// The place of the class.
    Class(usize),
    /// A flag per class.
    Flags(Vec<bool>),
    /// The number.
    Value(f64),
}

/// What a classifier says of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// The likeliest class with every class's probability.
    Class {
        /// Its name.
        label: String,
        /// Its probability.
        score: f64,
        /// Of all, in the order of the labels.
        scores: Vec<f64>,
    },
    /// The classes whose probability is a half or more.
    Classes {
        /// Their names.
        labels: Vec<String>,
        /// Of all, in the order of the labels.
        scores: Vec<f64>,
    },
    /// A number.
    Value {
        /// It.
        score: f64,
    },
}

impl LabelSet {
    /// The labels that occur in training data: numbers in their order (0 to the largest), names in the alphabet's.
    ///
    /// # Errors
    /// Labels that do not fit the task, or a single class.
    pub fn of(task: Task, records: &[LabelledRecord]) -> Result<Self> {
        if task == Task::Regression {
            return Ok(Self { task, names: vec!["score".into()] });
        }
        let (mut names, mut most) = (BTreeSet::new(), None::<usize>);
        for (i, r) in records.iter().enumerate() {
            match r.label.as_ref() {
                Some(Label::Name(n)) => drop(names.insert(n.clone())),
                Some(Label::Names(all)) => names.extend(all.iter().cloned()),
                Some(Label::Number(n)) => {
                    let place =
                        whole(*n).ok_or_else(|| misfit(i, r, "a class is a name, or a number from 0"))?;
                    most = most.max(Some(place));
                }
                None => {}
            }
        }
        if let Some(most) = most {
            if !names.is_empty() {
                return Err(Error::Unusable(
                    "some labels are numbers and some are names; make them one kind, or list `labels`".into(),
                ));
            }
            if most >= 10_000 {
                return Err(Error::Unusable(format!(
                    "class {most} of a classification; if labels are scores, set task = \"regression\""
                )));
            }
            return Self { task, names: (0..=most).map(|i| i.to_string()).collect() }.check();
        }
        Self { task, names: names.into_iter().collect() }.check()
    }

    /// Names that were given.
    ///
    /// # Errors
    /// Too few of them, or one twice.
    pub fn given(task: Task, names: Vec<String>) -> Result<Self> {
        Self { task, names }.check()
    }

    fn check(self) -> Result<Self> {
        let distinct: BTreeSet<&String> = self.names.iter().collect();
        let least = match self.task {
            Task::Classification => 2,
            _ => 1,
        };
        if distinct.len() != self.names.len() || distinct.len() < least {
            return Err(Error::Unusable(format!(
                "a {} needs {least} labels or more, each once; these are {:?}",
                self.task.problem().replace('_', " "),
                self.names
            )));
        }
        Ok(self)
    }

    /// From a model's config. One label without a `problem_type` is a regression, as transformers takes it.
    pub fn from_config(names: Vec<String>, problem: Option<&str>) -> Self {
        let task = match problem {
            Some("multi_label_classification") => Task::MultiLabel,
            Some("regression") => Task::Regression,
            _ if names.len() == 1 => Task::Regression,
            _ => Task::Classification,
        };
        Self { task, names }
    }

    /// For a model's config.
    pub fn to_config(&self) -> Labels {
        Labels { names: self.names.clone(), problem: self.task.problem().into() }
    }

    /// What a record asks for. `at`: its place, for errors.
    ///
    /// # Errors
    /// A label that is none of these.
    pub fn target(&self, at: usize, record: &LabelledRecord) -> Result<Target> {
        let wrong = |why: String| misfit(at, record, &why);
        let place = |name: &str| {
            self.names
                .iter()
                .position(|n| n == name)
                .ok_or_else(|| wrong(format!("`{name}` is none of the labels ({})", self.names.join(", "))))
        };
        // A number is a name where the names are numbers, else a place among them.
        let numbered = |n: f64| {
            let whole = whole(n).ok_or_else(|| wrong(format!("{n} is no class")))?;
            match place(&whole.to_string()) {
                Ok(p) => Ok(p),
                Err(_) if whole < self.names.len() => Ok(whole),
                Err(e) => Err(e),
            }
        };
        let label = record.label.as_ref().ok_or_else(|| wrong("it has no label".into()))?;
        match (self.task, label) {
            (Task::Regression, Label::Number(n)) => Ok(Target::Value(*n)),
            (Task::Regression, _) => Err(wrong("a regression's label is a number".into())),
            (Task::Classification, Label::Number(n)) => Ok(Target::Class(numbered(*n)?)),
            (Task::Classification, Label::Name(n)) => Ok(Target::Class(place(n)?)),
            (Task::Classification, Label::Names(_)) => {
                Err(wrong("it has a list of labels; set task = \"multi_label\"".into()))
            }
            (Task::MultiLabel, label) => {
                let places = match label {
                    Label::Names(all) => all.iter().map(|n| place(n)).collect::<Result<_>>()?,
                    Label::Name(n) => vec![place(n)?],
                    Label::Number(n) => vec![numbered(*n)?],
                };
                Ok(Target::Flags((0..self.names.len()).map(|i| places.contains(&i)).collect()))
            }
        }
    }

    /// What logits say.
    pub fn answer(&self, logits: &[f64]) -> Answer {
        match self.task {
            Task::Regression => Answer::Value { score: logits[0] },
            Task::MultiLabel => {
                let scores: Vec<f64> = logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
                let on = self.names.iter().zip(&scores).filter(|(_, p)| **p >= 0.5);
                Answer::Classes { labels: on.map(|(n, _)| n.clone()).collect(), scores }
            }
            Task::Classification => {
                let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let parts: Vec<f64> = logits.iter().map(|x| (x - most).exp()).collect();
                let sum: f64 = parts.iter().sum();
                let scores: Vec<f64> = parts.iter().map(|p| p / sum).collect();
                let best = argmax(logits);
                Answer::Class { label: self.names[best].clone(), score: scores[best], scores }
            }
        }
    }
}

/// The place of the largest, the first of equals.
pub(crate) fn argmax(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, v)| if *v > values[best] { i } else { best })
}

fn whole(n: f64) -> Option<usize> {
    (n >= 0.0 && n.fract() == 0.0 && n < 1e9).then_some(n as usize)
}

fn misfit(at: usize, record: &LabelledRecord, why: &str) -> Error {
    let id = record.id.as_ref().map_or(String::new(), |id| format!(" (id {id})"));
    let start: String = record.text.chars().take(60).collect();
    Error::Unusable(format!("record {}{id}, \"{start}\": {why}", at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(label: Label) -> LabelledRecord {
        LabelledRecord { id: None, text: "some words".into(), pair: None, label: Some(label) }
    }

    fn names(n: &[&str]) -> Vec<String> {
        n.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn labels_are_found() {
        let words = [record(Label::Name("b".into())), record(Label::Name("a".into()))];
        let set = LabelSet::of(Task::Classification, &words).unwrap();
        assert_eq!(set.names, ["a", "b"]);
        assert_eq!(set.target(0, &words[0]).unwrap(), Target::Class(1));
        let numbers = [record(Label::Number(2.0)), record(Label::Number(0.0))];
        let set = LabelSet::of(Task::Classification, &numbers).unwrap();
        assert_eq!(set.names, ["0", "1", "2"]);
        assert_eq!(set.target(0, &numbers[0]).unwrap(), Target::Class(2));
        // A number among names is a place.
        let set = LabelSet::given(Task::Classification, names(&["no", "yes"])).unwrap();
        assert_eq!(set.target(0, &record(Label::Number(1.0))).unwrap(), Target::Class(1));
        let set = LabelSet::given(Task::MultiLabel, names(&["x", "y"])).unwrap();
        let both = record(Label::Names(names(&["y"])));
        assert_eq!(set.target(0, &both).unwrap(), Target::Flags(vec![false, true]));
    }

    #[test]
    fn labels_that_do_not_fit_are_errors() {
        let of = |labels: &[Label]| {
            let records: Vec<_> = labels.iter().cloned().map(record).collect();
            LabelSet::of(Task::Classification, &records).unwrap_err().to_string()
        };
        assert!(of(&[Label::Name("a".into())]).contains("2 labels or more"));
        assert!(of(&[Label::Number(0.5)]).contains("record 1, \"some words\""));
        assert!(of(&[Label::Number(1.0), Label::Name("a".into())]).contains("numbers and some are names"));
        assert!(of(&[Label::Number(1e6)]).contains("regression"));
        let set = LabelSet::given(Task::Classification, names(&["no", "yes"])).unwrap();
        let e = |l| set.target(4, &record(l)).unwrap_err().to_string();
        assert!(e(Label::Name("maybe".into())).contains("record 5") && e(Label::Number(2.0)).contains("`2`"));
        assert!(
            e(Label::Names(vec![])).contains("multi_label") && e(Label::Number(-1.0)).contains("no class")
        );
    }

    #[test]
    fn logits_say() {
        let set = LabelSet::given(Task::Classification, names(&["no", "yes"])).unwrap();
        let Answer::Class { label, score, scores } = set.answer(&[0.0, 3f64.ln()]) else { panic!() };
        assert_eq!(label, "yes");
        assert!((score - 0.75).abs() < 1e-12 && (scores[0] - 0.25).abs() < 1e-12);
        let set = LabelSet::given(Task::MultiLabel, names(&["x", "y"])).unwrap();
        let Answer::Classes { labels, .. } = set.answer(&[-1.0, 1.0]) else { panic!() };
        assert_eq!(labels, ["y"]);
    }
}
