//! One side's encoder: a transformer, the projection after it, the adapter over it.

use crate::{Error, Result};
use ragduet_nn::peft::{Adapter, PeftConfig};
use ragduet_nn::{EncoderModel, Mode, PackedTokens};
use ragduet_torch::{Device, Init, ParamBuilder, ParamStore, Tensor};

/// Activations of a projection, as sentence-transformers names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseActivation {
    /// None.
    Identity,
    /// tanh.
    Tanh,
}

/// A projection after pooling: y = act(x W^T + b).
#[derive(Debug)]
pub struct Dense {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
    pub(crate) activation: DenseActivation,
    pub(crate) params: ParamStore,
}

impl Dense {
    /// From a builder at `linear`: `weight` [outputs, inputs], `bias` [outputs].
    pub(crate) fn build(
        b: ParamBuilder,
        (inputs, outputs): (i64, i64),
        bias: bool,
        activation: DenseActivation,
    ) -> Result<Self> {
        let at = b.at("linear");
        let bound = 1.0 / (inputs as f64).sqrt();
        let weight = at.get("weight", &[outputs, inputs], Init::Uniform(bound))?;
        let bias = if bias { Some(at.get("bias", &[outputs], Init::Uniform(bound))?) } else { None };
        let (params, _) = b.finish(|_| false, |_| false)?;
        Ok(Self { weight, bias, activation, params })
    }

    /// A new projection without bias or activation.
    pub fn fresh(inputs: i64, outputs: i64, device: Device) -> Result<Self> {
        // A fresh builder reports everything as missing only where there was a checkpoint.
        Self::build(ParamBuilder::fresh(device), (inputs, outputs), false, DenseActivation::Identity)
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let y = x.linear(&self.weight, self.bias.as_ref());
        match self.activation {
            DenseActivation::Identity => y,
            DenseActivation::Tanh => y.tanh(),
        }
    }

    /// Whether it learns.
    pub fn trains(&self) -> bool {
        self.weight.requires_grad()
    }

    /// Size of the result.
    pub fn outputs(&self) -> i64 {
        self.weight.size()[0]
    }
}

/// An encoder and what follows it.
#[derive(Debug)]
pub struct Tower {
    /// The transformer.
    pub model: EncoderModel,
    /// The projection, where there is one.
    pub dense: Option<Dense>,
    /// What acts over the transformer, where something does.
    pub adapter: Option<Adapter>,
    /// The folder that an adapter names as its base; empty for a transformer that is nowhere yet.
    pub base: String,
}

impl Tower {
    /// Token states [tokens, hidden], of the transformer with its adapter.
    pub(crate) fn states(&self, batch: &PackedTokens, mode: Mode) -> Tensor {
        self.model.encoder.forward(batch, self.mode(mode))
    }

    /// A pass's mode with the adapter that acts in this tower.
    pub(crate) fn mode(&self, mode: Mode) -> Mode {
        mode.with(self.adapter.as_ref().map(|a| a.id))
    }

    /// The projection, where there is one.
    pub(crate) fn project(&self, x: Tensor) -> Tensor {
        match &self.dense {
            Some(dense) => dense.forward(&x),
            None => x,
        }
    }

    /// Size of projected states.
    pub(crate) fn outputs(&self) -> i64 {
        self.dense.as_ref().map_or_else(|| self.model.encoder.hidden_size(), Dense::outputs)
    }

    /// Puts a new adapter over the transformer, which no longer trains itself. Draws from the global generators.
    ///
    /// # Errors
    /// A transformer that has one, or that is in no folder that the adapter could name; settings that do not fit it.
    pub fn adapt(&mut self, config: &PeftConfig, device: Device) -> Result<()> {
        let why = if self.adapter.is_some() {
            "the base has an adapter: go on with it without [peft], or merge it into its base (`ragduet merge`)"
        } else if self.model.mlm_head.is_some() {
            "a sparse model learns whole: leave [peft] out"
        } else if self.base.is_empty() {
            "an adapter goes over a trained model: give model.base"
        } else {
            self.model.params.set_trainable(|_| false);
            self.adapter = Some(Adapter::fresh(self.model.base(device)?, config)?);
            return Ok(());
        };
        Err(Error::Config { key: "peft".into(), why: why.into() })
    }

    /// The longest text: the encoder's positions but those that an adapter takes.
    pub(crate) fn max_tokens(&self) -> usize {
        self.model.encoder.max_tokens().saturating_sub(self.soft_tokens())
    }

    /// Positions that a soft prompt or prefix takes.
    pub(crate) fn soft_tokens(&self) -> usize {
        self.adapter.as_ref().map_or(0, |a| a.config.places())
    }

    /// Merges the adapter into the transformer, which is then one like any other, in no folder yet.
    ///
    /// # Errors
    /// An adapter that is no change of weights.
    pub fn merge(&mut self) -> Result<()> {
        if let Some(a) = &self.adapter {
            a.merge(&self.model.params)?;
            self.adapter = None;
            self.base.clear();
        }
        Ok(())
    }

    /// Number of scalars that do not train because an adapter does.
    pub(crate) fn resting(&self) -> u64 {
        if self.adapter.is_some() { self.model.params.count().0 } else { 0 }
    }

    /// What is trained and saved: the adapter's parameters in place of the transformer's, where there is one.
    pub(crate) fn parameters(&self, prefix: &str) -> impl Iterator<Item = (String, Tensor)> {
        let encoder = self.adapter.as_ref().map_or(&self.model.params, |a| &a.params).iter();
        let dense = self.dense.iter().flat_map(|d| d.params.iter().map(|(n, p)| (format!("dense.{n}"), p)));
        encoder
            .map(|(n, p)| (n.to_string(), p))
            .chain(dense)
            .map(move |(n, p)| (format!("{prefix}{n}"), p.tensor.shallow_clone()))
    }
}
