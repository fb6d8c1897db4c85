//! A run that is stopped and resumed ends with the weights of one that was not, bit for bit; a batch that goes
//! through gradient caching gives the gradients of a plain one; exports read back as they were.

use crate::common::{assert_same, options};
use ragduet_data::BatchSize;
use ragduet_nn::Mode;
use ragduet_retriever::loss::{Compared, InfoNce, LossBatch, LossConfig, Relations, fixed_scale};
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::contrastive::{initial_model, train};
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{BiEncoder, Side, grad_cache};
use ragduet_testkit::{alone, max_diff, relative_diff};
use ragduet_torch::{Compute, Device, Tensor, grad, no_grad, rng};
use ragduet_train::config::Config as _;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const THINGS: [&str; 12] = [
    "anchor", "beacon", "copper", "delta", "ember", "falcon", "granite", "harbour", "island", "juniper",
    "kelp", "lantern",
];

/// Pairs whose words tell them apart, two questions a thing.
fn write_pairs(dir: &Path) -> PathBuf {
    let mut text = String::new();
    for (i, t) in THINGS.iter().enumerate() {
        let other = THINGS[(i + 5) % THINGS.len()];
        let passage = format!("The {t} of the north stands {i} miles behind the {other} road.");
        for q in [format!("where is the {t}?"), format!("how far is the {t} from the road?")] {
            let _ = writeln!(text, "{}", serde_json::json!({"query": q, "positive": passage}));
        }
    }
    let path = dir.join("pairs.jsonl");
    std::fs::write(&path, text).unwrap();
    path
}

fn config(dir: &Path, more: &str) -> RetrieverConfig {
    let pairs = write_pairs(dir);
    let text = format!(
        r#"
        [model]
        max_query_tokens = 16
        max_passage_tokens = 32
        [model.scratch]
        vocab_size = 200
        hidden_size = 32
        layers = 2
        heads = 2
        intermediate_size = 64
        max_positions = 40
        dropout = 0.1
        [data]
        train = "{0}"
        dev = "{0}"
        [optim]
        lr = 1e-3
        [eval]
        measures = ["ndcg@10"]
        {more}
        "#,
        pairs.display()
    );
    let mut c = RetrieverConfig::from_toml(&text).unwrap();
    (c.run.seed, c.run.precision, c.batch.size) = (3, "fp32".parse().unwrap(), BatchSize::Examples(6));
    c
}

const BUSY: &str = r#"
        every_steps = 4
        [run]
        epochs = 6.0
        [batch]
        accumulate = 2
        negatives_per_query = 2
        positives = "sample"
        [mining]
        when = { every_steps = 3 }
        [mining.select]
        count = 4
        sampling = "uniform"
        [save]
        every_steps = 2
        "#;

#[test]
fn stopped_and_resumed_is_as_if_never_stopped() {
    let _turn = alone();
    for precision in ["fp32", "bf16"] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), BUSY);
        c.run.precision = precision.parse().unwrap();
        let whole = dir.path().join("whole");
        let outcome = train(&c, &options(&whole, false, None)).unwrap();
        assert!(outcome.finished && outcome.step == 12, "{outcome:?}");
        for stop in [1, 5, 6, 11] {
            let run = dir.path().join(format!("stopped-{stop}"));
            let first = train(&c, &options(&run, false, Some(stop))).unwrap();
            assert!(!first.finished && first.step == stop);
            // Whatever this process drew in between must not matter.
            rng::seed(99);
            let second = train(&c, &options(&run, true, None)).unwrap();
            assert!(second.finished && second.step == 12);
            assert_same(&whole, &run);
            let best = |d: &Path| std::fs::read(d.join("best/model.safetensors")).unwrap();
            assert_eq!(best(&whole), best(&run), "the best model, stopped at {stop}");
        }
        // A damaged newest checkpoint: the one before is taken, and the end is the same.
        let run = dir.path().join("damaged");
        train(&c, &options(&run, false, Some(6))).unwrap();
        let newest = run.join("checkpoints/step-000000006/parameters.safetensors");
        std::fs::write(newest, "torn").unwrap();
        train(&c, &options(&run, true, None)).unwrap();
        assert_same(&whole, &run);
    }
}

#[test]
fn another_config_is_not_resumed_and_a_taken_folder_not_overwritten() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "");
    let run = dir.path().join("run");
    train(&c, &options(&run, false, None)).unwrap();
    let e = train(&c, &options(&run, false, None)).unwrap_err().to_string();
    assert!(e.contains("--resume"), "{e}");
    let mut other = c;
    other.optim.lr = 0.5;
    let e = train(&other, &options(&run, true, None)).unwrap_err().to_string();
    assert!(e.contains("optim.lr"), "{e}");
}

#[test]
fn a_handful_of_pairs_is_learnt() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "");
    c.run.epochs = Some(60.0);
    c.optim.lr = 3e-3;
    let run = dir.path().join("run");
    let outcome = train(&c, &options(&run, false, None)).unwrap();
    let ndcg = |e: Option<ragduet_train::Evaluated<ragduet_metrics::Evaluation>>| {
        e.unwrap().scores.mean(c.eval.measures[0]).unwrap()
    };
    let (before, after) = (ndcg(outcome.before), ndcg(outcome.best));
    assert!(after > 0.95 && before < 0.8, "{before} {after}");
}

#[test]
fn a_loss_that_explodes_stops_with_a_reason() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "");
    c.optim.lr = 1e30;
    c.optim.max_grad_norm = 0.0;
    c.run.epochs = Some(20.0);
    let e = train(&c, &options(&dir.path().join("run"), false, None)).unwrap_err().to_string();
    assert!(e.contains("learning rate") && e.contains("at step"), "{e}");
}

fn model(dir: &Path, more: &str) -> BiEncoder {
    let mut m = initial_model(&config(dir, more)).unwrap();
    m.query_tower.model.encoder.set_dropout(Some(0.0), Some(0.0));
    m
}

fn texts() -> (Vec<String>, Vec<String>) {
    let q = (0..9).map(|i| format!("where is the {}{}?", THINGS[i], " indeed".repeat(i % 4))).collect();
    let p =
        (0..11).map(|i| format!("The {} stands{} there.", THINGS[i], " far away".repeat(i % 3))).collect();
    (q, p)
}

fn relations() -> Relations {
    Relations {
        positive: (0..9).collect(),
        negatives: (0..9).map(|i| if i % 2 == 0 { vec![9, 10] } else { vec![] }).collect(),
        ..Relations::default()
    }
}

#[test]
fn gradient_caching_gives_the_plain_gradients() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let m = model(dir.path(), "");
    let (q, p) = texts();
    let (q, p) = (m.tokenize(Side::Query, &q).unwrap(), m.tokenize(Side::Passage, &p).unwrap());
    let r = relations();
    let loss = LossConfig::InfoNce(InfoNce::default()).build().unwrap();
    let compute = |queries: &Tensor, passages: &Tensor| {
        let scale = fixed_scale(20.0, queries);
        loss.loss(&LossBatch::new(Compared::Vectors { queries, passages }, &r, &scale))
    };
    let mode = Mode::train(Compute::F32);
    let parameters = m.parameters();
    let all: Vec<Tensor> = parameters.iter().map(|(_, t)| t.shallow_clone()).collect();
    let grads = || {
        let g: Vec<Tensor> = all.iter().map(|t| t.grad().copy()).collect();
        grad::clear(&all).unwrap();
        g
    };
    let a = m.embed(Side::Query, &q.iter().collect::<Vec<_>>(), mode).unwrap();
    let b = m.embed(Side::Passage, &p.iter().collect::<Vec<_>>(), mode).unwrap();
    let plain = compute(&a, &b);
    (&plain * 0.5).backward();
    let want = grads();
    for chunk in [1, 20, 55, 10_000] {
        let value = grad_cache::backward(&m, &q, &p, chunk, mode, 0.5, compute).unwrap();
        assert!(max_diff(&value, &plain.detach()) < 1e-5);
        let have = grads();
        let norm = |t: &[Tensor]| grad::norm(t).unwrap();
        let off: Vec<Tensor> = have.iter().zip(&want).map(|(x, y)| x - y).collect();
        assert!(
            norm(&off) <= 1e-5 * norm(&want),
            "chunks of {chunk} tokens: {:.2e}",
            norm(&off) / norm(&want)
        );
    }
}

#[test]
fn gradient_caching_repeats_its_dropout() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let m = initial_model(&config(dir.path(), "")).unwrap();
    let (q, p) = texts();
    let (q, p) = (m.tokenize(Side::Query, &q).unwrap(), m.tokenize(Side::Passage, &p).unwrap());
    let r = relations();
    let loss = LossConfig::default().build().unwrap();
    let parameters: Vec<Tensor> = m.parameters().into_iter().map(|(_, t)| t).collect();
    let run = |chunk| {
        rng::seed(5);
        let value = grad_cache::backward(&m, &q, &p, chunk, Mode::train(Compute::F32), 1.0, |a, b| {
            let scale = fixed_scale(20.0, a);
            loss.loss(&LossBatch::new(Compared::Vectors { queries: a, passages: b }, &r, &scale))
        });
        let g: Vec<Tensor> = parameters.iter().map(|t| t.grad().copy()).collect();
        grad::clear(&parameters).unwrap();
        (value.unwrap(), g)
    };
    // One chunk a side is the plain pass with the same draws: the replayed gradient must be the graph's.
    let (v1, g1) = run(10_000);
    rng::seed(5);
    let mode = Mode::train(Compute::F32);
    let a = m.embed(Side::Query, &q.iter().collect::<Vec<_>>(), mode).unwrap();
    let b = m.embed(Side::Passage, &p.iter().collect::<Vec<_>>(), mode).unwrap();
    let scale = fixed_scale(20.0, &a);
    let plain = loss.loss(&LossBatch::new(Compared::Vectors { queries: &a, passages: &b }, &r, &scale));
    plain.backward();
    assert!(max_diff(&v1, &plain.detach()) < 1e-5);
    let off: Vec<Tensor> = parameters.iter().zip(&g1).map(|(p, g)| p.grad() - g).collect();
    assert!(grad::norm(&off).unwrap() <= 1e-5 * grad::norm(&g1).unwrap());
    grad::clear(&parameters).unwrap();
    let (v2, g2) = run(20);
    let (v3, g3) = run(20);
    assert!(v2.equal(&v3) && g2.iter().zip(&g3).all(|(x, y)| x.equal(y)));
    assert!(relative_diff(&v2, &v1) > 0.0, "other chunks, other draws");
}

#[test]
fn exports_read_back_as_they_were() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let base = model(dir.path(), "");
    let saved = dir.path().join("base");
    st_dir::save(&base, &saved).unwrap();
    let probe: Vec<String> = texts().0;
    for (i, change) in [
        "",
        "separate_towers = true",
        "projection = 8",
        "pooling = \"cls\"",
        "pooling = \"last_token\"",
        "prompts = { query = \"ask: \", document = \"text: \" }",
        "similarity = \"dot\"\nnormalize = false",
    ]
    .iter()
    .enumerate()
    {
        let mut c = config(dir.path(), "");
        c.model.scratch = None;
        let changed: toml::Table = toml::from_str(change).unwrap();
        let mut table = toml::Table::try_from(&c.model).unwrap();
        table.insert("base".into(), saved.display().to_string().into());
        table.extend(changed);
        c.model = table.try_into().unwrap();
        let m = initial_model(&c).unwrap();
        let out = dir.path().join(format!("export-{i}"));
        st_dir::save(&m, &out).unwrap();
        st_dir::verify(&m, &out, &probe).unwrap();
        let o =
            Overrides { max_query_tokens: Some(16), max_passage_tokens: Some(32), ..Overrides::default() };
        let again = st_dir::load(&out, Device::Cpu, Compute::F32, &o).unwrap();
        assert_eq!(again.settings, m.settings, "{change}");
        assert_eq!(again.is_shared(), m.is_shared(), "{change}");
        let _guard = no_grad();
        for side in [Side::Query, Side::Passage] {
            let embed = |m: &BiEncoder| {
                let t = m.tokenize(side, &probe).unwrap();
                m.embed(side, &t.iter().collect::<Vec<_>>(), Mode::eval(Compute::F32)).unwrap()
            };
            assert_eq!(max_diff(&embed(&m), &embed(&again)), 0.0, "{change}");
        }
    }
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let m = model(dir.path(), "");
    let refused = |name: &str, file: &str, from: &str, to: &str| {
        let out = dir.path().join(name);
        st_dir::save(&m, &out).unwrap();
        let path = out.join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name}: {text}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let e = st_dir::load(&out, Device::Cpu, Compute::F32, &Overrides::default()).unwrap_err().to_string();
        assert!(e.contains(file.rsplit('/').next().unwrap()), "{name}: {e}");
        e
    };
    assert!(
        refused("module", "modules.json", "models.Normalize", "models.WordWeights").contains("WordWeights")
    );
    let unknown =
        refused("pooling", "1_Pooling/config.json", "mode_max_tokens\": false", "mode_attention\": true");
    assert!(unknown.contains("pooling_mode `attention`"), "{unknown}");
    let none = refused("none", "1_Pooling/config.json", "mean_tokens\": true", "mean_tokens\": false");
    assert!(none.contains("no pooling"), "{none}");
    let similarity = "config_sentence_transformers.json";
    assert!(refused("similarity", similarity, "\"cosine\"", "\"manhattan\"").contains("manhattan"));
    let plain = dir.path().join("plain");
    st_dir::save(&m, &plain).unwrap();
    std::fs::remove_file(plain.join("modules.json")).unwrap();
    let e = st_dir::load(&plain, Device::Cpu, Compute::F32, &Overrides::default()).unwrap_err().to_string();
    assert!(e.contains("does not say how token states become an embedding"), "{e}");
}

#[test]
fn shipped_configs_are_valid() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/retriever");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let c: RetrieverConfig = ragduet_train::config::load(&path, &[]).unwrap();
            c.validate().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            seen += 1;
        }
    }
    assert!(seen >= 3);
}
