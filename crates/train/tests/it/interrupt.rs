//! SIGTERM and Ctrl-C. In processes of their own, as handlers and the flag are the whole process's.

use ragduet_train::interrupt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CHILD: &str = "RAGDUET_TEST_INTERRUPT";

/// The loop of the child: saves when asked, or does not get to it.
#[test]
fn child() {
    let Ok(how) = std::env::var(CHILD) else { return };
    interrupt::install();
    interrupt::install();
    assert!(!interrupt::asked());
    println!("ready");
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(5));
        if interrupt::asked() {
            println!("asked");
            if how == "clean" {
                std::process::exit(7);
            }
        }
    }
}

fn run(how: &str, signals: &[&str]) -> Option<i32> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "interrupt::child", "--nocapture"])
        .env(CHILD, how)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut wait_for = |word: &str| {
        use std::io::BufRead;
        let mut line = String::new();
        while out.read_line(&mut line).unwrap() > 0 {
            if line.trim().ends_with(word) {
                return;
            }
            line.clear();
        }
    };
    wait_for("ready");
    for (i, signal) in signals.iter().enumerate() {
        if i > 0 {
            wait_for("asked");
        }
        let sent = Command::new("kill").args([signal, child.id().to_string().as_str()]).status().unwrap();
        assert!(sent.success());
    }
    child.wait().unwrap().code()
}

#[test]
fn the_first_signal_asks() {
    assert_eq!(run("clean", &["-TERM"]), Some(7));
    assert_eq!(run("clean", &["-INT"]), Some(7));
}

#[test]
fn the_second_ends_the_process() {
    assert_eq!(run("stuck", &["-TERM", "-TERM"]), Some(130));
}
