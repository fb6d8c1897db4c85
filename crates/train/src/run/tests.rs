//! A toy recipe (a line through points, dropout, "mining" that moves the targets) goes through everything that the loop
//! promises: stopped and killed at every step, it ends with the same bits.

use super::*;
use crate::{
    Counts, Error, Fingerprint, Metrics, OptimizerConfig, Place, RunConfig, RunDir, SaveConfig, StopConfig,
};
use ragduet_torch::{Kind, Tensor, grad, no_grad};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ToyData {
    points: usize,
    mine_every: u64,
    bad: usize,
    nan_from: Option<u64>,
    die_at: Option<u64>,
    dev: Option<Vec<f64>>,
    skip_bad_rows: bool,
    columns: crate::Columns,
}

impl Default for ToyData {
    fn default() -> Self {
        Self {
            points: 22,
            mine_every: 4,
            bad: 0,
            nan_from: None,
            die_at: None,
            dev: None,
            skip_bad_rows: true,
            columns: crate::Columns::default(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ToyEval {
    every_steps: u64,
    every_epochs: u64,
    at_start: bool,
    stop: Option<StopConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ToyBatch {
    size: usize,
    accumulate: usize,
}

crate::recipe_config! {
    /// A toy.
    pub struct ToyConfig {
        #[serde(default)]
        data: ToyData,
        #[serde(default)]
        batch: ToyBatch,
        #[serde(default)]
        eval: ToyEval,
        #[serde(default)]
        optim: OptimizerConfig,
    }
    epochs = 3.0
}

fn config() -> ToyConfig {
    ToyConfig {
        run: RunConfig { seed: 7, device: "cpu".into(), log_every: 1, ..RunConfig::default() },
        data: ToyData { dev: Some(Vec::new()), ..ToyData::default() },
        batch: ToyBatch { size: 2, accumulate: 2 },
        eval: ToyEval { every_steps: 5, ..ToyEval::default() },
        optim: OptimizerConfig { lr: 0.05, ..OptimizerConfig::default() },
        save: SaveConfig { every_steps: 3, keep: 2 },
    }
}

#[derive(Debug)]
struct Toy {
    config: ToyConfig,
    weight: Tensor,
    learner: Learner,
    /// What mining has added to the targets; part of a checkpoint.
    shift: f64,
    mined_at: Option<u64>,
    measured: Vec<u64>,
}

impl Toy {
    fn build(config: &ToyConfig, context: &RunContext) -> Result<Self> {
        if config.data.bad > 0 {
            let file = context.dir.path().join("rows.jsonl");
            let good = "{\"text\": \"t\", \"label\": \"a\"}\n".to_string();
            std::fs::write(&file, good + &"{no json}\n".repeat(config.data.bad))?;
            let rows = ragduet_data::read_labelled(&file, true, &context.bad_rows).unwrap();
            assert_eq!(rows.filter(|r| r.as_ref().is_ok()).count(), 1);
        }
        let weight = Tensor::randn([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let parameters = vec![("weight".to_string(), weight.shallow_clone())];
        let learner =
            Learner::new(&config.optim, parameters, 1, |_| Place { depth: Some(1), lr_scale: 1.0 })?;
        Ok(Self { config: config.clone(), weight, learner, shift: 0.0, mined_at: None, measured: Vec::new() })
    }

    fn loss(&self, points: &[usize]) -> Tensor {
        let x: Vec<f32> = points.iter().flat_map(|&i| [1.0, i as f32 / 10.0, (i % 3) as f32]).collect();
        let y: Vec<f32> = points.iter().map(|&i| (i as f64 / 5.0 + self.shift) as f32).collect();
        let x = Tensor::from_slice(&x).view([points.len() as i64, 3]).dropout(0.2, true);
        (x.mv(&self.weight) - Tensor::from_slice(&y)).square().sum(Kind::Float)
    }
}

impl Recipe for Toy {
    type Batch = Vec<usize>;
    type Scores = f64;
    type Error = Error;
    const UNIT: &'static str = "points";

    fn parameters(&self) -> Vec<(String, Tensor)> {
        vec![("weight".into(), self.weight.detach())]
    }

    fn learners(&mut self) -> Vec<(&'static str, &mut Learner)> {
        vec![("", &mut self.learner)]
    }

    fn steps_per_epoch(&self) -> f64 {
        self.config.data.points.div_ceil(self.config.batch.size).div_ceil(self.config.batch.accumulate) as f64
    }

    fn fingerprint(&self) -> u64 {
        Fingerprint::default().numbers([self.config.data.points as u64]).digest()
    }

    fn describe(&self) -> String {
        "a toy".into()
    }

    fn epoch(&mut self, epoch: u64, from: usize) -> Result<Epoch<Vec<usize>, Error>> {
        let n = self.config.data.points;
        let order: Vec<usize> = (0..n).map(|i| (i * 5 + epoch as usize) % n).collect();
        Ok(Epoch::of(&order, self.config.batch.size, self.config.batch.accumulate, from))
    }

    fn counts(&self, batch: &Vec<usize>) -> Counts {
        Counts::one(batch.len() as f64)
    }

    fn units(&self, batch: &Vec<usize>) -> u64 {
        batch.len() as u64
    }

    fn ids(&self, batch: &Vec<usize>) -> Vec<String> {
        batch.iter().map(|i| format!("p{i}")).collect()
    }

    fn backward(&mut self, batch: &Vec<usize>, totals: &Counts, run: &mut RunState) -> Result<Metrics> {
        let data = &self.config.data;
        if data.die_at == Some(run.at.step) {
            return Err(Error::Config { origin: "toy".into(), message: "killed".into() });
        }
        let mut loss = self.loss(batch) / totals[0];
        if data.nan_from.is_some_and(|n| run.at.step >= n) {
            loss *= f64::NAN;
        }
        grad::backward(&[loss.shallow_clone()], &[Tensor::ones_like(&loss)])?;
        Ok(Metrics::of(&loss))
    }

    fn evaluate(&mut self, run: &mut RunState) -> Result<Option<Evaluated<f64>>> {
        let Some(given) = &self.config.data.dev else { return Ok(None) };
        self.measured.push(run.at.step);
        let scores = match given.get(self.measured.len() - 1) {
            Some(score) => *score,
            None => {
                let _guard = no_grad();
                f64::try_from(self.weight.sum(Kind::Double)).unwrap()
            }
        };
        Ok(Some(Evaluated { scores, main: scores, named: vec![("score".into(), scores)] }))
    }

    fn save_model(&self, dir: &Path, facts: &Facts<'_, f64>) -> Result<()> {
        assert!(facts.config.contains("[run]") && facts.step <= 1000);
        Ok(ragduet_torch::weights::save_tensors(&dir.join("model.safetensors"), &self.parameters(), &[])?)
    }

    fn before_step(&mut self, run: &mut RunState) -> Result<Flow> {
        let step = run.at.step;
        if self.config.data.mine_every == 0
            || !step.is_multiple_of(self.config.data.mine_every)
            || self.mined_at == Some(step)
        {
            return Ok(Flow::Continue);
        }
        (self.mined_at, self.shift) = (Some(step), self.shift + 0.25);
        run.log.write("mining", step, &[("shift", self.shift)])?;
        Ok(Flow::Replan)
    }

    fn save_extra(&self, dir: &Path, _run: &RunState) -> Result<()> {
        let text = serde_json::to_vec(&(self.shift, self.mined_at)).unwrap();
        Ok(write_atomic(&dir.join("mined.json"), &text)?)
    }

    fn restore_extra(&mut self, dir: &Path, _run: &mut RunState) -> Result<()> {
        (self.shift, self.mined_at) =
            serde_json::from_slice(&std::fs::read(dir.join("mined.json"))?).unwrap();
        Ok(())
    }
}

fn go(config: &ToyConfig, options: &RunOptions) -> Result<Finished<Toy>> {
    run(config, &RunOptions { quiet: true, ..options.clone() }, |context| Toy::build(config, context))
}

fn resume(out: &Path) -> RunOptions {
    RunOptions { resume: true, ..RunOptions::new(out) }
}

/// The weights, and all lines of the log but for times.
fn result(done: &Finished<Toy>, out: &Path) -> (Vec<f32>, Vec<Value>) {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|l| {
        let mut line: Value = serde_json::from_str(l).unwrap();
        line.as_object_mut().unwrap().retain(|k, _| k != "time" && !k.ends_with("per_second"));
        line
    });
    (Vec::try_from(&done.recipe.weight.detach()).unwrap(), lines.collect())
}

#[test]
fn stopped_or_killed_at_any_step_a_run_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config();
    // Not a divisor of where checkpoints are: lines of the log are of windows that a resume cuts in two.
    config.run.log_every = 4;
    let whole = go(&config, &RunOptions::new(dir.path().join("whole"))).unwrap();
    assert_eq!((whole.outcome.step, whole.outcome.finished), (18, true));
    let want = result(&whole, &dir.path().join("whole"));
    for stop in 1..18 {
        let out = dir.path().join(format!("stopped-{stop}"));
        let first = go(&config, &RunOptions { stop_after: Some(stop), ..RunOptions::new(&out) }).unwrap();
        assert_eq!((first.outcome.step, first.outcome.finished), (stop, false));
        assert_eq!(first.outcome.model_dir.is_some(), stop >= 5, "best/ is named where it is");
        assert_eq!(result(&go(&config, &resume(&out)).unwrap(), &out), want, "stopped after {stop}");
        // Killed: no checkpoint of its own, what was logged behind the last one is taken back.
        let out = dir.path().join(format!("killed-{stop}"));
        let mut dying = config.clone();
        dying.data.die_at = Some(stop);
        go(&dying, &RunOptions::new(&out)).unwrap_err();
        let text = std::fs::read_to_string(out.join("config.toml")).unwrap();
        let alive = text.replace(&format!("die_at = {stop}\n"), "");
        std::fs::write(out.join("config.toml"), alive).unwrap();
        std::fs::remove_file(out.join("config.hash")).unwrap();
        assert_eq!(result(&go(&config, &resume(&out)).unwrap(), &out), want, "killed at {stop}");
    }
}

#[test]
fn a_run_that_stopped_early_stays_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("r");
    let mut c = config();
    c.eval = ToyEval { every_steps: 2, stop: Some(StopConfig { patience: 2, min_gain: 0.0 }), ..c.eval };
    c.data.dev = Some(vec![0.5, 0.4, 0.3]);
    let done = go(&c, &RunOptions::new(&out)).unwrap();
    assert_eq!((done.outcome.step, done.outcome.finished), (6, true));
    let best = std::fs::read_to_string(out.join("best.json")).unwrap();
    assert!(best.contains("\"step\": 2") && best.contains("\"score\": 0.5"), "{best}");
    let again = go(&c, &resume(&out)).unwrap();
    assert_eq!((again.outcome.step, again.outcome.finished), (6, true));
    assert_eq!(again.recipe.measured, [0u64; 0]);
    // With more patience it goes on.
    c.eval.stop = Some(StopConfig { patience: 50, min_gain: 0.0 });
    assert_eq!(go(&c, &resume(&out)).unwrap().outcome.step, 18);
}

#[test]
fn when_the_model_is_measured() {
    let measured = |every_steps, every_epochs, at_start| {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config();
        c.eval = ToyEval { every_steps, every_epochs, at_start, stop: None };
        let done = go(&c, &RunOptions::new(dir.path())).unwrap();
        assert_eq!(done.outcome.before.is_some(), at_start);
        done.recipe.measured
    };
    assert_eq!(measured(0, 0, false), [18]);
    assert_eq!(measured(0, 0, true), [0, 18]);
    assert_eq!(measured(5, 0, true), [0, 5, 10, 15, 18]);
    assert_eq!(measured(0, 1, false), [6, 12, 18]);
    assert_eq!(measured(4, 2, false), [4, 8, 12, 16, 18]);
}

#[test]
fn there_is_a_best_model_whenever_one_is_named() {
    let model = |dev: Option<Vec<f64>>, at_start| {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config();
        c.data.dev = dev;
        c.eval.at_start = at_start;
        let outcome = go(&c, &RunOptions::new(dir.path())).unwrap().outcome;
        checkpoint::check(&outcome.model_dir.unwrap()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("best.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["step"].as_u64().unwrap()
    };
    assert_eq!(model(None, true), 18, "no dev set: the last one");
    assert_eq!(model(Some(vec![f64::NAN; 9]), false), 5, "no number: the first that was measured");
    assert_eq!(model(Some(vec![0.1, 0.3, 0.2, 0.0]), false), 10);
    assert_eq!(model(Some(vec![0.9, 0.3, 0.2, 0.0, 0.1]), true), 0, "nothing beat the start");
}

#[test]
fn a_lost_best_model_is_not_one_to_beat() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config();
    c.data.dev = Some(vec![0.9]);
    go(&c, &RunOptions { stop_after: Some(6), ..RunOptions::new(dir.path()) }).unwrap();
    std::fs::remove_dir_all(dir.path().join("best")).unwrap();
    c.data.dev = Some(vec![0.1, 0.1, 0.1]);
    std::fs::remove_file(dir.path().join("config.hash")).unwrap();
    let done = go(&c, &resume(dir.path())).unwrap();
    assert_eq!(done.outcome.best.unwrap().scores, 0.1);
    checkpoint::check(&dir.path().join("best")).unwrap();
}

#[test]
fn bad_rows_are_counted_and_bad_losses_name_their_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config();
    c.data.bad = 2;
    let done = go(&c, &RunOptions::new(dir.path().join("a"))).unwrap();
    assert_eq!(done.outcome.bad_rows, 2);
    let moved = std::fs::read_to_string(dir.path().join("a/bad_rows.jsonl")).unwrap();
    assert_eq!(moved.lines().count(), 2);
    c.data.nan_from = Some(4);
    let e = go(&c, &RunOptions::new(dir.path().join("b"))).unwrap_err().to_string();
    // The fifth window of the epoch, by the order of Toy::epoch.
    assert!(e.contains("the loss is NaN at step 5") && e.contains("p14, p19, p2, p7"), "{e}");
    // What was learned before is there.
    c.data.nan_from = None;
    std::fs::remove_file(dir.path().join("b/config.hash")).unwrap();
    let path = dir.path().join("b/config.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("nan_from = 4\n", "");
    std::fs::write(&path, text).unwrap();
    let done = go(&c, &resume(&dir.path().join("b"))).unwrap();
    assert_eq!(done.outcome.step, 18);
}

#[test]
fn settings_may_change_on_the_way_where_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("r");
    let mut c = config();
    go(&c, &RunOptions { stop_after: Some(7), ..RunOptions::new(&out) }).unwrap();
    (c.run.log_every, c.save.every_steps, c.eval.every_steps) = (2, 4, 0);
    go(&c, &RunOptions { stop_after: Some(1), ..resume(&out) }).unwrap();
    c.run.epochs = Some(5.0);
    let e = go(&c, &resume(&out)).unwrap_err().to_string();
    assert!(e.contains("--allow run.epochs"), "{e}");
    let allow =
        |keys: &[&str]| RunOptions { allow: keys.iter().map(|k| (*k).into()).collect(), ..resume(&out) };
    let done = go(&c, &RunOptions { stop_after: Some(1), ..allow(&["run.epochs"]) }).unwrap();
    assert_eq!(done.outcome.step, 9);
    // Allowed once, it is the run's.
    let lr = |step| 0.05 * crate::lr_factor(c.optim.schedule, c.optim.warmup, step, 30);
    assert_eq!(done.recipe.learner.lr(), lr(9));
    // Half the batch: twice the steps; three of six windows of the second epoch are done, so are six of eleven now.
    (c.batch.size, c.run.epochs) = (1, Some(3.0));
    let done = go(&c, &RunOptions { stop_after: Some(1), ..allow(&["run.epochs", "batch"]) }).unwrap();
    assert_eq!(done.outcome.step, 10);
    let text = std::fs::read_to_string(out.join("checkpoints/step-000000010/position.json")).unwrap();
    let position: Position = serde_json::from_str(&text).unwrap();
    assert_eq!((position.epoch, position.window, position.total), (1, 6, 33));
    // Other data is another run.
    c.data.points = 24;
    let e = go(&c, &resume(&out)).unwrap_err().to_string();
    assert!(e.contains("differing: data.points"), "{e}");
}

#[test]
fn data_that_changed_under_its_path_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    go(&config(), &RunOptions { stop_after: Some(4), ..RunOptions::new(dir.path()) }).unwrap();
    let path = dir.path().join("checkpoints/step-000000004/position.json");
    let mut position: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    position["data"] = json!(1);
    let step = dir.path().join("checkpoints/step-000000004");
    replace_dir::<Error>(&step, |d| {
        for entry in std::fs::read_dir(&step)? {
            let from = entry?.path();
            std::fs::copy(&from, d.join(from.file_name().unwrap()))?;
        }
        Ok(std::fs::write(d.join("position.json"), position.to_string())?)
    })
    .unwrap();
    let e = go(&config(), &resume(dir.path())).unwrap_err().to_string();
    assert!(e.contains("the data has changed"), "{e}");
}

#[test]
fn an_artifact_is_made_once_and_not_from_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let made = std::cell::Cell::new(0);
    let folder = RunDir::open("a = 1\n", &RunOptions::new(dir.path()), Device::Cpu).unwrap();
    let get = |key: &str| {
        folder.artifact(
            &World::single(),
            "reference",
            key,
            |d| {
                made.set(made.get() + 1);
                Ok(std::fs::write(d.join("x"), "values")?)
            },
            |d| Ok::<_, Error>(std::fs::read_to_string(d.join("x"))?),
        )
    };
    assert_eq!((get("k1").unwrap(), get("k1").unwrap(), made.get()), ("values".into(), "values".into(), 1));
    assert!(get("k2").unwrap_err().to_string().contains("was made from other data"));
    // Killed while it was made: nothing that looks whole is there.
    std::fs::remove_file(dir.path().join("reference/made-from")).unwrap();
    get("k2").unwrap();
    assert_eq!(made.get(), 2);
}
