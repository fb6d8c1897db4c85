//! What can stand in a layer's slot, and the slot.

use crate::adapter_id::AdapterId;
use crate::{Linear, Mode};
use ragduet_torch::Tensor;
use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;

/// What an adapter does at a linear layer. Rows are in the compute dtype, parameters are f32.
pub trait LinearAdapter: Debug {
    /// What the layer takes in place of its input `x` [rows, in]; `None`: `x` itself.
    fn input(&self, x: &Tensor) -> Option<Tensor>;

    /// What the layer gives in place of `y` [rows, out], its product with what [`LinearAdapter::input`] says.
    fn output(&self, layer: &Linear, x: &Tensor, y: Tensor, m: Mode) -> Tensor;

    /// The weight [out, in] and bias of a layer that computes the same (without dropout), in the graph.
    fn merged(&self, rows: &Tensor, bias: Option<&Tensor>) -> (Tensor, Option<Tensor>);

    /// A0 [rank, in] and B0 [out, rank] of an update that is s (B A - B0 A0).
    fn start(&self) -> Option<(&Tensor, &Tensor)> {
        None
    }

    /// Whether nothing but the bias is another, so that the layer is none of the adapter's targets.
    fn is_bias_alone(&self) -> bool {
        false
    }

    /// Whether merging it needs a bias of the layer's.
    fn needs_bias(&self) -> bool {
        false
    }

    /// Whether the layer shares its weight with a table that has the same adapter.
    fn is_of_table_too(&self) -> bool {
        false
    }
}

/// What an adapter does at a lookup table.
pub trait EmbeddingAdapter: Debug {
    /// What `ids` [tokens] give in place of the base's rows [tokens, n].
    fn output(&self, ids: &Tensor, rows: Tensor, m: Mode) -> Tensor;

    /// The table that gives the same.
    fn merged(&self, table: &Tensor) -> Tensor;

    /// Whether a head that shares the table's weight has the same adapter.
    fn is_of_head_too(&self) -> bool {
        false
    }

    /// Whether some rows alone are others, so that the table is none of the adapter's targets.
    fn is_some_rows(&self) -> bool {
        false
    }
}

/// The adapters resident at one place. There are few: a list is as fast as a map.
#[derive(Debug)]
pub struct Slot<T: ?Sized>(RefCell<Vec<(AdapterId, Rc<T>)>>);

impl<T: ?Sized> Default for Slot<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T: ?Sized> Slot<T> {
    /// The one that a pass names, if it has something here.
    pub(crate) fn get(&self, id: Option<AdapterId>) -> Option<Rc<T>> {
        let id = id?;
        self.0.borrow().iter().find(|(i, _)| *i == id).map(|(_, t)| t.clone())
    }

    pub(super) fn put(&self, id: AdapterId, what: Rc<T>) {
        self.remove(id);
        self.0.borrow_mut().push((id, what));
    }

    pub(super) fn remove(&self, id: AdapterId) {
        self.0.borrow_mut().retain(|(i, _)| *i != id);
    }
}
