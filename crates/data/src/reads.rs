//! What each reader takes from a row: its roles, and the columns that it knows for each.

use crate::choices;
use crate::columns::{self, NEGATIVE, PASSAGE_ID, PASSAGE_TEXT, POSITIVE, QUERY, QUERY_ID, SCORES};
use crate::conversation::TOOLS;
use crate::corpus_shapes;
use crate::fields::{self, QUESTION};
use crate::labelled;
use crate::pairs;
use crate::preference_shapes;

/// A reader of rows with named columns.
#[derive(Debug)]
pub(crate) struct Reads {
    /// What the rows are, in the plural.
    pub(crate) what: &'static str,
    /// What is taken from them.
    pub(crate) roles: &'static [Role],
    /// Readers that the same job may have beside this one, to which a role that this one lacks may belong.
    pub(crate) beside: &'static [&'static Reads],
    /// Whether a column may take part.
    pub(crate) known: fn(&str) -> bool,
}

/// Something that a reader takes from a row.
#[derive(Debug)]
pub(crate) struct Role {
    /// Its name, which is a column that the reader knows for it.
    pub(crate) name: &'static str,
    /// All columns that are read for it.
    pub(crate) columns: &'static [&'static str],
    /// What a cell of a table holds.
    pub(crate) cell: Cell,
}

/// What a cell of a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    /// A text as it stands.
    Text,
    /// A text, or a list or object as JSON or Python write it.
    Any,
    /// A number where it is one, else as [`Cell::Any`].
    Number,
    /// A text, or passages: `[1]` and `{"a": 1}` are texts.
    Passages,
    /// A text, or a list of answers, or an object with them: `{"a": 1}` is a text.
    Answers,
    /// A text, or messages: any other list or object is a text.
    Turns,
}

impl Role {
    /// Whether a column is read for the role.
    pub(crate) fn reads(&self, column: &str) -> bool {
        self.columns.contains(&column) || (self.columns == NEGATIVE && columns::numbered(column).is_some())
    }
}

impl Reads {
    /// The role of a name: its own, or that of a column that is read for it.
    pub(crate) fn role(&self, name: &str) -> Option<&'static Role> {
        let of = |role: &&Role| role.name == name;
        self.roles.iter().find(of).or_else(|| self.roles.iter().find(|role| role.reads(name)))
    }

    /// The names of the roles, for messages.
    pub(crate) fn names(&self) -> String {
        self.roles.iter().map(|role| role.name).collect::<Vec<_>>().join(", ")
    }

    /// The roles with the columns that are read for them, for messages.
    pub(crate) fn understood(&self) -> String {
        let one = |role: &Role| match role.columns {
            [one] if *one == role.name => role.name.to_string(),
            many => format!("{} ({})", role.name, many.join(", ")),
        };
        self.roles.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

const fn role(name: &'static str, columns: &'static [&'static str], cell: Cell) -> Role {
    Role { name, columns, cell }
}

/// Of `columns`.
pub(crate) static EXAMPLES: Reads = Reads {
    what: "retrieval examples",
    roles: &[
        role("query", &QUERY, Cell::Text),
        role("query_id", &QUERY_ID, Cell::Text),
        role("positives", &POSITIVE, Cell::Passages),
        role("negatives", &NEGATIVE, Cell::Passages),
        role("scores", &SCORES, Cell::Number),
        role("pos_scores", &["pos_scores"], Cell::Number),
        role("neg_scores", &["neg_scores"], Cell::Number),
        role("answers", &["answers", "answer"], Cell::Answers),
        role("docs", &pairs::DOCUMENTS, Cell::Any),
        role("document_ids", &pairs::DOCUMENT_IDS, Cell::Any),
        role("positive_document_ids", &["positive_document_ids"], Cell::Any),
        role("negative_document_ids", &["negative_document_ids"], Cell::Any),
    ],
    beside: &[&PASSAGES, &QUERIES, &ANSWERS],
    known: pairs::is_known,
};

/// Of a corpus.
pub(crate) static PASSAGES: Reads = Reads {
    what: "passages",
    roles: &[
        role("id", &PASSAGE_ID, Cell::Text),
        role("text", &PASSAGE_TEXT, Cell::Text),
        role("title", &["title"], Cell::Text),
    ],
    beside: &[&EXAMPLES, &QUERIES, &ANSWERS, &RECORDS],
    known: corpus_shapes::is_known,
};

/// Names of a query's text in a file of queries.
pub(crate) const QUERY_TEXT: [&str; 9] =
    ["text", "anchor", "query", "question", "query_text", "sentence1", "premise", "question1", "text1"];

/// Of a file of queries.
pub(crate) static QUERIES: Reads = Reads {
    what: "queries",
    roles: &[role("query_id", &QUERY_ID, Cell::Text), role("query", &QUERY_TEXT, Cell::Text)],
    beside: &[&EXAMPLES, &PASSAGES, &ANSWERS, &RECORDS],
    known: columns::is_known,
};

/// Of a file of answers.
pub(crate) static ANSWERS: Reads = Reads {
    what: "answers",
    roles: &[role("query_id", &QUERY_ID, Cell::Text), role("answers", &fields::ANSWERS, Cell::Answers)],
    beside: &[&EXAMPLES, &PASSAGES, &QUERIES, &RECORDS],
    known: fields::is_known,
};

/// Of records for generators.
pub(crate) static RECORDS: Reads = Reads {
    what: "generator records",
    roles: &[
        role("question", &["question", "query", "anchor", "query_text", "user_input"], Cell::Text),
        role("id", &QUERY_ID, Cell::Text),
        role(
            "answers",
            &[
                "answers",
                "answer",
                "golden_answers",
                "ground_truths",
                "ground_truth",
                "reference",
                "long_answer",
            ],
            Cell::Answers,
        ),
        role("contexts", &["contexts", "passages", "ctxs", "context", "retrieved_contexts"], Cell::Passages),
        role("gold", &["gold", "reference_contexts"], Cell::Any),
        role("title", &["title"], Cell::Text),
        role("messages", &["messages", "conversations"], Cell::Turns),
        role("prompt", &["prompt"], Cell::Turns),
        role("completion", &["completion"], Cell::Turns),
        role("instruction", &["instruction"], Cell::Text),
        role("input", &["input"], Cell::Text),
        role("output", &["output", "response"], Cell::Text),
        role("system", &["system"], Cell::Text),
        role("history", &["history"], Cell::Any),
        role("tools", &TOOLS, Cell::Any),
        role("text", &["text"], Cell::Text),
    ],
    beside: &[&PASSAGES, &QUERIES, &ANSWERS],
    known: fields::is_known,
};

/// Of pairs of answers.
pub(crate) static PREFERENCES: Reads = Reads {
    what: "preferences",
    roles: &[
        role("prompt", &["prompt"], Cell::Turns),
        role("chosen", &["chosen"], Cell::Turns),
        role("rejected", &["rejected"], Cell::Turns),
        role("tools", &TOOLS, Cell::Any),
        role("question", &["question", "query"], Cell::Text),
        role("messages", &["messages", "conversations"], Cell::Turns),
        role("instruction", &["instruction"], Cell::Text),
        role("input", &["input"], Cell::Text),
        role("system", &["system"], Cell::Text),
        role("history", &["history"], Cell::Any),
    ],
    beside: &[],
    known: |name| {
        ["prompt", "chosen", "rejected"].contains(&name)
            || TOOLS.contains(&name)
            || preference_shapes::COLUMNS.contains(&name)
    },
};

/// Of single judged answers.
pub(crate) static JUDGED: Reads = Reads {
    what: "labelled completions",
    roles: &[
        role("prompt", &["prompt"], Cell::Turns),
        role("completion", &["completion"], Cell::Turns),
        role("label", &["label"], Cell::Number),
        role("tools", &TOOLS, Cell::Any),
    ],
    beside: &[],
    known: |name| ["prompt", "completion", "label"].contains(&name) || TOOLS.contains(&name),
};

/// Of records with choices.
pub(crate) static CHOICES: Reads = Reads {
    what: "multiple-choice records",
    roles: &[
        role("prompt", &["prompt"], Cell::Text),
        role("question", &QUESTION, Cell::Text),
        role("contexts", &fields::CONTEXTS, Cell::Passages),
        role("gold", &["gold"], Cell::Any),
        role("choices", &["choices"], Cell::Any),
        role("answer", &choices::ANSWER, Cell::Text),
        role("task", &["task"], Cell::Text),
        role("id", &QUERY_ID, Cell::Text),
    ],
    beside: &[],
    known: choices::is_known,
};

/// Of texts with a label.
pub(crate) static LABELLED: Reads = Reads {
    what: "labelled texts",
    roles: &[
        role("text", &labelled::FIRST, Cell::Text),
        role("text_pair", &labelled::SECOND, Cell::Text),
        role("label", &labelled::LABEL, Cell::Number),
        role("id", &labelled::ID, Cell::Text),
    ],
    beside: &[],
    known: |name| {
        [&labelled::FIRST[..], &labelled::SECOND, &labelled::LABEL, &labelled::ID]
            .iter()
            .any(|names| names.contains(&name))
    },
};

/// Of the questions to a folder of documents.
pub(crate) static QUESTIONS: Reads = Reads {
    what: "questions to documents",
    roles: &[
        role("question", &QUESTION, Cell::Text),
        role("passage", &["passage", "words", "context", "text"], Cell::Text),
        role("answer", &["answer", "answers"], Cell::Answers),
    ],
    beside: &[],
    known: |name| ["passage", "words", "context", "text"].contains(&name) || fields::is_known(name),
};

/// All readers.
pub(crate) static ALL: [&Reads; 10] = [
    &EXAMPLES,
    &PASSAGES,
    &QUERIES,
    &ANSWERS,
    &RECORDS,
    &PREFERENCES,
    &JUDGED,
    &CHOICES,
    &LABELLED,
    &QUESTIONS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_read_by_its_own_name() {
        for reads in ALL {
            for role in reads.roles {
                assert!(role.reads(role.name) && (reads.known)(role.name), "{}: {}", reads.what, role.name);
                assert!(std::ptr::eq(reads.role(role.name).unwrap(), role), "{}: {}", reads.what, role.name);
            }
        }
        assert_eq!(QUERY_TEXT[1..], QUERY);
        assert_eq!(EXAMPLES.role("negative_3").unwrap().name, "negatives");
    }
}
