//! Losses, decoding and recipes of generators on small models.

mod bertscore;
mod choices;
mod contexts;
mod decode;
mod distil;
mod distil_loss;
mod distil_memory;
mod entailment;
mod few_shot;
mod gguf;
mod losses;
mod peft;
mod preference;
mod quantised;
mod seq2seq;
mod sft;
