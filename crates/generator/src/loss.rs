//! Losses of generators. They see log-probabilities, never a model.
//!
//! Supervised: [`SftLoss`]. From a teacher: [`DistilLoss`], which goes from hidden states over the vocabulary itself, since
//! it needs all of the distribution. Multiple choice: [`TfewLoss`]. Preferences: a file and a variant of
//! [`PreferenceLossKind`] each, all of them a function of a [`PreferenceBatch`] giving [`RowLosses`]; [`Preference`] adds
//! the likelihood term that some of them have and normalises over the accumulation window.

pub mod distil;
mod dpo;
mod ipo;
mod kto;
mod orpo;
mod preference;
mod sft;
mod simpo;
mod tfew;

pub use distil::{DistilLoss, Divergence};
pub use dpo::{Dpo, Hinge, Robust};
pub use ipo::Ipo;
pub use kto::Kto;
pub use orpo::Orpo;
pub use preference::{
    Likelihood, LikelihoodScope, Preference, PreferenceBatch, PreferenceLoss, PreferenceLossConfig,
    PreferenceLossKind, Reference, RewardMeans, RewardMetrics, RowLosses, Window,
};
pub use sft::SftLoss;
pub use simpo::SimPo;
pub use tfew::{TfewBatch, TfewLoss, TfewShares, TfewTotals, best_choice, choice_sums};
