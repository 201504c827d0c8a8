//! Bodies on their way in and out: small ones in memory and in the row, larger ones in a file of their own under
//! `bodies/`, named by the queue id. Neither sink nor source ever holds more than one chunk of a large body.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::task::spawn_blocking;

use super::space::{Memory, Reservation};
use crate::error::StoreError;
use crate::id::QueueId;
use crate::{BodySink, BodySource};

/// Up to here a body is kept in memory and in its row; the usual text message is.
pub(super) const INLINE_MAX: usize = 32 * 1024;
/// What is read from or written to a body file at once.
const CHUNK: usize = 64 * 1024;

/// Where the body of `id` stands if it is not in its row.
pub(super) fn path(bodies: &Path, id: QueueId) -> PathBuf {
    bodies.join(id.to_string())
}

/// A body file that is not stored yet: unlinked when dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct BodyFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl BodyFile {
    fn create(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path, kept: false })
    }

    /// The file, then its directory: after this the row may name it.
    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        let directory = self.path.parent().ok_or(io::ErrorKind::NotFound)?;
        File::open(directory)?.sync_all()
    }

    /// Its row is durable.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "an unused body file stays until the next start");
        }
    }
}

/// A body that was received whole.
#[derive(Debug)]
pub(super) enum Stored {
    Inline(Vec<u8>),
    Filed(BodyFile),
}

/// What a finished sink hands to the writer. Room and memory are given back with it.
pub(super) struct Finished {
    pub(super) id: QueueId,
    pub(super) body: Stored,
    pub(super) len: u64,
    pub(super) reservation: Reservation,
    pub(super) memory: Memory,
}

/// Why a body could not be made durable.
#[derive(Debug)]
pub(super) enum FinishError {
    /// A write failed; this body is lost, the store is sound.
    Write(StoreError),
    /// A sync failed: the device is in doubt (invariant 1).
    Sync(StoreError),
}

/// Receives one body.
pub struct SqliteSink {
    id: QueueId,
    path: PathBuf,
    written: u64,
    reservation: Reservation,
    memory: Memory,
    /// What is not in the file yet; all of it while there is no file.
    buffer: Vec<u8>,
    /// How much is collected before it goes to the file.
    chunk: usize,
    state: SinkState,
}

enum SinkState {
    Memory,
    File(BodyFile),
    /// A write failed or was abandoned half-way.
    Broken,
}

impl SqliteSink {
    pub(super) fn new(id: QueueId, path: PathBuf, reservation: Reservation) -> Self {
        let memory = reservation.memory();
        Self { id, path, written: 0, reservation, memory, buffer: Vec::new(), chunk: 0, state: SinkState::Memory }
    }

    /// Room for the header, which is stored beside the body.
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), StoreError> {
        self.reservation.grow(more)
    }

    /// Whether `more` octets can stay in memory.
    fn fits(&mut self, more: usize) -> bool {
        self.buffer.len() + more <= INLINE_MAX && self.memory.grow(more)
    }

    /// Leaves memory for a file.
    async fn spill(&mut self) -> Result<(), StoreError> {
        self.reservation.check_floor()?;
        let path = self.path.clone();
        self.state = SinkState::Broken;
        let file = blocking(move || BodyFile::create(path)).await?;
        // Over the budget, nothing is collected: every chunk goes straight to the file.
        if self.memory.grow(CHUNK) {
            self.chunk = CHUNK;
        }
        self.state = SinkState::File(file);
        Ok(())
    }

    /// Writes the buffer to the file.
    async fn write_out(&mut self) -> Result<(), StoreError> {
        let SinkState::File(mut file) = mem::replace(&mut self.state, SinkState::Broken) else {
            return Err(StoreError::Failed("the body could not be written earlier".to_owned()));
        };
        self.reservation.check_floor()?;
        let mut buffer = mem::take(&mut self.buffer);
        let (file, mut buffer) = blocking(move || {
            file.file.write_all(&buffer)?;
            buffer.clear();
            Ok((file, mem::take(&mut buffer)))
        })
        .await?;
        if self.chunk == 0 {
            buffer = Vec::new();
        }
        self.buffer = buffer;
        self.state = SinkState::File(file);
        Ok(())
    }

    /// Makes a body file durable and hands all over.
    pub(super) async fn finish(mut self) -> Result<Finished, FinishError> {
        if !matches!(self.state, SinkState::Memory) {
            self.write_out().await.map_err(FinishError::Write)?;
        }
        let body = match self.state {
            SinkState::Memory => Stored::Inline(self.buffer),
            SinkState::File(file) => Stored::Filed(sync(file).await?),
            SinkState::Broken => {
                return Err(FinishError::Write(StoreError::Failed("the body is incomplete".to_owned())));
            }
        };
        Ok(Finished { id: self.id, body, len: self.written, reservation: self.reservation, memory: self.memory })
    }
}

async fn sync(file: BodyFile) -> Result<BodyFile, FinishError> {
    blocking(move || file.sync().map(|()| file)).await.map_err(FinishError::Sync)
}

impl BodySink for SqliteSink {
    fn id(&self) -> QueueId {
        self.id
    }

    fn written(&self) -> u64 {
        self.written
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        match self.state {
            SinkState::Memory => Ok(()),
            _ => self.write_out().await,
        }
    }

    async fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.reservation.grow(chunk.len())?;
        self.written += chunk.len() as u64;
        if matches!(self.state, SinkState::Memory) && !self.fits(chunk.len()) {
            self.spill().await?;
        }
        self.buffer.extend_from_slice(chunk);
        if !matches!(self.state, SinkState::Memory) && self.buffer.len() >= self.chunk {
            self.write_out().await?;
        }
        Ok(())
    }
}

/// Without the body (invariant 8).
impl fmt::Debug for SqliteSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSink").field("id", &self.id).field("written", &self.written).finish_non_exhaustive()
    }
}

/// Gives one body back.
pub struct SqliteSource {
    total: u64,
    given: u64,
    chunk: Vec<u8>,
    state: SourceState,
}

enum SourceState {
    Inline,
    Unopened(PathBuf),
    Open(tokio::fs::File),
}

impl SqliteSource {
    pub(super) fn inline(body: Vec<u8>) -> Self {
        Self { total: body.len() as u64, given: 0, chunk: body, state: SourceState::Inline }
    }

    pub(super) fn filed(path: PathBuf, total: u64) -> Self {
        Self { total, given: 0, chunk: Vec::new(), state: SourceState::Unopened(path) }
    }

    async fn open(&mut self, path: &Path) -> Result<(), StoreError> {
        let opened = tokio::fs::File::open(path).await;
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => damaged(path, "is missing"),
            _ => read_failed(&error),
        })?;
        let found = file.metadata().await.map_err(|error| read_failed(&error))?.len();
        if found != self.total {
            return Err(damaged(path, &format!("has {found} octets instead of {}", self.total)));
        }
        self.state = SourceState::Open(file);
        Ok(())
    }

    async fn read(&mut self) -> Result<Option<&[u8]>, StoreError> {
        let left = usize::try_from(self.total - self.given).unwrap_or(usize::MAX);
        let SourceState::Open(file) = &mut self.state else { return Ok(None) };
        if left == 0 {
            return Ok(None);
        }
        self.chunk.resize(CHUNK.min(left), 0);
        let read = file.read(&mut self.chunk).await.map_err(|error| read_failed(&error))?;
        if read == 0 {
            return Err(StoreError::Damaged(format!("its body ends {left} octets early")));
        }
        self.given += read as u64;
        Ok(Some(&self.chunk[..read]))
    }
}

impl BodySource for SqliteSource {
    fn total(&self) -> u64 {
        self.total
    }

    async fn next(&mut self) -> Result<Option<&[u8]>, StoreError> {
        match &self.state {
            SourceState::Inline if self.given == self.total => Ok(None),
            SourceState::Inline => {
                self.given = self.total;
                Ok(Some(&self.chunk))
            }
            SourceState::Open(_) => self.read().await,
            SourceState::Unopened(path) => {
                let path = path.clone();
                self.open(&path).await?;
                self.read().await
            }
        }
    }

    async fn rewind(&mut self) -> Result<(), StoreError> {
        self.given = 0;
        match &mut self.state {
            SourceState::Open(file) => file.rewind().await.map(drop).map_err(|error| read_failed(&error)),
            SourceState::Inline | SourceState::Unopened(_) => Ok(()),
        }
    }
}

/// Without the body (invariant 8).
impl fmt::Debug for SqliteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSource").field("total", &self.total).field("given", &self.given).finish_non_exhaustive()
    }
}

fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged(format!("its body file {} {what}", path.display()))
}

fn read_failed(error: &io::Error) -> StoreError {
    StoreError::Failed(format!("reading a body: {error}"))
}

/// Runs file work off the runtime's threads. Given up half-way, its result is dropped where it ends, so that a body file
/// is unlinked even then.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, StoreError> {
    let done = spawn_blocking(work).await;
    let result = done.map_err(|_| StoreError::Failed("the runtime is stopping".to_owned()))?;
    result.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StoreError::Full(format!("writing a body: {error}"))
        }
        _ => StoreError::Failed(format!("writing a body: {error}")),
    })
}
