//! A teacher's likeliest tokens for each token of each answer, on disk: the teacher is asked before training, once, and
//! is gone when it begins.
//!
//! A file holds what the teacher said of a forward pass, named by a hash of teacher, settings and examples: complete or
//! absent, so that a run that was killed asks for what is missing. Within it an example's tensors are named by a hash of
//! the example, since later epochs put other examples together.

use super::teacher::{Teacher, check_fit};
use crate::error::{Error, Result, bad, catch};
use crate::loss::distil::{CHUNK, Projection, TopK, top_k};
use crate::model::Generator;
use crate::packed::PackedExamples;
use ragduet_text::TrainExample;
use ragduet_torch::weights::{Weights, save_tensors};
use ragduet_torch::{Kind, Tensor, no_grad};
use ragduet_train::Progress;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// What was kept of a teacher.
#[derive(Debug)]
pub(super) struct Cache {
    files: Vec<Weights>,
    /// The file of each example.
    places: HashMap<u128, usize>,
    width: i64,
}

/// What a teacher is asked.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    /// Whose examples.
    pub student: &'a Generator,
    /// Most tokens of an example.
    pub longest: usize,
    /// Tokens kept.
    pub k: usize,
    /// Of the distribution.
    pub temperature: f64,
}

/// Goes into a hash with what makes two examples one.
fn add(hash: &mut Xxh3, e: &TrainExample) {
    for number in [e.ids.len(), e.source, e.parts.len()].iter().chain(&e.parts) {
        hash.update(&(*number as u64).to_le_bytes());
    }
    for (id, learned) in e.ids.iter().zip(&e.loss) {
        hash.update(&id.to_le_bytes());
        hash.update(&[u8::from(*learned)]);
    }
}

fn key(e: &TrainExample) -> u128 {
    let mut hash = Xxh3::new();
    add(&mut hash, e);
    hash.digest128()
}

impl Cache {
    /// Asks the teacher for what is not there yet. `batches`: the forward passes of the first epoch, whose examples are
    /// those of all others.
    ///
    /// # Errors
    /// A teacher that does not load or fit the student; files.
    pub fn make(
        ask: &Ask<'_>,
        teacher: &Teacher<'_>,
        batches: &[PackedExamples],
        quiet: bool,
    ) -> Result<Self> {
        let mut asked = teacher.fingerprint()?;
        let rows = ask.student.model.kind.vocab_size();
        asked.update(format!("{} {} {rows}", ask.k, ask.temperature).as_bytes());
        let mut loaded: Option<Generator> = None;
        let mut kept = Self { files: Vec::with_capacity(batches.len()), places: HashMap::new(), width: 0 };
        let mut progress = Progress::new(batches.len() as u64, 0, quiet);
        for (i, batch) in batches.iter().enumerate() {
            let mut hash = asked.clone();
            batch.examples.iter().for_each(|e| add(&mut hash, e));
            let path = teacher.store.join(format!("top-k-{:032x}.safetensors", hash.digest128()));
            if !path.is_file() {
                if loaded.is_none() {
                    let model = teacher.load()?;
                    check_fit(ask.student, &model, ask.longest)?;
                    loaded = Some(model);
                }
                if let Some(model) = &loaded {
                    keep(&path, model, batch, ask)?;
                }
            }
            let file = Weights::open_file(&path)?;
            let width = file.metadata().get("width").and_then(|w| w.parse().ok());
            kept.width = width.ok_or_else(|| Error::Unusable(format!("{}: no width", path.display())))?;
            kept.files.push(file);
            kept.places.extend(batch.examples.iter().map(|e| (key(e), i)));
            progress.step(i as u64 + 1, || "passes of the teacher".into());
        }
        progress.finish();
        Ok(kept)
    }

    /// What the teacher said of a batch of the examples.
    ///
    /// # Errors
    /// An example it was not asked; files.
    pub fn of(&self, batch: &PackedExamples, student: &Generator) -> Result<TopK> {
        let (mut tokens, mut log_p) = (Vec::new(), Vec::new());
        for e in &batch.examples {
            let key = key(e);
            let Some(&at) = self.places.get(&key) else {
                return Err(Error::Unusable("the teacher was not asked about an example".into()));
            };
            let (tokens_of, log_p_of) = names(key);
            tokens.push(self.files[at].load_as_is(&tokens_of)?);
            log_p.push(self.files[at].load(&log_p_of, student.device)?);
        }
        let tokens = Tensor::cat(&tokens, 0).to_device(student.device).to_kind(Kind::Int64);
        Ok(TopK { tokens, log_p: Tensor::cat(&log_p, 0), width: self.width })
    }
}

fn names(key: u128) -> (String, String) {
    (format!("{key:032x}.tokens"), format!("{key:032x}.log_p"))
}

/// Writes what the teacher says of a batch.
fn keep(path: &Path, teacher: &Generator, batch: &PackedExamples, ask: &Ask<'_>) -> Result<()> {
    let vocab = |g: &Generator| g.model.kind.vocab_size() as i64;
    let (width, k) = (vocab(ask.student).min(vocab(teacher)), ask.k as i64);
    if k >= width {
        return Err(bad("teacher.cache.top_k.k", format!("must be below {width}, the number of tokens")));
    }
    let top = catch("the teacher's pass", "lower batch.tokens", || {
        let _guard = no_grad();
        let mode = teacher.mode(false);
        let hidden = batch.states(teacher, mode);
        let head = teacher.model.kind.head(mode);
        let projection = Projection::new(&hidden, &head, teacher.compute);
        Ok(top_k(projection, width, k, ask.temperature, CHUNK))
    })?;
    let (tokens, mut first) = (top.tokens.to_kind(Kind::Int), 0);
    // By name, as two examples may be the same.
    let mut all = BTreeMap::new();
    for e in &batch.examples {
        let (n, (tokens_of, log_p_of)) = (e.targets() as i64, names(key(e)));
        all.insert(tokens_of, tokens.narrow(0, first, n));
        all.insert(log_p_of, top.log_p.narrow(0, first, n));
        first += n;
    }
    let all: Vec<(String, Tensor)> = all.into_iter().collect();
    Ok(save_tensors(path, &all, &[("width", &width.to_string())])?)
}
