//! Gradient caching takes the memory of one chunk, however large the batch; encoding that of a window, however long the
//! stream.

use ragduet_nn::Mode;
use ragduet_retriever::loss::{Compared, LossBatch, LossConfig, Relations, fixed_scale};
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::contrastive::initial_model;
use ragduet_retriever::{BiEncoder, EncodeSettings, Side, encode_stream, grad_cache};
use ragduet_testkit::alone;
use ragduet_text::Encoding;
use ragduet_torch::{Compute, Device, Tensor, device, grad};
use ragduet_train::config::Config as _;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const TOKENS: usize = 100;

fn model(dir: &std::path::Path, hidden: u64) -> BiEncoder {
    let pairs = dir.join("pairs.jsonl");
    std::fs::write(&pairs, "{\"query\": \"where is it?\", \"positive\": \"It is behind the road.\"}\n")
        .unwrap();
    let text = format!(
        r#"
        [run]
        precision = "fp32"
        [model]
        max_query_tokens = 128
        max_passage_tokens = 128
        [model.scratch]
        vocab_size = 100
        hidden_size = {hidden}
        layers = 3
        heads = 2
        intermediate_size = 256
        max_positions = 128
        [data]
        train = "{}"
        "#,
        pairs.display()
    );
    let config = RetrieverConfig::from_toml(&text).unwrap();
    initial_model(&config).unwrap()
}

/// Bytes that a pass over `rows` pairs needs beyond what was there before it.
fn peak(m: &BiEncoder, rows: usize, chunk_tokens: usize) -> u64 {
    let texts: Vec<Encoding> = (0..rows)
        .map(|i| Encoding { ids: vec![(i % 30) as u32 + 5; TOKENS], type_ids: vec![0; TOKENS] })
        .collect();
    let relations =
        Relations { positive: (0..rows).collect(), negatives: vec![vec![]; rows], ..Relations::default() };
    let loss = LossConfig::default().build().unwrap();
    let before = device::cpu_tensor_memory().unwrap().in_use;
    device::reset_peak(Device::Cpu).unwrap();
    let _loss =
        grad_cache::backward(m, &texts, &texts, chunk_tokens, Mode::train(Compute::F32), 1.0, |a, b| {
            let scale = fixed_scale(20.0, a);
            loss.loss(&LossBatch::new(Compared::Vectors { queries: a, passages: b }, &relations, &scale))
        })
        .unwrap();
    grad::clear(&m.parameters().into_iter().map(|(_, t)| t).collect::<Vec<Tensor>>()).unwrap();
    device::cpu_tensor_memory().unwrap().peak - before
}

#[test]
fn gradient_caching_takes_the_memory_of_a_chunk() {
    ragduet_testkit::in_own_process!();
    device::use_caching_allocator();
    let dir = tempfile::tempdir().unwrap();
    let m = model(dir.path(), 64);
    let chunk = 32 * TOKENS;
    let _warm = peak(&m, 32, chunk);
    let cached: Vec<u64> = [32, 256].iter().map(|&n| peak(&m, n, chunk)).collect();
    // One chunk of everything is the plain pass.
    let plain: Vec<u64> = [32, 128].iter().map(|&n| peak(&m, n, usize::MAX)).collect();
    println!("peak bytes, cached {cached:?}, plain {plain:?}");
    assert!(cached[1] < cached[0] + cached[0] / 5, "{cached:?}");
    assert!(plain[1] > 3 * plain[0], "{plain:?}");
}

/// Memory of the process says nothing sharp: what the allocators keep varies by more than the vectors.
#[test]
fn encoding_holds_a_few_windows_however_many_texts_there_are() {
    let _turn = alone();
    const DIM: u64 = 64;
    let dir = tempfile::tempdir().unwrap();
    let m = model(dir.path(), DIM);
    let ahead = |texts: usize| {
        let (pulled, mut done, mut most) = (AtomicUsize::new(0), 0, 0);
        let stream = (0..texts).map(|i| {
            pulled.fetch_add(1, Relaxed);
            Ok(format!("{i}"))
        });
        encode_stream(&m, Side::Passage, stream, &EncodeSettings::default(), &mut |_, _| (), |rows| {
            done += rows.len() / DIM as usize;
            most = most.max(pulled.load(Relaxed) - done);
            Ok(())
        })
        .unwrap();
        assert_eq!((done, pulled.load(Relaxed)), (texts, texts));
        most
    };
    // Texts that were read and whose vectors were not handed over yet.
    let (some, many) = (ahead(9_000), ahead(36_000));
    println!("{some} of 9,000 and {many} of 36,000");
    assert!(many.max(some) < 9_000, "{some} {many}");
}
