//! Data for retrievers and generators: records, readers and writers, pooling, batching.
//!
//! - [`Format`] is a table: what is known of each format stands in one place.
//! - [`read_examples`] and [`read_corpus`] stream any supported [`Format`]; [`BadRows`] decides what happens to rows
//!   that cannot be used. [`Collection`] reads corpus, queries, judgements and answers behind every format.
//! - [`write_examples`], [`write_corpus`] and [`BeirWriter`] write; [`convert`] goes from any format to any other;
//!   [`dataset_stats`] describes.
//! - [`TrainingSet`] pools examples: each distinct query and passage once, examples as numbers.
//! - [`plan_epoch`] arranges examples into batches: length-grouped, token-budgeted, free of duplicates, and the same
//!   for the same seed and epoch, so that a resumed run finds its place by computing the plan again.
//! - [`length_sorted_batches`] does the same job for inference.
//!
//! This crate never links libtorch: it deals in text and numbers.

mod answers;
mod bad_rows;
mod batch;
mod choices;
mod collection;
mod columns;
mod conversation;
mod convert;
mod corpus_shapes;
#[cfg(test)]
mod documented;
mod documents;
mod error;
mod fields;
mod format;
mod ids;
mod kind;
mod kind_stats;
mod labelled;
mod length;
mod map;
mod mix;
mod pairs;
mod patterns;
mod pool;
mod preference;
mod preference_shapes;
mod provenance;
mod questions;
mod rag;
mod rag_record;
mod read;
mod reads;
mod record;
mod record_stats;
mod samples;
mod shapes;
mod shown;
mod source;
mod stats;
mod stream;
mod watch;
mod write;

pub use answers::read_answers;
pub use bad_rows::{BadRow, BadRowPolicy, BadRows, MissingPolicy, Origin, Problem, ReadReport};
pub use batch::{BatchConfig, BatchItem, BatchSize, EpochPlan, LengthGrouping, TokenBudget, plan_epoch};
pub use choices::{ChoiceRecord, ChoiceRecords, choice_line, read_choices};
pub use collection::{Answers, Collection, PassagePool};
pub use convert::{convert, convert_records};
pub use documents::{DocumentsReport, dataset_from_documents};
pub use error::{Error, Result};
pub use format::Format;
pub use kind::{Kind, ShownRecords};
pub use kind_stats::{ChoiceStats, TextStats, choice_stats, text_stats};
pub use labelled::{Label, LabelledRecord, read_labelled};
pub use length::{LengthBudget, length_sorted_batches};
pub use map::Columns;
pub use mix::{Mixing, Turn, mix};
pub use pairs::PairLabels;
pub use patterns::{OneOrMore, files_of, is_there, path_or_list, path_or_list_if, pattern_of};
pub use pool::{PoolStats, TrainingItem, TrainingSet, TrainingSetBuilder};
pub use preference::{JudgedRecord, PreferenceRecord, read_judged, read_preferences};
pub use provenance::{Provenance, read_provenance};
pub use questions::read_questions;
pub use rag::{RagRecords, RecordFormat, no_answers, rag_line, read_rag, read_records};
pub use rag_record::{Found, Message, Prompt, RagRecord, Style};
pub use read::{ReadOptions, read_corpus, read_examples};
pub use record::{Passage, Qrel, Query, RetrievalExample, is_own_copy, text_key};
pub use record_stats::{PreferenceStats, RecordStats, judged_stats, preference_stats, record_stats};
pub use samples::{SAMPLES, Sample, markdown as samples_in_markdown};
pub use shown::{Shown, one_line};
pub use stats::{
    CorpusStats, DatasetStats, Distribution, Lengths, Overlap, SplitStats, corpus_stats, dataset_stats,
};
pub use stream::{Examples, Judgements, Passages, Queries};
pub use write::{
    BeirWriter, QrelsLayout, WriteCounts, write_corpus, write_examples, write_qrels, write_queries,
};
