//! Fusion against its formulas, and what must not matter to it.

use std::convert::Infallible;

use proptest::prelude::*;
use ragduet_index::fusion::{RrfConfig, ScoresConfig, learn_weights};
use ragduet_index::{Error, FusionConfig, Hit, fuse, fuse_hits};

fn methods(weights: &[f64]) -> [FusionConfig; 3] {
    [
        FusionConfig::Rrf(RrfConfig { k: 60.0, weights: weights.to_vec() }),
        FusionConfig::MinMax(ScoresConfig { weights: weights.to_vec() }),
        FusionConfig::ZScore(ScoresConfig { weights: weights.to_vec() }),
    ]
}

/// The fused score of one document, by the table in the module's documentation.
fn plain(config: &FusionConfig, systems: &[Vec<(u32, f32)>], id: u32) -> f64 {
    let part = |(at, hits): (usize, &Vec<(u32, f32)>)| {
        let scores: Vec<f64> = hits.iter().map(|hit| f64::from(hit.1)).collect();
        let own = hits.iter().find(|hit| hit.0 == id).map(|hit| f64::from(hit.1));
        let (min, max) = (
            scores.iter().copied().fold(f64::MAX, f64::min),
            scores.iter().copied().fold(f64::MIN, f64::max),
        );
        let part = match config {
            FusionConfig::Rrf(RrfConfig { k, .. }) => own.map_or(0.0, |own| {
                let before =
                    |hit: &&(u32, f32)| f64::from(hit.1) > own || (f64::from(hit.1) == own && hit.0 < id);
                1.0 / (k + 1.0 + hits.iter().filter(before).count() as f64)
            }),
            _ if hits.is_empty() => 0.0,
            FusionConfig::MinMax(_) => {
                own.map_or(0.0, |own| if max > min { (own - min) / (max - min) } else { 1.0 })
            }
            FusionConfig::ZScore(_) => {
                let n = scores.len() as f64;
                let mean = scores.iter().sum::<f64>() / n;
                let deviation = (scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / n).sqrt();
                (own.unwrap_or(min) - mean) / deviation.max(1e-9)
            }
        };
        part * config.weights().get(at).copied().unwrap_or(1.0)
    };
    systems.iter().enumerate().map(part).sum()
}

fn lists() -> impl Strategy<Value = Vec<Vec<(u32, f32)>>> {
    let list = proptest::collection::btree_map(0u32..40, -20i32..20, 0..25)
        .prop_map(|hits| hits.into_iter().map(|(id, score)| (id, score as f32 / 4.0)).collect::<Vec<_>>());
    proptest::collection::vec(list, 1..5)
}

proptest! {
    #[test]
    fn equals_the_formulas(systems in lists(), weights in proptest::collection::vec(0.0f64..2.0, 5), k in 0usize..60) {
        for config in methods(&weights[..systems.len()]).into_iter().chain(methods(&[])) {
            let fused = fuse(&config, &systems, k).unwrap();
            let mut ids: Vec<u32> = systems.iter().flatten().map(|hit| hit.0).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(fused.len(), k.min(ids.len()));
            for (id, score) in &fused {
                let want = plain(&config, &systems, *id);
                prop_assert!((f64::from(*score) - want).abs() < 1e-5 * (1.0 + want.abs()), "{} {} {}", id, score, want);
            }
            for pair in fused.windows(2) {
                prop_assert!(pair[0].1 > pair[1].1 || (pair[0].1 == pair[1].1 && pair[0].0 < pair[1].0));
            }
            let best = ids.iter().map(|id| plain(&config, &systems, *id)).fold(f64::MIN, f64::max);
            prop_assert!(fused.first().is_none_or(|hit| (f64::from(hit.1) - best).abs() < 1e-5 * (1.0 + best.abs())));
        }
    }

    /// Neither the order of the systems nor that of their hits matters, nor whether keys are rows or names.
    #[test]
    fn order_does_not_matter(systems in lists(), weights in proptest::collection::vec(0.0f64..2.0, 5), turn in 0usize..5) {
        let weights = &weights[..systems.len()];
        for config in methods(weights) {
            let fused = fuse(&config, &systems, 100).unwrap();
            let (mut turned, mut turned_weights) = (systems.clone(), weights.to_vec());
            turned.rotate_left(turn % systems.len());
            turned_weights.rotate_left(turn % systems.len());
            turned.iter_mut().for_each(|hits| hits.reverse());
            let again = config.with_weights(turned_weights);
            prop_assert_eq!(&fuse(&again, &turned, 100).unwrap(), &fused);
            // A hit listed again, further behind.
            for hits in &mut turned {
                if let Some(&(id, score)) = hits.first() {
                    hits.push((id, score - 1000.0));
                }
            }
            prop_assert_eq!(&fuse(&again, &turned, 100).unwrap(), &fused);
            let names: Vec<Vec<(String, f32)>> = systems
                .iter()
                .map(|hits| hits.iter().map(|(id, score)| (format!("{id:02}"), *score)).collect())
                .collect();
            let named = fuse(&config, &names, 100).unwrap();
            prop_assert_eq!(named, fused.iter().map(|(id, score)| (format!("{id:02}"), *score)).collect::<Vec<_>>());
            let hits: Vec<Vec<Hit>> =
                systems.iter().map(|hits| hits.iter().map(|&(id, score)| Hit { id, score }).collect()).collect();
            let hits = fuse_hits(&config, &hits, 100).unwrap();
            prop_assert_eq!(hits.iter().map(|hit| (hit.id, hit.score)).collect::<Vec<_>>(), fused);
        }
    }
}

#[test]
fn the_papers_figures() {
    let systems = [vec![(7u32, 9.0f32), (3, 8.0)], vec![(3, 0.2), (5, 0.1)]];
    let fused = fuse(&FusionConfig::default(), &systems, 10).unwrap();
    assert_eq!(
        fused,
        [(3, (1.0 / 62.0 + 1.0 / 61.0) as f32), (7, (1.0 / 61.0) as f32), (5, (1.0 / 62.0) as f32)]
    );
}

#[test]
fn what_cannot_be_fused_is_an_error() {
    let systems = [vec![(1u32, 1.0f32)], vec![(1, f32::NAN)]];
    let error = fuse(&FusionConfig::default(), &systems, 1).unwrap_err();
    assert!(matches!(error, Error::UnusableScore { system: 1, rank: 0, .. }), "{error}");
    let systems = vec![vec![(1u32, 1.0f32)]; 2];
    for weights in [vec![1.0], vec![1.0, -1.0], vec![f64::NAN, 1.0]] {
        for config in methods(&weights) {
            assert!(fuse(&config, &systems, 1).is_err());
        }
    }
    let none: [Vec<(u32, f32)>; 0] = [];
    assert!(fuse(&FusionConfig::default(), &none, 5).unwrap().is_empty());
    let parsed: FusionConfig = serde_json::from_str(r#"{"rrf": {"k": 10}}"#).unwrap();
    assert_eq!(parsed, FusionConfig::Rrf(RrfConfig { k: 10.0, weights: vec![] }));
    assert!(serde_json::from_str::<FusionConfig>(r#"{"min_max": {"k": 10}}"#).is_err());
}

#[test]
fn weights_are_found() {
    // A measure whose best weights are known.
    let best = [0.6, 0.1, 0.3];
    for method in methods(&[]) {
        let measure = |config: &FusionConfig| {
            let off: f64 =
                config.weights().iter().zip(best).map(|(weight, best)| (weight - best).powi(2)).sum();
            Ok::<_, Infallible>(1.0 - off)
        };
        let learned = learn_weights(&method, 3, measure).unwrap();
        assert!(learned.measure > 0.999 && learned.measure > learned.measure_of_equal, "{learned:?}");
        assert!(learned.config.weights().iter().zip(best).all(|(weight, best)| (weight - best).abs() < 0.03));
        assert_eq!(learned, learn_weights(&method, 3, measure).unwrap());
        assert!(learned.tried < 1000, "{}", learned.tried);
    }
    // Where nothing is better than equal weights, or nothing can be measured, they stay.
    for flat in [0.5, f64::NAN] {
        let learned = learn_weights(&FusionConfig::default(), 2, |_| Ok::<_, Infallible>(flat)).unwrap();
        assert_eq!(learned.config.weights(), [0.5, 0.5]);
    }
    assert_eq!(
        learn_weights(&FusionConfig::default(), 2, |_| Err("no judgements")).unwrap_err(),
        "no judgements"
    );
    // A measure of judged queries: the second system is the one that knows.
    let systems =
        |query: u32| [vec![(query, 1.0f32), (query + 1, 2.0)], vec![(query, 2.0), (query + 1, 1.0)]];
    let first = |config: &FusionConfig| -> Result<f64, Error> {
        let right = (0..20u32).map(|query| Ok(fuse(config, &systems(query), 1)?[0].0 == query));
        Ok(right.collect::<Result<Vec<bool>, Error>>()?.into_iter().filter(|right| *right).count() as f64
            / 20.0)
    };
    for method in methods(&[]) {
        let learned = learn_weights(&method, 2, first).unwrap();
        assert!(learned.measure == 1.0 && learned.config.weights()[1] >= 0.5, "{learned:?}");
    }
}
