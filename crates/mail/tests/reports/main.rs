//! Reports at the crate's face: examples kept as files, so that a reader sees what users get, and properties over whatever
//! strangers may have written. What single texts become is tested beside the code.

// clippy's own exception sees only `#[test]` functions, not the helpers beside them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod examples;
mod properties;
mod reading;
