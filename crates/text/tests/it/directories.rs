//! Tokenizer directories: what is accepted, what is refused and how, and that saving changes nothing.

use std::path::Path;

use ragduet_text::{EncodeOptions, PairOptions, Tokenizer, WordPieceOptions, train_wordpiece};

fn tiny() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny")
}

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), text).unwrap();
}

fn refused(dir: &Path) -> String {
    Tokenizer::from_dir(dir).unwrap_err().to_string()
}

#[test]
fn saving_keeps_every_byte() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        std::fs::copy(tiny().join(name), from.path().join(name)).unwrap();
    }
    write(from.path(), "vocab.txt", "as it was\r\n");
    let tokenizer = Tokenizer::from_dir(from.path()).unwrap();
    // Also into the directory it came from, and after that is gone.
    tokenizer.save(from.path()).unwrap();
    let before: Vec<_> = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
        .map(|name| (name, std::fs::read(from.path().join(name)).unwrap()))
        .into();
    drop(from);
    let target = to.path().join("deep/model");
    tokenizer.save(&target).unwrap();
    for (name, bytes) in before {
        assert_eq!(std::fs::read(target.join(name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 4);
}

#[test]
fn stored_padding_and_truncation_are_ignored() {
    let json = std::fs::read_to_string(tiny().join("tokenizer.json")).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
    value["truncation"] = serde_json::json!({
        "max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"
    });
    value["padding"] = serde_json::json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"
    });
    let changed = Tokenizer::from_bytes(value.to_string().as_bytes()).unwrap();
    let plain = Tokenizer::from_dir(tiny()).unwrap();
    let text = "the retriever finds passages for a query";
    let options = EncodeOptions::default();
    assert_eq!(changed.encode(text, &options).unwrap(), plain.encode(text, &options).unwrap());
    assert_eq!(changed.special_ids(), plain.special_ids());
}

#[test]
fn model_max_length_limits_unless_absurd() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(tiny().join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    for (value, expected) in [("16", Some(16)), ("1000000000000000019884624838656", None), ("null", None)] {
        write(
            dir.path(),
            "tokenizer_config.json",
            format!("{{\"model_max_length\": {value}, \"sep_token\": {{\"content\": \"[SEP]\"}}}}"),
        );
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!(tokenizer.model_max_length(), expected);
        let long = "passages ".repeat(100);
        assert_eq!(
            tokenizer.encode(&long, &EncodeOptions::default()).unwrap().len(),
            expected.unwrap_or(102)
        );
        assert_eq!(tokenizer.sep_id(), Some(3));
    }
    write(dir.path(), "tokenizer_config.json", r#"{"truncation_side": "middle"}"#);
    assert!(refused(dir.path()).contains("truncation_side is \"middle\""));
}

#[test]
fn refusals_name_the_file_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refused(&dir.path().join("nowhere")).contains("there is no such directory"));
    assert!(refused(dir.path()).contains("no tokenizer.json; save the fast tokenizer"));
    write(dir.path(), "merges.txt", "a b");
    write(dir.path(), "vocab.json", "{}");
    assert!(refused(dir.path()).contains("found vocab.json, merges.txt"), "{}", refused(dir.path()));
    write(dir.path(), "vocab.txt", "<s>\n</s>\nword\n");
    assert!(refused(dir.path()).contains("vocab.txt: not a BERT vocabulary ([UNK], [CLS], [SEP] missing)"));
    write(dir.path(), "tokenizer.json", "{\"version\": ");
    assert!(refused(dir.path()).contains("tokenizer.json: EOF while parsing"), "{}", refused(dir.path()));
    write(dir.path(), "tokenizer.json", r#"{"version": "1.0", "model": {"type": "Quantum"}}"#);
    assert!(refused(dir.path()).contains("tokenizer.json: not a tokenizer"), "{}", refused(dir.path()));
}

#[test]
fn a_vocabulary_alone_is_a_bert_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n##s\nHello\n");
    let uncased = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(uncased.encode("Hellos", &EncodeOptions::default()).unwrap().ids, [2, 5, 6, 3]);
    write(dir.path(), "tokenizer_config.json", r#"{"do_lower_case": false}"#);
    let cased = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(cased.encode("Hellos", &EncodeOptions::default()).unwrap().ids, [2, 7, 6, 3]);
    assert_eq!(
        cased.with_lower_case(true).encode("Hellos", &EncodeOptions::default()).unwrap().ids,
        [2, 5, 6, 3]
    );
    let saved = tempfile::tempdir().unwrap();
    uncased.save(saved.path()).unwrap();
    assert!(saved.path().join("tokenizer.json").is_file() && saved.path().join("vocab.txt").is_file());
}

#[test]
fn a_trained_tokenizer_comes_back_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = WordPieceOptions { vocab_size: 100, lowercase: false, ..WordPieceOptions::default() };
    let trained = train_wordpiece(["Some words, some Words and more words"], &options).unwrap();
    trained.save(dir.path()).unwrap();
    let loaded = Tokenizer::from_dir(dir.path()).unwrap();
    assert_eq!(loaded.special_ids(), trained.special_ids());
    assert_eq!(loaded.model_max_length(), Some(512));
    let options = EncodeOptions::default();
    assert_eq!(
        loaded.encode("Words some", &options).unwrap(),
        trained.encode("Words some", &options).unwrap()
    );
}

#[test]
fn segments_of_a_pair_are_given_where_transformers_gives_them() {
    let source = Tokenizer::from_bytes(PAIRS.as_bytes()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    source.save(dir.path()).unwrap();
    for (config, segments) in [
        (r#"{"tokenizer_class": "BertTokenizer"}"#, 2),
        (r#"{"tokenizer_class": "TokenizersBackend"}"#, 1),
        (r#"{"tokenizer_class": "BertTokenizer", "model_input_names": ["input_ids", "attention_mask"]}"#, 1),
        (
            r#"{"tokenizer_class": "TokenizersBackend", "model_input_names": ["input_ids", "token_type_ids"]}"#,
            2,
        ),
    ] {
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        let t = Tokenizer::from_dir(dir.path()).unwrap();
        let e = &t.encode_pairs(&[("a", "b")], &PairOptions::default()).unwrap()[0];
        let mut seen = e.type_ids.clone();
        seen.dedup();
        assert_eq!(seen.len(), segments, "{config}: {:?}", e.type_ids);
    }
}

/// Two words, and a post-processor with segments.
const PAIRS: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
"pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
"pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {}},
"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "[UNK]": 2}, "unk_token": "[UNK]"}}"#;
