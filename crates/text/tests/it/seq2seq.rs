//! Examples of encoder-decoders against transformers' tokenizer (`golden/make_t5.py`).

use ragduet_text::{ExampleOptions, Tokenizer, TrainExample, Untrainable};
use std::path::Path;

type Pairs = Vec<(String, Vec<u32>)>;

fn golden() -> (Tokenizer, Pairs, Pairs) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/t5");
    let text = std::fs::read_to_string(dir.join("golden.json")).unwrap();
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let pairs = |key: &str| serde_json::from_value(all[key].clone()).unwrap();
    (Tokenizer::from_dir(&dir).unwrap(), pairs("sources"), pairs("targets"))
}

#[test]
fn sources_and_targets_are_those_of_transformers() {
    let (t, sources, targets) = golden();
    for (text, ids) in &sources {
        assert_eq!(&t.source_ids(text).unwrap(), ids, "{text:?}");
    }
    assert!(sources.iter().any(|(_, ids)| ids.len() > t.model_max_length().unwrap()), "nothing is cut");
    for ((source, read), (target, answer)) in sources.iter().zip(&targets) {
        // White space around an answer is a matter of decoder-only prompts.
        let built = t.seq2seq_example(source, &format!(" {target}\n"), 0, &ExampleOptions::default());
        let e: TrainExample = built.unwrap().unwrap();
        assert_eq!(e.source, read.len());
        assert_eq!(e.ids, [read.as_slice(), &[0], answer].concat(), "{source:?} {target:?}");
        assert_eq!(e.targets(), answer.len());
        assert!(e.predicted().all(|i| e.loss[i]) && !e.loss[..=e.source].iter().any(|on| *on));
    }
}

#[test]
fn what_cannot_be_learned_is_told() {
    let (t, ..) = golden();
    let options = ExampleOptions::default();
    assert_eq!(t.seq2seq_example("what?", " \n", 0, &options).unwrap(), Err(Untrainable::NoAnswer));
    let whole = t.seq2seq_example("what?", "this", 0, &options).unwrap().unwrap();
    let short = ExampleOptions { max_len: Some(whole.ids.len() - 1), ..options };
    let want = Untrainable::TooLong { tokens: whole.ids.len(), max_len: whole.ids.len() - 1 };
    assert_eq!(t.seq2seq_example("what?", "this", 0, &short).unwrap(), Err(want));
    let open = ExampleOptions { append_eos: false, ..options };
    let e = t.seq2seq_example("what?", "this", 0, &open).unwrap().unwrap();
    assert_eq!(e.ids, whole.ids[..whole.ids.len() - 1]);
}
