//! Loads an adapter's folder over a base and writes it to another:
//!
//! ```text
//! adapt <base folder> <adapter folder> <to>
//! ```
//!
//! Used by `tests/python/test_adapters.py`.

use ragduet_nn::peft::{Adapter, TaskType};
use ragduet_nn::{load_encoder, load_language_model};
use ragduet_torch::Device;
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [base, from, to] = args.as_slice() else {
        return Err("usage: adapt <base folder> <adapter folder> <to>".into());
    };
    let (dir, from, to) = (Path::new(base), Path::new(from), Path::new(to));
    match load_language_model(dir, Device::Cpu) {
        Ok(model) => {
            let task = if model.seq2seq().is_some() { TaskType::Seq2SeqLm } else { TaskType::CausalLm };
            Adapter::load(model.base(Device::Cpu)?, from)?.save(to, task, base)?;
        }
        Err(_) => {
            let model = load_encoder(dir, Device::Cpu)?;
            Adapter::load(model.base(Device::Cpu)?, from)?.save(to, TaskType::FeatureExtraction, base)?;
        }
    }
    Ok(())
}
