//! Which passages stand in a training prompt: golden ones, distractors from what a retriever found, in an order that
//! gives nothing away. RAFT (Zhang et al., 2024, arXiv 2403.10131) with two changes: distractors are what a retriever
//! confuses with the golden passage rather than random ones, and a prompt without its golden passage may teach to
//! abstain rather than to answer from memory.
//!
//! The choice is a pure function of (config, sources, seed, epoch, example), so a resumed run repeats it and data need
//! not be prepared beforehand.
//!
//! `golden = "answering"`: candidates that contain the answer count as gold, so that a generator learns to read where
//! nothing is judged. Trained on whatever is retrieved instead, a small one learns to ignore its passages.

use crate::error::{Result, bad};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::hash::Hash;

/// Selection of passages for training prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ContextConfig {
    /// Maximum number of passages in a prompt; 0: closed-book.
    pub count: usize,
    /// Source of gold passages.
    pub golden: Golden,
    /// Maximum number of gold passages in a prompt; 0: all.
    pub max_golden: usize,
    /// Share of prompts without their gold passages (RAFT's 1 - P), in [0, 1].
    pub golden_drop_rate: f64,
    /// Target answer of prompts without a gold passage.
    pub without_golden: WithoutGolden,
    /// Probability that a place without a gold passage is filled with a distractor, in [0, 1]; otherwise it stays
    /// empty.
    pub distractor_rate: f64,
    /// Pool size: distractors are sampled from this many top-ranked candidates; 0: the top-ranked candidates
    /// themselves.
    pub distractor_pool: usize,
    /// Order of the passages in the prompt.
    pub order: Order,
    /// Answer substitution: share of prompts in which the answer is replaced, in passages and target, by another
    /// record's answer of the same form, in [0, 1] (see [`crate::substitute`]).
    pub substitute_rate: f64,
    /// Curriculum of growing passages: in each of this many first epochs, counted from 0, a gold passage is cut to the
    /// sentence that holds the answer and as many random other sentences as the epoch's number; later passages are
    /// whole. 0: all are whole. Needs `run.max_steps` (see [`crate::excerpt`]).
    pub excerpt_epochs: u64,
}

impl Default for ContextConfig {
    fn default() -> Self {
        Self {
            count: 5,
            golden: Golden::Inserted,
            max_golden: 0,
            golden_drop_rate: 0.0,
            without_golden: WithoutGolden::Answer,
            distractor_rate: 1.0,
            distractor_pool: 0,
            order: Order::Shuffled,
            substitute_rate: 0.0,
            excerpt_epochs: 0,
        }
    }
}

/// Source of gold passages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Golden {
    /// Gold passages of the data, inserted even if the retriever missed them.
    #[default]
    Inserted,
    /// Gold passages of the data, only if they are among the top `count` candidates.
    Retrieved,
    /// Distant supervision: candidates that contain the answer string count as gold.
    Answering,
}

/// Target answer of prompts without a gold passage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WithoutGolden {
    /// The true answer.
    #[default]
    Answer,
    /// The abstention text. Candidates that contain the answer are then left out.
    Abstain,
}

/// Order of the passages in the prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Random order.
    #[default]
    Shuffled,
    /// Retriever's order; a gold passage that was not retrieved is inserted at a random position.
    Ranked,
}

/// What is known of a question. `T` names a passage.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a, T> {
    /// Passages known to hold the answer, best first; may be empty.
    pub golden: &'a [T],
    /// What a retriever or a miner found, best first; golden passages may be among them.
    pub candidates: &'a [T],
    /// For each candidate, whether it holds the answer's text (and may thus be an unlabelled golden passage); empty if
    /// that is not known.
    pub answering: &'a [bool],
}

/// What a choice is a function of, besides config and sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// The run's seed.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// The example's id.
    pub example: &'a str,
}

/// A passage of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown<T> {
    /// The passage.
    pub passage: T,
    /// Whether it is a golden one.
    pub golden: bool,
    /// Its relevance, 0 the greatest, for what must be dropped from a prompt that is too long. Golden passages that were
    /// inserted go before all others.
    pub rank: usize,
}

/// The contexts of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen<T> {
    /// In the order of the prompt.
    pub passages: Vec<Shown<T>>,
    /// Whether the answer to learn is to abstain.
    pub abstain: bool,
}

impl ContextConfig {
    /// Retrieved contexts as they come: what evaluation and use show.
    pub fn retrieved(count: usize) -> Self {
        Self { count, golden: Golden::Retrieved, order: Order::Ranked, ..Self::default() }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`crate::Error::Config`] for a rate outside of [0, 1], or closed-book prompts that would all abstain.
    pub fn check(&self) -> Result<()> {
        let rates = [
            ("golden_drop_rate", self.golden_drop_rate),
            ("distractor_rate", self.distractor_rate),
            ("substitute_rate", self.substitute_rate),
        ];
        for (key, rate) in rates {
            if !(0.0..=1.0).contains(&rate) {
                return Err(bad(&format!("contexts.{key}"), "must be in [0, 1]"));
            }
        }
        if self.count == 0 && self.without_golden == WithoutGolden::Abstain {
            return Err(bad("contexts.without_golden", "with count = 0 every answer would be to abstain"));
        }
        Ok(())
    }

    /// The contexts of an example.
    ///
    /// A passage is shown once at most. No golden passage is ever a distractor. Without known golden passages nothing
    /// is dropped and the answer is always the true one: that they do not hold it is not known then.
    pub fn choose<T: Clone + Eq + Hash>(&self, sources: &Sources<'_, T>, key: Key<'_>) -> Chosen<T> {
        let mut rng = rng(key);
        // Drawn whether needed or not, so that one setting does not change what another draws.
        let (drop, order_seed, place_seed) = (rng.random::<f64>(), rng.random::<u64>(), rng.random::<u64>());
        let drop = drop < self.golden_drop_rate;
        let answers = |at: usize| sources.answering.get(at).copied().unwrap_or(false);
        let golden: Vec<&T> = match self.golden {
            Golden::Inserted | Golden::Retrieved => sources.golden.iter().collect(),
            Golden::Answering => {
                sources.candidates.iter().enumerate().filter(|(at, _)| answers(*at)).map(|(_, p)| p).collect()
            }
        };
        let known: HashSet<&T> = golden.iter().copied().collect();
        let rank_of = |p: &T| sources.candidates.iter().position(|c| c == p);

        let mut shown: Vec<Shown<T>> = Vec::new();
        let mut seen: HashSet<&T> = HashSet::new();
        let most = if self.max_golden == 0 { self.count } else { self.max_golden.min(self.count) };
        for passage in golden {
            let found = rank_of(passage);
            let allowed = match self.golden {
                Golden::Inserted | Golden::Answering => true,
                Golden::Retrieved => found.is_some_and(|r| r < self.count),
            };
            if !drop && allowed && shown.len() < most && seen.insert(passage) {
                let rank = if self.golden == Golden::Inserted { 0 } else { found.map_or(0, |r| r + 1) };
                shown.push(Shown { passage: passage.clone(), golden: true, rank });
            }
        }
        let abstain = shown.is_empty() && !known.is_empty() && self.without_golden == WithoutGolden::Abstain;

        // With `Retrieved` a golden passage that is dropped or beyond `max_golden` leaves its place to the next one.
        let mut pool: Vec<(usize, &T)> = sources.candidates.iter().enumerate().collect();
        pool.retain(|(at, p)| seen.insert(p) && !known.contains(p) && !(abstain && answers(*at)));
        if self.distractor_pool > 0 {
            pool.truncate(self.distractor_pool.max(self.count));
            pool.shuffle(&mut rng);
        }
        let places = self.count - shown.len();
        let filled = (0..places).filter(|_| rng.random::<f64>() < self.distractor_rate).count();
        let distractors = pool.into_iter().take(filled);
        shown.extend(distractors.map(|(rank, p)| Shown {
            passage: p.clone(),
            golden: false,
            rank: rank + 1,
        }));

        self.arrange(&mut shown, rank_of, order_seed, place_seed);
        Chosen { passages: shown, abstain }
    }

    fn arrange<T>(
        &self,
        shown: &mut Vec<Shown<T>>,
        rank_of: impl Fn(&T) -> Option<usize>,
        order_seed: u64,
        place_seed: u64,
    ) {
        match self.order {
            Order::Shuffled => shown.shuffle(&mut ChaCha8Rng::seed_from_u64(order_seed)),
            Order::Ranked => {
                let (mut found, missed): (Vec<_>, Vec<_>) =
                    shown.drain(..).map(|s| (rank_of(&s.passage), s)).partition(|(rank, _)| rank.is_some());
                found.sort_by_key(|(rank, _)| *rank);
                shown.extend(found.into_iter().map(|(_, s)| s));
                let mut rng = ChaCha8Rng::seed_from_u64(place_seed);
                for (_, s) in missed {
                    shown.insert(rng.random_range(0..=shown.len()), s);
                }
            }
        }
    }
}

fn rng(key: Key<'_>) -> ChaCha8Rng {
    let mut bytes = Vec::with_capacity(16 + key.example.len());
    bytes.extend(key.seed.to_le_bytes());
    bytes.extend(key.epoch.to_le_bytes());
    bytes.extend(key.example.as_bytes());
    ChaCha8Rng::seed_from_u64(xxhash_rust::xxh3::xxh3_64(&bytes))
}
