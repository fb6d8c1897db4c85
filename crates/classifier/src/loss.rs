//! Losses: cross-entropy, binary cross-entropy per class, squared error. Definitions are PyTorch's
//! (`CrossEntropyLoss`, `BCEWithLogitsLoss`, `MSELoss`), which transformers takes by `problem_type`.

use crate::error::{Result, bad};
use crate::labels::{LabelSet, Target, Task};
use ragduet_torch::{Device, Kind, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Classification loss.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifierLoss {
    /// Class weights.
    pub class_weights: ClassWeights,
    /// Label smoothing: share of the target distribution spread evenly over all classes (single-label classification).
    pub label_smoothing: f64,
}

/// Class weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// Equal weights.
    #[default]
    None,
    /// Inverse class frequency, n / (classes * n_c), as scikit-learn's `balanced`. With several labels per text:
    /// positives and negatives of a class weigh the same in sum.
    Balanced,
    /// Weights by class name; others weigh 1.
    Table(BTreeMap<String, f64>),
}

impl ClassifierLoss {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// Settings that do not go with the task.
    pub fn check(&self, labels: &LabelSet) -> Result<()> {
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return Err(bad("loss.label_smoothing", "must be at least 0 and below 1"));
        }
        if self.label_smoothing > 0.0 && labels.task != Task::Classification {
            return Err(bad("loss.label_smoothing", "is for task = \"classification\""));
        }
        if self.class_weights != ClassWeights::None && labels.task == Task::Regression {
            return Err(bad("loss.class_weights", "a regression has no classes"));
        }
        if let ClassWeights::Table(table) = &self.class_weights {
            for (name, w) in table {
                if !labels.names.contains(name) {
                    let all = labels.names.join(", ");
                    return Err(bad("loss.class_weights", format!("`{name}` is none of the labels ({all})")));
                }
                if !(w.is_finite() && *w > 0.0) {
                    return Err(bad("loss.class_weights", format!("{name} = {w}: a weight is above 0")));
                }
            }
        }
        Ok(())
    }

    /// The weight of each class, from the training set's targets.
    ///
    /// # Errors
    /// A class that never occurs cannot be balanced.
    pub fn weights(&self, labels: &LabelSet, targets: &[Target]) -> Result<Vec<f64>> {
        let classes = labels.names.len();
        match &self.class_weights {
            ClassWeights::None => Ok(vec![1.0; classes]),
            ClassWeights::Table(t) => {
                Ok(labels.names.iter().map(|n| t.get(n).copied().unwrap_or(1.0)).collect())
            }
            ClassWeights::Balanced => {
                let mut counts = vec![0usize; classes];
                for t in targets {
                    match t {
                        Target::Class(c) => counts[*c] += 1,
                        Target::Flags(f) => {
                            f.iter().zip(&mut counts).for_each(|(f, n)| *n += usize::from(*f))
                        }
                        Target::Value(_) => {}
                    }
                }
                if let Some(none) = counts.iter().position(|n| *n == 0) {
                    let why = format!("`{}` never occurs in the training set", labels.names[none]);
                    return Err(bad("loss.class_weights", why));
                }
                let n = targets.len() as f64;
                let of = |count: &usize| match labels.task {
                    Task::MultiLabel => (n - *count as f64) / *count as f64,
                    _ => n / (classes as f64 * *count as f64),
                };
                Ok(counts.iter().map(of).collect())
            }
        }
    }

    /// What these targets weigh together: the divisor of a window's summed loss.
    pub fn total(&self, targets: &[&Target], weights: &[f64]) -> f64 {
        let of = |t: &&Target| match t {
            Target::Class(c) => weights[*c],
            Target::Flags(f) => f.len() as f64,
            Target::Value(_) => 1.0,
        };
        targets.iter().map(of).sum()
    }

    /// The summed loss of a batch: `logits` [texts, labels] f32 -> scalar.
    pub fn sum(&self, logits: &Tensor, targets: &[&Target], weights: &[f64]) -> Tensor {
        let device = logits.device();
        let weights = floats(weights, device);
        match targets.first() {
            Some(Target::Class(_)) | None => {
                let places: Vec<i64> = targets.iter().filter_map(|t| t.class()).collect();
                let places = Tensor::from_slice(&places).to_device(device);
                let log_p = logits.log_softmax(-1, Kind::Float);
                let nll = -log_p.gather(1, &places.unsqueeze(1), false).squeeze_dim(1);
                let hard = (nll * weights.index_select(0, &places)).sum(Kind::Float);
                if self.label_smoothing == 0.0 {
                    return hard;
                }
                let spread = -(log_p * &weights).sum(Kind::Float) / logits.size()[1] as f64;
                hard * (1.0 - self.label_smoothing) + spread * self.label_smoothing
            }
            Some(Target::Flags(_)) => {
                let flags: Vec<f64> = targets
                    .iter()
                    .filter_map(|t| if let Target::Flags(f) = t { Some(f) } else { None })
                    .flat_map(|f| f.iter().map(|on| f64::from(u8::from(*on))))
                    .collect();
                let flags: Tensor = floats(&flags, device).view_as(logits);
                // w y log(1 + e^-x) + (1 - y) log(1 + e^x)
                let on: Tensor = logits.neg().softplus() * &flags * &weights;
                let off: Tensor = logits.softplus() * (1.0 - flags);
                (on + off).sum(Kind::Float)
            }
            Some(Target::Value(_)) => {
                let values: Vec<f64> = targets
                    .iter()
                    .filter_map(|t| if let Target::Value(v) = t { Some(*v) } else { None })
                    .collect();
                (logits.squeeze_dim(1) - floats(&values, device)).square().sum(Kind::Float)
            }
        }
    }
}

impl Target {
    fn class(&self) -> Option<i64> {
        if let Target::Class(c) = self { Some(*c as i64) } else { None }
    }
}

fn floats(values: &[f64], device: Device) -> Tensor {
    Tensor::from_slice(values).to_kind(Kind::Float).to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(task: Task, n: usize) -> LabelSet {
        LabelSet { task, names: (0..n).map(|i| i.to_string()).collect() }
    }

    fn mean(loss: &ClassifierLoss, logits: &[&[f64]], targets: &[Target], weights: &[f64]) -> f64 {
        let flat: Vec<f64> = logits.iter().flat_map(|r| r.iter().copied()).collect();
        let x = floats(&flat, Device::Cpu).view([logits.len() as i64, logits[0].len() as i64]);
        let targets: Vec<&Target> = targets.iter().collect();
        f64::try_from(loss.sum(&x, &targets, weights)).unwrap() / loss.total(&targets, weights)
    }

    /// Figures of `torch.nn.functional` in float64 (tests/golden/make_loss.py).
    #[test]
    fn equal_to_pytorch() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../tests/golden/loss.json")).unwrap();
        let rows: Vec<Vec<f64>> = serde_json::from_value(golden["logits"].clone()).unwrap();
        let rows: Vec<&[f64]> = rows.iter().map(Vec::as_slice).collect();
        let weights: Vec<f64> = serde_json::from_value(golden["weights"].clone()).unwrap();
        let classes: Vec<usize> = serde_json::from_value(golden["classes"].clone()).unwrap();
        let classes: Vec<Target> = classes.into_iter().map(Target::Class).collect();
        let flags: Vec<Vec<u8>> = serde_json::from_value(golden["flags"].clone()).unwrap();
        let flags: Vec<Target> =
            flags.iter().map(|f| Target::Flags(f.iter().map(|x| *x == 1).collect())).collect();
        let ones = vec![1.0; weights.len()];
        let smooth = ClassifierLoss { label_smoothing: 0.1, ..Default::default() };
        let plain = ClassifierLoss::default();
        let check = |got: f64, key: &str| {
            let want = golden[key].as_f64().unwrap();
            assert!((got - want).abs() < 1e-5 * want, "{key}: {got} {want}");
        };
        check(mean(&plain, &rows, &classes, &ones), "ce");
        check(mean(&plain, &rows, &classes, &weights), "ce_weighted");
        check(mean(&smooth, &rows, &classes, &ones), "ce_smooth");
        check(mean(&smooth, &rows, &classes, &weights), "ce_smooth_weighted");
        check(mean(&plain, &rows, &flags, &ones), "bce");
        check(mean(&plain, &rows, &flags, &weights), "bce_weighted");
        let numbers: Vec<f64> = serde_json::from_value(golden["numbers"].clone()).unwrap();
        let numbers: Vec<Target> = numbers.into_iter().map(Target::Value).collect();
        let column: Vec<&[f64]> = rows.iter().map(|r| &r[..1]).collect();
        check(mean(&plain, &column, &numbers, &[1.0]), "mse");
    }

    #[test]
    fn weights_balance() {
        let loss = ClassifierLoss { class_weights: ClassWeights::Balanced, ..Default::default() };
        let targets = [0, 0, 0, 1].map(Target::Class);
        let w = loss.weights(&set(Task::Classification, 2), &targets).unwrap();
        assert_eq!(w, [4.0 / 6.0, 2.0]);
        let flags = [vec![true, false], vec![true, true], vec![false, false], vec![true, false]];
        let w = loss.weights(&set(Task::MultiLabel, 2), &flags.map(Target::Flags)).unwrap();
        assert_eq!(w, [1.0 / 3.0, 3.0]);
        assert!(loss.weights(&set(Task::Classification, 3), &targets).is_err());
    }

    #[test]
    fn settings_are_checked() {
        let labels = set(Task::Classification, 2);
        let table = |n: &str, w: f64| ClassifierLoss {
            class_weights: ClassWeights::Table([(n.to_string(), w)].into()),
            ..Default::default()
        };
        assert!(table("0", 2.0).check(&labels).is_ok());
        assert!(table("x", 2.0).check(&labels).unwrap_err().to_string().contains("`x`"));
        assert!(table("0", 0.0).check(&labels).is_err());
        let smooth = ClassifierLoss { label_smoothing: 0.1, ..Default::default() };
        assert!(smooth.check(&labels).is_ok() && smooth.check(&set(Task::Regression, 1)).is_err());
    }
}
