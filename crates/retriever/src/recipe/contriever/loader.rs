//! Batches of crops, prepared ahead on another thread: what a step sees is a pure function of the seed and the step.

use super::chunks::{Chunks, Order};
use super::config::ContrieverConfig;
use super::crop::Cropper;
use crate::biencoder::BiEncoder;
use crate::tower::Tower;
use crate::{Error, Result};
use ragduet_data::text_key;
use ragduet_text::{EncodeOptions, Encoding, Tokenizer};
use ragduet_train::{Prefetched, prefetch};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// One batch, ready for the encoders.
#[derive(Debug)]
pub(super) struct Batch {
    pub queries: Vec<Encoding>,
    pub keys: Vec<Encoding>,
    /// The chunk that both crops are of.
    pub owners: Vec<i64>,
}

impl Batch {
    pub fn tokens(&self) -> usize {
        self.queries.iter().chain(&self.keys).map(Encoding::len).sum()
    }
}

/// Makes batches.
pub(super) struct Source {
    chunks: Arc<Chunks>,
    cropper: Cropper,
    tokenizer: Tokenizer,
    /// The prompts of queries and passages, in front of crops as of any text.
    prompts: [Vec<u32>; 2],
    order: Order,
    size: u64,
    seed: u64,
}

impl Source {
    /// # Errors
    /// Crops that are longer than the model's texts; a fate of tokens that the tokenizer has no token for.
    pub fn new(config: &ContrieverConfig, model: &BiEncoder, chunks: Arc<Chunks>) -> Result<Self> {
        let tokenizer = model.tokenizer.clone();
        let options = EncodeOptions { add_special_tokens: false, ..EncodeOptions::default() };
        let prompt = |text: &str| Ok::<_, Error>(tokenizer.encode(text, &options)?.ids);
        let prompts = [prompt(&model.settings.prompts.query)?, prompt(&model.settings.prompts.passage)?];
        let around = prompts.iter().map(Vec::len).max().unwrap_or(0) + tokenizer.special_count(false);
        let longest = (chunks.longest() as f64 * config.crops.ratio_max) as usize + around;
        let most = model.towers().map(Tower::max_tokens).min().unwrap_or(0);
        if longest > most {
            let why = format!(
                "crops of up to crops.ratio_max of a chunk have {longest} tokens, prompt and special ones included, and \
                 the model takes {most}"
            );
            return Err(Error::Config { key: "chunks.tokens".into(), why });
        }
        Ok(Self {
            order: Order::new(chunks.len(), config.run.seed),
            chunks,
            cropper: Cropper::new(&config.crops, &tokenizer)?,
            tokenizer,
            prompts,
            size: config.batch.size as u64,
            seed: config.run.seed ^ text_key("crops"),
        })
    }

    /// The batch of a step.
    pub fn batch(&mut self, step: u64) -> Batch {
        let (mut sides, mut owners) = ([Vec::new(), Vec::new()], Vec::new());
        for place in step * self.size..(step + 1) * self.size {
            let chunk = self.order.at(place);
            owners.push(i64::from(chunk));
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(place);
            for (side, prompt) in sides.iter_mut().zip(&self.prompts) {
                let crop = self.cropper.crop(self.chunks.get(chunk), &mut rng);
                side.push(self.tokenizer.surround(&[prompt.as_slice(), &crop].concat()));
            }
        }
        let [queries, keys] = sides;
        Batch { queries, keys, owners }
    }

    /// The batches from a step on, made on another thread, a few ahead.
    pub fn start(mut self, from: u64) -> Prefetched<Batch> {
        prefetch(4, (from..).map(move |step| self.batch(step)))
    }
}
