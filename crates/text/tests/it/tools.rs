//! Tools, calls, results and reasoning against `apply_chat_template` of transformers (`golden/chat/make_tools.py`), token
//! for token, and what of them is learned.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ragduet_text::{ChatTemplate, EncodeOptions, ExampleOptions, LossOn, Tokenizer, Untrainable};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Golden {
    templates: BTreeMap<String, String>,
    /// The same with `{% generation %}`.
    marked: BTreeMap<String, String>,
    rows: BTreeMap<String, Row>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Row {
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    row: String,
    text: String,
    ids: Vec<u32>,
    mask: Vec<u8>,
    prompt: Vec<u32>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat/tools")
}

fn golden() -> (Golden, Tokenizer) {
    let text = std::fs::read_to_string(folder().join("tools.golden.json")).unwrap();
    (serde_json::from_str(&text).unwrap(), Tokenizer::from_dir(folder()).unwrap())
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, vec![("eos_token", "<|im_end|>".into())]).unwrap()
}

fn assistant() -> ExampleOptions {
    ExampleOptions { loss_on: LossOn::Assistant, ..ExampleOptions::default() }
}

#[test]
fn tokens_and_masks_are_those_of_transformers() {
    let (golden, tokenizer) = golden();
    assert_eq!(golden.cases.len(), 12);
    for case in &golden.cases {
        let Row { messages, tools } = &golden.rows[&case.row];
        let place = format!("{} {}", case.template, case.row);
        let plain = template(&golden.templates[&case.template]);
        let tools = tools.as_deref();
        assert_eq!(plain.render(messages, tools, false).unwrap().text, case.text, "{place}");
        let prompt = plain.render(messages, tools, true).unwrap().text;
        let options = EncodeOptions { add_special_tokens: false, strip: false, ..EncodeOptions::default() };
        assert_eq!(tokenizer.encode(&prompt, &options).unwrap().ids, case.prompt, "{place}");
        let marked = template(&golden.marked[&case.template]);
        let want: Vec<bool> = case.mask.iter().map(|&on| on == 1).collect();
        let e = tokenizer.chat_example(&marked, messages, tools, &assistant()).unwrap().unwrap();
        assert_eq!((&e.ids, &e.loss), (&case.ids, &want), "{place}");
        // Without marks the same is learned, and perhaps the line's end behind a turn.
        let e = tokenizer.chat_example(&plain, messages, tools, &assistant()).unwrap().unwrap();
        assert_eq!(e.ids, case.ids, "{place}");
        let (end, line) = (tokenizer.eos_id().unwrap(), tokenizer.encode("\n", &options).unwrap().ids);
        for (i, (own, want)) in e.loss.iter().zip(&want).enumerate() {
            let behind = i > 0 && e.ids[i - 1] == end && line == [e.ids[i]];
            assert!(own == want || *own && behind, "{place}: token {i}");
        }
    }
}

/// As TRL's mask of completions: all that stands behind the prompt, what others say in it too.
#[test]
fn a_completion_of_several_turns_is_learned_whole() {
    let (golden, tokenizer) = golden();
    let plain = EncodeOptions { add_special_tokens: false, strip: false, ..EncodeOptions::default() };
    for name in ["hermes", "qwen"] {
        for templates in [&golden.templates, &golden.marked] {
            let Row { messages, tools } = &golden.rows["two_calls"];
            let (template, tools) = (template(&templates[name]), tools.as_deref());
            let completed = messages.len() - 2;
            let options = ExampleOptions { completed, ..ExampleOptions::default() };
            let e = tokenizer.chat_example(&template, messages, tools, &options).unwrap().unwrap();
            let prompt = template.render(&messages[..1], tools, true).unwrap().text;
            let behind = tokenizer.encode(&prompt, &plain).unwrap().ids.len();
            let want: Vec<bool> = (0..e.ids.len()).map(|i| i >= behind).collect();
            assert_eq!(e.loss, want, "{name}");
        }
    }
}

#[test]
fn the_last_answer_alone_is_learned_with_its_call_and_thoughts() {
    let (golden, tokenizer) = golden();
    let learned = |name: &str, row: &str, on: LossOn, messages: Option<Vec<Value>>| {
        let Row { messages: own, tools } = &golden.rows[row];
        let messages = messages.as_ref().unwrap_or(own);
        let options = ExampleOptions { loss_on: on, ..ExampleOptions::default() };
        let built =
            tokenizer.chat_example(&template(&golden.templates[name]), messages, tools.as_deref(), &options);
        built.unwrap().map(|e| {
            let ids: Vec<u32> = e.ids.iter().zip(&e.loss).filter_map(|(id, on)| on.then_some(*id)).collect();
            tokenizer.decode(&ids, false).unwrap()
        })
    };
    let call = "I look it up.\n<tool_call>\n{\"name\": \"look_up\", \"arguments\": {\"query\": \"basalt é\", \"k\": 2}}\n\
                </tool_call><|im_end|>\n";
    assert_eq!(learned("hermes", "call", LossOn::Completion, None).unwrap(), call);
    assert_eq!(
        learned("qwen", "reasoning", LossOn::Completion, None).unwrap(),
        "<think>\nFour and two.\n</think>\n\nSix.<|im_end|>\n"
    );
    // A template that does not show the first thought learns what it shows.
    let all = learned("qwen", "reasoning", LossOn::Assistant, None).unwrap();
    assert!(all.starts_with("Four.<|im_end|>") && !all.contains("Add them"), "{all}");

    let with = |row: &str, changes: &[(usize, &str, Value)]| {
        let mut messages = golden.rows[row].messages.clone();
        for (i, key, value) in changes {
            messages[*i][*key] = value.clone();
        }
        messages
    };
    // Weight 0 is not learned: the first of two answers, the last, all.
    let first = with("two_calls", &[(1, "weight", json!(0)), (6, "weight", json!(1))]);
    for name in ["hermes", "qwen"] {
        let text = learned(name, "two_calls", LossOn::Assistant, Some(first.clone())).unwrap();
        assert!(
            !text.contains("look_up") && text.contains("nine.") && text.contains("Welcome"),
            "{name}: {text}"
        );
        let last = with("two_calls", &[(6, "train", json!(false))]);
        let text = learned(name, "two_calls", LossOn::Assistant, Some(last.clone())).unwrap();
        assert!(text.contains("look_up") && !text.contains("Welcome"), "{name}: {text}");
        let none = learned(name, "two_calls", LossOn::Completion, Some(last.clone()));
        assert_eq!(none, Err(Untrainable::NoWeight), "{name}");
        let all = learned(name, "two_calls", LossOn::All, Some(last)).unwrap();
        assert!(all.contains("Thanks.") && !all.contains("Welcome"), "{name}: {all}");
    }
    let neither = with("reasoning", &[(1, "weight", json!(0.0)), (3, "weight", json!(0))]);
    let none = learned("hermes", "reasoning", LossOn::Assistant, Some(neither));
    assert_eq!(none, Err(Untrainable::NoWeight));
    // Marked blocks are told apart as well.
    let options = assistant();
    let marked = template(&golden.marked["hermes"]);
    let e = tokenizer.chat_example(&marked, &first, None, &options).unwrap().unwrap();
    let ids: Vec<u32> = e.ids.iter().zip(&e.loss).filter_map(|(id, on)| on.then_some(*id)).collect();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "Dark grey; nine.<|im_end|>Welcome.<|im_end|>");
}

#[test]
fn the_fallback_shows_tools_and_calls() {
    let (golden, tokenizer) = golden();
    let Row { messages, tools } = &golden.rows["null_content"];
    let template = tokenizer.fallback_chat_template().unwrap();
    let text = template.render(messages, tools.as_deref(), true).unwrap().text;
    assert!(
        text.starts_with("Tools:\n{\"type\": \"function\"") && text.contains("\n\nSystem:\nBe brief."),
        "{text}"
    );
    let call = "Assistant:\n{\"name\": \"look_up\", \"arguments\": {\"query\": \"basalt\", \"k\": 1}}<|im_end|>\n\nTool:\n";
    assert!(text.contains(call) && text.ends_with("dark grey<|im_end|>\n\nAssistant:\n"), "{text}");
}
