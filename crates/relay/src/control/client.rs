//! Asks a running daemon: one connection, one request, one bounded answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::framing::Lines;
use super::protocol::{MAX_REPLY, Refusal, RefusalCode, Request, Unreadable, read_answer};
use super::socket::LONGEST_PATH;

/// Pause while the daemon's backlog is full.
const PAUSE: Duration = Duration::from_millis(20);

/// Why there is no reply. One sentence each, with the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The system has no room for the path.
    #[error("the control socket's path {} has {} octets and the system allows {LONGEST_PATH}: name the running daemon's with --socket, or set [control] socket to a shorter one such as \"/run/xoauth2-relay/control.sock\"", .path.display(), .path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// No socket, or nobody behind it.
    #[error("no xoauth2-relay is running: nobody answers on {}; start the service, or name the running one's socket with --socket", .path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The file's mode or the daemon forbids it.
    #[error("user {} may not use {}: run this as root or as the service's user", rustix::process::geteuid().as_raw(), .path.display())]
    NotPermitted {
        /// The socket.
        path: PathBuf,
    },
    /// The daemon is of another release.
    #[error("the running daemon speaks another version of the control protocol than this command ({}): use the command of the daemon's own release, or restart the daemon after an upgrade", env!("CARGO_PKG_VERSION"))]
    OtherVersion,
    /// It does not answer in time.
    #[error("the daemon does not answer on {} within {} s: look at its log", .path.display(), .patience.as_secs())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// It answered with a refusal.
    #[error("the daemon refused: {0}")]
    Refused(Refusal),
    /// What came is no answer.
    #[error("what came from the control socket is no answer: {0}")]
    Broken(String),
}

/// Asks whoever listens at `path`; all together within `patience`.
pub(crate) async fn ask(path: &Path, request: &Request, patience: Duration) -> Result<Value, AskError> {
    timeout(patience, exchange(path, request))
        .await
        .map_err(|_| AskError::Silent { path: path.to_owned(), patience })?
}

async fn exchange(path: &Path, request: &Request) -> Result<Value, AskError> {
    let mut stream = connect(path).await?;
    // Who is refused may be cut off while writing; the reason can be read all the same.
    let written = stream.write_all(&request.line()).await;
    let line = read_line(&mut stream, written).await?;
    match read_answer(&line) {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(refusal)) if refusal.code == RefusalCode::Forbidden => {
            Err(AskError::NotPermitted { path: path.to_owned() })
        }
        Ok(Err(refusal)) => Err(AskError::Refused(refusal)),
        Err(Unreadable::Version) => Err(AskError::OtherVersion),
        Err(Unreadable::Broken(text)) => Err(AskError::Broken(text)),
    }
}

async fn connect(path: &Path) -> Result<UnixStream, AskError> {
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(AskError::PathTooLong { path: path.to_owned() });
    }
    loop {
        let error = match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                return Err(AskError::NotRunning { path: path.to_owned() });
            }
            io::ErrorKind::PermissionDenied => return Err(AskError::NotPermitted { path: path.to_owned() }),
            _ => return Err(AskError::Broken(format!("connecting to {}: {error}", path.display()))),
        }
    }
}

async fn read_line(stream: &mut UnixStream, written: io::Result<()>) -> Result<Zeroizing<Vec<u8>>, AskError> {
    let mut lines = Lines::new(MAX_REPLY);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let length = stream.read(&mut chunk).await.map_err(|error| AskError::Broken(error.to_string()))?;
        lines.push(&chunk[..length]);
        match lines.next() {
            Ok(Some(line)) => return Ok(line),
            Ok(None) if length > 0 => {}
            Ok(None) => {
                let what = written.err().map_or_else(|| "the daemon closed it".to_owned(), |error| error.to_string());
                return Err(AskError::Broken(what));
            }
            Err(_) => return Err(AskError::Broken(format!("it is longer than {MAX_REPLY} octets"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tokio::net::UnixListener;

    /// What comes of asking somebody who says `answer` and closes.
    async fn asked(answer: &'static [u8]) -> Result<Value, AskError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let other = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(answer).await;
        });
        let told = ask(&path, &Request::new("status"), Duration::from_secs(20)).await;
        other.await.unwrap();
        told
    }

    #[tokio::test]
    async fn answers_are_told_apart() {
        assert_eq!(asked(b"{\"version\":1,\"reply\":{\"a\":1}}\n").await.unwrap()["a"], 1);
        let code = |told: Result<Value, AskError>| match told {
            Err(AskError::NotPermitted { .. }) => "not permitted",
            Err(AskError::OtherVersion) => "other version",
            Err(AskError::Refused(_)) => "refused",
            Err(AskError::Broken(_)) => "broken",
            other => panic!("{other:?}"),
        };
        for (answer, expected) in [
            (&b"{\"version\":1,\"error\":{\"code\":\"forbidden\",\"message\":\"x\"}}\n"[..], "not permitted"),
            (b"{\"version\":1,\"error\":{\"code\":\"unknown_version\",\"message\":\"x\"}}\n", "other version"),
            (b"{\"version\":2,\"reply\":{}}\n", "other version"),
            (b"{\"version\":1,\"error\":{\"code\":\"unavailable\",\"message\":\"x\"}}\n", "refused"),
            (b"{\"version\":1,\"reply\":", "broken"),
            (b"", "broken"),
            (b"220 ESMTP\n", "broken"),
        ] {
            assert_eq!(code(asked(answer).await), expected, "{}", String::from_utf8_lossy(answer));
        }
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_told_with_its_remedy() {
        let path = PathBuf::from(format!("/{}", "x".repeat(107)));
        let error = ask(&path, &Request::new("status"), Duration::from_secs(20)).await.unwrap_err().to_string();
        assert!(error.contains("108 octets and the system allows 107: name the running daemon's"), "{error}");
        let longest = PathBuf::from(format!("/{}", "x".repeat(106)));
        let error = ask(&longest, &Request::new("status"), Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(error, AskError::NotRunning { .. }), "{error}");
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_awake_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let ask = |patience| {
            let path = path.clone();
            async move { super::ask(&path, &Request::new("status"), Duration::from_millis(patience)).await.unwrap_err() }
        };
        assert!(matches!(ask(20_000).await, AskError::NotRunning { .. }), "no file");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(matches!(ask(50).await, AskError::Silent { .. }), "no answer");
        drop(listener);
        assert!(matches!(ask(20_000).await, AskError::NotRunning { .. }), "nobody behind it");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "x").unwrap();
        assert!(matches!(ask(20_000).await, AskError::NotRunning { .. }), "no socket");
    }
}
