//! The page.

use crate::config::{Difference, differences};
use crate::run::Run;
use crate::{Result, read_runs};
use serde::Serialize;
use std::path::PathBuf;

/// All that the page shows.
#[derive(Debug, Serialize)]
pub struct Page {
    /// Above everything.
    pub title: String,
    /// The runs, in the order they were given in.
    pub runs: Vec<Run>,
    /// The runs whose configs are compared: all that trained.
    pub compared: Vec<String>,
    /// What those configs differ in.
    pub differences: Vec<Difference>,
}

const STYLE: &str = include_str!("../assets/page.css");
const SCRIPT: &str = include_str!("../assets/page.js");

impl Page {
    /// Of these runs.
    pub fn new(runs: Vec<Run>) -> Self {
        let trained = || runs.iter().filter(|r| !r.config.is_empty());
        let compared = trained().map(|r| r.name.clone()).collect();
        let differences = differences(&trained().map(|r| r.config.as_slice()).collect::<Vec<_>>());
        let names: Vec<&str> = runs.iter().map(|r| r.name.as_str()).collect();
        Self { title: names.join(", "), runs, compared, differences }
    }

    /// The file.
    ///
    /// # Errors
    /// Where the data is none for JSON.
    pub fn html(&self) -> Result<String> {
        // Within JSON `<`, `>` and `&` stand in texts alone, where they can be written as codes: nothing in the data ends the
        // element that it is in, or starts another.
        let data = serde_json::to_string(self)?;
        let data = data.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        let title = escaped(&self.title);
        Ok(format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'unsafe-inline'; img-src data:\">\n\
             <link rel=\"icon\" href=\"data:,\">\n\
             <title>{title} - Ragduet</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <noscript>This page draws itself with a script that is in it; it loads nothing.</noscript>\n\
             <main id=\"page\"></main>\n<script type=\"application/json\" id=\"data\">{data}</script>\n\
             <script>\n{SCRIPT}</script>\n</body>\n</html>\n"
        ))
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// The page of these folders (and files of answers), see [`read_runs`].
///
/// # Errors
/// As [`read_runs`].
pub fn page(paths: &[PathBuf]) -> Result<Page> {
    Ok(Page::new(read_runs(paths)?))
}
