//! One file per command.

pub mod ask;
pub mod classify;
pub mod combine;
pub mod convert;
pub mod data;
pub mod doctor;
pub mod encode;
pub mod eval;
pub mod eval_answers;
pub mod eval_choices;
pub mod eval_retriever;
pub mod export;
pub mod generate;
pub mod index;
pub mod info;
pub mod merge;
pub mod mine;
pub mod quickstart;
pub mod report;
pub mod rerank;
pub mod retrieve;
pub mod search;
pub mod train;
