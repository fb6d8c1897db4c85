//! Bad input: an error that names the place and the remedy, never a panic.

use crate::util::{config, failed, fails, ok, ragduet, s, slice};
use std::path::{Path, PathBuf};

struct Case {
    _tmp: tempfile::TempDir,
    dir: PathBuf,
    data: PathBuf,
}

fn case() -> Case {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().to_path_buf();
    let data = slice(&dir, 12);
    Case { _tmp: tmp, dir, data }
}

fn train(c: &Case, more: &str, set: &[&str]) -> Vec<String> {
    let path = config(&c.dir, &c.data, more);
    let out = c.dir.join("run");
    let _ = std::fs::remove_dir_all(&out);
    let mut args: Vec<String> =
        ["train", "retriever", "-c", s(&path), "--out", s(&out), "--quiet"].map(String::from).to_vec();
    for o in set {
        args.extend(["--set".into(), o.to_string()]);
    }
    args
}

fn train_fails(c: &Case, code: i32, more: &str, set: &[&str]) -> String {
    let args = train(c, more, set);
    fails(code, &args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    std::fs::write(path, change(std::fs::read_to_string(path).unwrap())).unwrap();
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for p in parts {
        assert!(text.contains(p), "`{p}` is missing in: {text}");
    }
}

#[test]
fn rows() {
    let c = case();
    let corpus = c.data.join("corpus.jsonl");
    let good = std::fs::read_to_string(&corpus).unwrap();
    let first = good.lines().next().unwrap().to_string();
    for (row, words) in [
        ("{\"_id\": \"x\", \"text\": ", "corpus.jsonl:2"),
        ("{\"_id\": \"x\", \"title\": \"\", \"text\": \"  \"}", "corpus.jsonl:2"),
        ("{\"_id\": 5.5}", "corpus.jsonl:2"),
        (first.as_str(), "corpus.jsonl:2"),
    ] {
        let mut lines: Vec<&str> = good.lines().collect();
        lines.insert(1, row);
        std::fs::write(&corpus, lines.join("\n")).unwrap();
        has(&train_fails(&c, 1, "", &[]), &[words]);
    }
    // The same rows, skipped and counted.
    let args = train(&c, "[run]\nmax_steps = 1\n", &["data.skip_bad_rows=true"]);
    ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(std::fs::read_to_string(c.dir.join("run/bad_rows.jsonl")).unwrap().contains("corpus.jsonl"));
    std::fs::write(&corpus, &good).unwrap();
    edit(&c.data.join("qrels/train.tsv"), |t| t + "q-none\tp-none\t1\n");
    has(&train_fails(&c, 1, "", &["data.missing=error"]), &["train.tsv:14"]);
}

#[test]
fn settings() {
    let c = case();
    has(&train_fails(&c, 2, "", &["optim.lrr=1"]), &["--set optim.lrr=1", "unknown field `lrr`"]);
    has(&train_fails(&c, 2, "[optm]\nlr = 1\n", &[]), &["config.toml", "optm"]);
    has(
        &train_fails(&c, 2, "", &["run.seed=\"one\""]),
        &["--set run.seed=\"one\"", "the text \"one\" stands where a whole number"],
    );
    has(&train_fails(&c, 2, "", &["loss.info_nce.label_smoothing=2.0"]), &["label_smoothing", "below 1"]);
    has(&train_fails(&c, 2, "", &["model.max_query_tokens=65"]), &["max_query_tokens", "64 positions"]);
    has(&train_fails(&c, 2, "", &["model.base=x"]), &["give one of `base`"]);
    has(&train_fails(&c, 1, "", &["loss={triplet={}}"]), &["have no negatives", "[mining]"]);
    has(&train_fails(&c, 1, "", &["run.device=cuda:99"]), &["cuda:99", "doctor"]);
    fails(2, &["train", "retriever"]);
    fails(2, &["eval", "retriever", "-m", "x", "--precision", "fp8", "--data", "y"]);
}

#[test]
fn models() {
    let c = case();
    let eval = |m: &Path| fails(1, &["eval", "retriever", "-m", s(m), "--data", s(&c.data)]);
    has(&eval(&c.dir.join("nowhere")), &["no such folder"]);
    let offline = fails(1, &["eval", "retriever", "-m", "org/name", "--data", s(&c.data)]);
    has(&offline, &["org/name", "HF_HUB_OFFLINE"]);
    let args = train(&c, "[run]\nmax_steps = 1\n", &[]);
    ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let best = c.dir.join("run/best");
    // A folder that is taken, and a lock of a living process.
    has(&fails(1, &args.iter().map(String::as_str).collect::<Vec<_>>()), &["not empty", "--resume"]);
    std::fs::write(c.dir.join("run/run.lock"), "1").unwrap();
    let mut resume: Vec<&str> = args.iter().map(String::as_str).collect();
    resume.push("--resume");
    has(&fails(1, &resume), &["process 1 is running"]);

    let weights = best.join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    has(&eval(&best), &["model.safetensors", "not a complete safetensors file"]);
    let mut nan = whole.clone();
    let n = nan.len();
    // The data is aligned to the start of the file.
    for x in nan[n / 16 * 4..].chunks_exact_mut(4) {
        x.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    std::fs::write(&weights, &nan).unwrap();
    has(&eval(&best), &["NaN"]);
    std::fs::write(&weights, &whole).unwrap();
    edit(&best.join("config.json"), |t| t.replace("\"vocab_size\"", "\"vocabulary\""));
    has(&eval(&best), &["wrong shape", "embeddings.word_embeddings.weight"]);
    edit(&best.join("config.json"), |t| t.replace("\"bert\"", "\"mamba\""));
    has(&eval(&best), &["mamba", "encoders:"]);
    edit(&best.join("config.json"), |t| {
        t.replace("\"mamba\"", "\"bert\"").replace("\"vocabulary\"", "\"vocab_size\"")
    });
    edit(&best.join("modules.json"), |t| t.replace("models.Pooling", "models.LSTM"));
    has(&eval(&best), &["LSTM"]);
}

#[test]
fn files() {
    let c = case();
    let args = train(&c, "[run]\nmax_steps = 1\n", &[]);
    ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let (best, idx) = (c.dir.join("run/best"), c.dir.join("idx"));
    ok(&["index", "build", "-m", s(&best), "--corpus", s(&c.data.join("corpus.jsonl")), "-o", s(&idx)]);
    let largest = std::fs::read_dir(&idx)
        .unwrap()
        .map(|e| e.unwrap().path())
        .max_by_key(|p| p.metadata().unwrap().len())
        .unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&largest, bytes).unwrap();
    has(&fails(1, &["search", "--index", s(&idx), "what?"]), &[s(&idx)]);
    has(&fails(1, &["search", "--index", s(&c.dir), "what?"]), &["index.json"]);
    has(
        &fails(1, &["encode", "-m", s(&best), "-i", s(&c.dir.join("none.jsonl")), "-o", s(&c.dir.join("e"))]),
        &["none.jsonl"],
    );
    has(&fails(1, &["info", s(&c.data)]), &["neither a model"]);
    // A full disk, as a limit on the size of files.
    let mut full = std::process::Command::new("sh");
    full.args(["-c", "ulimit -f 40; trap '' XFSZ; exec \"$@\"", "sh"]).arg(crate::util::binary());
    full.args([
        "encode",
        "-m",
        s(&best),
        "-i",
        s(&c.data.join("corpus.jsonl")),
        "-o",
        s(&c.dir.join("full")),
    ]);
    let out = full.output().unwrap();
    if !out.status.success() {
        has(&failed(1, out), &["error:"]);
    }
    assert!(ragduet(&["--version"]).output().unwrap().status.success());
}
