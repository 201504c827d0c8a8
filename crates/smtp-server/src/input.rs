//! The octets of a client that were read and not yet looked at. Not here: what they mean.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Octets of one read. They come to the stack first, so that a session that waits holds no room for what has not come.
pub(crate) const READ_ROOM: usize = 16 * 1024;

/// What came and is not consumed.
#[derive(Debug, Default)]
pub(crate) struct Input {
    octets: Vec<u8>,
    /// Where those not yet consumed start.
    start: usize,
}

impl Input {
    /// What is not consumed.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.octets[self.start..]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Drops so many octets of the rest.
    pub(crate) fn consume(&mut self, octets: usize) {
        self.start += octets;
        if self.start == self.octets.len() {
            // The room goes too: most sessions wait for something most of the time.
            *self = Self::default();
        }
    }

    /// Reads once; gives how many octets came, none at the end of the stream.
    pub(crate) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        poll_fn(|context| self.poll_fill(stream, context)).await
    }

    /// The same, for who waits for something else too. Pending, nothing was read.
    pub(crate) fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); READ_ROOM];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(stream).poll_read(context, &mut room))?;
        self.octets.drain(..self.start);
        self.start = 0;
        self.octets.extend_from_slice(room.filled());
        Poll::Ready(Ok(room.filled().len()))
    }

    /// Octets of memory that are held.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.octets.capacity()
    }
}
