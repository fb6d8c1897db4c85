//! What is not used, missing or cut is said, with the right numbers; what a row says reaches the model.

use crate::util::{config, fails, ok, ragduet, s, slice};
use serde_json::{Value, json};
use std::path::Path;

/// Standard output and error of a command that must succeed.
fn said(args: &[&str]) -> (String, String) {
    let out = ragduet(args).output().unwrap();
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{args:?}: {error}");
    (String::from_utf8(out.stdout).unwrap(), error)
}

const SFT: &str = r#"
[run]
seed = 1
device = "cpu"
max_steps = 2
log_every = 1
[model.scratch]
vocab_size = 400
hidden_size = 32
layers = 1
heads = 2
intermediate_size = 64
max_positions = 512
[prompt]
loss_on = "assistant"
[batch]
tokens = 512
"#;

const TEMPLATE: &str = "{%- if tools %}{{ '<s>tools ' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '</s>' }}{% endif %}\
    {% for m in messages %}{{ '<s>' + m.role + ' ' }}{% if m.content %}{{ m.content }}{% endif %}\
    {% for c in m.tool_calls or [] %}{{ '<call>' }}{{ c.function | tojson }}{% endfor %}{{ '</s>' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<s>assistant ' }}{% endif %}";

fn write(path: &Path, rows: &[Value]) {
    std::fs::write(path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
}

/// Tokens and learned tokens of a run's last step.
fn counted(run: &Path) -> (u64, u64) {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let mut lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    let last = lines.rfind(|l| l["kind"] == "train").unwrap();
    (last["tokens"].as_f64().unwrap() as u64, last["targets"].as_f64().unwrap() as u64)
}

#[test]
fn calls_tools_and_weights_reach_what_is_learned() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let toml = dir.join("sft.toml");
    let call = json!([{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{\"q\": \"basalt\"}"}}]);
    let tools = json!([{"type": "function", "function": {"name": "look", "parameters": {}}}]);
    let user = json!({"role": "user", "content": "What color is basalt?"});
    let row = |tools: &Value, answers: Vec<Value>| {
        let messages: Vec<Value> = std::iter::once(user.clone()).chain(answers).collect();
        json!({"tools": tools, "messages": messages})
    };
    let none = json!([]);
    let calling =
        json!({"role": "assistant", "content": null, "tool_calls": call, "reasoning_content": "hm"});
    let result = json!({"role": "tool", "content": "dark grey"});
    let answer = json!({"role": "assistant", "content": "It is dark grey."});
    let silent = json!({"role": "assistant", "content": "It is dark grey.", "weight": 0});
    let mut base = None;
    let mut train = |name: &str, row: &Value| {
        let data = dir.join(format!("{name}.jsonl"));
        write(&data, std::slice::from_ref(row));
        std::fs::write(&toml, format!("{SFT}\n[data]\ntrain = \"{}\"\n", data.display())).unwrap();
        let out = dir.join(name);
        let mut args = vec!["train", "generator", "-c", s(&toml), "--out", s(&out)];
        let model: Option<String> =
            base.as_ref().map(|b: &std::path::PathBuf| format!("model.base={}", b.display()));
        let no_scratch;
        if let Some(model) = &model {
            let text = std::fs::read_to_string(&toml).unwrap();
            let (head, tail) = text.split_once("[model.scratch]").unwrap();
            let tail = tail.split_once("[prompt]").unwrap().1;
            no_scratch = format!("{head}[model]\nbase = \"\"\n[prompt]{tail}");
            std::fs::write(&toml, &no_scratch).unwrap();
            args.extend(["--set", model]);
        }
        let (_, error) = said(&args);
        if base.is_none() {
            let made = dir.join("base");
            std::fs::rename(out.join("best"), &made).unwrap();
            std::fs::write(made.join("chat_template.jinja"), TEMPLATE).unwrap();
            base = Some(made);
            return (0, 0, error);
        }
        let (tokens, targets) = counted(&out);
        (tokens, targets, error)
    };
    let plain = row(&none, vec![answer.clone()]);
    train("start", &plain);
    let whole = train("whole", &row(&tools, vec![calling.clone(), result.clone(), answer.clone()]));
    let no_tools = train("no-tools", &row(&none, vec![calling.clone(), result.clone(), answer.clone()]));
    let no_call = train("no-call", &row(&tools, vec![answer.clone()]));
    let last_silent = train("silent", &row(&tools, vec![calling, result, silent]));
    let bare = train("bare", &plain);
    // Tools are read and not learned, the call is learned, weight 0 is read and not learned.
    assert!(whole.0 > no_tools.0 && whole.1 == no_tools.1, "{whole:?} {no_tools:?}");
    assert!(no_call.0 > bare.0 && no_call.1 == bare.1, "{no_call:?} {bare:?}");
    assert!(whole.1 > no_call.1 + 10, "{whole:?} {no_call:?}");
    // The end-of-sequence token may be added behind what is learned.
    assert!(
        whole.0 - last_silent.0 <= 1 && last_silent.1 == whole.1 - no_call.1,
        "{last_silent:?} {whole:?}"
    );
    // The template shows no reasoning: said once, with the number.
    assert!(whole.2.contains("reasoning_content (1)") && !whole.2.contains("tool_calls ("), "{}", whole.2);
    assert!(!bare.2.contains("not shown"), "{}", bare.2);
}

#[test]
fn records_without_answers_count_neither_as_right_nor_as_wrong() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let (known, unknown) =
        (json!({"question": "Which rock floats?", "answer": "pumice"}), json!({"question": "Why?"}));
    let file = |name: &str, rows: &[Value]| {
        write(&dir.join(name), rows);
        dir.join(name)
    };
    let train = file("train.jsonl", &[known.clone(), known.clone()]);
    let toml = dir.join("sft.toml");
    std::fs::write(&toml, format!("{SFT}\n[data]\ntrain = \"{}\"\n", train.display())).unwrap();
    let out = dir.join("g");
    ok(&["train", "generator", "-c", s(&toml), "--out", s(&out), "--quiet"]);
    let model = out.join("best");
    let some = file("some.jsonl", &[known.clone(), unknown.clone(), unknown.clone()]);
    let only = file("only.jsonl", std::slice::from_ref(&known));
    let none = file("none.jsonl", &[unknown.clone(), json!({"question": "How?", "solution": "thus"})]);
    let eval = |data: &Path| {
        let args =
            ["eval", "generator", "-g", s(&model), "--data", s(data), "--max-new-tokens", "4", "--json"];
        said(&args)
    };
    let ((all, error), (one, _)) = (eval(&some), eval(&only));
    assert!(error.contains("2 of 3 questions have no answer"), "{error}");
    let answer = |text: &str| serde_json::from_str::<Value>(text).unwrap()["with passages"]["answer"].clone();
    let (all, one) = (answer(&all), answer(&one));
    assert_eq!((&all["exact_match"], &all["f1"]), (&one["exact_match"], &one["f1"]));
    assert_eq!(all["without_answers"], 2);
    let e = fails(1, &["eval", "generator", "-g", s(&model), "--data", s(&none), "--max-new-tokens", "4"]);
    assert!(
        e.contains("none.jsonl")
            && e.contains("the columns found are question")
            && e.contains("golden_answers"),
        "{e}"
    );
    let dev = format!("data.dev={}", none.display());
    let e = fails(1, &["train", "generator", "-c", s(&toml), "--set", &dev, "--out", s(&dir.join("h"))]);
    assert!(e.contains("none of its 2 records has an answer"), "{e}");
    let wanted = format!("data.train={}", none.display());
    let e = fails(1, &["train", "generator", "-c", s(&toml), "--set", &wanted, "--out", s(&dir.join("i"))]);
    assert!(e.contains("nothing to train on") && e.contains("columns found are question"), "{e}");
    let answers = dir.join("answers.jsonl");
    ok(&["generate", "-g", s(&model), "-i", s(&some), "-o", s(&answers), "--max-new-tokens", "4"]);
    let text = std::fs::read_to_string(&answers).unwrap();
    let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(
        rows[0]["exact_match"].is_number() && rows[1]["exact_match"].is_null() && rows[2]["f1"].is_null(),
        "{text}"
    );
}

#[test]
fn judgements_that_fit_nothing_and_cut_texts_are_counted_everywhere() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let data = slice(dir, 12);
    let qrels = data.join("qrels/train.tsv");
    let text = std::fs::read_to_string(&qrels).unwrap();
    let query = text.lines().nth(1).unwrap().split('\t').next().unwrap();
    std::fs::write(&qrels, format!("# by us\n{text}nobody\tp\t1\nnone\tp\t1.0\n{query}\tgone\t1\tnote\n"))
        .unwrap();
    let toml = config(dir, &data, "[run]\nmax_steps = 2\n");
    let out = dir.join("run");
    let train =
        ["train", "retriever", "-c", s(&toml), "--out", s(&out), "--set", "model.max_passage_tokens=12"];
    let (_, error) = said(&train);
    assert!(error.contains("2 judgements of queries without a text"), "{error}");
    assert!(error.contains("1 judgements of passages that the corpus lacks"), "{error}");
    // What was cut: in the log, in the metrics.
    assert!(
        error.contains("longer than 12 tokens: ") && error.contains("% of their tokens unread"),
        "{error}"
    );
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = metrics.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let cut: Vec<&Value> = lines.iter().filter(|l| l["kind"] == "cut").collect();
    assert!(cut.len() == 1 && cut[0]["unread_share"].as_f64().unwrap() > 0.1, "{metrics}");
    let strict = dir.join("strict");
    let e =
        fails(1, &["train", "retriever", "-c", s(&toml), "--out", s(&strict), "--set", "data.missing=error"]);
    assert!(e.contains("train.tsv:") && e.contains("nobody"), "{e}");

    let model = out.join("best");
    let eval = ["eval", "retriever", "-m", s(&model), "--data", s(&data), "--split", "train"];
    let (_, error) = said(&eval);
    assert!(
        error.contains("2 judged queries have no text") && error.contains("1 relevant passages"),
        "{error}"
    );
    assert!(error.contains("longer than 12 tokens: "), "{error}");
    let e = fails(1, &[&eval[..], &["--missing", "error"]].concat());
    assert!(e.contains("2 judged queries have no text"), "{e}");
    for args in [
        vec![
            "index",
            "build",
            "-m",
            s(&model),
            "--corpus",
            s(&data.join("corpus.jsonl")),
            "-o",
            s(&dir.join("i")),
        ],
        vec!["encode", "-m", s(&model), "--input", s(&data.join("corpus.jsonl")), "-o", s(&dir.join("e"))],
    ] {
        let (_, error) = said(&args);
        assert_eq!(error.matches("tokens unread").count(), 1, "{error}");
    }

    // A run that lacks queries, and one of another data set.
    let run = dir.join("run.trec");
    std::fs::write(&run, format!("# ours\n{query} Q0 x 1 2 a run\nother Q0 x 1 1.0 a run\n")).unwrap();
    let (_, error) = said(&["eval", "run", s(&run), "--qrels", s(&qrels)]);
    assert!(error.contains("13 of 14 judged queries are not in the run"), "{error}");
    assert!(error.contains("1 queries of the run are not judged"), "{error}");
    std::fs::write(&run, "other Q0 x 1 1.0 a\n").unwrap();
    let e = fails(1, &["eval", "run", s(&run), "--qrels", s(&qrels)]);
    assert!(e.contains("none of the 14 judged queries"), "{e}");
}

#[test]
fn pages_and_sources_come_back_with_the_passages() {
    let tmp = tempfile::tempdir().unwrap();
    let (corpus, index) = (tmp.path().join("chunks.jsonl"), tmp.path().join("i"));
    write(
        &corpus,
        &[
            json!({"chunk_id": "b-1", "doc_id": "b", "page": 3, "text": "Basalt is dark grey.", "metadata": {"url": "u"}}),
            json!({"chunk_id": "p-1", "doc_id": "p", "page": 4, "text": "Pumice floats."}),
        ],
    );
    ok(&["index", "build", "--kind", "lexical", "--corpus", s(&corpus), "-o", s(&index)]);
    let found = ok(&["search", "--index", s(&index), "basalt", "-k", "1", "--json"]);
    let hit = serde_json::from_str::<Value>(&found).unwrap()[0]["hits"][0].clone();
    assert_eq!(
        (&hit["id"], &hit["metadata"]),
        (&json!("b-1"), &json!({"doc_id": "b", "page": 3, "url": "u"}))
    );
    let shown = ok(&["search", "--index", s(&index), "pumice", "-k", "1"]);
    assert!(shown.contains("p-1") && shown.contains("(doc_id p, page 4)"), "{shown}");
}
