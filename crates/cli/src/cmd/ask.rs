//! `ragduet ask`: question, retrieval, answer, sources.

use crate::cmd::generate::GeneratorArgs;
use crate::cmd::search::IndexArgs;
use crate::common;
use anyhow::{Result, anyhow};
use ragduet_data::{Found, Passage, RagRecord};
use ragduet_generator::decode::{Hooks, Request, TextStream, TokenEvent};
use ragduet_generator::prepare::{PrepareReport, Preparer};
use ragduet_joint::pipeline::GENERATOR;
use serde_json::json;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Arguments of `ask`.
///
/// Example: ragduet ask --index corpus.idx -g runs/reader/best "what causes it?"
/// Example: ragduet ask --run runs/joint "what causes it?"
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
        let decoding =
            self.generator.decode().resolve(generator.model.generation.file.as_ref(), &generator.eos())?;
        let found = self.index.find(questions, contexts.count.max(1), None, quiet)?;
        let preparer = Preparer::new(&generator, &prompt, contexts, usize::MAX, self.generator.seed)?;
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
            let ready = preparer.prompt(&record, decoding.max_new_tokens, &mut PrepareReport::default())?;
            if !self.json {
                println!("{}", f.question);
            }
            let detokenize = |ids: &[u32]| Ok(generator.tokenizer.decode(ids, true)?);
            let mut stream = TextStream::new(&detokenize, &decoding.stop_strings);
            let mut failed = None;
            let json = self.json;
            let show = |piece: &str| {
                if !json {
                    print!("{piece}");
                    // A reader that has gone is noticed by the next line.
                    let _ = std::io::stdout().flush();
                }
            };
            let mut on_token = |event: &TokenEvent| match stream.push(event.token) {
                Ok(piece) => {
                    show(&piece);
                    ControlFlow::Continue(())
                }
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            };
            let hooks = Hooks { detokenize: Some(&detokenize), on_token: Some(&mut on_token) };
            let request =
                Request { prompt: ready.ids.clone(), seed: self.generator.seed, parts: ready.parts.clone() };
            let out = generator.generate(&[request], &decoding, hooks)?;
            if let Some(e) = failed {
                return Err(e.into());
            }
            show(&stream.finish()?);
            let answer = match out.first().and_then(|s| s.first()) {
                Some(g) => generator.text(g, &decoding.stop_strings)?,
                None => String::new(),
            };
            if self.json {
                let sources: Vec<_> = ready
                    .contexts
                    .iter()
                    .map(|c| json!({"id": c.id, "title": c.title, "text": c.text}))
                    .collect();
                all.push(json!({"question": f.question, "answer": answer, "sources": sources}));
                continue;
            }
            println!("\n  from:");
            for (n, c) in ready.contexts.iter().enumerate() {
                println!("  [{}] {} {}", n + 1, c.id, c.title.as_deref().unwrap_or(""));
            }
            println!();
        }
        if self.json { common::print_json(&all) } else { Ok(()) }
    }
}
