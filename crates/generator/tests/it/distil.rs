//! Distillation as a whole: a student learns from a teacher's distribution and from its answers, resumes bit for bit, and
//! asks the teacher once where that is kept.

use ragduet_generator::Generator;
use ragduet_generator::recipe::config::{DistilConfig, SftConfig};
use ragduet_generator::recipe::distil::{Outcome, train};
use ragduet_generator::recipe::{RunOptions, sft};
use ragduet_testkit::alone;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Tensor};
use ragduet_train::config::Config as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const COLOURS: [&str; 4] = ["red", "green", "blue", "white"];

fn options(out: &Path, resume: bool, stop_after: Option<u64>) -> RunOptions {
    RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() }
}

/// Records of doors and their colours, and in `teacher/best` a generator that knows them.
fn set_up(dir: &Path, architecture: &str, vocab: usize, steps: u64) {
    let mut text = String::new();
    for i in 0..12 {
        let passage =
            serde_json::json!({"id": i.to_string(), "text": format!("Door {i} is {}.", COLOURS[i % 4])});
        let row = serde_json::json!({
            "id": format!("q{i}"), "question": format!("What colour is door {i}?"), "answers": [COLOURS[i % 4]],
            "contexts": [passage], "gold": [i.to_string()],
        });
        let _ = writeln!(text, "{row}");
    }
    std::fs::write(dir.join("records.jsonl"), text).unwrap();
    let c = SftConfig::from_toml(&format!(
        "{}\n[model.scratch]\narchitecture = \"{architecture}\"\nvocab_size = {vocab}\nhidden_size = 48\nlayers = 2\n\
         heads = 4\nkv_heads = 2\nintermediate_size = 96\nmax_positions = 256\n[run]\nmax_steps = {steps}\nseed = 5\nprecision = \"fp32\"",
        common(dir)
    ))
    .unwrap();
    sft::train(&c, &options(&dir.join("teacher"), false, None)).unwrap();
}

/// What teacher and student are trained with alike. Ends in the root's last table.
fn common(dir: &Path) -> String {
    format!(
        "data = {{ train = \"{0}/records.jsonl\", dev = \"{0}/records.jsonl\" }}\n\
         contexts.count = 1\nbatch.tokens = 400\noptim.lr = 3e-3\n\
         eval = {{ decode = {{ max_new_tokens = 8, do_sample = false }}, at_start = false }}\n",
        dir.display()
    )
}

const STUDENT: &str =
    "hidden_size = 32\nlayers = 1\nheads = 2\nkv_heads = 1\nintermediate_size = 64\nmax_positions = 256\n";

/// A new student; `more` are lines of the root, `model` replaces it.
fn config(dir: &Path, more: &str, model: Option<&str>, steps: u64) -> DistilConfig {
    let scratch = format!("[model.scratch]\n{STUDENT}");
    let text = format!(
        "{}teacher.base = \"{}/teacher/best\"\nsave.every_steps = 2\n{more}\n{}\n[run]\nmax_steps = {steps}\n\
         log_every = 1\nseed = 5\nprecision = \"fp32\"\n",
        common(dir),
        dir.display(),
        model.unwrap_or(&scratch)
    );
    DistilConfig::from_toml(&text).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn run(c: &DistilConfig, out: &Path, resume: bool, stop_after: Option<u64>) -> Outcome {
    train(c, &options(out, resume, stop_after)).unwrap()
}

fn fails(c: &DistilConfig, out: &Path) -> String {
    train(c, &options(out, false, None)).unwrap_err().to_string()
}

/// A term of the loss, step by step.
fn curve(run: &Path, name: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let rows = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    rows.filter_map(|r| r[name].as_f64()).collect()
}

/// Means of a curve's first and last epoch, about.
fn ends(curve: &[f64]) -> (f64, f64) {
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    (mean(&curve[..5]), mean(&curve[curve.len() - 5..]))
}

fn weights(run: &Path) -> Vec<(String, Tensor)> {
    let best = run.join("best");
    let adapter = best.join("adapter_model.safetensors");
    let w = if adapter.is_file() { Weights::open_file(&adapter) } else { Weights::open_dir(&best) }.unwrap();
    w.names().map(|n| (n.to_string(), w.load(n, Device::Cpu).unwrap())).collect()
}

#[track_caller]
fn equal(a: &Path, b: &Path, what: &str) {
    for ((name, a), (_, b)) in weights(a).iter().zip(&weights(b)) {
        assert!(a.equal(b), "{what}: {name}");
    }
}

/// What is kept of the teacher, and when it was written.
fn kept(store: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let entries = std::fs::read_dir(store).unwrap().map(|e| e.unwrap());
    entries.map(|e| (e.path(), e.metadata().unwrap().modified().unwrap())).collect()
}

#[test]
fn a_student_learns_the_teachers_distribution() {
    let _turn = alone();
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    set_up(dir, "llama", 300, 600);
    let vocabulary = |folder: &str| std::fs::read(dir.join(folder).join("best/tokenizer.json")).unwrap();
    for (name, objective) in [
        ("forward", "objective.logits = { weight = 1.0, divergence.forward_kl = { temperature = 2.0 } }"),
        ("reverse", "objective.logits.divergence.reverse_kl = {}"),
        ("jsd", "objective.logits.divergence.generalized_jsd = { beta = 0.3 }"),
        ("top-k", "teacher.cache.top_k = { k = 8 }"),
    ] {
        let out = dir.join(name);
        let o = run(&config(dir, objective, None, 600), &out, false, None);
        assert!(o.student.run.finished && o.teacher.is_none());
        let (first, last) = ends(&curve(&out, "divergence"));
        assert!(last < 0.3 * first, "{name}: {first} {last}");
        assert!(
            o.student.run.best.clone().unwrap().scores.exact_match >= 0.5,
            "{name}: {:?}",
            o.student.run.best
        );
        // The new student got the teacher's tokenizer, and its folder is a generator.
        assert_eq!(vocabulary(name), vocabulary("teacher"), "{name}");
        let _ = Generator::load(&out.join("best"), Device::Cpu, Compute::F32).unwrap();
        let store = out.join("teacher");
        assert_eq!(std::fs::read_dir(&store).unwrap().count() > 0, name == "top-k", "{name}");
    }
}

#[test]
fn there_is_nothing_to_learn_from_oneself() {
    let _turn = alone();
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    set_up(dir, "llama", 300, 5);
    let own = format!("model.base = \"{}/teacher/best\"", dir.display());
    for more in ["", "teacher.cache.top_k = { k = 8 }"] {
        let weight = "objective.logits.weight = 1.0\noptim.weight_decay = 0.0\n";
        let out = dir.join(format!("student{}", more.len()));
        let _ = run(&config(dir, &format!("{weight}{more}"), Some(&own), 2), &out, false, None);
        let first = curve(&out, "divergence")[0];
        assert!(first.abs() < 1e-6, "{first}");
        assert!(curve(&out, "grad_norm")[0] < 1e-4);
    }
}

#[test]
fn stopped_and_resumed_is_as_if_never_stopped() {
    let _turn = alone();
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    set_up(dir, "llama", 300, 600);
    let own =
        format!("model.base = \"{}/teacher/best\"\n[peft.lora]\nrank = 4\ndropout = 0.1", dir.display());
    let cases = [
        ("asked", "batch.accumulate = 2\ncontexts.golden_drop_rate = 0.3", None),
        ("kept", "teacher.cache.top_k = { k = 5 }\ncontexts.substitute_rate = 1.0", None),
        ("lora", "teacher.quantize = \"int8\"", Some(own.as_str())),
        (
            "answers",
            "objective.sequence = { batch_size = 1, decode = { max_new_tokens = 8, num_beams = 2 } }",
            None,
        ),
    ];
    for (name, more, model) in cases {
        // `batch.tokens` and `contexts.count` stand in `common` already, as dotted keys: others may join them.
        let c = config(dir, more, model, 7);
        let (whole, parts) = (dir.join(name), dir.join(format!("{name}-parts")));
        assert!(run(&c, &whole, false, None).student.run.finished);
        assert!(!run(&c, &parts, false, Some(3)).student.run.finished);
        assert!(!run(&c, &parts, true, Some(2)).student.run.finished);
        assert!(run(&c, &parts, true, None).student.run.finished);
        equal(&whole, &parts, name);
        if name == "lora" {
            assert!(!parts.join("best/model.safetensors").exists());
        }
    }
}

#[test]
fn an_encoder_decoder_teaches_another() {
    let _turn = alone();
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    set_up(dir, "t5", 300, 60);
    let student = format!("[model.scratch]\narchitecture = \"t5\"\n{STUDENT}");
    for (name, more) in [("asked", ""), ("kept", "teacher.cache.top_k = { k = 8 }")] {
        let c = config(dir, more, Some(&student), 60);
        let (whole, parts) = (dir.join(name), dir.join(format!("{name}-parts")));
        let _ = run(&c, &whole, false, None);
        let (first, last) = ends(&curve(&whole, "divergence"));
        assert!(last < 0.8 * first, "{name}: {first} {last}");
        let _ = run(&c, &parts, false, Some(20));
        assert!(run(&c, &parts, true, None).student.run.finished);
        equal(&whole, &parts, name);
    }
    // Of another kind.
    let e = fails(&config(dir, "", None, 2), &dir.join("x"));
    assert!(e.contains("decoder-only, the teacher an encoder-decoder") && e.contains("sequence"), "{e}");
}

#[test]
fn what_the_teacher_said_is_asked_once() {
    let _turn = alone();
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    set_up(dir, "llama", 300, 600);
    let cases = [
        ("answers", "objective.sequence = { batch_size = 1, decode = { max_new_tokens = 8 } }"),
        ("top-k", "teacher.cache.top_k = { k = 5 }"),
    ];
    for (name, more) in cases {
        let c = config(dir, more, None, 6);
        let (whole, parts) = (dir.join(name), dir.join(format!("{name}-parts")));
        let o = run(&c, &whole, false, None);
        if let Some(scores) = o.teacher {
            assert_eq!((scores.answered, scores.empty), (12, 0));
            assert!(scores.exact_match > Some(0.5), "{scores:?}");
        }
        let _ = run(&c, &parts, false, Some(3));
        let store = parts.join("teacher");
        let before = kept(&store);
        // Eight answers a file; forward passes of 400 tokens.
        assert!(before.len() >= 2, "{name}: {before:?}");
        // Without the header of a safetensors file, whose metadata are in no order.
        let text = |p: &Path| {
            let bytes = std::fs::read(p).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            bytes.get(8 + header..).map_or_else(|| bytes.clone(), <[u8]>::to_vec)
        };
        let (lost, _) = before.last_key_value().unwrap();
        let said = text(lost);
        // As if killed before the last file was there.
        std::fs::remove_file(lost).unwrap();
        assert!(run(&c, &parts, true, None).student.run.finished);
        let after = kept(&store);
        assert_eq!(text(lost), said, "{name}");
        for (path, written) in before.iter().filter(|(p, _)| *p != lost) {
            assert_eq!(after.get(path), Some(written), "{name}: {}", path.display());
        }
        equal(&whole, &parts, name);

        // Another student takes from a store what is there; of other settings nothing is.
        let shared = format!("{more}\nteacher.store = \"{}\"", store.display());
        let _ = run(&config(dir, &shared, None, 2), &dir.join(format!("{name}-second")), false, None);
        assert_eq!(kept(&store), after, "{name}");
        let other = shared.replace("k = 5", "k = 6").replace("max_new_tokens = 8", "max_new_tokens = 7");
        let _ = run(&config(dir, &other, None, 2), &dir.join(format!("{name}-third")), false, None);
        assert_eq!(kept(&store).len(), 2 * after.len(), "{name}");
    }
    // The student learns what stands there: a file that says something else teaches that.
    let out = dir.join("told");
    let sequence = "objective.sequence = { batch_size = 1, decode = { max_new_tokens = 8 } }";
    let _ = run(&config(dir, sequence, None, 150), &out, false, Some(1));
    let store = out.join("teacher");
    for path in kept(&store).into_keys() {
        let mut text = std::fs::read_to_string(&path).unwrap();
        for colour in COLOURS {
            text = text.replace(&format!("[\"{colour}\"]"), "[\"grey\"]");
        }
        std::fs::write(&path, text).unwrap();
    }
    let c = config(dir, &format!("{sequence}\nteacher.store = \"{}\"", store.display()), None, 150);
    assert_eq!(
        run(&c, &dir.join("told-again"), false, None).student.run.best.unwrap().scores.exact_match,
        0.0
    );
}

#[test]
fn what_cannot_be_learned_from_is_said() {
    let _turn = alone();
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    set_up(dir, "llama", 300, 2);
    // A student with a vocabulary of its own.
    let c = SftConfig::from_toml(&format!(
        "{}\n[model.scratch]\nvocab_size = 280\n{STUDENT}\n[run]\nmax_steps = 1\nseed = 5\nprecision = \"fp32\"",
        common(dir)
    ))
    .unwrap();
    sft::train(&c, &options(&dir.join("other"), false, None)).unwrap();
    let other = format!("model.base = \"{}/other/best\"", dir.display());
    for (i, more) in ["", "teacher.cache.top_k = { k = 5 }"].iter().enumerate() {
        let e = fails(&config(dir, more, Some(&other), 2), &dir.join(format!("x{i}")));
        assert!(
            e.contains("different vocabularies") && e.contains("number 280") && e.contains("sequence"),
            "{e}"
        );
    }
    // Its answers could be learned, had it any: it has hardly begun.
    let sequence = "objective.sequence.decode = { max_new_tokens = 3 }";
    let e = fails(&config(dir, sequence, Some(&other), 2), &dir.join("s"));
    assert!(e.contains("nothing to train on") && e.contains("no answer to learn"), "{e}");
    for (i, (more, words)) in [
        ("teacher.cache.top_k = { k = 300 }", "teacher.cache.top_k.k"),
        ("teacher.cache.top_k = { k = 0 }", "teacher.cache.top_k.k"),
        ("objective.logits.weight = 0.0", "objective.logits.weight"),
        ("objective.sequence = {}\nteacher.cache.top_k = {}", "teacher.cache"),
        ("objective.sequence.decode.num_return_sequences = 2", "num_return_sequences"),
        ("objective.sequence = {}\nprompt.template.cite = true", "cite"),
    ]
    .iter()
    .enumerate()
    {
        let e = fails(&config(dir, more, None, 2), &dir.join(format!("y{i}")));
        assert!(e.contains(words), "{more}: {e}");
    }
}
