//! Ids equal those of `transformers` 5.3, on texts that are hard to tokenize.
//!
//! The committed golden is of a tiny tokenizer that this crate trained. Where `RAGDUET_MINILM` names the directory of
//! all-MiniLM-L6-v2 and `RAGDUET_PYTHON` (or the repository's `.venv`) can make the golden, that is compared as well.

use std::path::{Path, PathBuf};
use std::process::Command;

use ragduet_text::{
    ByteBpeOptions, EncodeOptions, Encoding, PairOptions, PairTruncation, Tokenizer, WordPieceOptions,
    train_byte_bpe, train_wordpiece,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    special: Special,
    all_special: Vec<u32>,
    vocab_size: usize,
    texts: Vec<String>,
    prompts: Vec<String>,
    singles: Vec<Batch>,
    pairs: Vec<Batch>,
    bare: Vec<Vec<u32>>,
    stripped_prompted: Vec<Vec<Vec<u32>>>,
    prefix_lens: Vec<usize>,
    decoded: Vec<String>,
}

#[derive(Deserialize)]
struct Special {
    pad: u32,
    unk: u32,
    cls: u32,
    sep: u32,
    mask: u32,
}

#[derive(Deserialize)]
struct Batch {
    max_len: usize,
    ids: Vec<Vec<u32>>,
    type_ids: Vec<Vec<u32>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn compare(tokenizer: &Tokenizer, golden: &Golden) {
    let texts = &golden.texts;
    let check = |got: &[Encoding], ids: &[Vec<u32>], type_ids: Option<&[Vec<u32>]>, what: &str| {
        for (i, encoding) in got.iter().enumerate() {
            assert_eq!(encoding.ids, ids[i], "{what}, text {i}: {:?}", texts[i]);
            if let Some(type_ids) = type_ids {
                assert_eq!(encoding.type_ids, type_ids[i], "{what}, segments of text {i}");
            }
        }
        assert_eq!(got.len(), ids.len());
    };
    let ids = tokenizer.special_ids();
    let Special { pad, unk, cls, sep, mask } = golden.special;
    assert_eq!([ids.pad, ids.unk, ids.cls, ids.sep, ids.mask], [pad, unk, cls, sep, mask].map(Some));
    assert_eq!(ids.all, golden.all_special);
    assert_eq!(tokenizer.vocab_size(), golden.vocab_size);
    let plain = EncodeOptions { strip: false, ..EncodeOptions::default() };
    for batch in &golden.singles {
        let options = EncodeOptions { max_len: Some(batch.max_len), ..plain };
        let got = tokenizer.encode_batch(texts, &options).unwrap();
        check(&got, &batch.ids, Some(&batch.type_ids), &format!("max_len {}", batch.max_len));
        let counts = tokenizer.count_batch(texts, &options).unwrap();
        assert_eq!(counts, batch.ids.iter().map(Vec::len).collect::<Vec<_>>());
    }
    let bare = EncodeOptions { max_len: Some(8), add_special_tokens: false, ..plain };
    check(&tokenizer.encode_batch(texts, &bare).unwrap(), &golden.bare, None, "no special tokens");
    let pairs: Vec<(&String, &String)> = texts.iter().zip(texts.iter().cycle().skip(3)).collect();
    for batch in &golden.pairs {
        let truncation = PairTruncation::LongestFirst;
        let options =
            PairOptions { max_len: Some(batch.max_len), truncation, strip: false, ..PairOptions::default() };
        let got = tokenizer.encode_pairs(&pairs, &options).unwrap();
        check(&got, &batch.ids, Some(&batch.type_ids), &format!("pairs, max_len {}", batch.max_len));
    }
    for (i, prompt) in golden.prompts.iter().enumerate() {
        let options = EncodeOptions { max_len: Some(32), prefix: Some(prompt), ..EncodeOptions::default() };
        let got = tokenizer.encode_batch(texts, &options).unwrap();
        check(&got, &golden.stripped_prompted[i], None, prompt);
        assert_eq!(tokenizer.prefix_len(prompt, Some(256)).unwrap(), golden.prefix_lens[i], "{prompt:?}");
    }
    let batch = golden.singles.iter().find(|b| b.max_len == 64).unwrap();
    for (ids, text) in batch.ids.iter().zip(&golden.decoded) {
        assert_eq!(&tokenizer.decode(ids, true).unwrap(), text);
    }
}

fn corpus() -> Vec<&'static str> {
    vec![
        "The retriever finds passages and the generator writes answers from the passages.",
        "A retriever is trained on queries, positives and negatives: the passages that answer, and those that do not.",
        "query: what does the retriever find? passage: the retriever finds passages for a query",
        "Represent this sentence for searching relevant passages: special tokens inside text",
        "Unicode, naive cafe, Ausserung, combining control chars between separators, leading and trailing spaces",
        "東京は日本の首都です。检索增强生成 한국어",
        "don't stop: e.g. U.S.A., 3.14% of $1,000 -- (really?) http://example.org/?q=a+b&c=%20#frag",
        "0 1 2 3 4 5 6 7 8 9 a b c d e f g h i j k l m n o p q r s t u v w x y z",
    ]
}

#[test]
fn the_tiny_tokenizer_is_what_training_gives() {
    let options = WordPieceOptions { vocab_size: 400, max_len: 512, ..WordPieceOptions::default() };
    let trained = train_wordpiece(corpus(), &options).unwrap();
    let committed = folder().join("tiny");
    if std::env::var_os("RAGDUET_UPDATE").is_some() {
        trained.save(&committed).unwrap();
        println!("written; now run golden/make.py");
    }
    let scratch = tempfile::tempdir().unwrap();
    trained.save(scratch.path()).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
        let read = |dir: &Path| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read(scratch.path()), read(&committed), "{name} (RAGDUET_UPDATE=1 writes it again)");
    }
}

#[test]
fn tiny_tokenizer() {
    let golden = std::fs::read(folder().join("tiny.golden.json")).unwrap();
    let golden: Golden = serde_json::from_slice(&golden).unwrap();
    compare(&Tokenizer::from_dir(folder().join("tiny")).unwrap(), &golden);
}

#[test]
fn all_minilm() {
    let Some(dir) = std::env::var_os("RAGDUET_MINILM").map(PathBuf::from) else {
        println!("skipped: RAGDUET_MINILM does not name the directory of all-MiniLM-L6-v2");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python =
        std::env::var_os("RAGDUET_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    let made = match Command::new(&python).arg(folder().join("make.py")).arg(&dir).output() {
        Ok(made) => made,
        Err(e) => {
            println!("skipped: {}: {e} (set RAGDUET_PYTHON)", python.display());
            return;
        }
    };
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let golden: Golden = serde_json::from_slice(&made.stdout).unwrap();
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    compare(&tokenizer, &golden);

    // The same vocabulary as the 2018 release had it.
    let vocab_only = tempfile::tempdir().unwrap();
    std::fs::copy(dir.join("vocab.txt"), vocab_only.path().join("vocab.txt")).unwrap();
    let mut from_vocab = golden;
    from_vocab.all_special.sort_unstable();
    compare(&Tokenizer::from_dir(vocab_only.path()).unwrap(), &from_vocab);
}

#[test]
fn trained_directories_load_in_transformers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python =
        std::env::var_os("RAGDUET_PYTHON").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let cased = WordPieceOptions { vocab_size: 400, lowercase: false, ..WordPieceOptions::default() };
    let bpe = ByteBpeOptions {
        vocab_size: 400,
        additional_special_tokens: vec!["<|im_start|>".into()],
        ..ByteBpeOptions::default()
    };
    let trained = [
        ("cased", train_wordpiece(corpus(), &cased).unwrap()),
        ("bpe", train_byte_bpe(corpus(), &bpe).unwrap()),
    ];
    let texts = ["The Retriever Finds ÀÉ 東京 🦀", " two  spaces\n", "", "a <|im_start|> b [SEP] c"];
    let script = "import json, sys, warnings\nwarnings.simplefilter('error')\n\
                  from transformers import AutoTokenizer\n\
                  t = AutoTokenizer.from_pretrained(sys.argv[1])\n\
                  print(json.dumps([t(json.loads(sys.argv[2]))['input_ids'], sorted(set(t.all_special_ids)), t.model_max_length]))";
    for (name, tokenizer) in trained {
        let dir = scratch.path().join(name);
        tokenizer.save(&dir).unwrap();
        let arguments = ["-c", script, dir.to_str().unwrap(), &serde_json::to_string(&texts).unwrap()];
        let Ok(ran) = Command::new(&python).args(arguments).output() else {
            println!("skipped: no {} (set RAGDUET_PYTHON)", python.display());
            return;
        };
        let errors = String::from_utf8_lossy(&ran.stderr);
        if errors.contains("No module named") {
            println!("skipped: {} has no transformers", python.display());
            return;
        }
        assert!(ran.status.success(), "{name}: {errors}");
        let (ids, special, max_len): (Vec<Vec<u32>>, Vec<u32>, usize) =
            serde_json::from_slice(&ran.stdout).unwrap();
        let options = EncodeOptions { strip: false, ..EncodeOptions::default() };
        let got = tokenizer.encode_batch(&texts, &options).unwrap();
        assert_eq!(got.into_iter().map(|e| e.ids).collect::<Vec<_>>(), ids, "{name}");
        assert_eq!(
            (special, Some(max_len)),
            (tokenizer.special_ids().all.clone(), tokenizer.model_max_length())
        );
    }
}
