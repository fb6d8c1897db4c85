//! Readers, writers and records, on the shipped data and COVID-QA.

mod arrow_writers;
mod collections;
mod columns;
mod covid_qa;
mod formats;
mod parquet_writers;
mod records;
mod tables;
