//! Which passages, and with them which facts and questions, belong to train, dev and test.

use rand::seq::SliceRandom;

use crate::prose::Passage;
use crate::world::World;

/// A split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// For training.
    Train,
    /// For choosing checkpoints and settings.
    Dev,
    /// For the final figures.
    Test,
}

impl Split {
    /// All splits, in the order of the files.
    pub const ALL: [Split; 3] = [Split::Train, Split::Dev, Split::Test];

    /// The name used in files.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Dev => "dev",
            Split::Test => "test",
        }
    }
}

/// The split of each passage: 70/10/20, drawn within each aspect, so that all splits know all relations.
pub fn assign(world: &World, passages: &[Passage]) -> Vec<Split> {
    let mut splits = vec![Split::Train; passages.len()];
    for (kind, spec) in world.kinds.iter().enumerate() {
        for aspect in 0..spec.aspects.len() {
            let mut members: Vec<usize> = (0..passages.len())
                .filter(|&at| {
                    passages[at].aspect == aspect && world.entities[passages[at].entity].kind == kind
                })
                .collect();
            members.shuffle(&mut world.keyed(&["split", &spec.id, &aspect.to_string()]));
            let (test, dev) = (members.len() / 5, members.len() / 10);
            for (rank, &at) in members.iter().enumerate() {
                splits[at] = match rank {
                    rank if rank < test => Split::Test,
                    rank if rank < test + dev => Split::Dev,
                    _ => Split::Train,
                };
            }
        }
    }
    splits
}
