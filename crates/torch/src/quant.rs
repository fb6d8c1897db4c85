//! Frozen weights in 16, 8 or 4 bits, for adapters over models that do not fit otherwise (QLoRA; Dettmers et al., 2023,
//! arXiv 2305.14314).
//!
//! bf16 is no rounding beyond what a product in bf16 does: it is kept instead of f32 wherever the base is frozen and
//! compute is bf16. Weights that are multiplied with one input then lie one below the other in one tensor, of which each
//! is a part.
//!
//! Codes are made on the CPU, wherever they are then kept, and hold what bitsandbytes' do. Values are made of them again
//! for each product, in the dtype of the product.
//!
//! A quantized weight is a `Matrix` of its own under the parameter's name: `Linear` computes its values for each
//! product, and its autograd function computes them again for the gradient, so that neither the cache of operands nor
//! the graph holds them. Loading quantizes tensor by tensor. Codes lie in [out, in], also for checkpoints that hold
//! [in, out].
//!
//! bitsandbytes 0.50.2 is the reference, but for two things: its look-up of the scales' 8-bit codes takes the farther
//! neighbor where two are nearly as far (one scale in some hundred, by one step), and its AVX-512 kernel dequantizes
//! wrongly where blocks cross rows.

use crate::{Compute, Device, Kind, Result, Tensor, ffi};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::ptr::null_mut;

/// How a frozen weight is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bits {
    /// bf16.
    Bf16,
    /// 8 bits, each row by its largest magnitude: 8.1 to 8.3 bits a weight.
    Int8,
    /// 4 bits of a normal distribution's quantiles, in blocks of 64 whose scales have 8 bits: 4.13 bits a weight.
    Nf4,
}

/// The setting: what frozen weights are kept as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quantize {
    /// No quantization: f32.
    #[default]
    None,
    /// 8-bit integers with a scale per row.
    Int8,
    /// 4-bit NormalFloat with double quantization (QLoRA).
    Nf4,
}

impl Quantize {
    /// None: not at all.
    pub fn bits(self) -> Option<Bits> {
        match self {
            Quantize::None => None,
            Quantize::Int8 => Some(Bits::Int8),
            Quantize::Nf4 => Some(Bits::Nf4),
        }
    }

    /// How weights are kept that do not train and whose values nothing but products in `compute` needs.
    pub fn frozen(self, compute: Compute) -> Option<Bits> {
        self.bits().or((compute == Compute::Bf16).then_some(Bits::Bf16))
    }
}

impl std::str::FromStr for Quantize {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s {
            "none" => Ok(Quantize::None),
            "int8" => Ok(Quantize::Int8),
            "nf4" => Ok(Quantize::Nf4),
            _ => Err(format!("`{s}`: none, int8 or nf4")),
        }
    }
}

impl Bits {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Bits::Bf16 => "bf16",
            Bits::Int8 => "int8",
            Bits::Nf4 => "nf4",
        }
    }
}

/// A weight [rows, columns] as codes and scales.
#[derive(Debug)]
pub struct Quantised {
    bits: Bits,
    rows: i64,
    columns: i64,
    /// Bf16: [rows, columns]. Int8: [rows * columns] of i8. Nf4: two a byte, [32 * blocks], the last block filled up.
    codes: Tensor,
    /// Bf16: how many weights from this one on lie in one tensor, and that tensor.
    joined: RefCell<Option<(usize, Tensor)>>,
    /// Bf16: empty. Int8: f32 [rows], of a code of 1. Nf4: u8 [blocks], of the dynamic data type.
    scales: Tensor,
    /// Nf4: f32 [blocks / 256], and the mean that the scales were taken less.
    nested: Option<Tensor>,
    offset: f64,
}

impl Quantised {
    /// The codes of a weight [rows, columns] of any floating-point dtype, kept on `device`.
    ///
    /// # Errors
    /// A weight that is no matrix or has numbers that are not finite.
    pub fn new(weight: &Tensor, bits: Bits, device: Device) -> Result<Self> {
        if bits == Bits::Bf16 {
            return Self::bf16(weight, device);
        }
        let weight = weight.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
        let (mut codes, mut scales, mut nested) = (null_mut(), null_mut(), null_mut());
        let mut offset = 0.0;
        // SAFETY: the handle is valid for the call; results are adopted only on success, `nested` only where made.
        ffi::check(unsafe {
            let nf4 = (bits == Bits::Nf4).into();
            ffi::rd_quantise(ffi::handle(&weight), nf4, &mut codes, &mut scales, &mut nested, &mut offset)
        })?;
        let (codes, scales) = (ffi::adopt(codes), ffi::adopt(scales));
        let nested = (!nested.is_null()).then(|| ffi::adopt(nested));
        let (rows, columns) = weight.size2()?;
        Ok(Self {
            bits,
            rows,
            columns,
            codes: codes.f_to_device(device)?,
            joined: RefCell::default(),
            scales: scales.f_to_device(device)?,
            nested: nested.map(|t| t.f_to_device(device)).transpose()?,
            offset,
        })
    }

    fn bf16(weight: &Tensor, device: Device) -> Result<Self> {
        let (rows, columns) = weight.size2()?;
        let codes = weight.f_detach()?.f_to_kind(Kind::BFloat16)?.f_to_device(device)?.f_contiguous()?;
        let (bits, joined) = (Bits::Bf16, RefCell::default());
        let scales = Tensor::f_empty([0], (Kind::Float, device))?;
        Ok(Self { bits, rows, columns, codes, joined, scales, nested: None, offset: 0.0 })
    }

    /// Bf16 weights of one number of columns as one matrix [sum of rows, columns], in the dtype of the weights. From then
    /// on they are parts of it: nothing is held twice.
    ///
    /// # Panics
    /// With other columns, no weights, or weights that are not in bf16.
    pub fn in_one(parts: &[&Quantised]) -> Tensor {
        let first = parts.first().expect("at least one weight");
        assert!(
            parts.iter().all(|p| p.bits == Bits::Bf16 && p.columns == first.columns),
            "bf16 of one width"
        );
        if parts.len() == 1 {
            return first.codes.shallow_clone();
        }
        let mut joined = first.joined.borrow_mut();
        if let Some((_, whole)) = joined.as_ref().filter(|(n, _)| *n == parts.len()) {
            return whole.shallow_clone();
        }
        let _guard = crate::no_grad();
        let whole = Tensor::cat(&parts.iter().map(|p| &p.codes).collect::<Vec<_>>(), 0);
        let mut row = 0;
        for part in parts {
            // Whoever holds the weight holds the part from now on.
            part.codes.shallow_clone().set_data(&whole.narrow(0, row, part.rows));
            row += part.rows;
        }
        *joined = Some((parts.len(), whole.shallow_clone()));
        whole
    }

    /// Rows and columns of the weight.
    pub fn size(&self) -> [i64; 2] {
        [self.rows, self.columns]
    }

    /// How it is kept.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Where.
    pub fn device(&self) -> Device {
        self.codes.device()
    }

    /// The codes, which are what is kept in place of the weight.
    pub fn codes(&self) -> &Tensor {
        &self.codes
    }

    /// Bytes of codes and scales.
    pub fn bytes(&self) -> u64 {
        let of = |t: &Tensor| t.numel() as u64 * t.kind().elt_size_in_bytes() as u64;
        of(&self.codes) + of(&self.scales) + self.nested.as_ref().map_or(0, of)
    }

    /// The weight [rows, columns] that the codes stand for.
    pub fn values(&self, kind: Kind) -> Tensor {
        Self::joined(&[self], kind)
    }

    /// Weights of one number of columns one below the other: [sum of rows, columns].
    ///
    /// # Panics
    /// With other columns, no weights, or weights of both kinds.
    pub fn joined(parts: &[&Quantised], kind: Kind) -> Tensor {
        Self::dequantise(parts, kind, false)
    }

    fn dequantise(parts: &[&Quantised], kind: Kind, plain: bool) -> Tensor {
        if parts.first().is_some_and(|p| p.bits == Bits::Bf16) {
            return Self::in_one(parts).to_kind(kind);
        }
        let list = Handles::of(parts);
        let mut out = null_mut();
        // SAFETY: `list` holds n valid handles and numbers each for the call; the result is adopted only on success.
        let status = unsafe {
            ffi::rd_dequantise(
                list.codes.as_ptr(),
                list.scales.as_ptr(),
                list.nested.as_ptr(),
                list.offsets.as_ptr(),
                list.rows.as_ptr(),
                parts.len(),
                list.columns,
                (kind == Kind::BFloat16).into(),
                plain.into(),
                &mut out,
            )
        };
        expect(status);
        ffi::adopt(out).to_kind(kind)
    }
}

/// x w^T + b with the weights one below the other: `x` [.., columns], `b` [sum of rows] of its dtype. The graph keeps
/// neither x nor the values: the backward pass, which gives gradients for `x` and `b`, makes them again.
///
/// # Panics
/// As [`Quantised::joined`], and on an x that does not fit.
pub fn linear(x: &Tensor, parts: &[&Quantised], b: Option<&Tensor>) -> Tensor {
    if parts.first().is_some_and(|p| p.bits == Bits::Bf16) {
        return x.linear(&Quantised::joined(parts, x.kind()), b);
    }
    let list = Handles::of(parts);
    let mut out = null_mut();
    // SAFETY: as in `dequantise`; the graph holds tensors of its own.
    let status = unsafe {
        ffi::rd_quantised_linear(
            ffi::handle(x),
            b.map_or(null_mut(), ffi::handle),
            list.codes.as_ptr(),
            list.scales.as_ptr(),
            list.nested.as_ptr(),
            list.offsets.as_ptr(),
            list.rows.as_ptr(),
            parts.len(),
            list.columns,
            &mut out,
        )
    };
    expect(status);
    ffi::adopt(out)
}

fn expect(status: i32) {
    if let Err(e) = ffi::check(status) {
        panic!("{e}");
    }
}

/// What the shim takes, list by list.
struct Handles {
    codes: Vec<*mut torch_sys::C_tensor>,
    scales: Vec<*mut torch_sys::C_tensor>,
    nested: Vec<*mut torch_sys::C_tensor>,
    offsets: Vec<f64>,
    rows: Vec<i64>,
    columns: i64,
}

impl Handles {
    fn of(parts: &[&Quantised]) -> Self {
        let first = parts.first().expect("at least one weight");
        assert!(
            parts.iter().all(|p| p.columns == first.columns && p.bits == first.bits),
            "weights of one kind and width"
        );
        Self {
            codes: parts.iter().map(|p| ffi::handle(&p.codes)).collect(),
            scales: parts.iter().map(|p| ffi::handle(&p.scales)).collect(),
            nested: parts.iter().map(|p| p.nested.as_ref().map_or(null_mut(), ffi::handle)).collect(),
            offsets: parts.iter().map(|p| p.offset).collect(),
            rows: parts.iter().map(|p| p.rows).collect(),
            columns: first.columns,
        }
    }
}

#[cfg(test)]
mod tests;
