//! State that a whole process shares: libtorch's generators and threads, and the counters of its allocator.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Says to a child process that it is one, and which test it is there for.
const ALONE: &str = "RAGDUET_TEST_ALONE";

/// Tests of one process share the generators: those that draw take turns, each from the same seed. Tensors are tiny,
/// so one thread computes.
pub fn alone() -> MutexGuard<'static, ()> {
    static GENERATORS: Mutex<()> = Mutex::new(());
    let turn = GENERATORS.lock().unwrap_or_else(PoisonError::into_inner);
    ragduet_torch::device::set_threads(1);
    ragduet_torch::rng::seed(0);
    turn
}

/// Runs the test that calls it in a process of its own and takes over how it ends; in that process, it does nothing.
///
/// For what is counted by process, such as the peak of memory.
#[macro_export]
macro_rules! in_own_process {
    () => {
        fn here() {}
        if $crate::done_elsewhere(std::any::type_name_of_val(&here)) {
            return;
        }
    };
}

/// What [`in_own_process!`] does, for the path of a function within the test: true in the process that asked.
///
/// # Panics
/// Where the test fails in its own process, or was not found there.
pub fn done_elsewhere(within: &str) -> bool {
    let test = within.split_once("::").and_then(|(_crate, path)| path.rsplit_once("::"));
    let (test, _) = test.unwrap_or_else(|| panic!("{within} is not within a test of a module"));
    if std::env::var(ALONE).is_ok_and(|named| named == test) {
        ragduet_torch::device::set_threads(1);
        return false;
    }
    let exe = std::env::current_exe().unwrap_or_else(|e| panic!("the path of this program: {e}"));
    let done = Command::new(exe).args(["--exact", test, "--nocapture"]).env(ALONE, test).output();
    let done = done.unwrap_or_else(|e| panic!("{test} in a process of its own: {e}"));
    let said = String::from_utf8_lossy(&done.stdout);
    println!("{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{test} failed in a process of its own: {}", done.status);
    assert!(said.contains("1 passed"), "{test} was not found in {within}'s program");
    true
}
