//! Whole runs on a small encoder: they learn, stop and go on exactly, with adapters too, and their folders load again.

use ragduet_classifier::recipe::{ClassifierConfig, train};
use ragduet_classifier::{Answer, Classifier, Scores, Task};
use ragduet_nn::{EncoderModel, fresh_encoder, save_encoder};
use ragduet_testkit::alone;
use ragduet_text::{WordPieceOptions, train_wordpiece};
use ragduet_torch::{Compute, Device, Quantize, rng};
use ragduet_train::RunOptions;
use ragduet_train::config::Config as _;
use std::path::Path;

const RED: [&str; 4] = ["rose", "brick", "blood", "ruby"];
const BLUE: [&str; 4] = ["sea", "sky", "ink", "plum"];

/// A bare encoder's folder, and files of texts whose words say the class.
pub fn world(dir: &Path, label: impl Fn(usize, usize) -> serde_json::Value) {
    let words: Vec<&str> = RED.iter().chain(&BLUE).chain(&["the", "is", "near"]).copied().collect();
    let options = WordPieceOptions { vocab_size: 100, min_frequency: 1, ..Default::default() };
    let tokenizer = train_wordpiece(words.iter().copied(), &options).unwrap();
    rng::seed(5);
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 24, "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "type_vocab_size": 2, "layer_norm_eps": 1e-12, "initializer_range": 0.2,
    });
    let model: EncoderModel = fresh_encoder(config, Device::Cpu).unwrap();
    save_encoder(&model, &dir.join("base")).unwrap();
    tokenizer.save(dir.join("base")).unwrap();
    for (name, n) in [("train", 96), ("dev", 60)] {
        let lines: String = (0..n)
            .map(|i| {
                let (red, blue) = ((i * 7 + 3) % 5, (i * 3 + n) % 4);
                let all = (0..red).map(|j| RED[(i + j) % 4]).chain((0..blue).map(|j| BLUE[(i * j + 1) % 4]));
                let text: Vec<&str> = ["the"].into_iter().chain(all).collect();
                let row = serde_json::json!({"text": text.join(" "), "label": label(red, blue), "id": i});
                row.to_string() + "\n"
            })
            .collect();
        std::fs::write(dir.join(format!("{name}.jsonl")), lines).unwrap();
    }
}

fn config(dir: &Path, more: &str) -> ClassifierConfig {
    let text = format!(
        "{more}\n[run]\nseed = 3\ndevice = \"cpu\"\nprecision = \"fp32\"\nepochs = 6.0\n[model]\nbase = {:?}\n\
         [data]\ntrain = {:?}\ndev = {:?}\n[batch]\nsize = 8\naccumulate = 2\n\
         [optim]\nlr = 5e-3\n",
        dir.join("base"),
        dir.join("train.jsonl"),
        dir.join("dev.jsonl")
    );
    ClassifierConfig::from_toml(&text).unwrap()
}

fn options(dir: &Path, resume: bool, stop_after: Option<u64>) -> RunOptions {
    RunOptions { out: dir.to_path_buf(), resume, quiet: true, stop_after, ..RunOptions::default() }
}

fn majority(red: usize, blue: usize) -> serde_json::Value {
    if red > blue { "red".into() } else { "blue".into() }
}

fn accuracy(scores: &Scores) -> f64 {
    let Scores::Classification(c) = scores else { panic!("a classification") };
    c.accuracy
}

#[test]
fn a_classifier_learns_and_a_stopped_run_is_the_unstopped_one() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    world(dir.path(), majority);
    let config = config(dir.path(), "[sampling]\nbalanced = true\n[loss]\nlabel_smoothing = 0.05");
    let whole = train(&config, &options(&dir.path().join("whole"), false, None)).unwrap();
    assert!(whole.run.finished && whole.run.step == 36);
    assert!(accuracy(&whole.run.best.as_ref().unwrap().scores) > 0.9, "{:?}", whole.run.best);
    assert_eq!(whole.labels.names, ["blue", "red"]);

    let parts = dir.path().join("parts");
    for (i, steps) in [5, 4, 100].into_iter().enumerate() {
        train(&config, &options(&parts, i > 0, Some(steps))).unwrap();
    }
    let read = |at: &Path| std::fs::read(at.join("best/model.safetensors")).unwrap();
    assert!(read(&parts) == read(&dir.path().join("whole")), "the same weights, bit for bit");

    // The folder says what it learned.
    let model = Classifier::load(&parts.join("best"), Device::Cpu, Compute::F32).unwrap();
    assert_eq!((model.labels.task, model.labels.names.len()), (Task::Classification, 2));
    let texts = [("the rose brick blood", None), ("the sky ink plum", None), ("the", None)];
    let said = model.classify(&texts, 1000).unwrap();
    let label = |a: &Answer| if let Answer::Class { label, .. } = a { label.clone() } else { panic!() };
    assert_eq!(said.iter().map(label).collect::<Vec<_>>(), ["red", "blue", "blue"]);
    // One by one or together.
    assert_eq!(model.score(&texts, 1, &mut |_| ()).unwrap().len(), 3);
}

#[test]
fn adapters_learn_beside_a_new_head_and_their_folders_load() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    world(dir.path(), majority);
    for (method, settings) in [
        ("lora", "rank = 4"),
        ("ia3", ""),
        ("prompt", "tokens = 4"),
        ("prefix", "tokens = 4"),
        ("bottleneck", "reduction = 2.0"),
    ] {
        let mut config = config(dir.path(), &format!("[peft.{method}]\n{settings}"));
        config.run.epochs = Some(25.0);
        config.optim.lr = if method == "ia3" { 5e-2 } else { 1e-2 };
        let out = dir.path().join(method);
        let o = train(&config, &options(&out, false, None)).unwrap();
        let best = accuracy(&o.run.best.as_ref().unwrap().scores);
        assert!(best > 0.7, "{method}: {best}");
        // A stopped run is the unstopped one here too.
        let parts = dir.path().join(format!("{method}-parts"));
        train(&config, &options(&parts, false, Some(7))).unwrap();
        train(&config, &options(&parts, true, None)).unwrap();
        let mut model = Classifier::load(&out.join("best"), Device::Cpu, Compute::F32).unwrap();
        let again = Classifier::load(&parts.join("best"), Device::Cpu, Compute::F32).unwrap();
        let texts = [("the rose brick blood", None), ("the ink sky", None)];
        let logits = |m: &Classifier| m.score(&texts, 100, &mut |_| ()).unwrap();
        let first = logits(&model);
        assert_eq!(first, logits(&again), "{method}");
        // Prompts and prefixes take positions, of which there are 24.
        let soft = ["prompt", "prefix"].contains(&method);
        assert_eq!(model.max_tokens, if soft { 20 } else { 24 }, "{method}");
        let long = "rose ".repeat(50);
        assert_eq!(model.score(&[(long.as_str(), None)], 100, &mut |_| ()).unwrap()[0].len(), 2);
        // What was measured is what was saved.
        let bad = ragduet_data::BadRows::new(ragduet_data::BadRowPolicy::Fail);
        let dev: Vec<_> = ragduet_data::read_labelled(dir.path().join("dev.jsonl"), true, &bad)
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(accuracy(&model.evaluate(&dev, 500).unwrap().0), best, "{method}");
        if ["lora", "ia3"].contains(&method) {
            model.merge().unwrap();
            let merged = dir.path().join(format!("{method}-merged"));
            model.save(&merged).unwrap();
            let merged = Classifier::load(&merged, Device::Cpu, Compute::F32).unwrap();
            for (a, b) in first.iter().flatten().zip(logits(&merged).iter().flatten()) {
                assert!((a - b).abs() < 1e-4, "{method}: {a} {b}");
            }
        } else {
            assert!(model.merge().is_err());
        }
    }
}

#[test]
fn adapters_learn_over_codes() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    world(dir.path(), majority);
    for (quantize, method, settings) in [
        (Quantize::Nf4, "lora", "rank = 4"),
        (Quantize::Int8, "lora", "rank = 4"),
        (Quantize::Nf4, "prefix", "tokens = 4"),
    ] {
        let what = format!("{method} over {quantize:?}");
        let mut config = config(dir.path(), &format!("[peft.{method}]\n{settings}"));
        (config.run.epochs, config.optim.lr) = (Some(25.0), 1e-2);
        config.model.quantize = quantize;
        let out = dir.path().join(&what);
        let o = train(&config, &options(&out, false, None)).unwrap();
        assert!(accuracy(&o.run.best.as_ref().unwrap().scores) > 0.7, "{what}: {:?}", o.run.best);
        let parts = dir.path().join(format!("{what} in parts"));
        train(&config, &options(&parts, false, Some(7))).unwrap();
        train(&config, &options(&parts, true, None)).unwrap();
        for file in std::fs::read_dir(out.join("best")).unwrap() {
            let path = file.unwrap().path();
            // The card names its run, and the manifest has the card's hash.
            if path.ends_with("README.md") || path.ends_with("manifest.json") {
                continue;
            }
            let other = parts.join("best").join(path.file_name().unwrap());
            assert!(std::fs::read(&path).unwrap() == std::fs::read(other).unwrap(), "{}", path.display());
        }
        // The folder is one like any other: it loads over the base as it is on disk.
        assert_eq!(o.labels.names.len(), 2);
        let whole = Classifier::load(&out.join("best"), Device::Cpu, Compute::F32).unwrap();
        let said =
            whole.classify(&[("the rose brick blood", None), ("the sky ink plum", None)], 100).unwrap();
        let label = |a: &Answer| if let Answer::Class { label, .. } = a { label.clone() } else { panic!() };
        assert_eq!(said.iter().map(label).collect::<Vec<_>>(), ["red", "blue"], "{what}");
    }
    let mut whole = config(dir.path(), "");
    whole.model.quantize = Quantize::Nf4;
    let e = train(&whole, &options(&dir.path().join("whole"), false, None)).unwrap_err().to_string();
    assert!(e.contains("give [peft]"), "{e}");
}

#[test]
fn numbers_sets_and_pairs() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    world(dir.path(), |red, blue| ((red as f64 - blue as f64) / 2.0).into());
    let numbers = config(dir.path(), "task = \"regression\"");
    let o = train(&numbers, &options(&dir.path().join("n"), false, None)).unwrap();
    let Scores::Regression(r) = o.run.best.unwrap().scores else { panic!("a regression") };
    assert!(r.mse < 0.5 && r.pearson.unwrap() > 0.8, "{r:?}");

    world(dir.path(), |red, blue| {
        let mut all = Vec::new();
        all.extend((red > 0).then_some("red"));
        all.extend((blue > 0).then_some("blue"));
        all.into()
    });
    let sets = config(dir.path(), "task = \"multi_label\"\n[loss]\nclass_weights = \"balanced\"");
    let o = train(&sets, &options(&dir.path().join("s"), false, None)).unwrap();
    let Scores::MultiLabel(s) = o.run.best.unwrap().scores else { panic!("sets") };
    assert!(s.micro_average.f1 > 0.9, "{s:?}");

    // Pairs: both red, or not. Cut to the limit, the longer text first.
    let rows = |n: usize| -> String {
        (0..n)
            .map(|i| {
                let word = |red: bool, at: usize| if red { RED[at % 4] } else { BLUE[at % 4] };
                let (a, b) = (i % 4 != 0, i % 8 != 1);
                let row = serde_json::json!({"premise": word(a, i / 2), "hypothesis": word(b, i / 3), "label": a && b});
                row.to_string() + "\n"
            })
            .collect()
    };
    std::fs::write(dir.path().join("train.jsonl"), rows(64)).unwrap();
    std::fs::write(dir.path().join("dev.jsonl"), rows(16)).unwrap();
    let mut pairs = config(dir.path(), "");
    pairs.run.epochs = Some(20.0);
    let o = train(&pairs, &options(&dir.path().join("p"), false, None)).unwrap();
    assert_eq!(o.labels.names, ["false", "true"]);
    assert!(accuracy(&o.run.best.as_ref().unwrap().scores) > 0.9, "{:?}", o.run.best);
    let model = Classifier::load(&dir.path().join("p/best"), Device::Cpu, Compute::F32).unwrap();
    let long = "rose ".repeat(50);
    let (encoded, cut) = model.encode(&[("rose", Some(long.as_str()))]).unwrap();
    assert_eq!((encoded[0].len(), cut), (24, 1));
}

#[test]
fn what_cannot_work_is_said_before_training() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    world(dir.path(), majority);
    let e = |more: &str| {
        let out = tempfile::tempdir().unwrap();
        train(&config(dir.path(), more), &options(&out.path().join("run"), false, None))
            .unwrap_err()
            .to_string()
    };
    assert!(e("labels = [\"red\", \"green\"]").contains("`blue` is none of the labels (red, green)"));
    assert!(e("task = \"regression\"").contains("a regression's label is a number"));
    assert!(e("[eval]\nmeasure = \"pearson\"").contains("eval.measure"));
    assert!(e("[loss]\nclass_weights = { table = { green = 2.0 } }").contains("`green`"));
    let mut long = config(dir.path(), "");
    long.model.max_tokens = Some(100);
    let out = tempfile::tempdir().unwrap();
    let error = train(&long, &options(&out.path().join("run"), false, None)).unwrap_err().to_string();
    assert!(error.contains("24 tokens at most"), "{error}");
}
