//! Batches, prepared ahead on another thread: choosing passages, tokenising, and who belongs to whom.
//!
//! A passage that two queries of a batch bring is encoded once and is a column for both. Known positives of a query are
//! never its negatives, also when another query brings them; nor is its own text or id.

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
            set.batch_item(i, tokens)
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
        let query = set.items()[i as usize].query;
        let here = |p: &u32| columns.get(p).filter(|&&c| c != relations.positive[row]).map(|&c| (row, c));
        let relevant: Vec<_> = set.positives_of_query(query).iter().filter_map(here).collect();
        let own: Vec<_> = set.own_copies_of_query(query).iter().filter_map(here).collect();
        relations.also_relevant.extend(relevant);
        relations.own_copies.extend(own);
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

#[cfg(test)]
mod tests {
    use super::*;
    use ragduet_data::{Passage, Query, RetrievalExample};
    use ragduet_train::config::Config as _;

    fn set(pairs: &[(&str, &str)]) -> TrainingSet {
        let example = |&(query, answer): &(&str, &str)| {
            let (query, positives) = (Query::from_text(query), vec![Passage::from_text(None, answer)]);
            Ok(RetrievalExample {
                query,
                positives,
                negatives: Vec::new(),
                scores: None,
                answers: Vec::new(),
            })
        };
        TrainingSet::from_examples(pairs.iter().map(example)).unwrap()
    }

    fn config(batch: &str) -> RetrieverConfig {
        let text =
            format!("[data]\ntrain = \"none\"\n[model]\nbase = \"none\"\n[batch]\nsize = {{ {batch} }}\n");
        RetrieverConfig::from_toml(&text).unwrap()
    }

    #[test]
    fn own_texts_and_shared_answers_are_no_negatives() {
        let set = set(&[
            ("what is tea", "A leaf."),
            ("leaves", "What is  TEA"),
            ("what is green tea", "A leaf."),
            ("leaves", "Tea."),
        ]);
        let tokenize =
            || -> TokenizeFn { Box::new(|texts| Ok(texts.iter().map(|_| Encoding::default()).collect())) };
        let made =
            assemble(&config("examples = 8"), &set, &[tokenize(), tokenize()], &[0, 1, 2, 3], 0).unwrap();
        let r = &made.relations;
        assert_eq!((made.passages.len(), r.positive.as_slice()), (3, &[0, 1, 0, 2][..]));
        assert_eq!(r.own_copies, [(0, 1)]);
        assert_eq!(r.also_relevant, [(1, 2), (3, 1)]);
    }

    #[test]
    fn an_faq_with_one_answer_keeps_full_batches() {
        let questions: Vec<String> = (0..32).map(|i| format!("question {i}")).collect();
        let answers: Vec<String> =
            (0..32).map(|i| format!("answer {}", if i < 24 { 0 } else { i })).collect();
        let pairs: Vec<(&str, &str)> =
            questions.iter().zip(&answers).map(|(q, a)| (q.as_str(), a.as_str())).collect();
        let set = set(&pairs);
        let lengths =
            Lengths { queries: vec![3; 32], passages: vec![4; set.passages().len()], mean_passage: 4 };
        for batch in ["examples = 8", "tokens = { budget = 88, max_examples = 8 }"] {
            for epoch in 0..3 {
                let plan = plan(&config(batch), &set, &lengths, epoch).unwrap();
                assert_eq!(plan.batches.iter().map(Vec::len).collect::<Vec<_>>(), [8; 4]);
                for b in &plan.batches {
                    let shared = b.iter().filter(|&&i| set.items()[i as usize].positives == [0]).count();
                    assert_eq!(shared, 6);
                }
            }
        }
    }
}
