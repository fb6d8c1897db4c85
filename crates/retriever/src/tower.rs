//! One side's encoder: a transformer, the modules after it, the adapter over it.

use crate::head::Head;
use crate::{Error, Result};
use ragduet_nn::peft::{Adapter, PeftConfig};
use ragduet_nn::{EncoderModel, Mode, PackedTokens};
use ragduet_torch::{Device, Tensor};

/// An encoder and what follows it.
#[derive(Debug)]
pub struct Tower {
    /// The transformer.
    pub model: EncoderModel,
    /// What follows pooled states, or those of tokens.
    pub head: Head,
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

    /// States, or what pooling made of them, through the modules that follow.
    pub(crate) fn project(&self, x: Tensor) -> Tensor {
        self.head.forward(x)
    }

    /// Size of what comes out, where pooling makes one vector of this many states.
    pub(crate) fn outputs(&self, poolings: usize) -> i64 {
        self.head.outputs(self.model.encoder.hidden_size() * poolings as i64)
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

    /// Whether the encoder is DeBERTa, whose attention has no tokens that only look.
    pub(crate) fn is_deberta(&self) -> bool {
        let kind = self.model.config.get("model_type").and_then(|kind| kind.as_str());
        kind.is_some_and(|kind| kind.starts_with("deberta"))
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
        encoder
            .map(|(n, p)| (n.to_string(), p.tensor.shallow_clone()))
            .chain(self.head.parameters())
            .map(move |(n, p)| (format!("{prefix}{n}"), p))
    }
}
