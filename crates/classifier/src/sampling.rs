//! Sampling that shows every class equally often.

use crate::labels::Target;
use rand::Rng;
use rand::seq::SliceRandom;

/// An epoch of as many places as there are targets in which all classes that occur come equally often (to one): small
/// ones again and again in new orders, of large ones a part. Shuffled; a pure function of the generator's state.
pub fn balanced<R: Rng>(targets: &[Target], rng: &mut R) -> Vec<usize> {
    let class = |t: &Target| if let Target::Class(c) = t { *c } else { 0 };
    let classes = targets.iter().map(class).max().map_or(0, |c| c + 1);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (i, t) in targets.iter().enumerate() {
        members[class(t)].push(i);
    }
    members.retain(|m| !m.is_empty());
    // Which classes get the odd one changes from epoch to epoch.
    members.shuffle(rng);
    let (n, k) = (targets.len(), members.len());
    let mut out = Vec::with_capacity(n);
    for (c, all) in members.iter_mut().enumerate() {
        let wanted = n / k + usize::from(c < n % k);
        let mut taken = 0;
        while taken < wanted {
            all.shuffle(rng);
            let now = all.len().min(wanted - taken);
            out.extend_from_slice(&all[..now]);
            taken += now;
        }
    }
    out.shuffle(rng);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn classes_come_equally_often() {
        let targets: Vec<Target> =
            (0..100).map(|i| Target::Class(if i < 90 { 0 } else { 2 + i % 2 })).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let order = balanced(&targets, &mut rng);
        assert_eq!(order.len(), 100);
        let count = |c: usize| order.iter().filter(|&&i| targets[i] == Target::Class(c)).count();
        for c in [0, 2, 3] {
            assert!((33..=34).contains(&count(c)), "{}", count(c));
        }
        // Of a class that is shown in part, nothing comes twice.
        let mut of_large: Vec<usize> = order.iter().copied().filter(|i| *i < 90).collect();
        of_large.sort_unstable();
        of_large.dedup();
        assert_eq!(of_large.len(), count(0));
        assert_ne!(order, balanced(&targets, &mut rng), "another epoch, another order");
        assert_eq!(order, balanced(&targets, &mut ChaCha8Rng::seed_from_u64(1)));
        assert!(balanced(&[], &mut rng).is_empty());
    }
}
