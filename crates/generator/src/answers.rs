//! Answering a set of records and measuring the answers.

use crate::contexts::ContextConfig;
use crate::decode::{DecodeConfig, Decoding, Hooks, Request, TextStream, TokenEvent};
use crate::error::{Error, Result};
use crate::model::Generator;
use crate::prepare::{PrepareReport, Preparer, Prompt, PromptConfig};
use ragduet_data::RagRecord;
use ragduet_metrics::answer::{exact_match, token_f1};
use ragduet_metrics::faithfulness::presence;
use ragduet_metrics::spaced;
use ragduet_text::Context;
use serde::Serialize;
use std::ops::ControlFlow;

/// One answer, with what it was given.
#[derive(Debug, Clone, Serialize)]
pub struct Answered {
    /// The question's name.
    pub id: String,
    /// The question.
    pub question: String,
    /// What was generated.
    pub answer: String,
    /// Whether the question was too long for the generator and was not asked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
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
    /// 1 where the answer is right after SQuAD's normalisation, else 0; none where no right answer is known.
    pub exact_match: Option<f64>,
    /// Overlap of tokens with the best right answer; none where no right answer is known.
    pub f1: Option<f64>,
    /// 1 where a passage shown holds a right answer, else 0; none where no right answer is known.
    pub answer_in_contexts: Option<f64>,
}

/// Means over the questions of a set whose right answer is known. Not a number where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct AnswerScores {
    /// Questions that were asked.
    pub questions: usize,
    /// Those of them without a known answer, which the means leave out.
    pub without_answers: usize,
    /// Mean exact match.
    pub exact_match: f64,
    /// Mean token F1.
    pub f1: f64,
    /// Share of prompts whose passages hold a right answer.
    pub answer_in_contexts: f64,
}

impl AnswerScores {
    /// Of answers; questions that were left out do not count.
    pub fn of(answers: &[Answered]) -> Self {
        let asked: Vec<&Answered> = answers.iter().filter(|a| !a.left_out).collect();
        let mean = |f: fn(&Answered) -> Option<f64>| {
            let known: Vec<f64> = asked.iter().filter_map(|a| f(a)).collect();
            known.iter().sum::<f64>() / known.len() as f64
        };
        Self {
            questions: asked.len(),
            without_answers: asked.iter().filter(|a| a.golds.is_empty()).count(),
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

impl<'a> AnswerOptions<'a> {
    fn resolve<'b>(&'b self, generator: &'b Generator) -> Result<(Preparer<'b>, Decoding)> {
        let preparer = Preparer::new(generator, self.prompt, self.contexts.clone(), usize::MAX, self.seed)?;
        let decoding = self.decode.resolve(generator.model.generation.file.as_ref(), &generator.eos())?;
        Ok((preparer, decoding))
    }

    /// Logs the first prompt of some records as the model reads it.
    ///
    /// # Errors
    /// Settings that the generator cannot have, prompts that cannot be made.
    pub fn log_first(&self, generator: &Generator, records: &[RagRecord]) -> Result<()> {
        self.resolve(generator)?.0.log_first_prompt(records)
    }

    /// Says what records have and their prompts do not show.
    ///
    /// # Errors
    /// Settings that contradict each other or the generator.
    pub fn warn_of_unshown(&self, generator: &Generator, records: &[RagRecord]) -> Result<()> {
        let preparer = Preparer::new(generator, self.prompt, self.contexts.clone(), usize::MAX, self.seed)?;
        preparer.warn_of_unshown(records);
        Ok(())
    }

    fn request(&self, record: &RagRecord, prompt: &Prompt) -> Request {
        // By name, so that an answer does not depend on what else is asked.
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(record.id.as_bytes(), self.seed);
        Request { prompt: prompt.ids.clone(), parts: prompt.parts.clone(), seed }
    }
}

/// Answers records, in their order, and measures each answer. Questions that are too long are not asked, as in training:
/// their answers are empty and marked, and a warning counts them.
///
/// # Errors
/// Prompts that cannot be made, and those of decoding.
pub fn answer_all(
    generator: &Generator,
    records: &[RagRecord],
    options: &AnswerOptions<'_>,
    progress: &mut dyn FnMut(usize),
) -> Result<(Vec<Answered>, PrepareReport)> {
    let (preparer, decoding) = options.resolve(generator)?;
    let reserve = decoding.max_new_tokens;
    let mut report = PrepareReport::default();
    let prompts =
        records.iter().map(|r| preparer.prompt(r, reserve, &mut report)).collect::<Result<Vec<_>>>()?;
    for (why, n) in &report.left_out {
        tracing::warn!("{n} of {} questions are left out: {why}", records.len());
    }
    let asked = prompts.iter().zip(records).filter_map(|(p, r)| Some(options.request(r, p.as_ref()?)));
    let requests: Vec<Request> = asked.collect();
    let generated = generator.answer(&requests, options.decode, options.batch, progress)?;
    let mut out = Vec::with_capacity(records.len());
    let mut generated = generated.iter();
    for (record, prompt) in records.iter().zip(&prompts) {
        let Some(prompt) = prompt else {
            out.push(Answered { left_out: true, ..measured(record, &[], String::new()) });
            continue;
        };
        let answer = match generated.next().and_then(|sequences| sequences.first()) {
            Some(best) => generator.text(best, &options.decode.stop_strings)?,
            None => String::new(),
        };
        out.push(measured(record, &prompt.contexts, answer));
    }
    Ok((out, report))
}

/// Answers one record; `on_text` gets the answer piece by piece as it is generated (with beams all at once). No piece ends
/// within a character, and stop strings never come out.
///
/// # Errors
/// As [`answer_all`].
pub fn answer_streaming(
    generator: &Generator,
    record: &RagRecord,
    options: &AnswerOptions<'_>,
    on_text: &mut dyn FnMut(&str),
) -> Result<(Answered, PrepareReport)> {
    let (preparer, decoding) = options.resolve(generator)?;
    let mut report = PrepareReport::default();
    let Some(prompt) = preparer.prompt(record, decoding.max_new_tokens, &mut report)? else {
        let why: Vec<&str> = report.left_out.keys().map(String::as_str).collect();
        return Err(Error::Unusable(format!("{}: ask a shorter one", why.join("; "))));
    };
    let detokenize = |ids: &[u32]| Ok(generator.tokenizer.decode(ids, true)?);
    let mut stream = TextStream::new(&detokenize, &decoding.stop_strings);
    let mut failed = None;
    let mut on_token = |event: &TokenEvent| match stream.push(event.token) {
        Ok(piece) => {
            on_text(&piece);
            ControlFlow::Continue(())
        }
        Err(e) => {
            failed = Some(e);
            ControlFlow::Break(())
        }
    };
    let hooks = Hooks { detokenize: Some(&detokenize), on_token: Some(&mut on_token) };
    let generated = generator.generate(&[options.request(record, &prompt)], &decoding, hooks)?;
    if let Some(e) = failed {
        return Err(e);
    }
    on_text(&stream.finish()?);
    let best = generated.first().and_then(|sequences| sequences.first());
    let answer = best.map(|g| generator.text(g, &decoding.stop_strings)).transpose()?.unwrap_or_default();
    Ok((measured(record, &prompt.contexts, answer), report))
}

/// An answer with its measures.
pub fn measured(record: &RagRecord, shown: &[Context], answer: String) -> Answered {
    let texts: Vec<&str> = shown.iter().map(|c| c.text.as_str()).collect();
    let holds = |gold: &String| presence(gold, &texts) == Some(1.0);
    // Of scripts without spaces, characters are the words.
    let spaced_golds: Vec<String> = record.answers.iter().map(|gold| spaced(gold)).collect();
    let known = !record.answers.is_empty();
    Answered {
        id: record.id.clone(),
        left_out: false,
        question: record.question.clone(),
        exact_match: known.then(|| exact_match(&answer, &record.answers)),
        f1: known.then(|| token_f1(&spaced(&answer), &spaced_golds)),
        answer_in_contexts: known.then(|| f64::from(u8::from(record.answers.iter().any(holds)))),
        gold_shown: (!record.gold.is_empty())
            .then(|| record.gold.iter().any(|g| shown.iter().any(|c| c.id == g.id))),
        shown: shown.iter().map(|c| c.id.clone()).collect(),
        contexts: shown.to_vec(),
        gold_ids: record.gold.iter().map(|g| g.id.clone()).collect(),
        golds: record.answers.clone(),
        answer,
    }
}
