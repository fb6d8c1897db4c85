//! The library as its users have it: the examples, and what they do not show.

#[path = "../../examples/answer_with_sources.rs"]
#[allow(dead_code)]
mod answer_with_sources;
#[path = "../../examples/custom_loss.rs"]
#[allow(dead_code)]
mod custom_loss;
#[path = "../../examples/encode_and_search.rs"]
#[allow(dead_code)]
mod encode_and_search;
mod library;
#[path = "../../examples/train_retriever.rs"]
#[allow(dead_code)]
mod train_retriever;

#[test]
fn the_examples_run() {
    encode_and_search::run(None).unwrap();
    train_retriever::run().unwrap();
    custom_loss::run().unwrap();
    answer_with_sources::run().unwrap();
}
