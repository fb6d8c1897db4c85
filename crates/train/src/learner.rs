//! An optimiser with its schedule: what turns gradients into a step.

use crate::groups::{check_patterns, is_frozen};
use crate::{Error, OptimizerConfig, Result, RunState, Schedule};
use ragduet_torch::optim::Optimizer;
use ragduet_torch::{Device, Tensor, grad};

/// Where a parameter stands in its model: what decides how fast it learns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// 0 for embeddings, 1..=layers for layers, `None` for a head.
    pub depth: Option<usize>,
    /// A factor of its learning rate.
    pub lr_scale: f64,
}

/// What an update came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// The learning rate of the step.
    pub lr: f64,
    /// The gradients' norm before clipping.
    pub grad_norm: f64,
}

/// Optimiser, schedule and the steps that they have done.
#[derive(Debug)]
pub struct Learner {
    pub(crate) optimizer: Optimizer,
    pub(crate) done: u64,
    config: OptimizerConfig,
    schedule: Schedule,
    on_cpu: bool,
}

impl Learner {
    /// Over those of `parameters` that no pattern of `optim.freeze` names; the others lose their gradients. `layers`: how
    /// many the model has. An adapter's parameters (`base_model.model.`) are placed like the module they belong to.
    ///
    /// # Errors
    /// A pattern that names nothing, nothing left to train, settings out of range.
    pub fn new(
        config: &OptimizerConfig,
        parameters: Vec<(String, Tensor)>,
        layers: usize,
        place: impl Fn(&str) -> Place,
    ) -> Result<Self> {
        check_patterns(&config.freeze, parameters.iter().map(|(n, _)| n.as_str()))?;
        for (name, p) in &parameters {
            let _ = p.set_requires_grad(!is_frozen(name, &config.freeze));
        }
        let training: Vec<(String, Tensor)> =
            parameters.into_iter().filter(|(_, p)| p.requires_grad()).collect();
        let Some((_, first)) = training.first() else {
            let message = "nothing is left to train".to_string();
            return Err(Error::Config { origin: "optim.freeze".into(), message });
        };
        let on_cpu = first.device() == Device::Cpu;
        let optimizer = Optimizer::new(&training, config.options()?, |name| {
            let place = place(name);
            let mut rule = config.rule(name, place.depth, layers);
            rule.lr_scale *= place.lr_scale;
            rule
        });
        let schedule = Schedule::new(config.schedule, config.warmup, 1);
        Ok(Self { optimizer, done: 0, config: config.clone(), schedule, on_cpu })
    }

    /// Lays the schedule over so many steps of this learner.
    pub fn plan(&mut self, total: u64) {
        self.schedule = Schedule::new(self.config.schedule, self.config.warmup, total);
    }

    /// Steps done.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// The learning rate of the next step.
    pub fn lr(&self) -> f64 {
        self.config.lr * self.schedule.factor(self.done)
    }

    /// Drops all gradients.
    ///
    /// # Errors
    /// libtorch's.
    pub fn clear(&self) -> Result<()> {
        Ok(self.optimizer.clear_grads()?)
    }

    /// Adds up the gradients of all processes, clips them and steps. `loss`: a scalar, of which only the CPU's is looked
    /// at here; a device's is when the log is written.
    ///
    /// # Errors
    /// A loss or a norm that is no number; nothing is changed then.
    pub fn update(&mut self, loss: &Tensor, run: &RunState) -> Result<Update> {
        let lr = self.lr();
        let bad = |what, value| Error::NotFinite {
            what,
            value,
            step: run.at.step + 1,
            lr,
            batch: crate::error::Batch::of(&run.examples),
        };
        let grads = self.optimizer.grads();
        run.world.sum_gradients(&grads);
        if self.on_cpu {
            let value = f64::try_from(loss).map_err(ragduet_torch::Error::from)?;
            if !value.is_finite() {
                return Err(bad("the loss", value));
            }
        }
        let grad_norm = if self.config.max_grad_norm > 0.0 {
            grad::clip_norm(&grads, self.config.max_grad_norm)?
        } else {
            grad::norm(&grads)?
        };
        if !grad_norm.is_finite() {
            return Err(bad("the gradient norm", grad_norm));
        }
        self.optimizer.step(lr)?;
        self.done += 1;
        Ok(Update { lr, grad_norm })
    }
}

/// The module that a parameter belongs to, whether of an adapter or of the model itself.
pub fn of_base(name: &str) -> &str {
    name.strip_prefix("base_model.model.").unwrap_or(name)
}
