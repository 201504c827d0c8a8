//! Why a refresh token could not be had or kept, and what to do. It names files and mailboxes, never content.

use std::io;
use std::path::PathBuf;

use super::VaultName;
use super::entry::Fault;
use crate::secret::SecretError;

/// What went wrong with an entry of the vault. Nothing was deleted or changed.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The operating system would not give it.
    #[error("the refresh token in {} cannot be read: {source}; it must be readable for the user that the relay runs as", path.display())]
    Unreadable {
        /// The entry.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The operating system would not take it; what was there before is still there.
    #[error(
        "{} cannot be written: {source}; the disk must have room and the directory belong to the user that the relay runs as",
        path.display()
    )]
    Unwritable {
        /// The entry or the directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// It is not what was stored.
    #[error(
        "the refresh token of {mailbox} in {} is damaged: {what}; it is left as it is: restore the file, or have \
         `xoauth2-relay login --tenant NAME --mailbox NAME` write it anew",
        path.display()
    )]
    Damaged {
        /// The entry.
        path: PathBuf,
        /// Whose it is.
        mailbox: String,
        /// How that shows.
        what: &'static str,
    },
    /// A later release of the relay wrote it.
    #[error(
        "{} has version {version} of the format, which a newer xoauth2-relay wrote; run that one, or have \
         `xoauth2-relay login --tenant NAME --mailbox NAME` write it anew",
        path.display()
    )]
    Newer {
        /// The entry.
        path: PathBuf,
        /// The version it has.
        version: u64,
    },
    /// A file was renamed or copied by hand.
    #[error(
        "{} is the entry of {found:?}, not of {mailbox:?}; it is left as it is: restore the file, or have \
         `xoauth2-relay login --tenant NAME --mailbox NAME` write it anew",
        path.display()
    )]
    AnotherMailbox {
        /// The entry.
        path: PathBuf,
        /// Whose was looked for.
        mailbox: String,
        /// Whose it says it is: mailbox, tenant id and client id.
        found: String,
    },
    /// It is encrypted and there is no key.
    #[error(
        "the refresh token of {mailbox} in {} is encrypted, and no `key` is configured under [vault]; configure the key \
         that encrypted it, or sign in anew by `xoauth2-relay login --tenant NAME --mailbox NAME`",
        path.display()
    )]
    KeyMissing {
        /// The entry.
        path: PathBuf,
        /// Whose it is.
        mailbox: String,
    },
    /// The tag does not match.
    #[error(
        "the refresh token of {mailbox} in {} was encrypted with another key than the one under [vault]; put that key \
         back, or sign in anew by `xoauth2-relay login --tenant NAME --mailbox NAME`",
        path.display()
    )]
    WrongKey {
        /// The entry.
        path: PathBuf,
        /// Whose it is.
        mailbox: String,
    },
    /// The key could not be read.
    #[error("the key under [vault], {place}, cannot be used: {source}")]
    KeyUnusable {
        /// Where it stands.
        place: String,
        /// Why.
        source: SecretError,
    },
    /// A key that could be guessed.
    #[error(
        "the key under [vault], {place}, is too short: it must have 22 characters at least; make one with \
         `openssl rand -base64 32`"
    )]
    KeyTooShort {
        /// Where it stands.
        place: String,
    },
}

impl VaultError {
    pub(super) fn of(fault: Fault, path: PathBuf, name: &VaultName) -> Self {
        let mailbox = name.mailbox.clone();
        match fault {
            Fault::Damaged(what) => Self::Damaged { path, mailbox, what },
            Fault::Newer(version) => Self::Newer { path, version },
            Fault::Another(VaultName { tenant_id, client_id, mailbox: other }) => {
                Self::AnotherMailbox { path, mailbox, found: format!("{other} {tenant_id} {client_id}") }
            }
            Fault::KeyMissing => Self::KeyMissing { path, mailbox },
            Fault::WrongKey => Self::WrongKey { path, mailbox },
        }
    }
}
