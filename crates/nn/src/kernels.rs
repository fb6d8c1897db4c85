//! The operations of language models, as `ragduet_torch::ops` fuses them.

pub(crate) use ragduet_torch::ops::{
    add_then_rms_norm, cache_write, cached_attention, rms_norm, rope, rope_split, swiglu, varlen_attention,
};
use ragduet_torch::{Tensor, ops};

/// x W^T + b, in x's dtype.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    ops::linear(x, weight, bias, false)
}
