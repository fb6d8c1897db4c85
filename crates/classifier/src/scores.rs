//! How good a classifier is.

use crate::error::Result;
use crate::labels::{LabelSet, Target, argmax};
use ragduet_metrics::classification::{
    ClassScores, Classification, MultiLabel, Regression, classification, multi_label, regression,
};
use ragduet_train::Goal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The figures of a test set.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scores {
    /// One class of several.
    Classification(Classification),
    /// Any number of classes.
    MultiLabel(MultiLabel),
    /// Numbers.
    Regression(Regression),
}

/// Measure that chooses the best model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Accuracy; with several labels per text, subset accuracy.
    Accuracy,
    /// Macro-averaged F1.
    MacroF1,
    /// Micro-averaged F1.
    MicroF1,
    /// Pearson correlation.
    Pearson,
    /// Spearman correlation.
    Spearman,
    /// Mean squared error.
    Mse,
}

impl Measure {
    /// What is usually chosen by.
    pub fn of(labels: &LabelSet) -> Self {
        match labels.task {
            crate::Task::Classification => Measure::Accuracy,
            crate::Task::MultiLabel => Measure::MicroF1,
            crate::Task::Regression => Measure::Mse,
        }
    }

    /// Which way it gets better.
    pub fn goal(self) -> Goal {
        if self == Measure::Mse { Goal::Min } else { Goal::Max }
    }
}

impl Scores {
    /// Of logits, a row per text.
    ///
    /// # Errors
    /// No texts at all; logits that are no numbers.
    pub fn of(labels: &LabelSet, targets: &[Target], logits: &[Vec<f64>]) -> Result<Self> {
        let flags = |row: &Vec<f64>| row.iter().map(|x| *x >= 0.0).collect();
        Ok(match labels.task {
            crate::Task::Classification => {
                let gold: Vec<usize> = targets
                    .iter()
                    .filter_map(|t| if let Target::Class(c) = t { Some(*c) } else { None })
                    .collect();
                let said: Vec<usize> = logits.iter().map(|row| argmax(row)).collect();
                Scores::Classification(classification(&gold, &said, labels.names.len(), 0.0)?)
            }
            crate::Task::MultiLabel => {
                let gold: Vec<Vec<bool>> = targets
                    .iter()
                    .filter_map(|t| if let Target::Flags(f) = t { Some(f.clone()) } else { None })
                    .collect();
                let said: Vec<Vec<bool>> = logits.iter().map(flags).collect();
                Scores::MultiLabel(multi_label(&gold, &said, 0.0)?)
            }
            crate::Task::Regression => {
                let gold: Vec<f64> = targets
                    .iter()
                    .filter_map(|t| if let Target::Value(v) = t { Some(*v) } else { None })
                    .collect();
                let said: Vec<f64> = logits.iter().map(|row| row[0]).collect();
                Scores::Regression(regression(&gold, &said)?)
            }
        })
    }

    /// One figure; `None` where the task has it not, or the data give none.
    pub fn get(&self, measure: Measure) -> Option<f64> {
        match (self, measure) {
            (Scores::Classification(s), Measure::Accuracy) => Some(s.accuracy),
            (Scores::Classification(s), Measure::MacroF1) => Some(s.macro_average.f1),
            (Scores::Classification(s), Measure::MicroF1) => Some(s.micro_average.f1),
            (Scores::MultiLabel(s), Measure::Accuracy) => Some(s.subset_accuracy),
            (Scores::MultiLabel(s), Measure::MacroF1) => Some(s.macro_average.f1),
            (Scores::MultiLabel(s), Measure::MicroF1) => Some(s.micro_average.f1),
            (Scores::Regression(s), Measure::Pearson) => s.pearson,
            (Scores::Regression(s), Measure::Spearman) => s.spearman,
            (Scores::Regression(s), Measure::Mse) => Some(s.mse),
            _ => None,
        }
    }

    /// The figures that are one number, by name.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let averages =
            |of: &[(&'static str, &ClassScores)]| of.iter().map(|(n, s)| (*n, s.f1)).collect::<Vec<_>>();
        match self {
            Scores::Classification(s) => [("accuracy", s.accuracy)]
                .into_iter()
                .chain(averages(&[("macro_f1", &s.macro_average), ("weighted_f1", &s.weighted_average)]))
                .collect(),
            Scores::MultiLabel(s) => [("subset_accuracy", s.subset_accuracy)]
                .into_iter()
                .chain(averages(&[("micro_f1", &s.micro_average), ("macro_f1", &s.macro_average)]))
                .collect(),
            Scores::Regression(s) => {
                let mut out = vec![("mse", s.mse), ("mae", s.mae)];
                out.extend(s.pearson.map(|p| ("pearson", p)));
                out.extend(s.spearman.map(|p| ("spearman", p)));
                out
            }
        }
    }

    /// Per class, where there are classes.
    pub fn classes(&self) -> &[ClassScores] {
        match self {
            Scores::Classification(s) => &s.classes,
            Scores::MultiLabel(s) => &s.classes,
            Scores::Regression(_) => &[],
        }
    }
}
