//! Cross-encoders: sentence-transformers' scores on its folder (`golden/make_cross.py`), re-ranking, training that learns
//! and resumes bit for bit.

use ragduet_metrics::Run;
use ragduet_nn::hub;
use ragduet_reranker::recipe::config::CrossEncoderConfig;
use ragduet_reranker::recipe::train;
use ragduet_reranker::{Activation, CrossEncoder};
use ragduet_retriever::{DenseSettings, RepresentationConfig, ScratchModel, st_dir};
use ragduet_testkit::alone;
use ragduet_text::Prompts;
use ragduet_torch::{Compute, Device, rng};
use ragduet_train::RunOptions;
use ragduet_train::config::Config as _;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cross")
}

#[test]
fn scores_are_those_of_sentence_transformers() {
    let _alone = alone();
    let want: Value = serde_json::from_slice(&std::fs::read(golden().join("scores.json")).unwrap()).unwrap();
    let pairs: Vec<(String, String)> = serde_json::from_value(want["pairs"].clone()).unwrap();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(q, p)| (q.as_str(), p.as_str())).collect();
    let m = CrossEncoder::load(&golden(), Device::Cpu, Compute::F32).unwrap();
    assert_eq!(m.activation, Activation::Sigmoid);
    let close = |have: &[f64], key: &str| {
        let want: Vec<f64> = serde_json::from_value(want[key].clone()).unwrap();
        assert_eq!(have.len(), want.len());
        for (h, w) in have.iter().zip(want) {
            assert!((h - w).abs() < 1e-5, "{key}: {h} {w}");
        }
    };
    for tokens in [1, 30, 10_000] {
        close(&m.scores(&pairs, tokens).unwrap(), "sigmoid");
        close(&m.logits(&pairs, tokens, &mut |_| ()).unwrap(), "identity");
    }
    // What is written again is read again, with the activation that it was given.
    let dir = tempfile::tempdir().unwrap();
    let again =
        CrossEncoder::from_base(&golden(), Device::Cpu, Compute::F32, None, Activation::Identity).unwrap();
    again.save(dir.path()).unwrap();
    let again = CrossEncoder::load(dir.path(), Device::Cpu, Compute::F32).unwrap();
    assert_eq!(again.activation, Activation::Identity);
    close(&again.scores(&pairs, 100).unwrap(), "identity");
}

#[test]
fn a_ranking_is_put_in_the_models_order_down_to_a_depth() {
    let _alone = alone();
    let m = CrossEncoder::load(&golden(), Device::Cpu, Compute::F32).unwrap();
    let question = "what colour has the house ?";
    let texts = ["the river is green .", "the house is red .", "the stone of the village is blue .", "a b ."];
    let logits = m.logits(&texts.map(|t| (question, t)), 100, &mut |_| ()).unwrap();
    let mut run = Run::new();
    let docs = texts.iter().enumerate().map(|(i, _)| (format!("p{i}"), 10.0 - i as f32)).collect();
    run.insert("q", docs).unwrap();
    let names: Vec<String> = (0..4).map(|i| format!("p{i}")).collect();
    let passages: HashMap<&str, &str> = names.iter().map(String::as_str).zip(texts).collect();
    let questions = HashMap::from([("q", question)]);
    let again = m.rerank(&run, &questions, &passages, 3, 64, &mut |_| ()).unwrap();
    let mut order: Vec<usize> = (0..3).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let want: Vec<String> = order.into_iter().chain([3]).map(|i| format!("p{i}")).collect();
    let have: Vec<String> = again.get("q").unwrap().iter().map(|(d, _)| d.clone()).collect();
    assert_eq!(have, want);
    let order = m.order(question, &texts, 64).unwrap();
    assert!(order.windows(2).all(|w| w[0].1 >= w[1].1) && order.len() == 4);
    let e = m.rerank(&run, &questions, &HashMap::new(), 3, 64, &mut |_| ()).unwrap_err().to_string();
    assert!(e.contains("`p0`"), "{e}");
}

const THINGS: [&str; 4] = ["house", "river", "stone", "village"];
const COLOURS: [&str; 3] = ["red", "green", "blue"];

/// Twelve passages, and questions that name the thing and the colour.
fn world(dir: &Path) {
    let data = dir.join("data");
    std::fs::create_dir_all(data.join("qrels")).unwrap();
    let (mut corpus, mut queries, mut qrels) =
        (String::new(), String::new(), "query-id\tcorpus-id\tscore\n".to_string());
    for (i, thing) in THINGS.iter().enumerate() {
        for (j, colour) in COLOURS.iter().enumerate() {
            let n = 3 * i + j;
            corpus += &format!(
                "{}\n",
                json!({"_id": format!("p{n}"), "text": format!("the {thing} is {colour} .")})
            );
            queries += &format!(
                "{}\n",
                json!({"_id": format!("q{n}"), "text": format!("what {thing} has {colour} ?")})
            );
            qrels += &format!("q{n}\tp{n}\t1\n");
        }
    }
    for (name, text) in [("corpus.jsonl", corpus), ("queries.jsonl", queries)] {
        std::fs::write(data.join(name), text).unwrap();
    }
    for split in ["train", "dev"] {
        std::fs::write(data.join(format!("qrels/{split}.tsv")), &qrels).unwrap();
    }
    // A first stage that knows nothing yet.
    rng::seed(2);
    let size = ScratchModel {
        vocab_size: 60,
        hidden_size: 16,
        layers: 1,
        heads: 2,
        intermediate_size: 32,
        max_positions: 32,
        ..ScratchModel::default()
    };
    let texts = ["what house river stone village has is red green blue ? ."];
    let dense = RepresentationConfig::Dense(DenseSettings::default());
    let m = size
        .build(texts.into_iter(), dense, Prompts::default(), (16, 24), Device::Cpu, Compute::F32)
        .unwrap();
    st_dir::save(&m, &dir.join("first")).unwrap();
}

fn config(dir: &Path, more: &str) -> CrossEncoderConfig {
    let (d, g) = (dir.display(), golden());
    CrossEncoderConfig::from_toml(&format!(
        r#"
[run]
seed = 4
device = "cpu"
precision = "fp32"
epochs = 100.0
log_every = 1
[model]
base = "{}"
max_tokens = 40
dropout = 0.0
attention_dropout = 0.0
[data]
train = "{d}/data"
dev = "{d}/data"
[first_stage]
model = "{d}/first"
[first_stage.mining.select]
count = 8
[batch]
size = 4
negatives_per_query = 5
[optim]
lr = 1e-3
[eval]
depth = 12
{more}
"#,
        g.display()
    ))
    .unwrap()
}

fn options(out: &Path, resume: bool, stop_after: Option<u64>) -> RunOptions {
    RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() }
}

#[test]
fn it_learns_what_its_first_stage_does_not_know_and_resumes_bit_for_bit() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    assert!(hub::resolve(&tmp.path().join("first").display().to_string()).is_ok());
    for (name, loss) in [
        ("bce", "[loss.bce]\npos_weight = 5.0\n"),
        ("lambda", "[loss.lambda]\n"),
        ("softmax", "[loss.softmax]\n"),
    ] {
        let mut c = config(tmp.path(), &format!("{loss}[save]\nevery_steps = 4\n"));
        let out = tmp.path().join(name);
        let o = train(&c, &options(&out, false, None)).unwrap();
        let ndcg = "ndcg@10".parse().unwrap();
        let (first, best) =
            (o.first_stage.unwrap().mean(ndcg).unwrap(), o.run.best.unwrap().scores.mean(ndcg).unwrap());
        assert!(o.run.finished && best > 0.9 && best > first + 0.2, "{name}: {first} to {best}");
        // The folder says what its logits are.
        let m = CrossEncoder::load(&out.join("best"), Device::Cpu, Compute::F32).unwrap();
        assert_eq!(m.activation == Activation::Sigmoid, name == "bce");
        let order =
            m.order("what river has green ?", &["the house is green .", "the river is green ."], 64).unwrap();
        assert_eq!(order[0].0, 1, "{name}");
        // Stopped and resumed, in passes of two questions.
        c.run.max_steps = Some(9);
        c.batch.tokens = 150;
        let (whole, parts) =
            (tmp.path().join(format!("{name}-whole")), tmp.path().join(format!("{name}-parts")));
        train(&c, &options(&whole, false, None)).unwrap();
        assert!(!train(&c, &options(&parts, false, Some(3))).unwrap().run.finished);
        assert!(!train(&c, &options(&parts, true, Some(3))).unwrap().run.finished);
        std::fs::remove_dir_all(parts.join("checkpoints/step-000000006")).unwrap();
        assert!(train(&c, &options(&parts, true, None)).unwrap().run.finished);
        let read = |run: &Path| std::fs::read(run.join("best/model.safetensors")).unwrap();
        assert!(read(&whole) == read(&parts), "{name}: stopped and resumed");
    }
}

#[test]
fn what_cannot_work_is_refused_with_a_remedy() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    let refused = |c: &CrossEncoderConfig, words: &[&str]| {
        let e = train(c, &options(&tmp.path().join("refused"), false, None)).unwrap_err().to_string();
        assert!(words.iter().all(|w| e.contains(w)), "{e}");
        let _ = std::fs::remove_dir_all(tmp.path().join("refused"));
    };
    refused(&config(tmp.path(), "[loss.margin_mse]\n"), &["first_stage", "teacher"]);
    let mut c = config(tmp.path(), "[loss.margin_mse]\n");
    (c.first_stage, c.data.dev) = (None, None);
    refused(&c, &["q", "teacher's scores"]);
    let mut c = config(tmp.path(), "");
    c.first_stage = None;
    refused(&c, &["data.dev", "first_stage.model"]);
    let mut c = config(tmp.path(), "");
    c.model.max_tokens = Some(4096);
    refused(&c, &["model.max_tokens", "64"]);
    // A classifier with several labels is no re-ranker.
    let dir = tmp.path().join("three");
    let labels = ragduet_classifier::LabelSet::given(
        ragduet_classifier::Task::Classification,
        ["a", "b", "c"].map(String::from).to_vec(),
    )
    .unwrap();
    rng::seed(1);
    ragduet_classifier::Classifier::with_labels(&golden(), Device::Cpu, Compute::F32, Some(labels))
        .unwrap()
        .save(&dir)
        .unwrap();
    let e = CrossEncoder::load(&dir, Device::Cpu, Compute::F32).unwrap_err().to_string();
    assert!(e.contains("3 labels"), "{e}");
}
