//! The binary, and a small dataset to run it on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The binary, which cargo builds for these tests.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ragduet"))
}

/// The command, offline and on one thread (several run at once).
pub fn ragduet(args: &[&str]) -> Command {
    let mut c = Command::new(binary());
    c.args(args).env("HF_HUB_OFFLINE", "1").env("OMP_NUM_THREADS", "1").env_remove("RAGDUET_LOG");
    c
}

/// Standard output of a command that must succeed.
pub fn ok(args: &[&str]) -> String {
    let out = ragduet(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// What a command printed as JSON.
pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Standard error of a command that must fail with this code, without a panic.
pub fn fails(code: i32, args: &[&str]) -> String {
    failed(code, ragduet(args).output().unwrap())
}

/// The same for an output at hand.
pub fn failed(code: i32, out: Output) -> String {
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(code), "{text}");
    for word in ["panicked", "backtrace", "internal error", "frame #"] {
        assert!(!text.contains(word), "{text}");
    }
    text
}

/// A BEIR folder of the first `queries` train, dev and test questions of the shipped dataset and their passages.
pub fn slice(dir: &Path, queries: usize) -> PathBuf {
    let (from, to) = (root().join("datasets/maravel"), dir.join("data"));
    std::fs::create_dir_all(to.join("qrels")).unwrap();
    let (mut wanted_q, mut wanted_p) = (HashSet::new(), HashSet::new());
    for split in ["train", "dev", "test"] {
        let text = std::fs::read_to_string(from.join(format!("qrels/{split}.tsv"))).unwrap();
        let mut lines = text.lines();
        let mut out = format!("{}\n", lines.next().unwrap());
        for line in lines.take(queries) {
            let mut fields = line.split('\t');
            wanted_q.insert(fields.next().unwrap().to_string());
            wanted_p.insert(fields.next().unwrap().to_string());
            out.push_str(line);
            out.push('\n');
        }
        std::fs::write(to.join(format!("qrels/{split}.tsv")), out).unwrap();
    }
    for (file, wanted) in [("queries.jsonl", &wanted_q), ("corpus.jsonl", &wanted_p)] {
        let text = std::fs::read_to_string(from.join(file)).unwrap();
        let kept = text.lines().filter(|l| {
            let v: serde_json::Value = serde_json::from_str(l).unwrap();
            wanted.contains(v["_id"].as_str().unwrap())
        });
        let out: String = kept.flat_map(|l| [l, "\n"]).collect();
        std::fs::write(to.join(file), out).unwrap();
    }
    to
}

/// A config for a tiny model on that folder. `more` begins with keys of `[eval]`; its `[run]` and `[batch]` add to these.
pub fn config(dir: &Path, data: &Path, more: &str) -> PathBuf {
    let mut more = more.to_string();
    for (table, own) in
        [("[run]\n", "seed = 7\ndevice = \"cpu\"\n"), ("[batch]\n", "size = { examples = 10 }\n")]
    {
        if !more.contains(table) {
            more += &format!("\n{table}");
        }
        more = more.replacen(table, &format!("{table}{own}"), 1);
    }
    let text = format!(
        r#"
[model]
max_query_tokens = 32
max_passage_tokens = 64
[model.scratch]
vocab_size = 600
hidden_size = 32
layers = 2
heads = 2
intermediate_size = 64
max_positions = 64
[data]
train = "{0}"
dev = "{0}"
[optim]
lr = 1e-3
[eval]
measures = ["ndcg@10", "recall@10"]
{more}
"#,
        data.display()
    );
    let path = dir.join("config.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// A path as an argument.
pub fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}
