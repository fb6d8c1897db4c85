//! How good is a ranking or a generated text, and is one system better than another?
//!
//! Pure functions over ids, scores and texts; nothing here reads a model, and the crate never links libtorch.
//!
//! - [`Qrels`] are the judgements and [`Run`] is what a system returned. Both read the field's files (BEIR and
//!   TREC).
//! - [`evaluate`] computes [`Measure`]s per query and on average, equal to `trec_eval` (`pytrec_eval`) down to how
//!   ties are broken.
//! - Generated texts, each measure in a module with `score` for one [`Example`]'s texts and `corpus` for many, equal to
//!   its reference tool: [`answer`] (exact match and F1, SQuAD), [`rouge`], [`bleu`], [`chrf`], [`meteor`],
//!   [`bertscore`] (over the caller's vectors) and [`perplexity`] (from the caller's sums).
//! - [`faithfulness`]: how much of an answer its contexts account for, and whether it cites the right ones.
//! - [`classification`]: accuracy, precision, recall and F1 of classes; errors and correlations of numbers.
//! - [`significance`] says whether the difference between two systems could be chance.
//!
//! ```
//! use ragduet_metrics::{Measure, Qrels, Run, evaluate};
//!
//! let mut qrels = Qrels::new();
//! qrels.insert("q1", "d1", 2)?;
//! let mut run = Run::new();
//! run.insert("q1", vec![("d7".into(), 0.9), ("d1".into(), 0.8)])?;
//! let report = evaluate(&qrels, &run, &[Measure::Mrr { k: None }]);
//! assert_eq!(report.mean(Measure::Mrr { k: None }), Some(0.5));
//! # Ok::<(), ragduet_metrics::Error>(())
//! ```
//!
//! ```
//! use ragduet_metrics::{Example, answer, rouge};
//!
//! let example = Example { prediction: "the Eiffel tower".into(), references: vec!["Eiffel Tower, Paris".into()] };
//! let scores = answer::corpus(std::slice::from_ref(&example))?;
//! assert_eq!((scores.exact, scores.f1), (0.0, 0.8));
//! assert_eq!(rouge::corpus(&[example], false)?.mean.rouge2.recall, 0.5);
//! # Ok::<(), ragduet_metrics::Error>(())
//! ```

pub mod answer;
pub mod bertscore;
pub mod bleu;
pub mod chrf;
pub mod classification;
mod error;
pub mod faithfulness;
mod measure;
pub mod meteor;
pub mod perplexity;
pub mod porter;
mod qrels;
mod retrieval;
pub mod rouge;
mod run;
pub mod sentences;
pub mod significance;
mod text;
mod tsv;
pub mod wordnet;

pub use error::{Error, Result};
pub use measure::Measure;
pub use qrels::{Judgement, Qrels, QrelsLines};
pub use retrieval::{EvalOptions, Evaluation, MissingQueries, Scores, evaluate, evaluate_with};
pub use run::Run;
pub use text::{Example, spaced};
