//! Rotary positions (Su et al., 2021, arXiv 2104.09864) and the scalings of them that transformers 5.3 has: linear,
//! dynamic, yarn, llama3 and longrope.
//!
//! Dynamic scaling is a function of each text's own length. transformers 5.3 keeps the frequencies of a text longer
//! than the original length for later short texts (findings/dynamic_rope.sh).

use crate::Result;
use crate::config_source::ConfigSource;
use ragduet_torch::ops::Segments;
use ragduet_torch::{Device, Kind, Tensor};
use serde_json::{Map, Value};
use std::f64::consts::PI;

/// cos and sin of the angles, [tokens, rotated / 2] each, f32.
pub(crate) type Angles = (Tensor, Tensor);

/// Frequencies of the rotated dimensions.
#[derive(Debug)]
pub(crate) struct Rope {
    /// [rotated / 2], f32.
    inverse: Tensor,
    /// Multiplies cos and sin (yarn, longrope).
    magnitude: f64,
    dynamic: Option<Dynamic>,
    long: Option<Long>,
}

/// Other frequencies for texts that are longer than those of pre-training (LongRoPE: Ding et al., 2024, arXiv 2402.13753).
#[derive(Debug)]
struct Long {
    /// [rotated / 2], f32.
    inverse: Tensor,
    /// The longest text that the usual frequencies are for.
    original: i64,
}

/// Frequencies that depend on the length of the text, beyond the length of pre-training.
#[derive(Debug)]
struct Dynamic {
    theta: f64,
    factor: f64,
    positions: i64,
    rotated: i64,
}

/// What a model's config says, besides the scaling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RopeShape {
    /// Dimensions of a head that rotate.
    pub rotated: i64,
    /// `max_position_embeddings`.
    pub positions: i64,
    /// The base where the config names none.
    pub theta: f64,
}

impl Rope {
    /// From `rope_parameters` (transformers 5) or `rope_scaling` and `rope_theta`.
    ///
    /// # Errors
    /// On a scaling that is not known here, or one that lacks a number.
    pub fn build(source: &ConfigSource<'_>, shape: RopeShape, device: Device) -> Result<Self> {
        let theta = source.number("rope_theta").unwrap_or(shape.theta);
        Self::with(source, &parameters(source), RopeShape { theta, ..shape }, device)
    }

    /// From one set of parameters, of a config that has several.
    ///
    /// # Errors
    /// As [`Rope::build`].
    pub fn with(
        source: &ConfigSource<'_>,
        given: &Map<String, Value>,
        shape: RopeShape,
        device: Device,
    ) -> Result<Self> {
        let number = |key: &str| given.get(key).and_then(Value::as_f64);
        let needed = |key: &str| match number(key) {
            Some(x) => Ok(x),
            None => source.unsupported("rope_parameters", &format!("this scaling needs `{key}`")),
        };
        let theta = number("rope_theta").unwrap_or(shape.theta);
        let kind = ["rope_type", "type"].iter().find_map(|k| given.get(*k)).and_then(Value::as_str);
        let mut inverse = frequencies(theta, shape.rotated);
        let original = source
            .number("original_max_position_embeddings")
            .or_else(|| number("original_max_position_embeddings"))
            .unwrap_or(shape.positions as f64);
        let (mut magnitude, mut dynamic, mut long) = (1.0, None, None);
        match kind.unwrap_or("default") {
            "default" => {}
            "linear" => {
                let factor = needed("factor")?;
                inverse.iter_mut().for_each(|f| *f /= factor);
            }
            "dynamic" => {
                dynamic = Some(Dynamic {
                    theta,
                    factor: needed("factor")?,
                    positions: shape.positions,
                    rotated: shape.rotated,
                });
            }
            "llama3" => {
                let (factor, low, high) =
                    (needed("factor")?, needed("low_freq_factor")?, needed("high_freq_factor")?);
                inverse.iter_mut().for_each(|f| *f = llama3(*f, factor, low, high, original));
            }
            "yarn" => {
                let factor = number("factor").unwrap_or(shape.positions as f64 / original);
                magnitude = yarn_magnitude(factor, &number);
                let range = yarn_range(given, theta, shape.rotated, original);
                yarn(&mut inverse, factor, range);
            }
            "longrope" => {
                let factors = |key: &str| -> Result<Vec<f64>> {
                    let list = given.get(key).and_then(Value::as_array);
                    let numbers: Option<Vec<f64>> = list.and_then(|l| l.iter().map(Value::as_f64).collect());
                    match numbers.filter(|n| n.len() == inverse.len() && n.iter().all(|&f| f > 0.0)) {
                        Some(numbers) => Ok(numbers),
                        None => {
                            let what = format!("`{key}` with {} numbers above 0 for longrope", inverse.len());
                            source.unsupported("rope_parameters", &what)
                        }
                    }
                };
                let (short, far) = (factors("short_factor")?, factors("long_factor")?);
                let over = |factors: Vec<f64>| -> Vec<f64> {
                    inverse.iter().zip(factors).map(|(f, by)| f / by).collect()
                };
                long = Some(Long { inverse: tensor(&over(far), device), original: original as i64 });
                inverse = over(short);
                let factor = number("factor").unwrap_or(shape.positions as f64 / original);
                let usual = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / original.ln()).sqrt() };
                magnitude = number("attention_factor").unwrap_or(usual);
            }
            _ => {
                return source.unsupported(
                    "rope_parameters",
                    "rope_type default, linear, dynamic, yarn, llama3 or longrope",
                );
            }
        }
        Ok(Self { inverse: tensor(&inverse, device), magnitude, dynamic, long })
    }

    /// The angles of tokens at `positions` [tokens]; `lengths` are the texts' whole lengths, as dynamic scaling
    /// needs them (with a cache: including what it holds).
    pub fn angles(&self, positions: &Tensor, segments: &Segments, lengths: &[i64]) -> Angles {
        // A row of frequencies for each token, by the length of its text.
        let each = |of: &dyn Fn(i64) -> Tensor| {
            let rows = segments.lengths().zip(lengths).map(|(n, &whole)| of(whole).expand([n, -1], false));
            Tensor::cat(&rows.collect::<Vec<_>>(), 0)
        };
        let inverse = match (&self.dynamic, &self.long) {
            (Some(d), _) if lengths.iter().any(|&l| l > d.positions) => {
                each(&|whole| d.inverse(whole, positions.device()))
            }
            (_, Some(long)) if lengths.iter().any(|&l| l > long.original) => each(&|whole| {
                let far = whole > long.original;
                if far { long.inverse.shallow_clone() } else { self.inverse.shallow_clone() }
            }),
            _ => self.inverse.unsqueeze(0),
        };
        let angles = positions.to_kind(Kind::Float).unsqueeze(1) * inverse;
        let (cos, sin) = (angles.cos(), angles.sin());
        if self.magnitude == 1.0 { (cos, sin) } else { (cos * self.magnitude, sin * self.magnitude) }
    }
}

impl Dynamic {
    /// "NTK-aware" scaling: the base grows with the length.
    fn inverse(&self, length: i64, device: Device) -> Tensor {
        let ratio = length.max(self.positions) as f64 / self.positions as f64;
        let n = self.rotated as f64;
        let theta = self.theta * (self.factor * ratio - (self.factor - 1.0)).powf(n / (n - 2.0));
        tensor(&frequencies(theta, self.rotated), device)
    }
}

/// `rope_scaling` where it is given and not null, else `rope_parameters`, else nothing.
pub(crate) fn parameters(source: &ConfigSource<'_>) -> Map<String, Value> {
    let object = |key: &str| source.json.get(key).and_then(Value::as_object).filter(|m| !m.is_empty());
    object("rope_scaling").or_else(|| object("rope_parameters")).cloned().unwrap_or_default()
}

fn tensor(values: &[f64], device: Device) -> Tensor {
    Tensor::from_slice(&values.iter().map(|&f| f as f32).collect::<Vec<f32>>()).to_device(device)
}

fn frequencies(theta: f64, rotated: i64) -> Vec<f64> {
    (0..rotated).step_by(2).map(|i| theta.powf(-(i as f64) / rotated as f64)).collect()
}

/// Llama 3.1: long waves are stretched, short ones kept, those between interpolated.
fn llama3(f: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wave = 2.0 * PI / f;
    if wave < original / high {
        f
    } else if wave > original / low {
        f / factor
    } else {
        let smooth = (original / wave - low) / (high - low);
        (1.0 - smooth) * f / factor + smooth * f
    }
}

/// YaRN (Peng et al., 2023, arXiv 2309.00071): the factor of cos and sin.
fn yarn_magnitude(factor: f64, number: &dyn Fn(&str) -> Option<f64>) -> f64 {
    let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let nonzero = |key: &str| number(key).filter(|&x| x != 0.0);
    match (number("attention_factor"), nonzero("mscale"), nonzero("mscale_all_dim")) {
        (Some(given), ..) => given,
        (None, Some(m), Some(all)) => scale(m) / scale(all),
        _ => scale(1.0),
    }
}

/// Between which dimensions YaRN goes over from keeping frequencies to stretching them.
fn yarn_range(given: &Map<String, Value>, theta: f64, rotated: i64, original: f64) -> (f64, f64) {
    let number = |key: &str, default: f64| {
        given.get(key).and_then(Value::as_f64).filter(|&x| x != 0.0).unwrap_or(default)
    };
    let n = rotated as f64;
    let dimension = |turns: f64| n * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (dimension(number("beta_fast", 32.0)), dimension(number("beta_slow", 1.0)));
    if given.get("truncate").and_then(Value::as_bool).unwrap_or(true) {
        (low, high) = (low.floor(), high.ceil());
    }
    (low.max(0.0), high.min(n - 1.0))
}

fn yarn(inverse: &mut [f64], factor: f64, (low, high): (f64, f64)) {
    let width = if low == high { 0.001 } else { high - low };
    for (i, f) in inverse.iter_mut().enumerate() {
        let stretched = ((i as f64 - low) / width).clamp(0.0, 1.0);
        *f = *f / factor * stretched + *f * (1.0 - stretched);
    }
}
