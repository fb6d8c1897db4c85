//! What a generator makes of texts, token by token:
//!
//! ```text
//! tokens <model> < {"texts": ["..."], "prompts": [[1, 2]], "count": 64} > {"ids": [[...]], "continuations": [[...]]}
//! ```
//!
//! Ids of texts with their special tokens parsed, none added; greedy continuations of prompts, the end token included. Used
//! by `scripts/check_gguf`.

use ragduet_generator::Generator;
use ragduet_generator::decode::{DecodeConfig, Request};
use ragduet_nn::hub;
use ragduet_text::EncodeOptions;
use ragduet_torch::{Compute, Device};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::io::{stdin, stdout};

#[derive(Deserialize)]
struct Asked {
    texts: Vec<String>,
    prompts: Vec<Vec<u32>>,
    count: usize,
}

#[derive(Serialize)]
struct Told {
    ids: Vec<Vec<u32>>,
    continuations: Vec<Vec<u32>>,
    ends: Vec<u32>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = std::env::args().nth(1).ok_or("usage: tokens <model>")?;
    let asked: Asked = serde_json::from_reader(stdin())?;
    let generator = Generator::load(&hub::resolve(&model)?, Device::Cpu, Compute::F32)?;
    let plain = EncodeOptions {
        max_len: Some(usize::MAX),
        strip: false,
        add_special_tokens: false,
        ..EncodeOptions::default()
    };
    let mut ids = Vec::new();
    for text in &asked.texts {
        ids.push(generator.tokenizer.encode(text, &plain)?.ids);
    }
    let requests: Vec<Request> =
        asked.prompts.into_iter().map(|prompt| Request { prompt, seed: 0, parts: Vec::new() }).collect();
    let config = DecodeConfig {
        model_defaults: false,
        max_new_tokens: Some(asked.count),
        do_sample: Some(false),
        ..DecodeConfig::default()
    };
    let answers = generator.answer(&requests, &config, 16, &mut |_| {})?;
    let continuations = answers.into_iter().map(|mut all| all.remove(0).tokens).collect();
    serde_json::to_writer(stdout(), &Told { ids, continuations, ends: generator.eos() })?;
    Ok(())
}
