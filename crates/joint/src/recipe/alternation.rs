//! Whose turn it is.

use crate::Result;
use crate::error::bad;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the two sides take turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    /// Both learn in every step, from the same passages.
    Simultaneous(Simultaneous),
    /// Some steps of one, then some of the other.
    Alternating(Alternating),
}

/// Both learn in every step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Simultaneous {}

/// Rounds of retriever steps, then generator steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Alternating {
    /// Steps of the retriever in a round.
    pub retriever: u64,
    /// Steps of the generator in a round.
    pub generator: u64,
    /// Who begins.
    pub first: Who,
    /// Whether dev is answered at the end of each turn, and the gain of the turn reported.
    pub measure: bool,
}

impl Default for Alternating {
    fn default() -> Self {
        Self { retriever: 50, generator: 50, first: Who::Generator, measure: true }
    }
}

/// A side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// What finds.
    Retriever,
    /// What answers.
    Generator,
}

impl Who {
    fn other(self) -> Self {
        match self {
            Self::Retriever => Self::Generator,
            Self::Generator => Self::Retriever,
        }
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Retriever => "retriever",
            Self::Generator => "generator",
        })
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self::Simultaneous(Simultaneous::default())
    }
}

/// Where the turns are; part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Turn {
    /// Whose turn it is, where they alternate.
    pub who: Option<Who>,
    /// Steps of it that are done.
    pub done: u64,
}

impl Turns {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// Turns of no step.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Alternating(a) if a.retriever == 0 || a.generator == 0 => Err(bad(
                "turns.alternating",
                "retriever and generator must be 1 or more; to leave one as it is set its `frozen = true`",
            )),
            _ => Ok(()),
        }
    }

    /// Before the first step. `learns`: whether a side learns from the first step on.
    pub(super) fn begin(&self, learns: impl Fn(Who) -> bool) -> Turn {
        let who = match self {
            Self::Simultaneous(_) => None,
            Self::Alternating(a) => Some(if learns(a.first) { a.first } else { a.first.other() }),
        };
        Turn { who, done: 0 }
    }

    fn steps(&self, who: Who) -> u64 {
        match (self, who) {
            (Self::Simultaneous(_), _) => u64::MAX,
            (Self::Alternating(a), Who::Retriever) => a.retriever,
            (Self::Alternating(a), Who::Generator) => a.generator,
        }
    }

    /// Whether a side that may learn does so in this turn.
    pub(super) fn includes(turn: Turn, who: Who) -> bool {
        turn.who.is_none_or(|w| w == who)
    }

    /// The turn of the step after this one, and whose turn has ended with it. `learns`: whether a side takes turns at
    /// all; one that does not is passed over.
    pub(super) fn next(&self, turn: Turn, learns: impl Fn(Who) -> bool) -> (Turn, Option<Who>) {
        let Some(who) = turn.who else { return (turn, None) };
        let other = who.other();
        let done = turn.done + 1;
        if done < self.steps(who) {
            return (Turn { who: Some(who), done }, None);
        }
        let next = if learns(other) { other } else { who };
        (Turn { who: Some(next), done: 0 }, Some(who))
    }

    /// The steps that each side is planned to take of `total`, each from its own start on: (retriever, generator).
    pub(super) fn planned(&self, total: u64, starts: impl Fn(Who, u64) -> bool) -> (u64, u64) {
        let (mut turn, mut counts) = (self.begin(|who| starts(who, 0)), (0, 0));
        for step in 0..total {
            let takes = |who| Self::includes(turn, who) && starts(who, step);
            counts.0 += u64::from(takes(Who::Retriever));
            counts.1 += u64::from(takes(Who::Generator));
            turn = self.next(turn, |who| starts(who, step + 1)).0;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(turns: &Turns, steps: usize, learns: impl Fn(Who) -> bool) -> String {
        let mut turn = turns.begin(&learns);
        let mut out = String::new();
        for _ in 0..steps {
            out.push(match turn.who {
                None => 'b',
                Some(Who::Retriever) => 'r',
                Some(Who::Generator) => 'g',
            });
            turn = turns.next(turn, &learns).0;
        }
        out
    }

    #[test]
    fn rounds_alternate_and_pass_over_who_rests() {
        let turns = Turns::Alternating(Alternating { retriever: 2, generator: 3, ..Alternating::default() });
        assert_eq!(order(&turns, 12, |_| true), "gggrrgggrrgg");
        assert_eq!(order(&turns, 7, |w| w == Who::Generator), "ggggggg");
        assert_eq!(order(&turns, 3, |w| w == Who::Retriever), "rrr");
        assert_eq!(order(&Turns::default(), 4, |_| true), "bbbb");
        assert_eq!(turns.planned(12, |_, _| true), (4, 8));
        assert_eq!(turns.planned(12, |w, s| w == Who::Generator || s >= 5), (3, 9));
        assert_eq!(Turns::default().planned(10, |w, s| w == Who::Generator || s >= 4), (6, 10));
        assert_eq!(turns.next(Turn { who: Some(Who::Generator), done: 2 }, |_| true).1, Some(Who::Generator));
        let none = Turns::Alternating(Alternating { retriever: 0, ..Alternating::default() });
        assert!(none.check().is_err());
    }
}
