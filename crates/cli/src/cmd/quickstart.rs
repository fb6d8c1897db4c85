//! `ragduet quickstart`: the whole story on the shipped dataset.

use super::train::print_table;
use crate::common::{Usage, counter};
use anyhow::Result;
use ragduet_data::{BadRows, ReadOptions};
use ragduet_retriever::evaluate::{EvalSet, evaluate_model};
use ragduet_retriever::recipe::config::RetrieverConfig;
use ragduet_retriever::recipe::dense::{RunOptions, initial_model, train};
use ragduet_retriever::st_dir::{self, Overrides};
use ragduet_retriever::{EncodeSettings, Side, encode_texts};
use ragduet_torch::device;
use ragduet_train::config;
use std::path::PathBuf;

/// Arguments of `quickstart`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The project's folder, with configs/ and datasets/.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// The run folder; one of an earlier quickstart is replaced.
    #[arg(long, default_value = "runs/quickstart")]
    out: PathBuf,
    /// Override a key of configs/retriever/quickstart.toml.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Args {
    /// Runs the command.
    pub fn run(self, quiet: bool) -> Result<()> {
        let file = self.project.join("configs/retriever/quickstart.toml");
        if !file.is_file() {
            return Err(Usage(format!("{} is not here; give --project", file.display())).into());
        }
        let mut config: RetrieverConfig = config::load(&file, &self.set)?;
        let data = self.project.join(&config.data.train);
        config.data.train.clone_from(&data);
        config.data.dev = Some(data.clone());
        if self.out.join("environment.json").is_file() {
            fs_err::remove_dir_all(&self.out)?;
        }
        let started = std::time::Instant::now();
        println!("1. A small encoder with random weights, its tokenizer trained on {}.", data.display());
        let test_options = ReadOptions { split: Some("test".into()), ..ReadOptions::default() };
        let test = EvalSet::read(&data, &test_options, None, 0, &BadRows::default())?;
        let encode = EncodeSettings::default();
        let measures = &config.eval.measures;
        let measure = |model: &_| -> Result<_> {
            let bar = counter("ranking the test split", Some(test.passages.len() as u64), quiet);
            let r = evaluate_model(model, &test, measures, 1000, &encode, &mut |n, _| bar.set_position(n))?;
            bar.finish_and_clear();
            Ok(r.0)
        };
        let before = measure(&initial_model(&config)?)?;
        println!("2. Training it on questions and passages; hard negatives are mined again as it learns.");
        let options = RunOptions { out: self.out.clone(), resume: false, quiet, stop_after: None };
        let outcome = train(&config, &options)?;
        if !outcome.finished {
            anyhow::bail!("stopped at step {}", outcome.step);
        }
        let device = device::parse(&config.device)?;
        let model = st_dir::load(
            &outcome.model_dir,
            device,
            config.precision.resolve(device),
            &Overrides::default(),
        )?;
        let after = measure(&model)?;
        println!("3. Questions about facts it has never seen (the test split):\n");
        print_table(&[("untrained", Some(&before)), ("trained", Some(&after))]);

        let passages: Vec<String> = test.passages.iter().map(|(_, t)| t.clone()).collect();
        let rows = encode_texts(&model, Side::Passage, &passages, &encode, &mut |_, _| ())?;
        let dim = model.dim() as usize;
        // Three questions from all over the split, whatever the model makes of them.
        for (id, question) in test.queries.iter().step_by((test.queries.len() / 3).max(1)).take(3) {
            let query =
                encode_texts(&model, Side::Query, std::slice::from_ref(question), &encode, &mut |_, _| ())?;
            let score = |row: &[f32]| row.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>();
            let mut ranked: Vec<(usize, f32)> = rows.chunks_exact(dim).map(score).enumerate().collect();
            ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
            println!("\n{question}");
            for (rank, (i, s)) in ranked.iter().take(2).enumerate() {
                let (pid, text) = &test.passages[*i];
                let mark = if test.qrels.grade(id, pid).is_some_and(|g| g > 0) { "*" } else { " " };
                println!(" {mark}{}. {s:.3}  {text}", rank + 1);
            }
        }
        println!("   (* holds the answer)\n");
        println!(
            "The model (a sentence-transformers folder), metrics, TensorBoard events and checkpoints are in {}.",
            self.out.display()
        );
        println!("It took {:.0} s.", started.elapsed().as_secs_f64());
        Ok(())
    }
}
