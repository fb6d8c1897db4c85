//! Attention distillation: Izacard and Grave, 2021 (arXiv 2012.04584), as ADist in Atlas (arXiv 2208.03299, section 2.2).
//! A passage is worth what the generator looks at it while it reads the answer, all passages before it at once: attention
//! times the norm of the value, the mean over layers, heads, the answer's tokens and the passage's. The answer's
//! likelihood plays no part, so the generator must have learned to read before it can teach.

use super::{Direction, Evidence, ObjectiveLoss, divergence, log_distribution};
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Attention distillation (ADist).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AttentionDistillation {
    /// Temperature of the attention scores.
    pub teacher_temperature: f64,
    /// Whether attention scores are divided by their mean over the question's passages first. Without (as in Atlas)
    /// their scale depends on the model and the prompt length.
    pub relative: bool,
    /// Temperature of the retriever's similarities. Atlas uses 0.01 of q.d / sqrt(768).
    pub score_temperature: f64,
    /// Direction of the KL divergence.
    pub direction: Direction,
}

impl Default for AttentionDistillation {
    fn default() -> Self {
        Self {
            teacher_temperature: 0.5,
            relative: true,
            score_temperature: 0.277,
            direction: Direction::TeacherToStudent,
        }
    }
}

impl AttentionDistillation {
    /// `looks`: [B, K], below 0 for a passage that the prompt had no room for, which counts as not there.
    pub(super) fn loss(&self, e: &Evidence<'_>, looks: &Tensor) -> ObjectiveLoss {
        let looks = looks.detach();
        let shown = looks.ge(0.0);
        let present = e.present.map_or_else(|| shown.shallow_clone(), |p| p.logical_and(&shown));
        let mut worth = looks.clamp_min(0.0);
        if self.relative {
            let there = present.to_kind(Kind::Float);
            let sum = |t: &Tensor| t.sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
            let mean = sum(&(&worth * &there)) / sum(&there).clamp_min(1.0);
            worth = &worth / mean.clamp_min(1e-30);
        }
        let teacher = log_distribution(&worth, self.teacher_temperature, Some(&present));
        let student = log_distribution(e.scores, self.score_temperature, Some(&present));
        ObjectiveLoss {
            loss: divergence(&teacher, &student, self.direction),
            teacher: teacher.exp(),
            student: student.detach().exp(),
        }
    }
}
