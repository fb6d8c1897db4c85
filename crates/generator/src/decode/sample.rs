//! Sampling: the filtered distribution, in transformers' order (temperature, top-k, top-p, min-p), and the draw.
//!
//! Softmax and, with top-k, the selection run on the device; what is left of a row is filtered and drawn from on the CPU.
//! A row's draw comes from its own stream, so it does not depend on the other rows.

use super::{Decoding, Request};
use crate::error::{Error, Result};
use ragduet_torch::{Device, Kind, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A token that may be drawn, and its probability among those that may.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub token: u32,
    /// Its probability; a row's sum to 1.
    pub probability: f64,
}

/// How many ties of the k-th token are looked at before the whole row is read.
const TIES: i64 = 16;

/// The distribution that each row is sampled from, in the order of the tokens. `logits`: [rows, vocabulary].
///
/// # Errors
/// A row whose logits are all minus infinity, or no numbers.
pub fn filtered(logits: &Tensor, d: &Decoding) -> Result<Vec<Vec<Candidate>>> {
    let probabilities = (logits.to_kind(Kind::Float) / d.temperature).softmax(-1, Kind::Float);
    let [rows, vocab] = probabilities.size2().map_err(ragduet_torch::Error::from)?.into();
    let k = d.top_k as i64;
    if k > 0 && k + TIES < vocab {
        let (values, ids) = probabilities.topk(k + TIES, -1, true, true);
        let (values, ids) = (host(&values)?, host_ids(&ids)?);
        let width = (k + TIES) as usize;
        return (0..rows as usize)
            .map(|r| {
                let part = r * width..(r + 1) * width;
                let kept = &values[part.clone()];
                // As in transformers all tokens as likely as the k-th stay, and bf16 logits tie often.
                if kept[width - 1] == kept[d.top_k - 1] && kept[width - 1] > 0.0 {
                    return narrow(&host(&probabilities.get(r as i64))?, |t| t as u32, d);
                }
                narrow(kept, |i| ids[part.start + i] as u32, d)
            })
            .collect();
    }
    let all = host(&probabilities)?;
    all.chunks_exact(vocab as usize).map(|row| narrow(row, |t| t as u32, d)).collect()
}

fn host(t: &Tensor) -> Result<Vec<f32>> {
    Ok(t.to_device(Device::Cpu).contiguous().view(-1).try_into().map_err(ragduet_torch::Error::from)?)
}

fn host_ids(t: &Tensor) -> Result<Vec<i64>> {
    Ok(t.to_device(Device::Cpu).contiguous().view(-1).try_into().map_err(ragduet_torch::Error::from)?)
}

/// Filters one row: probabilities up to a factor, at least those of the top-k with ties, and whose they are.
fn narrow(row: &[f32], token: impl Fn(usize) -> u32, d: &Decoding) -> Result<Vec<Candidate>> {
    let (least, total) = if d.top_k == 0 { floor(row, d.top_p) } else { (0.0, 0.0) };
    let kept = row.iter().enumerate().filter(|(_, p)| **p > 0.0 && **p >= least);
    let mut kept: Vec<Candidate> =
        kept.map(|(i, &p)| Candidate { token: token(i), probability: f64::from(p) }).collect();
    if kept.is_empty() {
        return Err(Error::Decoding(
            "no token can be drawn: the logits are not numbers or all ruled out".into(),
        ));
    }
    if d.top_k > 0 && d.top_k < kept.len() {
        let (_, last, _) = kept.select_nth_unstable_by(d.top_k - 1, likelier_first);
        let least = last.probability;
        kept.retain(|c| c.probability >= least);
    }
    if d.top_p < 1.0 {
        let mass = if d.top_k == 0 { total } else { kept.iter().map(|c| c.probability).sum() };
        nucleus(&mut kept, d.top_p * mass);
    }
    if d.min_p > 0.0 {
        let least = d.min_p * kept.iter().map(|c| c.probability).fold(0.0, f64::max);
        kept.retain(|c| c.probability >= least);
    }
    kept.sort_unstable_by_key(|c| c.token);
    let total: f64 = kept.iter().map(|c| c.probability).sum();
    kept.iter_mut().for_each(|c| c.probability /= total);
    Ok(kept)
}

fn likelier_first(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.probability.total_cmp(&a.probability).then(a.token.cmp(&b.token))
}

/// A probability below which top-p cuts for certain, and the row's mass: most of a vocabulary need not be sorted, nor
/// even copied. One pass: the mass per power of two.
fn floor(row: &[f32], top_p: f64) -> (f32, f64) {
    if top_p >= 1.0 {
        return (0.0, 0.0);
    }
    let mut masses = [0.0f64; 256];
    for &p in row.iter().filter(|p| **p > 0.0) {
        masses[(p.to_bits() >> 23) as usize & 255] += f64::from(p);
    }
    let total: f64 = masses.iter().sum();
    // A little more than is wanted, against rounding between sums in different orders.
    let wanted = top_p * total * (1.0 + 1e-9);
    let mut mass = 0.0;
    let exponent = (0..256).rev().find(|&e| {
        mass += masses[e];
        mass >= wanted
    });
    (f32::from_bits((exponent.unwrap_or(0) as u32) << 23), total)
}

/// Keeps the likeliest until they have the `wanted` mass. Sorts no more of the row than it must.
fn nucleus(kept: &mut Vec<Candidate>, wanted: f64) {
    let mut sorted = 64.min(kept.len());
    loop {
        if sorted < kept.len() {
            kept.select_nth_unstable_by(sorted - 1, likelier_first);
        }
        kept[..sorted].sort_unstable_by(likelier_first);
        let mut mass = 0.0;
        let enough = kept[..sorted].iter().position(|c| {
            mass += c.probability;
            mass >= wanted
        });
        if let Some(last) = enough {
            return kept.truncate(last + 1);
        }
        if sorted == kept.len() {
            return;
        }
        sorted = (sorted * 8).min(kept.len());
    }
}

/// The token at `u`, in [0, 1), of the cumulated distribution.
pub(super) fn at(candidates: &[Candidate], u: f64) -> u32 {
    let mut mass = 0.0;
    let hit = candidates.iter().find(|c| {
        mass += c.probability;
        mass > u
    });
    // Rounding may leave the sum a little short of u.
    hit.or(candidates.last()).map_or(0, |c| c.token)
}

/// The stream that a sequence draws from.
#[derive(Debug, Clone)]
pub(super) struct Stream(ChaCha8Rng);

impl Stream {
    pub(super) fn new(d: &Decoding, request: &Request, sequence: usize) -> Self {
        let mut key = [0u8; 16];
        key[..8].copy_from_slice(&d.seed.to_le_bytes());
        key[8..].copy_from_slice(&request.seed.to_le_bytes());
        let mut rng = ChaCha8Rng::seed_from_u64(xxhash_rust::xxh3::xxh3_64(&key));
        rng.set_stream(sequence as u64);
        Self(rng)
    }

    pub(super) fn uniform(&mut self) -> f64 {
        self.0.random::<f64>()
    }
}
