//! Architectures, adapters and quantised weights against their references.

mod classifiers;
mod decoder_encoders;
mod encoder_decoders;
mod goldens;
mod language_models;
mod parity;
mod peft;
mod peft_extras;
mod peft_memory;
mod quantised;
mod recompute;
