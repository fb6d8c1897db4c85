//! What is said of an index that was built: its size, and how many of the true neighbours it finds.

use super::embedded::{Embedded, Texts};
use super::{Build, LOW_RECALL};
use anyhow::Result;
use ragduet_index::{
    AuditOptions, ExactIndex, ExactMultiVectorIndex, HnswIndex, IndexConfig, MultiSearchParams, MultiVectors,
    OpenOptions, SearchParams, Similarity, SparseVectors, VectorFile, Vectors, open_multi_vector,
    recall_against_exact, recall_of_multi_vectors,
};

impl Build {
    /// Says what was built, and how many of the true neighbours it finds.
    pub(super) fn say(&self, e: Embedded, bytes: usize, started: std::time::Instant) -> Result<()> {
        let seconds = started.elapsed().as_secs_f64();
        match e.texts {
            Texts::Dense(vectors) => self.say_vectors(&vectors, e.similarity, bytes, seconds),
            Texts::LateInteraction(vectors, lengths) => self.say_tokens(vectors, &lengths, seconds),
            Texts::Sparse(weights) => self.say_weights(&weights, e.ids.len(), bytes, seconds),
        }
    }

    fn say_vectors(
        &self,
        vectors: &VectorFile,
        similarity: Similarity,
        bytes: usize,
        seconds: f64,
    ) -> Result<()> {
        let (kind, bytes) = match self.dense(vectors.dim())? {
            IndexConfig::Hnsw(_) => {
                self.audit(vectors)?;
                ("hnsw", String::new())
            }
            IndexConfig::Exact(_) | IndexConfig::Compressed(_) => {
                let each = bytes as f64 / vectors.len().max(1) as f64;
                ("exact", format!(", {each:.0} bytes a passage"))
            }
        };
        println!(
            "{}: {kind} index of {} vectors, {} dimensions, {similarity:?}{bytes}, in {seconds:.1} s",
            self.out.display(),
            vectors.len(),
            vectors.dim(),
        );
        Ok(())
    }

    fn say_tokens(&self, vectors: VectorFile, lengths: &[u32], seconds: f64) -> Result<()> {
        // As a search would open it: what it reads of few passages stays on disk.
        let index = open_multi_vector(&self.out, &OpenOptions { on_disk: true, verify: false })?;
        println!(
            "{}: multi-vector index of {} passages, {} vectors of {} numbers, {:.0} bytes a passage, in {seconds:.1} s",
            self.out.display(),
            index.live(),
            index.tokens(),
            vectors.dim(),
            index.bytes_per_passage(),
        );
        if self.bits > 0 && self.audit > 0 && index.live() > 0 {
            // A query's length of each of some passages asks for it.
            const TOKENS: usize = 32;
            let step = (lengths.len() / self.audit).max(1);
            let (mut rows, mut borders, mut first) = (Vec::new(), vec![0], 0);
            for (passage, &length) in lengths.iter().enumerate() {
                let length = length as usize;
                if passage % step == 0 && borders.len() <= self.audit {
                    rows.extend(first..first + length.min(TOKENS));
                    borders.push(rows.len());
                }
                first += length;
            }
            let (dim, rows) = (vectors.dim(), vectors.pick(&rows)?);
            let queries = MultiVectors::new(&rows, &borders, dim)?;
            let truth = ExactMultiVectorIndex::of_file(vectors, lengths)?;
            let r = recall_of_multi_vectors(&*index, &truth, queries, &MultiSearchParams::top(10))?;
            println!("recall@{} against exact MaxSim: {:.4} on {} queries", r.k, r.recall, r.queries);
        }
        Ok(())
    }

    fn say_weights(&self, texts: &SparseVectors, passages: usize, bytes: usize, seconds: f64) -> Result<()> {
        let count = passages.max(1) as f64;
        println!(
            "{}: sparse index of {passages} passages, {:.1} words a passage, {:.0} bytes a passage, in {seconds:.1} s",
            self.out.display(),
            texts.active() as f64 / count,
            bytes as f64 / count,
        );
        Ok(())
    }

    /// Every vector must find itself, and a sample of them their true neighbours.
    fn audit(&self, vectors: &VectorFile) -> Result<()> {
        let index = HnswIndex::open(&self.out)?;
        let found = index.audit(&AuditOptions::default());
        println!(
            "self-audit: {} of {} vectors find themselves, {} unreachable",
            found.searched - found.missed.len(),
            found.searched,
            found.unreachable.len()
        );
        if self.audit == 0 || vectors.is_empty() {
            return Ok(());
        }
        // The same rows, read from their file.
        let exact = ExactIndex::open(&self.out, &OpenOptions { on_disk: true, verify: false })?;
        let step = (vectors.len() / self.audit).max(1);
        let sample: Vec<usize> = (0..vectors.len()).step_by(step).take(self.audit).collect();
        let sample = vectors.pick(&sample)?;
        let queries = Vectors::new(&sample, vectors.dim())?;
        let r = recall_against_exact(&index, &exact, queries, &SearchParams::top(10))?;
        println!("recall@{} against exact search: {:.4} on {} queries", r.k, r.recall, r.queries);
        if r.recall < LOW_RECALL {
            tracing::warn!(
                "the graph misses {:.0} % of the nearest passages: build with a greater --ef-search, --ef-construction or --m, or with --kind exact",
                (1.0 - r.recall) * 100.0
            );
        }
        Ok(())
    }
}
