//! Contriever: the loss is its formula, keys follow and carry no gradient, runs resume bit for bit, and a small model
//! learns to find texts without having seen a question.

use ragduet_nn::Mode;
use ragduet_retriever::recipe::config::{GradCacheConfig, RetrieverConfig};
use ragduet_retriever::recipe::contrastive::{RunOptions, initial_model, train as train_dense};
use ragduet_retriever::recipe::contriever::{Contrast, ContrieverConfig, KeyEncoder, train};
use ragduet_retriever::{BiEncoder, Side, st_dir};
use ragduet_testkit::{alone, check_gradient, max_diff};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Kind, Tensor, no_grad, rng};
use ragduet_train::config::Config as _;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const T: f64 = 0.3;

fn random(rows: i64) -> Tensor {
    Tensor::randn([rows, 5], (Kind::Double, Device::Cpu))
}

fn rows(t: &Tensor) -> Vec<Vec<f64>> {
    (0..t.size()[0]).map(|i| Vec::try_from(t.get(i)).unwrap()).collect()
}

/// Mean over queries of the cross-entropy with label smoothing `e`; `candidates`: per query, its key's first.
fn formula(q: &Tensor, candidates: &[Vec<&Vec<f64>>], e: f64) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>() / T;
    let each = rows(q).into_iter().zip(candidates).map(|(q, c)| {
        let s: Vec<f64> = c.iter().map(|k| dot(&q, k)).collect();
        let z = s.iter().map(|x| x.exp()).sum::<f64>().ln();
        let even = s.iter().map(|x| z - x).sum::<f64>() / s.len() as f64;
        (1.0 - e) * (z - s[0]) + e * even
    });
    each.sum::<f64>() / candidates.len() as f64
}

#[track_caller]
fn close(a: &Tensor, b: f64) {
    let a = f64::try_from(a).unwrap();
    assert!((a - b).abs() < 1e-9, "{a} {b}");
}

#[test]
fn the_losses_are_their_formulas() {
    let _turn = alone();
    rng::seed(5);
    let (q, k, queue) = (random(3), random(3), random(4));
    let (own, owners) = (Tensor::from_slice(&[7i64, 8, 9]), Tensor::from_slice(&[1i64, 8, 2, 3]));
    let (ks, qs) = (rows(&k), rows(&queue));
    // The second query's chunk is in the queue, too: no negative of it.
    let against_queue = [
        vec![&ks[0], &qs[0], &qs[1], &qs[2], &qs[3]],
        vec![&ks[1], &qs[0], &qs[2], &qs[3]],
        vec![&ks[2], &qs[0], &qs[1], &qs[2], &qs[3]],
    ];
    let against_batch =
        [vec![&ks[0], &ks[1], &ks[2]], vec![&ks[1], &ks[0], &ks[2]], vec![&ks[2], &ks[0], &ks[1]]];
    for e in [0.0, 0.2] {
        let moco = Contrast::moco(&q, &k, &queue, (&own, &owners), T);
        close(&moco.loss(e), formula(&q, &against_queue, e));
        let in_batch = Contrast::in_batch(&q, &k, &own, T);
        close(&in_batch.loss(e), formula(&q, &against_batch, e));
    }
    // Twice the same chunk in a batch: neither is the other's negative.
    let twice = Contrast::in_batch(&q, &k, &Tensor::from_slice(&[7i64, 8, 7]), T);
    let apart = [vec![&ks[0], &ks[1]], vec![&ks[1], &ks[0], &ks[2]], vec![&ks[2], &ks[1]]];
    close(&twice.loss(0.0), formula(&q, &apart, 0.0));
    // An empty queue: nothing to tell from.
    let none = Contrast::moco(&q, &k, &queue.narrow(0, 0, 0), (&own, &owners.narrow(0, 0, 0)), T);
    close(&none.loss(0.0), 0.0);
    assert_eq!(f64::try_from(none.hits()).unwrap(), 3.0);
}

#[test]
fn gradients_are_the_numerical_ones() {
    let _turn = alone();
    rng::seed(6);
    let (q, k, queue) = (random(3), random(3), random(4));
    let (own, owners) = (Tensor::from_slice(&[7i64, 8, 9]), Tensor::from_slice(&[1i64, 8, 2, 3]));
    for e in [0.0, 0.1] {
        check_gradient(&[q.shallow_clone()], 1e-6, |x| {
            Contrast::moco(&x[0], &k, &queue, (&own, &owners), T).loss(e)
        });
        check_gradient(&[q.shallow_clone(), k.shallow_clone()], 1e-6, |x| {
            Contrast::in_batch(&x[0], &x[1], &own, T).loss(e)
        });
    }
}

const THINGS: [&str; 16] = [
    "anchor", "beacon", "copper", "delta", "ember", "falcon", "granite", "harbour", "island", "juniper",
    "kelp", "lantern", "marble", "needle", "otter", "pebble",
];

/// A text about each thing, as plain lines; and questions about them, for the dev set.
fn write_data(dir: &Path) -> (PathBuf, PathBuf) {
    let (mut corpus, mut pairs) = (String::new(), String::new());
    for (i, t) in THINGS.iter().enumerate() {
        let (a, b) = (THINGS[(i + 5) % THINGS.len()], THINGS[(i + 9) % THINGS.len()]);
        let text = format!(
            "The {t} of the north stands {i} miles behind the {a} road. Nobody who saw the {t} forgot the colour of \
             the {t}, and the {b} people built a house beside the {t} to look at it."
        );
        let _ = writeln!(corpus, "{text}");
        let pair = serde_json::json!({"query": format!("who forgot the {t}?"), "positive": text});
        let _ = writeln!(pairs, "{pair}");
    }
    let paths = (dir.join("corpus.txt"), dir.join("pairs.jsonl"));
    std::fs::write(&paths.0, corpus).unwrap();
    std::fs::write(&paths.1, pairs).unwrap();
    paths
}

fn config(dir: &Path, more: &str) -> ContrieverConfig {
    let (corpus, dev) = write_data(dir);
    let text = format!(
        r#"
        [model]
        max_query_tokens = 16
        max_passage_tokens = 64
        [model.scratch]
        vocab_size = 200
        hidden_size = 32
        layers = 2
        heads = 2
        intermediate_size = 64
        max_positions = 80
        dropout = 0.1
        [data]
        train = ["{}"]
        dev = "{}"
        [optim]
        lr = 1e-3
        [eval]
        measures = ["ndcg@10"]
        {more}
        "#,
        corpus.display(),
        dev.display()
    );
    let mut c = ContrieverConfig::from_toml(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    (c.run.seed, c.run.precision, c.batch.size) = (3, "fp32".parse().unwrap(), 6);
    c
}

fn options(out: &Path, resume: bool, stop_after: Option<u64>) -> RunOptions {
    RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() }
}

fn last(run: &Path, file: &str) -> Vec<(String, Tensor)> {
    let mut all: Vec<_> =
        std::fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    let w = Weights::open_file(&all.last().unwrap().join(file)).unwrap();
    w.names().map(|n| (n.to_string(), w.load_as_is(n).unwrap())).collect()
}

fn assert_same(a: &[(String, Tensor)], b: &[(String, Tensor)]) {
    assert_eq!(a.len(), b.len());
    for ((n, x), (m, y)) in a.iter().zip(b) {
        assert_eq!(n, m);
        assert!(x.equal(y), "{n} differs by {:.2e}", max_diff(x, y));
    }
}

const MOCO: &str = "
        every_steps = 4
        [run]
        max_steps = 12
        [crops]
        replace = 0.05
        mask = 0.05
        [form.moco]
        queue_size = 15
        momentum = 0.9
        [save]
        every_steps = 2
        ";

#[test]
fn stopped_and_resumed_is_as_if_never_stopped() {
    let _turn = alone();
    let in_batch =
        MOCO.replace("[form.moco]\n        queue_size = 15\n        momentum = 0.9", "[form.in_batch]");
    for (form, precision) in [(MOCO, "fp32"), (MOCO, "bf16"), (&in_batch, "fp32")] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), form);
        c.run.precision = precision.parse().unwrap();
        let whole = dir.path().join("whole");
        let outcome = train(&c, &options(&whole, false, None)).unwrap();
        assert!(outcome.finished && outcome.step == 12, "{outcome:?}");
        let weights = last(&whole, "parameters.safetensors");
        let own = weights.iter().filter(|(n, _)| !n.starts_with("key_encoder.")).count();
        assert_eq!(weights.len(), if form == MOCO { 2 * own } else { own });
        for stop in [1, 5, 6, 11] {
            let run = dir.path().join(format!("stopped-{stop}"));
            let first = train(&c, &options(&run, false, Some(stop))).unwrap();
            assert!(!first.finished && first.step == stop);
            // Whatever this process drew in between must not matter.
            rng::seed(99);
            let second = train(&c, &options(&run, true, None)).unwrap();
            assert!(second.finished && second.step == 12);
            assert_same(&weights, &last(&run, "parameters.safetensors"));
            if form == MOCO {
                assert_same(&last(&whole, "queue.safetensors"), &last(&run, "queue.safetensors"));
            }
            let best = |d: &Path| std::fs::read(d.join("best/model.safetensors")).unwrap();
            assert_eq!(best(&whole), best(&run), "the best model, stopped at {stop}");
        }
    }
}

#[test]
fn parts_give_the_gradient_of_the_whole() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    for form in ["[form.moco]\nqueue_size = 12\nmomentum = 0.5", "[form.in_batch]"] {
        let after_four_steps = |part: Option<usize>| {
            let mut c = config(dir.path(), form);
            c.grad_cache = part.map(|chunk_tokens| GradCacheConfig { chunk_tokens });
            (c.model.dropout, c.model.attention_dropout) = (Some(0.0), Some(0.0));
            c.optim.warmup = ragduet_train::Warmup::Steps(0);
            c.run.max_steps = Some(4);
            c.data.dev = None;
            let run = tempfile::tempdir().unwrap();
            train(&c, &options(run.path(), false, None)).unwrap();
            last(run.path(), "parameters.safetensors")
        };
        let whole = after_four_steps(None);
        for part in [1, 40] {
            for ((n, a), (_, b)) in whole.iter().zip(&after_four_steps(Some(part))) {
                // AdamW divides by the gradient's size: where it is next to nothing, rounding shows.
                assert!(max_diff(a, b) < 1e-4, "{form}, parts of {part}: {n} {:.2e}", max_diff(a, b));
            }
        }
    }
}

fn small_model(dir: &Path) -> BiEncoder {
    let c = config(dir, "");
    let mut dense = toml::Table::new();
    dense.insert("model".into(), toml::Value::try_from(&c.model).unwrap());
    let pairs = dir.join("pairs.jsonl").display().to_string();
    dense.insert("data".into(), toml::Table::from_iter([("train".to_string(), pairs.into())]).into());
    initial_model(&RetrieverConfig::from_toml(&dense.to_string()).unwrap()).unwrap()
}

#[test]
fn keys_are_a_moving_average_without_a_gradient() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let model = small_model(dir.path());
    let keys = KeyEncoder::of(&model, 0.75, (Some(0.0), Some(0.0))).unwrap();
    let values = |m: &BiEncoder| -> Vec<Tensor> {
        m.parameters().iter().map(|(_, p)| p.detach().copy().to_kind(Kind::Double)).collect()
    };
    let mut want = values(&model);
    assert!(values(keys.model()).iter().zip(&want).all(|(a, b)| a.equal(b)));
    let texts = ["who forgot the kelp?".to_string()];
    let embed = || {
        let _guard = no_grad();
        let tokens = keys.model().tokenize(Side::Query, &texts).unwrap();
        keys.model()
            .embed(Side::Query, &tokens.iter().collect::<Vec<_>>(), Mode::train(Compute::F32))
            .unwrap()
    };
    let before = embed();
    for _ in 0..3 {
        {
            let _guard = no_grad();
            for (_, p) in model.parameters() {
                let _ = p.shallow_clone().g_add_(&(p.randn_like() * 0.1));
            }
        }
        keys.follow();
        for (w, now) in want.iter_mut().zip(values(&model)) {
            *w = &*w * 0.75 + now * 0.25;
        }
        for (have, w) in values(keys.model()).iter().zip(&want) {
            assert!(max_diff(have, w) < 1e-6, "{:.2e}", max_diff(have, w));
        }
    }
    assert!(keys.model().parameters().iter().all(|(_, p)| !p.requires_grad()));
    assert!(model.parameters().iter().all(|(_, p)| p.requires_grad()));
    assert!(max_diff(&before, &embed()) > 1e-3, "the pass must see the new weights");
}

#[test]
fn a_small_model_learns_to_find_without_a_question() {
    let _turn = alone();
    for form in ["[form.moco]\nqueue_size = 12\nmomentum = 0.9", "[form.in_batch]"] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), form);
        c.run.max_steps = Some(150);
        c.optim.lr = 3e-3;
        c.batch.size = 8;
        c.run.log_every = 25;
        let run = dir.path().join("run");
        let outcome = train(&c, &options(&run, false, None)).unwrap();
        let ndcg = |e: &Option<ragduet_train::Evaluated<ragduet_metrics::Evaluation>>| {
            e.as_ref().and_then(|e| e.scores.mean(c.eval.measures[0])).unwrap()
        };
        let (before, after) = (ndcg(&outcome.before), ndcg(&outcome.best));
        let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        println!("{form}: {before} {after}\n{log}");
        // A queue of a dozen keys over as few passages is too small to find with, but its task is learned.
        let losses: Vec<f64> = log
            .lines()
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["loss"].as_f64())
            .collect();
        let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(least < 0.8 * losses[0], "{form}: {losses:?}");
        if form.contains("in_batch") {
            assert!(after > before + 0.1, "{form}: {before} {after}");
        }
    }
}

#[test]
fn supervised_training_goes_on_from_the_export() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "");
    c.run.max_steps = Some(3);
    c.data.dev = None;
    let run = dir.path().join("run");
    let best = train(&c, &options(&run, false, None)).unwrap().model_dir.unwrap();
    let text = format!(
        "[model]\nbase = '{}'\nmax_query_tokens = 16\nmax_passage_tokens = 64\n[data]\ntrain = '{}'\n\
         [batch]\nsize = {{ examples = 4 }}",
        best.display(),
        dir.path().join("pairs.jsonl").display()
    );
    let outcome = train_dense(
        &RetrieverConfig::from_toml(&text).unwrap(),
        &options(&dir.path().join("dense"), false, None),
    );
    let model = outcome.unwrap().model_dir.unwrap();
    st_dir::load(&model, Device::Cpu, Compute::F32, &st_dir::Overrides::default()).unwrap();
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let error = |more: &str, change: &dyn Fn(&mut ContrieverConfig)| {
        let mut c = config(dir.path(), more);
        change(&mut c);
        let run = tempfile::tempdir().unwrap();
        train(&c, &options(&run.path().join("run"), false, None)).unwrap_err().to_string()
    };
    #[track_caller]
    fn has(e: &str, words: &[&str]) {
        assert!(words.iter().all(|w| e.contains(w)), "{e}");
    }
    has(&error("", &|c| c.crops.ratio_min = 0.0), &["crops", "ratio_min"]);
    has(&error("", &|c| c.crops.ratio_max = f64::NAN), &["crops", "ratio_max"]);
    has(&error("", &|c| c.crops.mask = 0.95), &["crops", "less than 1"]);
    has(&error("[form.moco]\nqueue_size = 5", &|_| ()), &["queue_size", "batch"]);
    has(&error("[form.moco]\nmomentum = 1.5", &|_| ()), &["momentum"]);
    has(&error("[form.in_batch]", &|c| c.batch.size = 1), &["batch.size"]);
    has(&error("", &|c| c.loss.temperature = 0.0), &["temperature"]);
    has(&error("", &|c| c.loss.label_smoothing = 1.0), &["label_smoothing"]);
    has(&error("", &|c| c.model.separate_towers = true), &["separate_towers"]);
    has(&error("", &|c| c.data.train.clear()), &["data.train"]);
    has(&error("", &|c| c.chunks.min_tokens = 300), &["min_tokens"]);
    has(&error("", &|c| c.batch.size = 17), &["16 texts give 16 chunks", "takes 17"]);
    has(&error("", &|c| c.chunks.min_tokens = 200), &["0 chunks (16 more are shorter"]);
    let long = error("", &|c| {
        c.crops.ratio_max = 1.0;
        c.model.max_passage_tokens = Some(24);
        c.model.scratch.as_mut().unwrap().max_positions = 24;
    });
    has(&long, &["chunks.tokens", "takes 24"]);
    has(&error("", &|c| c.data.train = vec!["nowhere.txt".into()]), &["nowhere.txt"]);
    let unknown = ContrieverConfig::from_toml("[model]\n[data]\ntrain = ['x']\n[form.queue]\n");
    has(&unknown.unwrap_err().to_string(), &["queue", "moco", "in_batch"]);
    // A loss that explodes stops with a reason.
    let e = error("", &|c| {
        c.optim.lr = 1e30;
        c.optim.max_grad_norm = 0.0;
    });
    has(&e, &["learning rate", "at step"]);
}
