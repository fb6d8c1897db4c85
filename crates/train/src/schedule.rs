//! Learning-rate schedules: warm-up, then linear, cosine or constant; equal to transformers'
//! `get_{linear,cosine,constant}_schedule_with_warmup`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What follows the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleConfig {
    /// Down to 0 in a line.
    #[default]
    Linear,
    /// Down to 0 along half a cosine.
    Cosine,
    /// Stays.
    Constant,
}

/// How long the learning rate rises from 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Warmup {
    /// This share of all steps.
    Ratio(f64),
    /// This many steps.
    Steps(u64),
}

impl Default for Warmup {
    fn default() -> Self {
        Self::Ratio(0.1)
    }
}

/// A schedule over a known number of steps.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    kind: ScheduleConfig,
    warmup: u64,
    total: u64,
}

impl Schedule {
    /// For `total` optimiser steps.
    pub fn new(kind: ScheduleConfig, warmup: Warmup, total: u64) -> Self {
        let warmup = match warmup {
            Warmup::Steps(n) => n,
            // transformers rounds up.
            Warmup::Ratio(r) => (r.clamp(0.0, 1.0) * total as f64).ceil() as u64,
        };
        Self { kind, warmup, total }
    }

    /// The factor of the base learning rate in the step after `done` finished ones.
    pub fn factor(&self, done: u64) -> f64 {
        if done < self.warmup {
            return done as f64 / self.warmup.max(1) as f64;
        }
        let left = (self.total - self.warmup.min(self.total)).max(1) as f64;
        let progress = ((done - self.warmup) as f64 / left).min(1.0);
        match self.kind {
            ScheduleConfig::Constant => 1.0,
            ScheduleConfig::Linear => 1.0 - progress,
            ScheduleConfig::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_transformers() {
        // [get_*_schedule_with_warmup(opt, 3, 10) at steps 0, 1, 3, 6, 10]
        let at = |kind| [0, 1, 3, 6, 10].map(|s| Schedule::new(kind, Warmup::Steps(3), 10).factor(s));
        let close = |a: [f64; 5], b: [f64; 5]| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-9);
        assert!(close(at(ScheduleConfig::Linear), [0.0, 1.0 / 3.0, 1.0, 4.0 / 7.0, 0.0]));
        assert!(close(at(ScheduleConfig::Constant), [0.0, 1.0 / 3.0, 1.0, 1.0, 1.0]));
        let cos = 0.5 * (1.0 + (std::f64::consts::PI * 3.0 / 7.0).cos());
        assert!(close(at(ScheduleConfig::Cosine), [0.0, 1.0 / 3.0, 1.0, cos, 0.0]));
    }

    #[test]
    fn no_warmup_and_one_step() {
        let s = Schedule::new(ScheduleConfig::Linear, Warmup::Ratio(0.0), 1);
        assert_eq!(s.factor(0), 1.0);
        assert_eq!(Schedule::new(ScheduleConfig::Linear, Warmup::Ratio(0.1), 54).warmup, 6);
    }
}
