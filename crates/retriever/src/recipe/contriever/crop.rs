//! Two views of one chunk: random crops, with tokens deleted, replaced or masked.

use super::config::CropConfig;
use crate::{Error, Result};
use ragduet_text::Tokenizer;
use rand::Rng;

/// Draws crops.
#[derive(Debug, Clone)]
pub struct Cropper {
    config: CropConfig,
    /// Ids that may stand for others.
    words: Vec<u32>,
    mask: u32,
}

impl Cropper {
    /// Over a tokenizer's vocabulary.
    ///
    /// # Errors
    /// Masking without a mask token, replacing without words.
    pub fn new(config: &CropConfig, tokenizer: &Tokenizer) -> Result<Self> {
        let special = tokenizer.special_ids();
        let bad = |key: &str, why: &str| Err(Error::Config { key: key.into(), why: why.into() });
        let all = if config.replace > 0.0 { tokenizer.vocab_size() as u32 } else { 0 };
        let words: Vec<u32> = (0..all).filter(|id| special.all.binary_search(id).is_err()).collect();
        if config.replace > 0.0 && words.is_empty() {
            return bad("crops.replace", "the tokenizer has no words to replace others by");
        }
        if config.mask > 0.0 && special.mask.is_none() {
            return bad("crops.mask", "the tokenizer has no mask token");
        }
        Ok(Self { config: config.clone(), words, mask: special.mask.unwrap_or_default() })
    }

    /// A crop of `tokens` (at least one) with tokens deleted, replaced and masked: at least one token.
    pub fn crop(&self, tokens: &[u32], rng: &mut impl Rng) -> Vec<u32> {
        let c = &self.config;
        let ratio = c.ratio_min + (c.ratio_max - c.ratio_min) * rng.random::<f64>();
        let length = ((tokens.len() as f64 * ratio) as usize).clamp(1, tokens.len());
        let start = rng.random_range(0..=tokens.len() - length);
        let whole = &tokens[start..start + length];
        let mut out = Vec::with_capacity(length);
        for &token in whole {
            let draw: f64 = rng.random();
            if draw < c.delete {
                continue;
            }
            out.push(if draw < c.delete + c.replace {
                self.words[rng.random_range(0..self.words.len())]
            } else if draw < c.delete + c.replace + c.mask {
                self.mask
            } else {
                token
            });
        }
        if out.is_empty() {
            out.push(whole[rng.random_range(0..length)]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_text::{WordPieceOptions, train_wordpiece};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn tokenizer() -> Tokenizer {
        let corpus = ["alpha beta gamma delta", "epsilon zeta eta theta"];
        let options = WordPieceOptions { vocab_size: 90, min_frequency: 1, ..WordPieceOptions::default() };
        train_wordpiece(corpus, &options).unwrap()
    }

    fn crops(config: &CropConfig, tokens: &[u32], seed: u64) -> Vec<Vec<u32>> {
        let cropper = Cropper::new(config, &tokenizer()).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..2000).map(|_| cropper.crop(tokens, &mut rng)).collect()
    }

    #[test]
    fn crops_are_pieces_within_bounds_and_can_be_drawn_again() {
        let tokens: Vec<u32> = (1000..1100).collect();
        let config = CropConfig { ratio_min: 0.1, ratio_max: 0.3, delete: 0.0, ..CropConfig::default() };
        let all = crops(&config, &tokens, 1);
        for crop in &all {
            assert!((10..=30).contains(&crop.len()), "{}", crop.len());
            assert!(crop.windows(2).all(|w| w[1] == w[0] + 1) && crop[crop.len() - 1] < 1100);
        }
        let mean = all.iter().map(Vec::len).sum::<usize>() as f64 / 2000.0;
        assert!((mean - 19.5).abs() < 0.5, "{mean}");
        assert!(all.iter().any(|c| c[0] == 1000) && all.iter().any(|c| c.ends_with(&[1099])));
        assert_eq!(all, crops(&config, &tokens, 1));
        assert_ne!(all, crops(&config, &tokens, 2));
        // The whole, and never nothing.
        let whole = CropConfig { ratio_min: 1.0, ratio_max: 1.0, delete: 0.0, ..CropConfig::default() };
        assert_eq!(crops(&whole, &tokens, 1)[0], tokens);
        let harsh = CropConfig { ratio_min: 0.001, ratio_max: 0.01, delete: 0.9, ..CropConfig::default() };
        assert!(crops(&harsh, &tokens[..7], 1).iter().all(|c| c.len() == 1));
    }

    #[test]
    fn tokens_are_deleted_replaced_and_masked_as_often_as_asked() {
        let t = tokenizer();
        let tokens: Vec<u32> = (1000..1100).collect();
        let config = CropConfig { ratio_min: 1.0, ratio_max: 1.0, delete: 0.1, replace: 0.2, mask: 0.3 };
        let all = crops(&config, &tokens, 3).concat();
        let share = |f: &dyn Fn(u32) -> bool| all.iter().filter(|&&x| f(x)).count() as f64 / 200_000.0;
        let mask = t.mask_id().unwrap();
        let kept = share(&|x| x >= 1000);
        let replaced = share(&|x| x < 1000 && t.special_ids().all.binary_search(&x).is_err());
        assert!((kept - 0.4).abs() < 0.01 && (replaced - 0.2).abs() < 0.01, "{kept} {replaced}");
        assert!((share(&|x| x == mask) - 0.3).abs() < 0.01);
        assert!((all.len() as f64 / 200_000.0 - 0.9).abs() < 0.01);
    }
}
