//! Batches, prepared ahead on another thread: choosing passages, tokenising, and who belongs to whom.
//!
//! A passage that two queries of a batch bring is encoded once and is a column for both. Known positives of a query are
//! never its negatives, also when another query brings them.

use super::config::{Positives, RetrieverConfig};
use crate::Result;
use crate::biencoder::{BiEncoder, TokenizeFn};
use crate::loss::Relations;
use crate::representation::Side;
use ragduet_data::{BatchItem, EpochPlan, TrainingSet, plan_epoch, text_key};
use ragduet_text::Encoding;
use ragduet_train::{Prefetched, prefetch};
use rand::SeedableRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// One batch, ready for the encoder.
#[derive(Debug)]
pub(super) struct Batch {
    pub queries: Vec<Encoding>,
    /// Every passage once, whoever needs it.
    pub passages: Vec<Encoding>,
    pub relations: Relations,
    /// Query ids, for errors.
    pub ids: Vec<String>,
    /// Numbers of the queries and passages in the set's pools.
    pub numbers: (Vec<u32>, Vec<u32>),
}

impl Batch {
    pub fn tokens(&self) -> usize {
        self.queries.iter().chain(&self.passages).map(Encoding::len).sum()
    }
}

/// The order of an epoch. A function of the seed and the epoch alone, so that a resumed run computes it again.
pub(super) fn plan(
    config: &RetrieverConfig,
    set: &TrainingSet,
    lengths: &Lengths,
    epoch: u64,
) -> Result<EpochPlan> {
    let items: Vec<BatchItem> = (0..set.items().len())
        .map(|i| {
            let item = &set.items()[i];
            let positive = lengths.passages[pick_positive(config, set, i, epoch) as usize];
            let negatives = config.batch.negatives_per_query as u32 * lengths.mean_passage;
            let tokens = lengths.queries[item.query as usize] + positive + negatives;
            // What must be unique: the query and all its known positives. Negatives may meet: a passage that two
            // queries bring is encoded once.
            let keys = std::iter::once(u64::from(item.query) | 1 << 63)
                .chain(set.positives_of_query(item.query).iter().map(|&p| u64::from(p)))
                .collect();
            BatchItem { tokens, keys }
        })
        .collect();
    Ok(plan_epoch(&items, &config.batch.plan(), config.run.seed, epoch)?)
}

/// Token counts, for budgets.
#[derive(Debug)]
pub(super) struct Lengths {
    queries: Vec<u32>,
    passages: Vec<u32>,
    mean_passage: u32,
}

impl Lengths {
    pub fn of(model: &BiEncoder, set: &TrainingSet) -> Result<Self> {
        let count = |side: Side, texts: Vec<String>| -> Result<Vec<u32>> {
            Ok(model.tokenize(side, &texts)?.iter().map(|e| e.len() as u32).collect())
        };
        let queries = count(Side::Query, set.queries().iter().map(|q| q.text.clone()).collect())?;
        // In blocks: the ids of a whole corpus would not fit where its texts do.
        let mut passages = Vec::with_capacity(set.passages().len());
        for block in set.passages().chunks(4096) {
            passages.extend(count(Side::Passage, block.iter().map(|p| p.full_text()).collect())?);
        }
        let total: u64 = passages.iter().map(|&n| u64::from(n)).sum();
        let mean_passage = (total / passages.len().max(1) as u64) as u32;
        Ok(Self { queries, passages, mean_passage })
    }
}

fn item_rng(config: &RetrieverConfig, item: usize, epoch: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(config.run.seed ^ text_key("draw of passages"));
    rng.set_stream(epoch << 32 | item as u64);
    rng
}

fn pick_positive(config: &RetrieverConfig, set: &TrainingSet, item: usize, epoch: u64) -> u32 {
    let positives = &set.items()[item].positives;
    let drawn = match config.batch.positives {
        Positives::First => positives.first(),
        Positives::Sample => positives.choose(&mut item_rng(config, item, epoch)),
    };
    // The pool guarantees at least one.
    drawn.copied().unwrap_or_default()
}

/// Batches of item numbers, prepared on another thread, a few ahead. `set` is locked while a batch is put together.
pub(super) fn start(
    config: &RetrieverConfig,
    set: &Arc<RwLock<TrainingSet>>,
    tokenize: [TokenizeFn; 2],
    batches: Vec<Vec<u32>>,
    epoch: u64,
) -> Prefetched<Result<Batch>> {
    let (config, set) = (config.clone(), set.clone());
    prefetch(
        4,
        batches.into_iter().map(move |items| assemble(&config, &read(&set), &tokenize, &items, epoch)),
    )
}

/// The set, to read it.
pub(super) fn read(set: &RwLock<TrainingSet>) -> RwLockReadGuard<'_, TrainingSet> {
    // Whoever panicked while changing it has ended the run.
    set.read().unwrap_or_else(PoisonError::into_inner)
}

fn assemble(
    config: &RetrieverConfig,
    set: &TrainingSet,
    tokenize: &[TokenizeFn; 2],
    items: &[u32],
    epoch: u64,
) -> Result<Batch> {
    let mut columns: HashMap<u32, usize> = HashMap::new();
    let mut order: Vec<u32> = Vec::new();
    let mut column = |passage: u32, order: &mut Vec<u32>| {
        *columns.entry(passage).or_insert_with(|| {
            order.push(passage);
            order.len() - 1
        })
    };
    let mut relations = Relations::default();
    let mut teacher = Vec::new();
    // Positives come first, in the order of the queries.
    for &i in items {
        let positive = pick_positive(config, set, i as usize, epoch);
        relations.positive.push(column(positive, &mut order));
    }
    for (row, &i) in items.iter().enumerate() {
        let item = &set.items()[i as usize];
        let mut at: Vec<usize> = (0..item.negatives.len()).collect();
        if at.len() > config.batch.negatives_per_query {
            let mut rng = item_rng(config, i as usize, epoch);
            at.shuffle(&mut rng);
            at.truncate(config.batch.negatives_per_query);
        }
        let own = at.iter().map(|&n| column(item.negatives[n], &mut order)).collect();
        relations.negatives.push(own);
        if let Some(scores) = &item.scores {
            let positive = order[relations.positive[row]];
            let first = item.positives.iter().position(|&p| p == positive).unwrap_or(0);
            let n = item.positives.len();
            teacher.push(std::iter::once(first).chain(at.iter().map(|a| n + a)).map(|k| scores[k]).collect());
        }
    }
    for (row, &i) in items.iter().enumerate() {
        for &p in set.positives_of_query(set.items()[i as usize].query) {
            if let Some(&c) = columns.get(&p).filter(|&&c| c != relations.positive[row]) {
                relations.also_relevant.push((row, c));
            }
        }
    }
    relations.teacher = (teacher.len() == items.len()).then_some(teacher);
    let query = |&i: &u32| &set.queries()[set.items()[i as usize].query as usize];
    let texts: Vec<String> = items.iter().map(|i| query(i).text.clone()).collect();
    let passages: Vec<String> = order.iter().map(|&p| set.passages()[p as usize].full_text()).collect();
    Ok(Batch {
        queries: tokenize[0](&texts)?,
        passages: tokenize[1](&passages)?,
        relations,
        ids: items.iter().map(|i| query(i).id.clone()).collect(),
        numbers: (items.iter().map(|&i| set.items()[i as usize].query).collect(), order),
    })
}
