//! A retriever over 4 bits: an adapter learns, resumes bit for bit and is exported as any other.

use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::contrastive::{RunOptions, initial_model, train};
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_testkit::alone;
use ragduet_torch::weights::Weights;
use ragduet_torch::{Bits, Compute, Device};
use ragduet_train::config::Config as _;
use std::fmt::Write as _;
use std::path::Path;

fn config(dir: &Path, model: &str) -> RetrieverConfig {
    let text = format!(
        "[run]\nseed = 3\nprecision = \"bf16\"\nepochs = 4.0\n[model]\nmax_query_tokens = 16\nmax_passage_tokens = 32\n{model}\n\
         [data]\ntrain = \"{0}\"\ndev = \"{0}\"\n[batch]\nsize = {{ examples = 6 }}\n\
         [optim]\nlr = 5e-3\n[save]\nevery_steps = 5\n[eval]\nmeasures = [\"ndcg@10\"]\n",
        dir.join("pairs.jsonl").display()
    );
    RetrieverConfig::from_toml(&text).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn run(c: &RetrieverConfig, out: &Path, resume: bool, stop_after: Option<u64>) {
    let options = RunOptions { out: out.into(), resume, quiet: true, stop_after, ..RunOptions::default() };
    let _ = train(c, &options).unwrap_or_else(|e| panic!("{e}"));
}

fn adapter(run: &Path) -> Vec<(String, ragduet_torch::Tensor)> {
    let w = Weights::open_file(&run.join("best/adapter_model.safetensors")).unwrap();
    w.names().map(|n| (n.to_string(), w.load(n, Device::Cpu).unwrap())).collect()
}

#[test]
fn an_encoder_of_four_bits_learns_through_an_adapter() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut text = String::new();
    for t in ["anchor", "beacon", "copper", "delta", "ember", "falcon", "granite", "harbour"] {
        let row = serde_json::json!({"query": format!("where is the {t}?"), "positive": format!("The {t} stands here.")});
        let _ = writeln!(text, "{row}");
    }
    std::fs::write(dir.join("pairs.jsonl"), text).unwrap();
    let scratch = "[model.scratch]\nvocab_size = 200\nhidden_size = 32\nlayers = 2\nheads = 2\nintermediate_size = 64\n\
                   max_positions = 40\ndropout = 0.1";
    let base = dir.join("base");
    st_dir::save(&initial_model(&config(dir, scratch)).unwrap(), &base).unwrap();

    let of = |quantize: &str, peft: &str| {
        config(dir, &format!("base = {:?}\nquantize = \"{quantize}\"\n{peft}", base.display().to_string()))
    };
    let lora = "[peft.lora]\nrank = 4";
    let c = of("nf4", lora);
    let m = initial_model(&c).unwrap();
    assert!(m.query_tower.model.params.quantised().count() >= 8);
    run(&c, &dir.join("run"), false, None);
    run(&c, &dir.join("again"), false, Some(3));
    run(&c, &dir.join("again"), true, None);
    for ((n, a), (_, b)) in adapter(&dir.join("run")).into_iter().zip(adapter(&dir.join("again"))) {
        assert!(a.equal(&b), "{n} differs after a resume");
    }

    // Read over codes it cannot be merged, read over the base as it is it can.
    let overrides = Overrides { bits: Some(Bits::Nf4), ..Overrides::default() };
    let best = dir.join("run/best");
    let mut small = st_dir::load(&best, Device::Cpu, Compute::Bf16, &overrides).unwrap();
    assert!(small.query_tower.merge().unwrap_err().to_string().contains("quantised"));
    let mut whole = st_dir::load(&best, Device::Cpu, Compute::F32, &Overrides::default()).unwrap();
    whole.query_tower.merge().unwrap();
    st_dir::save(&whole, &dir.join("merged")).unwrap();

    let e = initial_model(&of("int8", "")).unwrap_err().to_string();
    assert!(e.contains("model.quantize") && e.contains("[peft]"), "{e}");
}
