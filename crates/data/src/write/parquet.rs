//! Parquet: examples with lists of passages, corpora with one passage per row.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ArrayBuilder, Float32Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::atomic::AtomicFile;
use super::counts::WriteCounts;
use crate::{Error, Passage, Result, RetrievalExample};

const ROWS_PER_BATCH: usize = 1024;

/// Columns `query_id`, `query`, `positive_passages`, `negative_passages`, `scores`, `answers`.
pub(crate) fn examples(
    path: &Path,
    examples: impl IntoIterator<Item = Result<RetrievalExample>>,
) -> Result<WriteCounts> {
    let mut counts = WriteCounts::default();
    let counted = examples.into_iter().inspect(|example| {
        if let Ok(example) = example {
            counts.add(example);
        }
    });
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let passages =
        |name: &str| Field::new_list(name, Field::new_list_field(DataType::Struct(parts()), true), false);
    let schema = Schema::new(vec![
        text("query_id"),
        text("query"),
        passages("positive_passages"),
        passages("negative_passages"),
        Field::new_list("scores", Field::new_list_field(DataType::Float32, true), true),
        Field::new_list("answers", Field::new_list_field(DataType::Utf8, true), false),
    ]);
    write(path, schema, counted, |rows| {
        let mut scores = ListBuilder::new(Float32Builder::new());
        let mut answers = ListBuilder::new(StringBuilder::new());
        for row in rows {
            scores.append_option(row.scores.as_ref().map(|s| s.iter().copied().map(Some)));
            answers.append_value(row.answers.iter().map(Some));
        }
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.query.id))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.query.text))),
            passage_lists(rows.iter().map(|r| r.positives.as_slice())),
            passage_lists(rows.iter().map(|r| r.negatives.as_slice())),
            Arc::new(scores.finish()),
            Arc::new(answers.finish()),
        ]
    })?;
    Ok(counts)
}

/// Columns `_id`, `title`, `text`.
pub(crate) fn corpus(path: &Path, passages: impl IntoIterator<Item = Result<Passage>>) -> Result<u64> {
    let schema = Schema::new(vec![
        Field::new("_id", DataType::Utf8, false),
        Field::new("title", DataType::Utf8, true),
        Field::new("text", DataType::Utf8, false),
    ]);
    write(path, schema, passages.into_iter(), |rows| {
        vec![
            Arc::new(StringArray::from_iter_values(rows.iter().map(|p| &p.id))),
            Arc::new(StringArray::from_iter(rows.iter().map(|p| p.title.as_deref()))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|p| &p.text))),
        ]
    })
}

fn parts() -> Fields {
    let part = |name| Field::new(name, DataType::Utf8, true);
    Fields::from(vec![part("docid"), part("title"), part("text")])
}

fn passage_lists<'a>(rows: impl Iterator<Item = &'a [Passage]>) -> ArrayRef {
    let strings = || Box::new(StringBuilder::new()) as Box<dyn ArrayBuilder>;
    let mut list = ListBuilder::new(StructBuilder::new(parts(), vec![strings(), strings(), strings()]));
    for passages in rows {
        for passage in passages {
            let columns = [Some(passage.id.as_str()), passage.title.as_deref(), Some(passage.text.as_str())];
            for (index, value) in columns.into_iter().enumerate() {
                if let Some(builder) = list.values().field_builder::<StringBuilder>(index) {
                    builder.append_option(value);
                }
            }
            list.values().append(true);
        }
        list.append(true);
    }
    Arc::new(list.finish())
}

/// Rows in batches, as columns of a schema. Returns their number.
pub(super) fn write<T>(
    path: &Path,
    schema: Schema,
    rows: impl Iterator<Item = Result<T>>,
    columns: impl Fn(&[T]) -> Vec<ArrayRef>,
) -> Result<u64> {
    let failed = |reason: String| Error::Unsupported { path: path.to_owned(), reason };
    let schema = Arc::new(schema);
    let properties =
        WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let file = AtomicFile::create_raw(path)?;
    let mut writer =
        ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(|e| failed(e.to_string()))?;
    let mut count = 0;
    let mut chunk = Vec::with_capacity(ROWS_PER_BATCH);
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        for row in rows.by_ref().take(ROWS_PER_BATCH) {
            chunk.push(row?);
        }
        let batch =
            RecordBatch::try_new(schema.clone(), columns(&chunk)).map_err(|e| failed(e.to_string()))?;
        writer.write(&batch).map_err(|e| failed(e.to_string()))?;
        count += chunk.len() as u64;
        chunk.clear();
    }
    writer.into_inner().map_err(|e| failed(e.to_string()))?.finish()?;
    Ok(count)
}
