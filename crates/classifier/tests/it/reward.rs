//! A reward model learns which answers are better, its loss is the formula, and a stopped run is the unstopped one.

use ragduet_classifier::Classifier;
use ragduet_classifier::recipe::{BradleyTerry, RewardConfig, train_reward};
use ragduet_testkit::{alone, check_gradient};
use ragduet_torch::{Compute, Device, Kind, Tensor};
use ragduet_train::RunOptions;
use ragduet_train::config::Config as _;
use std::path::Path;

fn config(dir: &Path) -> RewardConfig {
    crate::fine_tune::world(dir, |_, _| "x".into());
    // Good answers name something red.
    let words = [["rose", "sea"], ["brick", "sky"], ["blood", "ink"], ["ruby", "plum"]];
    for (name, n) in [("train", 48), ("dev", 16)] {
        let rows = (0..n).map(|i| {
            let [good, bad] = words[i % 4];
            let prompt: serde_json::Value = match i % 2 {
                0 => format!("the {}", words[i / 4 % 4][1]).into(),
                _ => serde_json::json!([{"role": "user", "content": "the near"}]),
            };
            let answer = |text: String| match i % 2 {
                0 => serde_json::Value::from(text),
                _ => serde_json::json!([{"role": "assistant", "content": text}]),
            };
            let (chosen, rejected) = (answer(format!("{good} is near")), answer(format!("{bad} is near")));
            serde_json::json!({"prompt": prompt, "chosen": chosen, "rejected": rejected}).to_string() + "\n"
        });
        std::fs::write(dir.join(format!("{name}.jsonl")), rows.collect::<String>()).unwrap();
    }
    RewardConfig::from_toml(&format!(
        "[run]\nseed = 3\ndevice = \"cpu\"\nprecision = \"fp32\"\nepochs = 8.0\n[model]\nbase = {:?}\n[data]\n\
         train = {:?}\ndev = {:?}\n[batch]\nsize = 4\naccumulate = 2\n[loss]\ncentering = 0.01\n[optim]\nlr = 5e-3\n",
        dir.join("base"),
        dir.join("train.jsonl"),
        dir.join("dev.jsonl")
    ))
    .unwrap()
}

#[test]
fn better_answers_get_higher_rewards_and_a_stopped_run_is_the_unstopped_one() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path());
    let options = |name: &str| RunOptions { quiet: true, ..RunOptions::new(dir.path().join(name)) };
    let whole = train_reward(&c, &options("whole")).unwrap();
    assert_eq!((whole.run.step, whole.pairs), (48, (48, 0)));
    let (before, best) = (whole.run.before.unwrap().scores, whole.run.best.unwrap().scores);
    assert!(best.accuracy == 1.0 && before.accuracy < 0.9, "{before:?} {best:?}");
    assert!(best.chosen > 0.0 && best.rejected < 0.0, "centred: {best:?}");
    train_reward(&c, &RunOptions { stop_after: Some(7), ..options("parts") }).unwrap();
    train_reward(&c, &RunOptions { resume: true, ..options("parts") }).unwrap();
    let read = |run: &str| std::fs::read(dir.path().join(run).join("best/model.safetensors")).unwrap();
    assert!(read("whole") == read("parts"), "the same weights, bit for bit");
    let model = Classifier::load(&dir.path().join("whole/best"), Device::Cpu, Compute::F32).unwrap();
    let reward = |answer| model.score(&[("the sky", Some(answer))], 100, &mut |_| ()).unwrap()[0][0];
    assert!(reward("ruby is near") > reward("plum is near"));
}

#[test]
fn the_loss_is_its_formula() {
    let (c, r) = ([0.3f64, -1.2, 2.0], [0.1f64, 0.4, -0.5]);
    let loss = BradleyTerry { margin: 0.25, centering: 0.1 };
    let want: f64 = c
        .iter()
        .zip(&r)
        .map(|(c, r)| -(1.0 / (1.0 + (-(c - r - 0.25f64)).exp())).ln() + 0.1 * (c + r).powi(2))
        .sum();
    let (c, r) = (Tensor::from_slice(&c), Tensor::from_slice(&r));
    let got = loss.sum(&c.to_kind(Kind::Float), &r.to_kind(Kind::Float));
    assert!((f64::try_from(got).unwrap() - want).abs() < 1e-5);
    check_gradient(&[c, r], 1e-4, |x| loss.sum(&x[0], &x[1]));
}

#[test]
fn settings_that_cannot_work_are_named() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let fails = |edit: &dyn Fn(&mut RewardConfig)| {
        let mut c = config(dir.path());
        edit(&mut c);
        train_reward(&c, &RunOptions::new(dir.path().join("run"))).unwrap_err().to_string()
    };
    assert!(fails(&|c| c.loss.centering = -1.0).contains("centering"));
    assert!(fails(&|c| c.batch.size = 0).contains("batch"));
    assert!(fails(&|c| c.data.train = dir.path().join("none.jsonl")).contains("none.jsonl"));
}
