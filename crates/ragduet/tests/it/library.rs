//! What the examples do not show: other kinds of retrievers, re-ranking, joint runs, and what is refused.

use ragduet::train::{self, RetrieverConfig, RunOptions};
use ragduet::{
    CrossEncoder, Error, Generator, Index, IndexConfig, LoadOptions, Passage, Pipeline, Quantize, Retriever,
    ScratchGenerator, ScratchModel, Side,
};
use ragduet_index::HnswConfig;
use ragduet_joint::pipeline::{self, GENERATOR, INDEX, RETRIEVER};
use ragduet_reranker::Activation;
use ragduet_retriever::{LateConfig, RepresentationConfig, SparseConfig};
use ragduet_text::Prompts;
use ragduet_torch::{Compute, rng};
use std::collections::HashMap;
use std::path::Path;

const TEXTS: [&str; 3] = ["the moon causes tides", "bees make honey", "salt water makes iron rust"];

fn size() -> ScratchModel {
    let (vocab_size, hidden_size, layers, heads) = (300, 32, 1, 2);
    ScratchModel { vocab_size, hidden_size, layers, heads, max_positions: 64, ..ScratchModel::default() }
}

fn dense() -> Retriever {
    Retriever::from_scratch(&size(), &TEXTS, 1).unwrap()
}

fn of_kind(kind: RepresentationConfig) -> Retriever {
    rng::seed(1);
    let (device, lengths) = (ragduet_torch::Device::Cpu, (16, 32));
    let texts = TEXTS.into_iter();
    size().build(texts, kind, Prompts::default(), lengths, device, Compute::F32).unwrap().into()
}

fn reader() -> Generator {
    let size = ScratchGenerator {
        vocab_size: 300,
        hidden_size: 32,
        layers: 1,
        heads: 2,
        ..ScratchGenerator::default()
    };
    let mut generator = Generator::from_scratch(&size, &TEXTS, 1).unwrap();
    generator.decoding.max_new_tokens = Some(6);
    generator
}

fn passages() -> Vec<Passage> {
    let of = |(i, text): (usize, &&str)| Passage { id: format!("p{i}"), title: None, text: text.to_string() };
    TEXTS.iter().enumerate().map(of).collect()
}

fn message<T>(result: ragduet::Result<T>) -> String {
    result.err().unwrap().to_string()
}

#[test]
fn every_kind_of_retriever_is_searched_and_saved_and_refuses_the_encodings_of_the_others() {
    let kinds = [
        (dense(), "encode_queries", [true, false, false]),
        (
            of_kind(RepresentationConfig::LateInteraction(LateConfig::default())),
            "encode_tokens",
            [false, true, false],
        ),
        (
            of_kind(RepresentationConfig::Sparse(SparseConfig::default())),
            "encode_terms",
            [false, false, true],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (retriever, own, can) in kinds {
        let results = [
            retriever.encode(&TEXTS).map(|rows| rows.len()),
            retriever.encode_tokens(Side::Passage, &TEXTS).map(|texts| texts.len()),
            retriever.encode_terms(Side::Passage, &TEXTS).map(|texts| texts.len()),
        ];
        for (result, can) in results.into_iter().zip(can) {
            match can {
                true => assert_eq!(result.unwrap(), 3),
                false => assert!(message(result).contains(own)),
            }
        }
        let index = Index::build(&retriever, passages()).unwrap();
        let hits = index.search(&retriever, TEXTS[1], 2).unwrap();
        assert!(hits.len() == 2 && hits[0].score >= hits[1].score);
        match can[2] {
            // Weights are not normalized: a text need not be the nearest to itself.
            true => {
                let of = |side, text: &str| retriever.encode_terms(side, &[text]).unwrap().remove(0);
                let found: HashMap<String, f32> =
                    of(Side::Passage, &hits[0].passage.text).into_iter().collect();
                let asked = of(Side::Query, TEXTS[1]);
                let dot: f32 = asked.iter().filter_map(|(term, w)| Some(found.get(term)? * w)).sum();
                assert!((dot - hits[0].score).abs() < 1e-3 * dot, "{dot} {hits:?}");
            }
            false => assert_eq!(hits[0].passage.id, "p1", "{own}"),
        }
        let dir = folder.path().join(own);
        index.save(&dir).unwrap();
        index.save(&dir).unwrap();
        assert_eq!(Index::open(&dir).unwrap().search(&retriever, TEXTS[1], 2).unwrap(), hits);
    }
}

#[test]
fn token_vectors_and_terms_are_those_of_the_texts() {
    let late = of_kind(RepresentationConfig::LateInteraction(LateConfig::default()));
    let tokens = late.encode_tokens(Side::Query, &["moon", "bees make honey"]).unwrap();
    // Queries are filled up to their length.
    assert!(tokens.iter().all(|t| t.len() == 16 && t.dim() == late.dim()));
    assert!(tokens[0].rows().all(|r| (r.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-4));
    let sparse = of_kind(RepresentationConfig::Sparse(SparseConfig::default()));
    let terms = &sparse.encode_terms(Side::Passage, &TEXTS[..1]).unwrap()[0];
    assert!(!terms.is_empty() && terms.windows(2).all(|w| w[0].1 >= w[1].1 && w[1].1 > 0.0));
}

#[test]
fn an_index_says_what_does_not_belong_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let retriever = dense();
    let hnsw = IndexConfig::Hnsw(HnswConfig::default());
    let index = Index::build_with(&retriever, passages(), &hnsw).unwrap();
    assert_eq!(index.search_all(&retriever, &TEXTS, 1).unwrap()[2][0].passage, passages()[2]);
    let late = of_kind(RepresentationConfig::LateInteraction(LateConfig::default()));
    assert!(message(Index::build_with(&late, passages(), &hnsw)).contains("late interaction"));
    assert!(message(index.search(&late, "moon", 1)).contains("multi-vector"));

    let twice = vec![passages()[0].clone(), passages()[0].clone()];
    assert!(message(Index::build(&retriever, twice)).contains("p0"));
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("notes.txt"), "mine").unwrap();
    assert!(message(index.save(&taken)).contains("holds notes.txt"));
    assert!(taken.join("notes.txt").is_file());

    let dir = folder.path().join("an.idx");
    index.save(&dir).unwrap();
    let other = folder.path().join("other.jsonl");
    std::fs::write(&other, "{\"_id\": \"p0\", \"text\": \"alone\"}\n").unwrap();
    assert!(message(Index::open_with_corpus(&dir, &other)).contains("`p1` is not in"));
}

#[test]
fn a_generator_says_what_it_was_shown() {
    let mut generator = reader();
    let answer = generator.answer("what?", &passages()).unwrap();
    assert_eq!((answer.sources.as_slice(), answer.shortened, answer.dropped), (passages().as_slice(), 0, 0));
    let mut text = String::new();
    let streamed = generator.answer_streaming("what?", &passages(), |piece| text.push_str(piece)).unwrap();
    assert_eq!(streamed, answer);
    assert_eq!(text.trim(), answer.text);
    assert_eq!(generator.generate("bees").unwrap(), generator.generate("bees").unwrap());

    generator.prompt.max_tokens = Some(40);
    generator.prompt.template.instruction.clear();
    let less = generator.answer("what?", &passages()).unwrap();
    assert!(less.shortened + less.dropped > 0 && less.sources.len() + less.dropped == 3, "{less:?}");
    let twice = [passages()[0].clone(), passages()[0].clone()];
    assert!(message(generator.answer("what?", &twice)).contains("`p0`"));
}

#[test]
fn a_cross_encoder_orders_hits() {
    let folder = tempfile::tempdir().unwrap();
    let retriever = dense();
    retriever.save(folder.path()).unwrap();
    rng::seed(2);
    let cpu = ragduet_torch::Device::Cpu;
    let model = ragduet_reranker::CrossEncoder::from_base(
        folder.path(),
        cpu,
        Compute::F32,
        None,
        Activation::Sigmoid,
    );
    let reranker = CrossEncoder::from(model.unwrap());
    let scores = reranker.scores("moon", &TEXTS).unwrap();
    assert!(scores.iter().all(|s| (0.0..=1.0).contains(s)));
    let index = Index::build(&retriever, passages()).unwrap();
    let hits = reranker.rerank("moon", index.search(&retriever, "moon", 3).unwrap()).unwrap();
    assert!(hits.len() == 3 && hits.windows(2).all(|w| w[0].score >= w[1].score));
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    assert_eq!(hits[0].passage.id, format!("p{best}"));

    let pipeline = Pipeline::new(retriever, index, reader()).unwrap().rerank(reranker, 3);
    assert_eq!(pipeline.search("moon", 3).unwrap(), hits);
    let four_bits = LoadOptions::new().quantize(Quantize::Nf4);
    assert!(message(CrossEncoder::load_with(folder.path(), &four_bits)).contains("not quantized"));
}

#[test]
fn best_of_a_joint_run_is_a_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let best = folder.path().join("best");
    let (retriever, generator) = (dense(), reader());
    let index = Index::build(&retriever, passages()).unwrap();
    retriever.save(best.join(RETRIEVER)).unwrap();
    generator.save(best.join(GENERATOR)).unwrap();
    index.save(best.join(INDEX)).unwrap();
    let corpus = folder.path().join("corpus.jsonl");
    std::fs::copy(best.join(INDEX).join("passages.jsonl"), &corpus).unwrap();
    let (prompt, decode) = (generator.prompt.clone(), generator.decoding.clone());
    pipeline::Pipeline {
        corpus,
        contexts: 2,
        prompt,
        decode,
        max_query_tokens: 16,
        max_passage_tokens: 32,
        columns: Default::default(),
    }
    .save(&best)
    .unwrap();

    let pipeline = Pipeline::open(folder.path()).unwrap();
    let answer = pipeline.ask("bees make what?").unwrap();
    assert_eq!(answer, Pipeline::open(&best).unwrap().ask("bees make what?").unwrap());
    assert_eq!(answer.sources.len(), 2);
    let found = pipeline.search("bees make what?", 2).unwrap();
    assert_eq!(answer.sources, found.into_iter().map(|h| h.passage).collect::<Vec<_>>());
    assert_eq!(answer.text, generator.answer("bees make what?", &answer.sources).unwrap().text);
}

#[test]
fn errors_name_what_was_asked_for() {
    let nothing = Path::new("/no/such/folder");
    for (said, what) in [
        (message(Retriever::load(nothing)), "retriever"),
        (message(Generator::load(nothing)), "generator"),
        (message(CrossEncoder::load(nothing)), "cross-encoder"),
        (message(Pipeline::open(nothing)), "pipeline"),
    ] {
        assert!(said.contains(&format!("cannot load the {what} `/no/such/folder`: ")), "{said}");
    }
    let wrong = train::parse_config::<RetrieverConfig>("[data]\ntrain = \"x\"\n[model]\nbase = 3\n");
    assert!(message(wrong).contains("line 4"));
}

#[test]
fn a_loss_of_ones_own_takes_the_place_of_the_configs() {
    #[derive(Debug)]
    struct Nothing;
    impl ragduet::loss::RetrievalLoss for Nothing {
        fn loss(&self, batch: &ragduet::loss::LossBatch<'_>) -> ragduet::loss::Tensor {
            batch.similarities().sum(ragduet::loss::Kind::Float)
        }
        fn needs_negatives(&self) -> bool {
            true
        }
        fn needs_teacher(&self) -> bool {
            false
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let train = |more: &str| {
        let config = format!("[data]\ntrain = \"x\"\n[model]\nbase = \"y\"\n{more}");
        let config: RetrieverConfig = train::parse_config(&config).unwrap();
        let options = RunOptions::new(folder.path().join("run"));
        train::retriever_with_loss(&config, &options, Box::new(Nothing))
    };
    assert!(message(train("[loss.triplet]\n")).contains("leave [loss] out"));
    // What the loss says it needs counts, not what the default needs.
    let e = train("[batch]\nnegatives_per_query = 0\n").unwrap_err();
    assert!(matches!(&e, Error::Retriever(_)) && e.to_string().contains("negatives_per_query"), "{e}");
}
