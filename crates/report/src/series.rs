//! Curves, and thinning them.

use serde::Serialize;

/// A metric over a run: (step, value), in the file's order, finite.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Series(pub Vec<(f64, f64)>);

/// The most points of a curve that go into a page: more than a screen has columns.
pub const MOST: usize = 1500;

impl Series {
    /// The highest or lowest value and its step, the first of equals.
    pub fn extreme(&self, highest: bool) -> Option<(f64, f64)> {
        let better = |a: f64, b: f64| if highest { a > b } else { a < b };
        let mut points = self.0.iter().copied();
        let first = points.next()?;
        Some(points.fold(first, |best, p| if better(p.1, best.1) { p } else { best }))
    }
}

/// At most about `most` points that look like all of them: of each of equally many in a row, the first, the lowest, the
/// highest and the last, in their order. So no extreme is lost, and neither end.
pub fn thin(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    let most = most.max(4);
    if points.len() <= most {
        return points.to_vec();
    }
    let buckets = most / 4;
    let mut out = Vec::with_capacity(most);
    for b in 0..buckets {
        let (from, to) = (b * points.len() / buckets, (b + 1) * points.len() / buckets);
        let part = &points[from..to];
        let by = |a: &usize, b: &usize| part[*a].1.total_cmp(&part[*b].1);
        let low = (0..part.len()).min_by(by);
        let high = (0..part.len()).max_by(by);
        let mut kept: Vec<usize> =
            [Some(0), low, high, part.len().checked_sub(1)].into_iter().flatten().collect();
        kept.sort_unstable();
        kept.dedup();
        out.extend(kept.into_iter().map(|i| part[i]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_ends_order_and_extremes() {
        let wave = |i: usize| ((i as f64 * 0.37).sin() * 3.0, i);
        let mut all: Vec<(f64, f64)> = (0..100_000).map(|i| (i as f64, wave(i).0)).collect();
        all[77_777].1 = 90.0;
        all[12_345].1 = -55.0;
        let few = thin(&all, 1000);
        assert!(few.len() <= 1000 && few.len() > 500, "{}", few.len());
        assert_eq!((few[0], few[few.len() - 1]), (all[0], all[99_999]));
        assert!(few.windows(2).all(|w| w[0].0 < w[1].0));
        assert!(few.contains(&(77_777.0, 90.0)) && few.contains(&(12_345.0, -55.0)));
        // Every stretch keeps its own extremes.
        for b in 0..250 {
            let part = &all[b * 400..(b + 1) * 400];
            let high = part.iter().map(|p| p.1).fold(f64::MIN, f64::max);
            assert!(few.iter().any(|p| part[0].0 <= p.0 && p.0 <= part[399].0 && p.1 == high), "{b}");
        }
        assert_eq!(thin(&all[..1000], 1000), all[..1000]);
        assert!(thin(&[], 10).is_empty());
        // Steps that are alike (a resumed run's) and few points.
        assert_eq!(thin(&[(1.0, 2.0), (1.0, 3.0)], 1), [(1.0, 2.0), (1.0, 3.0)]);
    }

    #[test]
    fn the_first_of_equal_extremes() {
        let s = Series(vec![(1.0, 5.0), (2.0, 7.0), (3.0, 7.0), (4.0, 5.0)]);
        assert_eq!((s.extreme(true), s.extreme(false)), (Some((2.0, 7.0)), Some((1.0, 5.0))));
        assert_eq!(Series::default().extreme(true), None);
    }
}
