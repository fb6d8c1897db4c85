//! Training contexts: each setting's effect, rates over many examples, and what holds for every input.

use proptest::prelude::*;
use ragduet_generator::contexts::{Chosen, ContextConfig, Golden, Key, Order, Sources, WithoutGolden};
use std::collections::HashSet;

const CANDIDATES: [u32; 8] = [10, 11, 1, 12, 13, 14, 15, 16];

fn choose(config: &ContextConfig, golden: &[u32], epoch: u64, example: &str) -> Chosen<u32> {
    config.check().unwrap();
    let sources = Sources { golden, candidates: &CANDIDATES, answering: &[] };
    config.choose(&sources, Key { seed: 3, epoch, example })
}

fn passages(c: &Chosen<u32>) -> Vec<u32> {
    c.passages.iter().map(|s| s.passage).collect()
}

fn sorted(c: &Chosen<u32>) -> Vec<u32> {
    let mut p = passages(c);
    p.sort_unstable();
    p
}

/// The share of 4,000 examples for which something holds.
fn share(config: &ContextConfig, golden: &[u32], holds: impl Fn(&Chosen<u32>) -> bool) -> f64 {
    (0..4000).filter(|i| holds(&choose(config, golden, 0, &format!("q{i}")))).count() as f64 / 4000.0
}

#[test]
fn by_default_the_golden_passage_stands_among_the_best_candidates() {
    let c = choose(&ContextConfig::default(), &[1], 0, "a");
    assert_eq!(sorted(&c), [1, 10, 11, 12, 13]);
    assert!(!c.abstain && c.passages.iter().all(|s| s.golden == (s.passage == 1)));
    assert_eq!(c.passages.iter().find(|s| s.golden).unwrap().rank, 0, "kept when the prompt is too long");
    // Each place is equally likely.
    for place in 0..5 {
        let there = share(&ContextConfig::default(), &[1], |c| c.passages[place].golden);
        assert!((there - 0.2).abs() < 0.03, "place {place}: {there}");
    }
}

#[test]
fn retrieved_contexts_are_the_ranking() {
    let c = choose(&ContextConfig::retrieved(3), &[1], 0, "a");
    assert_eq!(passages(&c), [10, 11, 1]);
    assert_eq!(c.passages.iter().map(|s| s.golden).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(c.passages.iter().map(|s| s.rank).collect::<Vec<_>>(), [1, 2, 3]);
    let c = choose(&ContextConfig::retrieved(2), &[1], 0, "a");
    assert_eq!(passages(&c), [10, 11]);
    assert!(!c.abstain);
    let abstaining = ContextConfig { without_golden: WithoutGolden::Abstain, ..ContextConfig::retrieved(2) };
    assert!(choose(&abstaining, &[1], 0, "a").abstain, "a golden passage is known and not shown");
    assert!(!choose(&abstaining, &[], 0, "a").abstain, "none is known");
    assert!(!choose(&abstaining, &[11], 0, "a").abstain);
}

#[test]
fn golden_passages_are_dropped_at_the_rate() {
    let config = ContextConfig {
        golden_drop_rate: 0.3,
        without_golden: WithoutGolden::Abstain,
        ..ContextConfig::default()
    };
    let gone = share(&config, &[1], |c| {
        let shown = c.passages.iter().any(|s| s.golden);
        assert_eq!(c.abstain, !shown);
        assert!(shown || sorted(c) == [10, 11, 12, 13, 14], "distractors take its place");
        !shown
    });
    assert!((gone - 0.3).abs() < 0.03, "{gone}");
    let memory = ContextConfig { without_golden: WithoutGolden::Answer, ..config };
    assert_eq!(share(&memory, &[1], |c| c.abstain), 0.0);
}

#[test]
fn an_example_that_abstains_is_shown_nothing_that_holds_the_answer() {
    let config = ContextConfig {
        golden_drop_rate: 0.5,
        without_golden: WithoutGolden::Abstain,
        ..ContextConfig::default()
    };
    let answering = [true, false, true, false, false, false, true, false];
    let sources = Sources { golden: &[1], candidates: &CANDIDATES, answering: &answering };
    let (mut with, mut without) = (0, 0);
    for i in 0..200 {
        let c = config.choose(&sources, Key { seed: 0, epoch: 0, example: &i.to_string() });
        if c.abstain {
            assert_eq!(sorted(&c), [11, 12, 13, 14, 16]);
            without += 1;
        } else {
            assert_eq!(sorted(&c), [1, 10, 11, 12, 13]);
            with += 1;
        }
    }
    assert!(with > 60 && without > 60);
}

#[test]
fn distractors_come_at_the_rate_and_from_the_pool() {
    let config = ContextConfig { distractor_rate: 0.25, ..ContextConfig::default() };
    let mut total = 0;
    for i in 0..4000 {
        total += choose(&config, &[1], 0, &i.to_string()).passages.len() - 1;
    }
    assert!((f64::from(total as u32) / 16000.0 - 0.25).abs() < 0.02, "{total}");
    let alone = ContextConfig { distractor_rate: 0.0, ..ContextConfig::default() };
    assert_eq!(share(&alone, &[1], |c| passages(c) == [1]), 1.0);

    let pooled = ContextConfig { distractor_pool: 6, count: 3, ..ContextConfig::default() };
    for p in [10, 11, 12, 13, 14, 15] {
        let there = share(&pooled, &[1], |c| passages(c).contains(&p));
        assert!((there - 1.0 / 3.0).abs() < 0.03, "{p}: {there}");
    }
    assert_eq!(share(&pooled, &[1], |c| passages(c).contains(&16)), 0.0);
}

#[test]
fn a_golden_passage_that_was_missed_may_stand_anywhere() {
    let config = ContextConfig { order: Order::Ranked, count: 4, ..ContextConfig::default() };
    assert_eq!(passages(&choose(&config, &[1], 0, "a")), [10, 11, 1, 12]);
    for place in 0..4 {
        let there = share(&config, &[99], |c| {
            let others: Vec<u32> = passages(c).into_iter().filter(|&p| p != 99).collect();
            assert_eq!(others, [10, 11, 12].map(|p| if p == 12 { 1 } else { p }));
            c.passages[place].golden
        });
        assert!((there - 0.25).abs() < 0.03, "place {place}: {there}");
    }
}

#[test]
fn epochs_and_examples_differ_and_settings_do_not_disturb_each_other() {
    let config = ContextConfig { golden_drop_rate: 0.5, ..ContextConfig::default() };
    let dropped = |config: &ContextConfig, epoch| -> Vec<bool> {
        (0..64)
            .map(|i| !choose(config, &[1], epoch, &i.to_string()).passages.iter().any(|s| s.golden))
            .collect()
    };
    assert_eq!(dropped(&config, 0), dropped(&config, 0));
    assert_ne!(dropped(&config, 0), dropped(&config, 1));
    let other =
        ContextConfig { distractor_pool: 7, distractor_rate: 0.5, order: Order::Ranked, ..config.clone() };
    assert_eq!(dropped(&config, 0), dropped(&other, 0));
}

#[test]
fn settings_are_checked_and_read() {
    for text in [
        "golden_drop_rate = 1.5",
        "distractor_rate = -0.1",
        "golden_drop_rate = nan",
        "count = 0\nwithout_golden = \"abstain\"",
    ] {
        assert!(toml::from_str::<ContextConfig>(text).unwrap().check().is_err(), "{text}");
    }
    let c: ContextConfig = toml::from_str("golden = \"retrieved\"\norder = \"ranked\"").unwrap();
    assert_eq!(c, ContextConfig::retrieved(5));
    assert!(toml::from_str::<ContextConfig>("counts = 3").is_err());
    let closed = ContextConfig { count: 0, ..ContextConfig::default() };
    assert!(choose(&closed, &[1], 0, "a").passages.is_empty());
}

fn config() -> impl Strategy<Value = ContextConfig> {
    let rate = || prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (0..7usize, 0..3usize, rate(), rate(), 0..10usize, flags).prop_map(
        |(count, max_golden, golden_drop_rate, distractor_rate, distractor_pool, (a, b, c))| ContextConfig {
            excerpt_epochs: 0,
            count,
            golden: if a { Golden::Inserted } else { Golden::Retrieved },
            max_golden,
            golden_drop_rate,
            without_golden: if b { WithoutGolden::Abstain } else { WithoutGolden::Answer },
            distractor_rate,
            distractor_pool,
            order: if c { Order::Shuffled } else { Order::Ranked },
            substitute_rate: 0.0,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn laws(
        config in config(),
        golden in proptest::collection::vec(0..12u32, 0..5),
        candidates in proptest::collection::vec(0..20u32, 0..15),
        answering in proptest::collection::vec(any::<bool>(), 0..15),
        seed: u64,
        epoch in 0..3u64,
    ) {
        let sources = Sources { golden: &golden, candidates: &candidates, answering: &answering };
        let key = Key { seed, epoch, example: "q" };
        let c = config.choose(&sources, key);
        prop_assert_eq!(&c, &config.choose(&sources, key));
        prop_assert!(c.passages.len() <= config.count);
        let distinct: HashSet<u32> = c.passages.iter().map(|s| s.passage).collect();
        prop_assert_eq!(distinct.len(), c.passages.len());
        let mut shown_golden = 0;
        for s in &c.passages {
            prop_assert_eq!(s.golden, golden.contains(&s.passage));
            shown_golden += usize::from(s.golden);
            prop_assert!(s.golden && config.golden == Golden::Inserted || candidates.contains(&s.passage));
            if c.abstain {
                let at = candidates.iter().position(|c| *c == s.passage).unwrap();
                prop_assert!(!answering.get(at).copied().unwrap_or(false));
            }
        }
        prop_assert!(config.max_golden == 0 || shown_golden <= config.max_golden);
        let abstain = config.without_golden == WithoutGolden::Abstain && !golden.is_empty() && shown_golden == 0;
        prop_assert_eq!(c.abstain, abstain);
        let distinct_golden = golden.iter().collect::<HashSet<_>>().len();
        if config.golden == Golden::Inserted && config.golden_drop_rate == 0.0 {
            let most = if config.max_golden == 0 { config.count } else { config.max_golden.min(config.count) };
            prop_assert_eq!(shown_golden, distinct_golden.min(most));
        }
        if config.golden_drop_rate == 1.0 {
            prop_assert_eq!(shown_golden, 0);
        }
    }
}
