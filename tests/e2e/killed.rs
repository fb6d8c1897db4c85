//! SIGKILL at a random moment, then `--resume`: the weights of a run that was left alone.

use crate::util::{config, ok, ragduet, s, slice};
use std::time::Duration;

#[test]
fn killed_and_resumed_is_as_if_never_killed() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let data = slice(dir, 120);
    let more = "every_steps = 20\n[save]\nevery_steps = 3\n[mining]\nwhen = { every_steps = 25 }\n[run]\nepochs = \
                10.0\n[batch]\nnegatives_per_query = 2\n";
    let config = config(dir, &data, more);
    let whole = dir.join("whole");
    let started = std::time::Instant::now();
    ok(&["train", "retriever", "-c", s(&config), "--out", s(&whole), "--quiet"]);
    let full = started.elapsed();
    let weights = |run: &std::path::Path| std::fs::read(run.join("best/model.safetensors")).unwrap();
    let mut kills = 0;
    for share in [0.3, 0.55, 0.8] {
        let run = dir.join(format!("killed-{share}"));
        let args = ["train", "retriever", "-c", s(&config), "--out", s(&run), "--quiet"];
        let mut child = ragduet(&args).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(full.as_secs_f64() * share));
        // Child::kill is SIGKILL.
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
        if run.join("config.toml").is_file() {
            let mut resume = args.to_vec();
            resume.push("--resume");
            ok(&resume);
            assert_eq!(weights(&whole), weights(&run), "killed after {share} of the time");
        }
    }
    assert!(kills > 0, "every run ended before it was killed");
}
