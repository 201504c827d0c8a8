//! A lane and what it needs: tokens, messages, and short words for attempts.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clock::{Clock, ManualClock, WallTime};
use forwarder::{
    AddressFamily, Allowance, Attempt, BearerToken, Body, ConnectionLimits, Endpoint, Lane, LaneParts, Message, Slot,
    Tenant, Timeouts, TokenSource, TokenTrouble, TroubleKind,
};
use mail::{Domain, Envelope, ForwardPath, LaneId, Outcome, Recipient, ReversePath, Scope};
use tokio::task::JoinHandle;

use crate::upstream::{HOST, trusting, within};

pub(crate) const LOGIN: &str = "scanner@contoso.com";

/// A token whose number tells which it is.
#[derive(Clone)]
pub(crate) struct Token(String);

impl BearerToken for Token {
    fn expose(&self) -> &str {
        &self.0
    }

    fn expires_at(&self) -> WallTime {
        WallTime::from_unix_millis(i64::MAX)
    }

    fn user(&self) -> Option<&str> {
        None
    }
}

/// Gives `very-secret-token-number-1`, after a replacement 2 and so on.
#[derive(Default)]
pub(crate) struct Tokens {
    pub(crate) replaced: AtomicUsize,
    /// Whether there is none at all.
    pub(crate) dry: bool,
    /// Whether a rejected one is not replaced.
    pub(crate) irreplaceable: bool,
}

impl Tokens {
    fn current(&self) -> Token {
        Token(format!("very-secret-token-number-{}", self.replaced.load(Ordering::SeqCst) + 1))
    }
}

impl TokenSource for Tokens {
    type Token = Token;

    async fn token(&self) -> Result<Token, TokenTrouble> {
        if self.dry {
            Err(TokenTrouble { text: "AADSTS7000222: the client secret has expired".into(), scope: Scope::Tenant })
        } else {
            Ok(self.current())
        }
    }

    async fn replace(&self, rejected: &Token) -> Result<Token, TokenTrouble> {
        if self.irreplaceable || rejected.0 == self.current().0 {
            self.replaced.fetch_add(1, Ordering::SeqCst);
        }
        if self.irreplaceable {
            Err(TokenTrouble { text: "the request budget is used up".into(), scope: Scope::Tenant })
        } else {
            Ok(self.current())
        }
    }
}

/// A lane that is still to be made.
pub(crate) struct Plan {
    pub(crate) endpoint: Endpoint,
    pub(crate) allowance: Allowance,
    pub(crate) kept_for_queue: usize,
    pub(crate) limits: ConnectionLimits,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) login: &'static str,
    pub(crate) tokens: Tokens,
}

/// A lane to `upstream`, with a clock of its own that stands still.
pub(crate) fn lane_to(upstream: SocketAddr) -> Road {
    lane_with(upstream, |_| {})
}

/// As [`lane_to`], changed.
pub(crate) fn lane_with(upstream: SocketAddr, change: impl FnOnce(&mut Plan)) -> Road {
    let clock = Arc::new(ManualClock::at(WallTime::from_unix_millis(1_800_000_000_000)));
    let (lane, tokens) = make(upstream, Arc::<ManualClock>::clone(&clock), change);
    Road { lane, tokens, clock }
}

/// Exchange's own limits.
pub(crate) fn allowance() -> Allowance {
    Allowance {
        connections: 3,
        messages_per_minute: 30,
        recipients_per_day: 10_000,
        recipients_per_message: 500,
        internal_domains: vec![Domain::parse("contoso.com").unwrap()],
    }
}

/// A lane on any clock.
pub(crate) fn make(
    upstream: SocketAddr,
    clock: Arc<dyn Clock>,
    change: impl FnOnce(&mut Plan),
) -> (Arc<Lane<Tokens>>, Arc<Tokens>) {
    let endpoint = Endpoint {
        host: HOST.into(),
        port: upstream.port(),
        address_family: AddressFamily::Ipv4,
        source_address: None,
        proxy: None,
        hostname: "relay.test".into(),
        tls: trusting(),
        timeouts: Timeouts::default(),
    };
    let mut plan = Plan {
        endpoint,
        allowance: allowance(),
        kept_for_queue: 0,
        limits: ConnectionLimits::default(),
        tenant: Arc::new(Tenant::new(None)),
        login: LOGIN,
        tokens: Tokens::default(),
    };
    change(&mut plan);
    let Plan { endpoint, allowance, kept_for_queue, limits, tenant, login, tokens } = plan;
    let tokens = Arc::new(tokens);
    let (id, login) = (LaneId::new("tenant", login), login.to_owned());
    let lane = Lane::new(LaneParts {
        id,
        login,
        endpoint,
        tokens: Arc::clone(&tokens),
        tenant,
        allowance,
        kept_for_queue,
        limits,
        clock,
    });
    (lane, tokens)
}

/// A lane, its tokens and its clock.
pub(crate) struct Road {
    pub(crate) lane: Arc<Lane<Tokens>>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) clock: Arc<ManualClock>,
}

impl Road {
    /// Starts to send a message on the lane's next turn.
    pub(crate) fn send(&self, mail: Mail) -> Sending {
        send(&self.lane, mail)
    }

    /// Whether a turn is to be had at once.
    pub(crate) async fn has_turn(&self) -> bool {
        self.turn_now().await.is_some()
    }

    /// A turn, if there is one at once.
    pub(crate) async fn turn_now(&self) -> Option<Slot<Tokens>> {
        turn_now(&self.lane).await
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// A turn, if there is one at once.
pub(crate) async fn turn_now(lane: &Arc<Lane<Tokens>>) -> Option<Slot<Tokens>> {
    tokio::select! {
        biased;
        slot = lane.slot() => Some(slot),
        () = std::future::ready(()) => None,
    }
}

/// Starts to send a message on the lane's next turn.
pub(crate) fn send(lane: &Arc<Lane<Tokens>>, mail: Mail) -> Sending {
    let lane = Arc::clone(lane);
    Sending(tokio::spawn(async move {
        let slot = lane.slot().await;
        deliver(slot, mail).await
    }))
}

/// Sends a message in a turn.
pub(crate) async fn deliver(slot: Slot<Tokens>, mut mail: Mail) -> Attempt<BodyError> {
    let message = Message { envelope: &mail.envelope, recipients: &mail.recipients, header: &mail.header };
    slot.deliver(&message, &mut mail.body, || {}).await
}

/// A message on its way.
pub(crate) struct Sending(JoinHandle<Attempt<BodyError>>);

impl Sending {
    pub(crate) async fn ended(self) -> Attempt<BodyError> {
        within(self.0).await.unwrap()
    }

    /// The outcomes in short, as `550 5.1.1 ... (refused)`.
    pub(crate) async fn outcomes(self) -> Vec<String> {
        match self.ended().await {
            Attempt::Told(told) => told.outcomes.iter().map(short).collect(),
            other => panic!("upstream was spoken to, and yet: {other:?}"),
        }
    }
}

impl Sending {
    /// The message was not sent since upstream cannot be reached: why.
    pub(crate) async fn unreachable(self) -> String {
        match self.ended().await {
            Attempt::NotStarted(trouble) => {
                assert_eq!(trouble.kind, TroubleKind::Unreachable, "{trouble}");
                trouble.text
            }
            other => panic!("{other:?}"),
        }
    }

    /// The text of the lane's trouble that kept it.
    pub(crate) async fn trouble(self) -> String {
        match self.ended().await {
            Attempt::NotTaken(trouble) => trouble.text,
            other => panic!("the lane was to be in trouble, and yet: {other:?}"),
        }
    }
}

fn short(outcome: &Outcome) -> String {
    let scope = match outcome {
        Outcome::Held { scope: Scope::Message, .. } => " message",
        Outcome::Held { scope: Scope::Mailbox, .. } => " mailbox",
        Outcome::Held { scope: Scope::Tenant, .. } => " tenant",
        _ => "",
    };
    format!("{}{scope}: {}", outcome.name(), outcome.diagnostic())
}

/// A message to send.
pub(crate) struct Mail {
    pub(crate) envelope: Envelope,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) header: Vec<u8>,
    pub(crate) body: Pieces,
}

/// A short message to these.
pub(crate) fn mail_to(recipients: &[&str]) -> Mail {
    Mail {
        envelope: Envelope::from(ReversePath::parse(b"scanner@contoso.com").unwrap()),
        recipients: recipients
            .iter()
            .map(|recipient| ForwardPath::parse(recipient.as_bytes()).unwrap().into())
            .collect(),
        header: b"Subject: scan\r\n".to_vec(),
        body: Pieces::of(&[b"page 1\r\n"]),
    }
}

/// A short message to somebody.
pub(crate) fn mail() -> Mail {
    mail_to(&["anna@contoso.com"])
}

/// A message of more octets than any socket's buffers hold.
pub(crate) fn large_mail() -> Mail {
    let line = [&[b'x'; 998][..], b"\r\n"].concat();
    Mail { body: Pieces::of(&vec![&line.repeat(64)[..]; 512]), ..mail() }
}

/// The disk did not give the body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BodyError;

/// A body in pieces.
pub(crate) struct Pieces {
    left: VecDeque<Vec<u8>>,
    current: Vec<u8>,
    /// Whether it cannot be read to its end.
    pub(crate) broken: bool,
}

impl Pieces {
    pub(crate) fn of(pieces: &[&[u8]]) -> Self {
        Self { left: pieces.iter().map(|piece| piece.to_vec()).collect(), current: Vec::new(), broken: false }
    }
}

impl Body for Pieces {
    type Error = BodyError;

    fn total(&self) -> u64 {
        self.left.iter().map(|piece| piece.len() as u64).sum()
    }

    async fn next(&mut self) -> Result<Option<&[u8]>, BodyError> {
        match self.left.pop_front() {
            Some(piece) => {
                self.current = piece;
                Ok(Some(&self.current))
            }
            None if self.broken => Err(BodyError),
            None => Ok(None),
        }
    }
}
