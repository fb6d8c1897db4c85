//! The layers that architectures share. Masters are f32; [`Linear`] computes in the dtype of the forward pass.

use crate::{Result, kernels};
use ragduet_torch::ops::{self, Norm};
use ragduet_torch::{Compute, Device, Init, Kind, ParamBuilder, Tensor, grad_enabled};
use std::cell::RefCell;

/// y = x W^T + b.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    /// Whether the checkpoint holds [in, out], as GPT-2's does.
    transposed: bool,
    prepared: RefCell<Option<Prepared>>,
}

/// Operands in the compute dtype, joined where several layers share an input, kept between passes without gradients.
#[derive(Debug)]
struct Prepared {
    /// Dtype, number of layers joined, and how often their parameters had been changed.
    key: (Kind, usize, i64),
    operands: Operands,
}

/// Weight and bias.
type Operands = (Tensor, Option<Tensor>);

impl Linear {
    /// `weight` [out, in] and, where asked for, `bias` [out], under the builder's path.
    pub fn build(b: &ParamBuilder, inputs: i64, outputs: i64, bias: bool, std: f64) -> Result<Self> {
        let weight = b.get("weight", &[outputs, inputs], Init::Normal(std))?;
        let bias = if bias { Some(b.get("bias", &[outputs], Init::Zeros)?) } else { None };
        Ok(Self { bias, ..Self::of(weight) })
    }

    /// `weight` [in, out] and `bias` [out]: GPT-2's `Conv1D`.
    pub fn build_transposed(b: &ParamBuilder, inputs: i64, outputs: i64, std: f64) -> Result<Self> {
        let weight = b.get("weight", &[inputs, outputs], Init::Normal(std))?;
        let bias = Some(b.get("bias", &[outputs], Init::Zeros)?);
        Ok(Self { bias, transposed: true, ..Self::of(weight) })
    }

    /// Without a bias, of a weight [out, in] that may be shared: an output projection tied to the embedding.
    pub fn of(weight: Tensor) -> Self {
        Self { weight, bias: None, transposed: false, prepared: RefCell::default() }
    }

    /// The weight as the checkpoint holds it.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// [out, in], whatever the checkpoint's order.
    fn rows(&self) -> Tensor {
        if self.transposed { self.weight.tr() } else { self.weight.shallow_clone() }
    }

    /// [.., in] -> [.., out], computed and returned in the compute dtype.
    pub fn forward(&self, x: &Tensor, compute: Compute) -> Tensor {
        Self::forward_joined(&[self], x, compute)
    }

    /// As [`Linear::forward`], with the result in f32: logits.
    pub fn forward_wide(&self, x: &Tensor, compute: Compute) -> Tensor {
        let (weight, bias) = Self::operands(&[self], compute.kind());
        ops::linear(&x.to_kind(compute.kind()), &weight, bias.as_ref(), true)
    }

    /// Several projections of one input as one matrix product: [.., in] -> [.., sum of outs].
    pub fn forward_joined(parts: &[&Linear], x: &Tensor, compute: Compute) -> Tensor {
        let (weight, bias) = Self::operands(parts, compute.kind());
        kernels::linear(&x.to_kind(compute.kind()), &weight, bias.as_ref())
    }

    /// The layer and an activation: one pass over the result where the device and the moment allow it.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation, compute: Compute) -> Tensor {
        if activation == Activation::Gelu && x.device() == Device::Cpu && !grad_enabled() {
            let (weight, bias) = Self::operands(&[self], compute.kind());
            return ops::linear_gelu(&x.to_kind(compute.kind()), &weight, bias.as_ref());
        }
        activation.apply(&self.forward(x, compute))
    }

    fn operands(parts: &[&Linear], kind: Kind) -> Operands {
        let tensors = || parts.iter().flat_map(|l| std::iter::once(&l.weight).chain(&l.bias));
        let make = || {
            let join = |list: &[&Tensor]| match list {
                [one] => one.to_kind(kind),
                several => Tensor::cat(several, 0).to_kind(kind),
            };
            // Kernels for few rows want a transposed weight in its own order; what is kept is worth the copy.
            let tidy = |t: Tensor| {
                if grad_enabled() || t.device() != Device::Cpu { t } else { t.contiguous() }
            };
            let biases: Option<Vec<&Tensor>> = parts.iter().map(|l| l.bias.as_ref()).collect();
            let rows: Vec<Tensor> = parts.iter().map(|l| l.rows()).collect();
            (tidy(join(&rows.iter().collect::<Vec<_>>())), biases.map(|b| join(&b)))
        };
        let share = |(w, b): &Operands| (w.shallow_clone(), b.as_ref().map(Tensor::shallow_clone));
        let mut prepared = parts[0].prepared.borrow_mut();
        if grad_enabled() {
            *prepared = None;
            return make();
        }
        // Counts only grow, so their sum changes whenever one of them does.
        let key = (kind, parts.len(), tensors().map(ops::version).sum());
        match &*prepared {
            Some(p) if p.key == key => share(&p.operands),
            _ => share(&prepared.insert(Prepared { key, operands: make() }).operands),
        }
    }
}

/// Normalisation over the last dimension, in f32.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f64,
}

impl LayerNorm {
    /// `weight` [n] and, where asked for, `bias` [n].
    pub fn build(b: &ParamBuilder, n: i64, eps: f64, bias: bool) -> Result<Self> {
        let weight = b.get("weight", &[n], Init::Ones)?;
        let bias = if bias { Some(b.get("bias", &[n], Init::Zeros)?) } else { None };
        Ok(Self { weight, bias, eps })
    }

    fn parts(&self) -> Norm<'_> {
        Norm { weight: &self.weight, bias: self.bias.as_ref(), eps: self.eps }
    }

    /// The plain layer on f32 rows.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let n = self.weight.size()[0];
        x.layer_norm([n], Some(&self.weight), self.bias.as_ref(), self.eps, true)
    }

    /// Post-norm: LayerNorm(dropout(x) + residual), as (f32 rows, rows in x's dtype).
    pub fn add(&self, x: &Tensor, residual: &Tensor, dropout: f64) -> (Tensor, Tensor) {
        ops::add_norm(x, residual, &self.parts(), dropout)
    }

    /// Pre-norm: s = dropout(x) + residual, as (s in f32, LayerNorm(s) in x's dtype).
    pub fn add_then_norm(&self, x: &Tensor, residual: &Tensor, dropout: f64) -> (Tensor, Tensor) {
        ops::add_then_norm(x, residual, &self.parts(), dropout)
    }
}

/// Root-mean-square normalisation over the last dimension (Zhang & Sennrich, 2019, arXiv 1910.07467), in f32.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// `weight` [n].
    pub fn build(b: &ParamBuilder, n: i64, eps: f64) -> Result<Self> {
        Ok(Self { weight: b.get("weight", &[n], Init::Ones)?, eps })
    }

    /// The plain layer; the result has x's dtype.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        kernels::rms_norm(x, &self.weight, self.eps)
    }

    /// Pre-norm: s = dropout(x) + residual, as (s in f32, RmsNorm(s) in x's dtype).
    pub fn add_then_norm(&self, x: &Tensor, residual: &Tensor, dropout: f64) -> (Tensor, Tensor) {
        kernels::add_then_rms_norm(x, residual, &self.weight, self.eps, dropout)
    }
}

/// A lookup table.
#[derive(Debug)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// `weight` [rows, n].
    pub fn build(b: &ParamBuilder, rows: i64, n: i64, std: f64) -> Result<Self> {
        Ok(Self { weight: b.get("weight", &[rows, n], Init::Normal(std))? })
    }

    /// The table, [rows, n].
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// [tokens] of i64 -> [tokens, n] in f32.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.weight, ids, -1, false, false)
    }
}

/// Feed-forward activations, by the names of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
pub enum Activation {
    /// x * Phi(x).
    #[serde(rename = "gelu", alias = "gelu_python")]
    Gelu,
    /// The tanh approximation.
    #[serde(rename = "gelu_new", alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluTanh,
    /// max(0, x).
    #[serde(rename = "relu")]
    Relu,
    /// x * sigmoid(x).
    #[serde(rename = "silu", alias = "swish")]
    Silu,
}

impl Activation {
    /// Elementwise, in x's dtype.
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Activation::Gelu => ops::gelu(x),
            Activation::GeluTanh => x.gelu("tanh"),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
        }
    }
}

/// The compute-dtype copy of f32 rows (the rows themselves in f32 mode).
pub(crate) fn lower(x: &Tensor, compute: Compute) -> Tensor {
    if compute.kind() == Kind::Float { x.shallow_clone() } else { x.to_kind(compute.kind()) }
}
