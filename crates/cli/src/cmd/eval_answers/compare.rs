//! Several systems on the same questions: zero-shot, few-shot, fine-tuned, with a test of each difference.

use crate::cmd::generate::GeneratorArgs;
use crate::common::counter;
use anyhow::Result;
use ragduet_data::RagRecord;
use ragduet_generator::answers::{AnswerOptions, Answered, answer_all};
use ragduet_generator::prepare::PromptConfig;
use ragduet_metrics::significance::{Resampling, randomisation};
use serde::Serialize;

/// A generator with its prompt, and what it answered.
pub(super) struct System {
    name: String,
    /// Exact match and F1 of each question; none where no right answer is known.
    scores: Vec<Option<[f64; 2]>>,
}

impl System {
    /// Of answers that were given.
    pub fn new(args: &GeneratorArgs, prompt: &PromptConfig, answers: &[Answered]) -> Result<Self> {
        let shots = prompt.examples.as_ref().map_or(prompt.template.shots.len(), |e| e.count);
        let how = match shots {
            0 => "zero-shot".to_string(),
            1 => "1 example".into(),
            n => format!("{n} examples"),
        };
        // A question that was left out is answered wrongly by this system.
        let of = |a: &Answered| match (a.exact_match, a.f1) {
            (Some(exact), Some(f1)) if !a.left_out => Some([exact, f1]),
            _ if !a.golds.is_empty() => Some([0.0; 2]),
            _ => None,
        };
        let scores = answers.iter().map(of).collect();
        Ok(Self { name: format!("{}, {how}", args.generator.as_deref().unwrap_or_default()), scores })
    }
}

impl GeneratorArgs {
    /// The system that `--against` names: so many examples, or another generator.
    pub(super) fn instead(&self, other: &str) -> Self {
        match other.parse() {
            Ok(shots) => Self { shots: Some(shots), ..self.clone() },
            Err(_) => Self {
                generator: Some(other.into()),
                prompt: None,
                examples: None,
                shots: None,
                choose: None,
                ..self.clone()
            },
        }
    }
}

/// What a system answers to records.
pub(super) fn answered(args: &GeneratorArgs, records: &[RagRecord], quiet: bool) -> Result<System> {
    let (prompt, contexts) = args.prompt()?;
    let generator = args.load()?;
    let decode = args.decode();
    let options =
        AnswerOptions { prompt: &prompt, contexts, decode: &decode, batch: args.batch, seed: args.seed };
    options.log_first(&generator, records)?;
    let bar = counter("answering", Some(records.len() as u64), quiet);
    let (answers, report) = answer_all(&generator, records, &options, &mut |n| bar.set_position(n as u64))?;
    bar.finish_and_clear();
    let system = System::new(args, &prompt, &answers)?;
    tracing::info!("{}: {report}", system.name);
    Ok(system)
}

/// A row of the table.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    system: String,
    questions: usize,
    exact_match: f64,
    f1: f64,
    /// Of the differences from the first row, in exact match and F1, by the paired randomization test.
    p: Option<[f64; 2]>,
}

/// A row for each system, over the questions whose right answer is known.
pub(super) fn rows(systems: &[System]) -> Result<Vec<Row>> {
    let column = |s: &System, i: usize| s.scores.iter().flatten().map(|v| v[i]).collect::<Vec<f64>>();
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let mut out: Vec<Row> = Vec::with_capacity(systems.len());
    for (i, system) in systems.iter().enumerate() {
        let own = [column(system, 0), column(system, 1)];
        let p = match i {
            0 => None,
            // A test needs two questions at least.
            _ if own[0].len() < 2 => None,
            _ => {
                let p = |m: usize| -> Result<f64> {
                    Ok(randomisation(&own[m], &column(&systems[0], m), &Resampling::default())?.p_value)
                };
                Some([p(0)?, p(1)?])
            }
        };
        out.push(Row {
            system: system.name.clone(),
            questions: own[0].len(),
            exact_match: mean(&own[0]),
            f1: mean(&own[1]),
            p,
        });
    }
    Ok(out)
}

/// The table, if there is anything to compare.
pub(super) fn print(rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let width = rows.iter().map(|r| r.system.chars().count()).max().unwrap_or(0).max(6);
    println!("\n{:<width$}{:>13}{:>10}{:>10}{:>10}", "system", "exact match", "p", "F1", "p");
    for r in rows {
        let [exact, f1] = match r.p {
            Some(p) => p.map(|p| format!("{p:>10.4}")),
            None => [(); 2].map(|()| format!("{:>10}", "-")),
        };
        println!("{:<width$}{:>13.4}{exact}{:>10.4}{f1}", r.system, r.exact_match, r.f1);
    }
    println!(
        "p: paired randomization test of the difference from the first row, {} questions",
        first.questions
    );
}
