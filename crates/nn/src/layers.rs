//! The layers that architectures share. Masters are f32; [`Linear`] computes in the dtype of the forward pass.

use crate::Result;
use ragduet_torch::ops::{self, Norm};
use ragduet_torch::{Compute, Init, Kind, ParamBuilder, Tensor};

/// y = x W^T + b.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// `weight` [out, in] and, where asked for, `bias` [out], under the builder's path.
    pub fn build(b: &ParamBuilder, inputs: i64, outputs: i64, bias: bool, std: f64) -> Result<Self> {
        let weight = b.get("weight", &[outputs, inputs], Init::Normal(std))?;
        let bias = if bias { Some(b.get("bias", &[outputs], Init::Zeros)?) } else { None };
        Ok(Self { weight, bias })
    }

    /// [.., in] -> [.., out], computed and returned in the compute dtype.
    pub fn forward(&self, x: &Tensor, compute: Compute) -> Tensor {
        product(x, &self.weight, self.bias.as_ref(), compute)
    }

    /// Several projections of one input as one matrix product: [.., in] -> [.., sum of outs].
    pub fn forward_joined(parts: &[&Linear], x: &Tensor, compute: Compute) -> Tensor {
        let weight = Tensor::cat(&parts.iter().map(|l| &l.weight).collect::<Vec<_>>(), 0);
        let biases: Option<Vec<&Tensor>> = parts.iter().map(|l| l.bias.as_ref()).collect();
        product(x, &weight, biases.map(|b| Tensor::cat(&b, 0)).as_ref(), compute)
    }
}

fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, compute: Compute) -> Tensor {
    let kind = compute.kind();
    x.to_kind(kind).linear(&weight.to_kind(kind), bias.map(|b| b.to_kind(kind)).as_ref())
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
