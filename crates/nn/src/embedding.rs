//! Lookup tables, with a slot for an adapter.

use crate::peft::{EmbeddingAdapter, Slot};
use crate::{Mode, Result};
use ragduet_torch::{Init, ParamBuilder, Tensor};
use std::rc::Rc;

/// A lookup table. A clone is the same table.
#[derive(Debug, Clone)]
pub struct Embedding(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    weight: Tensor,
    adapters: Slot<dyn EmbeddingAdapter>,
}

impl Embedding {
    /// `weight` [rows, n].
    pub fn build(b: &ParamBuilder, rows: i64, n: i64, std: f64) -> Result<Self> {
        let weight = b.get("weight", &[rows, n], Init::Normal(std))?;
        let table = Self(Rc::new(Inner { weight, adapters: Slot::default() }));
        b.attach(table.clone());
        Ok(table)
    }

    /// The table, [rows, n].
    pub fn weight(&self) -> &Tensor {
        &self.0.weight
    }

    /// Where adapters go.
    pub(crate) fn slot(&self) -> &Slot<dyn EmbeddingAdapter> {
        &self.0.adapters
    }

    /// [tokens] of i64 -> [tokens, n] in f32.
    pub fn forward(&self, ids: &Tensor, m: Mode) -> Tensor {
        let rows = Tensor::embedding(&self.0.weight, ids, -1, false, false);
        match self.0.adapters.get(m.adapter) {
            Some(a) => a.output(ids, rows, m),
            None => rows,
        }
    }
}
