//! How threads of libtorch wait for each other.
//!
//! OpenMP's threads spin where a parallel loop ends, each on a core that another program may need: with more load than
//! cores two threads took three times as long as one. Asleep they cost a few per cent of an idle machine
//! (`scripts/threads_table.py`). OpenMP reads its settings while the program is loaded, before `main`: the program
//! therefore sets them and starts itself again, in the same process.

/// Settings of the user's own, which stay.
const SETTINGS: [&str; 3] = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"];

/// Starts the program again with threads that sleep while they wait, unless the environment says how they wait.
///
/// Returns where there is nothing to set, or where the program cannot be started again: then they spin.
pub fn asleep() {
    let set = |name: &str| std::env::var_os(name).is_some();
    if SETTINGS.iter().any(|name| set(name)) || std::env::var("OMP_NUM_THREADS").is_ok_and(|n| n == "1") {
        return;
    }
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        let Ok(program) = std::env::current_exe() else { return };
        let mut arguments = std::env::args_os();
        let mut again = std::process::Command::new(program);
        if let Some(name) = arguments.next() {
            again.arg0(name);
        }
        let error = again.args(arguments).env(SETTINGS[0], "PASSIVE").exec();
        tracing::debug!("threads spin while they wait: the program could not be started again: {error}");
    }
}
