//! Writes the Maravel dataset: a corpus about an invented archipelago, and questions about it.
//!
//! No pretrained model knows these facts, so a generator without retrieval must fail on them. Everything is made
//! from `world/*.txt` and one seed; the same seed gives the same bytes. The modules follow the order of the work:
//! [`kinds`] reads what may be said, [`world`] draws who and what there is, [`prose`] writes passages, [`splits`]
//! divides them, [`questions`] asks about them, [`files`] renders the result ([`tasks`] more, on demand), [`check`] tests it and [`bm25`]
//! measures how far word overlap gets.

pub mod bm25;
pub mod check;
pub mod files;
pub mod kinds;
pub mod names;
pub mod prose;
pub mod questions;
pub mod splits;
pub mod tasks;
pub mod world;

use std::collections::HashMap;

use prose::Passage;
use questions::Question;
use splits::Split;
use world::World;

/// The seed of the committed files.
pub const SEED: u64 = 20_251;

/// The whole dataset in memory.
#[derive(Debug)]
pub struct Dataset {
    /// The world behind it.
    pub world: World,
    /// The corpus.
    pub passages: Vec<Passage>,
    /// The split of each passage.
    pub splits: Vec<Split>,
    /// The questions.
    pub questions: Vec<Question>,
}

/// Builds the dataset of a seed. Passages that would accidentally state another entity's fact are drawn again
/// until none is left.
pub fn build(seed: u64) -> Dataset {
    let world = World::new(seed);
    let mut redraws = HashMap::new();
    let passages = loop {
        let passages = prose::passages(&world, &redraws);
        let bad = check::accidental(&world, &passages);
        if bad.is_empty() {
            break passages;
        }
        for (_, other) in bad {
            let passage = &passages[other];
            let versions = redraws.entry((passage.entity, passage.aspect)).or_insert(0);
            *versions += 1;
            assert!(*versions < 60, "no version of {} / {} is free of leaks", passage.id, passage.title);
        }
    };
    let splits = splits::assign(&world, &passages);
    let questions = questions::questions(&world, &passages, &splits);
    Dataset { world, passages, splits, questions }
}
