//! How long a client that holds something of upstream's may take for itself before its message comes: pure, the time is
//! passed in. Our own time and upstream's never count; nor does what the client sent while they passed.

use std::time::Duration;

/// Bounds of a client whose recipients hold something of upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Longest time that the client may take for itself from the answer to its first recipient to the 354: for all its commands
    /// together, and for taking their replies.
    pub envelope: Duration,
}

impl Default for Holding {
    /// 30 seconds: programs send an envelope in one breath, and a mailbox has three connections at a time.
    fn default() -> Self {
        Self { envelope: Duration::from_secs(30) }
    }
}

/// What a client has left of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance(Duration);

impl Allowance {
    /// The first recipient was answered.
    pub(crate) fn new(holding: Holding) -> Self {
        Self(holding.envelope)
    }

    /// The client took so much for itself.
    pub(crate) fn spend(&mut self, time: Duration) {
        self.0 = self.0.saturating_sub(time);
    }

    pub(crate) fn left(self) -> Duration {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use mail::{Recipient, ReversePath};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Instant, sleep, sleep_until};
    use tokio_util::sync::CancellationToken;
    use wire::{MailParameters, Reply};

    use super::*;
    use crate::client::Client;
    use crate::connection::{Connection, Terms};
    use crate::intake::{Intake, MessageSink, Transaction};
    use crate::sasl::Credentials;
    use crate::server::Limits;
    use crate::session::Profile;

    /// Takes so long for each recipient, and notes when a transaction or its sink was dropped.
    #[derive(Clone)]
    struct Upstream {
        takes: Duration,
        began: Instant,
        dropped: Arc<Mutex<Vec<u64>>>,
        is_live: bool,
    }

    struct Held(Upstream);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.dropped.lock().unwrap().push(self.0.began.elapsed().as_secs());
        }
    }

    impl Intake for Upstream {
        type Transaction = Held;

        fn connect(&self, _: &Client) -> Result<(), Reply> {
            Ok(())
        }

        async fn authenticate(&self, _: &Client, _: Credentials) -> Result<Arc<str>, Reply> {
            Err(Reply::new(535, (5, 7, 8), "Nobody has a name here"))
        }

        async fn mail(&self, _: &Client, _: ReversePath, _: MailParameters) -> Result<Held, Reply> {
            Ok(Held(self.clone()))
        }
    }

    impl Transaction for Held {
        type Sink = Self;

        fn is_live(&self) -> bool {
            self.0.is_live
        }

        async fn rcpt(&mut self, recipient: Recipient) -> Reply {
            sleep(self.0.takes).await;
            let refused = recipient.to_string().starts_with("refused@");
            if refused { Reply::new(550, (5, 1, 1), "No such user") } else { Reply::new(250, (2, 1, 5), "OK") }
        }

        async fn data(self) -> Result<Self, Reply> {
            sleep(self.0.takes).await;
            Ok(self)
        }
    }

    impl MessageSink for Held {
        async fn write(&mut self, _: &[u8]) -> Result<(), Reply> {
            Ok(())
        }

        async fn end(self) -> Reply {
            Reply::new(250, (2, 0, 0), "OK")
        }
    }

    /// Plays a session in virtual time; gives the seconds at which what it held was dropped.
    async fn held_until(
        takes: u64,
        is_live: bool,
        room: usize,
        client: impl AsyncFnOnce(&mut DuplexStream),
    ) -> Vec<u64> {
        let began = Instant::now();
        let intake = Upstream { takes: Duration::from_secs(takes), began, dropped: Arc::default(), is_live };
        let dropped = Arc::clone(&intake.dropped);
        let profile = Arc::new(Profile::new("relay.test".to_owned()));
        let terms = Terms { profile, intake: Arc::new(intake), limits: Arc::new(Limits::default()) };
        let peer = Client::new(1, "direct".into(), "127.0.0.1:1".parse().unwrap());
        let (mut stream, server) = duplex(room);
        let session = tokio::spawn(Connection::new(server, peer, terms, CancellationToken::new()).run());
        client(&mut stream).await;
        session.await.unwrap();
        std::mem::take(&mut *dropped.lock().unwrap())
    }

    const MAIL: &str = "MAIL FROM:<a@b.c>\r\n";
    const RCPT: &str = "RCPT TO:<d@b.c>\r\n";
    const REFUSED: &str = "RCPT TO:<refused@b.c>\r\n";

    /// Seconds that a recipient takes, what is sent at which second, and when what was held is dropped.
    type Case<'a> = (u64, &'a [(u64, &'a str)], &'a [u64]);

    #[tokio::test(start_paused = true)]
    async fn only_the_client_s_own_time_between_recipient_and_message_counts() {
        let envelope = [MAIL, RCPT].concat();
        let many = [MAIL, RCPT, RCPT, RCPT].concat();
        let cases: &[Case<'_>] = &[
            // Silence, and a command now and then: all of them together.
            (0, &[(0, &envelope)], &[30]),
            (0, &[(0, &envelope), (10, RCPT), (20, "NOOP\r\n"), (29, RCPT)], &[30]),
            // A piece of a line now and then.
            (0, &[(0, &envelope), (10, "NO"), (20, "O"), (29, "P")], &[30]),
            (0, &[(0, &envelope), (10, "NO"), (20, "OP\r\n"), (29, "N")], &[30]),
            // Ours and upstream's is none of it, nor what comes meanwhile.
            (100, &[(0, &envelope)], &[130]),
            (100, &[(0, &many)], &[330]),
            (100, &[(0, &envelope), (50, RCPT), (150, RCPT)], &[330]),
            (100, &[(0, &envelope), (110, RCPT), (220, RCPT)], &[330]),
            // Nothing is held before a recipient was asked about; then something is, whatever the answer.
            (0, &[(0, MAIL)], &[300]),
            (0, &[(0, MAIL), (100, REFUSED), (110, REFUSED)], &[130]),
            (0, &[(0, MAIL), (100, REFUSED), (110, RCPT), (120, "NOOP\r\n")], &[130]),
            // Given up, nothing is held any more; begun anew, the time is new.
            (0, &[(0, &envelope), (20, "RSET\r\n"), (60, &envelope)], &[20, 90]),
            (0, &[(0, &envelope), (20, "RSET\r\n"), (60, "QUIT\r\n")], &[20]),
            // From the 354 on the pace of the message counts.
            (0, &[(0, &envelope), (29, "DATA\r\n")], &[59]),
            (0, &[(0, &envelope), (20, "DATA\r\n"), (45, ".\r\n"), (100, &envelope)], &[45, 130]),
            (100, &[(0, &envelope), (110, "DATA\r\n")], &[240]),
        ];
        for (takes, sent, expected) in cases {
            let dropped = held_until(*takes, true, 4096, async |stream| {
                let began = Instant::now();
                for (second, octets) in *sent {
                    sleep_until(began + Duration::from_secs(*second)).await;
                    stream.write_all(octets.as_bytes()).await.unwrap();
                }
                stream.read_to_end(&mut Vec::new()).await.unwrap();
            })
            .await;
            assert_eq!(dropped, *expected, "{takes} {sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_held_a_command_has_the_time_of_any_other() {
        let dropped = held_until(0, false, 4096, async |stream| {
            stream.write_all([MAIL, RCPT].concat().as_bytes()).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        })
        .await;
        assert_eq!(dropped, [300]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_take_its_replies_holds_no_longer() {
        // Room for a banner and a reply, or for four replies.
        let dropped = held_until(0, true, 64, async |stream| {
            stream.write_all(MAIL.as_bytes()).await.unwrap();
            let said = "220 relay.test ESMTP xoauth2-relay\r\n250 2.1.0 Sender OK\r\n";
            stream.read_exact(&mut vec![0; said.len()]).await.unwrap();
            for _ in 0..6 {
                stream.write_all(RCPT.as_bytes()).await.unwrap();
            }
            sleep(Duration::from_hours(1)).await;
        })
        .await;
        assert_eq!(dropped, [30]);
    }

    /// The last word is for a client that has time.
    #[tokio::test(start_paused = true)]
    async fn what_was_held_is_free_before_the_client_takes_the_last_word() {
        for (last, at) in [("", 30), ("QUIT\r\n", 0)] {
            let dropped = held_until(0, true, 16, async |stream| {
                // All replies of an envelope, and nothing of the last word, for which there is no room.
                let (mut listens, mut says) = tokio::io::split(stream);
                let said = "220 relay.test ESMTP xoauth2-relay\r\n250 2.1.0 Sender OK\r\n250 2.1.5 OK\r\n";
                let mut taken = vec![0; said.len()];
                let envelope = [MAIL, RCPT].concat();
                let (listened, wrote) =
                    tokio::join!(listens.read_exact(&mut taken), says.write_all(envelope.as_bytes()));
                assert_eq!((listened.unwrap(), wrote.unwrap()), (said.len(), ()));
                says.write_all(last.as_bytes()).await.unwrap();
                sleep(Duration::from_hours(1)).await;
            })
            .await;
            assert_eq!(dropped, [at], "{last}");
        }
    }
}
