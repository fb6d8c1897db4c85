//! Norms, embeddings and activations. Masters are f32.

use crate::peft::{OwnBias, Slot};
use crate::{Mode, Result, kernels};
use ragduet_torch::ops::{self, Norm};
use ragduet_torch::{Init, Kind, ParamBuilder, Tensor};
use std::rc::Rc;

/// Normalisation over the last dimension, in f32, with a slot for an adapter's bias. A clone is the same layer.
#[derive(Debug, Clone)]
pub struct LayerNorm(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f64,
    adapters: Slot<OwnBias>,
}

impl LayerNorm {
    /// `weight` [n] and, where asked for, `bias` [n].
    pub fn build(b: &ParamBuilder, n: i64, eps: f64, bias: bool) -> Result<Self> {
        let weight = b.get("weight", &[n], Init::Ones)?;
        let bias = if bias { Some(b.get("bias", &[n], Init::Zeros)?) } else { None };
        let norm = Self(Rc::new(Inner { weight, bias, eps, adapters: Slot::default() }));
        b.attach(norm.clone());
        Ok(norm)
    }

    /// [n].
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias.as_ref()
    }

    /// Where adapters go.
    pub(crate) fn slot(&self) -> &Slot<OwnBias> {
        &self.0.adapters
    }

    /// The bias that acts in a pass.
    fn acting(&self, m: Mode) -> Option<Tensor> {
        let own = self.0.adapters.get(m.adapter);
        own.map(|o| o.0.shallow_clone()).or_else(|| self.0.bias.as_ref().map(Tensor::shallow_clone))
    }

    fn parts<'a>(&'a self, bias: Option<&'a Tensor>) -> Norm<'a> {
        Norm { weight: &self.0.weight, bias, eps: self.0.eps }
    }

    /// The plain layer on f32 rows.
    pub fn forward(&self, x: &Tensor, m: Mode) -> Tensor {
        let n = self.0.weight.size()[0];
        x.layer_norm([n], Some(&self.0.weight), self.acting(m).as_ref(), self.0.eps, true)
    }

    /// Post-norm: LayerNorm(dropout(x) + residual), as (f32 rows, rows in x's dtype).
    pub fn add(&self, x: &Tensor, residual: &Tensor, dropout: f64, m: Mode) -> (Tensor, Tensor) {
        ops::add_norm(x, residual, &self.parts(self.acting(m).as_ref()), dropout)
    }

    /// Pre-norm: s = dropout(x) + residual, as (s in f32, LayerNorm(s) in x's dtype).
    pub fn add_then_norm(&self, x: &Tensor, residual: &Tensor, dropout: f64, m: Mode) -> (Tensor, Tensor) {
        ops::add_then_norm(x, residual, &self.parts(self.acting(m).as_ref()), dropout)
    }
}

/// Root-mean-square normalisation over the last dimension (Zhang & Sennrich, 2019, arXiv 1910.07467), in f32.
#[derive(Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
    /// Whether rows are multiplied with 1 + weight.
    offset: bool,
}

impl RmsNorm {
    /// `weight` [n].
    pub fn build(b: &ParamBuilder, n: i64, eps: f64) -> Result<Self> {
        Ok(Self { weight: b.get("weight", &[n], Init::Ones)?, eps, offset: false })
    }

    /// `weight` [n] that is stored less 1, as in Gemma: rows are multiplied with 1 + weight.
    pub fn build_offset(b: &ParamBuilder, n: i64, eps: f64) -> Result<Self> {
        Ok(Self { weight: b.get("weight", &[n], Init::Zeros)?, eps, offset: true })
    }

    /// What rows are multiplied with.
    fn factor(&self) -> Tensor {
        if self.offset { &self.weight + 1.0 } else { self.weight.shallow_clone() }
    }

    /// The plain layer; the result has x's dtype.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        kernels::rms_norm(x, &self.factor(), self.eps)
    }

    /// Pre-norm: s = dropout(x) + residual, as (s in f32, RmsNorm(s) in x's dtype).
    pub fn add_then_norm(&self, x: &Tensor, residual: &Tensor, dropout: f64) -> (Tensor, Tensor) {
        kernels::add_then_rms_norm(x, residual, &self.factor(), self.eps, dropout)
    }
}

/// Feed-forward activations, by the names of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
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
pub(crate) fn lower(x: &Tensor, m: Mode) -> Tensor {
    let kind = m.compute.kind();
    if kind == Kind::Float { x.shallow_clone() } else { x.to_kind(kind) }
}
