//! Leave-one-out perplexity distillation (LOOP): Atlas, arXiv 2208.03299, section 2.2. A passage is worth what the answer
//! loses when it alone is taken out of the prompt.

use super::{AnswerLogProbs, Direction, Evidence, ObjectiveLoss, divergence, log_distribution};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Leave-one-out distillation (LOOP): teacher score -log p(answer | all passages but one) per token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LeaveOneOut {
    /// Temperature of the teacher scores.
    pub teacher_temperature: f64,
    /// Temperature of the retriever's similarities. Atlas uses 0.01 of q.d / sqrt(768).
    pub score_temperature: f64,
    /// Direction of the KL divergence.
    pub direction: Direction,
}

impl Default for LeaveOneOut {
    fn default() -> Self {
        Self { teacher_temperature: 0.01, score_temperature: 0.277, direction: Direction::TeacherToStudent }
    }
}

impl LeaveOneOut {
    pub(super) fn loss(&self, e: &Evidence<'_>, without: &AnswerLogProbs) -> ObjectiveLoss {
        let lost = -without.means().detach();
        let teacher = log_distribution(&lost, self.teacher_temperature, e.present);
        let student = log_distribution(e.scores, self.score_temperature, e.present);
        ObjectiveLoss {
            loss: divergence(&teacher, &student, self.direction),
            teacher: teacher.exp(),
            student: student.detach().exp(),
        }
    }
}
