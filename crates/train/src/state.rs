//! What a checkpoint needs for an exact resume: parameters, the optimiser's moments, the generators, and where the
//! loop is (step, epoch, place in the epoch, early stopping, seeds: whatever the recipe's own type says).

use crate::{Error, Result};
use fs_err as fs;
use ragduet_torch::optim::Optimizer;
use ragduet_torch::rng::RngState;
use ragduet_torch::weights::{Weights, save_tensors, write_atomic};
use ragduet_torch::{Device, Tensor, no_grad};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;

const PARAMETERS: &str = "parameters.safetensors";
const RNG: &str = "rng.safetensors";
const POSITION: &str = "position.json";

/// The file of an optimiser's state; the name of the only one of a run is `""`.
fn optimizer_file(name: &str) -> String {
    match name {
        "" => "optimizer.safetensors".into(),
        _ => format!("optimizer-{name}.safetensors"),
    }
}

/// Fills a checkpoint folder (see [`crate::checkpoint::Checkpoints::save`]). `parameters`: all of them, the frozen
/// ones too (`ParamStore::named`).
pub fn save<T: Serialize>(
    dir: &Path,
    parameters: &[(String, Tensor)],
    optimizers: Vec<(&str, &Optimizer)>,
    device: Device,
    position: &T,
) -> Result<()> {
    save_tensors(&dir.join(PARAMETERS), parameters, &[])?;
    for (name, optimizer) in optimizers {
        save_tensors(&dir.join(optimizer_file(name)), &optimizer.state(), &[])?;
    }
    save_tensors(&dir.join(RNG), &RngState::get(device)?.to_named(), &[])?;
    let path = dir.join(POSITION);
    let text = serde_json::to_vec(position).map_err(|source| Error::Json { path: path.clone(), source })?;
    Ok(write_atomic(&path, &text)?)
}

/// Where the run of a checkpoint was.
///
/// # Errors
/// A file that is missing or not of this type.
pub fn read_position<T: DeserializeOwned>(dir: &Path) -> Result<T> {
    let path = dir.join(POSITION);
    serde_json::from_slice(&fs::read(&path)?).map_err(|source| Error::Json { path, source })
}

/// Puts everything back. Call it last, when nothing draws from the generators any more before the loop does.
///
/// # Errors
/// [`Error::State`] where a parameter is missing, unknown or of another shape; then nothing was changed.
pub fn restore(
    dir: &Path,
    parameters: &[(String, Tensor)],
    optimizers: Vec<(&str, &mut Optimizer)>,
    device: Device,
) -> Result<()> {
    let path = dir.join(PARAMETERS);
    let values = Weights::open_file(&path)?;
    if let Some(why) = misfit(&values, parameters) {
        return Err(Error::State { path, why });
    }
    {
        let _guard = no_grad();
        for (name, p) in parameters {
            p.shallow_clone().copy_(&values.load(name, Device::Cpu)?);
        }
    }
    for (name, optimizer) in optimizers {
        optimizer.restore(&Weights::open_file(&dir.join(optimizer_file(name)))?)?;
    }
    let path = dir.join(RNG);
    let rng = Weights::open_file(&path)?;
    if matches!(device, Device::Cuda(_)) && !rng.names().any(|n| n == "rng.cuda") {
        tracing::warn!(
            "the checkpoint was made on the CPU: what the GPU draws from now on is not what it would be"
        );
    }
    match RngState::from_named(|n| rng.load_as_is(n).ok(), device) {
        Some(state) => state.set()?,
        None => return Err(Error::State { path, why: "it holds no generator state".into() }),
    }
    Ok(())
}

fn misfit(values: &Weights, parameters: &[(String, Tensor)]) -> Option<String> {
    for (name, p) in parameters {
        match values.shape(name) {
            None => return Some(format!("parameter `{name}` is missing")),
            Some(found) if found != p.size() => {
                return Some(format!("parameter `{name}` is {found:?}, the model needs {:?}", p.size()));
            }
            Some(_) => {}
        }
    }
    let unknown = values.names().find(|n| !parameters.iter().any(|(name, _)| name == n))?;
    Some(format!("parameter `{unknown}` is not in the model"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoints;
    use crate::{EarlyStopping, OptimizerConfig, Schedule};
    use ragduet_torch::{Kind, rng};
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Position {
        step: u64,
        best: EarlyStopping,
    }

    struct Job {
        parameters: Vec<(String, Tensor)>,
        optimizer: Optimizer,
        config: OptimizerConfig,
    }

    fn job(seed: u64, width: i64) -> Job {
        rng::seed(seed);
        let new = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let parameters = vec![("a.weight".to_string(), new(&[width, 8])), ("b.bias".into(), new(&[width]))];
        let config = OptimizerConfig { lr: 0.05, ..OptimizerConfig::default() };
        let optimizer =
            Optimizer::new(&parameters, config.options().unwrap(), |n| config.rule(n, Some(1), 1));
        Job { parameters, optimizer, config }
    }

    /// Steps with dropout: exact only if weights, moments, schedule and generators all are.
    fn train(job: &mut Job, from: u64, to: u64) {
        let schedule = Schedule::new(job.config.schedule, job.config.warmup, 20);
        for step in from..to {
            job.optimizer.clear_grads().unwrap();
            let x = Tensor::randn([4, 8], (Kind::Float, Device::Cpu)).dropout(0.3, true);
            let y = x.matmul(&job.parameters[0].1.transpose(0, 1)) + &job.parameters[1].1;
            y.dropout(0.2, true).square().mean(Kind::Float).backward();
            job.optimizer.step(job.config.lr * schedule.factor(step)).unwrap();
        }
    }

    #[test]
    fn resumed_equals_uninterrupted_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path(), 2).unwrap();
        let mut whole = job(1, 8);
        train(&mut whole, 0, 12);
        let mut first = job(1, 8);
        train(&mut first, 0, 7);
        let best = EarlyStopping { best: Some(0.1 + 0.2), best_step: 5, waited: 1 };
        let at = Position { step: 7, best };
        checkpoints
            .save(7, |d| save(d, &first.parameters, vec![("", &first.optimizer)], Device::Cpu, &at))
            .unwrap();
        // Another process: other weights, other draws.
        let mut second = job(99, 8);
        let (step, path) = checkpoints.latest().unwrap().unwrap();
        let back: Position = read_position(&path).unwrap();
        restore(&path, &second.parameters, vec![("", &mut second.optimizer)], Device::Cpu).unwrap();
        assert_eq!((step, &back), (7, &at));
        train(&mut second, back.step, 12);
        for ((name, a), (_, b)) in whole.parameters.iter().zip(&second.parameters) {
            assert!(a.equal(b), "{name}");
        }
    }

    #[test]
    fn another_model_is_told_apart_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let j = job(1, 8);
        save(dir.path(), &j.parameters, vec![("", &j.optimizer)], Device::Cpu, &Position::default()).unwrap();
        let fails = |j: &mut Job| {
            let before: Vec<Tensor> = j.parameters.iter().map(|(_, p)| p.copy()).collect();
            let e =
                restore(dir.path(), &j.parameters, vec![("", &mut j.optimizer)], Device::Cpu).unwrap_err();
            assert!(j.parameters.iter().zip(before).all(|((_, p), b)| p.equal(&b)));
            e.to_string()
        };
        let e = fails(&mut job(2, 9));
        assert!(e.contains("`a.weight` is [8, 8], the model needs [9, 8]"), "{e}");
        let mut less = job(2, 8);
        less.parameters.pop();
        assert!(fails(&mut less).contains("`b.bias` is not in the model"));
        let mut more = job(2, 8);
        more.parameters.push(("c".into(), Tensor::from(1f32)));
        assert!(fails(&mut more).contains("`c` is missing"));
    }
}
