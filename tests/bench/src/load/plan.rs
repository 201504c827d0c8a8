//! Many clients at a time, for a while or for a number of messages; and clients that only sit there.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Barrier;
use tokio::task::LocalSet;

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
    /// No message is begun after so long.
    pub(crate) duration: Duration,
    /// No more than so many are begun.
    pub(crate) messages: u32,
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
    /// From the first message's begin to the last final reply.
    pub(crate) took: Duration,
    /// When the first message was begun.
    pub(crate) begun: Option<Instant>,
}

/// How long clients may take to open their connections, and one message with all that hangs before it.
const PATIENCE: Duration = Duration::from_mins(2);
/// Before a client tries again that was turned away.
const PAUSE: Duration = Duration::from_millis(20);
/// The recipient of all messages.
pub(crate) const TO: &str = "someone@example.com";

impl Load {
    /// Runs all clients to their end. Fails when a client cannot even connect, or when none makes progress.
    pub(crate) async fn run(self) -> Result<Outcome, BenchError> {
        let shared = Rc::new(Shared {
            barrier: Barrier::new(self.connections),
            begun: Cell::new(None),
            next: Cell::new(0),
            last: Cell::new(None),
            outcome: RefCell::new(Outcome::default()),
            load: self,
        });
        let clients = LocalSet::new();
        let handles: Vec<_> =
            (0..shared.load.connections).map(|_| clients.spawn_local(Rc::clone(&shared).client())).collect();
        let all = async {
            for handle in handles {
                handle.await.map_err(|error| BenchError::Impossible(format!("a client panicked: {error}")))??;
            }
            Ok::<(), BenchError>(())
        };
        let bound = PATIENCE + shared.load.duration;
        match tokio::time::timeout(bound, clients.run_until(all)).await {
            Ok(result) => result?,
            Err(_) => return Err(BenchError::Late { what: "the load".to_owned(), seconds: bound.as_secs() }),
        }
        drop(clients);
        let mut outcome = shared.outcome.take();
        outcome.begun = shared.begun.get();
        if let (Some(begun), Some(last)) = (shared.begun.get(), shared.last.get()) {
            outcome.took = last - begun;
        }
        Ok(outcome)
    }
}

struct Shared {
    load: Load,
    barrier: Barrier,
    begun: Cell<Option<Instant>>,
    next: Cell<u32>,
    last: Cell<Option<Instant>>,
    outcome: RefCell<Outcome>,
}

impl Shared {
    async fn client(self: Rc<Self>) -> Result<(), BenchError> {
        let load = &self.load;
        let mut message = load.message.clone();
        let mut line = match load.sessions {
            Sessions::Kept => Some(self.open().await?),
            Sessions::Single => None,
        };
        self.barrier.wait().await;
        if self.begun.get().is_none() {
            self.begun.set(Some(Instant::now()));
        }
        while let Some(number) = self.number() {
            let begun = Instant::now();
            match self.one(line.take(), &mut message, number).await {
                Ok(kept) => {
                    let now = Instant::now();
                    line = kept;
                    self.last.set(Some(now));
                    let mut outcome = self.outcome.borrow_mut();
                    outcome.promised.push(number);
                    outcome.latencies.push(now - begun);
                }
                Err(error) => {
                    self.refuse(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        if let Some(line) = line {
            line.quit().await;
        }
        Ok(())
    }

    /// Opens a connection when there is none, sends, and keeps or closes it.
    async fn one(&self, line: Option<Line>, message: &mut Message, number: u32) -> Result<Option<Line>, BenchError> {
        let mut line = match line {
            Some(line) => line,
            None => self.open().await?,
        };
        line.send(message, number).await?;
        match self.load.sessions {
            Sessions::Kept => Ok(Some(line)),
            Sessions::Single => {
                line.quit().await;
                Ok(None)
            }
        }
    }

    async fn open(&self) -> Result<Line, BenchError> {
        Line::open(self.load.address, &self.load.security, &self.load.from, TO).await
    }

    fn refuse(&self, error: &BenchError) {
        let mut outcome = self.outcome.borrow_mut();
        outcome.refused += 1;
        outcome.first_refusal.get_or_insert_with(|| error.to_string());
    }

    /// The next message's number, while there is time for it.
    fn number(&self) -> Option<u32> {
        let begun = self.begun.get()?;
        let number = self.next.get();
        if number >= self.load.messages || begun.elapsed() >= self.load.duration {
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
                duration: Duration::from_mins(1),
                messages: 10,
            };
            let outcome = load.run().await.unwrap();
            assert_eq!(outcome.promised, promised, "{sessions:?}");
            assert_eq!(outcome.latencies.len(), promised.len());
            assert_eq!(outcome.refused, 10 - promised.len());
            assert_eq!(outcome.first_refusal.is_some_and(|said| said.contains("452 full")), promised.len() < 10);
        }
    }
}
