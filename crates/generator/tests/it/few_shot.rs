//! Few-shot prompts: what stands in front of a question, and what gives way where room is short.

use ragduet_data::{Found, Passage, RagRecord, Style};
use ragduet_generator::contexts::ContextConfig;
use ragduet_generator::prepare::{ExampleChoice, FewShotConfig, PrepareReport, Preparer, PromptConfig};
use ragduet_generator::{Generator, ScratchGenerator};
use ragduet_testkit::alone;
use ragduet_torch::{Compute, Device, rng};
use std::path::Path;

fn generator() -> Generator {
    rng::seed(1);
    let scratch: ScratchGenerator = serde_json::from_str(
        r#"{"vocab_size": 300, "hidden_size": 16, "layers": 1, "heads": 2, "kv_heads": 2,
                                "intermediate_size": 16, "max_positions": 2000}"#,
    )
    .unwrap();
    scratch.build(["a few words"].into_iter(), Device::Cpu, Compute::F32).unwrap()
}

fn record(door: usize) -> RagRecord {
    let passage = Passage { id: door.to_string(), title: None, text: format!("Door {door} is blue.") };
    RagRecord {
        id: "1".into(),
        question: format!("Which color has door {door}?"),
        answers: vec!["blue".into()],
        contexts: vec![Found { passage, score: None }],
        ..RagRecord::default()
    }
}

fn examples(dir: &Path) -> FewShotConfig {
    let path = dir.join("examples.jsonl");
    let row = |door: usize| {
        format!(
            r#"{{"id": "1", "question": "Which color has door {door}?", "answers": ["red{door}"],
                "contexts": [{{"id": "{door}", "text": "Door {door} is red{door}."}}]}}"#
        )
        .replace('\n', " ")
    };
    std::fs::write(&path, (1..5).map(|d| row(d) + "\n").collect::<String>()).unwrap();
    FewShotConfig { count: 3, choose: ExampleChoice::Similar, ..FewShotConfig::new(&path) }
}

#[test]
fn examples_stand_in_front_of_the_question_in_prompts_and_in_training() {
    let _turn = alone();
    let (g, dir) = (generator(), tempfile::tempdir().unwrap());
    let config = PromptConfig { examples: Some(examples(dir.path())), ..PromptConfig::default() };
    let p = Preparer::new(&g, &config, ContextConfig::retrieved(1), usize::MAX, 0).unwrap();
    let mut report = PrepareReport::default();
    let text = |ids: &[u32]| g.tokenizer.decode(ids, true).unwrap();
    let prompt = text(&p.prompt(&record(2), 8, &mut report).unwrap().unwrap().ids);
    // The question's own row is not among them; ids that are line numbers of two files are no reason to leave one out.
    assert!(!prompt.contains("red2"), "{prompt}");
    for door in [1, 3, 4] {
        assert!(
            prompt.contains(&format!(
                "Door {door} is red{door}.\n\nQuestion: Which color has door {door}?\n\nAnswer: red{door}"
            )),
            "{prompt}"
        );
    }
    assert!(prompt.ends_with("Door 2 is blue.\n\nQuestion: Which color has door 2?\n\nAnswer:"), "{prompt}");
    // Training learns the answer behind the same prompt, and the passage has its place behind the examples.
    let (example, places) = p.example_with_places(&record(1), 0, &mut report).unwrap().unwrap();
    let (read, learned) = (text(&example.ids), example.targets());
    assert!(
        read.contains("Answer: red4") && read.contains("Answer: blue") && !read.contains("red1"),
        "{read}"
    );
    assert!(learned < 12, "{learned}");
    assert_eq!(
        text(&example.ids[places[0].tokens.clone()]).trim().trim_start_matches("[1]").trim(),
        "Door 1 is blue."
    );
    assert_eq!((report.examples_dropped, report.without_examples), (0, 0));
}

#[test]
fn examples_without_room_are_left_out_and_counted_and_conversations_have_none() {
    let _turn = alone();
    let (g, dir) = (generator(), tempfile::tempdir().unwrap());
    let mut config = PromptConfig { examples: Some(examples(dir.path())), ..PromptConfig::default() };
    let whole = {
        let p = Preparer::new(&g, &config, ContextConfig::retrieved(1), usize::MAX, 0).unwrap();
        p.prompt(&record(9), 8, &mut PrepareReport::default()).unwrap().unwrap().ids.len()
    };
    config.max_tokens = Some(whole + 8);
    let p = Preparer::new(&g, &config, ContextConfig::retrieved(1), usize::MAX, 0).unwrap();
    let mut report = PrepareReport::default();
    let ids = p.prompt(&record(9), 8, &mut report).unwrap().unwrap().ids;
    assert!(report.examples_dropped >= 1 && ids.len() < whole, "{report}");
    assert_eq!(report.kept, 1, "the passage keeps its room");
    assert!(report.to_string().contains("few-shot examples left out for want of room"), "{report}");
    let chat = RagRecord { style: Style::Chat, ..record(9) };
    p.prompt(&chat, 8, &mut report).unwrap().unwrap();
    assert_eq!(report.without_examples, 1);

    let twice = PromptConfig {
        template: serde_json::from_str(r#"{"shots": [{"question": "a", "answer": "b"}]}"#).unwrap(),
        ..config
    };
    let e = Preparer::new(&g, &twice, ContextConfig::retrieved(1), usize::MAX, 0).unwrap_err().to_string();
    assert!(e.contains("prompt.examples") && e.contains("prompt.template.shots"), "{e}");
}
