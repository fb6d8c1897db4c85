//! Parquet as other libraries write it: `tests/files` holds what pandas 3.1 and polars 2.1 wrote.

use arrow_array::types::{Decimal128Type, Float16Type};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, Decimal128Array, Float16Array, Int8Array, Int16Array, RecordBatch,
    StringArray, UInt8Array, UInt16Array,
};
use parquet::arrow::ArrowWriter;
use ragduet_data::{BadRows, ReadOptions, read_corpus, read_examples};
use std::path::Path;
use std::sync::Arc;

#[test]
fn categories_null_columns_and_brotli() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    for name in [
        "brotli-pandas",
        "categorical-pandas",
        "categorical-polars",
        "null-column-pandas",
        "null-column-polars",
    ] {
        let path = folder.join(format!("{name}.parquet"));
        let rows = read_examples(path, &ReadOptions::default(), &BadRows::default()).unwrap();
        let rows: Vec<_> = rows.map(|row| row.unwrap_or_else(|e| panic!("{name}: {e}"))).collect();
        let texts: Vec<_> =
            rows.iter().map(|r| (r.query.text.as_str(), r.positives[0].text.as_str())).collect();
        let wanted = [
            ("where is the mill", "The mill stands by the ford."),
            ("who keeps the ferry", "The ferry is kept by two sisters."),
        ];
        assert_eq!(texts, wanted, "{name}");
        assert!(rows.iter().all(|r| r.negatives.is_empty()), "{name}");
    }
}

#[test]
fn numbers_of_every_width() {
    let half = |n: f32| <Float16Type as ArrowPrimitiveType>::Native::from_f32(n);
    let decimal = |n: i128, scale| {
        Decimal128Array::from(vec![n as <Decimal128Type as ArrowPrimitiveType>::Native])
            .with_precision_and_scale(20, scale)
            .unwrap()
    };
    let ids: [(ArrayRef, &str); 5] = [
        (Arc::new(Int8Array::from(vec![-7])), "-7"),
        (Arc::new(Int16Array::from(vec![-700])), "-700"),
        (Arc::new(UInt8Array::from(vec![200])), "200"),
        (Arc::new(UInt16Array::from(vec![60000])), "60000"),
        (Arc::new(decimal(12_345_678_901, 0)), "12345678901"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let write = |columns: Vec<(&str, ArrayRef)>| {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    };
    let text = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text])) };
    for (id, wanted) in ids {
        write(vec![("id", id), ("text", text("t"))]);
        let mut passages = read_corpus(&path, &ReadOptions::default(), &BadRows::default()).unwrap();
        assert_eq!(passages.next().unwrap().unwrap().id, wanted);
    }
    let scores: [(ArrayRef, f32); 2] =
        [(Arc::new(Float16Array::from(vec![half(1.5)])), -1.5), (Arc::new(decimal(225, 2)), -2.25)];
    for (score, wanted) in scores {
        write(vec![("query", text("q")), ("positive", text("p")), ("negative", text("n")), ("score", score)]);
        let mut rows = read_examples(&path, &ReadOptions::default(), &BadRows::default()).unwrap();
        // One number beside one negative is a margin.
        assert_eq!(rows.next().unwrap().unwrap().scores, Some(vec![0.0, wanted]));
    }
}
