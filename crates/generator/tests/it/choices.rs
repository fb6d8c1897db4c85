//! T-Few as a whole: it learns to choose with few scalars, goes on from pre-trained vectors, and resumes bit for bit.

use ragduet_data::{BadRows, read_choices};
use ragduet_generator::Generator;
use ragduet_generator::ScratchArchitecture;
use ragduet_generator::ScratchGenerator;
use ragduet_generator::choices::{Choice, ChoiceOptions, ChoiceScores, choose_all};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::prepare::PromptConfig;
use ragduet_generator::recipe::RunOptions;
use ragduet_generator::recipe::config::TfewConfig;
use ragduet_generator::recipe::tfew::{Outcome, train};
use ragduet_testkit::alone;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Tensor, rng};
use ragduet_train::config::Config as _;
use std::fmt::Write as _;
use std::path::Path;

const THINGS: [&str; 8] = ["door", "gate", "roof", "wall", "lamp", "boat", "tree", "road"];
const COLOURS: [&str; 3] = ["red", "dark green", "a pale sort of blue"];

/// A base with random weights, and two tasks: which colour a thing has, and whether it is open.
fn set_up(dir: &Path, architecture: ScratchArchitecture) {
    rng::seed(2);
    let size = ScratchGenerator {
        architecture,
        vocab_size: 320,
        hidden_size: 32,
        layers: 2,
        heads: 2,
        kv_heads: 2,
        intermediate_size: 64,
        max_positions: 128,
        initializer_range: 0.2,
        ..ScratchGenerator::default()
    };
    let texts = THINGS.map(|t| format!("The {t} is red, dark green, a pale sort of blue; open, shut."));
    let model = size.build(texts.iter().map(String::as_str), Device::Cpu, Compute::F32).unwrap();
    model.save(&dir.join("base")).unwrap();
    let (mut colours, mut states) = (String::new(), String::new());
    for (i, t) in THINGS.iter().enumerate() {
        let row = serde_json::json!({
            "question": format!("What colour is the {t}?"), "choices": COLOURS, "answer": i % 3,
            "contexts": [{"id": t, "text": format!("The {t} is {}.", COLOURS[i % 3])}],
        });
        let _ = writeln!(colours, "{row}");
        let row = serde_json::json!({
            "prompt": format!("The {t} is "), "choices": ["open", "shut"], "answer": (["open", "shut"][i % 2]), "task": "state",
        });
        let _ = writeln!(states, "{row}");
    }
    let long = serde_json::json!({"prompt": "long ".repeat(300), "choices": ["a", "b"], "answer": 0});
    let _ = writeln!(states, "{long}");
    std::fs::write(dir.join("colours.jsonl"), colours).unwrap();
    std::fs::write(dir.join("states.jsonl"), states).unwrap();
}

fn config(dir: &Path, more: &str) -> TfewConfig {
    let text = format!(
        r#"
        run = {{ seed = 3, precision = "fp32", max_steps = 150, log_every = 1 }}
        model.base = "{0}/base"
        data.tasks = [
            {{ name = "colour", train = "{0}/colours.jsonl", dev = "{0}/colours.jsonl" }},
            {{ name = "other", train = "{0}/states.jsonl", dev = "{0}/states.jsonl" }},
        ]
        contexts.count = 1
        batch = {{ size = 6, tokens = 400 }}
        optim = {{ name = "adafactor", lr = 1e-1, weight_decay = 0.0, warmup = {{ steps = 3 }} }}
        save.every_steps = 5
        "#,
        dir.display()
    );
    // Keys of `more` replace those above.
    let mut table: toml::Table = toml::from_str(&text).unwrap();
    table.extend(toml::from_str::<toml::Table>(more).unwrap());
    TfewConfig::from_toml(&table.to_string()).unwrap()
}

fn run(config: &TfewConfig, out: &Path, resume: bool, stop_after: Option<u64>) -> Outcome {
    train(config, &RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() })
        .unwrap()
}

fn lines(run: &Path, kind: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let all = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    all.filter(|l| l["kind"] == kind).collect()
}

fn weights(dir: &Path) -> Vec<(String, Tensor)> {
    let w = Weights::open_file(&dir.join("adapter_model.safetensors")).unwrap();
    w.names().map(|n| (n.to_string(), w.load(n, Device::Cpu).unwrap())).collect()
}

#[test]
fn vectors_learn_a_mixture_and_go_on_with_one_task() {
    let _turn = alone();
    for architecture in [ScratchArchitecture::Llama, ScratchArchitecture::T5] {
        let dir = tempfile::tempdir().unwrap();
        set_up(dir.path(), architecture);
        let base = std::fs::read(dir.path().join("base/model.safetensors")).unwrap();
        let mixed = dir.path().join("mixed");
        let o = run(&config(dir.path(), "peft.ia3 = {}"), &mixed, false, None);
        assert!(o.run.finished && o.records == (16, 1), "{:?}: what is too long is counted", o.records);
        let all = lines(&mixed, "train");
        let loss = |l: &serde_json::Value| l["loss"].as_f64().unwrap();
        let sum = |l: &serde_json::Value| {
            ["language_model", "unlikelihood", "length_normalized"]
                .map(|k| l[k].as_f64().unwrap())
                .iter()
                .sum::<f64>()
        };
        assert!(all.iter().all(|l| (loss(l) - sum(l)).abs() < 1e-4));
        let mean = |l: &[serde_json::Value]| l.iter().map(loss).sum::<f64>() / l.len() as f64;
        assert!(mean(&all[140..]) < 0.8 * mean(&all[..10]), "{} {}", mean(&all[..10]), mean(&all[140..]));
        let scores = o.run.best.unwrap().scores;
        let names: Vec<&str> = scores.tasks.iter().map(|t| t.task.as_str()).collect();
        // The records' own names go before the file's; the one that is too long has none and is not scored.
        assert_eq!(names, ["colour", "state"]);
        assert!(scores.mean.accuracy > scores.mean.chance + 0.2, "{scores}");

        // Few-shot: the adapter's folder is the base, and its vectors are where training starts.
        let few = format!(
            "model.base = \"{0}/mixed/best\"\nrun = {{ max_steps = 1, precision = \"fp32\" }}\noptim.lr = 1e-9\n\
             data.tasks = [{{ name = \"colour\", train = \"{0}/colours.jsonl\", shots = 4 }}]",
            dir.path().display()
        );
        let adapted = dir.path().join("adapted");
        let o = run(&config(dir.path(), &few), &adapted, false, None);
        assert_eq!((o.records, o.run.best.is_none()), ((4, 0), true));
        for ((name, a), (_, b)) in weights(&mixed.join("best")).iter().zip(weights(&adapted.join("best"))) {
            assert!(
                a.allclose(&b, 1e-6, 1e-6, false) && !a.allclose(&a.ones_like(), 1e-3, 1e-3, false),
                "{name}"
            );
        }
        assert_eq!(base, std::fs::read(dir.path().join("base/model.safetensors")).unwrap());
    }
}

#[test]
fn stopped_and_resumed_is_as_if_never_stopped() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path(), ScratchArchitecture::Llama);
    let more = format!(
        "model = {{ base = \"{}/base\", attention_dropout = 0.1 }}\npeft.ia3 = {{}}\n\
         run = {{ max_steps = 12, precision = \"fp32\" }}\n\
         eval = {{ every_epochs = 1, at_start = false }}",
        dir.path().display()
    );
    let c = config(dir.path(), &more);
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    assert!(run(&c, &whole, false, None).run.finished);
    let o = run(&c, &parts, false, Some(7));
    assert!(!o.run.finished && o.run.step == 7);
    assert!(run(&c, &parts, true, None).run.finished);
    for ((name, a), (_, b)) in weights(&whole.join("best")).iter().zip(weights(&parts.join("best"))) {
        assert!(a.equal(&b), "{name}");
    }
    let strip = |run: &Path| -> Vec<(u64, String)> {
        lines(run, "dev").iter().map(|l| (l["step"].as_u64().unwrap(), l["accuracy"].to_string())).collect()
    };
    assert_eq!(strip(&whole), strip(&parts));
    // Steps have 6 of 16 records: epochs end within them. The last step is measured as well.
    let steps: Vec<u64> = strip(&whole).iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [3, 6, 8, 11, 12]);
}

#[test]
fn the_papers_number_of_steps_is_the_default() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path(), ScratchArchitecture::Llama);
    let length = |keys: &str| {
        let out = dir.path().join("x");
        let c = config(dir.path(), &format!("run = {{ {keys} }}\neval.at_start = false"));
        assert!(!run(&c, &out, false, Some(1)).run.finished);
        let resolved: toml::Table =
            toml::from_str(&std::fs::read_to_string(out.join("config.toml")).unwrap()).unwrap();
        std::fs::remove_dir_all(out).unwrap();
        let of = |key: &str| resolved["run"].get(key).cloned();
        (of("max_steps").and_then(|v| v.as_integer()), of("epochs").is_some())
    };
    assert_eq!(length(""), (Some(1000), false));
    assert_eq!(length("max_steps = 7"), (Some(7), false));
    assert_eq!(length("epochs = 3.0"), (None, true));
}

#[test]
fn choosing_does_not_depend_on_what_else_is_scored() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path(), ScratchArchitecture::Llama);
    let g = Generator::load(&dir.path().join("base"), Device::Cpu, Compute::F32).unwrap();
    let records: Vec<_> = read_choices(dir.path().join("colours.jsonl"), &BadRows::default())
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let prompt = PromptConfig::default();
    let chosen = |tokens: usize| -> Vec<Choice> {
        let contexts = ContextConfig::retrieved(1);
        let options = ChoiceOptions { prompt: &prompt, contexts, length_norm: 1.0, tokens, seed: 0 };
        choose_all(&g, &records, "t", &options, &mut |_| ()).unwrap().0
    };
    let (whole, single) = (chosen(100_000), chosen(1));
    for (a, b) in whole.iter().zip(&single) {
        assert!(a.log_p.iter().zip(&b.log_p).all(|(x, y)| (x - y).abs() < 1e-3), "{a:?} {b:?}");
        assert_eq!((a.chosen, &a.tokens), (b.chosen, &b.tokens));
    }
    let scores = ChoiceScores::of(&whole).unwrap();
    assert!((scores.mean.chance - 1.0 / 3.0).abs() < 1e-12 && scores.rows().count() == 1);
    let right = whole.iter().filter(|c| c.chosen == c.answer).count();
    assert!((scores.mean.accuracy - right as f64 / 8.0).abs() < 1e-12);
    assert!(ChoiceScores::of(&[]).is_err());
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    set_up(dir.path(), ScratchArchitecture::Llama);
    let one = |more: &str| {
        format!("data.tasks = [{{ name = \"a\", train = \"{}/colours.jsonl\"{more} }}]", dir.path().display())
    };
    let two = |a: &str, b: &str| {
        let at = dir.path().display();
        format!(
            "data.tasks = [{{ name = \"a\", train = \"{at}/colours.jsonl\"{a} }}, {{ name = \"b\", train = \"{at}/states.jsonl\"{b} }}]"
        )
    };
    for (more, words) in [
        ("data.tasks = []".to_string(), "one task or more"),
        (one(", shots = 9"), "9 of `a` are asked for, 8"),
        (one(", shots = 0"), "1 or more"),
        (two(", weight = 2.0", ""), "or none"),
        (two(", weight = 2.0", ", weight = 0.0"), "above 0"),
        (
            "loss = { language_model = 0.0, unlikelihood = 0.0, length_normalized = 0.0 }".into(),
            "nothing would",
        ),
        ("contexts = { substitute_rate = 0.5 }".into(), "no substitutes"),
        ("contexts = { excerpt_epochs = 2 }".into(), "passages stay whole"),
        ("prompt.loss_on = \"all\"".into(), "completion"),
        ("eval = { stop = { patience = 2 } }".into(), "every_steps"),
        ("batch = { tokens = 20 }".into(), "no record of task"),
        ("optim = { adafactor = { clip_threshold = 2.0 } }".into(), "optim.name is adamw"),
    ] {
        let out = dir.path().join("x");
        let options = RunOptions { out: out.clone(), quiet: true, ..RunOptions::default() };
        let e = train(&config(dir.path(), &more), &options).unwrap_err().to_string();
        assert!(e.contains(words), "{more}: {e}");
        let _ = std::fs::remove_dir_all(out);
    }
}
