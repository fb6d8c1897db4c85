//! Examples at the end of `--help`, in lines that can be copied.

use clap::Command;

/// Commands with examples. Those of training methods stand with the methods.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("quickstart", &["ragduet quickstart", "ragduet quickstart --out /tmp/quickstart"]),
    (
        "mine",
        &[
            "ragduet mine -m model --data scifact -o mined.jsonl --count 5 --rank-min 2 --relative-margin 0.05",
        ],
    ),
    ("encode", &["ragduet encode -m runs/x/best -i corpus.jsonl.gz -o embeddings"]),
    (
        "index build",
        &[
            "ragduet index build -m runs/x/best --corpus corpus.jsonl -o corpus.idx --kind hnsw",
            "ragduet index build --kind lexical --corpus corpus.jsonl -o words.idx",
            "ragduet index build --embeddings embeddings -o corpus.idx",
        ],
    ),
    (
        "search",
        &[
            "ragduet search --index corpus.idx \"how do vaccines work\"",
            "ragduet search --index corpus.idx -k 20 --json < questions.txt",
        ],
    ),
    (
        "retrieve",
        &[
            "ragduet retrieve -m runs/quickstart/best --data datasets/maravel --split train -k 10 -o train.rag.jsonl",
            "ragduet retrieve -m runs/mine/best --data my-data --split train,dev,test -o .",
        ],
    ),
    (
        "rerank",
        &[
            "ragduet rerank --rerank runs/cross/best --run bm25.trec --data scifact --split test -o reranked.trec",
        ],
    ),
    ("generate", &["ragduet generate -g runs/reader/best -i test.rag.jsonl -o answers.jsonl"]),
    (
        "ask",
        &[
            "ragduet ask --index corpus.idx -g runs/reader/best \"how do vaccines work\"",
            "ragduet ask --run runs/joint \"how do vaccines work\"",
        ],
    ),
    (
        "classify",
        &[
            "ragduet classify -m runs/topics/best --input texts.jsonl --out labels.jsonl",
            "ragduet classify -m nli-model --text \"A cat sleeps.\" --pair \"An animal rests.\"",
        ],
    ),
    (
        "eval retriever",
        &[
            "ragduet eval retriever -m sentence-transformers/all-MiniLM-L6-v2 --data scifact --split test",
            "ragduet eval retriever -m runs/dense/best -m runs/colbert/best --index bm25,model,hybrid --data scifact",
        ],
    ),
    ("eval generator", &["ragduet eval generator -g runs/reader/best --data test.rag.jsonl --compare"]),
    (
        "eval rag",
        &["ragduet eval rag -m runs/retriever/best -g runs/reader/best --data datasets/maravel --compare"],
    ),
    ("eval classifier", &["ragduet eval classifier -m runs/topics/best --data test.jsonl"]),
    ("eval choices", &["ragduet eval choices -g runs/tfew/best --data title.test.jsonl verify.test.jsonl"]),
    ("eval run", &["ragduet eval run run.trec --qrels qrels/test.tsv --compare other.trec"]),
    ("merge", &["ragduet merge runs/x/best -o merged"]),
    ("combine", &["ragduet combine runs/a/best=0.7 runs/b/best=0.3 -o both"]),
    (
        "convert",
        &[
            "ragduet convert SmolLM2-135M-Instruct.Q4_1.gguf -o smollm2",
            "ragduet convert ~/.ollama/models/blobs/sha256-... -o model",
        ],
    ),
    (
        "export gguf",
        &[
            "ragduet export gguf runs/reader/best -o reader.gguf",
            "ragduet export gguf runs/reader/best -o reader-q8.gguf --type q8_0",
        ],
    ),
    (
        "data convert",
        &[
            "ragduet data convert squad.json --to triplets.jsonl.zst",
            "ragduet data convert triplets.jsonl --split train --to my-beir-folder",
        ],
    ),
    ("data folder", &["ragduet data folder docs --questions questions.tsv -o my-data"]),
    ("data stats", &["ragduet data stats scifact --json"]),
    (
        "data preview",
        &[
            "ragduet data preview faq.csv --map query=Question --map positives=Answer --as examples",
            "ragduet data preview train.jsonl -n 5 -m runs/reader/best",
        ],
    ),
    ("data formats", &["ragduet data formats"]),
    ("info", &["ragduet info runs/x/best", "ragduet info corpus.idx --json"]),
    ("report", &["ragduet report runs/a runs/b answers.jsonl -o report.html"]),
    ("doctor", &["ragduet doctor"]),
];

/// Columns of a line: a terminal's 80 without a margin, so that the shell's line is the text's.
const COLUMNS: usize = 76;

/// Puts the examples behind the options of every command.
pub fn with_examples(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, examples)| {
        let parts: Vec<&str> = path.split(' ').collect();
        at(command, &parts, &help_of(examples))
    })
}

fn at(command: Command, path: &[&str], help: &str) -> Command {
    match path.split_first() {
        None => command.after_help(help.to_string()),
        Some((first, rest)) => command.mut_subcommand(*first, |inner| at(inner, rest, help)),
    }
}

/// Examples as `--help` shows them.
pub fn help_of(examples: &[&str]) -> String {
    let title = if examples.len() == 1 { "Example:" } else { "Examples:" };
    let shown: Vec<String> = examples.iter().map(|e| broken(e)).collect();
    format!("{title}\n{}", shown.join("\n"))
}

/// A command in lines that the shell takes for one, broken before options.
fn broken(example: &str) -> String {
    let mut lines = vec![String::from(" ")];
    let mut quoted = false;
    let mut word = String::new();
    let mut words = Vec::new();
    for c in example.chars() {
        quoted ^= c == '"';
        match c {
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    for word in words {
        let full = lines.last().is_some_and(|l| l.len() + word.len() + 3 > COLUMNS);
        match lines.last_mut() {
            Some(line) if full => {
                line.push_str(" \\");
                lines.push(format!("     {word}"));
            }
            Some(line) => line.push_str(&format!(" {word}")),
            None => {}
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Each command's path and what stands behind its options.
    fn leaves(command: &Command, path: &str, all: &mut Vec<(String, String)>) {
        let inner: Vec<&Command> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
        if inner.is_empty() {
            all.push((path.into(), command.get_after_help().map(ToString::to_string).unwrap_or_default()));
        }
        for c in inner {
            leaves(c, &format!("{path} {}", c.get_name()), all);
        }
    }

    #[test]
    fn every_command_has_an_example_that_is_one() {
        let command = with_examples(crate::Cli::command());
        let mut all = Vec::new();
        leaves(&command, "", &mut all);
        assert!(all.len() > 30, "{all:?}");
        for (path, help) in all {
            let path = path.trim();
            let (_, examples) = help.split_once('\n').unwrap_or_else(|| panic!("{path} has no example"));
            assert!(examples.lines().all(|l| l.len() <= 80), "{path}: {examples}");
            for example in examples.replace(" \\\n", " ").lines() {
                let example = example.split(" < ").next().unwrap_or_default();
                let words = example.split('"').enumerate().flat_map(|(i, part)| match i % 2 {
                    0 => part.split_whitespace().map(String::from).collect(),
                    _ => vec![part.to_string()],
                });
                let words: Vec<String> = words.take_while(|w| w != ">").collect();
                assert!(words.join(" ").starts_with(&format!("ragduet {path}")), "{path}: {example}");
                let parsed = command.clone().try_get_matches_from(words);
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }
}
