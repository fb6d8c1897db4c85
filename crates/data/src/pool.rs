//! The pooled form of a training set: each distinct query and passage once, examples as numbers.
//!
//! Two passages with the same text are one pool entry, whatever their ids, and so are two queries. Only this makes it
//! possible to say that a passage is a known positive of a query, or that two examples of a batch share a passage.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::batch::BatchItem;
use crate::record::{is_own_copy, same_text, text_key_seeded};
use crate::{Error, Passage, Query, Result, RetrievalExample};

/// One training example, as indices into the pools of its [`TrainingSet`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrainingItem {
    /// The query.
    pub query: u32,
    /// Relevant passages; at least one, no passage twice.
    pub positives: Vec<u32>,
    /// Irrelevant passages; none of them a known positive of the query, no passage twice.
    pub negatives: Vec<u32>,
    /// Teacher scores, first the positives', then the negatives'.
    pub scores: Option<Vec<f32>>,
    /// Short answers.
    pub answers: Vec<String>,
}

/// What pooling met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStats {
    /// Examples that went in.
    pub examples: u64,
    /// Distinct queries.
    pub queries: u64,
    /// Distinct passages.
    pub passages: u64,
    /// Examples whose query text had been seen.
    pub repeated_queries: u64,
    /// Passage ids whose text had been seen under another id.
    pub repeated_passages: u64,
    /// Negatives dropped because they are known positives of their query.
    pub negatives_known_positive: u64,
    /// Negatives dropped because they are their query's own copy ([`crate::is_own_copy`]).
    pub negatives_own_copy: u64,
    /// Passages named twice in one example.
    pub repeated_in_example: u64,
}

/// A training set in pooled form.
#[derive(Debug, Clone, Default)]
pub struct TrainingSet {
    queries: Vec<Query>,
    passages: Vec<Passage>,
    items: Vec<TrainingItem>,
    positives_of: Vec<Vec<u32>>,
    own_copies_of: Vec<Vec<u32>>,
    passage_ids: HashMap<String, u32>,
    stats: PoolStats,
}

impl TrainingSet {
    /// Pools a stream of examples.
    pub fn from_examples(examples: impl IntoIterator<Item = Result<RetrievalExample>>) -> Result<Self> {
        let mut builder = TrainingSetBuilder::default();
        for example in examples {
            builder.push(example?)?;
        }
        builder.finish()
    }

    /// The distinct queries; an item's `query` is an index into them.
    pub fn queries(&self) -> &[Query] {
        &self.queries
    }

    /// The distinct passages; `positives` and `negatives` are indices into them.
    pub fn passages(&self) -> &[Passage] {
        &self.passages
    }

    /// The examples.
    pub fn items(&self) -> &[TrainingItem] {
        &self.items
    }

    /// An item with its texts.
    pub fn example(&self, item: usize) -> RetrievalExample {
        let TrainingItem { query, positives, negatives, scores, answers } = &self.items[item];
        let texts = |list: &[u32]| list.iter().map(|&p| self.passages[p as usize].clone()).collect();
        RetrievalExample {
            query: self.queries[*query as usize].clone(),
            positives: texts(positives),
            negatives: texts(negatives),
            scores: scores.clone(),
            answers: answers.clone(),
        }
    }

    /// All passages known to be relevant to a query, over all examples with its text. Sorted.
    pub fn positives_of_query(&self, query: u32) -> &[u32] {
        self.positives_of.get(query as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether a passage is known to be relevant to a query.
    pub fn is_positive(&self, query: u32, passage: u32) -> bool {
        self.positives_of_query(query).binary_search(&passage).is_ok()
    }

    /// Passages that are a query's own copy ([`crate::is_own_copy`]) and no known positive of it. Sorted.
    pub fn own_copies_of_query(&self, query: u32) -> &[u32] {
        self.own_copies_of.get(query as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether a passage may be a negative of a query: it is neither known to be relevant to it nor its own copy.
    pub fn may_be_negative(&self, query: u32, passage: u32) -> bool {
        !self.is_positive(query, passage) && self.own_copies_of_query(query).binary_search(&passage).is_err()
    }

    /// The pool entry of a passage id. Ids of passages with equal text lead to the same entry.
    pub fn passage_by_id(&self, id: &str) -> Option<u32> {
        self.passage_ids.get(id).copied()
    }

    /// What pooling met.
    pub fn stats(&self) -> &PoolStats {
        &self.stats
    }

    /// Replaces the negatives of every item, as after mining; `scores` are dropped, since they belong to the old ones.
    /// Known positives, own copies and repetitions are left out; how many is returned.
    pub fn set_negatives(&mut self, negatives: Vec<Vec<u32>>) -> Result<u64> {
        let invalid = |reason: String| Error::Config { key: "negatives".into(), reason };
        if negatives.len() != self.items.len() {
            return Err(invalid(format!("{} lists for {} items", negatives.len(), self.items.len())));
        }
        if let Some(id) = negatives.iter().flatten().find(|&&id| id as usize >= self.passages.len()) {
            return Err(invalid(format!("passage {id} is outside the pool of {}", self.passages.len())));
        }
        let mut dropped = 0;
        for (item, list) in self.items.iter_mut().zip(negatives) {
            let [known, own] = [&self.positives_of, &self.own_copies_of].map(|of| &of[item.query as usize]);
            item.scores = None;
            item.negatives.clear();
            for id in list {
                let barred = [known, own].into_iter().any(|of| of.binary_search(&id).is_ok());
                if barred || item.negatives.contains(&id) {
                    dropped += 1;
                } else {
                    item.negatives.push(id);
                }
            }
        }
        Ok(dropped)
    }

    /// Gives every item teacher scores, first of its positives, then of its negatives.
    pub fn set_scores(&mut self, scores: Vec<Vec<f32>>) -> Result<()> {
        let wanted = |i: &TrainingItem| i.positives.len() + i.negatives.len();
        let fits = scores.len() == self.items.len()
            && self.items.iter().zip(&scores).all(|(item, s)| s.len() == wanted(item));
        if !fits {
            let reason = "not one score for each passage of each item".to_owned();
            return Err(Error::Config { key: "scores".into(), reason });
        }
        for (item, scores) in self.items.iter_mut().zip(scores) {
            item.scores = Some(scores);
        }
        Ok(())
    }

    /// What the batcher needs to know of an item: its length, and everything that must not occur twice in a batch: the
    /// query, all its known positives, its own copies. Negatives may meet: a passage that two queries bring is a negative
    /// of both.
    pub fn batch_item(&self, item: usize, tokens: u32) -> BatchItem {
        // Queries and passages are numbered apart; one bit keeps the numbers apart too.
        const QUERY: u64 = 1 << 32;
        let query = self.items[item].query;
        let passages = self.positives_of_query(query).iter().chain(self.own_copies_of_query(query));
        let keys =
            std::iter::once(QUERY | u64::from(query)).chain(passages.map(|&id| u64::from(id))).collect();
        BatchItem { tokens, keys }
    }

    /// How many queries have several positives in one example, of which `first` would use one.
    pub fn queries_with_several_positives(&self) -> usize {
        let several = self.items.iter().filter(|i| i.positives.len() > 1).map(|i| i.query);
        several.collect::<std::collections::HashSet<_>>().len()
    }

    /// What pooling left out of the examples' negatives, in words; nothing where it left nothing out.
    pub fn left_out(&self) -> Option<String> {
        let PoolStats { negatives_known_positive, negatives_own_copy, .. } = self.stats;
        (negatives_known_positive + negatives_own_copy > 0).then(|| {
            format!(
                "negatives left out: {negatives_known_positive} that are known positives of their query, \
                 {negatives_own_copy} that are the query's own text or id"
            )
        })
    }
}

/// Builds a [`TrainingSet`] an example at a time.
#[derive(Debug, Default)]
pub struct TrainingSetBuilder {
    set: TrainingSet,
    query_keys: HashMap<u64, u32>,
    passage_keys: HashMap<u64, u32>,
}

impl TrainingSetBuilder {
    /// Adds an example.
    pub fn push(&mut self, example: RetrievalExample) -> Result<()> {
        let RetrievalExample { query, positives, negatives, scores, answers } = example;
        self.set.stats.examples += 1;
        let query = self.add_query(query)?;
        let (mut pos_scores, mut neg_scores) = (Vec::new(), Vec::new());
        let mut scores_left = scores.as_deref().unwrap_or_default().iter().copied();
        let mut pool = |builder: &mut Self, list: Vec<Passage>, kept: &mut Vec<f32>| -> Result<Vec<u32>> {
            let mut ids = Vec::with_capacity(list.len());
            for passage in list {
                let score = scores_left.next();
                let id = builder.add_passage(passage)?;
                if ids.contains(&id) {
                    builder.set.stats.repeated_in_example += 1;
                } else {
                    ids.push(id);
                    kept.extend(score);
                }
            }
            Ok(ids)
        };
        let positives = pool(self, positives, &mut pos_scores)?;
        let negatives = pool(self, negatives, &mut neg_scores)?;
        let known = &mut self.set.positives_of[query as usize];
        known.extend_from_slice(&positives);
        let scores = scores.map(|_| [pos_scores, neg_scores].concat());
        self.set.items.push(TrainingItem { query, positives, negatives, scores, answers });
        Ok(())
    }

    /// Adds a passage that belongs to no example; returns its pool entry.
    pub fn add_passage(&mut self, passage: Passage) -> Result<u32> {
        let text = passage.full_text();
        let set = &mut self.set;
        let (id, new) = place(&mut self.passage_keys, &text, set.passages.len(), "passages", |id| {
            same_text(&set.passages[id].full_text(), &text)
        })?;
        if !self.set.passage_ids.contains_key(&passage.id) {
            self.set.passage_ids.insert(passage.id.clone(), id);
            self.set.stats.repeated_passages += u64::from(!new);
        }
        if new {
            self.set.passages.push(passage);
        }
        Ok(id)
    }

    fn add_query(&mut self, query: Query) -> Result<u32> {
        let set = &mut self.set;
        let (id, new) = place(&mut self.query_keys, &query.text, set.queries.len(), "queries", |id| {
            same_text(&set.queries[id].text, &query.text)
        })?;
        if new {
            self.set.queries.push(query);
            self.set.positives_of.push(Vec::new());
        } else {
            self.set.stats.repeated_queries += 1;
        }
        Ok(id)
    }

    /// Ends the building: negatives that another example says are positives, and those that are their query's own copy,
    /// are dropped.
    pub fn finish(self) -> Result<TrainingSet> {
        let mut set = self.set;
        for known in &mut set.positives_of {
            known.sort_unstable();
            known.dedup();
        }
        set.own_copies_of = own_copies(&set);
        for item in &mut set.items {
            let of = |list: &[Vec<u32>], id: &u32| list[item.query as usize].binary_search(id).is_ok();
            let known = item.negatives.iter().filter(|id| of(&set.positives_of, id)).count();
            let own = item.negatives.iter().filter(|id| of(&set.own_copies_of, id)).count();
            if known + own == 0 {
                continue;
            }
            let barred = |id: &u32| of(&set.positives_of, id) || of(&set.own_copies_of, id);
            let keep: Vec<bool> = item.negatives.iter().map(|id| !barred(id)).collect();
            set.stats.negatives_known_positive += known as u64;
            set.stats.negatives_own_copy += own as u64;
            if let Some(scores) = &mut item.scores {
                let positives = item.positives.len();
                let mut at = 0;
                scores.retain(|_| {
                    at += 1;
                    at <= positives || keep[at - 1 - positives]
                });
            }
            let mut at = 0;
            item.negatives.retain(|_| {
                at += 1;
                keep[at - 1]
            });
        }
        set.stats.queries = set.queries.len() as u64;
        set.stats.passages = set.passages.len() as u64;
        Ok(set)
    }
}

/// Per query the passages that are its own copy and no known positive.
fn own_copies(set: &TrainingSet) -> Vec<Vec<u32>> {
    let mut out = vec![Vec::new(); set.queries.len()];
    let mut by_words: HashMap<u64, Vec<u32>> = HashMap::new();
    for (q, query) in set.queries.iter().enumerate() {
        by_words.entry(words_key(&query.text)).or_default().push(q as u32);
        if let Some(&passage) = set.passage_ids.get(&query.id) {
            out[q].push(passage);
        }
    }
    for (id, passage) in set.passages.iter().enumerate() {
        let whole = passage.title.is_some().then(|| words_key(&passage.full_text()));
        for key in std::iter::once(words_key(&passage.text)).chain(whole) {
            let queries = by_words.get(&key).into_iter().flatten();
            // Keys are hashes.
            for &q in queries.filter(|&&q| is_own_copy(&set.queries[q as usize], passage)) {
                out[q as usize].push(id as u32);
            }
        }
    }
    for (own, known) in out.iter_mut().zip(&set.positives_of) {
        own.retain(|id| known.binary_search(id).is_err());
        own.sort_unstable();
        own.dedup();
    }
    out
}

/// The key of a text's words, whatever their case.
fn words_key(text: &str) -> u64 {
    text_key_seeded(&text.to_lowercase(), 0)
}

/// Finds the entry of a text, or the number for a new one. A hash that two texts share sends the second to its hash
/// under another seed.
fn place(
    keys: &mut HashMap<u64, u32>,
    text: &str,
    len: usize,
    what: &'static str,
    same: impl Fn(usize) -> bool,
) -> Result<(u32, bool)> {
    for seed in 0.. {
        match keys.entry(text_key_seeded(text, seed)) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let id = u32::try_from(len).map_err(|_| Error::TooMany { what })?;
                vacant.insert(id);
                return Ok((id, true));
            }
            std::collections::hash_map::Entry::Occupied(entry) if same(*entry.get() as usize) => {
                return Ok((*entry.get(), false));
            }
            std::collections::hash_map::Entry::Occupied(_) => {}
        }
    }
    unreachable!("2^64 seeds cannot all collide")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(query: &str, positives: &[&str], negatives: &[&str]) -> RetrievalExample {
        let passages = |texts: &[&str]| texts.iter().map(|t| Passage::from_text(None, *t)).collect();
        RetrievalExample {
            query: Query::from_text(query),
            positives: passages(positives),
            negatives: passages(negatives),
            scores: Some((0..positives.len() + negatives.len()).map(|i| i as f32).collect()),
            answers: Vec::new(),
        }
    }

    fn set() -> TrainingSet {
        TrainingSet::from_examples([
            Ok(example("q1", &["a"], &["b", "c", "b"])),
            Ok(example("q1 ", &["c"], &["a  ", "d"])),
            Ok(example("q2", &["d", "d"], &["a"])),
        ])
        .unwrap()
    }

    #[test]
    fn equal_texts_are_one_entry() {
        let set = set();
        assert_eq!((set.queries().len(), set.passages().len()), (2, 4));
        let stats = set.stats();
        assert_eq!((stats.repeated_queries, stats.repeated_in_example), (1, 2));
        assert_eq!(stats.negatives_known_positive, 2);
        assert_eq!(set.positives_of_query(0), [0, 2]);
        assert!(set.is_positive(0, 2) && !set.is_positive(1, 2));
    }

    #[test]
    fn scores_follow_their_passages() {
        let set = set();
        // c is a positive of q1 elsewhere; of b's two places the first counts.
        assert_eq!(
            (set.items()[0].negatives.as_slice(), set.items()[0].scores.as_deref()),
            (&[1][..], Some(&[0.0, 1.0][..]))
        );
        assert_eq!(set.items()[1].scores.as_deref(), Some(&[0.0, 2.0][..]));
        assert_eq!(set.items()[2].scores.as_deref(), Some(&[0.0, 2.0][..]));
    }

    #[test]
    fn mined_negatives_replace_the_old() {
        let mut set = set();
        assert_eq!(set.set_negatives(vec![vec![0, 3, 3], vec![1], vec![]]).unwrap(), 2);
        assert_eq!(set.items()[0].negatives, [3]);
        assert_eq!(set.items()[0].scores, None);
        assert!(
            set.set_negatives(vec![vec![9], vec![], vec![]]).unwrap_err().to_string().contains("pool of 4")
        );
    }

    #[test]
    fn batch_keys_hold_all_known_positives() {
        let set = set();
        assert_eq!(set.batch_item(0, 7), BatchItem { tokens: 7, keys: vec![1 << 32, 0, 2] });
    }

    #[test]
    fn own_copies_are_no_negatives_whatever_their_case_title_and_id() {
        let passage = |id: &str, title: Option<&str>, text: &str| Passage {
            id: id.into(),
            title: title.map(str::to_owned),
            text: text.into(),
        };
        let negatives = vec![
            passage("n1", None, "what is  IT?"),
            passage("n2", Some("What is"), "it?"),
            passage("n3", Some("Forum"), "What is it?\n"),
            passage("q7", None, "told apart by its id alone"),
            passage("n5", None, "What is it? That."),
        ];
        let example = RetrievalExample {
            query: Query { id: "q7".into(), text: "What is it?".into() },
            positives: vec![passage("p", None, "A thing.")],
            scores: Some(vec![9.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
            negatives,
            answers: Vec::new(),
        };
        // Another's positive is this one's own copy; and a positive that is a copy stays one.
        let other = RetrievalExample {
            query: Query { id: "q8".into(), text: "a thing.".into() },
            positives: vec![passage("n1", None, "what is  IT?"), passage("p", None, "A thing.")],
            negatives: Vec::new(),
            scores: None,
            answers: Vec::new(),
        };
        let set = TrainingSet::from_examples([Ok(example), Ok(other)]).unwrap();
        let item = &set.items()[0];
        assert_eq!((item.negatives.as_slice(), item.scores.as_deref()), (&[5][..], Some(&[9.0, 5.0][..])));
        assert_eq!((set.stats().negatives_own_copy, set.stats().negatives_known_positive), (4, 0));
        assert_eq!(set.own_copies_of_query(0), [1, 2, 3, 4]);
        assert_eq!(set.own_copies_of_query(1), [0u32; 0]);
        assert!(!set.may_be_negative(0, 1) && !set.may_be_negative(0, 0) && set.may_be_negative(0, 5));
        // The batcher keeps the two apart: a passage of the second is the first's own copy.
        let keys = |i| set.batch_item(i, 1).keys;
        assert!(keys(0).iter().any(|k| keys(1).contains(k)));
        assert!(set.left_out().unwrap().contains("4 that are the query's own text or id"));
    }
}
