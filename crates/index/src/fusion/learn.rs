//! Weights of a fusion, learned on judged queries.

use super::FusionConfig;

/// The weights' grid: shares of 1 in steps of this, coarse at first.
const STEPS: [f64; 3] = [0.1, 0.05, 0.01];

/// What [`learn_weights`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The method with the best weights; they add up to 1.
    pub config: FusionConfig,
    /// The measure with them.
    pub measure: f64,
    /// The measure with equal weights.
    pub measure_of_equal: f64,
    /// How often the measure was computed.
    pub tried: usize,
}

/// Searches the weights of `systems` systems that maximise a measure, as nDCG over development queries that were fused
/// with the config given.
///
/// Coordinate search from equal weights: one system's share is tried at each step of a grid while the others keep their
/// proportions, and only a greater measure changes it, until no share does; then on a finer grid. The same measure gives
/// the same weights, equal ones if nothing is better. For two systems the coarse grid holds all shares, as in ranx'
/// `optimize_fusion`. Fewer queries than some fifty tell little: compare `measure` on others with `measure_of_equal`.
pub fn learn_weights<E>(
    method: &FusionConfig,
    systems: usize,
    mut measure: impl FnMut(&FusionConfig) -> Result<f64, E>,
) -> Result<Learned, E> {
    let mut weights = vec![1.0 / systems.max(1) as f64; systems];
    let config = method.with_weights(weights.clone());
    let measure_of_equal = measure(&config)?;
    let mut best = Learned { config, measure: measure_of_equal, measure_of_equal, tried: 1 };
    if systems < 2 {
        return Ok(best);
    }
    for step in STEPS {
        loop {
            let before = best.measure;
            for system in 0..systems {
                for share in shares(step, weights[system]) {
                    let tried = with_share(&weights, system, share);
                    let config = method.with_weights(tried.clone());
                    let measured = measure(&config)?;
                    best.tried += 1;
                    // NaN is never better.
                    if measured > best.measure {
                        (best.config, best.measure) = (config, measured);
                        weights = tried;
                    }
                }
            }
            if best.measure <= before || best.measure.is_nan() {
                break;
            }
        }
    }
    Ok(best)
}

/// The shares that are tried: all on the coarse grid, those near the present one on finer grids.
fn shares(step: f64, present: f64) -> impl Iterator<Item = f64> {
    let count = (1.0 / step).round() as u32;
    let near = if step == STEPS[0] { 1.0 } else { STEPS[0] };
    (0..=count)
        .map(move |at| f64::from(at) / f64::from(count))
        .filter(move |share| (share - present).abs() <= near + 1e-9 && (share - present).abs() > 1e-9)
}

/// The weights with another share for one system, the others in proportion.
fn with_share(weights: &[f64], system: usize, share: f64) -> Vec<f64> {
    let others: f64 =
        weights.iter().enumerate().filter(|(at, _)| *at != system).map(|(_, weight)| weight).sum();
    let equal = (1.0 - share) / (weights.len() - 1) as f64;
    let of_other = |weight: f64| if others > 0.0 { weight / others * (1.0 - share) } else { equal };
    weights
        .iter()
        .enumerate()
        .map(|(at, &weight)| if at == system { share } else { of_other(weight) })
        .collect()
}
