//! Attention of a generator to its passages while it reads answers: the teacher of attention distillation.

use crate::Result;
use ragduet_generator::Generator;
use ragduet_nn::Mode;
use ragduet_text::TrainExample;
use ragduet_torch::{Kind, Tensor, no_grad};
use std::ops::Range;

/// A question's prompt with all of its passages, and its answer.
#[derive(Debug, Clone)]
pub struct AttentionExample {
    /// The example.
    pub example: TrainExample,
    /// The tokens of each passage, in the order of their similarities; None: there was no room for it.
    pub places: Vec<Option<Range<usize>>>,
}

/// Attention to each of at most `k` passages of each question, the mean over the passage's tokens: [questions, k], f32,
/// without a graph; -1 where there is no passage. In forward passes of at most `budget` tokens (a longer prompt has a
/// pass of its own).
///
/// # Errors
/// Those of the device.
pub fn attention_scores(
    generator: &Generator,
    questions: &[AttentionExample],
    k: usize,
    budget: usize,
    mode: Mode,
) -> Result<Tensor> {
    let _guard = no_grad();
    let mut out = vec![-1f32; questions.len() * k];
    let mut from = 0;
    while from < questions.len() {
        let (mut to, mut held) = (from, 0);
        while to < questions.len() && (to == from || held + questions[to].example.ids.len() <= budget) {
            held += questions[to].example.ids.len();
            to += 1;
        }
        let examples: Vec<&TrainExample> = questions[from..to].iter().map(|q| &q.example).collect();
        let seen = generator.attention_received(&examples, mode).to_kind(Kind::Float);
        let seen: Vec<f32> = Vec::try_from(seen).map_err(ragduet_torch::Error::from)?;
        let mut start = 0;
        for (b, q) in questions[from..to].iter().enumerate() {
            for (place, out) in q.places.iter().zip(&mut out[(from + b) * k..]).take(k) {
                if let Some(place) = place.as_ref().filter(|p| !p.is_empty()) {
                    let own = &seen[start + place.start..start + place.end];
                    *out = own.iter().sum::<f32>() / own.len() as f32;
                }
            }
            start += q.example.ids.len();
        }
        from = to;
    }
    Ok(Tensor::from_slice(&out).view([questions.len() as i64, k as i64]).to_device(generator.device))
}
