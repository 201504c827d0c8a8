//! What commands say on standard output and standard error. Whoever reads may have gone, as `head` does, and a disk may be
//! full: neither is a fault of ours, and neither may end in a panic.

use std::io::{self, Write};

use crate::exit::Exit;

/// Prints `text` as it is. A reader that has gone is no failure; anything else that keeps it from being written is.
pub(crate) fn print(text: &str) -> Exit {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Exit::Success,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success,
        Err(error) => {
            complain(&format!("xoauth2-relay: standard output cannot be written: {error}"));
            Exit::Unavailable
        }
    }
}

/// Prints a line on standard error, where there is anybody to read it.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
