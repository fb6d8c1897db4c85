//! Full batches where examples share keys: an FAQ whose questions have one answer, a query with very many rows.
//!
//! One example of such a group a batch would leave most batches with a single example, which has no in-batch negatives
//! and teaches nothing. So as many batches as the size asks for are filled, by the groups in turn, the largest first:
//! each batch holds about as many of a group as any other, and the rest of it are examples of other groups, the
//! negatives. Only a group with more examples than there are batches shares some.

use super::{BatchItem, BatchSize, EpochPlan, Mix, OpenBatches, TokenBudget};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

type Keyed<T> = HashMap<u64, T, BuildHasherDefault<Mix>>;

/// Batches that are looked at for one without any of an item's keys.
const TRIES: u32 = 64;

/// How many batches the items come to if keys do not matter; `whole`: those of `n` examples alone.
pub(super) fn fewest(items: &[BatchItem], order: &[u32], size: BatchSize, whole: bool) -> usize {
    if let BatchSize::Examples(n) = size {
        return if whole { items.len() / n } else { items.len().div_ceil(n) };
    }
    let mut open = OpenBatches::new(size);
    order.iter().for_each(|&i| {
        open.place(i, items[i as usize].tokens, 0);
    });
    open.finish().count()
}

/// Fills `count` batches. `even`: with about as many examples each, so that the last is not left to one group.
pub(super) fn fill(
    items: &[BatchItem],
    order: &[u32],
    size: BatchSize,
    count: usize,
    even: bool,
) -> (OpenBatches, EpochPlan) {
    let share = if even { items.len().div_ceil(count.max(1)).max(1) } else { usize::MAX };
    let mut open = OpenBatches::new(match size {
        BatchSize::Examples(n) => BatchSize::Examples(n.min(share)),
        BatchSize::Tokens(t) => {
            BatchSize::Tokens(TokenBudget { max_examples: t.max_examples.min(share), ..t })
        }
    });
    open.begin(count);
    let mut plan = EpochPlan::default();
    let mut sizes: Keyed<u32> = HashMap::default();
    items.iter().flat_map(distinct).for_each(|key| *sizes.entry(key).or_default() += 1);
    sizes.retain(|_, n| *n > 1);
    // Its largest group.
    let group = |i: u32| {
        let keys = items[i as usize].keys.iter();
        keys.filter_map(|key| sizes.get(key).map(|&n| (n, *key))).max()
    };
    let mut grouped: Vec<(u32, (u32, u64))> =
        order.iter().filter_map(|&i| group(i).map(|largest| (i, largest))).collect();
    // Stable: within a size the order is the epoch's.
    grouped.sort_by_key(|(_, (n, _))| std::cmp::Reverse(*n));

    let mut held: Vec<HashSet<u64, BuildHasherDefault<Mix>>> = vec![HashSet::default(); count];
    let mut turn: Keyed<u32> = HashMap::default();
    let mut first = 0;
    for (i, (_, key)) in grouped {
        let item = &items[i as usize];
        let start = *turn.entry(key).or_insert_with(|| {
            first += 1;
            first - 1
        });
        let shared = |b: u32| {
            let keys = held.get(b as usize);
            keys.map_or(0, |keys| distinct(item).filter(|key| keys.contains(key)).count())
        };
        let mut at = open.open_from(start, count as u32);
        let (mut best, mut least) = (at, shared(at));
        for _ in 0..TRIES.min(count as u32) {
            if least == 0 {
                break;
            }
            at = open.open_from(at + 1, count as u32);
            if shared(at) < least {
                (best, least) = (at, shared(at));
            }
        }
        let batch = open.place(i, item.tokens, best);
        // What did not fit into its place went further on.
        plan.sharing += usize::from(shared(batch) > 0);
        turn.insert(key, batch + 1);
        if held.len() <= batch as usize {
            held.resize(batch as usize + 1, HashSet::default());
        }
        held[batch as usize].extend(distinct(item).filter(|key| sizes.contains_key(key)));
    }
    for &i in order.iter().filter(|&&i| group(i).is_none()) {
        open.place(i, items[i as usize].tokens, 0);
    }
    (open, plan)
}

/// An item's keys, each once.
fn distinct(item: &BatchItem) -> impl Iterator<Item = u64> + '_ {
    let keys = &item.keys;
    keys.iter().enumerate().filter(|(i, key)| !keys[..*i].contains(key)).map(|(_, key)| *key)
}

impl OpenBatches {
    /// Opens this many batches, empty.
    fn begin(&mut self, count: usize) {
        for batch in 0..count as u32 {
            self.next.push(batch);
            self.batches.push(Vec::new());
            self.tokens.push(0);
            self.full.push(false);
        }
    }

    /// The first batch from `from` on that takes items, in turn: after the last of `count` comes the first.
    fn open_from(&mut self, from: u32, count: u32) -> u32 {
        let at = self.next_open(from % count.max(1));
        if at < count { at } else { self.next_open(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchConfig, plan_epoch};
    use super::*;

    /// `groups`: how many items share each key.
    fn items(groups: &[usize]) -> Vec<BatchItem> {
        let of = |(key, &n): (usize, &usize)| vec![BatchItem { tokens: 10, keys: vec![key as u64] }; n];
        groups.iter().enumerate().flat_map(of).collect()
    }

    /// Per batch: its size, and how many different groups it holds.
    fn batches(items: &[BatchItem], config: &BatchConfig) -> (Vec<(usize, usize)>, EpochPlan) {
        let plan = plan_epoch(items, config, 5, 0).unwrap();
        let of = |batch: &Vec<u32>| {
            let groups: HashSet<u64> = batch.iter().map(|&i| items[i as usize].keys[0]).collect();
            (batch.len(), groups.len())
        };
        let mut out: Vec<_> = plan.batches.iter().map(of).collect();
        out.sort_unstable();
        (out, plan)
    }

    fn of(n: usize) -> BatchConfig {
        BatchConfig { size: BatchSize::Examples(n), ..BatchConfig::default() }
    }

    #[test]
    fn questions_with_one_answer_stand_among_others_in_full_batches() {
        // 24 questions with one answer, 8 with their own.
        let mut groups = vec![24];
        groups.extend([1; 8]);
        let (got, plan) = batches(&items(&groups), &of(8));
        assert_eq!(got, [(8, 3); 4]);
        assert_eq!((plan.sharing, plan.singletons), (20, 0));
        // 33 in batches of 8 are 5 batches: none is left to the group alone.
        groups.push(1);
        let (got, _) = batches(&items(&groups), &of(8));
        assert_eq!(got.len(), 5);
        assert!(got.iter().all(|&(n, groups)| (5..=7).contains(&n) && groups >= 2), "{got:?}");
    }

    #[test]
    fn several_large_groups_fill_batches_together_and_share_none_where_they_need_not() {
        // 6 answers of 10 questions each: 10 batches of 6 different answers, or 8 of 8, where groups must share.
        let (got, plan) = batches(&items(&[10; 6]), &of(6));
        assert_eq!((got, plan.sharing), (vec![(6, 6); 10], 0));
        let (got, plan) = batches(&items(&[10; 6]), &of(8));
        assert_eq!(got.len(), 8);
        assert!(got.iter().all(|&(n, groups)| n >= 4 && groups >= 4), "{got:?}");
        assert!(plan.sharing <= 60 - 6 * 8 + 6, "{}", plan.sharing);
    }

    #[test]
    fn a_group_alone_fills_batches_and_is_counted() {
        let (got, plan) = batches(&items(&[50]), &of(32));
        assert_eq!(got, [(25, 1); 2]);
        assert_eq!(plan.sharing, 48);
        let size = BatchSize::Tokens(TokenBudget { budget: 100, max_examples: 64 });
        let (got, _) = batches(&items(&[30, 1, 1, 1]), &BatchConfig { size, ..BatchConfig::default() });
        assert_eq!((got.len(), got.iter().map(|b| b.0).sum::<usize>()), (4, 33));
        // What is dropped is the incomplete batch.
        let config = BatchConfig { drop_last: true, ..of(8) };
        let mut groups = vec![20];
        groups.extend([1; 7]);
        let (got, plan) = batches(&items(&groups), &config);
        assert_eq!(got.iter().map(|b| b.0).collect::<Vec<_>>(), [8, 8, 8]);
        assert_eq!(plan.dropped, 3);
    }

    #[test]
    fn few_shared_keys_leave_the_plan_as_it_is() {
        let mut groups = vec![1; 300];
        groups.extend([3; 10]);
        let (got, plan) = batches(&items(&groups), &of(8));
        assert_eq!((got.len(), plan.sharing), (42, 0));
        assert!(got.iter().all(|(n, groups)| n == groups));
    }
}
