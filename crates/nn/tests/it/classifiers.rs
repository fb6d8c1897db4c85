//! Classifiers against transformers' AutoModelForSequenceClassification: logits, gradients, folders both ways. Goldens and
//! their script lie in `golden/classify/`.

use ragduet_nn::{Labels, Mode, PackedTokens, SequenceClassifier, load_encoder};
use ragduet_testkit::{alone, assert_close, max_diff};
use ragduet_torch::weights::Weights;
use ragduet_torch::{Compute, Device, Kind, Tensor};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

struct Texts(Vec<(Vec<u32>, Vec<u32>)>);

impl Texts {
    fn read(data: &Weights) -> Self {
        let ints = |n: &str| Vec::<i64>::try_from(&data.load_as_is(n).unwrap()).unwrap();
        let (mut ids, mut types) = (ints("ids"), ints("types"));
        let mut take = |n: i64| {
            let cut = |v: &mut Vec<i64>| v.drain(..n as usize).map(|i| i as u32).collect();
            (cut(&mut ids), cut(&mut types))
        };
        Texts(ints("lengths").into_iter().map(&mut take).collect())
    }

    fn packed(&self) -> PackedTokens {
        PackedTokens::new(self.0.iter().map(|(i, t)| (i.as_slice(), t.as_slice())), Device::Cpu)
    }
}

fn loss(logits: &Tensor, targets: &Tensor, problem: &str) -> Tensor {
    match problem {
        "regression" => (logits.squeeze_dim(1) - targets).square().mean(Kind::Float),
        "multi_label_classification" => (logits.softplus() - logits * targets).mean(Kind::Float),
        _ => logits.cross_entropy_for_logits(&targets.to_kind(Kind::Int64)),
    }
}

#[test]
fn logits_and_gradients_are_those_of_transformers() {
    let _alone = alone();
    let mut seen = 0;
    for entry in std::fs::read_dir(golden("classify")).unwrap() {
        let dir = entry.unwrap().path();
        if !dir.is_dir() {
            continue;
        }
        let name = dir.file_name().unwrap().to_str().unwrap();
        let data = Weights::open_file(&dir.join("golden.safetensors")).unwrap();
        let texts = Texts::read(&data);
        let mut model = SequenceClassifier::load(&dir, Device::Cpu, None).unwrap();
        let mode = Mode::eval(Compute::F32);
        let logits = model.forward(&texts.packed(), mode);
        assert_close(&logits, &data.load("logits", Device::Cpu).unwrap(), 1e-4, name);
        let problem = model.problem().unwrap().to_string();
        let value = loss(&logits, &data.load("targets", Device::Cpu).unwrap(), &problem);
        assert_close(&value.reshape([1]), &data.load("loss", Device::Cpu).unwrap(), 1e-5, name);
        value.backward();
        let norm = |t: &Tensor| f64::try_from(t.norm()).unwrap();
        let grads: Vec<(String, Tensor)> = model
            .params
            .iter()
            .filter(|(_, p)| p.tensor.grad().defined())
            .map(|(n, p)| (n.to_string(), p.tensor.grad().copy()))
            .collect();
        let all = grads.iter().map(|(_, g)| norm(g).powi(2)).sum::<f64>().sqrt();
        for (parameter, g) in &grads {
            let want = data.load(&format!("grad.{parameter}"), Device::Cpu).unwrap();
            let off = norm(&(g - &want));
            assert!(off <= 1e-3 * norm(&want).max(1e-4 * all), "{name}: gradient of {parameter}: {off:.2e}");
        }
        assert_eq!(grads.len(), data.names().filter(|n| n.starts_with("grad.")).count(), "{name}");

        // A text alone is the text in a batch.
        for (i, text) in texts.0.iter().enumerate() {
            let alone = model.forward(&Texts(vec![text.clone()]).packed(), mode);
            assert_close(&alone, &logits.narrow(0, i as i64, 1), 1e-5, &format!("{name}: alone"));
        }

        // Saved and read again: the same, with the class that transformers looks for.
        let out = tempfile::tempdir().unwrap();
        model.save(out.path()).unwrap();
        let again = SequenceClassifier::load(out.path(), Device::Cpu, None).unwrap();
        assert_eq!(max_diff(&again.forward(&texts.packed(), mode), &logits), 0.0);
        assert_eq!(again.config["architectures"], model.config["architectures"], "{name}");

        // With its own labels the output layer stays; with others it is drawn again, and only it.
        let same = Labels { names: model.labels(), problem: problem.clone() };
        let kept = SequenceClassifier::load(&dir, Device::Cpu, Some(&same)).unwrap();
        assert_eq!(max_diff(&kept.forward(&texts.packed(), mode), &logits), 0.0, "{name}");
        let names: Vec<String> = ["a", "b", "c", "d", "e"].map(String::from).into();
        let other = Labels { names: names.clone(), problem: "single_label_classification".into() };
        let other = SequenceClassifier::load(&dir, Device::Cpu, Some(&other)).unwrap();
        assert_eq!(other.forward(&texts.packed(), mode).size(), [4, 5], "{name}");
        assert_eq!(other.labels(), names);
        let drawn: Vec<&str> = other.report.fresh.iter().map(String::as_str).collect();
        assert!(!drawn.is_empty() && drawn.iter().all(|n| n.contains("classifier") || n.contains("score")));

        model.set_dropout(Some(0.0), Some(0.0));
        let off = model.forward(&texts.packed(), Mode::train(Compute::F32));
        assert_close(&off, &logits, 1e-5, &format!("{name}: dropout off"));
        seen += 1;
    }
    assert!(seen >= 17, "{seen} goldens");
}

#[test]
fn bare_models_get_a_head() {
    let _alone = alone();
    let labels =
        Labels { names: vec!["no".into(), "yes".into()], problem: "single_label_classification".into() };
    for name in ["bert", "roberta", "distilbert", "mpnet", "modernbert", "lm/llama", "lm/gpt2", "lm/gpt_neox"]
    {
        let dir = golden(name);
        let e = SequenceClassifier::load(&dir, Device::Cpu, None).unwrap_err().to_string();
        assert!(e.contains("missing"), "{name}: {e}");
        let model = SequenceClassifier::load(&dir, Device::Cpu, Some(&labels)).unwrap();
        let ids: Vec<u32> = (3..20).collect();
        let batch = PackedTokens::from_ids([ids.as_slice()], Device::Cpu);
        let logits = model.forward(&batch, Mode::eval(Compute::F32));
        assert_eq!(logits.size(), [1, 2]);
        assert!(f64::try_from(logits.abs().max()).unwrap() > 0.0);
        assert_eq!(model.depth_of("x"), None);
    }
    // The body is the encoder's own.
    let encoder = load_encoder(&golden("bert"), Device::Cpu).unwrap();
    let model = SequenceClassifier::load(&golden("bert"), Device::Cpu, Some(&labels)).unwrap();
    for (name, p) in encoder.params.iter() {
        assert_eq!(max_diff(model.params.get(&format!("bert.{name}")).unwrap(), &p.tensor), 0.0, "{name}");
        assert_eq!(model.depth_of(&format!("bert.{name}")), encoder.encoder.depth_of(name));
    }
    let e = SequenceClassifier::load(&golden("lm/t5"), Device::Cpu, Some(&labels)).unwrap_err().to_string();
    assert!(e.contains("`t5` is not supported; classifiers: bert,") && e.contains("gpt_neox, gemma3"), "{e}");
    // The language model of a multimodal checkpoint.
    let model =
        SequenceClassifier::load(&golden("lm/gemma3_multimodal"), Device::Cpu, Some(&labels)).unwrap();
    assert_eq!(model.config["model_type"], "gemma3_text");
    assert!(model.report.ignored.iter().any(|n| n.starts_with("vision_tower.")));
}
