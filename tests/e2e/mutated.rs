//! Whatever is read, with one seeded fault in it: an answer, or an error that names the place. Never a panic, an abort or a
//! hang, and never another answer where the fault cannot mean one.
//!
//! A few faults of every input by default; `RAGDUET_MUTANTS=2000` tries as many in all, `RAGDUET_MUTANTS_SEED` others.

use crate::mutator::{Effect, Mutant, Mutator};
use crate::shaped;
use crate::util::{config, ok, ragduet, root, s, slice};
use serde_json::json;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// After as many seconds a command hangs.
const HANGS: Duration = Duration::from_secs(60);

/// What a file is, and so what a fault in it may do.
#[derive(Clone, Copy)]
enum Holds {
    /// Texts of a user: rows may say something else; a line that is no JSON may not.
    Data,
    /// A model's folder: values may say something else; one of another type may not.
    Model,
    /// What only the program writes, under checksums: nothing may.
    Sealed,
    /// Settings: whatever is accepted was meant.
    Settings,
    /// A format with rules: what breaks them may not be accepted as something else.
    Ruled(fn(&[u8]) -> bool),
    /// Tensors: other numbers may be meant, another header may not.
    Weights,
}

impl Holds {
    fn is_data(self) -> bool {
        matches!(self, Self::Data)
    }
}

/// A command that reads files of one folder.
struct Target {
    name: String,
    holds: Holds,
    /// The folder that is copied for each trial; in `args` it is `@`.
    folder: PathBuf,
    /// Those that get a fault.
    files: Vec<String>,
    /// `%` is a path for what is written, compared beside standard output.
    args: Vec<String>,
}

/// What a command did, as its user sees it.
struct Seen {
    output: Output,
    written: Option<Vec<u8>>,
    hangs: bool,
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

impl Target {
    fn see(&self, trial: &Path) -> Seen {
        let out = trial.join("written");
        let _ = std::fs::remove_file(&out).or_else(|_| std::fs::remove_dir_all(&out));
        let args: Vec<String> =
            self.args.iter().map(|a| a.replace('@', s(&trial.join("in"))).replace('%', s(&out))).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        // Files, not pipes: a child that writes more than a pipe holds would wait for its reader.
        let file = |name: &str| std::fs::File::create(trial.join(name)).unwrap();
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let mut child = ragduet(&args).stdout(stdout).stderr(stderr).stdin(Stdio::null()).spawn().unwrap();
        let start = Instant::now();
        let mut hangs = false;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > HANGS {
                hangs = true;
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let read = |name: &str| std::fs::read(trial.join(name)).unwrap();
        let stdout = String::from_utf8_lossy(&read("stdout"))
            .lines()
            .filter(|l| !l.contains("\"seconds\""))
            .map(|l| l.split_once(" in ").map_or(l, |(said, _time)| said))
            .flat_map(|l| [l, "\n"])
            .collect::<String>();
        let embeddings = out.join("embeddings.npy");
        let written = std::fs::read(if embeddings.exists() { embeddings } else { out }).ok();
        Seen {
            output: Output { status, stdout: stdout.into_bytes(), stderr: read("stderr") },
            written,
            hangs,
        }
    }
}

/// What is wrong with what was seen; `None`: nothing.
fn fault(target: &Target, file: &str, mutant: &Mutant, good: &Seen, now: &Seen) -> Option<&'static str> {
    let said = String::from_utf8_lossy(&now.output.stderr);
    if now.hangs {
        return Some("hang");
    }
    if now.output.status.signal().is_some() {
        return Some("abort");
    }
    if ["panicked", "internal error", "frame #"].iter().any(|w| said.contains(w)) {
        return Some("panic");
    }
    let same = now.output.stdout == good.output.stdout && now.written == good.written;
    if !now.output.status.success() {
        let name = Path::new(file).file_name().unwrap().to_str().unwrap();
        // The file, the key or the flag; for a folder that is read as a whole, the folder.
        let folder = Path::new(file).parent().and_then(Path::file_name).map_or("in", |n| n.to_str().unwrap());
        let place = said.contains(name)
            || said.contains('`')
            || said.contains("--")
            || said.contains(&format!("/{folder}"));
        return if mutant.effect == Effect::None && target.holds.is_data() {
            Some("refused, though nothing is wrong")
        } else {
            (!place).then_some("unclear")
        };
    }
    let allowed = match (target.holds, mutant.effect) {
        (Holds::Settings, _) => true,
        (Holds::Ruled(keeps), _) => same || keeps(&mutant.bytes),
        (Holds::Weights, _) => {
            same || shaped::weights(&std::fs::read(target.folder.join(file)).unwrap(), &mutant.bytes)
        }
        // A corpus that has moved is no fault of the index: the passages come without texts, and that is said.
        (Holds::Sealed, _) => same || said.contains("give --corpus to see texts"),
        (_, Effect::None) => same,
        (Holds::Model, Effect::Type) => same,
        (Holds::Data, _) if file.ends_with(".jsonl") => {
            String::from_utf8(mutant.bytes.clone()).is_ok_and(|t| {
                t.trim_start_matches('\u{feff}')
                    .lines()
                    .filter(|l| !l.trim().is_empty())
                    .all(|l| serde_json::from_str::<serde_json::Value>(l).is_ok())
            })
        }
        (Holds::Model | Holds::Data, _) => true,
    };
    (!allowed).then_some("accepted wrongly")
}

/// An Arrow file of queries and passages.
fn arrow_of(rows: usize) -> Vec<u8> {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    let column = |what: &str| -> ArrayRef {
        std::sync::Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("{what} {i}"))))
    };
    let batch =
        RecordBatch::try_from_iter([("query", column("where is")), ("positive", column("here is"))]).unwrap();
    let mut out = Vec::new();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut out, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    out
}

/// Small inputs of every kind, and a command that reads each.
fn targets(dir: &Path) -> Vec<Target> {
    let data = slice(dir, 8);
    std::fs::copy(root().join("datasets/maravel/answers.jsonl"), data.join("answers.jsonl")).unwrap();
    let c = config(dir, &data, "[run]\nmax_steps = 1\n");
    let run = dir.join("run");
    ok(&["train", "retriever", "-q", "-c", s(&c), "--out", s(&run)]);
    let (base, corpus) = (run.join("best"), data.join("corpus.jsonl"));
    let one = |name: &str| {
        let folder = dir.join("inputs").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    // Records for a generator, a generator, and an adapter over it.
    let records = one("records");
    ok(&[
        "retrieve",
        "-q",
        "-m",
        s(&base),
        "--data",
        s(&data),
        "--split",
        "train",
        "-k",
        "2",
        "-o",
        s(&records.join("r.jsonl")),
    ]);
    let sft = format!(
        "[run]\nseed = 3\ndevice = \"cpu\"\nmax_steps = 1\n[model.scratch]\nvocab_size = 400\nhidden_size = 16\nlayers = 1\n\
         heads = 2\nkv_heads = 1\nintermediate_size = 32\nmax_positions = 512\n[data]\ntrain = {:?}\n[contexts]\ncount = 1\n\
         [batch]\ntokens = 1000\n",
        s(&records.join("r.jsonl"))
    );
    std::fs::write(dir.join("sft.toml"), &sft).unwrap();
    ok(&["train", "generator", "-q", "-c", s(&dir.join("sft.toml")), "--out", s(&dir.join("generator"))]);
    let generator = dir.join("generator/best");
    let at = sft.find("[model.scratch]").unwrap()..sft.find("[data]").unwrap();
    let lora =
        sft.replace(&sft[at], &format!("[model]\nbase = {:?}\n[peft.lora]\nrank = 2\n", s(&generator)));
    std::fs::write(dir.join("lora.toml"), lora).unwrap();
    ok(&["train", "generator", "-q", "-c", s(&dir.join("lora.toml")), "--out", s(&dir.join("lora"))]);
    // Training examples in other formats, and a run file.
    let examples = one("examples");
    for name in ["t.jsonl", "t.parquet"] {
        ok(&["data", "convert", s(&data), "--split", "train", "--to", s(&examples.join(name))]);
    }
    let faq: String = (0..6).map(|i| format!("\"where, {i}?\",place {i},\"line\n{i}\"\n")).collect();
    std::fs::write(examples.join("t.csv"), format!("query,positive,negative\n{faq}")).unwrap();
    let preferences: String = (0..6)
        .map(|i| {
            let row = json!({"prompt": format!("where is {i}?"), "chosen": "here", "rejected": "there"});
            format!("{row}\n")
        })
        .collect();
    std::fs::write(examples.join("p.jsonl"), preferences).unwrap();
    let rows: Vec<serde_json::Value> = std::fs::read_to_string(examples.join("t.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    std::fs::write(examples.join("t.json"), serde_json::Value::from(rows).to_string()).unwrap();
    let table: String = (0..6).map(|i| format!("where, {i}?\tplace {i}\n")).collect();
    std::fs::write(examples.join("t.tsv"), format!("query\tpositive\n{table}")).unwrap();
    let choices: String = (0..6)
        .map(|i| {
            format!("{}\n", json!({"prompt": format!("{i} is"), "choices": ["even", "odd"], "answer": i % 2}))
        })
        .collect();
    std::fs::write(examples.join("c.jsonl"), choices).unwrap();
    let labels: String = (0..6)
        .map(|i| {
            let label = if i % 2 == 0 { "even" } else { "odd" };
            format!("{}\n", json!({"text": format!("number {i}"), "label": label}))
        })
        .collect();
    std::fs::write(examples.join("l.jsonl"), labels).unwrap();
    std::fs::write(examples.join("t.arrow"), arrow_of(6)).unwrap();
    let rankings = one("rankings");
    ok(&[
        "eval",
        "retriever",
        "-q",
        "-m",
        s(&base),
        "--data",
        s(&data),
        "--split",
        "dev",
        "--save-run",
        s(&rankings.join("run.trec")),
    ]);
    std::fs::copy(data.join("qrels/dev.tsv"), rankings.join("qrels.tsv")).unwrap();
    let settings = one("settings");
    std::fs::copy(&c, settings.join("config.toml")).unwrap();
    let some = one("texts").join("some.jsonl");
    std::fs::write(
        &some,
        std::fs::read_to_string(&corpus)
            .unwrap()
            .lines()
            .take(3)
            .map(|l| format!("{l}\n"))
            .collect::<String>(),
    )
    .unwrap();
    let target = |name: &str, holds, folder: &Path, files: &[&str], args: String| Target {
        name: name.into(),
        holds,
        folder: folder.to_path_buf(),
        files: files.iter().map(|f| (*f).to_string()).collect(),
        args: args.split(' ').map(String::from).collect(),
    };
    // Of the newest checkpoint, where the run of the one step goes on.
    let checkpoint: Vec<String> = std::fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|entry| format!("checkpoints/{}", entry.unwrap().file_name().into_string().unwrap()))
        .flat_map(|dir| {
            ["manifest.json", "position.json", "parameters.safetensors"].map(|f| format!("{dir}/{f}"))
        })
        .collect();
    let (base_path, some, r) = (s(&base), s(&some), records.join("r.jsonl"));
    let encode = format!("encode -q -m @ -i {some} -o %");
    let answer = |model: &str, records: &str| {
        format!("generate -q -g {model} -i {records} -o % --max-new-tokens 2 --contexts 1")
    };
    let mut all = vec![
        target(
            "BEIR folder",
            Holds::Data,
            &data,
            &["queries.jsonl", "corpus.jsonl", "qrels/dev.tsv"],
            format!("eval retriever -q --json -m {base_path} --data @ --split dev"),
        ),
        target(
            "corpus",
            Holds::Data,
            &data,
            &["corpus.jsonl"],
            "index build -q --kind lexical --corpus @/corpus.jsonl -o %".into(),
        ),
        target("examples", Holds::Data, &examples, &["t.jsonl"], "data stats @/t.jsonl".into()),
        target("examples", Holds::Settings, &examples, &["t.parquet"], "data stats @/t.parquet".into()),
        target("Arrow", Holds::Settings, &examples, &["t.arrow"], "data stats @/t.arrow".into()),
        target("array", Holds::Ruled(shaped::json), &examples, &["t.json"], "data stats @/t.json".into()),
        target("table", Holds::Ruled(shaped::csv), &examples, &["t.csv"], "data stats @/t.csv".into()),
        target("tabs", Holds::Ruled(shaped::tsv), &examples, &["t.tsv"], "data stats @/t.tsv".into()),
        target("choices", Holds::Data, &examples, &["c.jsonl"], "data stats @/c.jsonl".into()),
        target("texts", Holds::Data, &examples, &["l.jsonl"], "data stats @/l.jsonl --as texts".into()),
        target("preferences", Holds::Data, &examples, &["p.jsonl"], "data stats @/p.jsonl".into()),
        target("records", Holds::Data, &records, &["r.jsonl"], answer(s(&generator), "@/r.jsonl")),
        target(
            "ranking",
            Holds::Ruled(shaped::run),
            &rankings,
            &["run.trec"],
            "eval run @/run.trec --qrels @/qrels.tsv".into(),
        ),
        target(
            "judgements",
            Holds::Ruled(shaped::qrels),
            &rankings,
            &["qrels.tsv"],
            "eval run @/run.trec --qrels @/qrels.tsv".into(),
        ),
        target(
            "checkpoint",
            Holds::Sealed,
            &run,
            &checkpoint.iter().map(String::as_str).collect::<Vec<_>>(),
            format!("train retriever -q -c {} --out @ --resume", s(&c)),
        ),
        target(
            "config",
            Holds::Settings,
            &settings,
            &["config.toml"],
            "train retriever -q -c @/config.toml --out %".into(),
        ),
        target(
            "retriever",
            Holds::Model,
            &base,
            &[
                "config.json",
                "modules.json",
                "1_Pooling/config.json",
                "sentence_bert_config.json",
                "config_sentence_transformers.json",
                "tokenizer.json",
                "tokenizer_config.json",
            ],
            encode.clone(),
        ),
        target("weights", Holds::Weights, &base, &["model.safetensors"], encode),
        target(
            "generator",
            Holds::Model,
            &generator,
            &[
                "config.json",
                "generation_config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "ragduet_prompt.json",
            ],
            answer("@", s(&r)),
        ),
        target("adapter", Holds::Model, &dir.join("lora/best"), &["adapter_config.json"], answer("@", s(&r))),
    ];
    let gguf = one("gguf");
    let tiny = root().join("crates/generator/tests/golden/gguf");
    for name in ["llama.gguf", "gemma3.gguf"] {
        std::fs::copy(tiny.join(name), gguf.join(name)).unwrap();
        all.push(target("GGUF file", Holds::Model, &gguf, &[name], answer(&format!("@/{name}"), s(&r))));
    }
    for (name, kind) in [
        ("exact", format!("exact -m {base_path}")),
        ("int8", format!("exact --vectors int8 -m {base_path}")),
        ("hnsw", format!("hnsw -m {base_path}")),
        ("lexical", "lexical".into()),
    ] {
        let index = dir.join("indexes").join(name);
        let build = format!("index build -q --corpus {} -o {} --kind {kind}", s(&corpus), s(&index));
        ok(&build.split(' ').collect::<Vec<_>>());
        let files = std::fs::read_dir(&index).unwrap().map(|e| e.unwrap());
        let files: Vec<String> =
            files.filter(|e| e.path().is_file()).map(|e| e.file_name().into_string().unwrap()).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        all.push(target(name, Holds::Sealed, &index, &files, "search --json --index @ harbor".into()));
    }
    for target in &mut all {
        target.files.retain(|f| target.folder.join(f).is_file());
        target.files.sort_unstable();
        assert!(!target.files.is_empty(), "{}", target.name);
    }
    all
}

#[test]
fn no_fault_in_a_file_is_a_panic_or_another_answer() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = &tmp.path().canonicalize().unwrap();
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<usize>().unwrap());
    let targets = targets(dir);
    let files: usize = targets.iter().map(|t| t.files.len()).sum();
    let each = number("RAGDUET_MUTANTS").map_or(1, |n| n.div_ceil(files));
    let seed = number("RAGDUET_MUTANTS_SEED").unwrap_or(1) as u64;
    let (mut done, mut unclear, mut faults) = (0, Vec::new(), Vec::new());
    let trial = dir.join("trial");
    for (t, target) in targets.iter().enumerate() {
        let place = || {
            let _ = std::fs::remove_dir_all(&trial);
            copy(&target.folder, &trial.join("in"));
        };
        place();
        let good = target.see(&trial);
        let said = String::from_utf8_lossy(&good.output.stderr).into_owned();
        assert!(good.output.status.success(), "{}: {said}", target.name);
        for (f, file) in target.files.iter().enumerate() {
            let bytes = std::fs::read(target.folder.join(file)).unwrap();
            let mut mutator = Mutator::new(seed * 10_000 + (t * 100 + f) as u64);
            for _ in 0..each {
                let mutant = mutator.fault(&bytes);
                if mutant.bytes == bytes {
                    continue;
                }
                place();
                std::fs::write(trial.join("in").join(file), &mutant.bytes).unwrap();
                let now = target.see(&trial);
                done += 1;
                if let Some(what) = fault(target, file, &mutant, &good, &now) {
                    let said = String::from_utf8_lossy(&now.output.stderr).into_owned();
                    let line =
                        format!("{what}: {}, {file}, {}: {}", target.name, mutant.how, said.trim_end());
                    eprintln!("{line}");
                    if what == "unclear" { unclear.push(line) } else { faults.push(line) }
                }
            }
        }
    }
    eprintln!(
        "{done} inputs with a fault, {} unclear messages, {} other faults",
        unclear.len(),
        faults.len()
    );
    assert!(done >= files / 2, "{done}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(unclear.len() * 100 <= done, "{}", unclear.join("\n"));
}
