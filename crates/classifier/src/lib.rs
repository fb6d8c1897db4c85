//! Sequence classification and regression: encoders and decoder-only models with a head, on texts and pairs of texts.
//!
//! [`Classifier`] reads and writes folders of transformers' `AutoModelForSequenceClassification`; [`recipe::train`] fine-tunes
//! one, whole or through an adapter; [`Scores`] measures it.

mod error;
mod labels;
mod loss;
mod model;
pub mod recipe;
mod sampling;
mod scores;

pub use error::{Error, Result};
pub use labels::{Answer, LabelSet, Target, Task};
pub use loss::{ClassWeights, ClassifierLoss};
pub use model::{Classifier, Text};
pub use sampling::balanced;
pub use scores::{Measure, Scores};
