//! One line that moves on a terminal, a line now and then elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Progress of a training loop, on standard error.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    total: u64,
    started: Instant,
    first: u64,
    last_line: Option<Instant>,
    quiet: bool,
}

/// Time between plain lines.
const EVERY: Duration = Duration::from_secs(15);

impl Progress {
    /// For `total` steps, of which `done` lie behind.
    pub fn new(total: u64, done: u64, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = (!quiet && terminal).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(done);
            bar
        });
        Self { bar, total, started: Instant::now(), first: done, last_line: None, quiet }
    }

    /// Tells the state after a step. `message`: loss, learning rate, speed.
    pub fn step(&mut self, done: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(format!("{} eta {}", message(), self.eta(done)));
        } else if !self.quiet && self.is_due(done) {
            self.last_line = Some(Instant::now());
            eprintln!("step {done}/{} {} eta {}", self.total, message(), self.eta(done));
        }
    }

    /// Runs something that prints, with the moving line out of the way.
    pub fn aside(&self, f: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
    }

    /// Removes the moving line.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn is_due(&self, done: u64) -> bool {
        self.last_line.is_none_or(|t| t.elapsed() >= EVERY) || done == self.total
    }

    /// By the mean speed of this process: what an earlier one did before a resume took no time here (indicatif's own
    /// estimate would count it).
    fn eta(&self, done: u64) -> String {
        remaining(self.started.elapsed(), done.saturating_sub(self.first), self.total.saturating_sub(done))
    }
}

/// Time for `left` steps where `done` took `elapsed`.
fn remaining(elapsed: Duration, done: u64, left: u64) -> String {
    if done == 0 {
        return "?".into();
    }
    let seconds = (elapsed.as_secs_f64() / done as f64 * left as f64).round() as u64;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, _) => format!("{m}m{s:02}s"),
        _ => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left() {
        let after = |elapsed, done, left| remaining(Duration::from_secs(elapsed), done, left);
        assert_eq!(after(10, 0, 100), "?");
        assert_eq!(after(10, 10, 0), "0s");
        assert_eq!(after(10, 10, 59), "59s");
        assert_eq!(after(10, 10, 61), "1m01s");
        assert_eq!(after(10, 5, 3600), "2h00m");
    }

    #[test]
    fn a_resumed_run_counts_its_own_steps() {
        let mut p = Progress::new(1000, 900, true);
        p.started = Instant::now().checked_sub(Duration::from_secs(100)).unwrap();
        assert_eq!(p.eta(950), "1m40s");
        assert_eq!(p.eta(900), "?");
    }

    #[test]
    fn plain_lines_are_rare_but_the_last_is_written() {
        let mut p = Progress::new(10, 0, false);
        assert!(p.is_due(1));
        p.last_line = Some(Instant::now());
        assert!(!p.is_due(2) && p.is_due(10));
    }

    #[test]
    fn quiet_does_not_even_format() {
        Progress::new(10, 0, true).step(1, || unreachable!("nobody reads it"));
    }
}
