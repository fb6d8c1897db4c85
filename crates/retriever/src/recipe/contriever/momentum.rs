//! The encoder of keys: a copy that follows the one that learns, as an exponential moving average.

use crate::biencoder::BiEncoder;
use crate::representation::Representation;
use crate::tower::Tower;
use crate::{Error, Result};
use ragduet_nn::fresh_encoder;
use ragduet_torch::{Tensor, no_grad};

/// A model whose parameters are moving averages of another's.
#[derive(Debug)]
pub struct KeyEncoder {
    model: BiEncoder,
    /// (own, followed), by pairs.
    pairs: Vec<(Tensor, Tensor)>,
    momentum: f64,
}

impl KeyEncoder {
    /// A copy of `model` as it is, that keeps `momentum` of itself in every step. `dropout`: of hidden states and of
    /// attention, instead of the model's own.
    ///
    /// # Errors
    /// A model with an adapter, two towers or late interaction.
    pub fn of(model: &BiEncoder, momentum: f64, dropout: (Option<f64>, Option<f64>)) -> Result<Self> {
        check(model)?;
        let mut copy = copy(model)?;
        copy.query_tower.model.encoder.set_dropout(dropout.0, dropout.1);
        let pairs = copy.parameters().into_iter().zip(model.parameters());
        let pairs: Vec<(Tensor, Tensor)> = pairs.map(|((_, own), (_, followed))| (own, followed)).collect();
        let _guard = no_grad();
        for (own, followed) in &pairs {
            let _ = own.set_requires_grad(false);
            own.shallow_clone().copy_(followed);
        }
        Ok(Self { model: copy, pairs, momentum })
    }

    /// The model.
    pub fn model(&self) -> &BiEncoder {
        &self.model
    }

    /// One step: own = momentum * own + (1 - momentum) * followed.
    pub fn follow(&self) {
        let _guard = no_grad();
        for (own, followed) in &self.pairs {
            let _ = own.shallow_clone().lerp_(followed, 1.0 - self.momentum);
        }
    }

    /// Its parameters, under names that set them apart from the followed model's.
    pub fn parameters(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.model.parameters().into_iter().map(|(name, p)| (format!("key_encoder.{name}"), p))
    }
}

/// Whether a model is what is trained here: one encoder, whole, with one vector a text.
pub(super) fn check(model: &BiEncoder) -> Result<()> {
    let why = if !model.is_shared() {
        "queries and keys are crops alike: one encoder is trained, and this has two towers"
    } else if model.query_tower.adapter.is_some() {
        "the encoder trains whole: work its adapter into its base first (`ragduet merge`)"
    } else {
        match model.representation() {
            Representation::Dense(_) => return Ok(()),
            Representation::LateInteraction(_) | Representation::Sparse(_) => {
                "one dense vector a text is trained, and this has late interaction or weighs words"
            }
        }
    };
    Err(Error::Config { key: "model.base".into(), why: why.into() })
}

/// A model of the same layout with weights of its own.
fn copy(model: &BiEncoder) -> Result<BiEncoder> {
    let tower = &model.query_tower;
    let encoder = fresh_encoder(tower.model.config.clone(), model.device)?;
    let head = tower.head.fresh_like(model.device)?;
    let tower = Tower { model: encoder, head, adapter: None, base: String::new() };
    let (tokenizer, settings) = (model.tokenizer.clone(), model.settings.clone());
    let (device, compute) = (model.device, model.compute);
    BiEncoder { query_tower: tower, passage_tower: None, tokenizer, settings, device, compute }.check()
}
