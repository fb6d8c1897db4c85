//! Layers, architectures (one file each) and their Hugging Face checkpoints.
//!
//! Encoders work on packed rows: the tokens of a batch lie one after another, without padding, and only attention
//! sees where one text ends (see [`PackedTokens`]). A text alone therefore gives the same result as in a batch.

pub mod arch;
mod encoder;
mod error;
pub mod hub;
mod layers;
mod model_dir;

pub use encoder::{Encoder, Mode, PackedTokens};
pub use error::{Error, Result};
pub use layers::{Activation, Embedding, LayerNorm, Linear};
pub use model_dir::{EncoderModel, fresh_encoder, load_encoder, save_encoder};
