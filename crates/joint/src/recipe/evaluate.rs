//! Evaluation on the dev set: retrieval and answers.

use super::config::{Best, JointConfig};
use super::data::own_copies;
use crate::Result;
use crate::corpus::Corpus;
use crate::pipeline::with_contexts;
use crate::refreshed_index::RefreshedIndex;
use crate::retrieve::{Asked, retrieve};
use ragduet_data::{Found, RagRecord};
use ragduet_generator::Generator;
use ragduet_generator::answers::{AnswerOptions, AnswerScores, Answered, answer_all, measured};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::packed::PackedExamples;
use ragduet_generator::prepare::{PrepareReport, Preparer};
use ragduet_retriever::BiEncoder;
use ragduet_text::Context;
use ragduet_torch::{Kind, no_grad};
use ragduet_train::Evaluated;
use serde::{Deserialize, Serialize};

/// A retriever and a generator together, on dev.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DevScores {
    /// Questions.
    pub questions: usize,
    /// Those of them that were answered, the first; 0: all.
    #[serde(default)]
    pub answered: usize,
    /// Share of questions with a golden passage among the `k`; of those for which one is known, None where none is.
    pub recall: Option<f64>,
    /// Share of questions with a passage among the `k` that holds an answer.
    pub answer_recall: f64,
    /// Mean exact match of the answers.
    pub exact_match: f64,
    /// Mean token F1.
    pub f1: f64,
    /// What a token of the right answer gains by the question's own contexts over another's, in nats.
    pub context_gain: f64,
}

impl DevScores {
    /// What the best state is chosen by.
    pub fn measure(&self, by: Best) -> f64 {
        match by {
            Best::F1 => self.f1,
            Best::ExactMatch => self.exact_match,
            Best::Recall => self.recall.unwrap_or(self.answer_recall),
        }
    }

    /// As the loop has it, with what the best models are chosen by.
    pub(super) fn evaluated(self, by: Best) -> Evaluated<Self> {
        let named = self.named().into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Evaluated { scores: self, main: self.measure(by), named }
    }

    /// Names and values, for logs and tables.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let recall = self.recall.map(|r| ("recall", r));
        let rest = [
            ("answer_recall", self.answer_recall),
            ("exact_match", self.exact_match),
            ("f1", self.f1),
            ("context_gain", self.context_gain),
        ];
        recall.into_iter().chain(rest).collect()
    }
}

impl std::fmt::Display for DevScores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> =
            self.named().iter().map(|(name, v)| format!("{} {v:.4}", name.replace('_', " "))).collect();
        let answered = match self.answered {
            0 => String::new(),
            n => format!(", the first {n} answered"),
        };
        write!(f, "{} ({} questions{answered})", all.join("  "), self.questions)
    }
}

/// A question with what was found and answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// What was generated.
    pub answer: String,
    /// The passages it was given.
    pub contexts: Vec<Passage>,
}

/// A passage of a [`Sample`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Passage {
    /// Its name.
    pub id: String,
    /// Its title.
    pub title: Option<String>,
    /// Its text.
    pub text: String,
}

/// Retrieves from an index that is up to date, answers, measures.
pub(super) fn evaluate(
    config: &JointConfig,
    (retriever, generator): (&BiEncoder, &Generator),
    index: &RefreshedIndex,
    corpus: &Corpus,
    dev: &[RagRecord],
) -> Result<(DevScores, Vec<Sample>)> {
    let questions: Vec<String> = dev.iter().map(|r| r.question.clone()).collect();
    let barred: Vec<Vec<u32>> = dev.iter().map(|r| own_copies(corpus, r)).collect();
    let asked = Asked { questions: &questions, barred: &barred };
    let found = retrieve(retriever, corpus.texts(), index, asked, &config.retrieval, false)?;
    let records = with_contexts(&dev.iter().collect::<Vec<_>>(), &found, corpus);
    let contexts = ContextConfig::retrieved(config.generator.contexts.count);
    let options = AnswerOptions {
        prompt: &config.generator.prompt,
        contexts: contexts.clone(),
        decode: &config.eval.decode,
        batch: config.eval.batch_size,
        seed: config.run.seed,
    };
    let answered = &records[..config.eval.answers_of(records.len())];
    let (answers, _) = answer_all(generator, answered, &options, &mut |_| ())?;
    let scores = AnswerScores::of(&answers);
    let known: Vec<&RagRecord> = records.iter().filter(|r| !r.gold.is_empty()).collect();
    let hit = |r: &&&RagRecord| r.contexts.iter().any(|f| r.gold.iter().any(|g| g.id == f.passage.id));
    let recall = (!known.is_empty()).then(|| known.iter().filter(hit).count() as f64 / known.len() as f64);
    let holding =
        records.iter().filter_map(|r| measured(r, &all_contexts(r), String::new()).answer_in_contexts);
    let answer_recall = holding.sum::<f64>() / records.len().max(1) as f64;
    let dev_scores = DevScores {
        questions: records.len(),
        answered: if answered.len() < records.len() { answered.len() } else { 0 },
        recall,
        answer_recall,
        exact_match: scores.exact_match,
        f1: scores.f1,
        context_gain: context_gain(config, generator, (answered, &records), contexts)?,
    };
    Ok((dev_scores, answers.into_iter().take(config.eval.samples).map(sample).collect()))
}

fn all_contexts(r: &RagRecord) -> Vec<Context> {
    let named = |f: &Found| Context::new(&f.passage.id, f.passage.title.clone(), &f.passage.text);
    r.contexts.iter().map(named).collect()
}

fn sample(a: Answered) -> Sample {
    let contexts = a.contexts.into_iter().map(|c| Passage { id: c.id, title: c.title, text: c.text });
    Sample { answer: a.answer, contexts: contexts.collect() }
}

/// Mean over the answers' tokens of log p behind the question's own contexts, less that behind the next one's of `all`.
fn context_gain(
    config: &JointConfig,
    g: &Generator,
    (records, all): (&[RagRecord], &[RagRecord]),
    contexts: ContextConfig,
) -> Result<f64> {
    let preparer =
        Preparer::new(g, &config.generator.prompt, contexts, config.generator.batch_tokens, config.run.seed)?;
    let _guard = no_grad();
    let mut report = PrepareReport::default();
    let mut nll = |shift: usize| -> Result<f64> {
        let mut examples = Vec::with_capacity(records.len());
        for (i, r) in records.iter().enumerate() {
            let other = &all[(i + shift) % all.len()].contexts;
            let shown = RagRecord { contexts: other.clone(), gold: Vec::new(), ..r.clone() };
            examples.extend(preparer.example(&shown, 0, &mut report)?.ok());
        }
        let (mut sum, mut tokens) = (0.0, 0);
        for batch in PackedExamples::pack(examples, config.generator.batch_tokens) {
            let of = batch.nll(g, g.mode(false)).sum(Kind::Double);
            sum += f64::try_from(of).map_err(ragduet_torch::Error::from)?;
            tokens += batch.targets.len();
        }
        Ok(sum / tokens.max(1) as f64)
    };
    let own = nll(0)?;
    Ok(nll(1)? - own)
}
