//! How files of the state directory are named, replaced and locked: private, as one step, and never at the cost of the
//! service when `root` writes them. It knows nothing of what they hold.
//!
//! The directory belongs to the service's user, who must not be able to turn a command that `root` runs against other
//! files: what is made here is made new (`O_EXCL` follows no links) and changed by its descriptor.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown, lchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};

/// How often a lock is tried; with [`LOCK_PAUSE`] three quarters of a second. Whoever holds one writes a few octets.
const LOCK_TRIES: u32 = 30;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// A name of 32 hexadecimal digits that stands for `parts`, whatever characters they have.
pub(crate) fn digest_name(parts: &[&str]) -> String {
    let mut name = sha256_hex(parts.join("\n").as_bytes());
    name.truncate(32);
    name
}

/// SHA-256 in 64 lower-case hexadecimal digits.
pub(crate) fn sha256_hex(octets: &[u8]) -> String {
    let hex = |octet: &u8| {
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
        [digit(octet >> 4), digit(octet & 15)]
    };
    digest(&SHA256, octets).as_ref().iter().flat_map(hex).collect()
}

/// A number nobody can guess.
pub(crate) fn random() -> u64 {
    let mut octets = [0; 8];
    fill_random(&mut octets);
    u64::from_be_bytes(octets)
}

/// Fills `octets` with chance that is good enough for cryptography.
pub(crate) fn fill_random(octets: &mut [u8]) {
    aws_lc_rs::rand::fill(octets).expect("the operating system's randomness does not fail once it has started");
}

/// Makes the directory, 0700, if it is missing; when `root` makes it, it belongs to whom its parent belongs to.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::metadata(path)?.is_dir() => return Ok(()),
        made => made?,
    }
    let (made, parent) = (fs::symlink_metadata(path)?, fs::metadata(directory_of(path))?);
    if made.uid() == 0 && (parent.uid(), parent.gid()) != (made.uid(), made.gid()) {
        lchown(path, Some(parent.uid()), Some(parent.gid()))?;
    }
    Ok(())
}

/// Replaces the file at `path` by way of `temporary`, a name in the same directory that nobody else uses meanwhile. As
/// one step: a crash leaves the old one or the new one, an error the old one. Durable when it returns. Gives what the new
/// one is, which somebody else may have replaced by then.
pub(crate) fn replace(path: &Path, temporary: &Path, octets: &[u8]) -> io::Result<Metadata> {
    // A leftover of an earlier crash.
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let replaced = create(temporary).and_then(|mut file| {
        file.write_all(octets)?;
        file.sync_all()?;
        let made = file.metadata()?;
        fs::rename(temporary, path)?;
        Ok(made)
    });
    let made = replaced.inspect_err(|_| {
        let _ = fs::remove_file(temporary);
    })?;
    File::open(directory_of(path))?.sync_all()?;
    Ok(made)
}

/// Writes over a file that exists, within its own blocks where there is no room for another. A crash in the middle
/// leaves one that is neither.
pub(crate) fn overwrite(path: &Path, octets: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let (opened, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    if !opened.is_file() || (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no plain file"));
    }
    file.write_all(octets)?;
    file.set_len(octets.len() as u64)?;
    file.sync_all()
}

/// Held until dropped.
pub(crate) struct Lock {
    _file: File,
    /// How long it was waited for.
    pub(crate) waited: Duration,
}

/// Why there is no lock.
pub(crate) enum NoLock {
    /// Somebody else has held it all the while.
    Held,
    /// There can be none.
    Failed(io::Error),
}

/// The lock of the file at `path`, which stands beside it because a lock on what is replaced would hold nothing. Waits
/// for less than a second.
pub(crate) fn lock(path: &Path) -> Result<Lock, NoLock> {
    let file = open_lock(&beside(path, "lock")).map_err(NoLock::Failed)?;
    for tries in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file, waited: LOCK_PAUSE * tries }),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(NoLock::Failed(error)),
        }
    }
    Err(NoLock::Held)
}

/// `path` with `.` and `ending`.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// The directory in which `path` stands.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_lock(path: &Path) -> io::Result<File> {
    match create(path) {
        // Never deleted: two who hold locks on two files of one name would not know of each other.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().read(true).write(true).open(path)
        }
        created => created,
    }
}

/// A new file, 0600; when `root` makes it, it belongs to whom the directory belongs to.
fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let made = file.metadata()?;
    if made.mode() & 0o777 != 0o600 {
        // An odd umask.
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    let directory = fs::metadata(directory_of(path))?;
    if made.uid() == 0 && (directory.uid(), directory.gid()) != (made.uid(), made.gid()) {
        fchown(&file, Some(directory.uid()), Some(directory.gid()))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_everybody_else() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_hex(b""), empty);
        assert_eq!(digest_name(&[""]), empty[..32]);
        assert_eq!(digest_name(&["a", "b"]), sha256_hex(b"a\nb")[..32]);
    }

    #[test]
    fn whoever_writes_the_file_belongs_to_the_directorys_owner() {
        let directory = tempfile::tempdir().unwrap();
        // Only root can give it away; to any other user it belongs already.
        let _ = std::os::unix::fs::chown(directory.path(), Some(4242), Some(4243));
        let path = directory.path().join("file");
        replace(&path, &beside(&path, "new"), b"1").unwrap();
        let lock = lock(&path);
        assert!(lock.is_ok());
        let owner = fs::metadata(directory.path()).unwrap();
        for path in [path.clone(), beside(&path, "lock")] {
            let found = fs::metadata(&path).unwrap();
            assert_eq!(found.uid(), owner.uid(), "{path:?}");
            assert_eq!(found.mode() & 0o777, 0o600, "{path:?}");
        }
    }

    #[test]
    fn links_lead_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "precious").unwrap();
        for link in ["file", "file.new", "file.lock"] {
            std::os::unix::fs::symlink(&elsewhere, directory.path().join(link)).unwrap();
        }
        assert!(overwrite(&path, b"1").is_err());
        assert!(lock(&path).is_ok());
        replace(&path, &beside(&path, "new"), b"1").unwrap();
        overwrite(&path, b"2").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
    }

    #[test]
    fn what_cannot_be_replaced_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, &beside(&path, "new"), b"1").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_lock_holds_others_off_and_ends_with_its_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let held = lock(&path);
        assert!(matches!(held, Ok(Lock { waited: Duration::ZERO, .. })));
        assert!(matches!(lock(&path), Err(NoLock::Held)));
        drop(held);
        assert!(lock(&path).is_ok());
    }
}
