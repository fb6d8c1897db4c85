//! Penalties and bans on logits, in transformers' order: repetition, (presence and frequency, which transformers lacks),
//! n-grams, end of sequence.

use super::{Decoding, History};
use ragduet_torch::{Kind, Tensor};

/// The processors that are on.
#[derive(Debug)]
pub(super) struct Processors<'a>(&'a Decoding);

impl<'a> Processors<'a> {
    pub(super) fn new(decoding: &'a Decoding) -> Self {
        Self(decoding)
    }

    /// Scores [rows, vocabulary], f32, after penalties and bans; a new tensor if any applies. `histories`: a row each.
    pub(super) fn apply(&self, scores: Tensor, histories: &[&History]) -> Tensor {
        let d = self.0;
        let mut scores = scores;
        if d.repetition_penalty != 1.0 {
            scores = repetition(&scores, histories, d.repetition_penalty);
        }
        if d.presence_penalty != 0.0 || d.frequency_penalty != 0.0 {
            scores = counted(&scores, histories, d.presence_penalty, d.frequency_penalty);
        }
        let vocab = scores.size()[1];
        let mut banned: Vec<i64> = Vec::new();
        for (row, h) in histories.iter().enumerate() {
            let mut ban = |token: u32| {
                if i64::from(token) < vocab {
                    banned.push(row as i64 * vocab + i64::from(token));
                }
            };
            if d.no_repeat_ngram_size > 0 {
                completing(&h.tokens, d.no_repeat_ngram_size).for_each(&mut ban);
            }
            if h.generated().len() < d.min_new_tokens {
                d.eos_token_id.iter().copied().for_each(&mut ban);
            }
        }
        if banned.is_empty() {
            return scores;
        }
        let at = Tensor::from_slice(&banned).to_device(scores.device());
        scores.reshape([-1]).index_fill(0, &at, f64::NEG_INFINITY).view(scores.size().as_slice())
    }
}

/// Tokens that would complete an n-gram that has been there.
fn completing(tokens: &[u32], n: usize) -> impl Iterator<Item = u32> + '_ {
    let tail = tokens.len().checked_sub(n - 1).map(|from| &tokens[from..]);
    tokens.windows(n).filter(move |w| tail.is_some_and(|t| t == &w[..n - 1])).map(move |w| w[n - 1])
}

/// Every token of a history: a positive score is divided, a negative one multiplied. A token that is there twice is
/// written twice with the same value; shorter rows repeat their first token.
fn repetition(scores: &Tensor, histories: &[&History], penalty: f64) -> Tensor {
    let width = histories.iter().map(|h| h.tokens.len()).max().unwrap_or(0);
    let mut at = Vec::with_capacity(width * histories.len());
    for h in histories {
        at.extend(h.tokens.iter().map(|&t| i64::from(t)));
        at.extend(std::iter::repeat_n(i64::from(h.tokens[0]), width - h.tokens.len()));
    }
    let at = Tensor::from_slice(&at).view([histories.len() as i64, width as i64]).to_device(scores.device());
    let seen = scores.gather(1, &at, false);
    let penalised = (&seen * penalty).where_self(&seen.lt(0.0), &(&seen / penalty));
    scores.scatter(1, &at, &penalised)
}

/// score -= presence + frequency * count, for tokens generated.
fn counted(scores: &Tensor, histories: &[&History], presence: f64, frequency: f64) -> Tensor {
    let vocab = scores.size()[1];
    let (mut at, mut off) = (Vec::new(), Vec::new());
    for (row, h) in histories.iter().enumerate() {
        let mut sorted = h.generated().to_vec();
        sorted.sort_unstable();
        for same in sorted.chunk_by(|a, b| a == b) {
            at.push(row as i64 * vocab + i64::from(same[0]));
            off.push(-(presence + frequency * same.len() as f64) as f32);
        }
    }
    let at = Tensor::from_slice(&at).to_device(scores.device());
    let off = Tensor::from_slice(&off).to_kind(Kind::Float).to_device(scores.device());
    scores.reshape([-1]).index_add(0, &at, &off).view(scores.size().as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ngrams_that_would_come_again_are_found() {
        let found = |t: &[u32], n| completing(t, n).collect::<Vec<_>>();
        assert_eq!(found(&[1, 2, 3, 1, 2], 3), [3]);
        assert_eq!(found(&[1, 2, 1, 3, 1], 2), [2, 3]);
        assert_eq!(found(&[4, 5, 4], 1), [4, 5, 4]);
        assert!(found(&[1], 3).is_empty() && found(&[1, 2], 3).is_empty());
        assert_eq!(found(&[7, 7, 7], 2), [7, 7]);
    }

    #[test]
    fn presence_and_frequency_count_generated_tokens_only() {
        let scores = Tensor::zeros([2, 4], (Kind::Float, ragduet_torch::Device::Cpu));
        let a = History { tokens: vec![0, 1, 2, 2], prompt: 2 };
        let b = History { tokens: vec![3, 0], prompt: 1 };
        let out = Vec::<f32>::try_from(counted(&scores, &[&a, &b], 0.5, 0.25).view(-1)).unwrap();
        assert_eq!(out, [0.0, 0.0, -1.0, 0.0, -0.75, 0.0, 0.0, 0.0]);
    }
}
