//! Answering a set of records and measuring the answers.

use crate::contexts::ContextConfig;
use crate::decode::{DecodeConfig, Request};
use crate::error::Result;
use crate::model::Generator;
use crate::prepare::{PrepareReport, Preparer, PromptConfig};
use ragduet_data::RagRecord;
use ragduet_metrics::answer::{exact_match, token_f1};
use ragduet_text::Context;
use serde::Serialize;

/// One answer, with what it was given.
#[derive(Debug, Clone, Serialize)]
pub struct Answered {
    /// The question's name.
    pub id: String,
    /// The question.
    pub question: String,
    /// What was generated.
    pub answer: String,
    /// Right answers.
    pub golds: Vec<String>,
    /// Names of the passages shown, in order.
    pub shown: Vec<String>,
    /// The passages as they were shown.
    #[serde(skip)]
    pub contexts: Vec<Context>,
    /// Names of the passages known to hold the answer.
    #[serde(skip)]
    pub gold_ids: Vec<String>,
    /// Whether a golden passage was among them; absent where none is known.
    pub gold_shown: Option<bool>,
    /// 1 where the answer is right after SQuAD's normalisation, else 0.
    pub exact_match: f64,
    /// Overlap of tokens with the best right answer.
    pub f1: f64,
    /// 1 where a passage shown holds a right answer, else 0.
    pub answer_in_contexts: f64,
}

/// Means over a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct AnswerScores {
    /// Questions.
    pub questions: usize,
    /// Mean exact match.
    pub exact_match: f64,
    /// Mean token F1.
    pub f1: f64,
    /// Share of prompts whose passages hold a right answer.
    pub answer_in_contexts: f64,
}

impl AnswerScores {
    /// Of answers.
    pub fn of(answers: &[Answered]) -> Self {
        let n = answers.len().max(1) as f64;
        let mean = |f: fn(&Answered) -> f64| answers.iter().map(f).sum::<f64>() / n;
        Self {
            questions: answers.len(),
            exact_match: mean(|a| a.exact_match),
            f1: mean(|a| a.f1),
            answer_in_contexts: mean(|a| a.answer_in_contexts),
        }
    }

    /// Names and values, for logs and tables.
    pub fn named(&self) -> [(&'static str, f64); 3] {
        [("exact_match", self.exact_match), ("f1", self.f1), ("answer_in_contexts", self.answer_in_contexts)]
    }
}

/// How a set is answered.
#[derive(Debug, Clone)]
pub struct AnswerOptions<'a> {
    /// How prompts are made.
    pub prompt: &'a PromptConfig,
    /// Which passages they show.
    pub contexts: ContextConfig,
    /// How answers are generated.
    pub decode: &'a DecodeConfig,
    /// Answers at a time.
    pub batch: usize,
    /// For drawn contexts and samples.
    pub seed: u64,
}

/// Answers records, in their order, and measures each answer.
///
/// # Errors
/// Prompts that cannot be made, and those of decoding.
pub fn answer_all(
    generator: &Generator,
    records: &[RagRecord],
    options: &AnswerOptions<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<(Vec<Answered>, PrepareReport)> {
    let preparer =
        Preparer::new(generator, options.prompt, options.contexts.clone(), usize::MAX, options.seed)?;
    let reserve =
        options.decode.resolve(generator.model.generation.file.as_ref(), &generator.eos())?.max_new_tokens;
    let mut report = PrepareReport::default();
    let prompts =
        records.iter().map(|r| preparer.prompt(r, reserve, &mut report)).collect::<Result<Vec<_>>>()?;
    let requests: Vec<Request> = prompts
        .iter()
        .zip(records)
        .map(|(p, r)| Request {
            prompt: p.ids.clone(),
            parts: p.parts.clone(),
            // By name, so that an answer does not depend on what else is asked.
            seed: xxhash_rust::xxh3::xxh3_64_with_seed(r.id.as_bytes(), options.seed),
        })
        .collect();
    let generated = generator.answer(&requests, options.decode, options.batch, progress)?;
    let mut out = Vec::with_capacity(records.len());
    for ((record, prompt), sequences) in records.iter().zip(&prompts).zip(&generated) {
        let answer = match sequences.first() {
            Some(best) => generator.text(best, &options.decode.stop_strings)?,
            None => String::new(),
        };
        out.push(measured(record, &prompt.contexts, answer));
    }
    Ok((out, report))
}

/// An answer with its measures.
pub fn measured(record: &RagRecord, shown: &[Context], answer: String) -> Answered {
    let holds = |gold: &String| {
        let gold = ragduet_metrics::answer::normalise(gold);
        !gold.is_empty()
            && shown.iter().any(|c| {
                format!(" {} ", ragduet_metrics::answer::normalise(&c.text)).contains(&format!(" {gold} "))
            })
    };
    Answered {
        id: record.id.clone(),
        question: record.question.clone(),
        exact_match: exact_match(&answer, &record.answers),
        f1: token_f1(&answer, &record.answers),
        answer_in_contexts: f64::from(u8::from(record.answers.iter().any(holds))),
        gold_shown: (!record.gold.is_empty())
            .then(|| record.gold.iter().any(|g| shown.iter().any(|c| c.id == g.id))),
        shown: shown.iter().map(|c| c.id.clone()).collect(),
        contexts: shown.to_vec(),
        gold_ids: record.gold.iter().map(|g| g.id.clone()).collect(),
        golds: record.answers.clone(),
        answer,
    }
}
