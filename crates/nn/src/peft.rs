//! Parameter-efficient fine-tuning: a method is a file and a variant of [`PeftConfig`].
//!
//! Layers have slots. An adapter fills those that its config names; several adapters can be resident over one base, and
//! a pass names the one that acts ([`crate::Mode::adapter`]), so that none stays switched on by mistake. The base's
//! parameters are never written to, but by [`Adapter::merge`].
//!
//! Slots: `Linear`, `Embedding` and the models register themselves with the builder under their path, and a pass names
//! the adapter that acts. Nothing is switched on or off, so policy, reference and base can take turns over one set of
//! weights.

mod adapter;
mod bias;
mod bottleneck;
mod combine;
mod config;
mod fault;
mod format;
mod hub_format;
mod ia3;
mod lora;
mod replaced;
mod sites;
mod slot;
mod soft;
mod targets;
mod tokens;

pub use crate::adapter_id::AdapterId;
pub use adapter::{Adapter, Base, Merged};
pub(crate) use bias::OwnBias;
pub(crate) use bottleneck::{BottleneckSlot, SubLayer};
pub use combine::Combination;
pub use config::{
    BottleneckConfig, BottleneckKind, Ia3Config, LoraBias, LoraConfig, LoraInit, PeftConfig, PrefixConfig,
    PromptConfig, PromptInit, TokenRows,
};
pub use format::{TaskType, base_of, is_adapter_dir, kept_as};
pub use sites::Sites;
pub use slot::{EmbeddingAdapter, LinearAdapter, Slot};
pub(crate) use soft::{SoftPass, SoftShape, SoftSlot};
pub use targets::Targets;
pub(crate) use targets::is_inner;
