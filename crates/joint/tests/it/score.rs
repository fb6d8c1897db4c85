//! Scored answers are a text-by-text log-softmax, in whatever chunks; their gradients are those of one pass.

use ragduet_generator::{Generator, ScratchArchitecture, ScratchGenerator};
use ragduet_joint::objective::{Evidence, MarginalSettings, Needs, Normalize, ObjectiveConfig, RagSequence};
use ragduet_joint::score::{AnswerScorer, Group, answer_tokens};
use ragduet_nn::Mode;
use ragduet_testkit::alone;
use ragduet_text::TrainExample;
use ragduet_torch::{Compute, Device, Kind, Tensor, no_grad, rng};

fn generator(architecture: ScratchArchitecture) -> Generator {
    rng::seed(6);
    let size = ScratchGenerator {
        architecture,
        vocab_size: 300,
        hidden_size: 32,
        layers: 2,
        heads: 2,
        kv_heads: 2,
        intermediate_size: 48,
        max_positions: 128,
        initializer_range: 0.2,
        ..ScratchGenerator::default()
    };
    size.build(["some words to learn pieces from"].into_iter(), Device::Cpu, Compute::F32).unwrap()
}

/// Two questions with three and two passages, answers of 2 and 4 tokens.
fn groups(seq2seq: bool) -> Vec<Group> {
    let answers = [vec![17u32, 40], vec![9, 8, 31, 12]];
    let example = |b: usize, k: usize| {
        let prompt: Vec<u32> =
            (0..8 + 5 * k + b).map(|i| ((i * 31 + k * 7 + b * 3) % 250) as u32 + 5).collect();
        let source = if seq2seq { prompt.len() } else { 0 };
        // A decoder's start token is no target.
        let start: Vec<u32> = if seq2seq { vec![0] } else { Vec::new() };
        let head = prompt.len() + start.len();
        let ids: Vec<u32> = prompt.into_iter().chain(start).chain(answers[b].iter().copied()).collect();
        TrainExample { loss: (0..ids.len()).map(|i| i >= head).collect(), ids, source, parts: Vec::new() }
    };
    vec![
        Group { name: "one".into(), examples: (0..3).map(|k| example(0, k)).collect() },
        Group { name: "two".into(), examples: (0..2).map(|k| example(1, k)).collect() },
    ]
}

/// The definition: log-softmax of the whole logits, text by text.
fn plain(g: &Generator, e: &TrainExample) -> Vec<f64> {
    let _guard = no_grad();
    let mode = Mode::eval(Compute::F32);
    let hidden = g.hidden_states([e], mode);
    let log_p = g.model.kind.logits(&hidden, mode).log_softmax(-1, Kind::Float);
    let on = e.predicted().filter(|&i| e.loss[i]);
    on.map(|i| log_p.double_value(&[i as i64 - 1, i64::from(e.ids[i])])).collect()
}

#[test]
fn scores_are_those_of_each_text_alone_in_any_chunks() {
    let _alone = alone();
    for (architecture, seq2seq) in [(ScratchArchitecture::Llama, false), (ScratchArchitecture::T5, true)] {
        let g = generator(architecture);
        let groups = groups(seq2seq);
        for budget in [1, 40, 10_000] {
            let scorer = AnswerScorer::new(&g, &groups, budget).unwrap();
            let scored = scorer.score(Needs::Alone, g.mode(false), false).unwrap();
            let a = scored.answers();
            assert_eq!((a.values.size(), a.mask.size()), (vec![2, 3, 4], vec![2, 4]));
            for (b, group) in groups.iter().enumerate() {
                for (k, e) in group.examples.iter().enumerate() {
                    for (t, want) in plain(&g, e).into_iter().enumerate() {
                        let have = a.values.double_value(&[b as i64, k as i64, t as i64]);
                        assert!((have - want).abs() < 1e-4, "{architecture:?} {budget}: {have} {want}");
                    }
                }
                let tokens = answer_tokens(&group.examples[0]).len() as f64;
                assert_eq!(a.mask.get(b as i64).sum(Kind::Double).double_value(&[]), tokens);
            }
            // The passage that the second question lacks, and tokens that the first answer lacks.
            assert_eq!(a.values.get(1).get(2).abs().sum(Kind::Double).double_value(&[]), 0.0);
            assert_eq!(a.values.get(0).narrow(1, 2, 2).abs().sum(Kind::Double).double_value(&[]), 0.0);
            assert!(!a.values.requires_grad());
        }
    }
}

#[test]
fn what_is_known_is_taken_as_it_is_and_not_scored_again() {
    let _alone = alone();
    let g = generator(ScratchArchitecture::Llama);
    let groups = groups(false);
    let all = AnswerScorer::new(&g, &groups, 10_000).unwrap();
    let want = all.score(Needs::Alone, g.mode(false), false).unwrap().answers().values.copy();
    // The second passage of the first question, with values that no model says; and all of the second question.
    let row = |b: i64, k: i64, n: i64| Vec::<f32>::try_from(want.get(b).get(k).narrow(0, 0, n)).unwrap();
    let known = [vec![None, Some(vec![-7.0, -9.0]), None], vec![Some(row(1, 0, 4)), Some(row(1, 1, 4))]];
    let scorer = AnswerScorer::beside(&g, &groups, &known, 10_000).unwrap();
    let alone: usize = [0, 2].iter().map(|&k| groups[0].examples[k].ids.len()).sum();
    assert_eq!(scorer.tokens(), alone);
    let have = scorer.score(Needs::Alone, g.mode(false), false).unwrap().answers().values.copy();
    want.get(0).get(1).narrow(0, 0, 2).copy_(&Tensor::from_slice(&[-7f32, -9.0]));
    assert!((&have - &want).abs().max().double_value(&[]) < 1e-5);
    // All of it; and scores of another answer.
    let whole =
        |n: i64| (0..2).map(|b| (0..3 - b).map(|k| Some(row(b, k, n + 2 * b))).collect()).collect::<Vec<_>>();
    let scorer = AnswerScorer::beside(&g, &groups, &whole(2), 100).unwrap();
    assert_eq!(scorer.tokens(), 0);
    let have = scorer.score(Needs::Alone, g.mode(false), false).unwrap().answers().values.copy();
    assert_eq!((&have - &want).abs().max().double_value(&[]), 0.0);
    let e = AnswerScorer::beside(&g, &groups, &whole(1), 100).unwrap_err().to_string();
    assert!(e.contains("question `one`"), "{e}");
}

fn marginal() -> ObjectiveConfig {
    let settings = MarginalSettings { score_temperature: 0.5, normalize: Normalize::Tokens };
    ObjectiveConfig::RagSequence(RagSequence(settings))
}

/// The generator's gradients of a marginal likelihood.
fn gradients(g: &Generator, groups: &[Group], budget: usize) -> (f64, Vec<(String, Tensor)>) {
    rng::seed(99);
    for (_, p) in g.model.params.iter() {
        let mut grad = p.tensor.grad();
        if grad.defined() {
            let _ = grad.zero_();
        }
    }
    let scores = Tensor::from_slice(&[0.3f32, -0.1, 0.9, 0.2, 0.4, 0.0]).view([2, 3]);
    let present = Tensor::from_slice(&[true, true, true, true, true, false]).view([2, 3]);
    let scorer = AnswerScorer::new(g, groups, budget).unwrap();
    let scored = scorer.score(Needs::Alone, g.mode(true), true).unwrap();
    let evidence: Evidence<'_> = scored.evidence(&scores, Some(&present));
    let loss = marginal().loss(&evidence).unwrap().loss;
    loss.backward();
    scorer.backward(&scored).unwrap();
    let defined = g.model.params.trainable().into_iter().filter(|(_, p)| p.grad().defined());
    let grads = defined.map(|(n, p)| (n, p.grad().copy())).collect();
    (f64::try_from(loss.detach().to_kind(Kind::Double)).unwrap(), grads)
}

#[test]
fn gradients_in_chunks_are_those_of_one_pass() {
    let _alone = alone();
    for (architecture, seq2seq) in [(ScratchArchitecture::Llama, false), (ScratchArchitecture::T5, true)] {
        let mut g = generator(architecture);
        // Other chunks draw other dropout.
        g.model.kind.set_dropout(Some(0.0), Some(0.0));
        g.model.params.set_trainable(|_| true);
        let groups = groups(seq2seq);
        let (whole, want) = gradients(&g, &groups, 10_000);
        let (parts, have) = gradients(&g, &groups, 30);
        assert!((whole - parts).abs() < 1e-5 * whole.abs(), "{whole} {parts}");
        let mut reached = 0;
        for ((name, a), (_, b)) in want.iter().zip(&have) {
            let size = f64::try_from(a.norm().to_kind(Kind::Double)).unwrap();
            let off = f64::try_from((a - b).norm().to_kind(Kind::Double)).unwrap();
            assert!(off <= 1e-4 * size + 1e-7, "{architecture:?} {name}: {off} of {size}");
            reached += usize::from(size > 0.0);
        }
        assert!(reached > want.len() / 2, "{reached} of {}", want.len());
    }
}

#[test]
fn an_answer_that_is_other_tokens_behind_another_passage_is_named() {
    let _alone = alone();
    let g = generator(ScratchArchitecture::Llama);
    let mut groups = groups(false);
    let last = groups[1].examples[1].ids.len() - 1;
    groups[1].examples[1].ids[last] += 1;
    let e = AnswerScorer::new(&g, &groups, 100).unwrap_err().to_string();
    assert!(e.contains("question `two`"), "{e}");
    assert!(AnswerScorer::new(&g, &[], 100).is_err());
}
