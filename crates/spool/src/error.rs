//! What can go wrong with the store: at its opening, where an administrator must act, and in its use, where a client
//! or a lane must wait.

use std::io;
use std::path::PathBuf;

/// Why the spool could not be opened. Each text names the thing and the remedy; the cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error("another xoauth2-relay already uses the state directory {}: stop it first, or give this one a [spool] directory of its own", .directory.display())]
    Locked {
        /// The state directory.
        directory: PathBuf,
    },
    /// The directory or a file in it cannot be made, read or written.
    #[error("cannot use {} as user {user}: {}; give that user the directory (chown) with mode 0700, or set [spool] directory", .path.display(), plain(.source))]
    Access {
        /// What was tried.
        path: PathBuf,
        /// The effective user id.
        user: u32,
        /// The operating system's word.
        source: io::Error,
    },
    /// The directory is on another machine's disk, where neither the lock nor the database's shared memory holds.
    #[error("the state directory {} is on a network file system ({kind}), which cannot keep a queue safely: set [spool] directory to a local disk", .directory.display())]
    Network {
        /// The state directory.
        directory: PathBuf,
        /// What the file system is.
        kind: &'static str,
    },
    /// The file is no database of ours.
    #[error("{} is not a queue of xoauth2-relay: move it away, or set [spool] directory to another place", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The database was written by a newer release.
    #[error("the queue in {} has schema {found}, this release knows {known}: run the newer release again, or start with an empty [spool] directory", .path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The database does not read as one.
    #[error("the queue in {} is damaged ({detail}): keep a copy of the directory, then restore it from a backup or move it away to start empty", .path.display())]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
    /// The disk has no room even for an empty queue.
    #[error("no space left for the queue in {}: free some, or set [spool] directory to another disk", .path.display())]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// Anything else that SQLite says.
    #[error("cannot open the queue in {}: {detail}", .path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// SQLite's words.
        detail: String,
    },
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::NotADirectory => "not a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Why a queue without a daemon could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeekError {
    /// There is none.
    #[error("there is no queue")]
    Missing,
    /// It belongs to another user.
    #[error("it belongs to another user")]
    NotOurs,
    /// A daemon has it.
    #[error("a daemon has it open")]
    InUse,
    /// The last daemon was killed; what it left can only be read by changing it.
    #[error("it was not closed in order; the next start of the daemon takes in what was left")]
    NotClosed,
    /// It is no queue of this release.
    #[error("it does not read as a queue of this release: {0}")]
    Unreadable(String),
}

/// Why the store could not do what was asked of it now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A cap is reached or the disk is short of room; what is queued still drains.
    #[error("the queue is full: {0}")]
    Full(String),
    /// Reading or writing failed. Nothing was stored.
    #[error("the queue could not be written or read: {0}")]
    Failed(String),
    /// A stored message is not what was stored.
    #[error("the stored message is damaged: {0}")]
    Damaged(String),
    /// The store was closed.
    #[error("the queue is closed")]
    Closed,
}
