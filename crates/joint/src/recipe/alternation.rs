//! Alternation: which of the two models is trained in which step.

use crate::Result;
use crate::error::bad;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Alternation of the two models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Alternation {
    /// Both models are trained in every step, on the same retrieved passages.
    Simultaneous(Simultaneous),
    /// Retriever steps and generator steps in alternating blocks.
    Alternating(Alternating),
}

/// Simultaneous training; no settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Simultaneous {}

/// Alternating blocks of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Alternating {
    /// Retriever steps per block.
    pub retriever: u64,
    /// Generator steps per block.
    pub generator: u64,
    /// Model that starts.
    pub first: Trainee,
    /// Whether the dev set is evaluated after each block and the block's gain is logged.
    pub measure: bool,
}

impl Default for Alternating {
    fn default() -> Self {
        Self { retriever: 50, generator: 50, first: Trainee::Generator, measure: true }
    }
}

/// One of the two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trainee {
    /// The retriever.
    Retriever,
    /// The generator.
    Generator,
}

impl Trainee {
    pub(super) const BOTH: [Self; 2] = [Self::Retriever, Self::Generator];

    fn other(self) -> Self {
        match self {
            Self::Retriever => Self::Generator,
            Self::Generator => Self::Retriever,
        }
    }
}

impl std::fmt::Display for Trainee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Retriever => "retriever",
            Self::Generator => "generator",
        })
    }
}

/// The models that a step trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trained {
    pub retriever: bool,
    pub generator: bool,
}

impl Default for Alternation {
    fn default() -> Self {
        Self::Simultaneous(Simultaneous::default())
    }
}

/// Where the turns are; part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turn {
    /// Whose turn it is, where they alternate.
    pub who: Option<Trainee>,
    /// Steps of it that are done.
    pub done: u64,
}

impl Alternation {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// Turns of no step.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Alternating(a) if a.retriever == 0 || a.generator == 0 => Err(bad(
                "alternation.alternating",
                "retriever and generator must be 1 or more; to leave one as it is set its `frozen = true`",
            )),
            _ => Ok(()),
        }
    }

    /// Whether dev is measured at the end of each turn.
    pub(super) fn measures(&self) -> bool {
        matches!(self, Self::Alternating(a) if a.measure)
    }

    /// Before the first step. `learns`: whether a model learns from the first step on.
    pub(super) fn begin(&self, learns: impl Fn(Trainee) -> bool) -> Turn {
        let who = match self {
            Self::Simultaneous(_) => None,
            Self::Alternating(a) => Some(if learns(a.first) { a.first } else { a.first.other() }),
        };
        Turn { who, done: 0 }
    }

    fn steps(&self, who: Trainee) -> u64 {
        match (self, who) {
            (Self::Simultaneous(_), _) => u64::MAX,
            (Self::Alternating(a), Trainee::Retriever) => a.retriever,
            (Self::Alternating(a), Trainee::Generator) => a.generator,
        }
    }

    /// Whether a model that may learn does so in this turn.
    pub(super) fn includes(turn: Turn, who: Trainee) -> bool {
        turn.who.is_none_or(|w| w == who)
    }

    /// The turn of the step after this one, and whose turn has ended with it. `learns`: whether a model takes turns at
    /// all; one that does not is passed over.
    pub(super) fn next(&self, turn: Turn, learns: impl Fn(Trainee) -> bool) -> (Turn, Option<Trainee>) {
        let Some(who) = turn.who else { return (turn, None) };
        let other = who.other();
        let done = turn.done + 1;
        if done < self.steps(who) {
            return (Turn { who: Some(who), done }, None);
        }
        let next = if learns(other) { other } else { who };
        (Turn { who: Some(next), done: 0 }, Some(who))
    }

    /// The steps that each model is planned to take of `total`, each from its own start on: (retriever, generator).
    pub(super) fn planned(&self, total: u64, starts: impl Fn(Trainee, u64) -> bool) -> (u64, u64) {
        let (mut turn, mut counts) = (self.begin(|who| starts(who, 0)), (0, 0));
        for step in 0..total {
            let takes = |who| Self::includes(turn, who) && starts(who, step);
            counts.0 += u64::from(takes(Trainee::Retriever));
            counts.1 += u64::from(takes(Trainee::Generator));
            turn = self.next(turn, |who| starts(who, step + 1)).0;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(alternation: &Alternation, steps: usize, learns: impl Fn(Trainee) -> bool) -> String {
        let mut turn = alternation.begin(&learns);
        let mut out = String::new();
        for _ in 0..steps {
            out.push(match turn.who {
                None => 'b',
                Some(Trainee::Retriever) => 'r',
                Some(Trainee::Generator) => 'g',
            });
            turn = alternation.next(turn, &learns).0;
        }
        out
    }

    #[test]
    fn rounds_alternate_and_pass_over_who_rests() {
        let blocks =
            Alternation::Alternating(Alternating { retriever: 2, generator: 3, ..Alternating::default() });
        assert_eq!(order(&blocks, 12, |_| true), "gggrrgggrrgg");
        assert_eq!(order(&blocks, 7, |w| w == Trainee::Generator), "ggggggg");
        assert_eq!(order(&blocks, 3, |w| w == Trainee::Retriever), "rrr");
        assert_eq!(order(&Alternation::default(), 4, |_| true), "bbbb");
        assert_eq!(blocks.planned(12, |_, _| true), (4, 8));
        assert_eq!(blocks.planned(12, |w, s| w == Trainee::Generator || s >= 5), (3, 9));
        assert_eq!(Alternation::default().planned(10, |w, s| w == Trainee::Generator || s >= 4), (6, 10));
        assert_eq!(
            blocks.next(Turn { who: Some(Trainee::Generator), done: 2 }, |_| true).1,
            Some(Trainee::Generator)
        );
        let none = Alternation::Alternating(Alternating { retriever: 0, ..Alternating::default() });
        assert!(none.check().is_err());
    }
}
