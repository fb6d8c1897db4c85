//! Centroids and residuals: a fraction of the memory, and only some passages are looked at (PLAID, Santhanam et al.,
//! arXiv 2205.09707).
//!
//! In memory are the number of each token's centroid, for each centroid the passages it occurs in, and the residuals;
//! an index larger than memory leaves its residuals in their file and reads those of the few passages that are scored
//! in full. (They are read by position, not mapped: a mapping is `unsafe`, and the system caches either.)

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::codec::{Codec, check_units, row_bytes};
use super::config::ResidualConfig;
use super::search::Scratch;
use super::spans::{LENGTHS, Spans};
use super::{MultiHeader, MultiVectorConfig, MultiVectorIndex, kmeans};
use crate::store::{MANIFEST, Manifest, OpenOptions, Reader, Writer};
use crate::{Error, Hit, IdMap, IndexKind, MultiSearchParams, MultiVectors, Result, VectorFile, Vectors};

const CENTROIDS: &str = "centroids.bin";
const BUCKETS: &str = "buckets.bin";
const CODES: &str = "codes.bin";
const RESIDUALS: &str = "residuals.bin";

/// Token vectors that the buckets are fitted to: this share of the sample, and no more than this.
const HELD_OUT_SHARE: usize = 20;
const HELD_OUT_MOST: usize = 50_000;

/// A compressed multi-vector index over vectors of length 1.
pub struct CompressedMultiVectorIndex {
    pub(super) config: ResidualConfig,
    pub(super) codec: Codec,
    pub(super) spans: Spans,
    /// The nearest centroid of each row.
    pub(super) codes: Vec<u32>,
    residuals: Residuals,
    /// The passages that have a row of this centroid, ascending.
    pub(super) lists: Vec<Vec<u32>>,
    pub(super) pool: Mutex<Vec<Scratch>>,
}

enum Residuals {
    Memory(Vec<u8>),
    Disk(fs_err::File),
}

impl fmt::Debug for CompressedMultiVectorIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompressedMultiVectorIndex")
            .field("config", &self.config)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl CompressedMultiVectorIndex {
    /// An index of these passages.
    pub fn build(config: &ResidualConfig, passages: MultiVectors<'_>) -> Result<Self> {
        let mut index = Self::train(config, passages, passages.tokens())?;
        index.add(passages)?;
        Ok(index)
    }

    /// An empty index whose codec is trained on a sample of the corpus, for about `expected_tokens` token vectors to
    /// be added. This is how a corpus is indexed that does not fit in memory: passages are then
    /// [added](MultiVectorIndex::add) in portions.
    pub fn train(config: &ResidualConfig, sample: MultiVectors<'_>, expected_tokens: usize) -> Result<Self> {
        config.validate()?;
        let (vectors, dim) = (sample.vectors(), sample.dim());
        if vectors.is_empty() {
            return Err(Error::NoTokens);
        }
        check_units(vectors)?;
        let gather = |rows: &[usize]| Ok(rows.iter().flat_map(|&row| vectors.row(row)).copied().collect());
        let codec = learn(config, vectors.len(), dim, expected_tokens, gather)?;
        Ok(Self::new(config.clone(), codec, Residuals::Memory(Vec::new())))
    }

    /// Writes an index of the vectors of a file, `lengths` of each passage, without holding them.
    pub(crate) fn write(
        dir: &Path,
        config: &ResidualConfig,
        vectors: &VectorFile,
        lengths: &[u32],
        ids: Option<&IdMap>,
        progress: &dyn Fn(usize, usize),
    ) -> Result<()> {
        config.validate()?;
        Spans::check_lengths(lengths, vectors.len())?;
        if vectors.is_empty() {
            return Err(Error::NoTokens);
        }
        vectors.blocks(check_units)?;
        let codec = learn(config, vectors.len(), vectors.dim(), vectors.len(), |rows| vectors.pick(rows))?;
        let header = MultiHeader {
            dim: vectors.dim(),
            tokens: vectors.len(),
            centroids: codec.len(),
            requested: MultiVectorConfig::Compressed(config.clone()),
        };
        let mut writer = Writer::new(dir, Manifest::new(IndexKind::MultiVector, lengths.len(), header))?;
        write_codec(&codec, &mut writer)?;
        writer.file(LENGTHS, |out| Spans::write_lengths(lengths, out))?;
        let (mut codes, mut residuals) = (writer.begin(CODES)?, writer.begin(RESIDUALS)?);
        let mut done = 0;
        vectors.blocks(|block| {
            let (nearest, bytes) = codec.encode(block);
            nearest.iter().try_for_each(|code| codes.write_all(&code.to_le_bytes()))?;
            residuals.write_all(&bytes)?;
            done += block.len();
            progress(done, vectors.len());
            Ok(())
        })?;
        writer.end(CODES, codes)?;
        writer.end(RESIDUALS, residuals)?;
        writer.ids(ids, lengths.len())?;
        writer.finish()
    }

    fn new(config: ResidualConfig, codec: Codec, residuals: Residuals) -> Self {
        let lists = vec![Vec::new(); codec.len()];
        let (spans, codes, pool) = (Spans::default(), Vec::new(), Mutex::default());
        Self { config, codec, spans, codes, residuals, lists, pool }
    }

    /// Opens a saved index; `options.on_disk` leaves the residuals in their file.
    pub fn open(dir: &Path, options: &OpenOptions) -> Result<Self> {
        let reader: Reader<MultiHeader> = MultiHeader::open(dir)?;
        let MultiHeader { dim, tokens, centroids, requested } = reader.manifest.header.clone();
        let MultiVectorConfig::Compressed(config) = requested else {
            let problem = "is an exact multi-vector index".to_owned();
            return Err(Error::NotAnIndex { path: dir.to_owned(), problem });
        };
        config.validate()?;
        let bytes = row_bytes(dim, config.bits).checked_mul(tokens);
        let numbers = centroids.checked_mul(dim).filter(|&n| n > 0);
        let (Some(numbers), Some(bytes)) = (numbers, bytes) else {
            let problem = format!("{centroids} centroids of dimension {dim} for {tokens} vectors");
            return Err(reader.corrupt(MANIFEST, problem));
        };
        let buckets = 1usize << config.bits;
        let mut cutoffs = reader.numbers(BUCKETS, 2 * buckets - 1, f32::from_le_bytes)?;
        let weights = cutoffs.split_off(buckets - 1);
        let codec = Codec::new(
            dim,
            config.bits,
            reader.numbers(CENTROIDS, numbers, f32::from_le_bytes)?,
            cutoffs,
            weights,
        );
        let residuals = if options.on_disk {
            if options.verify {
                reader.check(RESIDUALS, |_| ())?;
            }
            Residuals::Disk(reader.file(RESIDUALS)?)
        } else {
            Residuals::Memory(reader.read(RESIDUALS)?)
        };
        if reader.sum(RESIDUALS)?.bytes != bytes as u64 {
            return Err(reader.corrupt(RESIDUALS, format!("it should have {bytes} bytes")));
        }
        let codes = reader.numbers(CODES, tokens, u32::from_le_bytes)?;
        if let Some(code) = codes.iter().find(|&&code| code as usize >= centroids) {
            return Err(reader.corrupt(CODES, format!("centroid {code} of {centroids}")));
        }
        let spans = Spans::read(&reader, tokens)?;
        let mut index = Self { codes, spans, ..Self::new(config, codec, residuals) };
        index.list(0..index.spans.len() as u32);
        Ok(index)
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &ResidualConfig {
        &self.config
    }

    /// How many centroids it has.
    pub fn centroids(&self) -> usize {
        self.codec.len()
    }

    /// Enters passages into the lists of their centroids. They must be greater than all that are listed.
    fn list(&mut self, ids: Range<u32>) {
        for id in ids {
            for &code in &self.codes[self.spans.get(id)] {
                let list = &mut self.lists[code as usize];
                if list.last() != Some(&id) {
                    list.push(id);
                }
            }
        }
    }

    /// The residuals of some rows.
    pub(super) fn residuals<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<u8>) -> Result<&'a [u8]> {
        let per_row = self.codec.row_bytes();
        let bytes = rows.start * per_row..rows.end * per_row;
        match &self.residuals {
            Residuals::Memory(all) => Ok(&all[bytes]),
            Residuals::Disk(file) => {
                use fs_err::os::unix::fs::FileExt;
                scratch.resize(bytes.len(), 0);
                file.read_exact_at(scratch, bytes.start as u64)?;
                Ok(scratch)
            }
        }
    }
}

/// Centroids and buckets, trained on a sample of `count` vectors, for about `expected_tokens` of them; `gather` gives those
/// of some numbers, in that order.
fn learn(
    config: &ResidualConfig,
    count: usize,
    dim: usize,
    expected_tokens: usize,
    gather: impl Fn(&[usize]) -> Result<Vec<f32>>,
) -> Result<Codec> {
    let wanted = config.centroids_for(expected_tokens);
    let drawn = config.sample.unwrap_or(64 * wanted).min(count);
    let held_out = (drawn / HELD_OUT_SHARE).min(HELD_OUT_MOST);

    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let mut rows = rand::seq::index::sample(&mut rng, count, drawn).into_vec();
    let (held_out, trained_on) = rows.split_at_mut(held_out);
    let gather = |rows: &mut [usize]| {
        rows.sort_unstable();
        gather(rows)
    };
    let trained_on = gather(trained_on)?;
    let trained_on = Vectors::of(&trained_on, dim);
    let most = match config.centroids {
        Some(_) => trained_on.len(),
        None => 1 << (trained_on.len() / 4).max(1).ilog2(),
    };
    let centroids = kmeans::train(trained_on, wanted.min(most), config.iterations, config.seed);
    Ok(match held_out.is_empty() {
        true => Codec::fit(config.bits, centroids, trained_on),
        false => Codec::fit(config.bits, centroids, Vectors::of(&gather(held_out)?, dim)),
    })
}

fn write_codec(codec: &Codec, writer: &mut Writer<MultiHeader>) -> Result<()> {
    let little = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    writer.file(CENTROIDS, |out| Ok(out.write_all(&little(codec.centroids()))?))?;
    writer.file(BUCKETS, |out| {
        out.write_all(&little(codec.cutoffs()))?;
        Ok(out.write_all(&little(codec.weights()))?)
    })
}

impl MultiVectorIndex for CompressedMultiVectorIndex {
    fn config(&self) -> MultiVectorConfig {
        MultiVectorConfig::Compressed(self.config.clone())
    }

    fn len(&self) -> usize {
        self.spans.len()
    }

    fn live(&self) -> usize {
        self.spans.live()
    }

    fn dim(&self) -> usize {
        self.codec.dim()
    }

    fn tokens(&self) -> usize {
        self.spans.live_rows()
    }

    fn bytes(&self) -> usize {
        let listed: usize = self.lists.par_iter().map(Vec::len).sum();
        let codec = self.codec.centroids().len() + self.codec.cutoffs().len() + self.codec.weights().len();
        self.tokens() * (4 + self.codec.row_bytes()) + 4 * (listed + codec + self.len())
    }

    fn search(&self, queries: MultiVectors<'_>, params: &MultiSearchParams<'_>) -> Result<Vec<Vec<Hit>>> {
        self.search_all(queries, params)
    }

    fn score(&self, query: Vectors<'_>, ids: &[u32]) -> Result<Vec<f32>> {
        self.score_all(query, ids)
    }

    fn passage(&self, id: u32) -> Result<Vec<f32>> {
        let rows = self.spans.check(id)?;
        let mut out = vec![0.0; rows.len() * self.dim()];
        let mut scratch = Vec::new();
        let residuals = self.residuals(rows.clone(), &mut scratch)?;
        self.codec.decode(&self.codes[rows], residuals, &mut out);
        Ok(out)
    }

    fn add(&mut self, passages: MultiVectors<'_>) -> Result<Range<u32>> {
        if passages.dim() != self.dim() {
            return Err(Error::Dimension { expected: self.dim(), got: passages.dim() });
        }
        self.spans.check_room(passages.len())?;
        check_units(passages.vectors())?;
        let all = match &mut self.residuals {
            Residuals::Memory(all) => all,
            Residuals::Disk(file) => return Err(Error::ReadOnly { path: PathBuf::from(file.path()) }),
        };
        let (codes, bytes) = self.codec.encode(passages.vectors());
        let first = self.codes.len();
        self.codes.extend(codes);
        all.extend(bytes);
        let added = self.spans.add(first, passages.lengths());
        self.list(added.clone());
        Ok(added)
    }

    fn remove(&mut self, ids: &[u32]) -> Result<usize> {
        ids.iter().try_for_each(|&id| self.spans.check(id).map(drop))?;
        let mut removed = 0;
        for &id in ids {
            let rows = self.spans.remove(id);
            removed += usize::from(!rows.is_empty());
            for &code in &self.codes[rows] {
                let list = &mut self.lists[code as usize];
                // A centroid may stand for several rows of the passage: the first has taken it from the list.
                if let Ok(at) = list.binary_search(&id) {
                    list.remove(at);
                }
            }
        }
        Ok(removed)
    }

    fn save_with_ids(&self, dir: &Path, ids: Option<&IdMap>) -> Result<()> {
        let header = MultiHeader {
            dim: self.dim(),
            tokens: self.tokens(),
            centroids: self.centroids(),
            requested: self.config(),
        };
        let mut writer = Writer::new(dir, Manifest::new(IndexKind::MultiVector, self.len(), header))?;
        write_codec(&self.codec, &mut writer)?;
        writer.file(LENGTHS, |out| self.spans.write(out))?;
        // Portions bound the memory that a long range would take.
        const ROWS: usize = 1 << 14;
        let portions = || {
            self.spans.live_ranges().into_iter().flat_map(|rows| {
                let end = rows.end;
                rows.step_by(ROWS).map(move |at| at..end.min(at + ROWS))
            })
        };
        writer.file(CODES, |out| {
            portions().try_for_each(|rows| {
                let bytes: Vec<u8> = self.codes[rows].iter().flat_map(|code| code.to_le_bytes()).collect();
                Ok(out.write_all(&bytes)?)
            })
        })?;
        writer.file(RESIDUALS, |out| {
            let mut scratch = Vec::new();
            portions().try_for_each(|rows| Ok(out.write_all(self.residuals(rows, &mut scratch)?)?))
        })?;
        writer.ids(ids, self.len())?;
        writer.finish()
    }
}
