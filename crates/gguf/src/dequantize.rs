//! Stored numbers to f32, in the order of operations of ggml and of the `gguf` Python package, so that the bits are theirs.

use crate::TensorType;
use half::{bf16, f16};

/// Appends the numbers of whole blocks.
pub(crate) fn dequantize(kind: TensorType, bytes: &[u8], out: &mut Vec<f32>) {
    let blocks = bytes.chunks_exact(kind.block().1);
    match kind {
        TensorType::F32 => out.extend(blocks.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        TensorType::F16 => out.extend(blocks.map(|b| half_at(b, 0))),
        TensorType::Bf16 => out.extend(blocks.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())),
        TensorType::Q4_0 => blocks.for_each(|b| q4_0(b, out)),
        TensorType::Q4_1 => blocks.for_each(|b| q4_1(b, out)),
        TensorType::Q5_0 => blocks.for_each(|b| q5_0(b, out)),
        TensorType::Q5_1 => blocks.for_each(|b| q5_1(b, out)),
        TensorType::Q8_0 => blocks.for_each(|b| q8_0(b, out)),
        TensorType::Q4K => blocks.for_each(|b| q4_k(b, out)),
        TensorType::Q5K => blocks.for_each(|b| q5_k(b, out)),
        TensorType::Q6K => blocks.for_each(|b| q6_k(b, out)),
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The lower halves of all bytes, then the upper ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|b| b & 0x0f).chain(bytes.iter().map(|b| b >> 4))
}

/// The same, with a fifth bit each.
fn five_bits(high: &[u8], low: &[u8]) -> impl Iterator<Item = u8> {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    nibbles(low).enumerate().map(move |(i, q)| q | (((high >> i) & 1) as u8) << 4)
}

fn q4_0(b: &[u8], out: &mut Vec<f32>) {
    let d = half_at(b, 0);
    out.extend(nibbles(&b[2..]).map(|q| d * f32::from(q as i8 - 8)));
}

fn q4_1(b: &[u8], out: &mut Vec<f32>) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    out.extend(nibbles(&b[4..]).map(|q| d * f32::from(q) + m));
}

fn q5_0(b: &[u8], out: &mut Vec<f32>) {
    let d = half_at(b, 0);
    out.extend(five_bits(&b[2..6], &b[6..]).map(|q| d * f32::from(q as i8 - 16)));
}

fn q5_1(b: &[u8], out: &mut Vec<f32>) {
    let (d, m) = (half_at(b, 0), half_at(b, 2));
    out.extend(five_bits(&b[4..8], &b[8..]).map(|q| d * f32::from(q) + m));
}

fn q8_0(b: &[u8], out: &mut Vec<f32>) {
    let d = half_at(b, 0);
    out.extend(b[2..].iter().map(|&q| f32::from(q as i8) * d));
}

/// Scales and minima of the eight groups: six bits each, packed into twelve bytes.
fn scales_and_minima(packed: &[u8]) -> [(f32, f32); 8] {
    std::array::from_fn(|i| {
        let (scale, minimum) = if i < 4 {
            (packed[i] & 63, packed[i + 4] & 63)
        } else {
            (
                (packed[i + 4] & 0x0f) | ((packed[i - 4] >> 6) << 4),
                (packed[i + 4] >> 4) | ((packed[i] >> 6) << 4),
            )
        };
        (f32::from(scale), f32::from(minimum))
    })
}

fn q4_k(b: &[u8], out: &mut Vec<f32>) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let groups = scales_and_minima(&b[4..16]);
    // Every 32 bytes hold two groups.
    for (pair, bytes) in b[16..].chunks_exact(32).enumerate() {
        for (half, shift) in [(0, 0), (1, 4)] {
            let (scale, minimum) = groups[2 * pair + half];
            let (scale, minimum) = (d * scale, dmin * minimum);
            out.extend(bytes.iter().map(|q| scale * f32::from((q >> shift) & 0x0f) - minimum));
        }
    }
}

fn q5_k(b: &[u8], out: &mut Vec<f32>) {
    let (d, dmin) = (half_at(b, 0), half_at(b, 2));
    let groups = scales_and_minima(&b[4..16]);
    let (high, low) = b[16..].split_at(32);
    for (pair, bytes) in low.chunks_exact(32).enumerate() {
        for (half, shift) in [(0, 0), (1, 4)] {
            let group = 2 * pair + half;
            let (scale, minimum) = groups[group];
            let (scale, minimum) = (d * scale, dmin * minimum);
            let five = bytes.iter().zip(high).map(|(q, h)| ((q >> shift) & 0x0f) | ((h >> group) & 1) << 4);
            out.extend(five.map(|q| scale * f32::from(q) - minimum));
        }
    }
}

fn q6_k(b: &[u8], out: &mut Vec<f32>) {
    let (low, rest) = b.split_at(128);
    let (high, rest) = rest.split_at(64);
    let (scales, d) = rest.split_at(16);
    let d = half_at(d, 0);
    // Two halves of 128 numbers, each of four runs of 32 that share bytes.
    for part in 0..2 {
        let (low, high) = (&low[64 * part..64 * (part + 1)], &high[32 * part..32 * (part + 1)]);
        for run in 0..4 {
            let low = &low[32 * (run % 2)..];
            for i in 0..32 {
                let scale = d * f32::from(scales[8 * part + 2 * run + i / 16] as i8);
                let four = (low[i] >> (4 * (run / 2))) & 0x0f;
                let two = (high[i] >> (2 * run)) & 3;
                out.push(scale * f32::from((four | two << 4) as i8 - 32));
            }
        }
    }
}
