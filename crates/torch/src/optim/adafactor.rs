//! Adafactor (Shazeer and Stern, 2018, arXiv 1804.04235), as transformers' `Adafactor` with `relative_step=False`: the
//! second moments of a matrix are kept as those of its rows and of its columns, an update is clipped by its own root
//! mean square, and steps are relative to the size of the parameter. Its inverse-root step size is a schedule here, not
//! a setting of the optimiser.
//!
//! peft stores (IA)^3's vectors as matrices of one row or column. Factoring the second moments of such a matrix is
//! exact, so they learn as vectors do.

use super::GroupRule;
use crate::weights::Weights;
use crate::{Device, Error, Kind, Result, Tensor, no_grad};

/// Settings shared by all groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdafactorOptions {
    /// Added to squared gradients.
    pub eps: f64,
    /// The least root mean square that a parameter counts as having; with `scale_parameter`.
    pub eps_scale: f64,
    /// Update clipping: updates with a larger root mean square are scaled down to it.
    pub clip_threshold: f64,
    /// The second moment of step t decays by 1 - t^this; negative.
    pub decay_rate: f64,
    /// Decay of the first moment; none is kept without it.
    pub beta1: Option<f64>,
    /// Whether the learning rate is multiplied by the parameter's root mean square.
    pub scale_parameter: bool,
}

impl Default for AdafactorOptions {
    fn default() -> Self {
        Self {
            eps: 1e-30,
            eps_scale: 1e-3,
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta1: None,
            scale_parameter: true,
        }
    }
}

/// Second moments.
#[derive(Debug)]
enum Square {
    /// Of a matrix (or a stack of them): means over columns [.., rows] and over rows [.., columns].
    Factored(Tensor, Tensor),
    /// Of each element.
    Whole(Tensor),
}

#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    rule: GroupRule,
    square: Square,
    mean: Option<Tensor>,
    step: i64,
}

/// Adafactor over named parameters.
#[derive(Debug)]
pub struct Adafactor {
    options: AdafactorOptions,
    slots: Vec<Slot>,
}

impl Adafactor {
    /// An optimiser for these parameters; `rule` says for each name how fast it learns and decays.
    pub fn new(
        params: &[(String, Tensor)],
        options: AdafactorOptions,
        rule: impl Fn(&str) -> GroupRule,
    ) -> Self {
        let slot = |(name, param): &(String, Tensor)| {
            let size = param.size();
            let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, param.device()));
            let square = match size.as_slice() {
                [head @ .., rows, columns] => {
                    let with = |last: i64| [head, &[last]].concat();
                    Square::Factored(zeros(&with(*rows)), zeros(&with(*columns)))
                }
                _ => Square::Whole(zeros(&size)),
            };
            let mean = options.beta1.map(|_| zeros(&size));
            Slot { name: name.clone(), param: param.shallow_clone(), rule: rule(name), square, mean, step: 0 }
        };
        Self { options, slots: params.iter().map(slot).collect() }
    }

    /// The parameters.
    pub(super) fn params(&self) -> impl Iterator<Item = &Tensor> {
        self.slots.iter().map(|s| &s.param)
    }

    /// One update with the base learning rate `lr`. Parameters without a gradient are left alone.
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        let _guard = no_grad();
        for slot in &mut self.slots {
            let grad = slot.param.grad();
            if grad.defined() {
                slot.update(&self.options, &grad.to_kind(Kind::Float), lr)?;
            }
        }
        Ok(())
    }

    /// Moments and step counts by name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.slots.iter().flat_map(Slot::state).collect()
    }

    /// Restores what [`Adafactor::state`] gave. The same parameters must train as then.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn restore(&mut self, state: &Weights) -> Result<()> {
        let _guard = no_grad();
        for slot in &mut self.slots {
            for (name, t) in slot.state() {
                let found = state.shape(&name);
                if found.as_ref() != Some(&t.size()) {
                    return Err(Error::OptimState(format!(
                        "`{name}`: checkpoint has {found:?}, the model needs {:?}; resume with the settings the run \
                         was started with",
                        t.size()
                    )));
                }
                let value = state.load(&name, Device::Cpu)?;
                if name.starts_with("step.") {
                    slot.step = value.double_value(&[]) as i64;
                } else {
                    t.shallow_clone().copy_(&value);
                }
            }
        }
        Ok(())
    }
}

impl Slot {
    /// Shares the moments' memory; the step count is a copy.
    fn state(&self) -> Vec<(String, Tensor)> {
        let mut out = Vec::new();
        let mut put = |key: &str, t: &Tensor| out.push((format!("{key}.{}", self.name), t.shallow_clone()));
        match &self.square {
            Square::Factored(rows, columns) => {
                put("exp_avg_sq_row", rows);
                put("exp_avg_sq_col", columns);
            }
            Square::Whole(all) => put("exp_avg_sq", all),
        }
        if let Some(mean) = &self.mean {
            put("exp_avg", mean);
        }
        put("step", &Tensor::from(self.step as f32));
        out
    }

    fn update(&mut self, o: &AdafactorOptions, grad: &Tensor, lr: f64) -> Result<()> {
        self.step += 1;
        let keep = 1.0 - (self.step as f64).powf(o.decay_rate);
        let squared = grad.square() + o.eps;
        let running = |old: &mut Tensor, new: &Tensor| -> Result<()> {
            let _ = old.f_mul_scalar_(keep)?.f_add_(&(new * (1.0 - keep)))?;
            Ok(())
        };
        let mut update = match &mut self.square {
            Square::Factored(rows, columns) => {
                running(rows, &squared.mean_dim(-1, false, Kind::Float))?;
                running(columns, &squared.mean_dim(-2, false, Kind::Float))?;
                let by_row = (&*rows / rows.mean_dim(-1, true, Kind::Float)).rsqrt().unsqueeze(-1);
                grad * by_row * columns.rsqrt().unsqueeze(-2)
            }
            Square::Whole(all) => {
                running(all, &squared)?;
                grad * all.rsqrt()
            }
        };
        // Everything stays on the device: nothing here waits for a number.
        let too_large = (rms(&update) / o.clip_threshold).clamp_min(1.0);
        let mut size = Tensor::from((lr * self.rule.lr_scale) as f32).to_device(grad.device());
        if o.scale_parameter {
            size *= rms(&self.param).clamp_min(o.eps_scale);
        }
        update *= &size / too_large;
        if let (Some(mean), Some(beta1)) = (&mut self.mean, o.beta1) {
            let _ = mean.f_mul_scalar_(beta1)?.f_add_(&(update * (1.0 - beta1)))?;
            update = mean.shallow_clone();
        }
        if self.rule.weight_decay != 0.0 {
            let decayed = &self.param * (size * self.rule.weight_decay);
            let _ = self.param.f_sub_(&decayed)?;
        }
        let _ = self.param.f_sub_(&update)?;
        Ok(())
    }
}

/// Root mean square, a scalar.
fn rms(t: &Tensor) -> Tensor {
    t.norm() / (t.numel().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::save_tensors;
    use serde_json::Value;

    fn tensor(v: &Value, shape: &[i64]) -> Tensor {
        let values: Vec<f32> = serde_json::from_value(v.clone()).unwrap();
        Tensor::from_slice(&values).reshape(shape)
    }

    fn options(case: &Value) -> AdafactorOptions {
        AdafactorOptions {
            scale_parameter: case["scale_parameter"].as_bool().unwrap(),
            beta1: case["beta1"].as_f64(),
            clip_threshold: case["clip_threshold"].as_f64().unwrap(),
            decay_rate: case["decay_rate"].as_f64().unwrap(),
            ..AdafactorOptions::default()
        }
    }

    fn set_grad(param: &Tensor, grad: &Tensor) {
        crate::grad::clear(&[param.shallow_clone()]).unwrap();
        (param * grad).sum(Kind::Float).backward();
    }

    /// transformers' Adafactor (`tests/golden/make_adafactor.py`), step by step.
    #[test]
    fn equals_that_of_transformers() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/adafactor.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let shapes: Vec<Vec<i64>> = serde_json::from_value(golden["shapes"].clone()).unwrap();
            let params: Vec<(String, Tensor)> = shapes
                .iter()
                .enumerate()
                .map(|(i, shape)| {
                    (format!("p{i}"), tensor(&golden["start"][i], shape).set_requires_grad(true))
                })
                .collect();
            let rule =
                |_: &str| GroupRule { lr_scale: 1.0, weight_decay: case["weight_decay"].as_f64().unwrap() };
            let mut opt = Adafactor::new(&params, options(case), rule);
            for (step, want) in case["after"].as_array().unwrap().iter().enumerate() {
                for (i, (_, p)) in params.iter().enumerate() {
                    set_grad(p, &tensor(&golden["grads"][step][i], &shapes[i]));
                }
                opt.step(case["lr"].as_f64().unwrap()).unwrap();
                for (i, (name, p)) in params.iter().enumerate() {
                    let apart = (p - tensor(&want[i], &shapes[i])).abs().max().double_value(&[]);
                    assert!(apart < 1e-5, "{} step {step} {name}: {apart}", case["name"]);
                }
            }
        }
    }

    #[test]
    fn restored_state_continues_bit_for_bit() {
        let rule = |_: &str| GroupRule { lr_scale: 0.5, weight_decay: 0.1 };
        let options = AdafactorOptions { beta1: Some(0.9), ..AdafactorOptions::default() };
        let setup = || {
            let of = |shape: &[i64]| {
                let n: i64 = shape.iter().product();
                let t = Tensor::arange(n, (Kind::Float, Device::Cpu)).reshape(shape).sin();
                t.set_requires_grad(true)
            };
            let params = vec![("m".to_string(), of(&[4, 3])), ("v".to_string(), of(&[5]))];
            let opt = Adafactor::new(&params, options, rule);
            (params, opt)
        };
        let run = |params: &[(String, Tensor)], opt: &mut Adafactor, steps: usize| {
            for _ in 0..steps {
                for (_, p) in params {
                    set_grad(p, &(p.detach() * 3.0).cos());
                }
                opt.step(0.02).unwrap();
            }
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.safetensors");
        let (params, mut opt) = setup();
        run(&params, &mut opt, 6);
        save_tensors(&path, &opt.state(), &[]).unwrap();
        let (again, mut opt2) = setup();
        {
            let _guard = no_grad();
            again.iter().zip(&params).for_each(|((_, a), (_, b))| a.shallow_clone().copy_(b));
        }
        let before = params[0].1.copy();
        opt2.restore(&Weights::open_file(&path).unwrap()).unwrap();
        run(&params, &mut opt, 5);
        run(&again, &mut opt2, 5);
        assert!(!params[0].1.equal(&before));
        assert!(params.iter().zip(&again).all(|((_, a), (_, b))| a.equal(b)));
        let other = vec![("m".to_string(), Tensor::zeros([3, 4], (Kind::Float, Device::Cpu)))];
        let e = Adafactor::new(&other, options, rule).restore(&Weights::open_file(&path).unwrap());
        assert!(e.unwrap_err().to_string().contains("exp_avg_sq_row.m"));
    }
}
