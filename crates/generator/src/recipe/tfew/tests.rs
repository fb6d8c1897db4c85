use super::*;
use ragduet_nn::peft::{Adapter, base_of};
use ragduet_nn::{Mode, load_language_model};
use ragduet_text::TrainExample;
use ragduet_torch::{Compute, Device, no_grad};
use serde_json::Value;
use std::path::Path;

/// A tiny model under an adapter of peft's.
fn generator(case: &Value) -> Generator {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/golden");
    let adapter = golden.join("peft").join(case["adapter"].as_str().unwrap());
    let base = case["base"].as_str().unwrap();
    assert_eq!(base_of(&adapter).unwrap(), base);
    let model = load_language_model(&golden.join(base), Device::Cpu).unwrap();
    let tokenizer = ragduet_text::train_byte_bpe(["a"], &Default::default()).unwrap();
    let mut g = Generator::new(model, tokenizer, Device::Cpu, Compute::F32);
    g.model.params.set_trainable(|_| false);
    g.adapter = Some(Adapter::load(g.model.base(Device::Cpu).unwrap(), &adapter).unwrap());
    g
}

fn records(golden: &Value, seq2seq: bool) -> Vec<MultipleChoiceExample> {
    let of = |v: &Value| -> Vec<u32> { serde_json::from_value(v.clone()).unwrap() };
    let sequence = |prompt: &[u32], choice: &Value| {
        let start: &[u32] = if seq2seq { &[0] } else { &[] };
        let ids = [prompt, start, of(choice).as_slice()].concat();
        let behind = prompt.len() + start.len();
        let loss = (0..ids.len()).map(|i| i >= behind).collect();
        TrainExample { ids, loss, source: if seq2seq { prompt.len() } else { 0 }, parts: Vec::new() }
    };
    let record = |r: &Value| MultipleChoiceExample {
        id: String::new(),
        sequences: r["choices"].as_array().unwrap().iter().map(|c| sequence(&of(&r["prompt"]), c)).collect(),
        answer: r["answer"].as_u64().unwrap() as usize,
    };
    golden["records"].as_array().unwrap().iter().map(record).collect()
}

/// Losses and gradients of a plain transcription (`tests/golden/make_choices.py`), in one pass and in several.
#[test]
fn losses_and_gradients_are_those_of_the_definitions() {
    ragduet_torch::device::set_threads(1);
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/choices.json")).unwrap();
    for case in golden["models"].as_array().unwrap() {
        let g = generator(case);
        let records = records(&golden, case["seq2seq"].as_bool().unwrap());
        for (tokens, times) in [(10_000, 1), (40, 4)] {
            let lengths: Vec<usize> = records.iter().map(MultipleChoiceExample::len).collect();
            assert_eq!(passes(&lengths, tokens).len(), times, "{lengths:?}");
            let adapter = g.adapter.as_ref().unwrap();
            let params = adapter.params.trainable();
            grad::clear(&params.iter().map(|p| p.1.shallow_clone()).collect::<Vec<_>>()).unwrap();
            let loss: TfewLoss = serde_json::from_value(case["weights"].clone()).unwrap();
            let shapes: Vec<(usize, usize)> = records.iter().map(shape).collect();
            let sequences = records.iter().flat_map(|r| &r.sequences);
            let of_all = TfewTotals::of(&sequences.map(TrainExample::targets).collect::<Vec<_>>(), &shapes);
            let mut have = Metrics::default();
            for pass in passes(&lengths, tokens) {
                have.add(learn(&loss, &g, &records[pass], of_all, false).unwrap());
            }
            let total = have.loss.unwrap();
            have.terms.push(("total", total));
            assert_eq!(have.terms.len(), 4);
            for (name, have) in have.terms {
                let have = f64::try_from(have).unwrap();
                let want = case[name].as_f64().unwrap();
                assert!((have - want).abs() < 1e-5 * (1.0 + want.abs()), "{name}: {have} {want}");
            }
            let grads = case["grads"].as_object().unwrap();
            assert_eq!(grads.len(), params.len());
            for (name, p) in &params {
                let want: Vec<f32> = serde_json::from_value(grads[name].clone()).unwrap();
                let want = Tensor::from_slice(&want);
                let size = want.abs().max().double_value(&[]);
                let apart = (p.grad().view(-1) - want).abs().max().double_value(&[]);
                assert!(size > 0.0 && apart < 1e-3 * size, "{name}: {apart} of {size}");
            }
        }
        let sums: Vec<Vec<f64>> = serde_json::from_value(case["sums"].clone()).unwrap();
        let _guard = no_grad();
        let (nll, tokens) =
            token_nll(&g, records.iter().flat_map(|r| &r.sequences), Mode { train: false, ..g.mode(false) });
        let have = crate::loss::choice_sums(&nll, &tokens).unwrap();
        for (have, want) in have.iter().zip(sums.concat()) {
            assert!((have + want).abs() < 1e-4, "{have} {want}");
        }
    }
}

#[test]
fn records_come_in_an_order_that_a_step_alone_decides() {
    let counts = [5, 12];
    let order = |mixing| Order { counts: counts.to_vec(), mixing, seed: 3 };
    let plain = order(Mixing::Proportional);
    let mut plans = HashMap::new();
    let mut all = Vec::new();
    for step in 0..17 {
        let now = plain.step(step, 4, &mut plans).unwrap();
        // As a resumed run sees it, without the plans of before.
        assert_eq!(now, plain.step(step, 4, &mut HashMap::new()).unwrap());
        assert!(plans.len() <= 2);
        all.extend(now);
    }
    // 68 records are four epochs of 17, each with each record once and in another order.
    let epochs: Vec<Vec<(usize, usize)>> =
        all.chunks(17).map(|e| e.iter().map(|p| (p.task, p.record)).collect()).collect();
    for epoch in &epochs {
        let mut sorted = epoch.clone();
        sorted.sort_unstable();
        let want: Vec<(usize, usize)> = (0..5).map(|i| (0, i)).chain((0..12).map(|i| (1, i))).collect();
        assert_eq!(sorted, want);
    }
    assert!(epochs[0] != epochs[1] && epochs[2] != epochs[3]);
    let weighted = order(Mixing::Weights(vec![3.0, 1.0]));
    let picked: Vec<Picked> =
        (0..100).flat_map(|s| weighted.step(s, 8, &mut HashMap::new()).unwrap()).collect();
    let first = picked.iter().filter(|p| p.task == 0).count();
    assert!((540..660).contains(&first), "{first} of 800");
    assert!((0..5).all(|r| picked.iter().filter(|p| (p.task, p.record) == (0, r)).count() > 60));
}
