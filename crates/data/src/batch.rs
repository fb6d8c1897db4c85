//! The plan of an epoch: which examples form which batch.
//!
//! A plan is a pure function of the items, the config, the seed and the epoch. A run that is resumed computes the plan
//! again and goes on at the batch it had reached; nothing of the sampler is ever saved.
//!
//! **Method.** Items are permuted, then sorted by length within windows, then placed first-fit: an item goes to the
//! earliest open batch after the last one that holds any of its keys. For each key only the last batch that has it
//! need be remembered, and closed batches are skipped by path compression, so the whole is near linear, also when one
//! query has ten thousand rows. At the end the batches are shuffled, so that lengths do not come in runs.
//!
//! Where keys are shared so often that this leaves more batches than the size asks for, they are filled group by group
//! instead ([`fill`]).
//!
//! **Guarantees.** Every item occurs exactly once, or is counted as dropped. With `no_duplicates`, no two items of a
//! batch share a key, but for those that are counted as sharing one. No batch is over its budget, but for an item that
//! alone is over it: that one gets a batch of its own, and is counted.

mod fill;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Batch size and composition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Batch size in examples or tokens.
    pub size: BatchSize,
    /// Grouping of examples of similar length.
    pub length_grouping: LengthGrouping,
    /// Whether queries and passages are unique within a batch, as far as full batches allow.
    pub no_duplicates: bool,
    /// Whether incomplete batches at the end of an epoch are dropped.
    pub drop_last: bool,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            size: BatchSize::Examples(32),
            length_grouping: LengthGrouping::Off,
            no_duplicates: true,
            drop_last: false,
        }
    }
}

/// Batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BatchSize {
    /// Number of examples.
    Examples(usize),
    /// Token budget.
    Tokens(TokenBudget),
}

/// Token budget of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBudget {
    /// Maximum tokens of a batch, queries and passages together, without padding.
    pub budget: u64,
    /// Maximum number of examples in a batch.
    pub max_examples: usize,
}

/// Grouping of examples of similar length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LengthGrouping {
    /// No grouping.
    #[default]
    Off,
    /// Sorting by length within windows of about this many batches.
    Window(usize),
}

/// What the batcher knows of an example.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchItem {
    /// Tokens of everything that is encoded for it.
    pub tokens: u32,
    /// What must be unique within a batch: query, positive and negative passages.
    pub keys: Vec<u64>,
}

/// The batches of one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochPlan {
    /// Indices of items, batch by batch.
    pub batches: Vec<Vec<u32>>,
    /// Items that went to a later batch because an earlier one held one of their keys.
    pub deferred: usize,
    /// Items that share a key with an earlier one of their batch, because full batches left no other place. What shares a
    /// key must not be taken for a negative.
    pub sharing: usize,
    /// Items left out by `drop_last`.
    pub dropped: usize,
    /// Items that alone are over the token budget.
    pub oversized: usize,
    /// Batches of a single item, which have no in-batch negatives.
    pub singletons: usize,
}

impl EpochPlan {
    /// Number of items in the plan.
    pub fn examples(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }
}

impl BatchConfig {
    /// Refuses impossible settings.
    pub fn validate(&self) -> Result<()> {
        let refuse = |key: &str, reason: &str| Err(Error::Config { key: key.into(), reason: reason.into() });
        match self.size {
            BatchSize::Examples(0) => return refuse("size.examples", "must be at least 1"),
            BatchSize::Tokens(TokenBudget { budget: 0, .. }) => {
                return refuse("size.tokens.budget", "must be at least 1");
            }
            BatchSize::Tokens(TokenBudget { max_examples: 0, .. }) => {
                return refuse("size.tokens.max_examples", "must be at least 1");
            }
            BatchSize::Examples(_) | BatchSize::Tokens(_) => {}
        }
        match self.length_grouping {
            LengthGrouping::Window(0) => refuse("length_grouping.window", "must be at least 1"),
            LengthGrouping::Off | LengthGrouping::Window(_) => Ok(()),
        }
    }

    /// About how many items make a batch.
    fn typical_batch(&self, items: &[BatchItem]) -> usize {
        match self.size {
            BatchSize::Examples(n) => n,
            BatchSize::Tokens(TokenBudget { budget, max_examples }) => {
                let total: u64 = items.iter().map(|item| u64::from(item.tokens)).sum();
                let mean = (total / items.len().max(1) as u64).max(1);
                usize::try_from(budget / mean).unwrap_or(usize::MAX).clamp(1, max_examples)
            }
        }
    }
}

/// Plans an epoch. The same arguments give the same plan, on every machine.
pub fn plan_epoch(items: &[BatchItem], config: &BatchConfig, seed: u64, epoch: u64) -> Result<EpochPlan> {
    config.validate()?;
    let count = u32::try_from(items.len()).map_err(|_| Error::TooMany { what: "examples" })?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // One stream per epoch: epochs are independent, and none has to be played through to reach a later one.
    rng.set_stream(epoch);

    let mut order: Vec<u32> = (0..count).collect();
    order.shuffle(&mut rng);
    if let LengthGrouping::Window(batches) = config.length_grouping {
        let window = config.typical_batch(items).saturating_mul(batches).max(1);
        for chunk in order.chunks_mut(window) {
            // Stable, so equal lengths keep their random order.
            chunk.sort_by_key(|&i| std::cmp::Reverse(items[i as usize].tokens));
        }
    }

    let (mut open, mut plan) = first_fit(items, &order, config);
    if config.no_duplicates {
        let fewest = |whole| fill::fewest(items, &order, config.size, whole);
        // A few incomplete batches among many cost less than they would change.
        if open.batches.len() > fewest(false) + fewest(false) / 50 {
            let count = fewest(config.drop_last);
            (open, plan) = fill::fill(items, &order, config.size, count, !config.drop_last);
        }
    }
    plan.oversized = open.oversized;
    for (batch, full) in open.finish() {
        if config.drop_last && !full {
            plan.dropped += batch.len();
        } else {
            plan.singletons += usize::from(batch.len() == 1);
            plan.batches.push(batch);
        }
    }
    plan.batches.shuffle(&mut rng);
    Ok(plan)
}

/// Each item in the earliest open batch after the last one that holds any of its keys.
fn first_fit(items: &[BatchItem], order: &[u32], config: &BatchConfig) -> (OpenBatches, EpochPlan) {
    let mut open = OpenBatches::new(config.size);
    let mut after: HashMap<u64, u32, BuildHasherDefault<Mix>> = HashMap::default();
    let mut plan = EpochPlan::default();
    for &index in order {
        let item = &items[index as usize];
        let earliest = match config.no_duplicates {
            true => item.keys.iter().filter_map(|key| after.get(key)).copied().max().unwrap_or(0),
            false => 0,
        };
        let frontier = open.next_open(0);
        let batch = open.place(index, item.tokens, earliest);
        plan.deferred += usize::from(batch > frontier && earliest > frontier);
        if config.no_duplicates {
            for &key in &item.keys {
                after.insert(key, batch + 1);
            }
        }
    }
    (open, plan)
}

/// Batches being filled.
struct OpenBatches {
    size: BatchSize,
    batches: Vec<Vec<u32>>,
    tokens: Vec<u64>,
    full: Vec<bool>,
    /// A batch that is not full points to itself, a full one towards the next that is not.
    next: Vec<u32>,
    oversized: usize,
}

impl OpenBatches {
    fn new(size: BatchSize) -> Self {
        let (batches, tokens, full, next) = Default::default();
        Self { size, batches, tokens, full, next, oversized: 0 }
    }

    /// The first batch from `from` on that takes items; it may be one past the last.
    fn next_open(&mut self, from: u32) -> u32 {
        let mut root = from;
        while let Some(&next) = self.next.get(root as usize).filter(|&&next| next != root) {
            root = next;
        }
        let mut at = from;
        while let Some(next) = self.next.get_mut(at as usize).filter(|next| **next != root && at != root) {
            at = std::mem::replace(next, root);
        }
        root
    }

    /// Puts an item into the first batch from `earliest` on that has room for it.
    fn place(&mut self, index: u32, item_tokens: u32, earliest: u32) -> u32 {
        let item_tokens = u64::from(item_tokens);
        let (limit, max_examples) = match self.size {
            BatchSize::Examples(n) => (u64::MAX, n),
            BatchSize::Tokens(TokenBudget { budget, max_examples }) => (budget, max_examples),
        };
        self.oversized += usize::from(item_tokens > limit);
        let mut batch = self.next_open(earliest);
        loop {
            let b = batch as usize;
            while self.batches.len() <= b {
                self.next.push(self.batches.len() as u32);
                self.batches.push(Vec::new());
                self.tokens.push(0);
                self.full.push(false);
            }
            if self.batches[b].is_empty() || self.tokens[b] + item_tokens <= limit {
                self.batches[b].push(index);
                self.tokens[b] += item_tokens;
                if self.batches[b].len() >= max_examples || self.tokens[b] >= limit {
                    self.close(batch);
                }
                return batch;
            }
            // Next-fit: what an item does not fit into is closed. With lengths grouped little is lost by it.
            self.close(batch);
            batch = self.next_open(batch);
        }
    }

    fn close(&mut self, batch: u32) {
        self.full[batch as usize] = true;
        self.next[batch as usize] = batch + 1;
    }

    fn finish(self) -> impl Iterator<Item = (Vec<u32>, bool)> {
        self.batches.into_iter().zip(self.full).filter(|(batch, _)| !batch.is_empty())
    }
}

/// Keys are small numbers or hashes already; one multiplication spreads them well enough.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, key: u64) {
        let mixed = (self.0 ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn config() -> impl Strategy<Value = BatchConfig> {
        let size = prop_oneof![
            (1usize..20).prop_map(BatchSize::Examples),
            (1u64..300, 1usize..20)
                .prop_map(|(budget, max_examples)| BatchSize::Tokens(TokenBudget { budget, max_examples })),
        ];
        let grouping = prop_oneof![Just(LengthGrouping::Off), (1usize..5).prop_map(LengthGrouping::Window)];
        (size, grouping, any::<bool>(), any::<bool>()).prop_map(
            |(size, length_grouping, no_duplicates, drop_last)| BatchConfig {
                size,
                length_grouping,
                no_duplicates,
                drop_last,
            },
        )
    }

    fn items() -> impl Strategy<Value = Vec<BatchItem>> {
        let item = (0u32..100, proptest::collection::vec(0u64..40, 0..4))
            .prop_map(|(tokens, keys)| BatchItem { tokens, keys });
        proptest::collection::vec(item, 0..200)
    }

    proptest! {
        #[test]
        fn a_plan_keeps_its_promises(items in items(), config in config(), seed: u64, epoch in 0u64..4) {
            let plan = plan_epoch(&items, &config, seed, epoch).unwrap();
            let (mut seen, mut sharing) = (HashSet::new(), 0);
            for batch in &plan.batches {
                prop_assert!(!batch.is_empty());
                let tokens: u64 = batch.iter().map(|&i| u64::from(items[i as usize].tokens)).sum();
                match config.size {
                    BatchSize::Examples(n) => prop_assert!(batch.len() <= n),
                    BatchSize::Tokens(t) => {
                        prop_assert!(batch.len() <= t.max_examples);
                        prop_assert!(tokens <= t.budget || batch.len() == 1);
                    }
                }
                let mut keys = HashSet::new();
                for &i in batch {
                    prop_assert!(seen.insert(i), "item {} twice", i);
                    // An item may name a key twice itself.
                    let own: HashSet<u64> = items[i as usize].keys.iter().copied().collect();
                    sharing += usize::from(own.iter().any(|key| keys.contains(key)));
                    keys.extend(own);
                }
            }
            prop_assert!(sharing <= plan.sharing || !config.no_duplicates, "{} share keys", sharing);
            prop_assert!(config.drop_last || sharing == plan.sharing || !config.no_duplicates);
            if let (BatchSize::Examples(n), true, false) = (config.size, config.no_duplicates, config.drop_last) {
                let fewest = items.len().div_ceil(n);
                prop_assert!(plan.batches.len() <= fewest + fewest / 50, "{} batches", plan.batches.len());
            }
            prop_assert_eq!(seen.len() + plan.dropped, items.len());
            prop_assert!(config.drop_last || plan.dropped == 0);
            prop_assert_eq!(&plan, &plan_epoch(&items, &config, seed, epoch).unwrap());
        }
    }

    fn plain(n: usize) -> Vec<BatchItem> {
        (0..n as u64).map(|i| BatchItem { tokens: (i % 97) as u32 + 1, keys: vec![i] }).collect()
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let (items, config) = (plain(100), BatchConfig::default());
        let first = plan_epoch(&items, &config, 1, 0).unwrap();
        assert_ne!(first, plan_epoch(&items, &config, 1, 1).unwrap());
        assert_ne!(first, plan_epoch(&items, &config, 2, 0).unwrap());
    }

    #[test]
    fn grouping_brings_equal_lengths_together() {
        let items = plain(9700);
        let spread = |grouping| {
            let config = BatchConfig { length_grouping: grouping, ..BatchConfig::default() };
            let plan = plan_epoch(&items, &config, 3, 0).unwrap();
            let range = |batch: &Vec<u32>| {
                let tokens = batch.iter().map(|&i| items[i as usize].tokens);
                tokens.clone().max().unwrap() - tokens.min().unwrap()
            };
            plan.batches.iter().map(range).sum::<u32>() as usize / plan.batches.len()
        };
        assert!(spread(LengthGrouping::Window(50)) * 10 < spread(LengthGrouping::Off));
    }

    #[test]
    fn a_giant_is_alone_and_counted() {
        let mut items = plain(10);
        items[3].tokens = 1000;
        let size = BatchSize::Tokens(TokenBudget { budget: 100, max_examples: 8 });
        let plan = plan_epoch(&items, &BatchConfig { size, ..BatchConfig::default() }, 0, 0).unwrap();
        assert_eq!(plan.oversized, 1);
        assert!(plan.batches.contains(&vec![3]));
    }

    #[test]
    fn config_names_its_keys() {
        let config: BatchConfig = serde_json::from_str(r#"{"size": {"tokens": {"budget": 4096, "max_examples": 64}}, "length_grouping": {"window": 20}}"#).unwrap();
        assert_eq!(config.length_grouping, LengthGrouping::Window(20));
        assert!(config.no_duplicates);
        assert!(serde_json::from_str::<BatchConfig>(r#"{"sise": 1}"#).is_err());
        assert!(
            serde_json::from_str::<BatchConfig>(r#"{"length_grouping": "off", "size": {"examples": 8}}"#)
                .is_ok()
        );
        let zero = BatchConfig { size: BatchSize::Examples(0), ..BatchConfig::default() };
        assert_eq!(
            plan_epoch(&[], &zero, 0, 0).unwrap_err().to_string(),
            "size.examples: must be at least 1"
        );
    }
}
