//! The messages that the front end accepted, for tests and the `sandbox` command to look at. In memory and bounded:
//! the oldest records are forgotten, large bodies are kept as a digest. Nothing is ever delivered.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use clock::WallTime;
use tokio::sync::{broadcast, watch};

use crate::{BodyPolicy, Parameter, SandboxError};

/// Messages that a subscriber may lag behind before it loses the oldest.
const FAN_OUT: usize = 1_024;

/// An accepted message.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its place in the order of acceptance, from 0.
    pub index: u64,
    /// The mailbox that was logged in.
    pub login: String,
    /// The reverse-path without brackets; empty for `<>`.
    pub reverse_path: String,
    /// The parameters of MAIL as given.
    pub parameters: Vec<Parameter>,
    /// The accepted recipients in order.
    pub recipients: Vec<Recipient>,
    /// The dot-unstuffed octets or their digest.
    pub body: Body,
    /// The Message-ID with brackets; the one that Exchange made up if the message had none.
    pub message_id: String,
    /// The addresses of the From header field.
    pub header_from: Vec<String>,
    /// The same as recipients see them: an alias is the primary address, unless the tenant shows aliases.
    pub shown_from: Vec<String>,
    /// A bare LF was in the content: Exchange accepts it, and the next hop bounces it with `550 5.6.11` (facts 1.6).
    pub bare_lf: bool,
    /// A CR without LF was in the content.
    pub bare_cr: bool,
    /// Content was sent without waiting for the 354, which RFC 2920 section 3.1 forbids.
    pub before_354: bool,
    /// When the final dot was answered.
    pub received: WallTime,
    /// The session id in the banner.
    pub session_id: String,
    /// The ordinal of the connection, from 1.
    pub connection: u64,
}

/// A recipient with its RCPT parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The address without brackets.
    pub address: String,
    /// NOTIFY and ORCPT as given.
    pub parameters: Vec<Parameter>,
}

/// The content of a message.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// The octets after removing stuffed dots, final CRLF included.
    Octets(Vec<u8>),
    /// Too many to keep ([`BodyPolicy`]).
    Digest {
        /// How many octets there were.
        length: u64,
        /// Their SHA-256.
        sha256: [u8; 32],
    },
}

impl Body {
    /// The octets, if they were kept.
    pub fn octets(&self) -> Option<&[u8]> {
        match self {
            Self::Octets(octets) => Some(octets),
            Self::Digest { .. } => None,
        }
    }

    /// How many octets the content has.
    pub fn length(&self) -> u64 {
        match self {
            Self::Octets(octets) => octets.len() as u64,
            Self::Digest { length, .. } => *length,
        }
    }

    /// SHA-256 of the content, kept or not.
    pub fn sha256(&self) -> [u8; 32] {
        match self {
            Self::Octets(octets) => {
                let mut sha256 = [0; 32];
                sha256.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
                sha256
            }
            Self::Digest { sha256, .. } => *sha256,
        }
    }

    fn in_memory(&self) -> usize {
        self.octets().map_or(0, <[u8]>::len)
    }
}

impl fmt::Debug for Body {
    // A body never goes into a log or a test's failure text whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} octets)", self.length())
    }
}

/// A recipient that was sent the same Message-ID more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The Message-ID with brackets.
    pub message_id: String,
    /// The recipient's address.
    pub recipient: String,
    /// How often.
    pub count: usize,
}

/// Where accepted messages are kept.
#[derive(Debug)]
pub(crate) struct MailStore {
    held: Mutex<Held>,
    bodies: BodyPolicy,
    records: usize,
    /// Octets of all kept bodies.
    octets: AtomicUsize,
    total: watch::Sender<u64>,
    fan_out: broadcast::Sender<Arc<Message>>,
}

#[derive(Debug, Default)]
struct Held {
    /// All that ever came; the index of the next.
    total: u64,
    kept: VecDeque<Arc<Message>>,
}

impl MailStore {
    pub(crate) fn new(bodies: BodyPolicy, records: usize) -> Self {
        Self {
            held: Mutex::default(),
            bodies,
            records: records.max(1),
            octets: AtomicUsize::new(0),
            total: watch::Sender::new(0),
            fan_out: broadcast::Sender::new(FAN_OUT),
        }
    }

    /// How many octets of the next body may be kept.
    pub(crate) fn keep_up_to(&self) -> usize {
        let left = self.bodies.keep_in_total.saturating_sub(self.octets.load(Ordering::Relaxed));
        self.bodies.keep_up_to.min(left)
    }

    /// Keeps a message under the next index.
    pub(crate) fn put(&self, mut message: Message) {
        let mut held = self.held();
        message.index = held.total;
        let message = Arc::new(message);
        self.octets.fetch_add(message.body.in_memory(), Ordering::Relaxed);
        held.kept.push_back(Arc::clone(&message));
        held.total += 1;
        if held.kept.len() > self.records
            && let Some(oldest) = held.kept.pop_front()
        {
            self.octets.fetch_sub(oldest.body.in_memory(), Ordering::Relaxed);
        }
        // Sent under the lock so that subscribers see the order of the indices. Nobody may be listening.
        let _ = self.fan_out.send(message);
        self.total.send_replace(held.total);
    }

    pub(crate) fn total(&self) -> u64 {
        self.held().total
    }

    pub(crate) fn all(&self) -> Vec<Arc<Message>> {
        self.held().kept.iter().cloned().collect()
    }

    pub(crate) fn at(&self, index: u64) -> Option<Arc<Message>> {
        let held = self.held();
        let forgotten = held.total - held.kept.len() as u64;
        let place = usize::try_from(index.checked_sub(forgotten)?).ok()?;
        held.kept.get(place).cloned()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<Message>> {
        self.fan_out.subscribe()
    }

    pub(crate) async fn wait_for(&self, awaited: u64, within: Duration) -> Result<Vec<Arc<Message>>, SandboxError> {
        let mut total = self.total.subscribe();
        // The sender lives in `self`, so waiting ends only by the condition or the deadline.
        let _ = tokio::time::timeout(within, total.wait_for(|&total| total >= awaited)).await;
        let arrived = self.total();
        if arrived >= awaited { Ok(self.all()) } else { Err(SandboxError::TooFewMessages { awaited, arrived, within }) }
    }

    pub(crate) fn duplicates(&self) -> Vec<Duplicate> {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for message in self.all() {
            for recipient in &message.recipients {
                *counts.entry((message.message_id.clone(), recipient.address.to_ascii_lowercase())).or_default() += 1;
            }
        }
        let repeated = counts.into_iter().filter(|&(_, count)| count > 1);
        repeated.map(|((message_id, recipient), count)| Duplicate { message_id, recipient, count }).collect()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
