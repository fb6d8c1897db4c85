//! Which column is which: what a reader takes from a row, and names that the user gives (`[data.columns]`, `--map`).
//!
//! A reader's [`Reads`] lists its roles with the names of columns that it knows for each. A mapping renames a row's
//! columns before anything is read of it: the named column takes the role's place, and the names that would otherwise
//! have been read for that role are left alone.
//!
//! Several readers may work on one data set (corpus, queries, examples), and a name may be a role of one and another
//! name of a role in the next: `text` is the passage's text, and a name that queries are read by. Such a name is
//! *borrowed* there: it gives way to the role's own name, and a file that lacks its column does not need it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::reads::{ALL, Reads, Role};
use crate::{Error, Result};

type Row = Map<String, Value>;

/// Columns by role, as the user names them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Columns(BTreeMap<String, String>);

impl Columns {
    /// No mapping.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Maps a role to a column: a name, or a path with dots into objects.
    ///
    /// # Errors
    /// A role that no reader has, with those that there are; a role that is mapped twice.
    pub fn insert(&mut self, role: &str, column: &str) -> Result<()> {
        let fail = |reason: String| Error::Config { key: format!("column {role}={column}"), reason };
        if !ALL.iter().any(|reads| reads.role(role).is_some()) {
            return Err(fail(format!("no role is named `{role}`; the roles are\n{}", roles())));
        }
        if column.trim().is_empty() {
            return Err(fail("the column has no name".into()));
        }
        match self.0.insert(role.into(), column.into()) {
            Some(other) if other != column => {
                Err(fail(format!("`{role}` is mapped to `{other}` already; a role has one column")))
            }
            _ => Ok(()),
        }
    }

    /// Of `ROLE=COLUMN`.
    ///
    /// # Errors
    /// As [`Columns::insert`]; a text without `=`.
    pub fn parse(pairs: &[String]) -> Result<Self> {
        let mut all = Self::default();
        for pair in pairs {
            match pair.split_once('=') {
                Some((role, column)) => all.insert(role.trim(), column.trim())?,
                None => {
                    let reason = "expected ROLE=COLUMN, such as query=question".into();
                    return Err(Error::Config { key: format!("column {pair}"), reason });
                }
            }
        }
        Ok(all)
    }

    /// Roles with their columns.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(role, column)| (role.as_str(), column.as_str()))
    }
}

/// The roles of all readers, a line for each reader.
fn roles() -> String {
    let lines: Vec<String> = ALL.iter().map(|r| format!("  {}: {}", r.what, r.names())).collect();
    lines.join("\n")
}

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut all = Self::default();
        for (role, column) in BTreeMap::<String, String>::deserialize(deserializer)? {
            all.insert(&role, &column).map_err(|e| match e {
                Error::Config { reason, .. } => D::Error::custom(reason),
                other => D::Error::custom(other),
            })?;
        }
        Ok(all)
    }
}

impl JsonSchema for Columns {
    fn schema_name() -> Cow<'static, str> {
        "Columns".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object", "additionalProperties": {"type": "string"}})
    }
}

/// A mapping as one reader applies it.
#[derive(Debug, Clone)]
pub(crate) struct Mapping {
    pub(crate) of: Vec<Mapped>,
}

/// A role's column.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    /// The reader's role.
    pub(crate) role: &'static Role,
    /// The role as the user wrote it.
    pub(crate) said: String,
    /// The column.
    pub(crate) column: String,
    /// Whether it is the own name of a role of a reader beside this one, and here only another name of the role: the
    /// column may be meant for that reader's files alone.
    pub(crate) borrowed: bool,
    /// Rows that have it.
    pub(crate) rows: u64,
    /// Whether the last row had it.
    here: bool,
}

impl Mapping {
    /// The roles of a reader that are mapped.
    ///
    /// # Errors
    /// A role that neither the reader has nor one that works beside it; two names of one role.
    pub(crate) fn new(columns: &Columns, reads: &'static Reads) -> Result<Self> {
        let mut of: Vec<Mapped> = Vec::new();
        for (said, column) in columns.iter() {
            let fail = |reason: String| Err(Error::Config { key: format!("column {said}={column}"), reason });
            let Some(role) = reads.role(said) else {
                if reads.beside.iter().any(|other| other.role(said).is_some()) {
                    continue;
                }
                return fail(format!("{} have no `{said}`; their roles are {}", reads.what, reads.names()));
            };
            let own = |reads: &Reads, name: &str| reads.roles.iter().any(|role| role.name == name);
            let borrowed = role.name != said && reads.beside.iter().any(|other| own(other, said));
            let mapped =
                Mapped { role, said: said.into(), column: column.into(), borrowed, rows: 0, here: false };
            let Some(twice) = of.iter_mut().find(|m| std::ptr::eq(m.role, role)) else {
                of.push(mapped);
                continue;
            };
            match (twice.borrowed, borrowed) {
                (true, false) => *twice = mapped,
                (false, true) => {}
                _ => {
                    return fail(format!(
                        "`{said}` and `{}` are the same role of {}",
                        twice.said, reads.what
                    ));
                }
            }
        }
        Ok(Self { of })
    }

    /// Whether a column of a file is one that is mapped, or holds it.
    pub(crate) fn names(&self, column: &str) -> bool {
        self.of.iter().any(|m| m.column == column || m.column.split('.').next() == Some(column))
    }

    /// The row with mapped columns in their roles' places.
    pub(crate) fn apply(&mut self, mut row: Row) -> Row {
        let taken: Vec<Option<Value>> = self.of.iter().map(|m| value_at(&row, &m.column)).collect();
        for (mapped, value) in self.of.iter_mut().zip(&taken) {
            mapped.here = value.is_some();
            if mapped.here {
                mapped.rows += 1;
                row.shift_remove(&mapped.column);
            }
        }
        for (mapped, _) in self.of.iter().zip(&taken).filter(|(_, value)| value.is_some()) {
            row.retain(|name, _| !mapped.role.reads(name));
        }
        for (mapped, value) in self.of.iter().zip(taken) {
            if let Some(value) = value {
                row.insert(mapped.role.name.into(), value);
            }
        }
        row
    }

    /// What a fault of the last row says of the mapping: the roles whose columns the row does not have.
    pub(crate) fn lacking(&self) -> String {
        let lacks = self.of.iter().filter(|m| !m.here);
        lacks
            .map(|m| format!("; `{}`, which {} is mapped to, is not in this row", m.column, m.said))
            .collect()
    }
}

/// A column by its name, or by a path with dots into objects and lists of them; `None` where the row has no such thing.
fn value_at(row: &Row, column: &str) -> Option<Value> {
    if let Some(value) = row.get(column) {
        return Some(value.clone());
    }
    let mut parts = column.split('.');
    let mut value = row.get(parts.next()?)?.clone();
    for part in parts {
        value = match value {
            Value::Object(mut inner) => inner.shift_remove(part)?,
            Value::Array(list) => {
                let inner = list.iter().map(|v| v.get(part).cloned()).collect::<Option<Vec<_>>>()?;
                Value::Array(inner)
            }
            _ => return None,
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reads::{EXAMPLES, LABELLED, PASSAGES, QUERIES};

    fn apply(columns: &[&str], row: Value) -> Value {
        let pairs: Vec<String> = columns.iter().map(|s| s.to_string()).collect();
        let mut mapping = Mapping::new(&Columns::parse(&pairs).unwrap(), &EXAMPLES).unwrap();
        let Value::Object(row) = row else { panic!("an object") };
        Value::Object(mapping.apply(row))
    }

    #[test]
    fn a_mapped_column_takes_the_place_of_all_names_of_its_role() {
        let row = serde_json::json!({"query": "other", "anchor": "x", "frage": "q", "positive": "p"});
        let want = serde_json::json!({"positive": "p", "query": "q"});
        assert_eq!(apply(&["query=frage"], row), want);
        // Two columns exchanged, and paths into objects and lists.
        let row = serde_json::json!({"query": "p", "positive": "q"});
        assert_eq!(
            apply(&["query=positive", "pos=query"], row),
            serde_json::json!({"positives": "p", "query": "q"})
        );
        let row = serde_json::json!({"meta": {"q": "a"}, "hits": [{"t": "b"}, {"t": "c"}]});
        let mapped = apply(&["query=meta.q", "positives=hits.t"], row);
        assert_eq!((&mapped["query"], &mapped["positives"]), (&"a".into(), &serde_json::json!(["b", "c"])));
        // One column in two roles.
        let row = serde_json::json!({"q": "a", "x": "b"});
        let mapped = apply(&["query=q", "positives=x", "answers=x"], row);
        assert_eq!((&mapped["positives"], &mapped["answers"]), (&"b".into(), &"b".into()));
        // A row without the column stays what it is.
        let row = serde_json::json!({"query": "q"});
        assert_eq!(apply(&["query=frage"], row.clone()), row);
    }

    #[test]
    fn roles_that_are_not_there_are_errors_that_list_those_that_are() {
        let parse = |s: &str| Columns::parse(&[s.to_string()]);
        let e = parse("questoin=q").unwrap_err().to_string();
        assert!(e.contains("no role is named `questoin`") && e.contains("retrieval examples: query,"), "{e}");
        assert!(parse("query").unwrap_err().to_string().contains("ROLE=COLUMN"));
        assert!(parse("query=").unwrap_err().to_string().contains("no name"));
        let e = Mapping::new(&parse("negatives=n").unwrap(), &LABELLED).unwrap_err().to_string();
        assert!(e.contains("labelled texts have no `negatives`; their roles are text, text_pair"), "{e}");
        let two = Columns::parse(&["query=a".into(), "question=b".into()]).unwrap();
        let e = Mapping::new(&two, &EXAMPLES).unwrap_err().to_string();
        assert!(e.contains("the same role"), "{e}");
        // `text` is the passages' and gives way, in either order.
        for pairs in [["query=a", "text=b"], ["text=b", "query=a"]] {
            let both = Columns::parse(&pairs.map(str::to_owned)).unwrap();
            let of = Mapping::new(&both, &QUERIES).unwrap().of;
            assert_eq!((of.len(), of[0].column.as_str(), of[0].borrowed), (1, "a", false));
            assert_eq!(Mapping::new(&both, &PASSAGES).unwrap().of[0].column, "b");
        }
        let of = Mapping::new(&parse("text=b").unwrap(), &QUERIES).unwrap().of;
        assert_eq!((of[0].column.as_str(), of[0].borrowed), ("b", true));
        let e = serde_json::from_str::<Columns>("{\"nope\": \"x\"}").unwrap_err().to_string();
        assert!(e.contains("no role is named `nope`"), "{e}");
    }
}
