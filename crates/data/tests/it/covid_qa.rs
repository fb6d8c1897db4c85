//! The readers on real data: COVID-QA as SQuAD and as BEIR. Skipped where the data is absent.

use std::path::PathBuf;
use std::time::Instant;

use ragduet_data::{
    BadRows, BatchConfig, BatchItem, BatchSize, Format, LengthGrouping, PassagePool, ReadOptions,
    TrainingSet, convert, dataset_stats, plan_epoch, read_examples,
};

/// `$RAGDUET_DATA`, or `shared/data` beside the repository.
fn covid_qa() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data = std::env::var_os("RAGDUET_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let found = Some(data.join("covid-qa")).filter(|dir| dir.join("corpus.jsonl").is_file());
    if found.is_none() {
        println!("skipped: no COVID-QA in {} (set RAGDUET_DATA)", data.display());
    }
    found
}

#[test]
fn beir_numbers_are_those_of_its_card() {
    let Some(dir) = covid_qa() else { return };
    let bad = BadRows::default();
    let stats = dataset_stats(&dir, &ReadOptions::default(), &bad).unwrap();
    println!("{stats}");
    let examples: Vec<_> = stats.splits.iter().map(|s| (s.name.as_str(), s.examples)).collect();
    assert_eq!(examples, [("dev", 115), ("test", 403), ("train", 862)]);
    assert_eq!(stats.corpus.as_ref().unwrap().passages, 3374);
    // Splits are by article.
    assert!(stats.overlaps.iter().all(|o| o.positives == 0), "{:?}", stats.overlaps);

    let started = Instant::now();
    let set = TrainingSet::read(&dir, &ReadOptions::default(), PassagePool::WholeCorpus, &bad).unwrap();
    println!("pooled in {:?}: {:?}", started.elapsed(), set.stats());
    assert_eq!(set.items().len(), 862);
    let items: Vec<BatchItem> = (0..set.items().len()).map(|i| set.batch_item(i, 100)).collect();
    let plan = plan_epoch(&items, &BatchConfig::default(), 1, 0).unwrap();
    assert_eq!(plan.examples(), 862);
    println!("{} batches, {} deferred", plan.batches.len(), plan.deferred);
}

#[test]
fn squad_form_has_all_questions() {
    let Some(dir) = covid_qa() else { return };
    let bad = BadRows::default();
    let path = dir.join("covid-qa.squad.json");
    let examples: Vec<_> =
        read_examples(&path, &ReadOptions::default(), &bad).unwrap().collect::<Result<_, _>>().unwrap();
    println!("{} examples; {}", examples.len(), bad.report());
    assert_eq!(Format::detect(&path).unwrap(), Format::Squad);
    assert!(examples.iter().all(|e| e.positives[0].text.contains(&e.answers[0])));
    let out = tempfile::tempdir().unwrap();
    for (name, format) in [("x.parquet", Format::Parquet), ("x.jsonl.zst", Format::Jsonl)] {
        let path = out.path().join(name);
        convert(dir.join("covid-qa.squad.json"), &ReadOptions::default(), &path, format, &BadRows::default())
            .unwrap();
        let again: Vec<_> = read_examples(&path, &ReadOptions::default(), &BadRows::default())
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(again, examples, "{name}");
    }
}

#[test]
fn a_million_items_are_planned_in_seconds() {
    // Every hundredth query has ten rows, one passage is a negative of a thousand.
    let items: Vec<BatchItem> = (0..1_000_000u64)
        .map(|i| {
            let query = if i % 100 < 10 { i / 100 * 100 } else { i };
            let hot = if i % 1000 == 0 { 7 } else { (1 << 41) | i };
            BatchItem { tokens: 20 + (i % 237) as u32, keys: vec![(1 << 40) | query, i, hot] }
        })
        .collect();
    let config = BatchConfig {
        size: BatchSize::Examples(64),
        length_grouping: LengthGrouping::Window(50),
        ..BatchConfig::default()
    };
    let started = Instant::now();
    let plan = plan_epoch(&items, &config, 1, 0).unwrap();
    println!(
        "1M items planned in {:?}: {} batches, {} deferred, {} singletons",
        started.elapsed(),
        plan.batches.len(),
        plan.deferred,
        plan.singletons
    );
    assert_eq!(plan.examples(), 1_000_000);
    assert!(plan.batches.len() < 1_000_000 / 64 + 200);
}
