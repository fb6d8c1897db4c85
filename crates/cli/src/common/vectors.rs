//! In what form an index that compares with every row keeps its vectors, for the commands that build one.

use super::Usage;
use super::numbers::{count, number};
use anyhow::Result;
use clap::ValueEnum;
use ragduet_index::{
    BinaryConfig, CompressionConfig, ExactConfig, Form, IndexConfig, PqConfig, Precision, RescoreConfig,
    RescoreRows,
};

/// In what form vectors are kept.
#[derive(Debug, Clone, clap::Args)]
pub struct VectorArgs {
    /// Exact index: storage form of vectors: f32, f16, int8, binary or pq (product quantization).
    #[arg(long, value_enum, default_value = "f32")]
    vectors: Kept,
    /// Truncation of embeddings to the first N components (models trained with Matryoshka losses).
    #[arg(long, value_name = "N", value_parser = count)]
    dimensions: Option<usize>,
    /// Rescoring with vectors of this form, kept beside. If not given: int8 for binary and pq, none for the others.
    #[arg(long, value_enum)]
    rescore: Option<Rescore>,
    /// Oversampling factor: factor * k candidates are rescored.
    #[arg(long, value_name = "TIMES", default_value_t = RescoreConfig::default().factor, value_parser = number::<usize>(1, 1_000_000))]
    rescore_factor: usize,
    /// pq: bytes per vector [default: one per eight components]
    #[arg(long, value_name = "N", value_parser = number::<usize>(1, 1 << 16))]
    pq_parts: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kept {
    F32,
    F16,
    Int8,
    Binary,
    Pq,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rescore {
    None,
    Int8,
    F16,
    F32,
}

impl VectorArgs {
    /// Whether anything else than all numbers as they are is asked for.
    pub fn given(&self) -> bool {
        self.vectors != Kept::F32
            || self.dimensions.is_some()
            || self.rescore.is_some()
            || self.pq_parts.is_some()
    }

    /// Settings of an index that compares with every row, over vectors of `dim` numbers.
    pub fn config(&self, dim: usize) -> Result<IndexConfig> {
        let rows = match (self.rescore, self.vectors) {
            (Some(Rescore::Int8), _) | (None, Kept::Binary | Kept::Pq) => Some(RescoreRows::Int8),
            (Some(Rescore::F16), _) => Some(RescoreRows::F16),
            (Some(Rescore::F32), _) => Some(RescoreRows::F32),
            (Some(Rescore::None) | None, _) => None,
        };
        if self.pq_parts.is_some() && self.vectors != Kept::Pq {
            return Err(Usage("--pq-parts goes with --vectors pq".into()).into());
        }
        let precision = match self.vectors {
            Kept::F32 => Some(Precision::F32),
            Kept::F16 => Some(Precision::F16),
            _ => None,
        };
        if let (Some(precision), None, None) = (precision, rows, self.dimensions) {
            return Ok(IndexConfig::Exact(ExactConfig { precision }));
        }
        let width = self.dimensions.unwrap_or(dim);
        let form = match self.vectors {
            Kept::F32 => Form::F32,
            Kept::F16 => Form::F16,
            Kept::Int8 => Form::Int8,
            Kept::Binary => Form::Binary(BinaryConfig::default()),
            Kept::Pq => {
                let parts = self.pq_parts.unwrap_or(width.div_ceil(8));
                Form::Pq(PqConfig { parts, ..PqConfig::default() })
            }
        };
        let rescore = rows.map(|rows| RescoreConfig { rows, factor: self.rescore_factor });
        Ok(IndexConfig::Compressed(CompressionConfig { form, dimensions: self.dimensions, rescore }))
    }
}
