//! One line that moves on a terminal, a line now and then elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Progress of a training loop.
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
            let style = ProgressStyle::with_template("{pos}/{len} {wide_bar} {msg} eta {eta}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(done);
            bar
        });
        Self { bar, total, started: Instant::now(), first: done, last_line: None, quiet }
    }

    /// Tells the state after a step.
    pub fn step(&mut self, done: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message());
        } else if !self.quiet && (self.last_line.is_none_or(|t| t.elapsed() >= EVERY) || done == self.total) {
            self.last_line = Some(Instant::now());
            let per_step = self.started.elapsed().as_secs_f64() / (done - self.first).max(1) as f64;
            let left = per_step * self.total.saturating_sub(done) as f64;
            eprintln!("step {done}/{} {} eta {left:.0} s", self.total, message());
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
}
