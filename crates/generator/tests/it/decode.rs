//! Decoding against transformers' `generate` on a table model (`golden/decode.json`), and what must hold besides:
//! batches do not matter, seeds repeat, samples follow the distribution.

use ragduet_generator::decode::{
    DecodeConfig, Decoding, Finish, Generated, Hooks, Request, Stepper, TokenEvent, filtered, generate,
};
use ragduet_generator::{Error, Result};
use ragduet_testkit::alone;
use ragduet_torch::Tensor;
use serde_json::{Value, json};
use std::ops::ControlFlow;

const VOCAB: usize = 64;

/// The logits of a candidate after two tokens, as in make_decode.py.
fn logit(a: u32, b: u32, t: u32) -> f32 {
    let mut x = u64::from(a).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = x.wrapping_add(u64::from(b).wrapping_mul(0xC2B2_AE3D_27D4_EB4F));
    x = x.wrapping_add(u64::from(t).wrapping_mul(0x1656_67B1_9E37_79F9)).wrapping_add(0x2722_0A95);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    (x >> 44) as f32 / 131_072.0 - 4.0
}

/// A model that is a table; it keeps every sequence, so that a wrong `reorder` shows.
#[derive(Default)]
struct Table {
    sequences: Vec<Vec<u32>>,
    fed: usize,
}

impl Stepper for Table {
    fn step(&mut self, tokens: &[Vec<u32>]) -> Result<Tensor> {
        if self.sequences.is_empty() {
            self.sequences = vec![Vec::new(); tokens.len()];
        }
        assert_eq!(self.sequences.len(), tokens.len());
        let mut flat = Vec::with_capacity(tokens.len() * VOCAB);
        for (s, t) in self.sequences.iter_mut().zip(tokens) {
            s.extend(t);
            self.fed += t.len();
            let b = s[s.len() - 1];
            let a = if s.len() > 1 { s[s.len() - 2] } else { 0 };
            flat.extend((0..VOCAB as u32).map(|t| logit(a, b, t)));
        }
        Ok(Tensor::from_slice(&flat).view([tokens.len() as i64, VOCAB as i64]))
    }

    fn reorder(&mut self, from: &[usize]) -> Result<()> {
        self.sequences = from.iter().map(|&i| self.sequences[i].clone()).collect();
        Ok(())
    }

    fn vocab_size(&self) -> usize {
        VOCAB
    }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/decode.json")).unwrap()
}

fn prompts() -> Vec<Vec<u32>> {
    serde_json::from_value(golden()["prompts"].clone()).unwrap()
}

fn requests(prompts: &[Vec<u32>]) -> Vec<Request> {
    prompts
        .iter()
        .enumerate()
        .map(|(i, p)| Request { prompt: p.clone(), seed: i as u64, ..Request::default() })
        .collect()
}

fn decoding(config: &Value) -> Decoding {
    DecodeConfig { log_probs: true, ..DecodeConfig::default() }.resolve(Some(config), &[]).unwrap()
}

fn with(config: DecodeConfig) -> Decoding {
    config.resolve(None, &[]).unwrap()
}

fn run(requests: &[Request], d: &Decoding) -> Vec<Vec<Generated>> {
    generate(&mut Table::default(), requests, d, Hooks::default()).unwrap()
}

fn check_log_probs(prompt: &[u32], g: &Generated) {
    assert_eq!(g.tokens.len(), g.log_probs.len());
    let all: Vec<u32> = prompt.iter().chain(&g.tokens).copied().collect();
    for (i, have) in g.log_probs.iter().enumerate() {
        let at = prompt.len() + i;
        let row: Vec<f64> =
            (0..VOCAB as u32).map(|t| f64::from(logit(all[at - 2], all[at - 1], t))).collect();
        let norm = row.iter().map(|x| x.exp()).sum::<f64>().ln();
        assert!((f64::from(*have) - (row[all[at] as usize] - norm)).abs() < 1e-5);
    }
}

#[test]
fn tokens_are_those_of_transformers() {
    let _alone = alone();
    let g = golden();
    let prompts = prompts();
    for case in g["cases"].as_array().unwrap() {
        let d = decoding(&case["config"]);
        assert!(d.ignored.is_empty());
        let want: Vec<Vec<Vec<u32>>> = serde_json::from_value(case["sequences"].clone()).unwrap();
        let have = run(&requests(&prompts), &d);
        for (i, (have, want)) in have.iter().zip(&want).enumerate() {
            let what = format!("prompt {i}, {}", case["config"]);
            let tokens: Vec<Vec<u32>> = have.iter().map(|g| g.tokens.clone()).collect();
            assert_eq!(&tokens, want, "{what}");
            for (rank, g) in have.iter().enumerate() {
                check_log_probs(&prompts[i], g);
                let ends_with_eos = g.tokens.last().is_some_and(|t| d.eos_token_id.contains(t));
                assert_eq!(g.finish, if ends_with_eos { Finish::Eos } else { Finish::Length }, "{what}");
                assert_eq!(g.content().len(), g.tokens.len() - usize::from(ends_with_eos));
                if d.num_beams > 1 {
                    let want = case["scores"][i][rank].as_f64().unwrap();
                    let have = f64::from(g.score.unwrap());
                    assert!((have - want).abs() < 1e-4 * (1.0 + want.abs()), "{what}: {have} {want}");
                }
            }
        }
    }
    assert!(g["cases"].as_array().unwrap().len() > 40);
}

#[test]
fn a_sequence_does_not_depend_on_its_neighbours() {
    let _alone = alone();
    let mut prompts = prompts();
    prompts.push(vec![12]);
    prompts.push(vec![3, 3, 19, 20, 21, 22]);
    let all = requests(&prompts);
    let configs = [
        json!({"do_sample": true, "top_k": 0, "num_return_sequences": 3, "eos_token_id": [3, 17], "max_new_tokens": 50}),
        json!({"do_sample": true, "top_p": 0.8, "temperature": 0.7, "repetition_penalty": 1.2, "eos_token_id": [3]}),
        json!({"num_beams": 3, "eos_token_id": [3, 17], "num_return_sequences": 2, "repetition_penalty": 1.2}),
        json!({"eos_token_id": [3, 17], "no_repeat_ngram_size": 2, "repetition_penalty": 1.2}),
    ];
    for config in configs {
        let d = decoding(&config);
        let together = run(&all, &d);
        for (r, want) in all.iter().zip(&together) {
            let alone = run(std::slice::from_ref(r), &d);
            let tokens = |g: &[Generated]| g.iter().map(|g| g.tokens.clone()).collect::<Vec<_>>();
            assert_eq!(tokens(&alone[0]), tokens(want), "{config}");
        }
        let reversed: Vec<Request> = all.iter().rev().cloned().collect();
        let mut backwards = run(&reversed, &d);
        backwards.reverse();
        assert_eq!(backwards.len(), together.len());
        for (a, b) in backwards.iter().flatten().zip(together.iter().flatten()) {
            assert_eq!(a.tokens, b.tokens, "{config}");
        }
    }
}

#[test]
fn seeds_repeat_and_differ() {
    let _alone = alone();
    let config = DecodeConfig {
        do_sample: Some(true),
        num_return_sequences: Some(2),
        max_new_tokens: Some(20),
        ..DecodeConfig::default()
    };
    let (d, other) = (with(config.clone()), with(DecodeConfig { seed: 1, ..config }));
    let r = requests(&prompts());
    let (a, b, c) = (run(&r, &d), run(&r, &d), run(&r, &other));
    assert_eq!(a, b);
    assert!(a.iter().zip(&c).all(|(a, c)| a[0].tokens != c[0].tokens), "another seed, another sample");
    assert!(a.iter().all(|a| a[0].tokens != a[1].tokens), "sequences of a request differ");
    let same_prompt = [
        Request { prompt: vec![5, 9], seed: 1, ..Request::default() },
        Request { prompt: vec![5, 9], seed: 2, ..Request::default() },
    ];
    let two = run(&same_prompt, &d);
    assert_ne!(two[0][0].tokens, two[1][0].tokens, "requests differ");
}

#[test]
fn filters_keep_what_transformers_keeps() {
    let _alone = alone();
    let g = golden();
    let rows: Vec<Vec<f32>> = serde_json::from_value(g["logits"].clone()).unwrap();
    let logits = Tensor::from_slice2(&rows);
    for case in g["filters"].as_array().unwrap() {
        let config: DecodeConfig = serde_json::from_value(case["config"].clone()).unwrap();
        let d = with(DecodeConfig { do_sample: Some(true), top_k: config.top_k.or(Some(0)), ..config });
        let have = filtered(&logits, &d).unwrap();
        for (row, (have, want)) in have.iter().zip(case["kept"].as_array().unwrap()).enumerate() {
            let what = format!("row {row}, {}", case["config"]);
            let total: f64 = have.iter().map(|c| c.probability).sum();
            assert!((total - 1.0).abs() < 1e-9, "{what}");
            let close =
                |h: f64, w: &Value| assert!((h - w.as_f64().unwrap()).abs() < 1e-6, "{what}: {h} {w}");
            if let Some(want) = want.as_array() {
                assert_eq!(have.len(), want.len(), "{what}");
                for (h, w) in have.iter().zip(want) {
                    close(h.probability, &w[1]);
                    // Which of tied tokens top-p keeps is a matter of the sort.
                    if row != 1 || d.top_p == 1.0 {
                        assert_eq!(u64::from(h.token), w[0].as_u64().unwrap(), "{what}");
                    }
                }
            } else {
                assert_eq!(have.len() as u64, want["count"].as_u64().unwrap(), "{what}");
                let tokens: u64 = have.iter().map(|c| u64::from(c.token)).sum();
                assert_eq!(tokens, want["tokens"].as_u64().unwrap(), "{what}");
                close(have[0].probability, &want["first"][1]);
                close(have[have.len() - 1].probability, &want["last"][1]);
            }
        }
    }
}

/// Upper bound of a chi-square variable with `k` degrees of freedom, exceeded with probability 1e-5 (Wilson-Hilferty).
fn chi_square_limit(k: f64) -> f64 {
    let c = 2.0 / (9.0 * k);
    k * (1.0 - c + 4.265 * c.sqrt()).powi(3)
}

#[test]
fn samples_follow_the_filtered_distribution() {
    let _alone = alone();
    let n = 20_000;
    let d = with(DecodeConfig {
        do_sample: Some(true),
        temperature: Some(1.3),
        top_k: Some(12),
        top_p: Some(0.95),
        num_return_sequences: Some(n),
        max_new_tokens: Some(2),
        ..DecodeConfig::default()
    });
    let prompt = vec![5, 9, 13];
    let drawn = run(&[Request { prompt: prompt.clone(), seed: 4, ..Request::default() }], &d);
    let row = |a: u32, b: u32| {
        let logits: Vec<f32> = (0..VOCAB as u32).map(|t| logit(a, b, t)).collect();
        filtered(&Tensor::from_slice(&logits).unsqueeze(0), &d).unwrap().remove(0)
    };
    // The joint distribution of two tokens; rare pairs share a bin.
    let (mut chi, mut bins, mut rare_want, mut rare_have) = (0.0, 0.0, 0.0, 0.0);
    let mut seen = std::collections::HashMap::new();
    drawn[0].iter().for_each(|g| *seen.entry((g.tokens[0], g.tokens[1])).or_insert(0usize) += 1);
    let mut counted = 0;
    for first in row(9, 13) {
        for second in row(13, first.token) {
            let want = n as f64 * first.probability * second.probability;
            let have = seen.get(&(first.token, second.token)).copied().unwrap_or(0);
            counted += have;
            if want < 8.0 {
                rare_want += want;
                rare_have += have as f64;
            } else {
                chi += (have as f64 - want).powi(2) / want;
                bins += 1.0;
            }
        }
    }
    assert_eq!(counted, n, "nothing outside the filter is drawn");
    if rare_want > 0.0 {
        chi += (rare_have - rare_want).powi(2) / rare_want;
        bins += 1.0;
    }
    assert!(bins > 40.0 && chi < chi_square_limit(bins - 1.0), "chi-square {chi} over {bins} bins");
}

/// Tokens are pieces of text; some stop strings cross them.
fn text(tokens: &[u32]) -> Result<String> {
    Ok(tokens.iter().map(|&t| ["a", "b<", "/s", ">c", "d", "e "][t as usize % 6]).collect())
}

#[test]
fn stop_strings_end_a_sequence_across_token_borders() {
    let _alone = alone();
    let stops = vec!["</s>".to_string(), "de ".to_string(), "ad".to_string()];
    for beams in [1, 3] {
        let config = DecodeConfig {
            stop_strings: stops.clone(),
            num_beams: Some(beams),
            max_new_tokens: Some(64),
            repetition_penalty: Some(1.5),
            ..DecodeConfig::default()
        };
        let d = with(config.clone());
        let hooks = Hooks { detokenize: Some(&text), on_token: None };
        let stopped = generate(&mut Table::default(), &requests(&prompts()), &d, hooks).unwrap();
        let mut hits = 0;
        for g in stopped.iter().flatten() {
            let (full, before) = (text(&g.tokens).unwrap(), text(&g.tokens[..g.tokens.len() - 1]).unwrap());
            let contains = |t: &str| stops.iter().any(|s| t.contains(s.as_str()));
            assert!(!contains(&before), "{full}");
            assert_eq!(contains(&full), matches!(g.finish, Finish::StopString(_)), "{full}");
            if let Finish::StopString(which) = g.finish {
                assert!(full.contains(&stops[which]));
                hits += 1;
            }
        }
        assert!(hits >= 3, "{hits} of 5 stopped");
        if beams == 1 {
            // Up to the stop nothing changes.
            let free = with(DecodeConfig { stop_strings: vec![], ..config });
            for (s, f) in stopped.iter().zip(run(&requests(&prompts()), &free)) {
                assert!(f[0].tokens.starts_with(&s[0].tokens));
            }
        }
        assert!(generate(&mut Table::default(), &requests(&prompts()), &d, Hooks::default()).is_err());
    }
}

#[test]
fn hooks_see_every_token_and_may_break_off() {
    let _alone = alone();
    let d = with(DecodeConfig { eos_token_id: Some(vec![3, 17]), ..DecodeConfig::default() });
    let r = requests(&prompts());
    let mut seen: Vec<Vec<u32>> = vec![vec![]; r.len()];
    let mut ends = 0;
    let mut hook = |e: &TokenEvent| {
        seen[e.request].push(e.token);
        ends += usize::from(e.finish.is_some());
        ControlFlow::Continue(())
    };
    let out = generate(&mut Table::default(), &r, &d, Hooks { detokenize: None, on_token: Some(&mut hook) })
        .unwrap();
    assert_eq!(ends, r.len());
    assert!(out.iter().zip(&seen).all(|(g, s)| &g[0].tokens == s));

    let mut left = 8;
    let mut hook = |_: &TokenEvent| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let cut = generate(&mut Table::default(), &r, &d, Hooks { detokenize: None, on_token: Some(&mut hook) })
        .unwrap();
    for (c, full) in cut.iter().zip(&out) {
        assert_eq!((c[0].finish, c[0].tokens.len()), (Finish::Stopped, 2));
        assert!(full[0].tokens.starts_with(&c[0].tokens));
    }
}

#[test]
fn finished_sequences_cost_nothing() {
    let _alone = alone();
    let d = with(DecodeConfig { eos_token_id: Some(vec![3, 17, 44]), ..DecodeConfig::default() });
    let r = requests(&prompts());
    let mut table = Table::default();
    let out = generate(&mut table, &r, &d, Hooks::default()).unwrap();
    let lengths: Vec<usize> = out.iter().map(|g| g[0].tokens.len()).collect();
    assert!(lengths.iter().min() < lengths.iter().max());
    // Every token is fed once, save for the last of each sequence.
    let prompts: usize = r.iter().map(|r| r.prompt.len()).sum();
    assert_eq!(table.fed, prompts + lengths.iter().sum::<usize>() - r.len());
}

struct Broken;

impl Stepper for Broken {
    fn step(&mut self, tokens: &[Vec<u32>]) -> Result<Tensor> {
        Ok(Tensor::from_slice(&[f32::NAN; 4]).unsqueeze(0).repeat([tokens.len() as i64, 1]))
    }

    fn reorder(&mut self, _: &[usize]) -> Result<()> {
        Ok(())
    }

    fn vocab_size(&self) -> usize {
        4
    }
}

#[test]
fn edge_cases() {
    let _alone = alone();
    let d = with(DecodeConfig::default());
    assert!(run(&[], &d).is_empty());
    let none = with(DecodeConfig { max_new_tokens: Some(0), ..DecodeConfig::default() });
    let out = run(&requests(&prompts()), &none);
    assert!(out.len() == 5 && out.iter().all(|g| g[0].tokens.is_empty() && g[0].finish == Finish::Length));
    let empty = [Request { prompt: vec![], seed: 0, ..Request::default() }];
    assert!(matches!(generate(&mut Table::default(), &empty, &d, Hooks::default()), Err(Error::Unusable(_))));
    let r = requests(&prompts());
    assert!(matches!(generate(&mut Broken, &r, &d, Hooks::default()), Err(Error::Decoding(_))));
    // A prompt token outside the vocabulary is an error of the penalty, not a crash.
    let penalty = with(DecodeConfig { repetition_penalty: Some(1.2), ..DecodeConfig::default() });
    let outside = [Request { prompt: vec![1, 5000], seed: 0, ..Request::default() }];
    assert!(generate(&mut Table::default(), &outside, &penalty, Hooks::default()).is_err());
}
