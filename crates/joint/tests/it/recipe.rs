//! Joint training on a small world whose answers stand in the passages: learns, resumes bit for bit, alternates, stops a
//! side, sees a collapse.

use ragduet_data::BadRows;
use ragduet_generator::{ScratchArchitecture, ScratchGenerator};
use ragduet_joint::corpus::Corpus;
use ragduet_joint::pipeline::Reranker;
use ragduet_joint::recipe::config::{ContrastiveConfig as Contrastive, GeneratorObjective, JointConfig};
use ragduet_joint::recipe::{Outcome, RunOptions, train};
use ragduet_joint::refreshed_index::RefreshedIndex;
use ragduet_joint::retrieve::{Asked, RetrievalConfig, retrieve};
use ragduet_reranker::CrossEncoder;
use ragduet_retriever::recipe::config::GradCacheConfig as GradCache;
use ragduet_testkit::alone;
use ragduet_torch::Compute;
use ragduet_torch::weights::Weights;
use ragduet_train::config::Config as _;
use serde_json::{Value, json};
use std::path::Path;

const COLOURS: [&str; 5] = ["red", "green", "blue", "white", "black"];
const THINGS: [&str; 24] = [
    "house", "river", "stone", "cloud", "tree", "ship", "bird", "road", "gate", "lamp", "book", "coat",
    "bell", "wall", "field", "boat", "horse", "tower", "chair", "table", "spoon", "glass", "door", "roof",
];

const SHADES: [&str; 5] = ["pale", "dark", "deep", "soft", "warm"];

/// Another one for each thing.
fn colour(i: usize) -> String {
    format!("{} {}", SHADES[i / 5], COLOURS[i % 5])
}

fn world(dir: &Path) {
    let mut corpus = String::new();
    for (i, thing) in THINGS.iter().enumerate() {
        let text = format!("the {thing} of the village is {} since long", &colour(i));
        corpus += &format!("{}\n", json!({"_id": format!("p{i}"), "text": text}));
    }
    std::fs::write(dir.join("corpus.jsonl"), corpus).unwrap();
    let rows = |from: usize, step: usize| -> String {
        let row = |i: usize| {
            let question = format!("what colour has the {}?", THINGS[i]);
            json!({"id": format!("q{i}"), "question": question, "answers": [&colour(i)]}).to_string() + "\n"
        };
        (from..THINGS.len()).step_by(step).map(row).collect()
    };
    std::fs::write(dir.join("train.jsonl"), rows(0, 1)).unwrap();
    std::fs::write(dir.join("dev.jsonl"), rows(1, 3)).unwrap();
}

fn config(dir: &Path, more: &str) -> JointConfig {
    let d = dir.display();
    let text = format!(
        r#"
[run]
seed = 3
device = "cpu"
precision = "fp32"
epochs = 100.0
log_every = 1
[data]
train = "{d}/train.jsonl"
dev = "{d}/dev.jsonl"
corpus = "{d}/corpus.jsonl"
[retriever]
towers = "both"
optim = {{ lr = 3e-3 }}
[retriever.model]
max_query_tokens = 24
max_passage_tokens = 32
[retriever.model.scratch]
vocab_size = 300
hidden_size = 32
layers = 1
heads = 2
intermediate_size = 64
max_positions = 48
dropout = 0.1
[generator]
batch_tokens = 512
optim = {{ lr = 3e-3 }}
contexts = {{ count = 1, golden = "answering", max_golden = 1 }}
[generator.model.scratch]
vocab_size = 300
hidden_size = 32
layers = 2
heads = 2
kv_heads = 2
intermediate_size = 64
max_positions = 128
[generator.prompt.template]
instruction = ""
question = "first"
[retrieval]
k = 3
overfetch = 6
[batch]
size = 6
[eval]
samples = 2
decode = {{ max_new_tokens = 8, do_sample = false }}
{more}
"#
    );
    JointConfig::from_toml(&text).unwrap()
}

fn options(out: &Path, resume: bool, stop_after: Option<u64>) -> RunOptions {
    RunOptions { resume, quiet: true, stop_after, ..RunOptions::new(out) }
}

fn run(config: &JointConfig, out: &Path) -> Outcome {
    train(config, &options(out, false, None)).unwrap()
}

fn lines(run: &Path, kind: &str) -> Vec<Value> {
    std::fs::read_to_string(run.join("metrics.jsonl"))
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .filter(|v| v["kind"] == kind)
        .map(|mut v| match v["value"].take() {
            Value::Null => v,
            value => {
                let mut out = value;
                out["step"] = v["step"].clone();
                out
            }
        })
        .collect()
}

/// The parameters of a run's last checkpoint.
fn last(run: &Path, side: &str) -> Vec<(String, Vec<f32>)> {
    let mut steps: Vec<_> =
        std::fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    steps.sort();
    parameters(steps.last().unwrap(), side)
}

/// A side's parameters in a checkpoint.
fn parameters(checkpoint: &Path, side: &str) -> Vec<(String, Vec<f32>)> {
    let weights = Weights::open_file(&checkpoint.join("parameters.safetensors")).unwrap();
    let mut all: Vec<(String, Vec<f32>)> = weights
        .names()
        .filter_map(|n| {
            let bare = n.strip_prefix(side)?.strip_prefix('.')?;
            let t = weights.load(n, ragduet_torch::Device::Cpu).unwrap().view(-1);
            Some((bare.to_string(), Vec::<f32>::try_from(&t).unwrap()))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn same(a: &Path, b: &Path) {
    for side in ["retriever", "generator"] {
        same_side(a, b, side);
    }
}

fn same_side(a: &Path, b: &Path, side: &str) {
    let (x, y) = (last(a, side), last(b, side));
    assert!(!x.is_empty() && x.len() == y.len());
    for ((name, x), (_, y)) in x.iter().zip(&y) {
        assert!(x == y, "{side}: {name} differs");
    }
}

const DISTIL: &str = "[objective.distillation]\n";

#[test]
fn a_resumed_run_is_the_uninterrupted_one_whatever_the_refresh() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    for (name, refresh) in [
        ("waiting", "[refresh]\nevery_steps = 2\n"),
        ("beside", "[refresh]\nevery_steps = 2\nbackground_steps = 3\n"),
        ("turns", "[alternation.alternating]\nretriever = 2\ngenerator = 1\nmeasure = false\n"),
    ] {
        let mut c = config(tmp.path(), &format!("{DISTIL}{refresh}[save]\nevery_steps = 4\nkeep = 3\n"));
        c.run.max_steps = Some(9);
        let whole = tmp.path().join(format!("{name}-whole"));
        assert!(run(&c, &whole).run.finished);
        // Stopped after steps 3 and 5 (with a checkpoint), and at 8 as if killed: the checkpoint of step 8 is removed.
        let parts = tmp.path().join(format!("{name}-parts"));
        assert!(!train(&c, &options(&parts, false, Some(3))).unwrap().run.finished);
        assert!(!train(&c, &options(&parts, true, Some(2))).unwrap().run.finished);
        assert!(!train(&c, &options(&parts, true, Some(3))).unwrap().run.finished);
        std::fs::remove_dir_all(parts.join("checkpoints/step-000000008")).unwrap();
        assert!(train(&c, &options(&parts, true, None)).unwrap().run.finished);
        same(&whole, &parts);
        let refreshes = |run: &Path| {
            lines(run, "refresh").iter().map(|l| l["step"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(refreshes(&whole), refreshes(&parts), "{name}");
        if name != "turns" {
            assert!(refreshes(&whole).len() > 1, "{name}");
        }
    }
}

#[test]
fn both_sides_learn_and_what_they_leave_behind_answers() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    let mut c = config(tmp.path(), &format!("{DISTIL}[refresh]\nevery_steps = 10\n"));
    (c.run.epochs, c.run.max_steps, c.run.log_every) = (None, Some(500), 10);
    let out = tmp.path().join("run");
    let o = run(&c, &out);
    let (before, best) = (o.run.before.unwrap().scores, o.run.best.unwrap().scores);
    assert!(best.exact_match > 0.9 && best.context_gain > before.context_gain + 0.1, "{before} -> {best}");
    // What was left behind: models, index, samples, a table; and it answers on its own.
    let mut p = ragduet_joint::pipeline::RagPipeline::open(
        &out,
        None,
        ragduet_torch::Device::Cpu,
        ragduet_torch::Precision::Fp32,
    )
    .unwrap();
    let record = ragduet_data::RagRecord {
        id: "x".into(),
        question: format!("what colour has the {}?", THINGS[4]),
        answers: vec![colour(4)],
        ..Default::default()
    };
    let found = p.retrieve(std::slice::from_ref(&record), 3).unwrap();
    assert_eq!(found[0].contexts.len(), 3);
    let answers = p.answer(&found, 8, &mut |_| ()).unwrap();
    assert!(!answers[0].answer.is_empty());
    // A cross-encoder behind the retriever: of twice as many passages those that it likes best.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../reranker/tests/golden/cross");
    let model = CrossEncoder::load(&folder, ragduet_torch::Device::Cpu, Compute::F32).unwrap();
    let wide = p.retrieve(std::slice::from_ref(&record), 6).unwrap();
    let texts: Vec<&str> = wide[0].contexts.iter().map(|f| f.passage.text.as_str()).collect();
    let order = model.order(&record.question, &texts, 512).unwrap();
    let want: Vec<&str> =
        order[..3].iter().map(|(at, _)| wide[0].contexts[*at].passage.id.as_str()).collect();
    p.reranker = Some(Reranker { model, depth: 6, batch_tokens: 512 });
    let again = p.retrieve(std::slice::from_ref(&record), 3).unwrap();
    assert_eq!(again[0].contexts.iter().map(|f| f.passage.id.as_str()).collect::<Vec<_>>(), want);
    let text = std::fs::read_to_string(out.join("samples.jsonl")).unwrap();
    let samples: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(samples.len(), 2);
    assert!(samples[0]["after"]["contexts"][0]["text"].as_str().unwrap().contains("village"));
    let table: Value = serde_json::from_slice(&std::fs::read(out.join("table.json")).unwrap()).unwrap();
    assert_eq!(
        table["rows"][1]["values"].as_array().unwrap().len(),
        table["columns"].as_array().unwrap().len()
    );
    for kind in ["retrieval", "retriever", "generator", "refresh", "dev"] {
        assert!(!lines(&out, kind).is_empty(), "{kind}");
    }
    // An encoder of random weights may begin with one passage for everybody; a healthy run leaves that behind.
    let late = |l: &Value| l["step"].as_u64().unwrap() > 100;
    let alarms = lines(&out, "alarm");
    assert!(alarms.iter().all(|l| l["alarm"] != "collapse" || !late(l)), "{alarms:?}");
}

#[test]
fn a_generator_that_reads_passages_apart_teaches_by_what_it_looks_at() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    let mut c =
        config(tmp.path(), "[objective.attention]\nscore_temperature = 0.05\n[save]\nevery_steps = 2\n");
    c.run.max_steps = Some(6);
    c.generator.contexts.count = 3;
    for fusion in [true, false] {
        let scratch = c.generator.model.scratch.as_mut().unwrap();
        scratch.architecture = if fusion { ScratchArchitecture::T5 } else { ScratchArchitecture::Llama };
        c.generator.prompt.fusion = fusion;
        let (whole, parts) =
            (tmp.path().join(format!("whole{fusion}")), tmp.path().join(format!("parts{fusion}")));
        assert!(run(&c, &whole).run.finished);
        let seen = lines(&whole, "retriever");
        assert!(
            seen.len() >= 6 && seen.iter().all(|l| l["loss"].as_f64().is_some_and(|x| x > 0.0)),
            "{seen:?}"
        );
        assert!(seen.iter().all(|l| l["grad_norm"].as_f64().is_some_and(|x| x > 0.0)), "{seen:?}");
        assert!(!train(&c, &options(&parts, false, Some(3))).unwrap().run.finished);
        assert!(train(&c, &options(&parts, true, None)).unwrap().run.finished);
        same(&whole, &parts);
    }
}

#[test]
fn what_is_said_with_the_right_passage_is_learned_to_be_preferred() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    let mut c = config(tmp.path(), DISTIL);
    c.run.max_steps = Some(60);
    let first = tmp.path().join("first");
    run(&c, &first);
    let model = |side: &str| Some(first.join("best").join(side).display().to_string());
    (c.retriever.model.base, c.retriever.model.scratch) = (model("retriever"), None);
    (c.generator.model.base, c.generator.model.scratch) = (model("generator"), None);
    c.retriever.frozen = true;
    c.generator.objective = GeneratorObjective::Preferences;
    c.run.max_steps = Some(8);
    c.save.every_steps = 3;
    for peft in [None, Some("[lora]\nrank = 4\n")] {
        c.generator.peft = peft.map(|p| toml::from_str(p).unwrap());
        let [whole, parts] = ["whole", "parts"].map(|d| tmp.path().join(format!("{d}{}", peft.is_some())));
        assert!(run(&c, &whole).run.finished);
        let seen = lines(&whole, "generator");
        let of = |l: &Value, key: &str| l[key].as_f64().unwrap_or_else(|| panic!("{l}"));
        // Policy and reference are the same at first: log 2 and no margin.
        assert!((of(&seen[0], "loss") - 2f64.ln()).abs() < 1e-4, "{}", seen[0]);
        assert!(of(&seen[0], "reward_margin").abs() < 1e-4, "{}", seen[0]);
        let last = seen.last().unwrap();
        assert!(of(last, "reward_margin") > 0.05 && of(last, "loss") < 0.68, "{last}");
        assert!(!train(&c, &options(&parts, false, Some(4))).unwrap().run.finished);
        assert!(train(&c, &options(&parts, true, None)).unwrap().run.finished);
        same_side(&whole, &parts, "generator");
    }
    c.generator.model.base = None;
    c.generator.model.scratch = Some(ScratchGenerator::default());
    let e = train(&c, &options(&tmp.path().join("none"), false, None)).unwrap_err().to_string();
    assert!(e.contains("generator.objective") && e.contains("generator.model.base"), "{e}");
}

#[test]
fn a_retriever_that_collapses_is_seen() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    let mut c = config(tmp.path(), &format!("{DISTIL}[refresh]\nevery_steps = 1\n"));
    // Steps so large that every text gets the same embedding.
    (c.retriever.optim.lr, c.run.seed) = (0.1, 1);
    c.retriever.optim.max_grad_norm = 0.0;
    c.run.max_steps = Some(40);
    let out = tmp.path().join("run");
    run(&c, &out);
    let alarms = lines(&out, "alarm");
    let collapse: Vec<&Value> = alarms.iter().filter(|l| l["alarm"] == "collapse").collect();
    assert_eq!(collapse.len(), 1, "{alarms:?}");
    assert!(
        collapse[0]["text"].as_str().unwrap().contains("retrieval collapses: passage `p"),
        "{collapse:?}"
    );
}

#[test]
fn a_side_whose_turns_no_longer_help_is_stopped_and_kept_at_its_best() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    let turns = "[alternation.alternating]\nretriever = 2\ngenerator = 2\n";
    let mut c = config(tmp.path(), &format!("{DISTIL}{turns}"));
    // A retriever that is torn down by its own steps.
    c.retriever.optim.lr = 0.5;
    c.retriever.stop = Some(ragduet_train::StopConfig { patience: 2, min_gain: 0.0 });
    c.run.max_steps = Some(24);
    let out = tmp.path().join("run");
    let o = run(&c, &out);
    assert_eq!(o.run.step, 24);
    let stopped = lines(&out, "stopped");
    assert_eq!(stopped.len(), 1, "{stopped:?}");
    assert_eq!(stopped[0]["side"], "retriever");
    // Its weights are those that were kept, and its turns are the generator's now.
    let kept = Weights::open_file(&out.join("sides/retriever.safetensors")).unwrap();
    for (name, values) in last(&out, "retriever") {
        let t = kept.load(&name, ragduet_torch::Device::Cpu).unwrap().view(-1);
        assert!(Vec::<f32>::try_from(&t).unwrap() == values, "{name}");
    }
    assert!(!lines(&out, "gain_retriever").is_empty());
    let after = stopped[0]["step"].as_u64().unwrap();
    assert!(lines(&out, "retriever").iter().all(|l| l["step"].as_u64().unwrap() <= after));
}

#[test]
fn a_query_encoder_alone_leaves_passages_and_index_as_they_are() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    let mut first = config(tmp.path(), DISTIL);
    first.run.max_steps = Some(2);
    run(&first, &tmp.path().join("first"));
    let mut c = config(tmp.path(), &format!("{DISTIL}[refresh]\nevery_steps = 1\n"));
    let base = tmp.path().join("first/best/retriever");
    c.retriever.model.scratch = None;
    c.retriever.model.base = Some(base.display().to_string());
    c.retriever.towers = ragduet_joint::recipe::config::Towers::Query;
    c.run.max_steps = Some(6);
    let out = tmp.path().join("run");
    run(&c, &out);
    assert!(lines(&out, "refresh").is_empty());
    let base = Weights::open_dir(&base).unwrap();
    let (mut moved, mut held) = (0, 0);
    for (name, values) in last(&out, "retriever") {
        let (side, bare) = name.split_once('.').unwrap();
        let t = base.load(bare, ragduet_torch::Device::Cpu).unwrap().view(-1);
        let same = Vec::<f32>::try_from(&t).unwrap() == values;
        match side {
            "query_tower" => moved += usize::from(!same),
            _ => held += usize::from(same),
        }
        assert!(side == "query_tower" || same, "{name}");
    }
    assert!(moved > 5 && held > 5, "{moved} {held}");

    // A question's own copy in the corpus is not found for it, and takes no passage's place.
    let question = format!("what colour has the {}?", THINGS[0]);
    let copies: String =
        ["x", "y"].map(|id| json!({"_id": id, "text": question}).to_string() + "\n").concat();
    let path = tmp.path().join("with_copies.jsonl");
    std::fs::write(&path, std::fs::read_to_string(tmp.path().join("corpus.jsonl")).unwrap() + &copies)
        .unwrap();
    let corpus = Corpus::read(&path, &BadRows::default()).unwrap();
    let folder = tmp.path().join("first/best/retriever");
    let (device, compute) = (ragduet_torch::Device::Cpu, Compute::F32);
    let m = ragduet_retriever::st_dir::load(&folder, device, compute, &Default::default()).unwrap();
    let settings = RetrievalConfig { k: 3, overfetch: 5, ..RetrievalConfig::default() };
    let index = RefreshedIndex::build(&m, corpus.texts(), &settings.index, &settings.encode(), 0).unwrap();
    let questions = [question.clone()];
    let barred = [corpus.copies_of(&question).to_vec()];
    assert_eq!(barred[0].len(), 2);
    for moved in [false, true] {
        let found = |barred: &[Vec<u32>]| {
            let asked = Asked { questions: &questions, barred };
            retrieve(&m, corpus.texts(), &index, asked, &settings, moved).unwrap().rows.remove(0)
        };
        let (with, without) = (found(&[]), found(&barred));
        assert_eq!((with.len(), without.len()), (3, 3));
        assert!(without.iter().all(|row| !barred[0].contains(row)), "{without:?}");
    }
    // A new encoder has no passages yet that could be left as they are.
    let mut c = first.clone();
    c.retriever.towers = ragduet_joint::recipe::config::Towers::Query;
    let e = train(&c, &options(&tmp.path().join("no"), false, None)).unwrap_err().to_string();
    assert!(e.contains("retriever.towers"), "{e}");
}

#[test]
fn a_model_that_starts_later_is_left_as_it_is_and_waited_for() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    // A marginal likelihood trains the generator alone until then.
    let marginal = "[objective.rag_sequence]\nscore_temperature = 0.05\n[save]\nevery_steps = 1\nkeep = 9\n";
    let mut c = config(tmp.path(), marginal);
    c.generator.objective = GeneratorObjective::Marginal;
    (c.retriever.start_at, c.run.max_steps) = (3, Some(5));
    let out = tmp.path().join("marginal");
    run(&c, &out);
    let at = |step: usize, side| parameters(&out.join(format!("checkpoints/step-{step:09}")), side);
    // The first step of a warm-up has a learning rate of 0.
    assert!(at(1, "retriever") == at(3, "retriever") && at(3, "retriever") != at(5, "retriever"));
    assert!(at(1, "generator") != at(2, "generator"));
    let seen = lines(&out, "retriever");
    assert!(seen[..3].iter().all(|l| l["lr"].is_null() && l["loss"].as_f64().is_some()), "{seen:?}");
    assert!(seen[3..].iter().all(|l| l["grad_norm"].as_f64().is_some_and(|x| x > 0.0)), "{seen:?}");

    // Where they take turns, the run goes on while nobody learns yet.
    let blocks = "[alternation.alternating]\nretriever = 1\ngenerator = 2\nmeasure = false\n";
    let mut c = config(tmp.path(), &format!("{DISTIL}{blocks}"));
    (c.retriever.frozen, c.generator.start_at, c.run.max_steps) = (true, 3, Some(8));
    let out = tmp.path().join("turns");
    assert_eq!(run(&c, &out).run.step, 8);
    let steps: Vec<u64> = lines(&out, "generator").iter().map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [4, 5, 6, 7, 8]);
}

#[test]
fn what_a_run_leaves_behind_is_whole_also_without_measurements() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    let mut c = config(tmp.path(), &format!("{DISTIL}[refresh]\nevery_steps = 0\n"));
    c.run.max_steps = Some(3);
    // Dev is measured at the end alone: there is nothing to compare with.
    c.eval.at_start = false;
    let out = tmp.path().join("end");
    let o = run(&c, &out).run;
    assert!(o.before.is_none() && o.best.is_some() && o.model_dir.is_some_and(|d| d.is_dir()));
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let table: Value = serde_json::from_str(&read("table.json")).unwrap();
    assert_eq!(table["rows"].as_array().unwrap().len(), 1);
    let sample: Value = serde_json::from_str(read("samples.jsonl").lines().next().unwrap()).unwrap();
    assert!(sample["before"].is_null() && sample["after"]["answer"].is_string(), "{sample}");

    // No dev set: the index that is left is that of the last passages.
    c.data.dev = None;
    let out = tmp.path().join("none");
    let o = run(&c, &out).run;
    assert!(o.finished && o.best.is_none() && out.join("best/pipeline.json").is_file());
    let refreshes = lines(&out, "refresh");
    assert!(refreshes.len() == 1 && refreshes[0]["of_step"] == 3.0, "{refreshes:?}");
    let best: Value = serde_json::from_slice(&std::fs::read(out.join("best.json")).unwrap()).unwrap();
    assert!(best["step"] == 3 && best["dev"].is_null(), "{best}");
    // A run that has ended stays as it is.
    let again = train(&c, &options(&out, true, None)).unwrap().run;
    assert!(again.finished && again.step == 3);
}

#[test]
fn a_frozen_generator_is_asked_once_about_each_passage_and_the_retriever_learns_what_it_says() {
    let _alone = alone();
    let tmp = tempfile::tempdir().unwrap();
    world(tmp.path());
    // A generator of random weights: what it says means nothing, and is a teacher as good as any.
    let more = format!(
        "{DISTIL}teacher_temperature = 0.02\nscore_temperature = 0.05\n[contrastive]\npositives = \"teacher\"\n\
         [refresh]\nevery_steps = 8\n[save]\nevery_steps = 6\nkeep = 3\n"
    );
    let mut c = config(tmp.path(), &more);
    (c.generator.frozen, c.generator.optim) = (true, Default::default());
    c.generator.model.scratch.as_mut().unwrap().initializer_range = 0.2;
    (c.run.epochs, c.run.max_steps, c.eval.answered, c.data.limit) = (None, Some(240), 3, 18);
    let whole = tmp.path().join("whole");
    let best = run(&c, &whole).run.best.unwrap().scores;
    assert_eq!((best.questions, best.answered), (8, 3));
    assert!(best.to_string().contains("8 questions, the first 3 answered"), "{best}");
    let of = |run: &Path, key: &str| -> Vec<f64> {
        lines(run, "retrieval").iter().map(|l| l[key].as_f64().unwrap()).collect()
    };
    // Three batches an epoch: the first epoch scores everything, later ones what is new.
    let shares = of(&whole, "scored_before");
    assert!(shares[..3].iter().all(|&s| s == 0.0) && shares[50..].iter().sum::<f64>() > 8.0, "{shares:?}");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let kl = of(&whole, "teacher_kl");
    assert!(
        mean(&kl[234..]) < 0.5 * mean(&kl[..6]),
        "{} {} {}",
        mean(&kl[..6]),
        mean(&kl[110..120]),
        mean(&kl[234..])
    );
    let contrastive: Vec<f64> =
        lines(&whole, "retriever").iter().map(|l| l["contrastive"].as_f64().unwrap()).collect();
    assert!(mean(&contrastive[234..]) < 0.7 * mean(&contrastive[..6]), "{contrastive:?}");
    // Stopped in the second epoch, and gone on with: what was said is part of the checkpoint.
    let parts = tmp.path().join("parts");
    assert!(!train(&c, &options(&parts, false, Some(5))).unwrap().run.finished);
    assert!(train(&c, &options(&parts, true, None)).unwrap().run.finished);
    same_side(&whole, &parts, "retriever");
    assert_eq!(of(&parts, "scored_before"), shares);
}

#[test]
fn settings_that_cannot_work_are_named() {
    let tmp = tempfile::tempdir().unwrap();
    let stop = Some(ragduet_train::StopConfig { patience: 2, min_gain: 0.0 });
    let e = |change: &dyn Fn(&mut JointConfig)| {
        let mut c = config(tmp.path(), DISTIL);
        change(&mut c);
        c.validate().unwrap_err().to_string()
    };
    let all = [
        (e(&|c| c.batch.size = 0), "batch.size"),
        (e(&|c| c.retrieval.overfetch = 1), "retrieval.overfetch"),
        (
            e(&|c| c.contrastive = Some(Contrastive { temperature: 0.0, ..Contrastive::default() })),
            "contrastive.temperature",
        ),
        (e(&|c| c.retriever.stop = stop), "retriever.stop"),
        (e(&|c| c.eval.stop = stop), "eval.stop"),
        (e(&|c| c.generator.contexts.substitute_rate = 0.5), "generator.contexts.substitute_rate"),
        (e(&|c| c.generator.contexts.excerpt_epochs = 2), "generator.contexts.excerpt_epochs"),
        (e(&|c| (c.retriever.frozen, c.generator.frozen) = (true, true)), "retriever.frozen"),
        (e(&|c| c.generator.objective = GeneratorObjective::Marginal), "generator.objective"),
        (
            e(&|c| c.retriever.grad_cache = Some(GradCache { chunk_tokens: 0 })),
            "retriever.grad_cache.chunk_tokens",
        ),
    ];
    for (e, key) in all {
        assert!(e.starts_with(&format!("config: {key}: ")), "{key}: {e}");
    }
    // The end of a turn is a measurement to stop by.
    let blocks = "[alternation.alternating]\nretriever = 2\n";
    let mut c = config(tmp.path(), &format!("{DISTIL}{blocks}"));
    (c.retriever.stop, c.eval.stop) = (stop, stop);
    c.validate().unwrap();
}
