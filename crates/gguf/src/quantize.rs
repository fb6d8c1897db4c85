//! f32 to stored numbers: F32, F16, BF16 and Q8_0, with the bits that the `gguf` Python package and ggml's reference give.

use crate::{Error, Result, TensorType};
use half::{bf16, f16};

/// The bytes of a tensor's numbers.
///
/// # Errors
/// Types that are not written; numbers that are not finite or that F16 does not hold; for Q8_0 a number of numbers that is
/// no multiple of 32.
pub fn quantize(tensor: &str, kind: TensorType, numbers: &[f32]) -> Result<Vec<u8>> {
    let refuse = |reason: &str| Err(Error::Unwritable { tensor: tensor.into(), kind, reason: reason.into() });
    if numbers.iter().any(|x| !x.is_finite()) {
        return refuse("it holds NaN or infinity: the training that made it has diverged");
    }
    Ok(match kind {
        TensorType::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        TensorType::F16 => {
            if numbers.iter().any(|&x| f16::from_f32(x).is_infinite()) {
                return refuse("it holds numbers above 65504, the largest of F16; take BF16");
            }
            numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()
        }
        TensorType::Bf16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        TensorType::Q8_0 => {
            if !numbers.len().is_multiple_of(32) {
                return refuse("its size is no multiple of 32");
            }
            let mut out = Vec::with_capacity(numbers.len() / 32 * 34);
            for block in numbers.chunks_exact(32) {
                let d = block.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
                if f16::from_f32(d).is_infinite() {
                    return refuse("its numbers are too large for the scales, which are F16; take BF16");
                }
                let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
                out.extend(f16::from_f32(d).to_le_bytes());
                out.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
            }
            out
        }
        _ => return refuse("F32, F16, BF16 and Q8_0 are written"),
    })
}
