//! Late interaction and distillation: losses against their formulas in f64 and finite differences, gradient caching,
//! resuming bit for bit, batches against single texts, exact search.

use crate::common::{THINGS, assert_same, config, options};
use ragduet_nn::Mode;
use ragduet_retriever::loss::{
    BatchKl, Compared, EmbeddingMse, InfoNce, KlDistillation, LossBatch, LossConfig, Relations, Sum, Term,
    fixed_scale, normalize,
};
use ragduet_retriever::recipe::contrastive::{initial_model, train, train_with};
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{
    BiEncoder, EncodeSettings, Pair, Pooling, Representation, Result, Side, Similarity, Teacher,
    TokenVectors, encode_texts, grad_cache, search_exact,
};
use ragduet_testkit::{alone, check_gradient, max_diff};
use ragduet_torch::ops::{Segments, maxsim};
use ragduet_torch::{Compute, Device, Kind, Tensor, grad, no_grad, rng};
use std::path::Path;

const LATE: &str = "late_interaction = { dim = 16 }";

/// Three queries; ragged negatives; passage 1 is also relevant to query 0.
fn relations() -> Relations {
    Relations {
        positive: vec![0, 1, 2],
        negatives: vec![vec![3, 4], vec![], vec![4]],
        also_relevant: vec![(0, 1)],
        own_copies: Vec::new(),
        teacher: Some(vec![vec![2.0, 0.5, -1.0], vec![1.0], vec![0.3, 0.9]]),
    }
}

fn colbert_v2() -> LossConfig {
    let kl = KlDistillation { teacher_temperature: Some(0.5), ..KlDistillation::default() };
    let in_batch = InfoNce { own_negatives: false, ..InfoNce::default() };
    let term = |weight, loss| Term { weight, loss };
    LossConfig::Sum(Sum {
        terms: vec![term(1.0, LossConfig::Kl(kl)), term(0.7, LossConfig::InfoNce(in_batch))],
    })
}

fn double(shape: [i64; 2]) -> Tensor {
    Tensor::randn(shape, (Kind::Double, Device::Cpu))
}

#[test]
fn gradients_through_maxsim_are_the_numerical_ones() {
    let _turn = alone();
    rng::seed(11);
    let (of_q, of_p) = ([3usize, 2, 4], [5usize, 1, 3, 4, 2]);
    let (q, p) = (double([9, 6]), double([15, 6]));
    let (qs, ps) = (Segments::new(&of_q, Device::Cpu), Segments::new(&of_p, Device::Cpu));
    let r = relations();
    let normalised = LossConfig::Kl(KlDistillation { normalize: true, ..KlDistillation::default() });
    for config in [LossConfig::default(), colbert_v2(), normalised, LossConfig::MarginMse(Default::default())]
    {
        let loss = config.build().unwrap();
        assert!(loss.takes_similarities());
        let wanted = loss.wanted(&r, 5);
        check_gradient(&[q.shallow_clone(), p.shallow_clone()], 1e-6, |x| {
            let s = maxsim(&normalize(&x[0]), &qs, &normalize(&x[1]), &ps, wanted.as_deref());
            let scale = fixed_scale(2.0, &x[0]);
            loss.loss(&LossBatch::new(Compared::Similarities(&s), &r, &scale))
        });
    }
}

#[test]
fn colbert_v2_is_its_formula() {
    let _turn = alone();
    rng::seed(5);
    let (s, r) = (double([3, 5]), relations());
    let scale = fixed_scale(1.5, &s);
    let got = f64::try_from(colbert_v2().build().unwrap().loss(&LossBatch::new(
        Compared::Similarities(&s),
        &r,
        &scale,
    )))
    .unwrap();
    let at = |i: usize, j: usize| 1.5 * s.double_value(&[i as i64, j as i64]);
    let log_z = |x: &[f64]| x.iter().map(|v| v.exp()).sum::<f64>().ln();
    let (mut kl, mut ce) = (0.0, 0.0);
    for i in 0..3 {
        let own: Vec<usize> = std::iter::once(r.positive[i]).chain(r.negatives[i].clone()).collect();
        let teacher: Vec<f64> = r.teacher.as_ref().unwrap()[i].iter().map(|&t| f64::from(t) / 0.5).collect();
        let student: Vec<f64> = own.iter().map(|&j| at(i, j)).collect();
        for (t, x) in teacher.iter().zip(&student) {
            let (log_t, log_s) = (t - log_z(&teacher), x - log_z(&student));
            kl += log_t.exp() * (log_t - log_s);
        }
        // In the batch's cross-entropy neither the query's own negatives nor what is relevant as well take part.
        let others: Vec<f64> = (0..5)
            .filter(|&j| j == i || !(r.negatives[i].contains(&j) || r.also_relevant.contains(&(i, j))))
            .map(|j| at(i, j))
            .collect();
        ce -= at(i, i) - log_z(&others);
    }
    assert!((got - (kl / 3.0 + 0.7 * ce / 3.0)).abs() < 1e-9, "{got}");
}

#[test]
fn distillation_of_vectors_is_its_formula() {
    let _turn = alone();
    rng::seed(6);
    let (q, p, tq, tp) = (double([3, 6]), double([5, 6]), double([3, 6]), double([5, 6]));
    let r = relations();
    let scale = fixed_scale(2.0, &q);
    let value = |config: LossConfig, q: &Tensor, p: &Tensor| {
        let compared = Compared::Vectors { queries: q, passages: p };
        let batch = LossBatch { teacher: Some((&tq, &tp)), ..LossBatch::new(compared, &r, &scale) };
        config.build().unwrap().loss(&batch)
    };
    let mse = f64::try_from(value(LossConfig::EmbeddingMse(EmbeddingMse {}), &q, &p)).unwrap();
    let sum = |a: &Tensor, b: &Tensor| f64::try_from((a - b).square().sum(Kind::Double)).unwrap();
    assert!((mse - (sum(&q, &tq) + sum(&p, &tp)) / 48.0).abs() < 1e-12);
    let kl = LossConfig::BatchKl(BatchKl { teacher_temperature: 0.8 });
    let (t, s) = (tq.matmul(&tp.tr()) / 0.8, q.matmul(&p.tr()) * 2.0);
    let (t, s) = (t.log_softmax(1, Kind::Double), s.log_softmax(1, Kind::Double));
    let want = f64::try_from((t.exp() * (&t - &s)).sum(Kind::Double) / 3.0).unwrap();
    assert!((f64::try_from(value(kl.clone(), &q, &p)).unwrap() - want).abs() < 1e-12);
    // The teacher itself, at the teacher's temperature, has nothing to learn.
    let scale = fixed_scale(1.0 / 0.8, &q);
    let batch = LossBatch {
        teacher: Some((&tq, &tp)),
        ..LossBatch::new(Compared::Vectors { queries: &tq, passages: &tp }, &r, &scale)
    };
    assert!(f64::try_from(kl.build().unwrap().loss(&batch)).unwrap().abs() < 1e-12);
    for config in [kl, LossConfig::EmbeddingMse(EmbeddingMse {})] {
        check_gradient(&[q.shallow_clone(), p.shallow_clone()], 1e-6, |x| {
            value(config.clone(), &x[0], &x[1])
        });
    }
    let error = LossConfig::EmbeddingMse(EmbeddingMse {}).check_teacher_dim(6, 8).unwrap_err().to_string();
    assert!(error.contains("model.projection = 8"), "{error}");
}

fn still(dir: &Path, late: &str) -> BiEncoder {
    let mut c = config(dir, late, "");
    c.model.scratch.as_mut().unwrap().dropout = 0.0;
    initial_model(&c).unwrap()
}

#[test]
fn a_text_alone_has_the_vectors_it_has_in_a_batch() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let _guard = no_grad();
    for late in [
        LATE,
        "late_interaction = { dim = 16, attend_to_expansion = true }",
        "late_interaction = { dim = 16, expand_queries = false }",
    ] {
        let m = still(dir.path(), late);
        let texts: Vec<String> =
            ["a road", "The falcon, the granite; behind.", "x", ""].map(String::from).to_vec();
        for side in [Side::Query, Side::Passage] {
            let tokens = m.tokenize(side, &texts).unwrap();
            let all = m.rows(side, &tokens.iter().collect::<Vec<_>>(), Mode::eval(Compute::F32)).unwrap();
            let borders = m.row_segments(side, &tokens.iter().collect::<Vec<_>>());
            for (i, t) in tokens.iter().enumerate() {
                let one = m.rows(side, &[t], Mode::eval(Compute::F32)).unwrap();
                let (from, to) = (borders.offsets()[i], borders.offsets()[i + 1]);
                assert_eq!(one.size()[0], to - from);
                assert!(max_diff(&one, &all.narrow(0, from, to - from)) < 1e-5, "{late} {side:?} {i}");
            }
        }
    }
}

#[test]
fn nobody_looks_at_the_tokens_that_fill_queries_up() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let _guard = no_grad();
    let m = still(dir.path(), LATE);
    let tokens = m.tokenize(Side::Query, &["a road".to_string()]).unwrap();
    let rows = |t: &ragduet_text::Encoding| m.rows(Side::Query, &[t], Mode::eval(Compute::F32)).unwrap();
    let whole = rows(&tokens[0]);
    let mut cut = tokens[0].clone();
    let real = cut.ids.iter().position(|&i| Some(i) == m.tokenizer.mask_id()).unwrap();
    cut.ids.truncate(real);
    cut.type_ids.truncate(real);
    assert!(max_diff(&whole.narrow(0, 0, real as i64), &rows(&cut)) < 1e-5);
    assert_eq!(whole.size()[0], 12);
}

#[test]
fn one_vector_is_not_to_be_had() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let m = still(dir.path(), LATE);
    let error = encode_texts(&m, Side::Query, &["x".into()], &EncodeSettings::default(), &mut |_, _| ())
        .unwrap_err()
        .to_string();
    assert!(error.contains("one vector a text"), "{error}");
    let mut c = config(dir.path(), LATE, "[loss.matryoshka]\ndims = [4]\ninner = { info_nce = {} }");
    let error = train(&c, &options(&dir.path().join("run"), false, None)).unwrap_err().to_string();
    assert!(error.contains("one vector a text"), "{error}");
    c.model.projection = Some(8);
    assert!(c.validate().unwrap_err().to_string().contains("model.projection"));
}

#[test]
fn exact_search_is_a_scan_also_across_windows() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let m = still(dir.path(), LATE);
    let passages: Vec<String> = (0..23).map(|i| format!("The {} {i}, there.", THINGS[i % 10])).collect();
    let queries: Vec<String> = THINGS.iter().take(4).map(|t| format!("where is the {t}?")).collect();
    let encode = EncodeSettings { batch_tokens: 60, window: 7, raw: false };
    let asked = vec![vec![22, 0], vec![], vec![9], vec![1, 2, 3]];
    let stream = passages.iter().map(|p| Ok(p.clone()));
    let found = search_exact(&m, stream, &queries, 5, &asked, &encode, &mut |_, _| ()).unwrap();
    let vectors = |side, texts| TokenVectors::encode(&m, side, texts, &encode, &mut |_, _| ()).unwrap();
    let (q, p) = (vectors(Side::Query, &queries), vectors(Side::Passage, &passages));
    let (qo, po) = (q.offsets(), p.offsets());
    for i in 0..queries.len() {
        let mut scores: Vec<(usize, f32)> = (0..passages.len())
            .map(|j| {
                let row = |t: &TokenVectors, r: usize| t.rows[r * 16..(r + 1) * 16].to_vec();
                let best = |a: usize| {
                    (po[j]..po[j + 1])
                        .map(|b| row(&q, a).iter().zip(row(&p, b)).map(|(x, y)| x * y).sum::<f32>())
                        .fold(f32::MIN, f32::max)
                };
                (j, (qo[i]..qo[i + 1]).map(best).sum())
            })
            .collect();
        for (id, score) in asked[i].iter().zip(&found.asked[i]) {
            assert!((scores[*id as usize].1 - score).abs() < 1e-4);
        }
        scores.sort_by(|a, b| b.1.total_cmp(&a.1));
        assert_eq!(found.hits[i].len(), 5);
        for (hit, (_, want)) in found.hits[i].iter().zip(scores) {
            assert!((hit.score - want).abs() < 1e-4);
        }
    }
}

#[test]
fn every_kind_scores_a_pair_as_it_ranks_it_and_as_a_teacher() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let passages: Vec<String> = (0..23).map(|i| format!("The {} {i}, there.", THINGS[i % 10])).collect();
    let queries: Vec<String> = THINGS.iter().take(4).map(|t| format!("where is the {t}?")).collect();
    let encode = EncodeSettings { batch_tokens: 60, window: 7, raw: false };
    let asked = vec![vec![22, 0], vec![], vec![9], vec![1, 2, 3]];
    for kind in ["", "similarity = \"cosine\"\nnormalize = false", LATE, "sparse = {}"] {
        let m = still(dir.path(), kind);
        let stream = passages.iter().map(|p| Ok(p.clone()));
        let found = search_exact(&m, stream, &queries, 23, &asked, &encode, &mut |_, _| ()).unwrap();
        for (q, ids) in asked.iter().enumerate() {
            let hits = &found.hits[q];
            // A sparse index finds only what shares a word.
            assert!(hits.len() == 23 || kind.contains("sparse"), "{kind}: {}", hits.len());
            assert!(hits.windows(2).all(|w| w[0].score >= w[1].score), "{kind}");
            let pairs: Vec<Pair<'_>> =
                ids.iter().map(|&p| (queries[q].as_str(), passages[p as usize].as_str())).collect();
            let taught = m.scores(&pairs).unwrap();
            assert_eq!((found.asked[q].len(), taught.len()), (ids.len(), ids.len()));
            for ((id, score), taught) in ids.iter().zip(&found.asked[q]).zip(taught) {
                let ranked = hits.iter().find(|h| h.id == *id).map_or(0.0, |h| h.score);
                let near = |a: f32, b: f32| (a - b).abs() < 1e-4 * b.abs().max(1.0);
                assert!(near(*score, ranked) && near(taught, ranked), "{kind}: {score} {taught} {ranked}");
            }
        }
    }
}

#[test]
fn settings_of_dense_models_are_refused_for_others() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    for kind in [LATE, "sparse = {}"] {
        let folder = dir.path().join("model");
        st_dir::save(&still(dir.path(), kind), &folder).unwrap();
        for (key, given) in [
            ("model.pooling", Overrides { pooling: Some(Pooling::Cls), ..Overrides::default() }),
            ("model.normalize", Overrides { normalize: Some(true), ..Overrides::default() }),
            ("model.similarity", Overrides { similarity: Some(Similarity::Cosine), ..Overrides::default() }),
        ] {
            let error = st_dir::load(&folder, Device::Cpu, Compute::F32, &given).unwrap_err().to_string();
            assert!(error.contains(key), "{kind}: {error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn gradient_caching_gives_the_plain_gradients() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let m = still(dir.path(), LATE);
    let q: Vec<String> = THINGS.iter().take(5).map(|t| format!("where is the {t}?")).collect();
    let p: Vec<String> =
        THINGS.iter().take(7).map(|t| format!("The {t}, {} there.", "far ".repeat(t.len() % 3))).collect();
    let (q, p) = (m.tokenize(Side::Query, &q).unwrap(), m.tokenize(Side::Passage, &p).unwrap());
    let r = Relations { positive: (0..5).collect(), negatives: vec![vec![5, 6]; 5], ..Relations::default() };
    let segments =
        |side, texts: &[ragduet_text::Encoding]| m.row_segments(side, &texts.iter().collect::<Vec<_>>());
    let (of_q, of_p) = (segments(Side::Query, &q), segments(Side::Passage, &p));
    let loss = LossConfig::default().build().unwrap();
    let compute = |a: &Tensor, b: &Tensor| {
        let s = m.similarities((a, &of_q), (b, &of_p), None);
        loss.loss(&LossBatch::new(Compared::Similarities(&s), &r, &fixed_scale(1.0, a)))
    };
    let mode = Mode::train(Compute::F32);
    let all: Vec<Tensor> = m.parameters().into_iter().map(|(_, t)| t).collect();
    let grads = || {
        let named = m.parameters();
        let of = |(n, t): &(String, Tensor)| {
            assert!(t.grad().defined(), "{n} has no gradient");
            t.grad().copy()
        };
        let g: Vec<Tensor> = named.iter().map(of).collect();
        grad::clear(&all).unwrap();
        g
    };
    let rows = |side, texts: &[ragduet_text::Encoding]| {
        m.rows(side, &texts.iter().collect::<Vec<_>>(), mode).unwrap()
    };
    let plain = compute(&rows(Side::Query, &q), &rows(Side::Passage, &p));
    plain.backward();
    let want = grads();
    for chunk in [1, 30, 10_000] {
        let value = grad_cache::backward(&m, &q, &p, chunk, mode, 1.0, compute).unwrap();
        assert!(max_diff(&value, &plain.detach()) < 1e-5);
        let off: Vec<Tensor> = grads().iter().zip(&want).map(|(x, y)| x - y).collect();
        assert!(grad::norm(&off).unwrap() <= 1e-5 * grad::norm(&want).unwrap(), "chunks of {chunk}");
    }
}

const BUSY: &str = r#"
        every_steps = 3
        [run]
        epochs = 5.0
        [batch]
        negatives_per_query = 2
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
    let dir = tempfile::tempdir().unwrap();
    let caching = format!("{BUSY}\n[grad_cache]\nchunk_tokens = 60\n");
    for (name, more) in [("plain", BUSY), ("cached", &caching)] {
        let c = config(dir.path(), LATE, more);
        let whole = dir.path().join(name);
        let outcome = train(&c, &options(&whole, false, None)).unwrap();
        assert!(outcome.finished && outcome.step == 10, "{outcome:?}");
        for stop in [1, 6, 9] {
            let run = dir.path().join(format!("{name}-{stop}"));
            train(&c, &options(&run, false, Some(stop))).unwrap();
            rng::seed(99);
            assert!(train(&c, &options(&run, true, None)).unwrap().finished);
            assert_same(&whole, &run);
        }
        // What was saved is late interaction again.
        let again =
            st_dir::load(&whole.join("best"), Device::Cpu, Compute::F32, &Overrides::default()).unwrap();
        assert!(matches!(again.representation(), Representation::LateInteraction(_)) && again.dim() == 16);
        assert_eq!((again.settings.max_query_tokens, again.settings.max_passage_tokens), (12, 24));
    }
}

#[test]
fn it_learns() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), LATE, "[run]\nepochs = 30.0");
    let outcome = train(&c, &options(&dir.path().join("run"), false, None)).unwrap();
    let ndcg = |e: Option<&ragduet_train::Evaluated<ragduet_metrics::Evaluation>>| {
        e.unwrap().scores.mean("ndcg@10".parse().unwrap()).unwrap()
    };
    let (before, after) = (ndcg(outcome.before.as_ref()), ndcg(outcome.best.as_ref()));
    assert!(after > 0.95 && after > before, "{before} {after}");
}

/// A teacher that knows the answers by their words.
struct Overlap;

impl Teacher for Overlap {
    fn scores(&self, pairs: &[Pair<'_>]) -> Result<Vec<f32>> {
        let share =
            |q: &str, p: &str| q.split(' ').filter(|w| p.contains(w.trim_matches('?'))).count() as f32;
        Ok(pairs.iter().map(|(q, p)| share(q, p)).collect())
    }
}

#[test]
fn a_teacher_scores_what_is_mined_and_a_resumed_run_asks_it_the_same() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let more = format!(
        "{BUSY}\n[teacher.cross_encoder]\npath = \"overlap\"\n[loss.sum]\nterms = [{{ loss = {{ info_nce = {{}} }} }}, \
         {{ weight = 0.5, loss = {{ kl = {{}} }} }}]"
    );
    for late in ["", LATE] {
        let c = config(dir.path(), late, &more);
        let whole = dir.path().join(format!("whole-{}", late.len()));
        let outcome = train_with(&c, &options(&whole, false, None), Some(Box::new(Overlap))).unwrap();
        assert!(outcome.finished);
        assert!(whole.join("teacher/scores.txt").is_file());
        let run = dir.path().join(format!("stopped-{}", late.len()));
        train_with(&c, &options(&run, false, Some(4)), Some(Box::new(Overlap))).unwrap();
        train_with(&c, &options(&run, true, None), Some(Box::new(Overlap))).unwrap();
        assert_same(&whole, &run);
    }
}

#[test]
fn a_smaller_model_learns_a_larger_ones_vectors() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    let taught = dir.path().join("taught");
    let teacher = config(dir.path(), "", "[run]\nepochs = 20.0");
    train(&teacher, &options(&taught, false, None)).unwrap();
    for (name, loss, epochs) in [("kl", "[loss.batch_kl]", 30), ("mse", "[loss.embedding_mse]", 150)] {
        let more = format!(
            "{loss}\n[teacher.retriever]\npath = \"{}\"\n[run]\nepochs = {epochs}.0",
            taught.join("best").display()
        );
        let mut c = config(dir.path(), "", &more);
        c.model.scratch.as_mut().unwrap().layers = 1;
        let run = dir.path().join(name);
        let outcome = train(&c, &options(&run, false, None)).unwrap();
        let ndcg = |e: Option<&ragduet_train::Evaluated<ragduet_metrics::Evaluation>>| {
            e.unwrap().scores.mean("ndcg@10".parse().unwrap()).unwrap()
        };
        let (before, after) = (ndcg(outcome.before.as_ref()), ndcg(outcome.best.as_ref()));
        assert!(after > before + 0.1, "{name}: {before} {after}");
        assert!(run.join("teacher-vectors/vectors.safetensors").is_file());
    }
    let more = "[loss.batch_kl]\n[teacher.cross_encoder]\npath = \"x\"";
    let error = config(dir.path(), "", more).validate().unwrap_err().to_string();
    assert!(error.contains("no vectors"), "{error}");
}
