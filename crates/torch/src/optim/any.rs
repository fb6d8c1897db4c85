//! The optimisers as one type.

use super::{Adafactor, AdafactorOptions, AdamW, AdamWOptions, GroupRule};
use crate::weights::Weights;
use crate::{Result, Tensor};

/// Which optimiser, with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptimizerOptions {
    /// [`AdamW`].
    AdamW(AdamWOptions),
    /// [`Adafactor`].
    Adafactor(AdafactorOptions),
}

/// An optimiser over named parameters.
#[derive(Debug)]
pub enum Optimizer {
    /// AdamW.
    AdamW(AdamW),
    /// Adafactor.
    Adafactor(Adafactor),
}

impl Optimizer {
    /// An optimiser for these parameters; `rule` says for each name how fast it learns and decays.
    pub fn new(
        params: &[(String, Tensor)],
        options: OptimizerOptions,
        rule: impl Fn(&str) -> GroupRule,
    ) -> Self {
        match options {
            OptimizerOptions::AdamW(o) => Self::AdamW(AdamW::new(params, o, rule)),
            OptimizerOptions::Adafactor(o) => Self::Adafactor(Adafactor::new(params, o, rule)),
        }
    }

    fn params(&self) -> Vec<Tensor> {
        match self {
            Self::AdamW(o) => o.slots().map(|s| s.param.shallow_clone()).collect(),
            Self::Adafactor(o) => o.params().map(Tensor::shallow_clone).collect(),
        }
    }

    /// The gradients that are there now.
    pub fn grads(&self) -> Vec<Tensor> {
        self.params().iter().map(Tensor::grad).filter(Tensor::defined).collect()
    }

    /// Drops all gradients.
    pub fn clear_grads(&self) -> Result<()> {
        crate::grad::clear(&self.params())
    }

    /// One update with the base learning rate `lr`. Parameters without a gradient are left alone.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        match self {
            Self::AdamW(o) => o.step(lr),
            Self::Adafactor(o) => o.step(lr),
        }
    }

    /// What a resumed run needs, by name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        match self {
            Self::AdamW(o) => o.state(),
            Self::Adafactor(o) => o.state(),
        }
    }

    /// Restores what [`Optimizer::state`] gave, of the same optimiser over the same parameters.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn restore(&mut self, state: &Weights) -> Result<()> {
        match self {
            Self::AdamW(o) => o.restore(state),
            Self::Adafactor(o) => o.restore(state),
        }
    }
}
