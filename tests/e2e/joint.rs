//! A retriever and a generator trained together through the binary: the run folder, killed and resumed, asked, measured;
//! and what goes wrong.

use crate::util::{fails, ok, ragduet, root, s, slice};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn world(dir: &Path, run: &str, more: &str) -> PathBuf {
    let data = slice(dir, 24);
    std::fs::copy(root().join("datasets/maravel/answers.jsonl"), data.join("answers.jsonl")).unwrap();
    let config = dir.join("joint.toml");
    let text = format!(
        r#"
[run]
seed = 2
device = "cpu"
precision = "fp32"
{run}
[data]
train = "{data}"
dev = "{data}"
[retriever]
towers = "both"
optim = {{ lr = 1e-3 }}
[retriever.model]
max_query_tokens = 32
max_passage_tokens = 64
[retriever.model.scratch]
vocab_size = 500
hidden_size = 32
layers = 1
heads = 2
intermediate_size = 64
max_positions = 64
[generator]
batch_tokens = 2048
contexts = {{ count = 1, golden = "answering", max_golden = 1 }}
[generator.model.scratch]
vocab_size = 500
hidden_size = 32
layers = 1
heads = 2
kv_heads = 1
intermediate_size = 64
max_positions = 512
[generator.prompt]
max_tokens = 256
[retrieval]
k = 3
overfetch = 6
[objective.distillation]
teacher_temperature = 0.2
[batch]
size = 4
[eval]
limit = 6
samples = 2
decode = {{ max_new_tokens = 4, do_sample = false }}
{more}
"#,
        data = data.display()
    );
    std::fs::write(&config, text).unwrap();
    config
}

#[test]
fn from_questions_and_answers_to_a_pipeline() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let config = world(dir, "max_steps = 6\nlog_every = 2", "[refresh]\nevery_steps = 2\n");
    let run = dir.join("run");
    let said = ok(&["train", "joint", "-q", "-c", s(&config), "--out", s(&run)]);
    assert!(said.contains("refresh") && said.contains("before") && said.contains("best"), "{said}");
    for name in [
        "config.toml",
        "metrics.jsonl",
        "samples.jsonl",
        "table.json",
        "best/pipeline.json",
        "best/retriever/modules.json",
        "best/generator/config.json",
        "best/index/index.json",
    ] {
        assert!(run.join(name).is_file(), "{name}");
    }
    let asked = ok(&["ask", "--run", s(&run), "who knows?", "--max-new-tokens", "4"]);
    assert!(asked.contains("[1] "), "{asked}");
    let data = dir.join("data");
    let measured = ok(&[
        "eval",
        "rag",
        "--run",
        s(&run),
        "--data",
        s(&data),
        "--split",
        "test",
        "--max-new-tokens",
        "4",
        "--json",
    ]);
    let measured: Value = serde_json::from_str(&measured).unwrap();
    assert!(measured["retrieval"]["recall@5"].as_f64().is_some(), "{measured}");
    // The run folder may move: what belongs together is found beside each other.
    let moved = dir.join("moved");
    std::fs::rename(&run, &moved).unwrap();
    ok(&["ask", "--run", s(&moved), "who knows?", "--max-new-tokens", "4"]);

    // What goes wrong names the place.
    let e = fails(2, &["ask", "--run", s(dir), "who?"]);
    assert!(e.contains("no joint run here"), "{e}");
    let out = dir.join("none");
    let with = |code: i32, sets: &[&str]| {
        let _ = std::fs::remove_dir_all(&out);
        let mut args = vec!["train", "joint", "-q", "-c", s(&config), "--out", s(&out)];
        sets.iter().for_each(|set| args.extend(["--set", set]));
        fails(code, &args)
    };
    for (code, set, want) in [
        (2, "retrieval.overfetch=1", "retrieval.overfetch"),
        (2, "refresh.schedule=often", "START-END:EVERY"),
        (2, "generator.objective=marginal", "rag_sequence"),
        (1, "data.train=/nowhere", "/nowhere"),
        (2, "objective.distillation.score_temperature=0", "objective.distillation.score_temperature"),
    ] {
        let e = with(code, &[set]);
        assert!(e.contains(want), "{set}: {e}");
    }
    std::fs::write(data.join("answers.jsonl"), "{\"_id\": \"q\", \"answers\": 3}\n{\"answers\": [\"a\"]}\n")
        .unwrap();
    let e = with(1, &["run.seed=5"]);
    assert!(e.contains("answers.jsonl:2"), "{e}");
}

#[test]
fn killed_in_the_midst_of_refreshes_and_resumed_is_as_if_never_killed() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let config = world(dir, "max_steps = 60", "[refresh]\nevery_steps = 1\n[save]\nevery_steps = 7\n");
    let whole = dir.join("whole");
    let started = std::time::Instant::now();
    ok(&["train", "joint", "-q", "-c", s(&config), "--out", s(&whole)]);
    let full = started.elapsed();
    let weights =
        |run: &Path| std::fs::read(run.join("checkpoints/step-000000060/parameters.safetensors")).unwrap();
    let mut kills = 0;
    for share in [0.35, 0.7] {
        let run = dir.join(format!("killed-{share}"));
        let args = ["train", "joint", "-q", "-c", s(&config), "--out", s(&run)];
        let mut child = ragduet(&args).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(full.as_secs_f64() * share));
        // Child::kill is SIGKILL.
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
        if run.join("config.toml").is_file() {
            ok(&[&args[..], &["--resume"]].concat());
            assert!(weights(&whole) == weights(&run), "killed after {share} of the time");
        }
    }
    assert!(kills > 0, "every run ended before it was killed");
}
