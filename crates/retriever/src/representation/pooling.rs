//! From token states to one vector per text.

use ragduet_torch::ops::{Segments, segment_mean};
use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pooling of token states to one vector per text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// State of the first token.
    Cls,
    /// Greatest value of each number over all tokens.
    Max,
    /// Mean of all token states.
    Mean,
    /// Sum of all token states divided by the root of their number.
    MeanSqrtLen,
    /// Mean weighted by position: the first token counts 1, the n-th n.
    WeightedMean,
    /// State of the last token.
    LastToken,
}

impl std::str::FromStr for Pooling {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.iter().find(|(_, names)| names.contains(&s)).map(|(p, _)| *p).ok_or_else(|| {
            format!(
                "unknown pooling `{s}`: expected cls, max, mean, mean_sqrt_len, weighted_mean or last_token"
            )
        })
    }
}

impl Pooling {
    /// All, in the order in which sentence-transformers puts several one behind the other. Names: ours, those of its
    /// keys `pooling_mode_...`, those of its `pooling_mode`.
    pub(crate) const ALL: [(Self, &'static [&'static str]); 6] = [
        (Self::Cls, &["cls", "cls_token"]),
        (Self::Max, &["max", "max_tokens"]),
        (Self::Mean, &["mean", "mean_tokens"]),
        (Self::MeanSqrtLen, &["mean_sqrt_len", "mean_sqrt_len_tokens"]),
        (Self::WeightedMean, &["weighted_mean", "weightedmean_tokens", "weightedmean"]),
        (Self::LastToken, &["last_token", "lasttoken", "last-token"]),
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(p, _)| *p == self).map_or("", |(_, names)| names[0])
    }

    /// [tokens, n] -> [texts, n], f32. The first `skip` tokens of each text (a prompt's) are left out, but where the first
    /// or the last token alone counts.
    pub fn apply(self, states: &Tensor, segs: &Segments, skip: usize) -> Tensor {
        let offsets = segs.offsets();
        let device = states.device();
        let rows = |of: Vec<i64>| {
            states.index_select(0, &Tensor::from_slice(&of).to_device(device)).to_kind(Kind::Float)
        };
        // A text cut down to its prompt keeps its last token rather than dividing by zero.
        let kept: Vec<(i64, i64)> =
            offsets.windows(2).map(|w| ((w[0] + skip as i64).min(w[1] - 1), w[1])).collect();
        // What counts of each text.
        let counted = || {
            if skip == 0 {
                return (states.shallow_clone(), None);
            }
            let lengths: Vec<usize> = kept.iter().map(|(a, b)| (b - a) as usize).collect();
            (rows(kept.iter().flat_map(|&(a, b)| a..b).collect()), Some(Segments::new(&lengths, device)))
        };
        let column = |of: Vec<f32>| Tensor::from_slice(&of).to_device(device).unsqueeze(1);
        match self {
            Pooling::Cls => rows(offsets[..segs.len()].to_vec()),
            Pooling::LastToken => rows(offsets[1..].iter().map(|o| o - 1).collect()),
            Pooling::Mean => {
                let (states, own) = counted();
                segment_mean(&states, own.as_ref().unwrap_or(segs))
            }
            Pooling::MeanSqrtLen => {
                let (states, own) = counted();
                segment_mean(&states, own.as_ref().unwrap_or(segs))
                    * column(kept.iter().map(|(a, b)| ((b - a) as f32).sqrt()).collect())
            }
            Pooling::WeightedMean => {
                // Positions are those in the whole text.
                let weights = |&(start, (from, to)): &(i64, (i64, i64))| {
                    (from..to).map(move |at| (at - start + 1) as f32).collect::<Vec<_>>()
                };
                let places: Vec<_> = offsets.iter().copied().zip(kept.iter().copied()).collect();
                let all: Vec<Vec<f32>> = places.iter().map(weights).collect();
                let mean = |w: &Vec<f32>| w.iter().sum::<f32>() / w.len() as f32;
                let means = column(all.iter().map(mean).collect());
                let (states, own) = counted();
                let weighted = states.to_kind(Kind::Float) * column(all.concat());
                segment_mean(&weighted, own.as_ref().unwrap_or(segs)) / means
            }
            Pooling::Max => {
                let of = |&(from, to): &(i64, i64)| {
                    states.narrow(0, from, to - from).to_kind(Kind::Float).amax([0i64].as_slice(), false)
                };
                Tensor::stack(&kept.iter().map(of).collect::<Vec<_>>(), 0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_torch::Device;

    #[test]
    fn picks_the_right_rows() {
        let x = Tensor::arange(10, (Kind::Float, Device::Cpu)).view([5, 2]);
        let segs = Segments::new(&[2, 3], Device::Cpu);
        let get = |p: Pooling, skip| Vec::<f32>::try_from(p.apply(&x, &segs, skip).view(-1)).unwrap();
        assert_eq!(get(Pooling::Cls, 0), [0., 1., 4., 5.]);
        assert_eq!(get(Pooling::LastToken, 0), [2., 3., 8., 9.]);
        assert_eq!(get(Pooling::Mean, 0), [1., 2., 6., 7.]);
        assert_eq!(get(Pooling::Mean, 1), [2., 3., 7., 8.]);
        assert_eq!(get(Pooling::Mean, 9), [2., 3., 8., 9.]);
        assert_eq!(get(Pooling::Max, 0), [2., 3., 8., 9.]);
        assert_eq!(get(Pooling::Max, 1), [2., 3., 8., 9.]);
        let close = |got: Vec<f32>, want: [f32; 4]| {
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {want:?}");
        };
        let (two, three) = (2f32.sqrt(), 3f32.sqrt());
        close(get(Pooling::MeanSqrtLen, 0), [2. / two, 4. / two, 18. / three, 21. / three]);
        close(get(Pooling::MeanSqrtLen, 1), [2., 3., 14. / two, 16. / two]);
        // (0 + 2 * 2) / 3, (1 + 3 * 2) / 3, (4 + 6 * 2 + 8 * 3) / 6, (5 + 7 * 2 + 9 * 3) / 6.
        close(get(Pooling::WeightedMean, 0), [4. / 3., 7. / 3., 40. / 6., 46. / 6.]);
        // Without the first token the others keep their weights.
        close(get(Pooling::WeightedMean, 1), [2., 3., 36. / 5., 41. / 5.]);
    }
}
