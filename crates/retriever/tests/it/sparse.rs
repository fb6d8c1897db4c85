//! Sparse models: vectors, loss and gradients of sentence-transformers' SparseEncoder in every family, training, resuming,
//! gradient caching, mining, search.

use crate::common::{THINGS, assert_same, config, options};
use ragduet_index::IndexConfig;
use ragduet_metrics::Measure;
use ragduet_nn::Mode;
use ragduet_retriever::engine::{Engine, System};
use ragduet_retriever::evaluate::{EvalSet, evaluate_model};
use ragduet_retriever::loss::{
    Compared, Flops, InfoNce, LossBatch, LossConfig, Relations, Sum, Term, fixed_scale,
};
use ragduet_retriever::recipe::contrastive::{initial_model, train};
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{
    BiEncoder, EncodeSettings, Representation, Side, encode_sparse, encode_texts, grad_cache,
};
use ragduet_testkit::{alone, max_diff};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Kind, Tensor, rng};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::rc::Rc;

fn golden() -> (PathBuf, Value) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = std::fs::read_to_string(dir.join("sparse.json")).unwrap();
    (dir.join("sparse"), serde_json::from_str(&text).unwrap())
}

fn strings(v: &Value) -> Vec<String> {
    v.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_string()).collect()
}

fn numbers(v: &Value) -> Vec<f32> {
    v.as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect()
}

fn open(dir: &Path) -> BiEncoder {
    st_dir::load(dir, Device::Cpu, Compute::F32, &Overrides::default()).unwrap()
}

fn rows(model: &BiEncoder, side: Side, texts: &[String]) -> Tensor {
    let tokens = model.tokenize(side, texts).unwrap();
    model.rows(side, &tokens.iter().collect::<Vec<_>>(), Mode::eval(Compute::F32)).unwrap()
}

#[test]
fn vectors_loss_and_gradients_are_those_of_sentence_transformers_in_every_family() {
    let _alone = alone();
    let (dir, golden) = golden();
    let (queries, passages) = (strings(&golden["queries"]), strings(&golden["passages"]));
    for (family, want) in golden["models"].as_object().unwrap() {
        let model = open(&dir.join(family));
        let q = rows(&model, Side::Query, &queries);
        let p = rows(&model, Side::Passage, &passages);
        for (ours, theirs) in [(&q, &want["queries"]), (&p, &want["passages"])] {
            for (i, row) in theirs.as_array().unwrap().iter().enumerate() {
                let row = Tensor::from_slice(&numbers(row));
                let far = max_diff(&ours.get(i as i64), &row);
                assert!(far < 1e-4 * f64::try_from(row.max()).unwrap().max(1.0), "{family}, {i}: {far:.2e}");
            }
        }
        let relations = Relations {
            positive: vec![0, 1, 2],
            negatives: vec![vec![3], vec![4], vec![5]],
            ..Relations::default()
        };
        let flops = Flops { queries: 0.02, passages: 0.01, warmup: 0.0, threshold: Some(155) };
        let term = |loss| Term { weight: 1.0, loss };
        let terms = vec![term(LossConfig::InfoNce(InfoNce::default())), term(LossConfig::Flops(flops))];
        let loss = LossConfig::Sum(Sum { terms }).build().unwrap();
        let scale = fixed_scale(1.0, &q);
        let compared = Compared::Vectors { queries: &q, passages: &p };
        let value = loss.loss(&LossBatch::new(compared, &relations, &scale));
        value.backward();
        let theirs: f64 = want["loss"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
        let ours = f64::try_from(value.detach()).unwrap();
        assert!((ours - theirs).abs() < 1e-4 * theirs.abs(), "{family}: {ours}, {theirs}");
        let largest = want["gradients"].as_object().unwrap().values();
        let largest = largest.map(|v| v[1].as_f64().unwrap()).fold(0.0, f64::max);
        let mut compared = 0;
        for (name, tensor) in model.parameters() {
            let theirs = want["gradients"]
                .as_object()
                .unwrap()
                .iter()
                .find(|(n, _)| *n == &name || n.split_once('.').is_some_and(|(_, bare)| bare == name));
            let Some((_, theirs)) = theirs else { continue };
            let grad = tensor.grad();
            let norm = f64::try_from(grad.norm()).unwrap();
            let (sum, size) = (theirs[0].as_f64().unwrap(), theirs[1].as_f64().unwrap());
            let bound = 1e-3 * size + 1e-5 * largest;
            assert!((norm - size).abs() < bound, "{family}, {name}: {norm}, {size}");
            let ours = f64::try_from(grad.sum(Kind::Double)).unwrap();
            let spread = (grad.numel() as f64).sqrt();
            assert!((ours - sum).abs() < bound * spread, "{family}, {name}: {ours}, {sum}");
            compared += 1;
        }
        assert_eq!(compared, want["gradients"].as_object().unwrap().len(), "{family}");
    }
}

#[test]
fn a_saved_model_is_the_same_model() {
    let _alone = alone();
    let (dir, golden) = golden();
    let texts = strings(&golden["passages"]);
    let tmp = tempfile::tempdir().unwrap();
    for family in golden["models"].as_object().unwrap().keys() {
        let model = open(&dir.join(family));
        let to = tmp.path().join(family);
        st_dir::save(&model, &to).unwrap();
        st_dir::verify(&model, &to, &texts).unwrap();
        let again = open(&to);
        assert_eq!(again.settings, model.settings, "{family}");
        assert!(matches!(again.representation(), Representation::Sparse(_)));
        let names = |dir: &Path| -> Vec<String> {
            let w = Weights::open_dir(dir).unwrap();
            // transformers writes BERT's norms as TensorFlow named them.
            let now = |n: &str| n.replace("LayerNorm.gamma", "LayerNorm.weight").replace("beta", "bias");
            w.names().map(now).collect()
        };
        let theirs = names(&dir.join(family));
        assert!(names(&to).iter().all(|n| theirs.contains(n)), "{family}: {:?}", names(&to));
    }
}

const FLOPS: &str = "[temperature]\nvalue = 1.0\n[loss.sum]\nterms = [{ loss = { info_nce = {} } }, { loss = { flops = { queries = 1e-2, passages = 1e-2 } } }]";

#[test]
fn training_finds_what_belongs_together_with_few_words_and_resumes_bit_for_bit() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    let more = format!(
        "{FLOPS}\n[mining]\nwhen = {{ every_steps = 20 }}\n[mining.select]\ncount = 2\n[run]\nepochs = 60.0"
    );
    let mut c = config(tmp.path(), "sparse = {}", &more);
    c.optim.lr = 3e-3;
    let (whole, cut) = (tmp.path().join("whole"), tmp.path().join("cut"));
    let outcome = train(&c, &options(&whole, false, None)).unwrap();
    assert!(outcome.finished);
    train(&c, &options(&cut, false, Some(37))).unwrap();
    train(&c, &options(&cut, true, None)).unwrap();
    assert_same(&whole, &cut);

    let model = open(&whole.join("best"));
    let set = EvalSet::read(&c.data.train, &Default::default(), None, 0, &bad()).unwrap();
    let measure: Measure = "ndcg@10".parse().unwrap();
    let encode = EncodeSettings::default();
    let (found, run) = evaluate_model(&model, &set, &[measure], 10, &encode, &mut |_, _| ()).unwrap();
    assert!(found.mean(measure).unwrap() > 0.9, "{:?}", found.mean(measure));

    // Regularisation has taken words away.
    rng::seed(c.run.seed);
    let start = initial_model(&c).unwrap();
    let active = |m: &BiEncoder| {
        let texts = set.passages.iter().map(|(_, t)| Ok(t.clone()));
        encode_sparse(m, Side::Passage, texts, &encode, &mut |_, _| ()).unwrap().active()
    };
    let (before, after) = (active(&start), active(&model));
    assert!(after * 2 < before, "{after} weights above 0 after training, {before} before");

    // The index ranks as the dense product does.
    let texts = |of: &[(String, String)]| of.iter().map(|(_, t)| t.clone()).collect::<Vec<_>>();
    let dense = |side, of: &[(String, String)]| {
        let flat = encode_texts(&model, side, &texts(of), &encode, &mut |_, _| ()).unwrap();
        Tensor::from_slice(&flat).view([of.len() as i64, -1])
    };
    let scores = dense(Side::Query, &set.queries).matmul(&dense(Side::Passage, &set.passages).tr());
    let passages: Vec<&str> = set.passages.iter().map(|(id, _)| id.as_str()).collect();
    let engine = System::of_model(
        open(&whole.join("best")),
        &set,
        &IndexConfig::default(),
        &Default::default(),
        &encode,
        &mut |_, _| (),
    )
    .unwrap();
    let engine = Engine::new(vec![Rc::new(engine)], Default::default()).unwrap();
    let ranked = engine.rank(&set, 10, &encode).unwrap();
    for (q, (name, _)) in set.queries.iter().enumerate() {
        assert_eq!(ranked.get(name).unwrap(), run.get(name).unwrap());
        for (id, score) in run.get(name).unwrap() {
            let at = passages.iter().position(|p| p == id).unwrap();
            let want = scores.double_value(&[q as i64, at as i64]);
            assert!((f64::from(*score) - want).abs() < 1e-4 * want.max(1.0), "{name}, {id}: {score}, {want}");
        }
    }
}

fn bad() -> ragduet_data::BadRows {
    ragduet_data::BadRows::new(ragduet_data::BadRowPolicy::Fail)
}

#[test]
fn cached_gradients_are_those_of_the_whole_batch() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    let c = config(tmp.path(), "sparse = {}\ndropout = 0.0\nattention_dropout = 0.0", FLOPS);
    rng::seed(1);
    let model = initial_model(&c).unwrap();
    let texts = |f: &dyn Fn(&str) -> String| THINGS.iter().map(|t| f(t)).collect::<Vec<String>>();
    let queries = model.tokenize(Side::Query, &texts(&|t| format!("where is the {t}?"))).unwrap();
    let passages =
        model.tokenize(Side::Passage, &texts(&|t| format!("the {t} stands in the north"))).unwrap();
    let relations =
        Relations { positive: (0..10).collect(), negatives: vec![Vec::new(); 10], ..Relations::default() };
    let built = c.loss.build().unwrap();
    let loss = |q: &Tensor, p: &Tensor| {
        let scale = fixed_scale(1.0, q);
        let compared = Compared::Vectors { queries: q, passages: p };
        built.loss(&LossBatch::new(compared, &relations, &scale))
    };
    let mode = Mode::train(Compute::F32);
    let mut all = Vec::new();
    for chunk in [None, Some(20), Some(1)] {
        for (_, p) in model.parameters() {
            let mut grad = p.grad();
            if grad.defined() {
                let _ = grad.zero_();
            }
        }
        match chunk {
            Some(tokens) => {
                let value =
                    grad_cache::backward(&model, &queries, &passages, tokens, mode, 1.0, loss).unwrap();
                assert!(!value.requires_grad());
            }
            None => {
                let q = model.rows(Side::Query, &queries.iter().collect::<Vec<_>>(), mode).unwrap();
                let p = model.rows(Side::Passage, &passages.iter().collect::<Vec<_>>(), mode).unwrap();
                loss(&q, &p).backward();
            }
        }
        all.push(model.parameters().into_iter().map(|(n, p)| (n, p.grad().copy())).collect::<Vec<_>>());
    }
    for other in &all[1..] {
        for ((name, want), (_, got)) in all[0].iter().zip(other) {
            let scale = f64::try_from(want.abs().max()).unwrap().max(1e-4);
            assert!(max_diff(want, got) < 1e-4 * scale, "{name}: {:.2e} of {scale:.2e}", max_diff(want, got));
        }
    }
}

#[test]
fn regularisation_grows_with_training_and_leaves_out_texts_that_are_sparse_enough() {
    let w = Tensor::from_slice(&[1.0f64, 0.0, 3.0, 0.0, 0.0, 2.0]).view([2, 3]);
    let at = |flops: Flops, progress: f64| {
        let loss = LossConfig::Flops(flops).build().unwrap();
        let (relations, scale) = (Relations::default(), fixed_scale(1.0, &w));
        let compared = Compared::Vectors { queries: &w, passages: &w };
        let batch = LossBatch { progress, ..LossBatch::new(compared, &relations, &scale) };
        f64::try_from(loss.loss(&batch)).unwrap()
    };
    // Means 0.5, 0 and 2.5.
    let flops = Flops { queries: 1.0, passages: 2.0, warmup: 0.5, threshold: None };
    let whole = 3.0 * (0.25 + 6.25);
    assert!((at(flops.clone(), 1.0) - whole).abs() < 1e-9);
    assert!((at(flops.clone(), 0.5) - whole).abs() < 1e-9);
    assert!((at(flops.clone(), 0.25) - whole / 4.0).abs() < 1e-9);
    assert_eq!(at(flops.clone(), 0.0), 0.0);
    // The second row has one weight above 0: the first alone counts, still over two texts.
    let some = Flops { threshold: Some(1), ..flops };
    assert!((at(some, 1.0) - 3.0 * (0.25 + 2.25)).abs() < 1e-9);
}

#[test]
fn what_does_not_go_together_is_said() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    let error = |model: &str, more: &str| {
        let c = config(tmp.path(), model, more);
        let run = tempfile::tempdir().unwrap();
        train(&c, &options(&run.path().join("run"), false, Some(1))).unwrap_err().to_string()
    };
    let text = error("", FLOPS);
    assert!(text.contains("loss.flops") && text.contains("model.sparse"), "{text}");
    let text = error("sparse = {}\npooling = \"mean\"", FLOPS);
    assert!(text.contains("model.pooling"), "{text}");
    let text = error("sparse = {}\nlate_interaction = {}", FLOPS);
    assert!(text.contains("model.late_interaction"), "{text}");
    let text = error("sparse = {}", "[loss.flops]\nwarmup = 2.0");
    assert!(text.contains("loss.flops.warmup"), "{text}");
    let text = error("sparse = {}", "[peft.lora]\nrank = 4");
    assert!(text.contains("peft") && text.contains("sparse"), "{text}");
}
