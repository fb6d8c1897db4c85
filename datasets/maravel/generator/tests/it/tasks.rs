//! Tasks with answers to choose from are what they say: sound records, of their split's passages.

use std::collections::HashSet;

use ragduet_dataset_maravel::splits::Split;
use ragduet_dataset_maravel::{SEED, build, tasks};
use serde_json::Value;

#[test]
fn records_are_sound_and_splits_apart() {
    let data = build(SEED);
    let files = tasks::render(&data);
    assert_eq!(files.len(), (tasks::TASKS.len() + 1) * 3);
    let split_of = |id: &str| {
        let at = data.passages.iter().position(|p| p.id == id).unwrap();
        data.splits[at]
    };
    for split in Split::ALL {
        for task in tasks::TASKS {
            let name = format!("{task}.{}.jsonl", split.name());
            let (_, text) = files.iter().find(|(n, _)| *n == name).unwrap();
            let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
            assert!(rows.len() > 100, "{name}: {}", rows.len());
            let mut places = HashSet::new();
            for row in &rows {
                let choices: Vec<&str> =
                    row["choices"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
                let answer = row["answer"].as_u64().unwrap() as usize;
                let right = choices[answer];
                places.insert(answer);
                assert_eq!(choices.iter().collect::<HashSet<_>>().len(), choices.len(), "{row}");
                assert!([2, 4].contains(&choices.len()), "{row}");
                let contexts = row["contexts"].as_array().unwrap();
                assert!(contexts.iter().all(|c| split_of(c["id"].as_str().unwrap()) == split), "{row}");
                let stated = |c: &str| contexts.iter().any(|p| p["text"].as_str().unwrap().contains(c));
                match *task {
                    // What is right stands in the passage, and all choices in the question.
                    "direct" | "paraphrase" | "conversational" | "keyword" | "described" | "cloze" => {
                        let question = row["question"].as_str().unwrap();
                        assert!(stated(right) && choices.iter().all(|c| question.contains(c)), "{row}");
                    }
                    "name" | "alias" => {
                        let others = choices.iter().filter(|c| **c != right);
                        assert!(others.into_iter().all(|c| !stated(c)), "{row}");
                    }
                    "which" => assert_eq!(contexts.len(), 2, "{row}"),
                    _ => {}
                }
            }
            // The place of the right choice says nothing.
            let widest = rows.iter().map(|r| r["choices"].as_array().unwrap().len()).max().unwrap();
            assert_eq!(places.len(), widest, "{name}");
        }
    }
}
