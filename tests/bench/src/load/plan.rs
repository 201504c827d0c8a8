//! Many clients at a time, for a while or for a number of messages; and clients that only sit there.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, LocalSet};

use super::client::{Line, Security};
use super::message::Message;
use crate::error::BenchError;
use crate::figure::Sessions;

/// What the clients do.
#[derive(Clone)]
pub(crate) struct Load {
    /// Where.
    pub(crate) address: SocketAddr,
    /// How they present themselves.
    pub(crate) security: Security,
    /// How many at a time.
    pub(crate) connections: usize,
    /// How they use their connections.
    pub(crate) sessions: Sessions,
    /// What they send.
    pub(crate) message: Message,
    /// Whose it is.
    pub(crate) from: String,
}

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// The numbers that were promised, by a final 250.
    pub(crate) promised: Vec<u32>,
    /// How long each of these took.
    pub(crate) latencies: Vec<Duration>,
    /// How many were not promised, and what the first of these heard.
    pub(crate) refused: usize,
    /// See `refused`.
    pub(crate) first_refusal: Option<String>,
    /// From the begin to the last final reply.
    pub(crate) took: Duration,
    /// When the first message was begun.
    pub(crate) begun: Option<Instant>,
}

impl Outcome {
    /// Adds what an earlier load of the same clients promised, whose time does not count.
    pub(crate) fn after(mut self, earlier: Self) -> Self {
        self.promised.extend(earlier.promised);
        self.refused += earlier.refused;
        self.first_refusal = earlier.first_refusal.or(self.first_refusal);
        self
    }
}

/// How long clients may take to open their connections, and one message with all that hangs before it.
const PATIENCE: Duration = Duration::from_mins(2);
/// Before a client tries again that was turned away.
const PAUSE: Duration = Duration::from_millis(20);
/// The recipient of all messages.
pub(crate) const TO: &str = "someone@example.com";

impl Load {
    /// Opens all connections of clients that keep theirs. Fails with the first that cannot be opened.
    pub(crate) async fn open(self) -> Result<Crowd, BenchError> {
        let mut clients = Vec::with_capacity(self.connections);
        if self.sessions == Sessions::Kept {
            let mut opening = JoinSet::new();
            for _ in 0..self.connections {
                let Self { address, security, from, .. } = self.clone();
                opening.spawn(async move { Line::open(address, &security, &from, TO).await });
            }
            let all = async {
                while let Some(line) = opening.join_next().await {
                    clients.push(Some(line.map_err(panicked)??));
                }
                Ok::<(), BenchError>(())
            };
            within("the opening of all connections", PATIENCE, all).await?;
        } else {
            clients.resize_with(self.connections, || None);
        }
        Ok(Crowd { load: Rc::new(self), clients, next: 0 })
    }
}

/// Clients between two loads, with the connections that they keep.
pub(crate) struct Crowd {
    load: Rc<Load>,
    clients: Vec<Option<Line>>,
    next: u32,
}

impl Crowd {
    /// One message of each client, or so, that warms the subject up.
    pub(crate) async fn warm_up(&mut self) -> Result<Outcome, BenchError> {
        let messages = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        self.run(PATIENCE, messages).await
    }

    /// Hands in messages until no more may be begun. A client that cannot connect or is refused tries the next message.
    pub(crate) async fn run(&mut self, duration: Duration, messages: u32) -> Result<Outcome, BenchError> {
        let shared = Rc::new(Shared {
            load: Rc::clone(&self.load),
            begun: Instant::now(),
            duration,
            end: self.next.saturating_add(messages),
            next: Cell::new(self.next),
            outcome: RefCell::new(Outcome::default()),
        });
        let clients = LocalSet::new();
        let sending: Vec<_> =
            self.clients.drain(..).map(|line| clients.spawn_local(Rc::clone(&shared).client(line))).collect();
        let all = async {
            let mut lines = Vec::with_capacity(sending.len());
            for client in sending {
                lines.push(client.await.map_err(panicked)?);
            }
            Ok(lines)
        };
        self.clients = within("the load", PATIENCE + duration, clients.run_until(all)).await?;
        drop(clients);
        self.next = shared.next.get();
        let mut outcome = shared.outcome.take();
        outcome.begun = Some(shared.begun);
        Ok(outcome)
    }

    /// Says good-bye on all connections.
    pub(crate) async fn close(self) {
        for line in self.clients.into_iter().flatten() {
            line.quit().await;
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn panicked(error: tokio::task::JoinError) -> BenchError {
    BenchError::Impossible(format!("a client panicked: {error}"))
}

async fn within<T>(
    what: &str,
    bound: Duration,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    tokio::time::timeout(bound, work)
        .await
        .unwrap_or_else(|_| Err(BenchError::Late { what: what.to_owned(), seconds: bound.as_secs() }))
}

struct Shared {
    load: Rc<Load>,
    begun: Instant,
    duration: Duration,
    end: u32,
    next: Cell<u32>,
    outcome: RefCell<Outcome>,
}

impl Shared {
    /// Sends while there is time, and gives back the connection that is open then.
    async fn client(self: Rc<Self>, mut line: Option<Line>) -> Option<Line> {
        let mut message = self.load.message.clone();
        while let Some(number) = self.number() {
            let begun = Instant::now();
            match self.one(line.take(), &mut message, number).await {
                Ok(open) => {
                    let ended = Instant::now();
                    self.promised(number, begun, ended);
                    match self.load.sessions {
                        Sessions::Kept => line = Some(open),
                        Sessions::Single => open.quit().await,
                    }
                }
                Err(error) => {
                    self.refused(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        line
    }

    /// Sends on the connection, or on a new one where there is none.
    async fn one(&self, line: Option<Line>, message: &mut Message, number: u32) -> Result<Line, BenchError> {
        let load = &self.load;
        let mut line = match line {
            Some(line) => line,
            None => Line::open(load.address, &load.security, &load.from, TO).await?,
        };
        line.send(message, number).await?;
        Ok(line)
    }

    fn promised(&self, number: u32, begun: Instant, ended: Instant) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.promised.push(number);
        outcome.latencies.push(ended - begun);
        outcome.took = outcome.took.max(ended - self.begun);
    }

    fn refused(&self, error: &BenchError) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.refused += 1;
        outcome.first_refusal.get_or_insert_with(|| error.to_string());
    }

    /// The next message's number, while there is time for it.
    fn number(&self) -> Option<u32> {
        let number = self.next.get();
        if number >= self.end || self.begun.elapsed() >= self.duration {
            return None;
        }
        self.next.set(number + 1);
        Some(number)
    }
}

/// Opens so many connections that have said EHLO and sit there; a hundred at a time, so that no backlog overflows.
pub(crate) async fn idle(address: SocketAddr, security: &Security, count: usize) -> Result<Vec<Line>, BenchError> {
    let mut lines = Vec::with_capacity(count);
    while lines.len() < count {
        let some = (count - lines.len()).min(100);
        let opening: Vec<_> = (0..some)
            .map(|_| {
                let security = security.clone();
                tokio::spawn(async move { Line::open(address, &security, "idle@example.com", TO).await })
            })
            .collect();
        for line in opening {
            let line = tokio::time::timeout(PATIENCE, line)
                .await
                .map_err(|_| BenchError::Late { what: "an idle session".to_owned(), seconds: PATIENCE.as_secs() })?;
            lines.push(line.map_err(|error| BenchError::Impossible(format!("a client panicked: {error}")))??);
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that takes every second message and hangs up after each refusal.
    async fn moody() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut count = 0;
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count += 1;
                let good = count % 2 == 1;
                tokio::spawn(async move {
                    stream.write_all(b"220 x\r\n").await.unwrap();
                    let mut input = Vec::new();
                    while stream.read_buf(&mut input).await.is_ok_and(|count| count > 0) {
                        let answer: &[u8] = match &input[..4] {
                            b"DATA" => b"354 go\r\n",
                            _ if input.ends_with(b"\r\n.\r\n") && good => b"250-all\r\n250 is well\r\n",
                            _ if input.ends_with(b"\r\n.\r\n") => b"452 full\r\n",
                            b"From" => continue,
                            b"QUIT" => return,
                            _ => b"250 fine\r\n",
                        };
                        input.clear();
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn what_was_promised_and_what_was_refused() {
        for (sessions, promised) in [(Sessions::Single, vec![0, 2, 4, 6, 8]), (Sessions::Kept, (0..10).collect())] {
            let load = Load {
                address: moody().await,
                security: Security::None,
                connections: 1,
                sessions,
                message: Message::new(1, 500, "a@b.example", TO),
                from: "a@b.example".to_owned(),
            };
            let outcome = load.open().await.unwrap().run(Duration::from_mins(1), 10).await.unwrap();
            assert_eq!(outcome.promised, promised, "{sessions:?}");
            assert_eq!(outcome.latencies.len(), promised.len());
            assert_eq!(outcome.refused, 10 - promised.len());
            assert_eq!(outcome.first_refusal.is_some_and(|said| said.contains("452 full")), promised.len() < 10);
        }
    }
}
