//! Generators for RAG: the losses that train them, decoding, and the contexts that a training example shows.
//!
//! - [`loss`]: supervised and preference losses over log-probabilities; no model is known here.
//! - [`decode`]: greedy, sampled and beam decoding over a [`decode::Stepper`], with transformers' semantics.
//! - [`faithfulness`]: what answers owe to their contexts; [`entailment`]: whether these entail them, by a local model.
//! - [`contexts`]: which passages stand in a training prompt, as a pure function of (seed, epoch, example).
//! - [`learned`]: an example in words: what the model reads, what it learns.
//! - [`excerpt`]: gold passages cut to a few sentences in the first epochs.
//! - [`substitute`]: answer substitution in the passages, so that answers cannot be memorized.
//! - [`Generator`]: a model with its tokenizer; [`prepare`]: records to prompts and examples; [`answers`]: records to
//!   measured answers; [`mod@choices`]: records with choices to chosen answers; [`recipe`]: training.
//!
//! Generators do not know retrievers: between them stands a file of records (`ragduet_data::RagRecord`), which `ragduet
//! retrieve` writes, or `ragduet train generator --index` into the run folder. They know classifiers, because the judge
//! of entailment is one.

pub mod answers;
pub mod bertscore;
pub mod choices;
pub mod contexts;
pub mod decode;
pub mod entailment;
mod error;
pub mod excerpt;
pub mod faithfulness;
mod gguf;
pub mod learned;
pub mod loss;
mod model;
pub mod packed;
pub mod prepare;
pub mod recipe;
pub mod report;
mod scratch;
mod sources;
mod stepper;
pub mod substitute;
mod trained_with;

pub use error::{Error, Result};
pub use model::Generator;
pub use scratch::{AttentionStart, ScratchArchitecture, ScratchGenerator};
pub use trained_with::TrainedWith;
