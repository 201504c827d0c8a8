//! What can go wrong while measuring, told to the person at the terminal.

use std::io;
use std::path::{Path, PathBuf};

/// Why a run, or one cell of it, has no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file or directory.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, such as "write".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program that could not be run, or ended with an error.
    #[error("{program}: {why}")]
    Program {
        /// Which.
        program: String,
        /// What it said, or the error of the system.
        why: String,
    },
    /// A socket of ours.
    #[error("{what}: {source}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A dialog that went another way than SMTP's.
    #[error("{whom} answered {said:?} where {wanted} was expected")]
    Dialog {
        /// Who.
        whom: &'static str,
        /// What was expected.
        wanted: &'static str,
        /// What came.
        said: String,
    },
    /// Something that did not happen in time.
    #[error("{what} took longer than {seconds} s")]
    Late {
        /// What.
        what: String,
        /// The bound.
        seconds: u64,
    },
    /// Somebody asked us to stop.
    #[error("stopped by a signal; what was measured up to the last whole repetition is kept")]
    Interrupted,
    /// Anything else that makes a figure impossible.
    #[error("{0}")]
    Impossible(String),
}

impl BenchError {
    /// For `map_err`: what was tried with a file.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { action, path: path.to_path_buf(), source }
    }

    /// For `map_err`: what was tried with a socket.
    pub(crate) fn socket(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { what, source }
    }

    /// For `map_err`: a program that could not be run.
    pub(crate) fn program(program: &str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Program { program: program.to_owned(), why: source.to_string() }
    }
}
