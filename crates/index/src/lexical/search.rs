//! The search: MaxScore (Turtle and Flood 1995) over windows of texts, as Lucene 10 does it.
//!
//! Once `k` hits are known, terms whose greatest impacts together cannot lift a text over the worst of them are *idle*:
//! no text is a hit by them alone. The others are added up in an array with a place for each text of a window, and only
//! for texts that can still become hits the idle ones are looked up. Which terms are idle is decided anew for each
//! window, by their greatest impacts in it.
//!
//! Impacts are `f32` and sums `f64`, where sums of so few of them are exact: a text's score does not depend on the
//! order of addition, hence neither on `k` nor on the other texts.

use super::postings::{Posting, Postings, WINDOW};
use crate::topk::TopK;
use crate::{Hit, SearchParams};

/// What one thread needs for its searches.
pub(super) struct Scratch {
    /// A window's scores. All 0 between windows.
    sums: Box<[f64; WINDOW]>,
    /// The cursors in ascending order of their bounds in a window.
    order: Vec<(f64, usize)>,
    /// What the cursors before each in that order can add to a text, together.
    below: Vec<f64>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { sums: Box::new([0.0; WINDOW]), order: Vec::new(), below: Vec::new() }
    }
}

/// One term of a query on its way through its texts.
struct Cursor<'a> {
    posting: Posting<'a>,
    /// How often the query has the term.
    weight: f64,
    /// The text at which it stands. Never moves back.
    at: usize,
}

impl<'a> Cursor<'a> {
    fn bound(&self) -> f64 {
        self.weight * f64::from(self.posting.bound)
    }

    /// The most that the term adds to a text of this window.
    fn bound_in(&self, window: usize) -> f64 {
        let bound = match self.posting.stretches {
            Some(stretches) => stretches[window].bound,
            None if self.text().is_none_or(|text| text as usize / WINDOW > window) => 0.0,
            None => self.posting.bound,
        };
        self.weight * f64::from(bound)
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
    fn add_window(&mut self, window: usize, sums: &mut [f64; WINDOW]) {
        self.advance_to_window(window);
        let start = self.at;
        self.advance_to_window(window + 1);
        let Posting { texts, impacts, .. } = self.posting;
        for (text, impact) in texts[start..self.at].iter().zip(&impacts[start..self.at]) {
            sums[*text as usize % WINDOW] += self.weight * f64::from(*impact);
        }
    }

    /// What the term adds to a text.
    fn look_up(&mut self, text: u32) -> f64 {
        self.advance(text);
        match self.posting.impacts.get(self.at) {
            Some(&impact) if self.text() == Some(text) => self.weight * f64::from(impact),
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

/// The best texts for a query of these terms and how often it has each.
pub(super) fn search(
    postings: &Postings,
    terms: &[(u32, u32)],
    params: &SearchParams<'_>,
    scratch: &mut Scratch,
) -> Vec<Hit> {
    let mut cursors: Vec<Cursor<'_>> = terms
        .iter()
        .map(|&(term, count)| Cursor { posting: postings.of_term(term), weight: f64::from(count), at: 0 })
        .filter(|cursor| !cursor.posting.texts.is_empty())
        .collect();
    let mut best = TopK::new(params.k.min(postings.live));
    if best.is_full() {
        return Vec::new();
    }
    let absent: f64 = cursors.iter().map(|cursor| cursor.weight * cursor.posting.absent).sum();
    cursors.sort_by(|a, b| a.bound().total_cmp(&b.bound()));
    // By their greatest impacts anywhere, the first `idle` terms are idle in every window to come.
    let (mut idle, mut idle_bound) = (0, absent);
    loop {
        let floor = f64::from(best.floor());
        while idle < cursors.len() && idle_bound + cursors[idle].bound() <= floor {
            idle_bound += cursors[idle].bound();
            idle += 1;
        }
        let Some(text) = cursors[idle..].iter().filter_map(Cursor::text).min() else { break };
        let window = text as usize / WINDOW;
        search_window(&mut cursors, window, absent, params, scratch, &mut best);
        cursors[idle..].iter_mut().for_each(|cursor| cursor.advance_to_window(window + 1));
    }
    best.into_sorted()
}

fn search_window(
    cursors: &mut [Cursor<'_>],
    window: usize,
    absent: f64,
    params: &SearchParams<'_>,
    scratch: &mut Scratch,
    best: &mut TopK,
) {
    let Scratch { sums, order, below } = scratch;
    order.clear();
    order.extend(cursors.iter().enumerate().map(|(at, cursor)| (cursor.bound_in(window), at)));
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    below.clear();
    let mut bound = absent;
    for (of_cursor, _) in &*order {
        below.push(bound);
        bound += of_cursor;
    }
    let mut floor = f64::from(best.floor());
    if bound <= floor {
        return;
    }
    // Not the last: with it the bound lies above the floor.
    let idle = (1..order.len()).take_while(|&at| below[at] <= floor).last().unwrap_or(0);
    for &(_, at) in &order[idle..] {
        cursors[at].add_window(window, sums);
    }
    let first = window * WINDOW;
    for (at, sum) in sums.iter_mut().enumerate() {
        if *sum == 0.0 {
            continue;
        }
        let mut score = std::mem::take(sum);
        let text = (first + at) as u32;
        if score + below[idle] <= floor || params.filter.is_some_and(|filter| !filter.allows(text)) {
            continue;
        }
        for (place, &(bound, at)) in order[..idle].iter().enumerate().rev() {
            if bound > 0.0 {
                if score + below[place + 1] <= floor {
                    break;
                }
                score += cursors[at].look_up(text);
            }
        }
        best.push(Hit { id: text, score: (absent + score) as f32 });
        floor = f64::from(best.floor());
    }
}
