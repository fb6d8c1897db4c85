//! Parquet and Arrow with the columns of JSONL: a batch of rows at a time, known columns only.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};

use super::arrow::{self, Batches};
use crate::bad_rows::{BadRow, Fault, Problem};
use crate::source::inner_extension;
use crate::{BadRows, Error, Result};

const ROWS_PER_BATCH: usize = 1024;

/// The rows of a Parquet or Arrow file, or of the shards in a directory.
pub(crate) struct Rows {
    files: VecDeque<PathBuf>,
    path: PathBuf,
    reader: Option<Batches>,
    batch: Option<RecordBatch>,
    at: usize,
    line: u64,
    bad: BadRows,
    known: Known,
    names: Vec<String>,
}

/// Whether a column is read.
type Known = Box<dyn Fn(&str) -> bool + Send>;

impl Rows {
    /// Rows of a file, of which only the `known` columns are read.
    pub(crate) fn of_columns(path: &Path, bad: &BadRows, known: Known) -> Result<Self> {
        let files = VecDeque::from([path.to_owned()]);
        let (bad, path) = (bad.clone(), PathBuf::new());
        let names = Vec::new();
        let mut rows = Self { files, path, reader: None, batch: None, at: 0, line: 0, bad, known, names };
        rows.next_batch()?;
        Ok(rows)
    }

    /// The names of the columns of the file that is read.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Those that are left on disk.
    pub(crate) fn left(&self) -> Vec<String> {
        let all = self.names.iter().filter(|name| !(self.known)(name)).cloned().collect::<Vec<_>>();
        if all.len() == self.names.len() { Vec::new() } else { all }
    }

    pub(crate) fn next_row<T>(
        &mut self,
        mut parse: impl FnMut(Map<String, Value>) -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        loop {
            let Some(batch) = self.batch.as_ref().filter(|batch| self.at < batch.num_rows()) else {
                if !self.next_batch()? {
                    return Ok(None);
                }
                continue;
            };
            let row = json_row(batch, self.at);
            self.at += 1;
            self.line += 1;
            let written = |row: &Map<String, Value>| Value::Object(row.clone()).to_string();
            let fault = match row {
                Ok(row) => {
                    let text = written(&row);
                    match parse(row) {
                        Ok(parsed) => {
                            self.bad.good();
                            return Ok(Some(parsed));
                        }
                        Err(fault) => (fault, text),
                    }
                }
                Err(fault) => (fault, String::new()),
            };
            let (Fault { problem, detail }, row) = fault;
            self.bad.bad(BadRow { path: self.path.clone(), line: self.line, problem, detail, row })?;
        }
    }

    /// Reads on, through the files; `false` at the end.
    fn next_batch(&mut self) -> Result<bool> {
        loop {
            self.at = 0;
            let corrupt = |path: &Path, e: &dyn std::fmt::Display| Error::Corrupt {
                path: path.to_owned(),
                reason: format!("cannot be read as {} ({e})", kind_of(path)),
            };
            match self.reader.as_mut().and_then(Iterator::next) {
                Some(Ok(batch)) => {
                    self.batch = Some(batch);
                    return Ok(true);
                }
                Some(Err(e)) => return Err(corrupt(&self.path, &e)),
                None => {
                    (self.reader, self.batch) = (None, None);
                    let Some(path) = self.files.pop_front() else { return Ok(false) };
                    let (reader, names) = match kind_of(&path) {
                        "Arrow" => arrow::open(&path, &*self.known)?,
                        _ => open(&path, &*self.known)?,
                    };
                    (self.reader, self.names) = (Some(reader), names);
                    (self.path, self.line) = (path, 0);
                }
            }
        }
    }
}

fn kind_of(path: &Path) -> &'static str {
    if arrow::EXTENSIONS.contains(&inner_extension(path).as_str()) { "Arrow" } else { "Parquet" }
}

/// Record batches of a Parquet file, and the names of all its columns.
fn open(path: &Path, known: &dyn Fn(&str) -> bool) -> Result<(Batches, Vec<String>)> {
    let corrupt = |e: parquet::errors::ParquetError| Error::Corrupt {
        path: path.to_owned(),
        reason: format!("cannot be read as Parquet ({e})"),
    };
    let file = fs_err::File::open(path)?.into_parts().0;
    // What the writer held in memory (dictionaries of categories, say) is of no interest here.
    let plain = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, plain).map_err(corrupt)?;
    let schema = builder.schema().clone();
    let wanted: Vec<usize> = (0..schema.fields().len()).filter(|&i| known(schema.field(i).name())).collect();
    // With no known column, all are read, so that the error can name them.
    let mask = match wanted.is_empty() {
        true => ProjectionMask::all(),
        false => ProjectionMask::roots(builder.parquet_schema(), wanted),
    };
    let names = schema.fields().iter().map(|field| field.name().clone()).collect();
    let reader = builder.with_projection(mask).with_batch_size(ROWS_PER_BATCH).build().map_err(corrupt)?;
    Ok((Box::new(reader), names))
}

fn json_row(batch: &RecordBatch, row: usize) -> Result<Map<String, Value>, Fault> {
    let schema = batch.schema_ref();
    batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| Ok((field.name().clone(), json_value(field.name(), column, row, 0)?)))
        .collect()
}

/// One cell as JSON: what text, number, list and struct columns hold. A struct within another (`depth`: in how many it
/// stands) is some object that Arrow gave the keys of all rows: those without a value are not its own.
fn json_value(name: &str, array: &ArrayRef, row: usize, depth: usize) -> Result<Value, Fault> {
    // An array of type Null has no bitmap, so its rows are not null to `is_null`.
    if array.is_null(row) || array.data_type() == &DataType::Null {
        return Ok(Value::Null);
    }
    let list = |values: ArrayRef| {
        (0..values.len())
            .map(|i| json_value(name, &values, i, depth))
            .collect::<Result<Vec<_>, _>>()
            .map(Value::Array)
    };
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::Boolean if depth > 0 => array.as_boolean().value(row).into(),
        DataType::Boolean => i32::from(array.as_boolean().value(row)).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::Float16 => f64::from(array.as_primitive::<Float16Type>().value(row)).into(),
        DataType::Decimal128(_, scale) => {
            let text = array.as_primitive::<Decimal128Type>().value_as_string(row);
            match (*scale <= 0).then(|| text.parse::<i64>().ok()).flatten() {
                Some(whole) => whole.into(),
                None => text.parse::<f64>().map_or_else(|_| text.clone().into(), Value::from),
            }
        }
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::List(_) => list(array.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(array.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(_, _) => list(array.as_fixed_size_list().value(row))?,
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let parts = fields.iter().zip(columns);
            Value::Object(
                parts
                    .filter(|(_, c)| depth == 0 || !(c.is_null(row) || c.data_type() == &DataType::Null))
                    .map(|(f, c)| Ok((f.name().clone(), json_value(name, c, row, depth + 1)?)))
                    .collect::<Result<_, Fault>>()?,
            )
        }
        DataType::Dictionary(key, _) => {
            macro_rules! at {
                ($type:ty) => {{
                    let array = array.as_dictionary::<$type>();
                    (array.key(row), array.values())
                }};
            }
            let (key, values) = match **key {
                DataType::Int8 => at!(Int8Type),
                DataType::Int16 => at!(Int16Type),
                DataType::Int32 => at!(Int32Type),
                DataType::UInt8 => at!(UInt8Type),
                DataType::UInt16 => at!(UInt16Type),
                DataType::UInt32 => at!(UInt32Type),
                DataType::UInt64 => at!(UInt64Type),
                _ => at!(Int64Type),
            };
            key.map_or(Ok(Value::Null), |key| json_value(name, values, key, depth))?
        }
        other => {
            let detail =
                format!("column {name:?}: expected text, numbers, or lists and structs of them, got {other}");
            return Err(Fault::new(Problem::WrongType, detail));
        }
    })
}
