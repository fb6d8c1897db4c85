//! How likely answers are: the log-probability of each token of a question's answer under each of its passages, K prompts
//! of B questions in forward passes of a number of tokens, laid one after another without padding, the vocabulary met at
//! the answers' tokens alone.
//!
//! A teacher's passes have no graph. Where the generator learns with the retriever, they are made twice: first without a
//! graph, then, when the loss has said what each log-probability is worth, chunk by chunk with one and with the same
//! dropout (gradient caching): memory is that of one chunk whatever K is.
//!
//! Prompts that begin alike (question first) could share what they begin with; that was left out, since the shared part
//! of a prompt with a passage of 100 tokens is a tenth of it.

use crate::objective::{AnswerLogProbs, Evidence, Needs};
use crate::{Error, Result};
use ragduet_generator::Generator;
use ragduet_generator::packed::PackedExamples;
use ragduet_nn::Mode;
use ragduet_text::TrainExample;
use ragduet_torch::grad::Replay;
use ragduet_torch::{Kind, Tensor};
use std::cell::RefCell;

/// The prompts of one question, with its answer behind each: of K passages the k-th has the k-th alone, or all but it.
#[derive(Debug, Clone)]
pub struct Group {
    /// The question, for errors.
    pub name: String,
    /// The examples; what they learn is the answer, the same tokens in each.
    pub examples: Vec<TrainExample>,
}

/// The answer's tokens of an example.
pub fn answer_tokens(example: &TrainExample) -> Vec<u32> {
    example.predicted().filter(|&i| example.loss[i]).map(|i| example.ids[i]).collect()
}

/// Scores the answers of some questions.
#[derive(Debug)]
pub struct AnswerScorer<'a> {
    generator: &'a Generator,
    chunks: Vec<PackedExamples>,
    /// Where in [B, K, T] each learned token is, in the order of the chunks.
    places: Tensor,
    /// Where what is known already goes, and what it is.
    known: (Tensor, Tensor),
    mask: Tensor,
    shape: [i64; 3],
}

/// Scored answers.
#[derive(Debug)]
pub struct Scored {
    answers: AnswerLogProbs,
    needs: Needs,
    /// -log p of every token, a leaf that collects the loss' gradient; and how to make each chunk's again.
    leaf: Option<(Tensor, RefCell<Vec<Replay>>)>,
    mode: Mode,
}

impl Scored {
    /// What an objective judges by.
    pub fn evidence<'a>(&'a self, scores: &'a Tensor, present: Option<&'a Tensor>) -> Evidence<'a> {
        let of = |needs| (self.needs == needs).then_some(&self.answers);
        let (answers, without) = (of(Needs::Alone), of(Needs::LeaveOneOut));
        Evidence { scores, answers, without, attention: None, present }
    }

    /// The log-probabilities.
    pub fn answers(&self) -> &AnswerLogProbs {
        &self.answers
    }
}

impl<'a> AnswerScorer<'a> {
    /// For groups, in forward passes of at most `budget` tokens (a longer prompt has a pass of its own).
    ///
    /// # Errors
    /// No groups; an answer that is other tokens behind another passage.
    pub fn new(generator: &'a Generator, groups: &[Group], budget: usize) -> Result<Self> {
        Self::beside(generator, groups, &[], budget)
    }

    /// As [`AnswerScorer::new`], where of some examples, by group and place in it, the log-probabilities of the answer's
    /// tokens are known already: they have no forward pass and no gradient.
    ///
    /// # Errors
    /// As there; known values of another number than the answer has tokens.
    pub fn beside(
        generator: &'a Generator,
        groups: &[Group],
        known: &[Vec<Option<Vec<f32>>>],
        budget: usize,
    ) -> Result<Self> {
        let k = groups.iter().map(|g| g.examples.len()).max().unwrap_or(0);
        if k == 0 {
            return Err(Error::Unusable("no prompts to score".into()));
        }
        let answers: Vec<Vec<u32>> = groups.iter().map(Group::answer).collect::<Result<_>>()?;
        let t = answers.iter().map(Vec::len).max().unwrap_or(0);
        let (mut places, mut mask) = (Vec::new(), vec![0f32; groups.len() * t]);
        let (mut given, mut values) = (Vec::new(), Vec::new());
        let (mut chunks, mut chunk, mut held) = (Vec::new(), Vec::new(), 0);
        for (b, (group, answer)) in groups.iter().zip(&answers).enumerate() {
            mask[b * t..][..answer.len()].fill(1.0);
            for (at, example) in group.examples.iter().enumerate() {
                let own = (0..answer.len()).map(|i| ((b * k + at) * t + i) as i64);
                if let Some(kept) = known.get(b).and_then(|g| g.get(at)).and_then(Option::as_ref) {
                    if kept.len() != answer.len() {
                        let why = format!("question `{}`: known scores of another answer", group.name);
                        return Err(Error::Unusable(why));
                    }
                    given.extend(own);
                    values.extend_from_slice(kept);
                    continue;
                }
                if held + example.ids.len() > budget && held > 0 {
                    chunks.push(PackedExamples::of(std::mem::take(&mut chunk)));
                    held = 0;
                }
                held += example.ids.len();
                chunk.push(example.clone());
                places.extend(own);
            }
        }
        if !chunk.is_empty() {
            chunks.push(PackedExamples::of(chunk));
        }
        let device = generator.device;
        Ok(Self {
            generator,
            chunks,
            places: Tensor::from_slice(&places).to_device(device),
            known: (
                Tensor::from_slice(&given).to_device(device),
                Tensor::from_slice(&values).to_device(device),
            ),
            mask: Tensor::from_slice(&mask).view([groups.len() as i64, t as i64]).to_device(device),
            shape: [groups.len() as i64, k as i64, t as i64],
        })
    }

    /// The log-probabilities; `learn`: so that [`AnswerScorer::backward`] can follow.
    ///
    /// # Errors
    /// Those of the device.
    pub fn score(&self, needs: Needs, mode: Mode, learn: bool) -> Result<Scored> {
        let none = Tensor::zeros([0], (Kind::Float, self.generator.device));
        let (mut pieces, mut replays) = (vec![none], Vec::new());
        for chunk in &self.chunks {
            let (nll, replay) =
                Replay::forward::<Error>(self.generator.device, || Ok(chunk.nll(self.generator, mode)))?;
            pieces.push(nll);
            replays.push(replay);
        }
        let all = Tensor::cat(&pieces, 0).to_kind(Kind::Float).set_requires_grad(learn);
        let flat = Tensor::zeros([self.shape.iter().product()], (Kind::Float, self.generator.device));
        let flat = flat.index_copy(0, &self.known.0, &self.known.1);
        let values = flat.index_copy(0, &self.places, &-&all).view(self.shape);
        let answers = AnswerLogProbs { values, mask: self.mask.shallow_clone() };
        Ok(Scored { answers, needs, leaf: learn.then_some((all, RefCell::new(replays))), mode })
    }

    /// After the loss' backward pass: its gradient in the generator's parameters. Once only.
    ///
    /// # Errors
    /// Those of the device.
    pub fn backward(&self, scored: &Scored) -> Result<()> {
        let Some((leaf, replays)) = &scored.leaf else { return Ok(()) };
        let grad = leaf.grad();
        if !grad.defined() {
            return Ok(());
        }
        let mut at = 0;
        for (chunk, replay) in self.chunks.iter().zip(replays.take()) {
            let n = chunk.targets.len() as i64;
            let share = grad.narrow(0, at, n);
            replay.backward::<Error>(&share, || Ok(chunk.nll(self.generator, scored.mode)))?;
            at += n;
        }
        Ok(())
    }

    /// Tokens of the forward passes.
    pub fn tokens(&self) -> usize {
        self.chunks.iter().map(PackedExamples::tokens).sum()
    }
}

impl Group {
    /// The tokens of the answer.
    ///
    /// # Errors
    /// Where they are not the same in all prompts.
    pub fn answer(&self) -> Result<Vec<u32>> {
        let first = self.examples.first().map(answer_tokens).unwrap_or_default();
        if first.is_empty() || self.examples.iter().any(|e| answer_tokens(e) != first) {
            let why = format!("question `{}`: its answer is other tokens behind another passage", self.name);
            return Err(Error::Unusable(why));
        }
        Ok(first)
    }
}
