//! Parquet of rows that are JSON: the columns and their types are seen in a first pass over the rows.
//!
//! A column has one type in a file. Numbers of both kinds are floating-point ones; a field that some rows lack is null in
//! them, which readers take for absent. What differs between rows in other ways has no place in Parquet and is an error.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListArray, StringArray, StructArray, new_null_array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields, Schema};
use serde_json::{Map, Value};

use super::parquet;
use crate::{Error, Result};

/// What a column holds, as far as the rows have shown.
#[derive(Debug, Clone, PartialEq)]
enum Type {
    /// Nothing so far.
    Null,
    Bool,
    Int,
    Float,
    Text,
    List(Box<Type>),
    /// Fields in the order in which they came.
    Struct(Vec<(String, Type)>),
}

impl Type {
    fn of(value: &Value, place: &str) -> std::result::Result<Self, String> {
        Ok(match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(n) if n.is_i64() => Self::Int,
            Value::Number(_) => Self::Float,
            Value::String(_) => Self::Text,
            Value::Array(list) => {
                let mut inner = Self::Null;
                for value in list {
                    inner = inner.with(Self::of(value, place)?, &format!("{place}[]"))?;
                }
                Self::List(Box::new(inner))
            }
            Value::Object(row) => {
                let of = |(name, value): (&String, &Value)| {
                    Ok((name.clone(), Self::of(value, &format!("{place}.{name}"))?))
                };
                Self::Struct(row.iter().map(of).collect::<std::result::Result<_, String>>()?)
            }
        })
    }

    /// The type of what is one or the other.
    fn with(self, other: Self, place: &str) -> std::result::Result<Self, String> {
        Ok(match (self, other) {
            (Self::Null, one) | (one, Self::Null) => one,
            (one, other) if one == other => one,
            (Self::Int, Self::Float) | (Self::Float, Self::Int) => Self::Float,
            (Self::List(one), Self::List(other)) => {
                Self::List(Box::new(one.with(*other, &format!("{place}[]"))?))
            }
            (Self::Struct(mut one), Self::Struct(other)) => {
                for (name, of) in other {
                    match one.iter_mut().find(|(own, _)| *own == name) {
                        None => one.push((name, of)),
                        Some((_, own)) => {
                            let was = std::mem::replace(own, Self::Null);
                            *own = was.with(of, &format!("{place}.{name}"))?;
                        }
                    }
                }
                Self::Struct(one)
            }
            (one, other) => {
                return Err(format!(
                    "{place} is {} in one row and {} in another",
                    one.words(),
                    other.words()
                ));
            }
        })
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Int | Self::Float => "a number",
            Self::Text => "a text",
            Self::List(_) => "a list",
            Self::Struct(_) => "an object",
        }
    }

    fn arrow(&self) -> DataType {
        match self {
            // A list that is empty in all rows.
            Self::Null | Self::Text => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::List(inner) => DataType::List(Arc::new(Field::new_list_field(inner.arrow(), true))),
            Self::Struct(fields) => DataType::Struct(fields_of(fields)),
        }
    }

    /// The values as a column; what is absent is null.
    fn column(&self, values: &[Option<&Value>]) -> ArrayRef {
        let here = |v: &Option<&Value>| v.is_some_and(|v| !v.is_null());
        let nulls = || Some(NullBuffer::from_iter(values.iter().map(here)));
        match self {
            Self::Null => new_null_array(&DataType::Utf8, values.len()),
            Self::Bool => {
                Arc::new(BooleanArray::from_iter(values.iter().map(|v| v.and_then(Value::as_bool))))
            }
            Self::Int => Arc::new(Int64Array::from_iter(values.iter().map(|v| v.and_then(Value::as_i64)))),
            Self::Float => {
                Arc::new(Float64Array::from_iter(values.iter().map(|v| v.and_then(Value::as_f64))))
            }
            Self::Text => Arc::new(StringArray::from_iter(values.iter().map(|v| v.and_then(Value::as_str)))),
            Self::List(inner) => {
                let lists = || values.iter().map(|v| v.and_then(Value::as_array));
                let offsets = OffsetBuffer::from_lengths(lists().map(|list| list.map_or(0, Vec::len)));
                let all: Vec<Option<&Value>> = lists().flatten().flatten().map(Some).collect();
                let field = Arc::new(Field::new_list_field(inner.arrow(), true));
                Arc::new(ListArray::new(field, offsets, inner.column(&all), nulls()))
            }
            // A struct without fields has no length of its own.
            Self::Struct(fields) if fields.is_empty() => {
                Arc::new(StructArray::new_empty_fields(values.len(), nulls()))
            }
            Self::Struct(fields) => {
                let columns = fields.iter().map(|(name, of)| {
                    of.column(&values.iter().map(|v| v.and_then(|v| v.get(name))).collect::<Vec<_>>())
                });
                Arc::new(StructArray::new(fields_of(fields), columns.collect(), nulls()))
            }
        }
    }
}

fn fields_of(fields: &[(String, Type)]) -> Fields {
    fields.iter().map(|(name, of)| Field::new(name, of.arrow(), true)).collect()
}

type Row = Map<String, Value>;

/// Writes rows, which `rows` gives twice. Returns their number.
pub(crate) fn write<I: Iterator<Item = Result<Row>>>(
    path: &Path,
    mut rows: impl FnMut() -> Result<I>,
) -> Result<u64> {
    let mut all = Type::Struct(Vec::new());
    for row in rows()? {
        let of = Type::of(&Value::Object(row?), "").and_then(|of| all.clone().with(of, ""));
        all = of.map_err(|why| Error::Unsupported {
            path: path.to_owned(),
            reason: format!(
                "{}, and a column of Parquet has one type; write JSON Lines (name the output .jsonl)",
                why.trim_start_matches('.')
            ),
        })?;
    }
    let Type::Struct(mut fields) = all else { return Ok(0) };
    // A column without any value says nothing.
    fields.retain(|(_, of)| *of != Type::Null);
    let schema = Schema::new(fields_of(&fields));
    parquet::write(path, schema, rows()?, |rows: &[Row]| {
        let column = |(name, of): &(String, Type)| {
            of.column(&rows.iter().map(|row| row.get(name)).collect::<Vec<_>>())
        };
        fields.iter().map(column).collect()
    })
}
