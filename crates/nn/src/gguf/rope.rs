//! Scalings of rotary positions: keys and a tensor of factors in GGUF, `rope_parameters` at Hugging Face.

use super::config::Settings;
use crate::Result;
use ragduet_gguf::GgufFile;
use serde_json::{Map, Value, json};
use std::f64::consts::PI;

/// The tensor that divides the frequencies (Llama 3.1's scaling).
pub(super) const FACTORS: &str = "rope_freqs.weight";

/// `rope_parameters` of a file.
pub(super) fn read(file: &GgufFile, settings: &Settings<'_>, head_dim: i64) -> Result<Value> {
    let theta = settings.number("rope.freq_base")?.unwrap_or(10_000.0);
    let mut out = Map::new();
    out.insert("rope_theta".into(), json!(theta));
    let factor = settings.number("rope.scaling.factor")?.or(settings.number("rope.scale_linear")?);
    let factor = factor.filter(|&f| f != 0.0 && f != 1.0);
    // As llama.cpp: a factor without a type is linear.
    let kind = settings.text("rope.scaling.type")?.unwrap_or("linear");
    if file.tensor(FACTORS).is_some() {
        if factor.is_some() {
            return settings.unsupported("rope.scaling.factor", kind, &format!("without {FACTORS}"));
        }
        let factors = file.read(FACTORS)?;
        let Some(found) = Llama3::fit(&factors, theta, head_dim) else {
            return settings.unsupported(FACTORS, "factors", "those of Llama 3's scaling");
        };
        out.extend(found.json());
        return Ok(Value::Object(out));
    }
    match (kind, factor) {
        ("none", _) | ("linear" | "yarn", None) => drop(out.insert("rope_type".into(), "default".into())),
        ("linear", Some(factor)) => {
            out.insert("rope_type".into(), "linear".into());
            out.insert("factor".into(), json!(factor));
        }
        ("yarn", Some(factor)) => {
            for key in MAGNITUDES {
                if let Some(x) = settings.number(key)?.filter(|&x| x != 1.0) {
                    return settings.unsupported(key, x, "1");
                }
            }
            out.insert("rope_type".into(), "yarn".into());
            out.insert("factor".into(), json!(factor));
            if let Some(original) = settings.count("rope.scaling.original_context_length")? {
                out.insert("original_max_position_embeddings".into(), original.into());
            }
            for (key, theirs) in YARN {
                if let Some(x) = settings.number(key)? {
                    out.insert(theirs.into(), json!(x));
                }
            }
        }
        (other, _) => return settings.unsupported("rope.scaling.type", other, "none, linear or yarn"),
    }
    Ok(Value::Object(out))
}

/// Further numbers of YaRN.
pub(super) const YARN: [(&str, &str); 2] =
    [("rope.scaling.yarn_beta_fast", "beta_fast"), ("rope.scaling.yarn_beta_slow", "beta_slow")];

/// What multiplies llama.cpp's own magnitude of YaRN; 1 in every file of these families.
const MAGNITUDES: [&str; 4] = [
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_log_multiplier",
];

/// Llama 3.1's scaling: long waves are stretched by the factor, short ones kept, those between in part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Llama3 {
    pub factor: f64,
    pub low: f64,
    pub high: f64,
    pub original: f64,
}

impl Llama3 {
    /// By what each frequency is divided.
    pub fn factors(&self, theta: f64, head_dim: i64) -> Vec<f64> {
        let Self { factor, low, high, original } = *self;
        waves(theta, head_dim)
            .map(|wave| {
                if wave < original / high {
                    1.0
                } else if wave > original / low {
                    factor
                } else {
                    let smooth = (original / wave - low) / (high - low);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                }
            })
            .collect()
    }

    /// The settings that give these factors. Between the kept and the stretched waves 1 / factor is a line over 1 / wave, of
    /// which two points tell all but the unit of `low`, which is 1 in every model there is. Of fewer points `high` is taken to
    /// be 4, and without any the original length a power of 2.
    pub fn fit(factors: &[f32], theta: f64, head_dim: i64) -> Option<Self> {
        let given: Vec<f64> = factors.iter().map(|&x| x.into()).collect();
        if given.len() as i64 != head_dim / 2 || given.iter().any(|x| !x.is_finite() || *x < 1.0) {
            return None;
        }
        let factor = given.iter().copied().fold(1.0, f64::max);
        let usual = Self { factor, low: 1.0, high: 4.0, original: 8192.0 };
        let between: Vec<(f64, f64)> = waves(theta, head_dim)
            .zip(&given)
            .filter(|(_, f)| **f > 1.0 + 1e-6 && **f < factor * (1.0 - 1e-6))
            .map(|(wave, f)| (1.0 / wave, (1.0 / f - 1.0 / factor) / (1.0 - 1.0 / factor)))
            .collect();
        let tidy = |x: f64| if (x - x.round()).abs() < 1e-3 * x { x.round() } else { x };
        let fitted = match (between.first(), between.last()) {
            (Some(&(x0, y0)), Some(&(x1, y1))) if x0 != x1 => {
                let slope = (y1 - y0) / (x1 - x0);
                let below = slope * x0 - y0;
                vec![Self { factor, low: 1.0, high: tidy(1.0 + 1.0 / below), original: tidy(slope / below) }]
            }
            (Some(&(x, y)), _) => vec![Self { original: tidy((3.0 * y + 1.0) / x), ..usual }],
            _ => (4..=24).map(|n| Self { original: f64::from(1 << n), ..usual }).collect(),
        };
        let same = |candidate: &Self| {
            let made = candidate.factors(theta, head_dim);
            made.iter().zip(&given).all(|(a, b)| (a - b).abs() <= 1e-4 * b)
        };
        [usual].into_iter().chain(fitted).find(same)
    }

    fn json(&self) -> Map<String, Value> {
        let original = self.original.round() as i64;
        [
            ("rope_type", json!("llama3")),
            ("factor", json!(self.factor)),
            ("low_freq_factor", json!(self.low)),
            ("high_freq_factor", json!(self.high)),
            ("original_max_position_embeddings", json!(original)),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }
}

/// The lengths of the waves that the dimensions of a head rotate with.
fn waves(theta: f64, head_dim: i64) -> impl Iterator<Item = f64> {
    (0..head_dim).step_by(2).map(move |i| 2.0 * PI * theta.powf(i as f64 / head_dim as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_llama_3_are_found_again() {
        for (settings, theta, head_dim) in [
            (Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 }, 500_000.0, 128),
            (Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192.0 }, 500_000.0, 64),
            (Llama3 { factor: 4.0, low: 1.0, high: 3.0, original: 1024.0 }, 10_000.0, 64),
            // One wave between.
            (Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 64.0 }, 500.0, 8),
        ] {
            let factors: Vec<f32> = settings.factors(theta, head_dim).iter().map(|&x| x as f32).collect();
            assert_eq!(Llama3::fit(&factors, theta, head_dim), Some(settings));
        }
        // No wave between: any length there is gives the same.
        let settings = Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 128.0 };
        let factors: Vec<f32> = settings.factors(100_000.0, 6).iter().map(|&x| x as f32).collect();
        assert_eq!(factors, [1.0, 8.0, 8.0]);
        let found = Llama3::fit(&factors, 100_000.0, 6).unwrap();
        assert_eq!(found.factors(100_000.0, 6), [1.0, 8.0, 8.0]);
        // A table that no such settings make (longrope's).
        assert_eq!(Llama3::fit(&[1.0, 1.7, 1.2, 3.0], 10_000.0, 8), None);
        assert_eq!(Llama3::fit(&[1.0, f32::NAN], 10_000.0, 4), None);
    }
}
