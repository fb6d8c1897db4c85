//! `ragduet ask`: question, retrieval, answer, sources.

use crate::cmd::generate::GeneratorArgs;
use crate::cmd::search::{IndexArgs, described};
use crate::common;
use anyhow::{Result, anyhow};
use ragduet_data::{Found, Passage, RagRecord};
use ragduet_generator::answers::{AnswerOptions, answer_streaming};
use ragduet_joint::pipeline::GENERATOR;
use serde_json::json;
use std::io::{BufRead, Write};
use std::path::PathBuf;

/// Arguments of `ask`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Joint run folder: provides retriever, index and generator unless others are given.
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    #[command(flatten)]
    index: IndexArgs,
    #[command(flatten)]
    generator: GeneratorArgs,
    /// Questions; without any, one per line of standard input.
    questions: Vec<String>,
    /// Print JSON at the end instead of streaming text.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs the command.
    pub fn run(mut self, quiet: bool) -> Result<()> {
        if let Some(run) = &self.run {
            let (dir, pipeline) = common::pipeline(run)?;
            self.index.default_to(&dir, &pipeline);
            self.generator.generator.get_or_insert_with(|| dir.join(GENERATOR).display().to_string());
        }
        let questions = match self.questions.is_empty() {
            true => std::io::stdin().lock().lines().collect::<Result<Vec<_>, _>>()?,
            false => self.questions.clone(),
        };
        let generator = self.generator.load()?;
        let (prompt, contexts) = self.generator.prompt()?;
        let decode = self.generator.decode();
        let found = self.index.find(questions, contexts.count.max(1), None, quiet)?;
        let options =
            AnswerOptions { prompt: &prompt, contexts, decode: &decode, batch: 1, seed: self.generator.seed };
        let mut all = Vec::new();
        for (i, f) in found.into_iter().enumerate() {
            let contexts = f
                .hits
                .iter()
                .map(|h| {
                    let text = h.text.clone().ok_or_else(|| {
                        anyhow!("the text of passage {} is not at hand; give the corpus with --corpus", h.id)
                    })?;
                    let passage = Passage { id: h.id.clone(), title: h.title.clone(), text };
                    Ok(Found { passage, score: Some(h.score) })
                })
                .collect::<Result<_>>()?;
            let record = RagRecord {
                id: i.to_string(),
                question: f.question.clone(),
                contexts,
                ..RagRecord::default()
            };
            if !self.json {
                println!("{}", f.question);
            }
            let json = self.json;
            let metadata =
                |id: &str| f.hits.iter().find(|h| h.id == id).map(|h| &h.metadata).filter(|m| !m.is_empty());
            let (answered, _) = answer_streaming(&generator, &record, &options, &mut |piece| {
                if !json {
                    print!("{piece}");
                    // A reader that has gone is noticed by the next line.
                    let _ = std::io::stdout().flush();
                }
            })?;
            if self.json {
                let sources: Vec<_> = answered
                    .contexts
                    .iter()
                    .map(|c| {
                        let mut source = json!({"id": c.id, "title": c.title, "text": c.text});
                        if let Some(metadata) = metadata(&c.id) {
                            source["metadata"] = metadata.clone().into();
                        }
                        source
                    })
                    .collect();
                all.push(json!({"question": f.question, "answer": answered.answer, "sources": sources}));
                continue;
            }
            println!("\n  from:");
            for (n, c) in answered.contexts.iter().enumerate() {
                let said = metadata(&c.id).map(|m| format!("({})", described(m)));
                let parts = [Some(c.id.clone()), c.title.clone(), said];
                let parts: Vec<String> = parts.into_iter().flatten().collect();
                println!("  [{}] {}", n + 1, parts.join(" "));
            }
            println!();
        }
        if self.json { common::print_json(&all) } else { Ok(()) }
    }
}
