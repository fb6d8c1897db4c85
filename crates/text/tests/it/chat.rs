//! Conversations against `apply_chat_template` of transformers (`golden/chat/make_chat.py`), and the masks made of them.

use std::collections::BTreeMap;
use std::path::Path;

use ragduet_text::{
    ByteBpeOptions, ChatTemplate, ExampleOptions, LossOn, Tokenizer, Untrainable, message, train_byte_bpe,
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Golden {
    templates: BTreeMap<String, String>,
    conversations: BTreeMap<String, Conversation>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    conversation: String,
    prompt: bool,
    /// Null where the template refused.
    text: Option<String>,
    /// Characters from and to.
    spans: Vec<(usize, usize)>,
}

fn golden() -> Golden {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/chat/chat.golden.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, vec![("bos_token", "<s>".into()), ("eos_token", "</s>".into())]).unwrap()
}

fn tokenizer() -> Tokenizer {
    let options = ByteBpeOptions {
        vocab_size: 320,
        min_frequency: 1,
        additional_special_tokens: ["<|im_start|>", "<|im_end|>", "</s>"].map(str::to_owned).to_vec(),
        ..Default::default()
    };
    train_byte_bpe(["user assistant system think a question and its answer"], &options).unwrap()
}

/// The text of the tokens that are learned.
fn learned(tokenizer: &Tokenizer, source: &str, messages: &[Value], loss_on: LossOn) -> String {
    let options = ExampleOptions { loss_on, ..Default::default() };
    let example = tokenizer.chat_example(&template(source), messages, None, &options).unwrap().unwrap();
    let ids: Vec<u32> =
        example.ids.iter().zip(&example.loss).filter(|&(_, &on)| on).map(|(&id, _)| id).collect();
    tokenizer.decode(&ids, false).unwrap()
}

#[test]
fn rendered_as_transformers_does() {
    let golden = golden();
    assert!(golden.cases.len() > 90);
    for case in &golden.cases {
        let Conversation { messages, tools } = &golden.conversations[&case.conversation];
        let rendered =
            template(&golden.templates[&case.template]).render(messages, tools.as_deref(), case.prompt);
        let place = format!("{} {} {}", case.template, case.conversation, case.prompt);
        let Some(text) = &case.text else {
            assert!(rendered.unwrap_err().to_string().contains("roles must alternate"), "{place}");
            continue;
        };
        let rendered = rendered.unwrap_or_else(|e| panic!("{place}: {e}"));
        assert_eq!(&rendered.text, text, "{place}");
        if case.template == "generation" {
            let chars = |byte: usize| text[..byte].chars().count();
            let spans: Vec<_> = rendered.answers.iter().map(|r| (chars(r.start), chars(r.end))).collect();
            assert_eq!(spans, case.spans, "{place}");
        }
    }
}

#[test]
fn masks_cover_the_answers() {
    let (golden, tokenizer) = (golden(), tokenizer());
    let turns = &golden.conversations["turns"].messages;
    for (name, last, all) in [
        ("smollm2", "e<|im_end|>\n", "b<|im_end|>\ne<|im_end|>\n"),
        ("qwen25", "e<|im_end|>\n", "b<|im_end|>\ne<|im_end|>\n"),
        // The reasoning block is empty, and only in the last turn; the first one is found by its marker.
        ("qwen3", "<think>\n\n</think>\n\ne<|im_end|>\n", "b<|im_end|><think>\n\n</think>\n\ne<|im_end|>\n"),
        ("zephyr", "e</s>\n", "b</s>\ne</s>\n"),
        ("generation", "e<|im_end|>\n", "b<|im_end|>\ne<|im_end|>\n"),
    ] {
        let source = &golden.templates[name];
        assert_eq!(learned(&tokenizer, source, turns, LossOn::Completion), last, "{name}");
        assert_eq!(learned(&tokenizer, source, turns, LossOn::Assistant), all, "{name}");
        let whole = template(source).render(turns, None, false).unwrap().text;
        assert_eq!(learned(&tokenizer, source, turns, LossOn::All), whole, "{name}");
    }
}

#[test]
fn a_template_without_a_visible_answer_is_an_error() {
    let source = "{{ messages | length }} {{ messages[0].content | upper }}";
    let messages = [message("user", "q"), message("assistant", "a")];
    let error = tokenizer()
        .chat_example(&template(source), &messages, None, &ExampleOptions::default())
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("It renders:\n2 Q"), "{error}");
}

#[test]
fn completions_end_and_are_never_cut() {
    let tokenizer = tokenizer();
    let options = ExampleOptions::default();
    let example = tokenizer.completion_example("question:", " answer", &options).unwrap().unwrap();
    let prompt = tokenizer.count("question:").unwrap();
    // The border is a token border here, so counting the prompt's tokens gives the same mask.
    let expected: Vec<bool> = (0..example.ids.len()).map(|i| i >= prompt).collect();
    assert_eq!(example.loss, expected);
    assert_eq!(example.ids.last().copied(), tokenizer.eos_id());
    let short = ExampleOptions { max_len: Some(example.ids.len() - 1), ..options };
    let built = tokenizer.completion_example("question:", " answer", &short).unwrap();
    assert_eq!(
        built,
        Err(Untrainable::TooLong { tokens: example.ids.len(), max_len: example.ids.len() - 1 })
    );
    let built = tokenizer.completion_example("question:", " ", &options).unwrap();
    assert_eq!(built, Err(Untrainable::NoAnswer));
}

#[test]
fn a_token_across_the_border_is_learned() {
    // A first word has no space before it, so this one is learned as a whole.
    let tokenizer =
        train_byte_bpe(["answer"; 8], &ByteBpeOptions { min_frequency: 1, ..Default::default() }).unwrap();
    let whole = tokenizer.completion_example("an", "swer", &ExampleOptions::default()).unwrap().unwrap();
    let one = tokenizer.count("answer").unwrap();
    assert!(one < tokenizer.count("an").unwrap() + tokenizer.count("swer").unwrap());
    assert!(whole.loss.iter().filter(|&&on| on).count() >= 2 && whole.loss[one - 1]);
}
