//! Measures the relay beside its peers on this machine: `cargo run --release -p bench -- --help`.

mod error;
mod figure;
mod subject;

fn main() {}
