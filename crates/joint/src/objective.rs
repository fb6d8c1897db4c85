//! What the retriever learns from the generator: from similarities [B, K] of B questions with K passages each, and from
//! how likely the generator finds the answers behind each of them, to a loss.
//!
//! Directions, temperatures, sums and means are settings with names, because papers and their codes differ in all of
//! them; each file says what its source does. Teachers are detached here, so that no caller can forget it. A passage
//! that is not there (fewer than K were found) has probability 0 and no gradient.

mod attention;
mod distillation;
mod emdr2;
mod leave_one_out;
mod marginal;

pub use attention::AttentionDistillation;
pub use distillation::{Direction, Distillation, Preset, Teacher};
pub use emdr2::Emdr2;
pub use leave_one_out::LeaveOneOut;
pub use marginal::{Marginal, MarginalSettings, Normalize, RagSequence, RagToken};

use crate::error::bad;
use crate::{Error, Result};
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Log-probabilities of the answers' tokens under K passages.
#[derive(Debug)]
pub struct AnswerLogProbs {
    /// [B, K, T], f32, T tokens of the longest answer; 0 where there is no token.
    pub values: Tensor,
    /// [B, T], f32: 1 where there is a token.
    pub mask: Tensor,
}

impl AnswerLogProbs {
    /// Of the whole answers, [B, K].
    pub fn sums(&self) -> Tensor {
        (&self.values * self.mask.unsqueeze(1)).sum_dim_intlist([-1i64].as_slice(), false, None)
    }

    /// Tokens of each answer, [B].
    pub fn lengths(&self) -> Tensor {
        self.mask.sum_dim_intlist([-1i64].as_slice(), false, None)
    }

    /// Means over the answers' tokens, [B, K].
    pub fn means(&self) -> Tensor {
        self.sums() / self.lengths().clamp_min(1.0).unsqueeze(1)
    }
}

/// What an objective judges by.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Similarities [B, K], f32, with a graph into the encoders.
    pub scores: &'a Tensor,
    /// The answers under each passage alone.
    pub answers: Option<&'a AnswerLogProbs>,
    /// The answers under all passages but the k-th.
    pub without: Option<&'a AnswerLogProbs>,
    /// What the generator looks at each passage, [B, K], f32; below 0: it was not shown.
    pub attention: Option<&'a Tensor>,
    /// [B, K], bool: whether there is a passage; absent: all are there.
    pub present: Option<&'a Tensor>,
}

/// What has to be computed for an objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// [`Evidence::answers`].
    Alone,
    /// [`Evidence::without`].
    LeaveOneOut,
    /// [`Evidence::attention`].
    Attention,
}

/// What an objective came to.
#[derive(Debug)]
pub struct ObjectiveLoss {
    /// The loss, a scalar.
    pub loss: Tensor,
    /// What the generator says of the passages, [B, K] probabilities, detached: the teacher, or under a marginal
    /// likelihood the posterior.
    pub teacher: Tensor,
    /// What the retriever says, [B, K] probabilities, detached.
    pub student: Tensor,
}

/// Retriever objective and its settings, written as `[objective.distillation]`, `[objective.emdr2]` and so on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveConfig {
    /// RAG-Sequence: marginal likelihood of the answer over passages.
    RagSequence(RagSequence),
    /// RAG-Token: marginal likelihood of each answer token over passages.
    RagToken(RagToken),
    /// EMDR2: marginal likelihood with gradients to the retriever only.
    Emdr2(Emdr2),
    /// Perplexity distillation: KL to the softmax of the answer likelihoods given each passage alone (PDist,
    /// REPLUG-LSR, RA-DIT).
    Distillation(Distillation),
    /// Leave-one-out distillation: KL to the softmax of the likelihood loss when one passage is removed (LOOP).
    LeaveOneOut(LeaveOneOut),
    /// Attention distillation: KL to the softmax of the generator's attention to each passage (ADist).
    Attention(AttentionDistillation),
}

impl ObjectiveConfig {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// A temperature that is not above 0.
    pub fn validate(&self) -> Result<()> {
        let positive = |key: &str, value: f64| {
            if value > 0.0 && value.is_finite() { Ok(()) } else { Err(bad(key, "must be above 0")) }
        };
        match self {
            Self::RagSequence(RagSequence(m)) => {
                positive("objective.rag_sequence.score_temperature", m.score_temperature)
            }
            Self::RagToken(RagToken(m)) => {
                positive("objective.rag_token.score_temperature", m.score_temperature)
            }
            Self::Emdr2(e) => positive("objective.emdr2.score_temperature", e.score_temperature),
            Self::Distillation(d) => {
                let r = d.resolve();
                positive("objective.distillation.teacher_temperature", r.teacher_temperature)?;
                positive("objective.distillation.score_temperature", r.score_temperature)
            }
            Self::LeaveOneOut(l) => {
                positive("objective.leave_one_out.teacher_temperature", l.teacher_temperature)?;
                positive("objective.leave_one_out.score_temperature", l.score_temperature)
            }
            Self::Attention(a) => {
                positive("objective.attention.teacher_temperature", a.teacher_temperature)?;
                positive("objective.attention.score_temperature", a.score_temperature)
            }
        }
    }

    /// What it judges by.
    pub fn needs(&self) -> Needs {
        match self {
            Self::LeaveOneOut(_) => Needs::LeaveOneOut,
            Self::Attention(_) => Needs::Attention,
            _ => Needs::Alone,
        }
    }

    /// Whether its gradient reaches the generator, too, where the evidence has one.
    pub fn trains_generator(&self) -> bool {
        matches!(self, Self::RagSequence(_) | Self::RagToken(_))
    }

    /// The loss of a batch.
    ///
    /// # Errors
    /// Evidence that is not there.
    pub fn loss(&self, evidence: &Evidence<'_>) -> Result<ObjectiveLoss> {
        let missing = |what: &str| Error::Unusable(format!("the objective needs {what}"));
        let answers =
            || evidence.answers.ok_or_else(|| missing("the answers' likelihoods under each passage"));
        let without =
            || evidence.without.ok_or_else(|| missing("the answers' likelihoods without each passage"));
        Ok(match self {
            Self::RagSequence(RagSequence(m)) => m.loss(evidence, answers()?, Marginal::Sequence),
            Self::RagToken(RagToken(m)) => m.loss(evidence, answers()?, Marginal::Token),
            Self::Emdr2(e) => e.loss(evidence, answers()?),
            Self::Distillation(d) => d.loss(evidence, answers()?),
            Self::LeaveOneOut(l) => l.loss(evidence, without()?),
            Self::Attention(a) => {
                let looks = evidence.attention.ok_or_else(|| missing("what the generator looks at"))?;
                a.loss(evidence, looks)
            }
        })
    }
}

/// Log-probability of what is not there: finite, so that 0 times it is 0.
const ABSENT: f64 = -1e30;

/// log softmax over the passages that are there, [B, K].
fn log_distribution(scores: &Tensor, temperature: f64, present: Option<&Tensor>) -> Tensor {
    let scaled = scores / temperature;
    let scaled = match present {
        Some(p) => scaled.masked_fill(&p.logical_not(), ABSENT),
        None => scaled,
    };
    scaled.log_softmax(-1, None)
}

/// KL between a teacher's distribution and a student's, [B, K] log-probabilities; the mean over B. Only the student has
/// a gradient.
fn divergence(teacher: &Tensor, student: &Tensor, direction: Direction) -> Tensor {
    let teacher = teacher.detach();
    let (from, to) = match direction {
        Direction::TeacherToStudent => (&teacher, student),
        Direction::StudentToTeacher => (student, &teacher),
    };
    let each = from.exp() * (from - to);
    each.sum(None::<Kind>) / student.size()[0].max(1) as f64
}
