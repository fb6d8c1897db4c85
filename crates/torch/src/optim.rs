//! Optimisers with parameter groups decided by name and state that saves and loads: [`AdamW`] on ATen's fused kernel,
//! and [`Adafactor`]; [`Optimizer`] is either.
//!
//! AdamW: decoupled weight decay (Loshchilov and Hutter, 2019, arXiv 1711.05101), as `torch.optim.AdamW(fused=True)`.

mod adafactor;
mod any;

pub use adafactor::{Adafactor, AdafactorOptions};
pub use any::{Optimizer, OptimizerOptions};

use crate::weights::Weights;
use crate::{Device, Error, Kind, Result, Tensor, ffi};

/// Settings shared by all groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }
}

/// What a rule says of one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupRule {
    /// Multiplies the scheduled learning rate.
    pub lr_scale: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
}

#[derive(Debug)]
struct Group {
    rule: GroupRule,
    slots: Vec<Slot>,
}

/// AdamW over named parameters.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    groups: Vec<Group>,
}

impl AdamW {
    /// An optimiser for these parameters; `rule` says for each name how fast it learns and decays. Parameters with
    /// equal rules share a kernel launch.
    pub fn new(params: &[(String, Tensor)], options: AdamWOptions, rule: impl Fn(&str) -> GroupRule) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for (name, param) in params {
            let rule = rule(name);
            let slot = Slot {
                name: name.clone(),
                param: param.shallow_clone(),
                exp_avg: param.zeros_like().set_requires_grad(false),
                exp_avg_sq: param.zeros_like().set_requires_grad(false),
                step: Tensor::zeros([], (Kind::Float, param.device())),
            };
            match groups.iter_mut().find(|g| g.rule == rule) {
                Some(g) => g.slots.push(slot),
                None => groups.push(Group { rule, slots: vec![slot] }),
            }
        }
        Self { options, groups }
    }

    /// The rules in use and how many parameters each covers.
    pub fn groups(&self) -> impl Iterator<Item = (GroupRule, usize)> + '_ {
        self.groups.iter().map(|g| (g.rule, g.slots.len()))
    }

    /// The gradients that are there now.
    pub fn grads(&self) -> Vec<Tensor> {
        self.slots().map(|s| s.param.grad()).filter(Tensor::defined).collect()
    }

    /// One update with the base learning rate `lr`. Parameters without a gradient are left alone.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        for g in &self.groups {
            let live: Vec<&Slot> = g.slots.iter().filter(|s| s.param.grad().defined()).collect();
            if live.is_empty() {
                continue;
            }
            let grads: Vec<Tensor> = live.iter().map(|s| s.param.grad()).collect();
            let list = |f: fn(&Slot) -> &Tensor| live.iter().map(|s| ffi::handle(f(s))).collect::<Vec<_>>();
            let (p, m, v, t) =
                (list(|s| &s.param), list(|s| &s.exp_avg), list(|s| &s.exp_avg_sq), list(|s| &s.step));
            let gp = ffi::pointers(&grads);
            // SAFETY: five lists of `n` valid handles; the kernel changes parameters and moments in place.
            ffi::check(unsafe {
                ffi::rd_fused_adamw(
                    p.as_ptr(),
                    gp.as_ptr(),
                    m.as_ptr(),
                    v.as_ptr(),
                    t.as_ptr(),
                    live.len(),
                    lr * g.rule.lr_scale,
                    self.options.beta1,
                    self.options.beta2,
                    g.rule.weight_decay,
                    self.options.eps,
                )
            })?;
        }
        Ok(())
    }

    /// Drops all gradients.
    pub fn clear_grads(&self) -> Result<()> {
        let params: Vec<Tensor> = self.slots().map(|s| s.param.shallow_clone()).collect();
        crate::grad::clear(&params)
    }

    /// The moments and step counts by name.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.slots()
            .flat_map(|s| {
                [("exp_avg", &s.exp_avg), ("exp_avg_sq", &s.exp_avg_sq), ("step", &s.step)]
                    .map(|(k, t)| (format!("{k}.{}", s.name), t.shallow_clone()))
            })
            .collect()
    }

    /// Restores what [`AdamW::state`] gave. The same parameters must train as then.
    pub fn restore(&mut self, state: &Weights) -> Result<()> {
        let _guard = crate::no_grad();
        for s in self.groups.iter_mut().flat_map(|g| g.slots.iter_mut()) {
            for (k, t) in
                [("exp_avg", &mut s.exp_avg), ("exp_avg_sq", &mut s.exp_avg_sq), ("step", &mut s.step)]
            {
                let name = format!("{k}.{}", s.name);
                match state.shape(&name) {
                    Some(found) if found == t.size() => t.copy_(&state.load(&name, Device::Cpu)?),
                    found => {
                        return Err(Error::OptimState(format!(
                            "`{name}`: checkpoint has {found:?}, the model needs {:?}; resume with the settings the \
                             run was started with",
                            t.size()
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.groups.iter().flat_map(|g| &g.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::save_tensors;

    fn reference(steps: usize, lr: f64, wd: f64) -> Vec<f64> {
        // The formula in f64 on f(w) = sum(w^2) / 2, whose gradient is w.
        let (b1, b2, eps) = (0.9f64, 0.999f64, 1e-8f64);
        let mut w = [1.0f64, -2.0, 0.5];
        let (mut m, mut v) = ([0.0f64; 3], [0.0f64; 3]);
        for t in 1..=steps {
            for i in 0..3 {
                let g = w[i];
                w[i] *= 1.0 - lr * wd;
                m[i] = b1 * m[i] + (1.0 - b1) * g;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                let mh = m[i] / (1.0 - b1.powi(t as i32));
                let vh = v[i] / (1.0 - b2.powi(t as i32));
                w[i] -= lr * mh / (vh.sqrt() + eps);
            }
        }
        w.to_vec()
    }

    fn setup() -> (Tensor, AdamW) {
        let w = Tensor::from_slice(&[1.0f32, -2.0, 0.5]).set_requires_grad(true);
        let rule = |_: &str| GroupRule { lr_scale: 0.5, weight_decay: 0.1 };
        let opt = AdamW::new(&[("w".into(), w.shallow_clone())], AdamWOptions::default(), rule);
        (w, opt)
    }

    fn run(w: &Tensor, opt: &mut AdamW, steps: usize) {
        for _ in 0..steps {
            opt.clear_grads().unwrap();
            (w.square().sum(Kind::Float) / 2.0).backward();
            opt.step(0.02).unwrap();
        }
    }

    #[test]
    fn equals_the_formula() {
        let (w, mut opt) = setup();
        run(&w, &mut opt, 25);
        for (a, b) in Vec::<f32>::try_from(&w.detach()).unwrap().iter().zip(reference(25, 0.01, 0.1)) {
            assert!((f64::from(*a) - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn restored_state_continues_bit_for_bit() {
        let (w, mut opt) = setup();
        run(&w, &mut opt, 10);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("o.safetensors");
        save_tensors(&path, &opt.state(), &[]).unwrap();
        let (w2, mut opt2) = setup();
        {
            let _g = crate::no_grad();
            w2.shallow_clone().copy_(&w);
        }
        opt2.restore(&Weights::open_file(&path).unwrap()).unwrap();
        run(&w, &mut opt, 7);
        run(&w2, &mut opt2, 7);
        assert!(w.equal(&w2));
        let other = Tensor::zeros([4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let rule = |_: &str| GroupRule { lr_scale: 1.0, weight_decay: 0.0 };
        let e = AdamW::new(&[("w".into(), other)], AdamWOptions::default(), rule)
            .restore(&Weights::open_file(&path).unwrap())
            .unwrap_err();
        assert!(e.to_string().contains("exp_avg.w"), "{e}");
    }

    #[test]
    fn parameters_without_gradients_stay() {
        let (w, mut opt) = setup();
        opt.step(1.0).unwrap();
        assert_eq!(Vec::<f32>::try_from(&w.detach()).unwrap(), [1.0, -2.0, 0.5]);
        assert!(opt.grads().is_empty());
    }
}
