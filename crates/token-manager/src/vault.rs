//! Refresh tokens at rest: one file for each mailbox that somebody signed in for, in `{state}/refresh-tokens/`.
//!
//! It keeps what it is given and never deletes: whether a refresh token is still good is for others to say. The text of
//! an entry is the business of `entry`, its encryption that of `seal`.

mod entry;
mod error;
mod seal;

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::WallTime;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::error::VaultError;

use self::entry::{Entry, Fault};
use self::seal::Salts;
use crate::secret::{Secret, SecretSource};
use crate::state_file;

/// Replies of a token endpoint end at 1 MiB; a token of that size is below this in an entry.
const MAX_ENTRY: usize = 4 * 1024 * 1024;

/// 128 bits in base64.
const LEAST_KEY: usize = 22;

/// A temporary file that is so much older than the entry was left by a crash.
const LEFT_OVER: Duration = Duration::from_hours(1);

/// The directory of refresh tokens, and the key that encrypts them.
///
/// All methods block: for small files, and for reading the key, which happens anew each time.
///
/// With a key, each entry is encrypted when it is stored; one that was stored before there was a key is read all the
/// same. There is one key at a time and no way back: entries of another key, or of a key that is configured no more, are
/// refused with the reason and stay as they are. So to change the key, put the new one in place and sign in anew for each
/// mailbox.
pub struct Vault {
    directory: PathBuf,
    key: Option<Arc<dyn SecretSource>>,
    /// Held by who stores.
    storing: Mutex<()>,
}

/// Whose refresh token it is. Upper and lower case of the two ids make no difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VaultName {
    /// Directory (tenant) id.
    pub tenant_id: String,
    /// Application (client) id.
    pub client_id: String,
    /// The mailbox that mail is sent from.
    pub mailbox: String,
}

/// A refresh token, and what is known of it.
#[derive(Debug)]
pub struct StoredGrant {
    /// The newest refresh token.
    pub refresh_token: Secret,
    /// Who signed in, if the authority said so.
    pub account: Option<String>,
    /// The user that upstream took in XOAUTH2: the mailbox, or who signed in.
    pub user: String,
    /// When somebody signed in.
    pub signed_in_at: WallTime,
    /// When this refresh token came; it lives 90 days from then if nobody uses it.
    pub renewed_at: WallTime,
    /// That the authority refuses it, if it does.
    pub refused: Option<RefusedGrant>,
}

/// The refusal of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedGrant {
    /// When it was refused first.
    pub at: WallTime,
    /// When it was refused last.
    pub last: WallTime,
    /// What the authority said, in words for an administrator; nothing secret.
    pub failure: String,
}

/// Tells one state of an entry's file from another, as when another process has signed in anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self { inode: found.ino(), modified: (found.mtime(), found.mtime_nsec()), size: found.size() }
    }
}

impl StoredGrant {
    /// Whether both are one sign-in with one refresh token.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.refresh_token.expose() == other.refresh_token.expose()
            && self.user == other.user
            && self.signed_in_at == other.signed_in_at
    }

    /// The same sign-in with what came of a request.
    pub(crate) fn followed_by(
        &self,
        refresh_token: Secret,
        renewed_at: WallTime,
        refused: Option<RefusedGrant>,
    ) -> Self {
        let Self { account, user, signed_in_at, .. } = self;
        let (account, user) = (account.clone(), user.clone());
        Self { refresh_token, account, user, signed_in_at: *signed_in_at, renewed_at, refused }
    }
}

impl VaultName {
    fn file_name(&self) -> String {
        let (tenant_id, client_id) = (self.tenant_id.to_ascii_lowercase(), self.client_id.to_ascii_lowercase());
        format!("{}.token", state_file::digest_name(&[&tenant_id, &client_id, &self.mailbox]))
    }

    fn is_same(&self, other: &Self) -> bool {
        self.tenant_id.eq_ignore_ascii_case(&other.tenant_id)
            && self.client_id.eq_ignore_ascii_case(&other.client_id)
            && self.mailbox == other.mailbox
    }
}

impl Vault {
    /// The vault in `directory`, which is made with mode 0700 if it is missing and its parent is there. Without `key`,
    /// refresh tokens are stored as they are, readable for their owner alone.
    pub fn open(directory: impl Into<PathBuf>, key: Option<Arc<dyn SecretSource>>) -> Result<Self, VaultError> {
        let directory = directory.into();
        match state_file::create_directory(&directory) {
            Ok(()) => Ok(Self { directory, key, storing: Mutex::default() }),
            Err(source) => Err(VaultError::Unwritable { path: directory, source }),
        }
    }

    /// What is stored for `name`; none if nobody has signed in. Fails on whatever is not wholly what was stored.
    pub fn load(&self, name: &VaultName) -> Result<Option<StoredGrant>, VaultError> {
        let path = self.path(name);
        let text = match read(&path) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(None),
            Err(source) => return Err(VaultError::Unreadable { path, source }),
        };
        self.understand(name, &text).map(Some).map_err(|trouble| match trouble {
            Trouble::Fault(fault) => VaultError::of(fault, path, name),
            Trouble::Key(error) => error,
        })
    }

    /// Stores `grant` for `name` in place of what was there, as one step, and durably before it returns. If it fails,
    /// what was there stays. When `root` does it, the entry belongs to the directory's owner. Two who store at the same
    /// time leave one of the two grants.
    pub fn store(&self, name: &VaultName, grant: &StoredGrant) -> Result<(), VaultError> {
        let _storing = self.storing();
        self.write(name, grant).map(drop)
    }

    /// The same in place of what has the stamp `before`, for whoever may be late. Gives the new stamp; none, and nothing is
    /// done, when another stands there by now. Another process has a moment between the look and the step.
    pub fn store_over(
        &self,
        name: &VaultName,
        grant: &StoredGrant,
        before: Option<Stamp>,
    ) -> Result<Option<Stamp>, VaultError> {
        let _storing = self.storing();
        if self.stamp(name) == before { self.write(name, grant).map(Some) } else { Ok(None) }
    }

    /// Whether a grant could be stored now: the key is there, and the directory takes files.
    pub fn check(&self) -> Result<(), VaultError> {
        self.key()?;
        let path = self.directory.join(format!("{:016x}.check", state_file::random()));
        let written = state_file::replace(&path, &state_file::beside(&path, "new"), b"");
        let removed = written.and_then(|_| fs::remove_file(&path));
        removed.map_err(|source| VaultError::Unwritable { path: self.directory.clone(), source })
    }

    fn storing(&self) -> MutexGuard<'_, ()> {
        self.storing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, name: &VaultName, grant: &StoredGrant) -> Result<Stamp, VaultError> {
        let path = self.path(name);
        let key = self.key()?;
        let salts = Salts::random();
        let text = entry::render(name, grant, key.as_ref().map(|key| (key, &salts)));
        let temporary = state_file::beside(&path, &format!("{:016x}.new", state_file::random()));
        let written = if text.len() > MAX_ENTRY {
            Err(io::ErrorKind::FileTooLarge.into())
        } else {
            state_file::replace(&path, &temporary, &text)
        };
        let written = written.map_err(|source| VaultError::Unwritable { path: path.clone(), source })?;
        sweep(&path);
        Ok(Stamp::of(&written))
    }

    /// The state of the file for `name`; none if there is none, or none to be seen.
    pub fn stamp(&self, name: &VaultName) -> Option<Stamp> {
        fs::metadata(self.path(name)).ok().as_ref().map(Stamp::of)
    }

    fn path(&self, name: &VaultName) -> PathBuf {
        self.directory.join(name.file_name())
    }

    fn understand(&self, name: &VaultName, text: &[u8]) -> Result<StoredGrant, Trouble> {
        let entry = Entry::parse(text)?;
        if !entry.name.is_same(name) {
            return Err(Fault::Another(entry.name).into());
        }
        // A plain entry is read although the key may be out of reach.
        let key = if entry.is_sealed() { self.key().map_err(Trouble::Key)? } else { None };
        Ok(entry.open(key.as_ref())?)
    }

    fn key(&self) -> Result<Option<Secret>, VaultError> {
        let Some(source) = &self.key else { return Ok(None) };
        let key =
            source.read().map_err(|error| VaultError::KeyUnusable { place: source.description(), source: error })?;
        if key.expose().chars().count() < LEAST_KEY {
            return Err(VaultError::KeyTooShort { place: source.description() });
        }
        Ok(Some(key))
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(|key| key.description());
        f.debug_struct("Vault").field("directory", &self.directory).field("key", &key).finish_non_exhaustive()
    }
}

/// Why an entry gave no grant.
enum Trouble {
    Fault(Fault),
    Key(VaultError),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The whole file; none if there is none. One that is too long comes cut off, which its digest shows.
fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(MAX_ENTRY);
    // A buffer that never grows: growing leaves a copy behind.
    let mut text = Zeroizing::new(vec![0; size + 1]);
    let mut filled = 0;
    while filled < text.len() {
        match file.read(&mut text[filled..]) {
            Ok(0) => break,
            Ok(octets) => filled += octets,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    text.truncate(filled);
    Ok(Some(text))
}

/// Removes what crashes left of earlier tries to store the entry at `path`. Others may be storing it just now.
fn sweep(path: &Path) {
    let Some(own) = path.file_name().and_then(|name| name.to_str()) else { return };
    let Ok(entries) = fs::read_dir(state_file::directory_of(path)) else { return };
    let Ok(stored) = fs::metadata(path).and_then(|found| found.modified()) else { return };
    let is_old = |found: &Metadata| {
        let age = found.modified().ok().and_then(|modified| stored.duration_since(modified).ok());
        age.is_some_and(|age| age > LEFT_OVER)
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(own)?.strip_prefix('.'));
        let leftover = rest.is_some_and(|rest| rest.strip_suffix(".new").is_some());
        if leftover && entry.metadata().is_ok_and(|found| is_old(&found)) {
            // It does no harm where it is.
            let _ = fs::remove_file(entry.path());
        }
    }
}
