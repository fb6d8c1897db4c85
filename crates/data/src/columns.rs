//! From a row with named columns to an example: the names that data sets use for the same thing.
//!
//! | role | names |
//! |---|---|
//! | query | `anchor`, `query`, `question`, `query_text`, `sentence1`, `premise`, `question1`, `text1` |
//! | query id | `query_id`, `qid`, `_id`, `id` |
//! | positives | `positive`, `pos`, `document`, `positives`, `positive_passages`, `positive_ctxs`, `sentence2`, `hypothesis`, `question2`, `text2`, `passage`; `answer` if there is none of these |
//! | negatives | `negative`, `neg`, `negatives`, `negative_passages`, `hard_negative_ctxs`, `negative_ctxs`, `hard_negatives`, `negative_1` … `negative_n` |
//! | teacher scores | `pos_scores` + `neg_scores`; `scores`, `score`, `labels`, `label`, `similarity`, `similarity_score`, `is_duplicate`, `gold_label` |
//! | answers | `answers`, `answer` |
//!
//! A passage is a text, or an object with `text`, optionally `title` and an id (`docid`, `passage_id`, `psg_id`,
//! `_id`, `id`). Positives and negatives may be one passage or a list.

use serde_json::{Map, Value};

use crate::bad_rows::{Fault, Problem};
use crate::corpus_shapes;
use crate::record::{Passage, Query, RetrievalExample};

type Row = Map<String, Value>;

pub(crate) const QUERY: [&str; 8] =
    ["anchor", "query", "question", "query_text", "sentence1", "premise", "question1", "text1"];
pub(crate) const QUERY_ID: [&str; 4] = ["query_id", "qid", "_id", "id"];
pub(crate) const POSITIVE: [&str; 11] = [
    "positive",
    "pos",
    "document",
    "positives",
    "positive_passages",
    "positive_ctxs",
    "sentence2",
    "hypothesis",
    "question2",
    "text2",
    "passage",
];
pub(crate) const NEGATIVE: [&str; 7] = [
    "negative",
    "neg",
    "negatives",
    "negative_passages",
    "hard_negative_ctxs",
    "negative_ctxs",
    "hard_negatives",
];
pub(crate) const SCORES: [&str; 8] =
    ["scores", "score", "labels", "label", "similarity", "similarity_score", "is_duplicate", "gold_label"];
pub(crate) const OTHER: [&str; 6] =
    ["pos_scores", "neg_scores", "answers", "answer", "positive_document_ids", "negative_document_ids"];
pub(crate) const PASSAGE_ID: [&str; 7] = ["docid", "passage_id", "psg_id", "document_id", "_id", "id", "pid"];
pub(crate) const PASSAGE_TEXT: [&str; 6] =
    ["text", "contents", "content", "document_text", "passage", "body"];

/// Whether a column takes part in an example or a corpus; a Parquet reader leaves the others on disk.
pub(crate) fn is_known(column: &str) -> bool {
    let names = [
        &QUERY[..],
        &QUERY_ID,
        &POSITIVE,
        &NEGATIVE,
        &SCORES,
        &OTHER,
        &PASSAGE_ID,
        &PASSAGE_TEXT,
        &["title", "chunk_id"],
    ];
    names.concat().contains(&column) || numbered(column).is_some()
}

/// Parses one line of JSON into a row.
pub(crate) fn parse_object(line: &str) -> Result<Row, Fault> {
    match serde_json::from_str(line) {
        Ok(Value::Object(row)) => Ok(row),
        Ok(other) => Err(Fault::new(Problem::WrongType, format!("expected an object, got {}", kind(&other)))),
        // A row is one line, so the line number of the parser says nothing.
        Err(e) => {
            Err(Fault::new(Problem::BrokenJson, e.to_string().replace(" at line 1 column", " at column")))
        }
    }
}

/// Builds the example of a row.
pub(crate) fn example(mut row: Row) -> Result<RetrievalExample, Fault> {
    let query = query_of(&row)?;

    let mut answers = Vec::new();
    let positive_column = first(&row, &POSITIVE);
    for column in ["answers", "answer"] {
        // Without a column of positives, `answer` is the passage (question/answer pairs).
        if (column, positive_column) != ("answer", None) && row.contains_key(column) {
            answers = texts(&row, column)?;
            break;
        }
    }
    let positive_column = positive_column
        .or_else(|| row.contains_key("answer").then_some("answer"))
        .ok_or_else(|| missing("positive", &POSITIVE, &row))?;
    let positives = passages(positive_column, row.remove(positive_column))?;
    if positives.is_empty() {
        return Err(Fault::new(Problem::NotRelevant, format!("column {positive_column:?} holds no passage")));
    }

    let mut negatives = Vec::new();
    for column in NEGATIVE {
        // DPR keeps easy and hard negatives apart; both are negatives, hard ones first.
        negatives.extend(passages(column, row.remove(column))?);
    }
    let mut more: Vec<(u32, String)> = row.keys().filter_map(|k| Some((numbered(k)?, k.clone()))).collect();
    more.sort_unstable();
    for (_, column) in more {
        negatives.extend(passages(&column, row.remove(&column))?);
    }

    let scores = scores(&row, positives.len(), negatives.len())?;
    Ok(RetrievalExample { query, positives, negatives, scores, answers })
}

/// The query of an example.
pub(crate) fn query_of(row: &Row) -> Result<Query, Fault> {
    let query_column = first(row, &QUERY).ok_or_else(|| missing("query", &QUERY, row))?;
    let text = text(row, query_column)?;
    Ok(match first(row, &QUERY_ID) {
        Some(column) => Query { id: id(row, column)?, text },
        None => Query::from_text(text),
    })
}

/// Whether a row has a column of positives.
pub(crate) fn has_positive(row: &Row) -> bool {
    first(row, &POSITIVE).is_some() || first(row, &["answer"]).is_some()
}

/// Whether a row has a column of negatives with something in it.
pub(crate) fn has_negative(row: &Row) -> bool {
    let filled = |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
    row.iter()
        .any(|(name, value)| (NEGATIVE.contains(&name.as_str()) || numbered(name).is_some()) && filled(value))
}

/// Builds the passage of a corpus row; `number` names it where the row does not.
pub(crate) fn corpus_passage(row: Row, number: u64) -> Result<Passage, Fault> {
    let row = corpus_shapes::canonical(row);
    if first(&row, &PASSAGE_TEXT).is_none() && !row.contains_key("title") {
        return Err(missing("text", &PASSAGE_TEXT, &row));
    }
    let has_id = first(&row, &PASSAGE_ID).is_some();
    // A number may be that of a chunk within its document.
    let chunk = row.get("chunk_id").and_then(Value::as_str).map(str::to_owned);
    let mut passage = passage("row", &Value::Object(row))?;
    if !has_id {
        // In a corpus every row is a passage of its own, even where two texts are equal.
        passage.id = chunk.filter(|id| !id.trim().is_empty()).unwrap_or_else(|| number.to_string());
    }
    Ok(passage)
}

/// The query of a row of a `queries.jsonl`.
pub(crate) fn query(row: &Row) -> Result<Query, Fault> {
    let names = [&["text"][..], &QUERY].concat();
    let text_column = first(row, &names).ok_or_else(|| missing("text", &names, row))?;
    let id_column = first(row, &QUERY_ID).ok_or_else(|| missing("id", &QUERY_ID, row))?;
    Ok(Query { id: id(row, id_column)?, text: text(row, text_column)? })
}

/// Ids of a list column, as Tevatron's `positive_document_ids`.
pub(crate) fn ids(row: &Row, column: &str) -> Result<Vec<String>, Fault> {
    match row.get(column) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|v| id_value(column, v)).collect(),
        Some(value) => Ok(vec![id_value(column, value)?]),
    }
}

/// Teacher scores, positives first.
pub(crate) fn scores(row: &Row, positives: usize, negatives: usize) -> Result<Option<Vec<f32>>, Fault> {
    if let Some(pos) = numbers(row, "pos_scores")? {
        let neg = numbers(row, "neg_scores")?.unwrap_or_default();
        if pos.len() != positives || neg.len() != negatives {
            return Err(Fault::new(
                Problem::ScoreCount,
                format!(
                    "pos_scores and neg_scores hold {} and {} numbers for {positives} positives and {negatives} negatives",
                    pos.len(),
                    neg.len()
                ),
            ));
        }
        return Ok(Some([pos, neg].concat()));
    }
    let Some(column) = first(row, &SCORES) else { return Ok(None) };
    let Some(list) = numbers(row, column)? else { return Ok(None) };
    if negatives == 0 && positives == 1 && list.len() == 1 && list[0] <= 0.0 {
        let detail = format!("column {column:?} is {}: the pair is marked as not matching", list[0]);
        return Err(Fault::new(Problem::NotRelevant, detail));
    }
    if list.len() == positives + negatives {
        return Ok(Some(list));
    }
    if positives == 1 && list.len() == negatives {
        // Margins (positive minus negative). Scores matter only up to a constant, so the positive can be zero.
        return Ok(Some(std::iter::once(0.0).chain(list.into_iter().map(|margin| -margin)).collect()));
    }
    Err(Fault::new(
        Problem::ScoreCount,
        format!(
            "column {column:?} holds {} numbers; expected {} (one per passage) or, for one positive, {negatives} margins",
            list.len(),
            positives + negatives
        ),
    ))
}

/// The passages of a column: none, one or a list.
pub(crate) fn passages(column: &str, value: Option<Value>) -> Result<Vec<Passage>, Fault> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|v| passage(column, v)).collect(),
        Some(value) => Ok(vec![passage(column, &value)?]),
    }
}

fn passage(column: &str, value: &Value) -> Result<Passage, Fault> {
    let passage = match value {
        Value::String(text) => Passage::from_text(None, text.clone()),
        Value::Object(object) => {
            let part = |name: &str| match object.get(name) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(other) => Err(wrong(&format!("{column}.{name}"), "text", other)),
            };
            let title = part("title")?.filter(|t| !t.trim().is_empty());
            let text = match first(object, &PASSAGE_TEXT) {
                Some(name) => part(name)?.unwrap_or_default(),
                None if title.is_some() => String::new(),
                None => return Err(missing(&format!("{column}.text"), &PASSAGE_TEXT, object)),
            };
            match first(object, &PASSAGE_ID) {
                Some(name) => Passage { id: id(object, name)?, title, text },
                None => Passage::from_text(title, text),
            }
        }
        other => return Err(wrong(column, "a text, or an object with a text", other)),
    };
    if passage.text.trim().is_empty() && passage.title.is_none() {
        return Err(Fault::new(Problem::EmptyText, format!("column {column:?} holds an empty passage")));
    }
    Ok(passage)
}

/// The first of the names that the row has with a value.
fn first<'a>(row: &Row, names: &[&'a str]) -> Option<&'a str> {
    names.iter().copied().find(|name| row.get(*name).is_some_and(|v| !v.is_null()))
}

fn text(row: &Row, column: &str) -> Result<String, Fault> {
    match row.get(column) {
        Some(Value::String(text)) if text.trim().is_empty() => {
            Err(Fault::new(Problem::EmptyText, format!("column {column:?} is empty")))
        }
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(wrong(column, "text", other)),
        None => Err(missing(column, &[column], row)),
    }
}

fn texts(row: &Row, column: &str) -> Result<Vec<String>, Fault> {
    match row.get(column) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|v| v.as_str().map(str::to_owned).ok_or_else(|| wrong(column, "a list of texts", v)))
            .collect(),
        Some(other) => Err(wrong(column, "a text or a list of texts", other)),
    }
}

fn id(row: &Row, column: &str) -> Result<String, Fault> {
    row.get(column).ok_or_else(|| missing(column, &[column], row)).and_then(|v| id_value(column, v))
}

fn id_value(column: &str, value: &Value) -> Result<String, Fault> {
    match value {
        Value::String(id) if id.is_empty() => {
            Err(Fault::new(Problem::EmptyText, format!("column {column:?} is an empty id")))
        }
        Value::String(id) => Ok(id.clone()),
        Value::Number(id) => Ok(id.to_string()),
        other => Err(wrong(column, "an id (text or number)", other)),
    }
}

fn numbers(row: &Row, column: &str) -> Result<Option<Vec<f32>>, Fault> {
    // A text that is a number is one: tables and some exports have no other.
    let number = |v: &Value| match v.as_f64().or_else(|| v.as_str()?.trim().parse().ok()) {
        Some(n) if (n as f32).is_finite() => Ok(n as f32),
        _ => Err(wrong(column, "finite numbers", v)),
    };
    match row.get(column) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => list.iter().map(number).collect::<Result<_, _>>().map(Some),
        Some(value) => Ok(Some(vec![number(value)?])),
    }
}

/// The number of a `negative_<n>` column.
pub(crate) fn numbered(column: &str) -> Option<u32> {
    let digits = column.strip_prefix("negative_").or_else(|| column.strip_prefix("neg_"))?;
    digits.parse().ok()
}

pub(crate) fn missing(role: &str, names: &[&str], row: &Row) -> Fault {
    let found: Vec<&str> = row.keys().map(String::as_str).collect();
    Fault::new(
        Problem::MissingColumn,
        format!("no column for the {role} (looked for {}; found {})", names.join(", "), found.join(", ")),
    )
}

fn wrong(column: &str, expected: &str, got: &Value) -> Fault {
    Fault::new(Problem::WrongType, format!("column {column:?}: expected {expected}, got {}", kind(got)))
}

pub(crate) fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Number(n) => format!("the number {n}"),
        Value::String(_) => "a text".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<RetrievalExample, Fault> {
        example(parse_object(json)?)
    }

    #[test]
    fn names_of_columns() {
        for json in [
            r#"{"anchor": "q", "positive": "p", "negative": "n"}"#,
            r#"{"query": "q", "pos": ["p"], "neg": ["n"], "prompt": "x", "type": "y"}"#,
            r#"{"question": "q", "document": "p", "negative_1": "n"}"#,
            r#"{"query": "q", "positive_passages": [{"docid": "1", "title": "", "text": "p"}], "negative_passages": [{"docid": 2, "text": "n"}]}"#,
            r#"{"sentence1": "q", "sentence2": "p", "negatives": ["n"]}"#,
        ] {
            let e = read(json).unwrap();
            assert_eq!((e.query.text.as_str(), e.positives[0].text.as_str()), ("q", "p"), "{json}");
            assert_eq!(e.negatives[0].text, "n", "{json}");
        }
        let many = read(
            r#"{"query": "q", "positive": "p", "negative_10": "c", "negative_2": "b", "negative_1": "a"}"#,
        );
        let texts: Vec<_> = many.unwrap().negatives.into_iter().map(|p| p.text).collect();
        assert_eq!(texts, ["a", "b", "c"]);
    }

    #[test]
    fn answer_is_a_positive_only_without_one() {
        let pair = read(r#"{"question": "q", "answer": "p"}"#).unwrap();
        assert_eq!((pair.positives[0].text.as_str(), pair.answers.len()), ("p", 0));
        let qa = read(r#"{"question": "q", "positive": "p", "answer": "a"}"#).unwrap();
        assert_eq!((qa.positives[0].text.as_str(), qa.answers[0].as_str()), ("p", "a"));
    }

    #[test]
    fn teacher_scores() {
        let scores = |json: &str| read(json).map(|e| e.scores);
        assert_eq!(
            scores(r#"{"query":"q","pos":["p"],"neg":["n"],"pos_scores":[2],"neg_scores":[1]}"#),
            Ok(Some(vec![2.0, 1.0]))
        );
        assert_eq!(
            scores(r#"{"query":"q","positive":"p","negative":"n","label":[2.5,1]}"#),
            Ok(Some(vec![2.5, 1.0]))
        );
        // A margin, and two of them.
        assert_eq!(
            scores(r#"{"query":"q","positive":"p","negative":"n","label":1.5}"#),
            Ok(Some(vec![0.0, -1.5]))
        );
        assert_eq!(
            scores(r#"{"query":"q","positive":"p","neg":["n","m"],"scores":[1,2]}"#),
            Ok(Some(vec![0.0, -1.0, -2.0]))
        );
        let fault = scores(r#"{"query":"q","positive":"p","neg":["n","m"],"scores":[1,2,3,4]}"#).unwrap_err();
        assert_eq!(fault.problem, Problem::ScoreCount);
        let fault = scores(r#"{"sentence1":"q","sentence2":"p","label":0}"#).unwrap_err();
        assert_eq!(fault.problem, Problem::NotRelevant);
    }

    #[test]
    fn faults_name_what_they_found() {
        let fault = read(r#"{"qurey": "q", "positive": "p"}"#).unwrap_err();
        assert_eq!(fault.problem, Problem::MissingColumn);
        assert!(fault.detail.contains("found qurey, positive"), "{}", fault.detail);
        let fault = read(r#"{"query": ["q"], "positive": "p"}"#).unwrap_err();
        assert_eq!(fault.detail, r#"column "query": expected text, got a list"#);
        assert_eq!(read(r#"{"query": " ", "positive": "p"}"#).unwrap_err().problem, Problem::EmptyText);
        assert_eq!(read(r#"{"query": "q", "positive": []}"#).unwrap_err().problem, Problem::NotRelevant);
        assert_eq!(
            read(r#"{"query": "q", "positive": "p", "neg": [""]}"#).unwrap_err().problem,
            Problem::EmptyText
        );
        assert_eq!(read(r#"["q"]"#).unwrap_err().problem, Problem::WrongType);
        assert_eq!(read(r#"{"query": "#).unwrap_err().problem, Problem::BrokenJson);
    }
}
