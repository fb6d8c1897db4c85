//! Linear layers, with a slot for an adapter. Masters are f32; products run in the dtype of the forward pass.
//!
//! Between passes without gradients a layer keeps its operands in the compute dtype, joined where layers share an
//! input, and notices changed masters by libtorch's version counters (the fused AdamW, which does not count as a
//! change, is made to).

use crate::adapter_id::AdapterId;
use crate::layers::Activation;
use crate::peft::{LinearAdapter, Slot};
use crate::{Mode, Result, kernels};
use ragduet_torch::ops;
use ragduet_torch::{Bits, Device, Init, Kind, Matrix, ParamBuilder, Quantised, Tensor, grad_enabled, quant};
use std::cell::RefCell;
use std::rc::Rc;

/// y = x W^T + b, or what the adapter that the pass names makes of it. A clone is the same layer.
#[derive(Debug, Clone)]
pub struct Linear(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    weight: Matrix,
    bias: Option<Tensor>,
    /// Whether the checkpoint holds [in, out], as GPT-2's does.
    transposed: bool,
    prepared: RefCell<Option<Prepared>>,
    adapters: Slot<dyn LinearAdapter>,
}

/// Operands in the compute dtype, joined where several layers share an input, kept between passes that do not train
/// them.
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
        let weight = b.matrix(&[outputs, inputs], false, Init::Normal(std))?;
        let bias = if bias { Some(b.get("bias", &[outputs], Init::Zeros)?) } else { None };
        Ok(Self::new(b, weight, bias, false))
    }

    /// `weight` [in, out] and `bias` [out]: GPT-2's `Conv1D`.
    pub fn build_transposed(b: &ParamBuilder, inputs: i64, outputs: i64, std: f64) -> Result<Self> {
        let weight = b.matrix(&[inputs, outputs], true, Init::Normal(std))?;
        let bias = Some(b.get("bias", &[outputs], Init::Zeros)?);
        Ok(Self::new(b, weight, bias, true))
    }

    /// Without a bias, of a weight [out, in] that belongs to another layer: an output projection tied to the embedding.
    pub fn tied(b: &ParamBuilder, weight: &Tensor) -> Self {
        Self::new(b, Matrix::Master(weight.shallow_clone()), None, false)
    }

    /// Without a bias and without a place for adapters, of a weight [out, in] that belongs to another layer: what stands for
    /// an output projection where there is none.
    pub(crate) fn aside(weight: &Tensor) -> Self {
        let weight = Matrix::Master(weight.shallow_clone());
        let prepared = RefCell::default();
        Self(Rc::new(Inner { weight, bias: None, transposed: false, prepared, adapters: Slot::default() }))
    }

    fn new(b: &ParamBuilder, weight: Matrix, bias: Option<Tensor>, transposed: bool) -> Self {
        let inner =
            Inner { weight, bias, transposed, prepared: RefCell::default(), adapters: Slot::default() };
        let layer = Self(Rc::new(inner));
        b.attach(layer.clone());
        layer
    }

    /// The parameter, as the checkpoint holds it; None where codes are kept in its place.
    pub fn master(&self) -> Option<&Tensor> {
        match &self.0.weight {
            Matrix::Master(t) => Some(t),
            Matrix::Quantised(_) => None,
        }
    }

    /// The codes that are kept in place of the weight.
    pub fn quantised(&self) -> Option<&Quantised> {
        match &self.0.weight {
            Matrix::Master(_) => None,
            Matrix::Quantised(q) => Some(q),
        }
    }

    /// Outputs and inputs.
    pub fn size(&self) -> [i64; 2] {
        match &self.0.weight {
            Matrix::Quantised(q) => q.size(),
            Matrix::Master(t) => {
                let size = t.size();
                if self.0.transposed { [size[1], size[0]] } else { [size[0], size[1]] }
            }
        }
    }

    /// Whether values are made of codes for each product; bf16 is multiplied as it is.
    fn is_coded(&self) -> bool {
        self.quantised().is_some_and(|q| q.bits() != Bits::Bf16)
    }

    /// [out].
    pub fn bias(&self) -> Option<&Tensor> {
        self.0.bias.as_ref()
    }

    /// [out, in] in f32, whatever the checkpoint's order; of codes what they stand for.
    pub fn rows(&self) -> Tensor {
        match &self.0.weight {
            Matrix::Quantised(q) => q.values(Kind::Float),
            Matrix::Master(t) if self.0.transposed => t.tr(),
            Matrix::Master(t) => t.shallow_clone(),
        }
    }

    /// Whether the checkpoint holds [in, out].
    pub fn is_transposed(&self) -> bool {
        self.0.transposed
    }

    /// Where adapters go.
    pub(crate) fn slot(&self) -> &Slot<dyn LinearAdapter> {
        &self.0.adapters
    }

    /// The weight [out, in] and bias that act in a pass: the layer's own, or with the adapter worked in.
    pub fn effective(&self, adapter: Option<AdapterId>) -> (Tensor, Option<Tensor>) {
        let bias = self.0.bias.as_ref();
        match self.0.adapters.get(adapter) {
            None => (self.rows(), bias.map(Tensor::shallow_clone)),
            Some(a) => a.merged(&self.rows(), bias),
        }
    }

    /// [rows, in] -> [rows, out], computed and returned in the compute dtype.
    pub fn forward(&self, x: &Tensor, m: Mode) -> Tensor {
        Self::forward_joined(&[self], x, m)
    }

    /// As [`Linear::forward`], with the result in f32: logits.
    pub fn forward_wide(&self, x: &Tensor, m: Mode) -> Tensor {
        if self.0.adapters.get(m.adapter).is_some() || self.is_coded() {
            return self.forward(x, m).to_kind(Kind::Float);
        }
        let kind = m.compute.kind();
        let (weight, bias) = Self::operands(&[self], kind);
        ops::linear(&x.to_kind(kind), &weight, bias.as_ref(), true)
    }

    /// Several projections of one input as one matrix product: [rows, in] -> [rows, sum of outs].
    pub fn forward_joined(parts: &[&Linear], x: &Tensor, m: Mode) -> Tensor {
        let x = x.to_kind(m.compute.kind());
        let adapters: Vec<_> = parts.iter().map(|l| l.0.adapters.get(m.adapter)).collect();
        if adapters.iter().all(Option::is_none) {
            return Self::product(parts, &x);
        }
        let changed: Vec<_> = adapters.iter().map(|a| a.as_ref().and_then(|a| a.input(&x))).collect();
        let own: Vec<Tensor> = if changed.iter().all(Option::is_none) {
            let sizes: Vec<i64> = parts.iter().map(|l| l.size()[0]).collect();
            let whole = Self::product(parts, &x);
            if parts.len() == 1 { vec![whole] } else { whole.split_with_sizes(&sizes, -1) }
        } else {
            let inputs = changed.iter().map(|c| c.as_ref().unwrap_or(&x));
            parts.iter().zip(inputs).map(|(l, x)| Self::product(&[l], x)).collect()
        };
        let mut out: Vec<Tensor> = own
            .into_iter()
            .zip(parts.iter().zip(&adapters))
            .map(|(y, (layer, adapter))| match adapter {
                Some(a) => a.output(layer, &x, y, m),
                None => y,
            })
            .collect();
        if out.len() == 1 { out.remove(0) } else { Tensor::cat(&out, -1) }
    }

    /// The layer and an activation: one pass over the result where the device and the moment allow it.
    pub fn forward_activated(&self, x: &Tensor, activation: Activation, m: Mode) -> Tensor {
        let plain = !self.is_coded() && self.0.adapters.get(m.adapter).is_none();
        if activation == Activation::Gelu && plain && x.device() == Device::Cpu && !grad_enabled() {
            let kind = m.compute.kind();
            let (weight, bias) = Self::operands(&[self], kind);
            return ops::linear_gelu(&x.to_kind(kind), &weight, bias.as_ref());
        }
        activation.apply(&self.forward(x, m))
    }

    /// The product without adapters, in x's dtype.
    pub(crate) fn product(parts: &[&Linear], x: &Tensor) -> Tensor {
        let codes: Vec<&Quantised> = parts.iter().filter_map(|l| l.quantised()).collect();
        let halves = codes.len() == parts.len() && !parts.iter().any(|l| l.is_coded());
        if codes.is_empty() || halves {
            let (weight, bias) = Self::operands(parts, x.kind());
            return kernels::linear(x, &weight, bias.as_ref());
        }
        if codes.len() < parts.len() {
            let each: Vec<Tensor> = parts.iter().map(|l| Self::product(&[l], x)).collect();
            return Tensor::cat(&each, -1);
        }
        let biases: Option<Vec<&Tensor>> = parts.iter().map(|l| l.0.bias.as_ref()).collect();
        let bias = biases.map(|b| Tensor::cat(&b, 0).to_kind(x.kind()));
        // The values are made for this product, and again in the backward pass: keeping them would be keeping the weight.
        if grad_enabled() {
            quant::linear(x, &codes, bias.as_ref())
        } else {
            kernels::linear(x, &Quantised::joined(&codes, x.kind()), bias.as_ref())
        }
    }

    fn operands(parts: &[&Linear], kind: Kind) -> Operands {
        let join = |list: &[&Tensor]| match list {
            [one] => one.to_kind(kind),
            several => Tensor::cat(several, 0).to_kind(kind),
        };
        let biases = || {
            let all: Option<Vec<&Tensor>> = parts.iter().map(|l| l.0.bias.as_ref()).collect();
            all.map(|b| join(&b))
        };
        let halves: Vec<&Quantised> = parts.iter().filter_map(|l| l.quantised()).collect();
        if !halves.is_empty() {
            return (Quantised::joined(&halves, kind), biases());
        }
        let tensors = || parts.iter().flat_map(|l| l.master().into_iter().chain(&l.0.bias));
        let trains = grad_enabled() && tensors().any(Tensor::requires_grad);
        let make = || {
            // Kernels for few rows want a transposed weight in its own order; what is kept is worth the copy.
            let tidy = |t: Tensor| if trains || t.device() != Device::Cpu { t } else { t.contiguous() };
            let rows: Vec<Tensor> = parts.iter().map(|l| l.rows()).collect();
            (tidy(join(&rows.iter().collect::<Vec<_>>())), biases())
        };
        let share = |(w, b): &Operands| (w.shallow_clone(), b.as_ref().map(Tensor::shallow_clone));
        let mut prepared = parts[0].0.prepared.borrow_mut();
        if trains {
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
