//! What a person at the terminal sees while it runs, on standard error; results go to standard output and files.

/// Says what is done now.
#[allow(clippy::print_stderr, reason = "the one place that speaks while it runs")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
