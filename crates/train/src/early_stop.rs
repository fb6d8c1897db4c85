//! The best value so far, and whether waiting for a better one is still worth it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When to give up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopConfig {
    /// Evaluations without improvement before training stops.
    pub patience: u32,
    /// A smaller gain is none.
    #[serde(default)]
    pub min_gain: f64,
}

/// Follows a measure that should rise.
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
    /// Takes a new value; whether it is the best so far. NaN never is.
    pub fn update(&mut self, value: f64, step: u64, min_gain: f64) -> bool {
        let better = !value.is_nan() && self.best.is_none_or(|b| value > b + min_gain);
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
}
