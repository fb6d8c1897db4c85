//! Choosing answers: every choice of a record is scored behind the same prompt, and the likeliest is the answer (rank
//! classification).

use crate::contexts::ContextConfig;
use crate::error::{Error, Result, catch};
use crate::loss::{best_choice, choice_sums};
use crate::model::Generator;
use crate::prepare::{PrepareReport, Preparer, PromptConfig};
use ragduet_data::ChoiceRecord;
use ragduet_nn::Mode;
use ragduet_text::TrainExample;
use ragduet_torch::{Tensor, no_grad};
use rayon::prelude::*;
use serde::Serialize;

/// A record as sequences: its choices behind one prompt, and which of them is right.
#[derive(Debug, Clone)]
pub struct MultipleChoiceExample {
    /// The record's name.
    pub id: String,
    /// One per choice.
    pub sequences: Vec<TrainExample>,
    /// The right one.
    pub answer: usize,
}

impl MultipleChoiceExample {
    /// Tokens of all sequences, prompts included.
    pub fn len(&self) -> usize {
        self.sequences.iter().map(|s| s.ids.len()).sum()
    }

    /// Whether there is none; never of a record that was read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The sequences of records in an epoch; `None` where one of a record's choices does not fit.
///
/// # Errors
/// Prompts that cannot be made.
pub fn multiple_choice<'r>(
    preparer: &Preparer<'_>,
    records: impl IntoParallelIterator<Item = &'r ChoiceRecord, Iter: IndexedParallelIterator>,
    epoch: u64,
) -> Result<(Vec<Option<MultipleChoiceExample>>, PrepareReport)> {
    let made: Vec<(Option<MultipleChoiceExample>, PrepareReport)> = records
        .into_par_iter()
        .map(|r| {
            let mut report = PrepareReport::default();
            let built = preparer.examples(&r.record, &r.choices, epoch, &mut report)?;
            let id = r.record.id.clone();
            let example = |sequences| MultipleChoiceExample { id, sequences, answer: r.answer };
            Ok((built.ok().map(example), report))
        })
        .collect::<Result<_>>()?;
    let mut report = PrepareReport::default();
    made.iter().for_each(|(_, one)| report.add(one));
    Ok((made.into_iter().map(|m| m.0).collect(), report))
}

/// -log p of the learned tokens of sequences that are packed into one pass, `[tokens]` in f32, and how many each has.
///
/// # Panics
/// As [`Generator::hidden_states`].
pub fn token_nll<'e>(
    generator: &Generator,
    sequences: impl Iterator<Item = &'e TrainExample> + Clone,
    mode: Mode,
) -> (Tensor, Vec<usize>) {
    let (mut rows, mut targets, mut tokens, mut start) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for e in sequences.clone() {
        for i in e.predicted().filter(|&i| e.loss[i]) {
            rows.push((start + i - 1) as i64);
            targets.push(i64::from(e.ids[i]));
        }
        tokens.push(e.targets());
        start += e.ids.len();
    }
    let on = |v: &[i64]| Tensor::from_slice(v).to_device(generator.device);
    let hidden = generator.hidden_states(sequences, mode).index_select(0, &on(&rows));
    let head = generator.model.kind.head(mode);
    let nll = head.nll(&hidden, &on(&targets), generator.compute);
    (nll, tokens)
}

/// Records in passes of at most so many tokens, in their order; one that is longer alone is a pass of its own.
pub fn passes(lengths: &[usize], tokens: usize) -> Vec<std::ops::Range<usize>> {
    let mut out: Vec<std::ops::Range<usize>> = Vec::new();
    let mut held = 0;
    for (i, &n) in lengths.iter().enumerate() {
        match out.last_mut() {
            Some(last) if held + n <= tokens => {
                last.end = i + 1;
                held += n;
            }
            _ => {
                out.push(i..i + 1);
                held = n;
            }
        }
    }
    out
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The record's name.
    pub id: String,
    /// What it is counted under.
    pub task: String,
    /// Log-likelihood of each choice, summed over its tokens.
    pub log_p: Vec<f64>,
    /// Tokens of each choice.
    pub tokens: Vec<usize>,
    /// The right choice.
    pub answer: usize,
    /// The likeliest after division by (a power of) the length.
    pub chosen: usize,
    /// The likeliest as it is.
    pub chosen_by_sum: usize,
}

/// How records are scored.
#[derive(Debug, Clone)]
pub struct ChoiceOptions<'a> {
    /// How prompts are made.
    pub prompt: &'a PromptConfig,
    /// Which passages they show.
    pub contexts: ContextConfig,
    /// The power of the length by which log-likelihoods are divided.
    pub length_norm: f64,
    /// Tokens of a pass.
    pub tokens: usize,
    /// For drawn contexts.
    pub seed: u64,
}

/// Chooses among the choices of records, in their order. Records that do not fit are left out and counted.
///
/// # Errors
/// Prompts that cannot be made; memory.
pub fn choose_all(
    generator: &Generator,
    records: &[ChoiceRecord],
    task: &str,
    options: &ChoiceOptions<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<(Vec<Choice>, PrepareReport)> {
    let _guard = no_grad();
    let preparer =
        Preparer::new(generator, options.prompt, options.contexts.clone(), usize::MAX, options.seed)?;
    let (made, report) = multiple_choice(&preparer, records, 0)?;
    let kept: Vec<(&ChoiceRecord, MultipleChoiceExample)> =
        records.iter().zip(made).filter_map(|(r, m)| Some((r, m?))).collect();
    let lengths: Vec<usize> = kept.iter().map(|(_, s)| s.len()).collect();
    let mut out = Vec::with_capacity(kept.len());
    for pass in passes(&lengths, options.tokens) {
        let batch = &kept[pass];
        let (sums, tokens) = catch("scoring choices", "lower the tokens of a pass", || {
            let sequences = batch.iter().flat_map(|(_, s)| &s.sequences);
            let (nll, tokens) = token_nll(generator, sequences, generator.mode(false));
            Ok((choice_sums(&nll, &tokens)?, tokens))
        })?;
        let mut from = 0;
        for (record, s) in batch {
            let own = from..from + s.sequences.len();
            from = own.end;
            let log_p: Vec<f64> = sums[own.clone()].iter().map(|x| -x).collect();
            let tokens = tokens[own].to_vec();
            out.push(Choice {
                id: record.record.id.clone(),
                task: record.task.clone().unwrap_or_else(|| task.to_string()),
                answer: s.answer,
                chosen: best_choice(&log_p, &tokens, options.length_norm),
                chosen_by_sum: best_choice(&log_p, &tokens, 0.0),
                log_p,
                tokens,
            });
        }
        progress(out.len());
    }
    Ok((out, report))
}

/// Accuracies of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskScores {
    /// Its name.
    pub task: String,
    /// Records.
    pub questions: usize,
    /// Share that was chosen right by length-normalised likelihood.
    pub accuracy: f64,
    /// Share that was chosen right by likelihood as it is.
    pub accuracy_by_sum: f64,
    /// What choosing blindly comes to.
    pub chance: f64,
}

/// Accuracies by task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChoiceScores {
    /// In order of first appearance.
    pub tasks: Vec<TaskScores>,
    /// The mean over tasks.
    pub mean: TaskScores,
}

impl ChoiceScores {
    /// Of what was chosen.
    ///
    /// # Errors
    /// Nothing was.
    pub fn of(choices: &[Choice]) -> Result<Self> {
        if choices.is_empty() {
            return Err(Error::Unusable("no record with choices to score".into()));
        }
        let mut names: Vec<&str> = Vec::new();
        for c in choices {
            if !names.contains(&c.task.as_str()) {
                names.push(&c.task);
            }
        }
        let tasks: Vec<TaskScores> = names
            .into_iter()
            .map(|name| {
                let own: Vec<&Choice> = choices.iter().filter(|c| c.task == name).collect();
                let mean = |f: fn(&Choice) -> f64| own.iter().map(|c| f(c)).sum::<f64>() / own.len() as f64;
                TaskScores {
                    task: name.into(),
                    questions: own.len(),
                    accuracy: mean(|c| f64::from(u8::from(c.chosen == c.answer))),
                    accuracy_by_sum: mean(|c| f64::from(u8::from(c.chosen_by_sum == c.answer))),
                    chance: mean(|c| 1.0 / c.log_p.len() as f64),
                }
            })
            .collect();
        let mean = |f: fn(&TaskScores) -> f64| tasks.iter().map(f).sum::<f64>() / tasks.len() as f64;
        let mean = TaskScores {
            task: "mean".into(),
            questions: choices.len(),
            accuracy: mean(|t| t.accuracy),
            accuracy_by_sum: mean(|t| t.accuracy_by_sum),
            chance: mean(|t| t.chance),
        };
        Ok(Self { tasks, mean })
    }

    /// The tasks, and where there are several their mean.
    pub fn rows(&self) -> impl Iterator<Item = &TaskScores> {
        self.tasks.iter().chain((self.tasks.len() > 1).then_some(&self.mean))
    }

    /// Names and values, for logs.
    pub fn named(&self) -> Vec<(String, f64)> {
        let mut out = vec![
            ("accuracy".to_string(), self.mean.accuracy),
            ("accuracy_by_sum".to_string(), self.mean.accuracy_by_sum),
        ];
        if self.tasks.len() > 1 {
            out.extend(self.tasks.iter().map(|t| (format!("accuracy/{}", t.task), t.accuracy)));
        }
        out
    }
}

/// A table, a line per task.
impl std::fmt::Display for ChoiceScores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.rows().map(|r| r.task.len()).max().unwrap_or(0).max(4);
        write!(f, "{:<width$}{:>10}{:>10}{:>10}{:>10}", "task", "questions", "accuracy", "by sum", "chance")?;
        for r in self.rows() {
            write!(
                f,
                "\n{:<width$}{:>10}{:>10.4}{:>10.4}{:>10.4}",
                r.task, r.questions, r.accuracy, r.accuracy_by_sum, r.chance
            )?;
        }
        Ok(())
    }
}
