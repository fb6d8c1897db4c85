//! Distillation of the generator's likelihoods into the retriever: perplexity distillation (Atlas, arXiv 2208.03299,
//! section 2.2), REPLUG-LSR (arXiv 2301.12652, equations 3 to 6), RA-DIT (arXiv 2310.01352, equations 3 and 4).
//!
//! The codes of Atlas and FiD call `KLDivLoss()`, whose mean is over B and K: the true divergence over K. Here it is the
//! divergence, and the mean is over questions.

use super::{AnswerLogProbs, Evidence, ObjectiveLoss, divergence, log_distribution};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Perplexity distillation. Settings that are absent are the preset's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Distillation {
    /// Published settings: `pdist`, `replug_lsr` or `ra_dit`.
    pub preset: Preset,
    /// Teacher score of a passage.
    pub teacher: Option<Teacher>,
    /// Temperature of the teacher scores.
    pub teacher_temperature: Option<f64>,
    /// Temperature of the retriever's similarities.
    pub score_temperature: Option<f64>,
    /// Direction of the KL divergence.
    pub direction: Option<Direction>,
}

/// Published settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// PDist (Atlas): mean log-probability, temperature 0.01; similarities q.d / sqrt(768), temperature 0.01 (q.d over
    /// 0.277); KL(teacher || retriever).
    #[default]
    Pdist,
    /// REPLUG-LSR: probability, temperature 0.1; cosine similarity, temperature 0.1; KL(retriever || teacher).
    ReplugLsr,
    /// RA-DIT: probability, temperature 0.01; dot product, temperature 1; KL(retriever || teacher).
    RaDit,
}

/// Teacher score of a passage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Teacher {
    /// Mean log-probability of the answer tokens.
    MeanLogProbability,
    /// Log-probability of the answer (sum over tokens): at temperature 1 the posterior under a uniform prior.
    LogProbability,
    /// Probability of the answer. For long answers it is close to 0 given any passage, and the teacher distribution
    /// close to uniform.
    Probability,
}

/// Direction of the KL divergence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// KL(teacher || retriever): mass-covering.
    TeacherToStudent,
    /// KL(retriever || teacher): mode-seeking.
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
