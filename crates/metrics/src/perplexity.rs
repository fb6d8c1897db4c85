//! Perplexity from sums a language model made.

use serde::Serialize;

use crate::{Error, Result};

/// Perplexity of a text or a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Perplexity {
    /// `exp` of the mean negative log-likelihood per token.
    pub perplexity: f64,
    /// The mean negative log-likelihood per token, in nats.
    pub nll: f64,
    /// Tokens predicted.
    pub tokens: usize,
}

/// From texts' summed negative log-likelihoods (nats) and counts of predicted tokens: each token weighs the same,
/// whichever text it is of. `None` without tokens. Overflow gives infinity.
///
/// # Errors
/// [`Error::BadSetting`] for a sum that is not a number, or one without tokens that is not 0.
pub fn perplexity(texts: &[(f64, usize)]) -> Result<Option<Perplexity>> {
    let bad = |got: f64, remedy| {
        Err(Error::BadSetting { setting: "a negative log-likelihood", got: got.to_string(), remedy })
    };
    for &(nll, tokens) in texts {
        if nll.is_nan() {
            return bad(nll, "the model that made it has diverged");
        }
        if tokens == 0 && nll != 0.0 {
            return bad(nll, "a text without predicted tokens has a sum of 0");
        }
    }
    let tokens: usize = texts.iter().map(|(_, tokens)| tokens).sum();
    if tokens == 0 {
        return Ok(None);
    }
    let nll = texts.iter().map(|(nll, _)| nll).sum::<f64>() / tokens as f64;
    Ok(Some(Perplexity { perplexity: nll.exp(), nll, tokens }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_weigh_the_same() {
        let got = perplexity(&[(3.0 * 8f64.ln(), 3), (0.0, 0), (2f64.ln(), 1)]).unwrap().unwrap();
        // (8 * 8 * 8 * 2) ^ (1/4)
        assert!((got.perplexity - 1024f64.powf(0.25)).abs() < 1e-12);
        assert_eq!(got.tokens, 4);
        assert_eq!(perplexity(&[(0.0, 0)]).unwrap(), None);
        assert!(perplexity(&[(f64::NAN, 2)]).is_err());
        assert!(perplexity(&[(1.0, 0)]).is_err());
        assert_eq!(perplexity(&[(f64::INFINITY, 1)]).unwrap().unwrap().perplexity, f64::INFINITY);
    }
}
