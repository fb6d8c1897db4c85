//! The best value so far, and whether waiting for a better one is still worth it.

use crate::checked;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Early stopping.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopConfig {
    /// Evaluations without improvement after which training stops.
    pub patience: u32,
    /// Minimum improvement that counts.
    #[serde(default, deserialize_with = "checked::not_negative")]
    pub min_gain: f64,
}

/// Which way a measure gets better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Up: ndcg, recall, accuracy.
    #[default]
    Max,
    /// Down: losses, perplexity.
    Min,
}

/// Follows a measure. Part of a checkpoint, so that a resumed run waits no longer than one that was not stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    /// The best value so far.
    pub best: Option<f64>,
    /// The step it was reached at.
    pub best_step: u64,
    /// Evaluations since.
    pub waited: u32,
}

impl EarlyStopping {
    /// Takes a new value of a measure that should rise; whether it is the best so far.
    pub fn update(&mut self, value: f64, step: u64, min_gain: f64) -> bool {
        self.update_towards(Goal::Max, value, step, min_gain)
    }

    /// Takes a new value; whether it is the best so far. NaN and infinity never are: they could not be beaten.
    pub fn update_towards(&mut self, goal: Goal, value: f64, step: u64, min_gain: f64) -> bool {
        let gains = |best: f64| match goal {
            Goal::Max => value > best + min_gain,
            Goal::Min => value < best - min_gain,
        };
        let better = value.is_finite() && self.best.is_none_or(gains);
        if better {
            *self = Self { best: Some(value), best_step: step, waited: 0 };
        } else {
            self.waited += 1;
        }
        better
    }

    /// Whether patience is at its end.
    pub fn should_stop(&self, config: Option<&StopConfig>) -> bool {
        config.is_some_and(|c| self.waited >= c.patience.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_and_stops() {
        let config = StopConfig { patience: 2, min_gain: 0.01 };
        let mut s = EarlyStopping::default();
        assert!(s.update(0.5, 1, config.min_gain));
        assert!(!s.update(0.505, 2, config.min_gain));
        assert!(!s.should_stop(Some(&config)));
        assert!(!s.update(f64::NAN, 3, config.min_gain));
        assert!(s.should_stop(Some(&config)) && !s.should_stop(None));
        assert!(s.update(0.6, 4, config.min_gain));
        assert_eq!((s.best_step, s.waited), (4, 0));
    }

    #[test]
    fn losses_fall() {
        let mut s = EarlyStopping::default();
        let mut step = 0;
        let mut take = |value| {
            step += 1;
            s.update_towards(Goal::Min, value, step, 0.1)
        };
        assert!(!take(f64::NEG_INFINITY));
        assert!(take(3.0) && !take(2.95) && !take(4.0) && take(2.5));
        assert_eq!((s.best, s.best_step), (Some(2.5), 5));
    }

    #[test]
    fn survives_a_checkpoint_and_checks_its_config() {
        let s = EarlyStopping { best: Some(0.1 + 0.2), best_step: 7, waited: 2 };
        let text = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<EarlyStopping>(&text).unwrap(), s);
        let e = toml::from_str::<StopConfig>("patience = 2\nmin_gain = -1").unwrap_err().to_string();
        assert!(e.contains("at least 0"), "{e}");
    }
}
