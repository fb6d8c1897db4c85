//! The search: MaxScore (Turtle and Flood 1995) over windows of texts, as Lucene 10 does it.
//!
//! Once `k` hits are known, terms whose greatest impacts together cannot lift a text over the worst of them are *idle*:
//! no text is a hit by them alone. The others are added up in an array with a place for each text of a window, and only
//! for texts that can still become hits the idle ones are looked up, or added as well where so many can
//! that this is cheaper. Which terms are idle is decided anew for each
//! window, by their greatest impacts in it.
//!
//! Terms stand in one order for the whole search and every score adds them up in that order, all of them: it depends
//! neither on `k`, nor on which terms are idle, nor on what else is asked. What may be left out is decided by bounds that
//! are a little too high ([`Slack`]), so that rounding leaves out no hit.

use super::postings::{Posting, Postings, WINDOW};
use crate::topk::TopK;
use crate::{Hit, SearchParams};

/// Texts whose sums are compared with the floor at once.
const LANE: usize = 32;

/// A text that is looked up costs about as much as so many that are added one after the other.
const LOOK_UP: usize = 16;

/// What one thread needs for its searches.
pub(crate) struct Scratch {
    /// A window's sums. All 0 between windows.
    sums: Box<[f32; WINDOW]>,
    /// What the cursors from each one on can add to a text of a window, together; 0 behind the last.
    beyond: Vec<f64>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { sums: Box::new([0.0; WINDOW]), beyond: Vec::new() }
    }
}

/// How much rounding can lift a sum of non-negative `f32`: each addition and product by at most half a unit in the last
/// place.
#[derive(Clone, Copy)]
struct Slack(f64);

impl Slack {
    fn new(terms: usize) -> Self {
        Self(1.0 + (2 * terms + 2) as f64 * f64::from(f32::EPSILON))
    }

    /// What a sum in `f32` must exceed, when at most `more` comes to it, to get over the floor.
    fn needed(self, floor: f32, more: f64) -> f32 {
        // Rounded down, as a conversion might round up.
        let needed = (f64::from(floor) / self.0 - more) as f32;
        if needed > 0.0 { needed.next_down() } else { 0.0 }
    }
}

/// One term of a query on its way through its texts.
struct Cursor<'a> {
    posting: Posting<'a>,
    /// How often the query has the term, or how much it counts.
    weight: f32,
    /// The text at which it stands. Never moves back.
    at: usize,
}

impl<'a> Cursor<'a> {
    fn bound(&self) -> f64 {
        f64::from(self.weight * self.posting.bound)
    }

    /// The most that the term adds to a text of this window.
    fn bound_in(&self, window: usize) -> f64 {
        let bound = match self.posting.stretches {
            Some(stretches) => stretches[window].bound,
            None if self.text().is_none_or(|text| text as usize / WINDOW > window) => 0.0,
            None => self.posting.bound,
        };
        f64::from(self.weight * bound)
    }

    /// The text at which it stands.
    fn text(&self) -> Option<u32> {
        self.posting.texts.get(self.at).copied()
    }

    /// Moves to the first text that is not before `text`: doubling steps, then halving ones.
    fn advance(&mut self, text: u32) {
        let texts = &self.posting.texts[self.at..];
        let mut step = 1;
        while texts.get(step - 1).is_some_and(|&other| other < text) {
            step *= 2;
        }
        let (low, high) = (step / 2, step.min(texts.len()));
        self.at += low + texts[low..high].partition_point(|&other| other < text);
    }

    /// Adds the impacts in a window to its texts' sums, and moves behind it.
    fn add_window(&mut self, window: usize, sums: &mut [f32; WINDOW]) {
        self.advance_to_window(window);
        let start = self.at;
        self.advance_to_window(window + 1);
        let Posting { texts, impacts, .. } = self.posting;
        for (text, impact) in texts[start..self.at].iter().zip(&impacts[start..self.at]) {
            sums[*text as usize % WINDOW] += self.weight * impact;
        }
    }

    /// How many texts of a window have the term: at most, where the term has no windows.
    fn texts_in(&self, window: usize) -> usize {
        match self.posting.stretches {
            Some(stretches) => (stretches[window + 1].start - stretches[window].start) as usize,
            None => self.posting.texts.len() - self.at,
        }
    }

    /// What the term adds to a text.
    fn look_up(&mut self, text: u32) -> f32 {
        self.advance(text);
        match self.posting.impacts.get(self.at) {
            Some(&impact) if self.text() == Some(text) => self.weight * impact,
            _ => 0.0,
        }
    }

    /// Moves to where a window begins, unless it stands behind that.
    fn advance_to_window(&mut self, window: usize) {
        match self.posting.stretches {
            Some(stretches) => self.at = self.at.max(stretches[window].start as usize),
            // Behind the last window may be behind the last u32.
            None => self.advance(u32::try_from(window * WINDOW).unwrap_or(u32::MAX)),
        }
    }
}

/// The best texts for a query of these terms and how much each counts (how often the query has it), at least 0.
pub(crate) fn search(
    postings: &Postings,
    terms: &[(u32, f32)],
    params: &SearchParams<'_>,
    scratch: &mut Scratch,
) -> Vec<Hit> {
    let mut cursors: Vec<Cursor<'_>> = terms
        .iter()
        .map(|&(term, weight)| Cursor { posting: postings.of_term(term), weight, at: 0 })
        .filter(|cursor| !cursor.posting.texts.is_empty())
        .collect();
    let mut best = TopK::new(params.k.min(postings.live));
    if best.is_full() {
        return Vec::new();
    }
    let absent: f64 = cursors.iter().map(|cursor| f64::from(cursor.weight) * cursor.posting.absent).sum();
    cursors.sort_by(|a, b| b.bound().total_cmp(&a.bound()));
    let slack = Slack::new(cursors.len());
    // By their greatest impacts anywhere, the terms from `busy` on are idle in every window to come.
    let (mut busy, mut idle_bound) = (cursors.len(), absent);
    loop {
        let floor = f64::from(best.floor());
        while busy > 0 && (idle_bound + cursors[busy - 1].bound()) * slack.0 <= floor {
            idle_bound += cursors[busy - 1].bound();
            busy -= 1;
        }
        let Some(text) = cursors[..busy].iter().filter_map(Cursor::text).min() else { break };
        let window = text as usize / WINDOW;
        search_window(&mut cursors, window, absent, slack, params, scratch, &mut best);
        cursors[..busy].iter_mut().for_each(|cursor| cursor.advance_to_window(window + 1));
    }
    best.into_sorted()
}

fn search_window(
    cursors: &mut [Cursor<'_>],
    window: usize,
    absent: f64,
    slack: Slack,
    params: &SearchParams<'_>,
    scratch: &mut Scratch,
    best: &mut TopK,
) {
    let Scratch { sums, beyond } = scratch;
    beyond.clear();
    beyond.resize(cursors.len() + 1, 0.0);
    for (at, cursor) in cursors.iter().enumerate().rev() {
        beyond[at] = beyond[at + 1] + cursor.bound_in(window);
    }
    let floor = f64::from(best.floor());
    let Some(busy) = beyond.iter().rposition(|bound| (absent + bound) * slack.0 > floor) else { return };
    // The cursor at `busy` is the last without which a text can get over the floor; at the least one is asked.
    let busy = (busy + 1).min(cursors.len());
    cursors[..busy].iter_mut().for_each(|cursor| cursor.add_window(window, sums));
    let added = if busy == cursors.len() {
        0
    } else {
        let needed = slack.needed(best.floor(), absent + beyond[busy]);
        let candidates: u32 = sums.iter().map(|&sum| u32::from(sum > needed)).sum();
        let cheaper = |cursor: &&mut Cursor<'_>| cursor.texts_in(window) <= candidates as usize * LOOK_UP;
        cursors[busy..].iter_mut().take_while(cheaper).map(|cursor| cursor.add_window(window, sums)).count()
    };
    let (busy, idle) = cursors.split_at_mut(busy + added);
    let (more, beyond) = (absent + beyond[busy.len()], &beyond[busy.len() + 1..]);
    let mut needed = slack.needed(best.floor(), more);
    let first = window * WINDOW;
    for (lane, sums) in sums.chunks_exact_mut(LANE).enumerate() {
        if !sums.iter().fold(false, |any, &sum| any | (sum > needed)) {
            continue;
        }
        for (at, &sum) in sums.iter().enumerate() {
            let text = (first + lane * LANE + at) as u32;
            if sum <= needed || params.filter.is_some_and(|filter| !filter.allows(text)) {
                continue;
            }
            if let Some(sum) = with_idle(sum, text, idle, beyond, best.floor(), absent, slack) {
                best.push(Hit { id: text, score: (absent + f64::from(sum)) as f32 });
                needed = slack.needed(best.floor(), more);
            }
        }
    }
    sums.fill(0.0);
}

/// The text's whole sum, unless it turns out on the way that the text is no hit. `beyond` says what those behind each of
/// the idle ones can add together.
fn with_idle(
    mut sum: f32,
    text: u32,
    idle: &mut [Cursor<'_>],
    beyond: &[f64],
    floor: f32,
    absent: f64,
    slack: Slack,
) -> Option<f32> {
    for (cursor, beyond) in idle.iter_mut().zip(beyond) {
        sum += cursor.look_up(text);
        if (f64::from(sum) + absent + beyond) * slack.0 <= f64::from(floor) {
            return None;
        }
    }
    Some(sum)
}
