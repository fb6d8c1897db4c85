//! Measures against the tools that define them, and their laws.

mod answer;
mod bertscore;
mod classification;
mod laws;
mod meteor;
mod overlap;
mod trec_eval;
