//! Embedders that are decoders: folders as Qwen3-Embedding, EmbeddingGemma and E5-Mistral have them against
//! sentence-transformers 6.2 (`golden/make_embedders.py`): vectors, a step's loss and its gradients.

use crate::common;
use ragduet_nn::Mode;
use ragduet_retriever::loss::{Compared, InfoNce, LossBatch, LossConfig, Relations, fixed_scale};
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::contrastive::train;
use ragduet_retriever::st_dir::{Overrides, load, save};
use ragduet_retriever::{BiEncoder, Side};
use ragduet_testkit::{alone, assert_close};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Tensor};
use ragduet_train::config::Config as _;
use std::path::{Path, PathBuf};

const QUERIES: [&str; 3] = ["where is the mill", "who keeps the ferry?", "x"];
const PASSAGES: [&str; 3] = [
    "By the ford, they say, and it has stood there for longer than anybody has kept count of.",
    "Two sisters keep it.",
    "The tide of the north stands six miles behind the road, it is said, and nobody knows why or since when it does.",
];
const FOLDERS: [&str; 4] = ["qwen3", "gemma", "e5_mistral", "both_sides"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/embedders").join(name)
}

fn read(dir: &Path) -> BiEncoder {
    load(dir, Device::Cpu, Compute::F32, &Overrides::default()).unwrap()
}

fn vectors(model: &BiEncoder, side: Side, texts: &[&str]) -> Tensor {
    let texts: Vec<String> = texts.iter().map(|t| t.to_string()).collect();
    let tokens = model.tokenize(side, &texts).unwrap();
    model.embed(side, &tokens.iter().collect::<Vec<_>>(), Mode::eval(Compute::F32)).unwrap()
}

fn check_vectors(model: &BiEncoder, data: &Weights, what: &str) {
    for (side, key, texts) in
        [(Side::Query, "vectors.query", QUERIES), (Side::Passage, "vectors.passage", PASSAGES)]
    {
        let want = data.load(key, Device::Cpu).unwrap();
        assert_close(&vectors(model, side, &texts), &want, 1e-4, &format!("{what}: {key}"));
        for (i, text) in texts.iter().enumerate() {
            let alone = vectors(model, side, &[text]);
            assert_close(&alone, &want.narrow(0, i as i64, 1), 1e-4, &format!("{what}: {key}, alone"));
        }
    }
}

#[test]
fn vectors_and_a_steps_gradients_are_those_of_sentence_transformers() {
    let _alone = alone();
    for name in FOLDERS {
        let data = Weights::open_file(&folder(name).join("golden.safetensors")).unwrap();
        let model = read(&folder(name));
        check_vectors(&model, &data, name);

        let (q, p) = (vectors(&model, Side::Query, &QUERIES), vectors(&model, Side::Passage, &PASSAGES));
        let relations = Relations {
            positive: vec![0, 1, 2],
            negatives: vec![vec![]; 3],
            also_relevant: Vec::new(),
            own_copies: Vec::new(),
            teacher: None,
        };
        let scale = fixed_scale(20.0, &q);
        let compared = Compared::Vectors { queries: &q, passages: &p };
        let loss = LossConfig::InfoNce(InfoNce::default()).build().unwrap();
        let loss = loss.loss(&LossBatch::new(compared, &relations, &scale));
        let want = data.load("loss", Device::Cpu).unwrap();
        assert_close(&loss.view(1), &want, 1e-4, &format!("{name}: loss"));
        loss.backward();
        let norm = |t: &Tensor| f64::try_from(t.norm()).unwrap();
        let all = model.parameters().iter().map(|(_, t)| norm(&t.grad()).powi(2)).sum::<f64>().sqrt();
        let parameters = model.parameters();
        for (parameter, t) in &parameters {
            // The script numbers modules; the first two are transformer and pooling.
            let theirs = match parameter.strip_prefix("dense") {
                Some(rest) => {
                    let (number, rest) = rest.split_once('.').unwrap();
                    let number: usize = number.trim_start_matches('_').parse().unwrap_or(0);
                    format!("grad.{}.{rest}", number + 2)
                }
                None => format!("grad.{parameter}"),
            };
            let want = data.load(&theirs, Device::Cpu).unwrap();
            let off = norm(&(t.grad() - &want));
            assert!(
                off <= 1e-3 * norm(&want).max(1e-4 * all),
                "{name}: gradient of {parameter} off by {off:.2e}"
            );
        }
        assert_eq!(data.names().filter(|n| n.starts_with("grad.")).count(), parameters.len(), "{name}");

        let out = tempfile::tempdir().unwrap();
        save(&model, out.path()).unwrap();
        check_vectors(&read(out.path()), &data, &format!("{name}, saved"));
    }
}

/// A run over a folder with `[model] base` and these tables; its config must need nothing else.
fn trained(dir: &Path, base: &Path, more: &str) -> PathBuf {
    let pairs = common::write_pairs(dir);
    let text = format!(
        "{more}\n[run]\nmax_steps = 2\nprecision = \"fp32\"\n[data]\ntrain = \"{}\"\n[batch]\nsize = {{ examples = 5 }}\n\
         [optim]\nlr = 1e-3\n[model]\nbase = \"{}\"\n",
        pairs.display(),
        base.display()
    );
    let config = RetrieverConfig::from_toml(&text).unwrap_or_else(|e| panic!("{text}\n{e}"));
    let out = dir.join("run");
    let _ = train(&config, &common::options(&out, false, None)).unwrap_or_else(|e| panic!("{text}\n{e}"));
    out
}

#[test]
fn decoders_train_by_every_way_that_encoders_do() {
    let _alone = alone();
    for (name, more) in [
        ("qwen3", ""),
        ("qwen3", "[grad_cache]\nchunk_tokens = 40"),
        ("qwen3", "[peft.lora]\nrank = 2"),
        ("gemma", "[loss.matryoshka]\ndims = [16, 8]\n[loss.matryoshka.inner.info_nce]"),
        ("gemma", "[peft.lora]\nrank = 2"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let run = trained(dir.path(), &folder(name), more);
        let before = vectors(&read(&folder(name)), Side::Passage, &PASSAGES);
        let after = vectors(&read(&run.join("best")), Side::Passage, &PASSAGES);
        let moved = f64::try_from((after - before).abs().max()).unwrap();
        assert!(moved > 1e-4 && moved < 1.0, "{name} {more}: {moved}");
    }
}
