//! The judge of entailment over a small model with random weights: what it says is what the model says of each passage.

use ragduet_classifier::{Answer, Classifier, LabelSet, Task};
use ragduet_data::RagRecord;
use ragduet_generator::answers::{Answered, measured};
use ragduet_generator::entailment::{EntailmentScores, Judge};
use ragduet_nn::{fresh_encoder, save_encoder};
use ragduet_testkit::alone;
use ragduet_text::{Context, WordPieceOptions, train_wordpiece};
use ragduet_torch::{Compute, Device, rng};
use std::path::Path;

fn nli(dir: &Path, labels: [&str; 3]) {
    rng::seed(2);
    let corpus = "how tall is the tower it is forty metres of grey stone on a cliff by sea . ?";
    let options = WordPieceOptions { vocab_size: 90, min_frequency: 1, ..Default::default() };
    let tokenizer = train_wordpiece(corpus.split(' '), &options).unwrap();
    let config = serde_json::json!({
        "model_type": "bert", "vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 32, "hidden_act": "gelu", "type_vocab_size": 2,
        "initializer_range": 0.4,
    });
    save_encoder(&fresh_encoder(config, Device::Cpu).unwrap(), dir).unwrap();
    tokenizer.save(dir).unwrap();
    let names = labels.iter().map(|s| s.to_string()).collect();
    let set = LabelSet::given(Task::Classification, names).unwrap();
    let model = Classifier::with_labels(dir, Device::Cpu, Compute::F32, Some(set)).unwrap();
    model.save(dir).unwrap();
}

fn answered(answer: &str, passages: &[&str]) -> Answered {
    let record = RagRecord { question: "how tall is the tower?".into(), ..RagRecord::default() };
    let shown: Vec<Context> =
        passages.iter().enumerate().map(|(i, p)| Context::new(i.to_string(), None, p.to_string())).collect();
    measured(&record, &shown, answer.into())
}

#[test]
fn sentences_count_by_their_best_passage() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    nli(dir.path(), ["contradiction", "Entailment", "neutral"]);
    let judge = Judge::load(dir.path(), Device::Cpu, Compute::F32).unwrap();
    let model = Classifier::load(dir.path(), Device::Cpu, Compute::F32).unwrap();
    let passages = ["the tower is forty metres tall.", "it is of grey stone.", "a cliff by the sea."];
    let answers = [
        answered("It is forty metres tall [1]. It is of stone.", &passages),
        answered("forty metres", &passages),
        answered("", &passages),
        answered("forty metres", &[]),
    ];
    let found = judge.judge(&answers).unwrap();
    assert_eq!(found[2..], [None, None]);
    for (entailed, statements) in found.iter().zip([
        vec!["It is forty metres tall.", "It is of stone."],
        vec!["how tall is the tower? forty metres"],
    ]) {
        let entailed = entailed.unwrap();
        let (mut probability, mut yes, mut no) = (0.0, 0, 0);
        for statement in &statements {
            let pairs: Vec<_> = passages.iter().map(|p| (*p, Some(*statement))).collect();
            let said = model.classify(&pairs, 100).unwrap();
            let of = |a: &Answer| match a {
                Answer::Class { label, scores, .. } => (label.clone(), scores[1]),
                _ => panic!(),
            };
            let said: Vec<_> = said.iter().map(of).collect();
            probability += said.iter().map(|s| s.1).fold(0.0, f64::max) / statements.len() as f64;
            let any = |label: &str| said.iter().any(|s| s.0 == label);
            yes += usize::from(any("Entailment"));
            no += usize::from(!any("Entailment") && any("contradiction"));
        }
        assert_eq!(
            (entailed.sentences, entailed.entailed, entailed.contradicted),
            (statements.len(), yes, no)
        );
        assert!((entailed.probability - probability).abs() < 1e-6, "{entailed:?} {probability}");
    }
    assert!(EntailmentScores::of(&found).is_some());
    assert_eq!(found, judge.judge(&answers).unwrap(), "deterministic");
}

#[test]
fn a_model_without_the_label_is_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    nli(dir.path(), ["a", "b", "c"]);
    let e = Judge::load(dir.path(), Device::Cpu, Compute::F32).unwrap_err().to_string();
    assert!(e.contains("no label `entailment`"), "{e}");
}
