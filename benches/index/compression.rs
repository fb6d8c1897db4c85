//! What compression costs: bytes a passage against nDCG@10, over embeddings that `scripts/compression` makes.
//!
//! ```text
//! cargo run --release -p ragduet-index-benches --bin index_compression -- FOLDER QRELS
//! ```
//!
//! The folder holds `corpus.npy` and `queries.npy` (`f32`) and the ids of their rows, one a line, in `corpus.txt` and
//! `queries.txt`. The judgements are as BEIR's.

mod npy;

use std::num::NonZeroUsize;

use ragduet_index::{
    BinaryConfig, BinaryQuery, CompressedIndex, CompressionConfig, Form, Hit, PqConfig, RescoreConfig,
    RescoreRows, SearchParams, Similarity, VectorIndex, VectorIndexMut, Vectors,
};
use ragduet_metrics::{Measure, Qrels, Run, evaluate};

/// Hits that are compared with those of the exact index, and nDCG's cut.
const K: NonZeroUsize = NonZeroUsize::new(10).unwrap();

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, qrels] = &args[..] else { return Err("compression FOLDER QRELS".into()) };
    let ((corpus, dim), (queries, _)) =
        (npy::read(&format!("{folder}/corpus.npy"))?, npy::read(&format!("{folder}/queries.npy"))?);
    let (corpus, queries) = (Vectors::new(&corpus, dim)?, Vectors::new(&queries, dim)?);
    let ids = |name: &str| -> Result<Vec<String>, Failure> {
        let text = fs_err::read_to_string(format!("{folder}/{name}.txt"))?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let (docs, names) = (ids("corpus")?, ids("queries")?);
    if (docs.len(), names.len()) != (corpus.len(), queries.len()) {
        return Err("there are not as many ids as rows".into());
    }
    let qrels = Qrels::read(qrels)?;
    // Queries without a judgement are not searched for.
    let judged: Vec<usize> = (0..names.len()).filter(|&q| qrels.get(&names[q]).is_some()).collect();
    let wanted: Vec<f32> = judged.iter().flat_map(|&q| queries.row(q)).copied().collect();
    let queries = Vectors::new(&wanted, dim)?;
    println!("{} passages of dimension {dim}, {} judged queries\n", corpus.len(), queries.len());
    println!("| form | bytes scanned | bytes beside | nDCG@10 | of exact | recall of exact top 10 |");
    println!("|---|---|---|---|---|---|");

    let mut first: Option<(f64, Vec<Vec<Hit>>)> = None;
    for (name, config) in forms(dim) {
        let mut index = CompressedIndex::new(&config, Similarity::Cosine, dim)?;
        index.add(corpus)?;
        let hits = index.search(queries, &SearchParams::top(K.get()))?;
        let mut run = Run::new();
        for (&query, hits) in judged.iter().zip(&hits) {
            let found = hits.iter().map(|hit| (docs[hit.id as usize].clone(), hit.score)).collect();
            run.insert(names[query].as_str(), found)?;
        }
        let measure = Measure::Ndcg { k: K };
        let ndcg = evaluate(&qrels, &run, &[measure]).mean(measure).unwrap_or_default();
        let (exact, truth) = first.get_or_insert_with(|| (ndcg, hits.clone()));
        let (bytes, recall) = (index.row_bytes(), shared(truth, &hits));
        println!(
            "| {name} | {} | {} | {ndcg:.4} | {:.1} % | {recall:.4} |",
            bytes.scanned,
            bytes.rescored,
            100.0 * ndcg / *exact
        );
    }
    Ok(())
}

/// The share of the true hits that came back.
fn shared(truth: &[Vec<Hit>], found: &[Vec<Hit>]) -> f64 {
    let total: usize = truth.iter().map(Vec::len).sum();
    let right = truth.iter().zip(found).map(|(truth, found)| {
        truth.iter().filter(|hit| found.iter().any(|other| other.id == hit.id)).count()
    });
    right.sum::<usize>() as f64 / total.max(1) as f64
}

/// The rows of the table; the first is what the others are compared with.
fn forms(dim: usize) -> Vec<(String, CompressionConfig)> {
    let plain = |form: Form| CompressionConfig { form, ..CompressionConfig::default() };
    let with = |form: Form, rows: RescoreRows| CompressionConfig {
        rescore: Some(RescoreConfig { rows, factor: 4 }),
        ..plain(form)
    };
    let binary = |query: BinaryQuery| Form::Binary(BinaryConfig { query });
    let pq = |parts: usize| Form::Pq(PqConfig { parts, ..PqConfig::default() });
    let mut forms = vec![
        ("f32".to_owned(), plain(Form::F32)),
        ("f16".to_owned(), plain(Form::F16)),
        ("int8".to_owned(), plain(Form::Int8)),
    ];
    for (name, query) in [("numbers", BinaryQuery::Numbers), ("signs", BinaryQuery::Signs)] {
        forms.push((format!("binary, query as {name}"), plain(binary(query))));
        for (beside, rows) in [("int8", RescoreRows::Int8), ("f16", RescoreRows::F16)] {
            forms.push((format!("binary, query as {name}, + {beside} x 4"), with(binary(query), rows)));
        }
    }
    for parts in [dim.div_ceil(4), dim.div_ceil(8), dim.div_ceil(16)] {
        forms.push((format!("pq, {parts} parts"), plain(pq(parts))));
        forms.push((format!("pq, {parts} parts, + int8 x 4"), with(pq(parts), RescoreRows::Int8)));
    }
    for share in [2, 3, 4, 6] {
        let dimensions = Some(dim.div_ceil(share));
        let width = dim.div_ceil(share);
        let cut = |config: CompressionConfig| CompressionConfig { dimensions, ..config };
        forms.push((format!("first {width}, f16"), cut(plain(Form::F16))));
        forms.push((format!("first {width}, int8"), cut(plain(Form::Int8))));
        forms.push((format!("first {width}, int8, + int8 x 4"), cut(with(Form::Int8, RescoreRows::Int8))));
    }
    forms
}
