//! Ctrl-C and SIGTERM: the first asks the loop to save and stop, the second ends the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);
static SET: OnceLock<()> = OnceLock::new();

/// Installs the handler (once).
pub fn install() {
    SET.get_or_init(|| {
        let handler = || {
            if ASKED.swap(true, Ordering::SeqCst) {
                ragduet_torch::device::exit_now(130);
            }
            eprintln!("stopping after this step; a checkpoint is being saved (again to stop at once)");
        };
        if let Err(e) = ctrlc::set_handler(handler) {
            tracing::warn!("no handler for Ctrl-C: {e}");
        }
    });
}

/// Whether the loop should stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
