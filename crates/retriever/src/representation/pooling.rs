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
    /// Mean of all token states.
    Mean,
    /// State of the last token.
    LastToken,
}

impl std::str::FromStr for Pooling {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "cls" => Ok(Self::Cls),
            "mean" => Ok(Self::Mean),
            "last_token" | "lasttoken" | "last-token" => Ok(Self::LastToken),
            _ => Err(format!("unknown pooling `{s}`: expected cls, mean or last_token")),
        }
    }
}

impl Pooling {
    /// [tokens, n] -> [texts, n], f32. The first `skip` tokens of each text (a prompt's) are left out of the mean.
    pub fn apply(self, states: &Tensor, segs: &Segments, skip: usize) -> Tensor {
        let offsets = segs.offsets();
        let rows = |of: Vec<i64>| {
            states.index_select(0, &Tensor::from_slice(&of).to_device(states.device())).to_kind(Kind::Float)
        };
        match self {
            Pooling::Cls => rows(offsets[..segs.len()].to_vec()),
            Pooling::LastToken => rows(offsets[1..].iter().map(|o| o - 1).collect()),
            Pooling::Mean if skip == 0 => segment_mean(states, segs),
            Pooling::Mean => {
                // A text cut down to its prompt keeps its last token rather than dividing by zero.
                let kept: Vec<(i64, i64)> =
                    offsets.windows(2).map(|w| ((w[0] + skip as i64).min(w[1] - 1), w[1])).collect();
                let lengths: Vec<usize> = kept.iter().map(|(a, b)| (b - a) as usize).collect();
                let all = kept.iter().flat_map(|&(a, b)| a..b).collect();
                segment_mean(&rows(all), &Segments::new(&lengths, states.device()))
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
    }
}
