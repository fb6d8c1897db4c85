//! Diagnostics of joint training: entropy and divergence of the distributions over passages, retrieval collapse.
//!
//! Alarms are sentences in the log and in `metrics.jsonl`: one passage for most questions; answers no more likely given
//! their own passages than given another question's.

use ragduet_torch::{Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};

/// Entropy in nats of distributions [rows, k], the mean over rows: f64, left on the device.
pub fn entropy(p: &Tensor) -> Tensor {
    let p = p.detach().to_kind(Kind::Double);
    let rows = p.size()[0].max(1) as f64;
    -(&p * p.clamp_min(1e-300).log()).sum(Kind::Double) / rows
}

/// KL(p || q) in nats of distributions [rows, k], the mean over rows: f64, left on the device.
pub fn divergence(p: &Tensor, q: &Tensor) -> Tensor {
    let (p, q) = (p.detach().to_kind(Kind::Double), q.detach().to_kind(Kind::Double));
    let rows = p.size()[0].max(1) as f64;
    (&p * (p.clamp_min(1e-300).log() - q.clamp_min(1e-300).log())).sum(Kind::Double) / rows
}

/// Share of the shown passages of a batch that are different ones: 1 where no two questions share one.
pub fn unique_share(rows: &[Vec<u32>]) -> f64 {
    let all = rows.iter().map(Vec::len).sum::<usize>().max(1);
    let unique: std::collections::HashSet<u32> = rows.iter().flatten().copied().collect();
    unique.len() as f64 / all as f64
}

/// Thresholds of the diagnostic alarms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlarmConfig {
    /// Retrieval collapse: alarm when one passage is retrieved for more than this share of the recent questions.
    pub passage_share: f64,
    /// Ignored contexts: alarm when the mean log-probability gain per answer token (nats) over another question's
    /// passages is below this.
    pub context_gain: f64,
}

impl Default for AlarmConfig {
    fn default() -> Self {
        Self { passage_share: 0.5, context_gain: 0.01 }
    }
}

/// Watches the passages found for the last questions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Collapse {
    recent: VecDeque<Vec<u32>>,
    /// Whether the alarm is on: it is said once, and again after it was off.
    pub on: bool,
}

/// Questions that are remembered, and those below which nothing is judged.
const REMEMBERED: usize = 256;
const ENOUGH: usize = 64;

impl Collapse {
    /// Takes the passages of more questions; the row of the passage that is everywhere, with its share, where the alarm
    /// goes on.
    pub fn see(&mut self, found: &[Vec<u32>], config: &AlarmConfig) -> Option<(u32, f64)> {
        self.recent.extend(found.iter().cloned());
        while self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
        let (row, share) = self.commonest()?;
        let was = std::mem::replace(&mut self.on, share > config.passage_share);
        (self.on && !was).then_some((row, share))
    }

    /// The passage found for most of the last questions, and for what share of them; None for too few questions.
    pub fn commonest(&self) -> Option<(u32, f64)> {
        if self.recent.len() < ENOUGH {
            return None;
        }
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for row in self.recent.iter().flatten() {
            *counts.entry(*row).or_default() += 1;
        }
        let (row, n) = counts.into_iter().max_by_key(|&(row, n)| (n, std::cmp::Reverse(row)))?;
        Some((row, n as f64 / self.recent.len() as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_and_divergence_are_their_formulas() {
        let p = Tensor::from_slice2(&[[0.5f32, 0.5], [1.0, 0.0]]);
        let q = Tensor::from_slice2(&[[0.25f32, 0.75], [0.5, 0.5]]);
        let ln = f64::ln;
        let entropy = |p: &Tensor| f64::try_from(entropy(p)).unwrap();
        let divergence = |p: &Tensor, q: &Tensor| f64::try_from(divergence(p, q)).unwrap();
        assert!((entropy(&p) - ln(2.0) / 2.0).abs() < 1e-12);
        let first = 0.5 * ln(0.5 / 0.25) + 0.5 * ln(0.5 / 0.75);
        assert!((divergence(&p, &q) - (first + ln(2.0)) / 2.0).abs() < 1e-12);
        assert!(divergence(&p, &p).abs() < 1e-12);
        assert!((unique_share(&[vec![1, 2], vec![2, 3]]) - 0.75).abs() < 1e-12);
    }

    #[test]
    fn the_same_passage_for_everyone_is_said_once() {
        let config = AlarmConfig::default();
        let healthy: Vec<Vec<u32>> = (0..100).map(|i| vec![i, i + 1, i + 2]).collect();
        let mut c = Collapse::default();
        assert_eq!(c.see(&healthy, &config), None);
        let collapsed: Vec<Vec<u32>> = (0..150).map(|i| vec![7, i]).collect();
        let (row, share) = c.see(&collapsed, &config).unwrap();
        assert!(row == 7 && share > 0.5, "{row} {share}");
        assert_eq!(c.see(&collapsed, &config), None);
        for _ in 0..3 {
            c.see(&healthy, &config);
        }
        assert!(!c.on);
        assert!(c.see(&collapsed, &config).is_some());
        // Too few questions are not judged.
        assert_eq!(Collapse::default().see(&collapsed[..10], &config), None);
    }
}
