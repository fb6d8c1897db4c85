//! Losses over scored pairs beside sentence-transformers' (`tests/golden/make_scored.py`).

use ragduet_retriever::loss::{Compared, LossBatch, LossConfig, Relations, fixed_scale, normalize};
use ragduet_testkit::alone;
use ragduet_torch::Tensor;
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

#[test]
fn losses_and_gradients_are_those_of_sentence_transformers() {
    let _alone = alone();
    let golden: Value = serde_json::from_str(include_str!("../golden/scored.json")).unwrap();
    let dim = golden["dim"].as_i64().unwrap();
    let labels = numbers(&golden["labels"]);
    let pairs = labels.len();
    let relations = Relations {
        positive: (0..pairs).collect(),
        negatives: vec![vec![]; pairs],
        teacher: Some(labels.iter().map(|label| vec![*label as f32]).collect()),
        ..Relations::default()
    };
    for name in ["cosent", "cosine_similarity"] {
        let tensor = |key: &str| {
            Tensor::from_slice(&numbers(&golden[key])).view([pairs as i64, dim]).set_requires_grad(true)
        };
        let (queries, passages) = (tensor("queries"), tensor("passages"));
        let config: LossConfig = serde_json::from_str(&format!("{{\"{name}\": {{}}}}")).unwrap();
        let (q, p) = (normalize(&queries), normalize(&passages));
        // The default temperature is 0.05: a scale of 20.
        let scale = fixed_scale(20.0, &q);
        let compared = Compared::Vectors { queries: &q, passages: &p };
        let loss = config.build().unwrap().loss(&LossBatch::new(compared, &relations, &scale));
        loss.backward();
        let want = &golden[name];
        // sentence-transformers computes in f32.
        let close = |have: f64, want: f64, what: &str| {
            assert!((have - want).abs() < 2e-5 * want.abs().max(1.0), "{name} {what}: {have} {want}");
        };
        close(f64::try_from(&loss).unwrap(), want["loss"].as_f64().unwrap(), "loss");
        for (key, tensor) in [("queries", &queries), ("passages", &passages)] {
            let have = Vec::<f64>::try_from(tensor.grad().view(-1)).unwrap();
            have.iter().zip(numbers(&want[key])).for_each(|(h, w)| close(*h, w, key));
        }
    }
}
