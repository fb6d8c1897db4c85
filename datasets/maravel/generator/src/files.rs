//! The dataset as files: BEIR's layout, and `answers.jsonl` beside it.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use crate::Dataset;
use crate::splits::Split;

/// All files, as path below the dataset's directory and content.
pub fn render(data: &Dataset) -> Vec<(String, String)> {
    let mut corpus = String::new();
    for passage in &data.passages {
        line(&mut corpus, &json!({"_id": passage.id, "title": passage.title, "text": passage.text}));
    }
    let (mut queries, mut answers) = (String::new(), String::new());
    for question in &data.questions {
        let phrasing = if question.seen { "shared" } else { "held-out" };
        let fact = question.facts.join("+");
        let metadata = json!({"style": question.style, "fact": fact, "phrasing": phrasing});
        line(&mut queries, &json!({"_id": question.id, "text": question.text, "metadata": metadata}));
        let gold: Vec<&str> = question.gold.iter().map(|&at| data.passages[at].id.as_str()).collect();
        line(
            &mut answers,
            &json!({
                "_id": question.id,
                "question": question.text,
                "answers": question.answers,
                "split": question.split.name(),
                "passage": gold[0],
                "passages": gold,
                "style": question.style,
            }),
        );
    }
    let mut files = vec![
        ("corpus.jsonl".to_string(), corpus),
        ("queries.jsonl".to_string(), queries),
        ("answers.jsonl".to_string(), answers),
    ];
    for split in Split::ALL {
        let mut qrels = String::from("query-id\tcorpus-id\tscore\n");
        for question in data.questions.iter().filter(|question| question.split == split) {
            for &gold in &question.gold {
                qrels.push_str(&format!("{}\t{}\t1\n", question.id, data.passages[gold].id));
            }
        }
        files.push((format!("qrels/{}.tsv", split.name()), qrels));
    }
    files
}

/// Writes all files below `root`, each through a temporary name.
pub fn write(data: &Dataset, root: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join("qrels"))?;
    for (name, content) in render(data) {
        let path = root.join(&name);
        let partial = path.with_extension("partial");
        fs::write(&partial, content)?;
        fs::rename(&partial, &path)?;
    }
    Ok(())
}

/// The files below `root` that differ from what the generator would write, with the reason.
pub fn differences(data: &Dataset, root: &Path) -> Vec<String> {
    let compare = |(name, content): (String, String)| match fs::read_to_string(root.join(&name)) {
        Ok(found) if found == content => None,
        Ok(found) => {
            let at = found.lines().zip(content.lines()).take_while(|(a, b)| a == b).count() + 1;
            Some(format!("{name}: differs from line {at} on; regenerate it"))
        }
        Err(error) => Some(format!("{name}: {error}")),
    };
    render(data).into_iter().filter_map(compare).collect()
}

fn line(out: &mut String, value: &Value) {
    out.push_str(&value.to_string());
    out.push('\n');
}
