//! A message carried while its client waits: each command goes up when the client says it, and upstream's own words come back.
//! Nothing is stored and nothing is tried again later; what may be hidden is hidden before DATA: a token that must be renewed,
//! and one connection that was lost.
//!
//! A connection is out of its place while a reply is awaited, so that whoever drops a future here drops the connection with it;
//! one that is in its place is at rest and may be kept.

use std::sync::Arc;
use std::time::Duration;

use mail::{BodyType, Diagnostic, Envelope, Outcome, Recipient};
use tracing::debug;
use wire::{DotStuffer, Reply};

use crate::batch::Spent;
use crate::classify::{Stage, classify, is_about_the_dialog};
use crate::connection::{Connection, OpenError};
use crate::content::{self, Content};
use crate::dialog::{Dialog, converse, mail_command, not_accepted, rcpt_command, say};
use crate::health::Trouble;
use crate::lane::Slot;
use crate::token::TokenSource;
use crate::turns::{Hindrance, NoPlace, is_sign_of_trouble};

/// Room for octets that wait to go up.
const BUFFER: usize = 64 << 10;
/// So many are written; fewer wait for more, or for the final dot.
const ENOUGH: usize = 32 << 10;
/// Octets that are stuffed at a time: they become half as many again at most, so that the buffer never grows.
const PIECE: usize = 16 << 10;
const _: () = assert!(ENOUGH + PIECE / 2 * 3 <= BUFFER, "what is gathered never needs more than its buffer");

/// Why upstream has no end of a message, where it is no fault of its own.
const BROKEN_OFF: &str = "the message was broken off before its end";

/// Why there was no turn for a client that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// The lane or its tenant is in trouble, and is not probed within the wait.
    Trouble(Trouble),
    /// The login's minute is full for so long.
    Minute(Duration),
    /// The login's day is used up for so long, if that is known.
    Day(Option<Duration>),
    /// All connections that live messages may have were busy for the whole wait.
    Busy,
}

impl From<Hindrance> for NoTurn {
    fn from(hindrance: Hindrance) -> Self {
        match hindrance {
            Hindrance::Trouble(trouble, _) => Self::Trouble(trouble),
            Hindrance::Day(wait) => Self::Day(wait),
            Hindrance::Minute(Some(wait)) => Self::Minute(wait),
            // A minute that is full of messages under way has no other end than theirs.
            Hindrance::Minute(None) | Hindrance::Busy => Self::Busy,
        }
    }
}

/// What a client that waits is to be told: upstream's own words, or why there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveTold {
    /// Upstream said so at this stage: [`Stage::Mail`], [`Stage::Rcpt`], [`Stage::Data`] or [`Stage::EndOfData`]. It is a
    /// refusal, for now (4yz) or for good (5yz), or at RCPT and behind the final dot an acceptance (2yz); a reply that has no
    /// place there is never passed on. With a 421 the connection is closed.
    Upstream(Stage, Reply),
    /// The lane is in trouble: no token, the login refused, nobody there.
    Trouble(Trouble),
    /// The message has as many recipients as one may have, or as many of this domain.
    MessageFull,
    /// The login's day has no room for another recipient.
    DayFull,
    /// The tenant's day has no room for another external recipient; perhaps it has after this long.
    ExternalFull(Duration),
    /// Upstream does not take SMTPUTF8 messages.
    NoSmtpUtf8,
    /// The connection was lost before the final dot and nothing could be hidden any more, or upstream contradicted itself: it
    /// refused on a second connection whom it had taken, or answered with what has no place. Says how.
    Lost(String),
    /// The final dot went out and no reply came: upstream may have the message. Says how.
    Uncertain(String),
}

impl LiveTold {
    /// A reply as the client may have it.
    fn by_upstream(stage: Stage, reply: Reply) -> Self {
        let may_accept = matches!(stage, Stage::Rcpt | Stage::EndOfData);
        match reply.code() / 100 {
            2 if may_accept => Self::Upstream(stage, reply),
            4 | 5 => Self::Upstream(stage, reply),
            _ => Self::Lost(format!("upstream answered out of place: {reply}")),
        }
    }

    /// How the content ended.
    fn by_content(content: Content) -> Self {
        let ours = content.outcome().diagnostic().text.clone();
        match content {
            Content::Answered(reply) => Self::by_upstream(Stage::EndOfData, reply),
            // Nothing accepts a message of which it has no end.
            Content::Interrupted(Some(reply)) if !reply.is_positive() => Self::by_upstream(Stage::EndOfData, reply),
            Content::Interrupted(Some(reply)) => Self::Lost(format!("upstream answered out of place: {reply}")),
            Content::Interrupted(None) => Self::Lost(ours),
            Content::Unanswered(_) => Self::Uncertain(ours),
        }
    }

    fn is_taken(&self) -> bool {
        matches!(self, Self::Upstream(Stage::Rcpt, reply) if reply.is_positive())
    }

    /// What it means for a recipient that it ends for.
    fn outcome(&self) -> Outcome {
        let deferred = |text: &str| Outcome::Deferred(Diagnostic::local(text));
        match self {
            Self::Upstream(Stage::EndOfData, reply) => classify(Stage::EndOfData, reply),
            Self::Upstream(stage, reply) => not_accepted(classify(*stage, reply)),
            Self::Trouble(trouble) => deferred(&trouble.text),
            Self::MessageFull => deferred("the message has as many recipients as it may"),
            Self::DayFull => deferred("the login's day is used up"),
            Self::ExternalFull(_) => deferred("the tenant's day is used up for external recipients"),
            Self::NoSmtpUtf8 => Outcome::Refused(Diagnostic::local("upstream does not take SMTPUTF8 messages")),
            Self::Lost(text) => deferred(text),
            Self::Uncertain(text) => Outcome::Uncertain(Diagnostic::local(text)),
        }
    }
}

impl From<NoPlace> for LiveTold {
    fn from(full: NoPlace) -> Self {
        match full {
            NoPlace::Message => Self::MessageFull,
            NoPlace::Day => Self::DayFull,
            NoPlace::External(wait) => Self::ExternalFull(wait),
        }
    }
}

/// A message between its first recipient and DATA. Dropped, its lane is free at once: upstream hears RSET before the next
/// message, or the connection is closed.
pub struct Live<T: TokenSource> {
    transaction: Transaction<T>,
    envelope: Envelope,
    size: Option<u64>,
    /// Whether a connection that was lost has been hidden.
    has_hidden: bool,
    /// What the last recipient was told.
    last: LiveTold,
    /// What every further one is told, when the message can go on no more.
    over: Option<LiveTold>,
}

/// A message whose content goes up. Dropped before its end, upstream gets no final dot: the connection is closed.
pub struct LiveContent<T: TokenSource> {
    /// None when the content has failed, and while it is written to. Closed before the turn ends.
    connection: Option<Box<Connection>>,
    stuffer: DotStuffer,
    buffer: Vec<u8>,
    failed: Option<LiveTold>,
    transaction: Transaction<T>,
}

/// How a live message ended.
#[derive(Debug)]
pub struct Ending {
    /// Upstream's last word.
    pub told: LiveTold,
    /// What became of whom: every recipient that upstream was asked about, in their order, those that it refused included.
    pub outcomes: Vec<(Recipient, Outcome)>,
    /// What upstream counts of it.
    pub spent: Spent,
}

/// A turn with its connection and what upstream said of whom. Dropped, all that is left to do is done at once.
struct Transaction<T: TokenSource> {
    /// At rest: no reply is outstanding.
    connection: Option<Box<Connection>>,
    slot: Slot<T>,
    recipients: Vec<Recipient>,
    /// One for each recipient; none for one that upstream has taken and that waits for the end.
    verdicts: Vec<Option<Outcome>>,
    /// Whether upstream has said something that may be this connection's trouble.
    is_troubled: bool,
    /// Whether the lane knows all that is to be known.
    has_learned: bool,
}

/// Why what was said had no reply to go on with.
enum Break {
    /// The connection had been given up before anything was said of this message.
    Stale,
    /// The connection was lost, with this reason or farewell.
    Lost(String),
    /// Upstream finds the dialog wrong.
    Confused,
    /// There will be no other answer.
    Over(LiveTold),
}

impl<T: TokenSource> Slot<T> {
    /// A live message in this turn, with the `envelope` as it goes up; its client said that it would have `size` octets.
    /// Nothing is said upstream before the first recipient.
    pub fn live(mut self, mut envelope: Envelope, size: Option<u64>) -> Live<T> {
        // The body is not known yet, and may hold anything.
        envelope.body_type = BodyType::EightBitMime;
        // Upstream counts nobody before the final dot.
        self.spent = Some(Spent::default());
        let transaction = Transaction {
            connection: None,
            slot: self,
            recipients: Vec::new(),
            verdicts: Vec::new(),
            is_troubled: false,
            has_learned: false,
        };
        let last = LiveTold::Lost("upstream was asked nothing".to_owned());
        Live { transaction, envelope, size, has_hidden: false, last, over: None }
    }
}

impl<T: TokenSource> Live<T> {
    /// RCPT, behind MAIL for the first one. [`LiveTold::Upstream`] with a positive reply takes the recipient. Where MAIL was refused,
    /// that reply is the answer to all. Dropped while it waits, the connection is closed.
    pub async fn rcpt(&mut self, recipient: Recipient) -> LiveTold {
        if let Some(told) = &self.over {
            let told = told.clone();
            if matches!(told, LiveTold::Upstream(Stage::Mail, _)) && self.transaction.slot.add(&recipient).is_ok() {
                self.transaction.push(recipient, Some(told.outcome()));
            }
            return told;
        }
        if let Err(full) = self.transaction.slot.add(&recipient) {
            return LiveTold::from(full);
        }
        let told = match self.ask(Some(&recipient)).await {
            Ok(reply) => LiveTold::by_upstream(Stage::Rcpt, reply),
            Err(told) => {
                self.over = Some(told.clone());
                told
            }
        };
        self.transaction.record(recipient, &told);
        self.last = told.clone();
        told
    }

    /// DATA. Fails with what the client is told.
    pub async fn data(mut self) -> Result<LiveContent<T>, Ending> {
        if self.over.is_none() && !self.transaction.verdicts.contains(&None) {
            // Nobody was taken; upstream would say no more than it did.
            self.over = Some(self.last.clone());
        }
        let told = match self.over.take() {
            Some(told) => told,
            None => match self.ask(None).await {
                Ok(reply) if reply.is_intermediate() => return Ok(LiveContent::new(self.transaction)),
                Ok(reply) => LiveTold::by_upstream(Stage::Data, reply),
                Err(told) => told,
            },
        };
        Err(self.transaction.end(told, true))
    }

    /// Its client goes on without DATA. What was heard of recipients until now.
    pub fn abandon(self) -> Ending {
        let left = || Outcome::Deferred(Diagnostic::local("the client went on without DATA"));
        let rest = self.over.as_ref().map_or_else(left, LiveTold::outcome);
        self.transaction.abandon(self.last, &rest)
    }

    /// Says RCPT for `next`, or DATA, behind all that upstream must have heard before. Fails with what ends the message.
    async fn ask(&mut self, next: Option<&Recipient>) -> Result<Reply, LiveTold> {
        loop {
            let said = match self.transaction.connection.take() {
                Some(connection) => self.say(connection, next).await.map(Some),
                None => self.open(next).await,
            };
            match said {
                Ok(Some(reply)) => return Ok(reply),
                // All is said again; DATA is next.
                Ok(None) => {}
                Err(reason) => {
                    if let Some(told) = self.may_not_hide(reason) {
                        return Err(told);
                    }
                }
            }
        }
    }

    /// What the client must be told of a break; none if another connection can hide it.
    fn may_not_hide(&mut self, reason: Break) -> Option<LiveTold> {
        let lane = Arc::clone(self.transaction.slot.lane());
        match reason {
            Break::Over(told) => Some(told),
            Break::Stale => {
                debug!(lane = %lane.id(), "an idle connection had gone; opening another");
                None
            }
            Break::Lost(text) if self.has_hidden => {
                let trouble = lane.unreachable(OpenError::Network(text));
                Some(self.transaction.failed(trouble))
            }
            Break::Lost(_) | Break::Confused => {
                self.has_hidden = true;
                debug!(lane = %lane.id(), "the session is lost or confused; going on over another");
                None
            }
        }
    }

    /// The next command over a connection that has heard all before it.
    async fn say(&mut self, mut connection: Box<Connection>, next: Option<&Recipient>) -> Result<Reply, Break> {
        let (stage, command) = match next {
            Some(recipient) => (Stage::Rcpt, rcpt_command(recipient, connection.extensions.dsn)),
            None => (Stage::Data, "DATA\r\n".to_owned()),
        };
        let mut replies = Vec::with_capacity(1);
        let said = say(&mut connection, &[command], &mut replies).await;
        match (replies.pop(), said) {
            (Some(reply), _) if reply.code() == 421 => Err(self.closed(stage, reply)),
            (Some(reply), Ok(())) => {
                // Where upstream stands behind a reply that has no place there, nobody knows.
                if is_in_place(stage, &reply) {
                    self.transaction.connection = Some(connection);
                }
                Ok(reply)
            }
            (_, Err(lost)) => Err(Break::Lost(lost.to_string())),
            (None, Ok(())) => Err(Break::Lost("upstream gave no reply".to_owned())),
        }
    }

    /// MAIL and everybody whom upstream has taken, then `next`, over a warm connection or a new one. Gives the reply to `next`.
    async fn open(&mut self, next: Option<&Recipient>) -> Result<Option<Reply>, Break> {
        let lane = Arc::clone(self.transaction.slot.lane());
        // Boxed, what it takes to connect and log in as well: a client that waits costs little meanwhile.
        let mut connection = match Box::pin(lane.connection()).await {
            Ok(connection) => Box::new(connection),
            Err(trouble) => return Err(Break::Over(self.transaction.failed(trouble))),
        };
        let offered = connection.extensions;
        if self.envelope.smtputf8 && !offered.smtputf8 {
            self.transaction.connection = Some(connection);
            return Err(Break::Over(LiveTold::NoSmtpUtf8));
        }
        self.transaction.slot.seen = true;
        connection.messages += 1;
        let mut commands = vec![mail_command(offered, &self.envelope, self.size)];
        commands.extend(self.transaction.taken().chain(next).map(|recipient| rcpt_command(recipient, offered.dsn)));
        let dialog = converse(&mut connection, commands).await;
        if connection.messages > 1 && dialog.is_stale() {
            return Err(Break::Stale);
        }
        let taken = self.transaction.taken().count();
        let read = read(&dialog, taken, next.is_some());
        if dialog.lost.is_none() && !matches!(read, Read::Confused(_)) {
            self.transaction.connection = Some(connection);
        } else if matches!(read, Read::Confused(_)) && !self.has_hidden {
            Box::pin(connection.quit()).await;
            return Err(Break::Confused);
        }
        match read {
            Read::Taken(reply) => {
                if !reply.as_ref().is_none_or(|reply| is_in_place(Stage::Rcpt, reply)) {
                    self.transaction.connection = None;
                }
                Ok(reply)
            }
            Read::Lost(text) => Err(Break::Lost(text)),
            Read::Closed(stage, reply) => Err(self.closed(stage, reply)),
            Read::Refused(reply) | Read::Confused(reply) if taken == 0 => {
                Err(Break::Over(LiveTold::by_upstream(Stage::Mail, reply)))
            }
            Read::Refused(reply) | Read::Confused(reply) => Err(self.contradicted(Stage::Mail, &reply)),
            Read::Changed(reply) => Err(self.contradicted(Stage::Rcpt, &reply)),
        }
    }

    /// A 421: upstream's word if it is about pace or login, else no more than a connection's end.
    fn closed(&mut self, stage: Stage, reply: Reply) -> Break {
        let outcome = classify(stage, &reply);
        if matches!(outcome, Outcome::Deferred(_)) {
            return Break::Lost(reply.diagnostic().to_string());
        }
        self.transaction.hear(&outcome, true);
        Break::Over(LiveTold::by_upstream(stage, reply))
    }

    /// Upstream had taken somebody of this message and says otherwise now.
    fn contradicted(&mut self, stage: Stage, reply: &Reply) -> Break {
        self.transaction.hear(&not_accepted(classify(stage, reply)), false);
        Break::Over(LiveTold::Lost(format!(
            "the connection was lost, and on another upstream refused what it had taken: {reply}"
        )))
    }
}

/// Whether a command of this stage may be answered so.
fn is_in_place(stage: Stage, reply: &Reply) -> bool {
    match reply.code() / 100 {
        2 => stage == Stage::Rcpt,
        3 => stage == Stage::Data,
        _ => true,
    }
}

/// What the replies to MAIL and to RCPT for `taken` recipients, and for another if it `asks` for one, come to.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// All is as it was, and this is the reply to the other one.
    Taken(Option<Reply>),
    /// Not all of them came.
    Lost(String),
    /// Upstream closes the connection.
    Closed(Stage, Reply),
    /// MAIL is refused.
    Refused(Reply),
    /// MAIL is refused because the dialog seems wrong.
    Confused(Reply),
    /// Somebody is refused who was taken before.
    Changed(Reply),
}

fn read(dialog: &Dialog, taken: usize, asks: bool) -> Read {
    let replies = dialog.transaction();
    for at in 0..=taken {
        let stage = if at == 0 { Stage::Mail } else { Stage::Rcpt };
        match replies.get(at) {
            None => return Read::Lost(reason(dialog)),
            Some(reply) if reply.code() == 421 => return Read::Closed(stage, reply.clone()),
            Some(reply) if reply.is_positive() => {}
            Some(reply) if at > 0 => return Read::Changed(reply.clone()),
            Some(reply) if is_about_the_dialog(Stage::Mail, reply) => return Read::Confused(reply.clone()),
            Some(reply) => return Read::Refused(reply.clone()),
        }
    }
    match replies.get(taken + 1) {
        Some(reply) if reply.code() == 421 => Read::Closed(Stage::Rcpt, reply.clone()),
        None if asks => Read::Lost(reason(dialog)),
        _ if dialog.lost.is_some() => Read::Lost(reason(dialog)),
        reply => Read::Taken(reply.cloned()),
    }
}

fn reason(dialog: &Dialog) -> String {
    dialog.lost.as_ref().map_or_else(|| "upstream gave no reply".to_owned(), ToString::to_string)
}

impl<T: TokenSource> LiveContent<T> {
    fn new(mut transaction: Transaction<T>) -> Self {
        // It is at rest no more.
        let connection = transaction.connection.take();
        transaction.slot.let_in();
        let buffer = Vec::with_capacity(BUFFER);
        Self { connection, stuffer: DotStuffer::new(), buffer, failed: None, transaction }
    }

    /// The next octets of the message at rest: header block, empty line, body. Waits until upstream takes them. Fails with what
    /// the client is told, and takes no more then. Dropped while it waits, the connection is closed.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), LiveTold> {
        for piece in octets.chunks(PIECE) {
            if let Some(told) = self.why_not() {
                return Err(told);
            }
            self.stuffer.stuff(piece, &mut self.buffer);
            if self.buffer.len() >= ENOUGH {
                self.flush().await;
            }
        }
        self.why_not().map_or(Ok(()), Err)
    }

    /// Why nothing more goes up. A write that was dropped has taken the connection with it.
    fn why_not(&self) -> Option<LiveTold> {
        let lane = self.transaction.slot.lane();
        if self.failed.is_none() && lane.is_overdue() {
            return Some(LiveTold::Lost("the configuration has changed, and the message took too long".to_owned()));
        }
        let broken_off = || self.connection.is_none().then(|| LiveTold::Lost(BROKEN_OFF.to_owned()));
        self.failed.clone().or_else(broken_off)
    }

    async fn flush(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.write(&self.buffer, connection.timeouts.data_block).await.is_ok() {
            self.buffer.clear();
            self.connection = Some(connection);
            return;
        }
        // Open while the lane learns of it: what upstream had enough of may be connections.
        let content = content::interrupted(&mut connection).await;
        let told = LiveTold::by_content(content);
        let outcome = told.outcome();
        self.transaction.refuse_rest(&outcome);
        self.transaction.hear(&outcome, true);
        self.failed = Some(told);
    }

    /// What upstream counts of the message if it takes it.
    pub fn at_stake(&self) -> Spent {
        let taken: Vec<Recipient> = self.transaction.taken().cloned().collect();
        self.transaction.slot.worth(taken.iter())
    }

    /// The final dot, and upstream's answer; after a failed [`Self::write`] what became of the recipients. Not to be put under
    /// a timeout: dropped, upstream may have the message.
    pub async fn end(self) -> Ending {
        let why_not = self.why_not();
        let Self { connection, stuffer, mut buffer, mut transaction, .. } = self;
        let mut connection = match (connection, why_not) {
            (Some(connection), None) => connection,
            (_, why_not) => {
                let told = why_not.unwrap_or_else(|| LiveTold::Lost(BROKEN_OFF.to_owned()));
                return transaction.end(told, false);
            }
        };
        stuffer.finish(&mut buffer);
        transaction.await_reply();
        let content = content::finish(&mut connection, &buffer).await;
        connection.reset_first = !matches!(content.outcome(), Outcome::Accepted(_));
        let usable = content.is_session_usable();
        transaction.connection = Some(connection);
        transaction.end(LiveTold::by_content(content), usable)
    }

    /// No final dot: upstream takes nothing, and its connection is closed.
    pub fn abandon(self) -> Ending {
        drop(self.connection);
        let told = self.failed.unwrap_or_else(|| LiveTold::Lost(BROKEN_OFF.to_owned()));
        let rest = told.outcome();
        self.transaction.abandon(told, &rest)
    }
}

impl<T: TokenSource> Transaction<T> {
    /// Whom upstream has taken.
    fn taken(&self) -> impl Iterator<Item = &Recipient> {
        self.recipients
            .iter()
            .zip(&self.verdicts)
            .filter_map(|(recipient, verdict)| verdict.is_none().then_some(recipient))
    }

    fn record(&mut self, recipient: Recipient, told: &LiveTold) {
        let verdict = (!told.is_taken()).then(|| told.outcome());
        if let Some(outcome) = &verdict {
            self.hear(outcome, false);
        }
        self.push(recipient, verdict);
    }

    fn push(&mut self, recipient: Recipient, verdict: Option<Outcome>) {
        self.recipients.push(recipient);
        self.verdicts.push(verdict);
    }

    /// The lane's own trouble ends the message.
    fn failed(&mut self, trouble: Trouble) -> LiveTold {
        self.has_learned = true;
        LiveTold::Trouble(self.slot.failed(trouble))
    }

    /// What holds login or tenant is learned at once, however long the client goes on. That upstream asks to slow down is known at
    /// the message's end only, for others of it may be accepted; it `is_last` if there will be no more.
    fn hear(&mut self, outcome: &Outcome, is_last: bool) {
        self.is_troubled |= is_sign_of_trouble(outcome);
        if !self.has_learned && (is_last || (is_sign_of_trouble(outcome) && !matches!(outcome, Outcome::Paced(_)))) {
            self.slot.learn(std::slice::from_ref(outcome));
        }
        self.has_learned |= is_last;
    }

    fn refuse_rest(&mut self, outcome: &Outcome) {
        for verdict in &mut self.verdicts {
            verdict.get_or_insert_with(|| outcome.clone());
        }
    }

    /// From here on upstream may have the message.
    fn await_reply(&mut self) {
        let taken: Vec<Recipient> = self.taken().cloned().collect();
        self.slot.spends(taken.iter());
    }

    /// Upstream has said its last word, or will say none, and the session may be `usable` for more.
    fn end(mut self, told: LiveTold, usable: bool) -> Ending {
        self.refuse_rest(&told.outcome());
        let outcomes: Vec<Outcome> = std::mem::take(&mut self.verdicts).into_iter().flatten().collect();
        let knows = std::mem::replace(&mut self.has_learned, true);
        let is_well = if knows { !self.is_troubled } else { self.slot.told(&self.recipients, &outcomes) };
        let connection = self.connection.take().filter(|_| usable);
        let was_accepted = outcomes.iter().any(|outcome| matches!(outcome, Outcome::Accepted(_)));
        let ending = self.ending(told, outcomes);
        // As the queue's: the trouble may be this connection's, unless it took something.
        let surplus = match connection {
            Some(connection) if is_well || was_accepted => self.slot.lane().keep(*connection),
            connection => connection.map(|connection| *connection),
        };
        if let Some(surplus) = surplus {
            // It has its turn's place until upstream has ended it, and nobody waits for that: the client hears first.
            tokio::spawn(async move {
                surplus.quit().await;
                drop(self);
            });
        }
        ending
    }

    /// The client went, and the `rest` is for those whom upstream had taken.
    fn abandon(mut self, told: LiveTold, rest: &Outcome) -> Ending {
        self.learn();
        self.refuse_rest(rest);
        let outcomes = std::mem::take(&mut self.verdicts).into_iter().flatten().collect();
        self.ending(told, outcomes)
    }

    fn ending(&mut self, told: LiveTold, outcomes: Vec<Outcome>) -> Ending {
        let outcomes = std::mem::take(&mut self.recipients).into_iter().zip(outcomes).collect();
        Ending { told, outcomes, spent: self.slot.spent.unwrap_or_default() }
    }

    /// What was heard of those whom upstream did not take. Where it took all, nothing is known of the lane yet.
    fn learn(&mut self) {
        let heard: Vec<Outcome> = self.verdicts.iter().flatten().cloned().collect();
        if !std::mem::replace(&mut self.has_learned, true) && !heard.is_empty() {
            self.slot.learn(&heard);
        }
    }
}

impl<T: TokenSource> Drop for Transaction<T> {
    fn drop(&mut self) {
        self.learn();
        let lane = self.slot.lane();
        // Before the turn ends, so that whoever has the next one finds it.
        if let Some(connection) = self.connection.take().filter(|_| !self.is_troubled) {
            drop(lane.keep(*connection));
        }
    }
}
