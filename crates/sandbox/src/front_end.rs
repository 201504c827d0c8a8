//! The SMTP listener: sockets, TLS and timers around `session`. It flushes replies only when nothing whole is left to
//! answer, so a pipelined group costs one write. It decides nothing that a client could read.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::answer::Step;
use crate::inbox::Inbox;
use crate::listener;
use crate::replies;
use crate::session::Session;
use crate::world::World;

/// Room for one read: a TLS record.
const READ: usize = 16 << 10;
/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Takes connections until `stop`.
pub(crate) async fn run(listener: TcpListener, acceptor: TlsAcceptor, world: Arc<World>, stop: CancellationToken) {
    listener::run(listener, stop, |stream, client| {
        let (acceptor, open) = (acceptor.clone(), Open::new(Arc::clone(&world)));
        async move {
            if let Err(error) = serve(stream, client, &acceptor, &open).await {
                // A client that goes away in the middle is everyday life.
                tracing::debug!(%error, %client, "connection ended");
            }
        }
    })
    .await;
}

/// An open connection in the counters.
struct Open {
    world: Arc<World>,
    ordinal: u64,
    /// How many were open when this one came.
    crowd: u64,
}

impl Open {
    fn new(world: Arc<World>) -> Self {
        let (ordinal, crowd) = world.tally.open();
        Self { world, ordinal, crowd }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.world.tally.close();
    }
}

async fn serve(mut stream: TcpStream, client: SocketAddr, acceptor: &TlsAcceptor, open: &Open) -> io::Result<()> {
    let world = &open.world;
    if open.crowd > world.max_connections {
        stream.write_all(format!("{}\r\n", replies::NOT_ACTIVE).as_bytes()).await?;
        return stream.shutdown().await;
    }
    let mut session = Session::new(Arc::clone(world), client.ip(), open.ordinal);
    let mut driver = Driver::new(world);
    let greeted = session.greet(&mut driver.outbox);
    if driver.talk(&mut stream, &mut session, greeted).await? == End::Closed {
        return Ok(());
    }
    let mut stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    session.encrypted();
    driver.talk(&mut stream, &mut session, Step::Read).await?;
    Ok(())
}

/// How a conversation on one stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    /// STARTTLS was answered; the handshake comes next.
    StartTls,
}

/// Buffers and timers of a connection, which outlive STARTTLS.
struct Driver<'a> {
    world: &'a World,
    inbox: Inbox,
    outbox: Vec<u8>,
    ends: Instant,
}

impl<'a> Driver<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, inbox: Inbox::default(), outbox: Vec::new(), ends: Instant::now() + world.session_limit }
    }

    async fn talk<S>(&mut self, stream: &mut S, session: &mut Session, first: Step) -> io::Result<End>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut step = first;
        loop {
            match step {
                Step::Read => {
                    self.flush(stream).await?;
                    match self.read(stream).await {
                        Some(Ok(0)) => return Ok(End::Closed),
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Err(error),
                        None => {
                            session.timed_out(&mut self.outbox);
                            return self.close(stream).await;
                        }
                    }
                }
                Step::Wait(_) if Instant::now() >= self.ends => {
                    session.timed_out(&mut self.outbox);
                    return self.close(stream).await;
                }
                Step::Wait(wait) => {
                    self.flush(stream).await?;
                    if !self.pause(stream, wait).await? {
                        return Ok(End::Closed);
                    }
                }
                Step::StartTls => {
                    // Nothing sent in clear may count inside TLS (RFC 3207 section 4.2), not even what came in a pause.
                    self.inbox.clear();
                    self.flush(stream).await?;
                    return Ok(End::StartTls);
                }
                Step::Close => return self.close(stream).await,
                Step::Cut => return Ok(End::Closed),
                Step::Stall => {
                    self.flush(stream).await?;
                    return self.stall(stream).await;
                }
                Step::Freeze => {
                    sleep_until(self.ends).await;
                    return Ok(End::Closed);
                }
            }
            step = session.advance(&mut self.inbox, &mut self.outbox);
        }
    }

    /// Reads once; `None` when the client was silent, or connected, for too long.
    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Option<io::Result<usize>> {
        let patience = (Instant::now() + self.world.idle_timeout).min(self.ends);
        timeout_at(patience, stream.read_buf(self.inbox.space(READ))).await.ok()
    }

    /// Waits; false if the client went away meanwhile. What it sends is kept for later, up to about one read.
    async fn pause<S: AsyncRead + Unpin>(&mut self, stream: &mut S, wait: Duration) -> io::Result<bool> {
        let until = Instant::now() + wait;
        while self.inbox.unread().len() < READ {
            match timeout_at(until, stream.read_buf(self.inbox.space(READ))).await {
                Ok(Ok(0)) => return Ok(false),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(true),
            }
        }
        sleep_until(until).await;
        Ok(true)
    }

    /// Writes what was said. A client that does not read is as good as silent.
    async fn flush<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let written = timeout(self.world.idle_timeout, async {
            stream.write_all(&self.outbox).await?;
            stream.flush().await
        });
        written.await??;
        self.outbox.clear();
        Ok(())
    }

    async fn close<S: AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<End> {
        self.flush(stream).await?;
        stream.shutdown().await?;
        Ok(End::Closed)
    }

    /// Reads and ignores until the client gives up.
    async fn stall<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<End> {
        loop {
            self.inbox.clear();
            if stream.read_buf(self.inbox.space(READ)).await? == 0 {
                return Ok(End::Closed);
            }
        }
    }
}
