//! The socket file: who may come in by its mode, a dead daemon's replaced, a living one's respected, ours removed.
//!
//! It relies on the process's umask of 077: between its making and its mode nobody else can connect.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

/// Octets of a path that fit into `sun_path` with its final NUL (unix(7)).
pub(super) const LONGEST_PATH: usize = 107;
/// How long another daemon that starts at the same moment is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);
const SET_GROUP_ID: u32 = 0o2000;
/// Permissions of anybody but the owner.
const ALL_BUT_OWNER: u32 = 0o077;
/// Writing by the group, and anything by others.
const GROUP_WRITES: u32 = 0o020;
const OTHERS: u32 = 0o007;

/// Why there is no control socket. One sentence each, with the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The system has no room for the path.
    #[error("the control socket's path {} has {} octets and the system allows {LONGEST_PATH}: set [control] socket to a shorter one such as \"/run/xoauth2-relay/control.sock\"", .path.display(), .path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// Something else stands there.
    #[error("{} is where the control socket belongs, but it is no socket: move it away, or set [control] socket to another path", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// Somebody answers there.
    #[error("another process answers on the control socket {}, probably another xoauth2-relay: stop it first, or give this one a [control] socket and a [spool] directory of its own", .path.display())]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// The lock file is held.
    #[error("another process has held the lock {} for {} s, probably another xoauth2-relay that does not get on with its start: end it (`fuser {}` finds it), then start this one again", .lock.display(), PATIENCE.as_secs(), .lock.display())]
    Locked {
        /// The lock file.
        lock: PathBuf,
    },
    /// What stands at the lock file's place is none of ours.
    #[error("{} is where the lock on the control socket belongs, but it is no file of user {} that is closed to all others: remove it, or set [control] socket to a path in a directory of that user alone", .lock.display(), rustix::process::geteuid().as_raw())]
    NotALock {
        /// The lock file.
        lock: PathBuf,
    },
    /// The system refused.
    #[error("cannot make the control socket {} as user {}: {source}; give that user its directory, or set [control] socket to another path", .path.display(), rustix::process::geteuid().as_raw())]
    Failed {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Root and our own user: mode 0600.
    Owner,
    /// Also the file's group: mode 0660, in a directory with the set-group-id bit.
    Group,
}

/// A listening control socket. Dropped, it removes its file, unless that has become another's.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(super) listener: UnixListener,
    access: Access,
    file: SocketFile,
}

/// Which file is ours: clones mean the same one.
#[derive(Clone, Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Socket {
    /// Listens at `path`; its directory is made if it is missing.
    pub(crate) async fn bind(path: &Path) -> Result<Self, SocketError> {
        if path.as_os_str().len() > LONGEST_PATH {
            return Err(SocketError::PathTooLong { path: path.to_owned() });
        }
        let failed = |source: io::Error| SocketError::Failed { path: path.to_owned(), source };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        // Two daemons that start at once must not take each other's socket for a dead one's.
        let _turn = Turn::take(path, PATIENCE).await?;
        make_way(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let access = access(directory).map_err(failed)?;
        let identity = identity(path).map_err(failed)?;
        let socket = Self { listener, access, file: SocketFile { path: path.to_owned(), identity } };
        fs::set_permissions(path, Permissions::from_mode(access.mode())).map_err(failed)?;
        Ok(socket)
    }

    pub(super) fn file(&self) -> SocketFile {
        self.file.clone()
    }

    /// Whether somebody who could connect, and is neither root nor our own user, is of the group that may: the kernel let
    /// him in by the file's mode, which says that only as long as it is closed to others and open to the group.
    pub(super) fn admits_by_group(&self) -> bool {
        self.access == Access::Group && self.file.is_for_group_alone()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.file.remove();
    }
}

impl SocketFile {
    /// Removes it, unless that has happened or another's stands there now.
    pub(super) fn remove(&self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // Left behind it harms nobody: the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl SocketFile {
    /// Looked up anew, since anybody with the right to may change it meanwhile. A file that is not ours says nothing.
    fn is_for_group_alone(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| {
            (found.dev(), found.ino()) == self.identity && found.mode() & (GROUP_WRITES | OTHERS) == GROUP_WRITES
        })
    }
}

impl Access {
    const fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Group => 0o660,
        }
    }
}

/// With the set-group-id bit on the directory, the new file has the directory's group, which somebody chose on purpose.
fn access(directory: &Path) -> io::Result<Access> {
    let mode = fs::metadata(directory)?.mode();
    Ok(if mode & SET_GROUP_ID == 0 { Access::Owner } else { Access::Group })
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The lock under which the old socket is looked at and the new one made: on a file beside the socket that only our own
/// user and root can open. One on the directory could be held by whoever may read that.
#[derive(Debug)]
struct Turn {
    path: PathBuf,
    /// Holds the lock while it is open.
    _file: File,
}

impl Turn {
    async fn take(socket: &Path, patience: Duration) -> Result<Self, SocketError> {
        let path = lock_path(socket);
        let locked = async {
            loop {
                if let Some(file) = try_lock(&path)? {
                    return Ok(file);
                }
                sleep(LOOK).await;
            }
        };
        match timeout(patience, locked).await {
            Ok(Ok(file)) => Ok(Self { path, _file: file }),
            Ok(Err(_)) if is_not_ours(&path) => Err(SocketError::NotALock { lock: path }),
            Ok(Err(source)) => Err(SocketError::Failed { path: socket.to_owned(), source }),
            Err(_) => Err(SocketError::Locked { lock: path }),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Before the lock ends with its file: who waits for it finds another file at the path, or none, and tries that.
        // Left behind it harms nobody: the next start takes it.
        let _ = fs::remove_file(&self.path);
    }
}

fn lock_path(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".lock");
    path.into()
}

/// The lock if it is free. Fails where the file cannot be opened, or is not to be trusted.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    // Followed, a link that somebody planted would have us make a file elsewhere; a pipe would have us wait for its end.
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    let found = file.metadata()?;
    if !is_closed_to_others(&found) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    match file.try_lock() {
        // Whoever had it before us has removed it: the next one locks a new file.
        Ok(()) => Ok((identity(path).ok() == Some((found.dev(), found.ino()))).then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether nobody but our own user and root could have locked it.
fn is_closed_to_others(found: &fs::Metadata) -> bool {
    found.is_file() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & ALL_BUT_OWNER == 0
}

fn is_not_ours(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !is_closed_to_others(&found))
}

/// Removes a socket on which nobody listens any more, and nothing else.
async fn make_way(path: &Path) -> Result<(), SocketError> {
    let failed = |source: io::Error| SocketError::Failed { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        // A full backlog is one of somebody who listens.
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        (directory, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn it_is_for_its_owner_in_a_directory_for_its_owner_and_goes_with_the_daemon() {
        let (directory, _) = place();
        let path = directory.path().join("made/for it/control.sock");
        let socket = Socket::bind(&path).await.unwrap();
        assert_eq!((mode(&path), socket.access), (0o600, Access::Owner));
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_with_the_set_group_id_bit_opens_it_to_the_group() {
        let (directory, path) = place();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o2750)).unwrap();
        let socket = Socket::bind(&path).await.unwrap();
        assert_eq!((mode(&path), socket.access), (0o660, Access::Group));
    }

    #[tokio::test]
    async fn a_dead_daemons_socket_is_replaced() {
        let (_directory, path) = place();
        // Closing removes no file: this is what is left after kill -9.
        drop(net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = Socket::bind(&path).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_living_daemons_socket_is_respected() {
        let (_directory, path) = place();
        let first = Socket::bind(&path).await.unwrap();
        let error = Socket::bind(&path).await.unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        UnixStream::connect(&path).await.unwrap();
        drop(first);
    }

    #[tokio::test]
    async fn only_one_of_many_that_start_at_once_gets_it() {
        let (_directory, path) = place();
        drop(net::UnixListener::bind(&path).unwrap());
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move { Socket::bind(&path).await })
            })
            .collect();
        let mut sockets = Vec::new();
        for start in starts {
            sockets.extend(start.await.unwrap().ok());
        }
        assert_eq!(sockets.len(), 1);
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_lock_on_the_directory_keeps_nobody_from_starting() {
        let (directory, path) = place();
        let others = File::open(directory.path()).unwrap();
        others.lock().unwrap();
        let _socket = Socket::bind(&path).await.unwrap();
        assert!(!lock_path(&path).exists(), "it is only there while a daemon starts");
    }

    #[tokio::test]
    async fn a_lock_file_that_was_left_is_taken_and_one_that_is_held_is_waited_for() {
        let (_directory, path) = place();
        let lock = lock_path(&path);
        let left = try_lock(&lock).unwrap().unwrap();
        assert_eq!(mode(&lock), 0o600);
        let error = Turn::take(&path, LOOK * 3).await.unwrap_err();
        assert!(matches!(error, SocketError::Locked { .. }), "{error}");
        drop(left);
        assert!(lock.exists());
        let turn = Turn::take(&path, PATIENCE).await.unwrap();
        let waits = tokio::spawn({
            let path = path.clone();
            async move { Turn::take(&path, PATIENCE).await.map(|_| ()) }
        });
        tokio::task::yield_now().await;
        drop(turn);
        waits.await.unwrap().unwrap();
        assert!(!lock.exists());
    }

    #[tokio::test]
    async fn a_lock_file_that_others_could_hold_is_told_and_left() {
        let (directory, path) = place();
        let (lock, elsewhere) = (lock_path(&path), directory.path().join("elsewhere"));
        let refused = async || {
            let error = Socket::bind(&path).await.unwrap_err();
            assert!(matches!(error, SocketError::NotALock { .. }), "{error}");
            assert!(fs::symlink_metadata(&lock).is_ok() && !path.exists());
        };
        std::os::unix::fs::symlink(&elsewhere, &lock).unwrap();
        refused().await;
        assert!(!elsewhere.exists(), "no file was made through the link");
        fs::remove_file(&lock).unwrap();
        fs::create_dir(&lock).unwrap();
        refused().await;
        fs::remove_dir(&lock).unwrap();
        fs::write(&lock, "").unwrap();
        fs::set_permissions(&lock, Permissions::from_mode(0o644)).unwrap();
        refused().await;
    }

    #[tokio::test]
    async fn a_group_is_admitted_only_by_a_file_for_it_alone() {
        let (directory, path) = place();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o2750)).unwrap();
        let socket = Socket::bind(&path).await.unwrap();
        for (mode, admitted) in [(0o660, true), (0o666, false), (0o662, false), (0o661, false), (0o600, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(socket.admits_by_group(), admitted, "{mode:o}");
        }
        fs::remove_file(&path).unwrap();
        assert!(!socket.admits_by_group(), "no file");
        fs::write(&path, "another's").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
        assert!(!socket.admits_by_group(), "another's file");
    }

    #[tokio::test]
    async fn without_the_set_group_id_bit_no_mode_admits_a_group() {
        let (_directory, path) = place();
        let socket = Socket::bind(&path).await.unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o660)).unwrap();
        assert!(!socket.admits_by_group());
    }

    #[tokio::test]
    async fn nothing_but_a_socket_is_removed() {
        let (directory, path) = place();
        let error_at = async |path: &Path| Socket::bind(path).await.unwrap_err();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(error_at(&path).await, SocketError::NotASocket { .. }));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        assert!(matches!(error_at(&link).await, SocketError::NotASocket { .. }));
        assert!(matches!(error_at(&path.join("below")).await, SocketError::Failed { .. }));
    }

    #[tokio::test]
    async fn a_file_that_has_become_anothers_is_left() {
        let (_directory, path) = place();
        let socket = Socket::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_told_with_its_remedy() {
        let (directory, _) = place();
        let path = directory.path().join("x".repeat(100));
        let error = Socket::bind(&path).await.unwrap_err().to_string();
        assert!(error.contains("the system allows 107") && error.contains("set [control] socket"), "{error}");
    }
}
