//! Distillation of the generator's likelihoods into the retriever: perplexity distillation (Atlas, arXiv 2208.03299,
//! section 2.2), REPLUG-LSR (arXiv 2301.12652, equations 3 to 6), RA-DIT (arXiv 2310.01352, equations 3 and 4).
//!
//! The codes of Atlas and FiD call `KLDivLoss()`, whose mean is over B and K: the true divergence over K. Here it is the
//! divergence, and the mean is over questions.

use super::{AnswerLogProbs, Evidence, ObjectiveLoss, divergence, log_distribution};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Towards what each passage, shown alone, does for the answer. What is not given is the preset's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Distillation {
    /// Settings as published.
    pub preset: Preset,
    /// What the teacher's softmax is of.
    pub teacher: Option<Teacher>,
    /// Divides it.
    pub teacher_temperature: Option<f64>,
    /// Divides the similarities.
    pub score_temperature: Option<f64>,
    /// Which divergence is lowered.
    pub direction: Option<Direction>,
}

/// Settings as published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// Atlas: mean log-probabilities over 0.01; similarities q.d / sqrt(768) over 0.01, that is q.d over 0.277;
    /// KL(teacher || retriever).
    #[default]
    Pdist,
    /// Probabilities over 0.1, cosines over 0.1, KL(retriever || teacher).
    ReplugLsr,
    /// Probabilities over 0.01, dot products as they are, KL(retriever || teacher).
    RaDit,
}

/// What a teacher's softmax is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Teacher {
    /// The mean of the log-probabilities of the answer's tokens.
    MeanLogProbability,
    /// Their sum: the posterior under a uniform prior, at temperature 1.
    LogProbability,
    /// The probability of the answer. Of a long answer it is about 0 under every passage, and the teacher uniform.
    Probability,
}

/// Which divergence is lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// KL(teacher || retriever): the retriever has to cover what the teacher likes.
    TeacherToStudent,
    /// KL(retriever || teacher): the retriever has to leave what the teacher does not like.
    StudentToTeacher,
}

/// Every setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resolved {
    pub teacher: Teacher,
    pub teacher_temperature: f64,
    pub score_temperature: f64,
    pub direction: Direction,
}

impl Distillation {
    pub(super) fn resolve(&self) -> Resolved {
        let (teacher, t, s, direction) = match self.preset {
            // 0.01 * sqrt(768)
            Preset::Pdist => (Teacher::MeanLogProbability, 0.01, 0.277, Direction::TeacherToStudent),
            Preset::ReplugLsr => (Teacher::Probability, 0.1, 0.1, Direction::StudentToTeacher),
            Preset::RaDit => (Teacher::Probability, 0.01, 1.0, Direction::StudentToTeacher),
        };
        Resolved {
            teacher: self.teacher.unwrap_or(teacher),
            teacher_temperature: self.teacher_temperature.unwrap_or(t),
            score_temperature: self.score_temperature.unwrap_or(s),
            direction: self.direction.unwrap_or(direction),
        }
    }

    pub(super) fn loss(&self, e: &Evidence<'_>, answers: &AnswerLogProbs) -> ObjectiveLoss {
        let r = self.resolve();
        let said = match r.teacher {
            Teacher::MeanLogProbability => answers.means(),
            Teacher::LogProbability => answers.sums(),
            Teacher::Probability => answers.sums().exp(),
        };
        let teacher = log_distribution(&said.detach(), r.teacher_temperature, e.present);
        let student = log_distribution(e.scores, r.score_temperature, e.present);
        ObjectiveLoss {
            loss: divergence(&teacher, &student, r.direction),
            teacher: teacher.exp(),
            student: student.detach().exp(),
        }
    }
}
