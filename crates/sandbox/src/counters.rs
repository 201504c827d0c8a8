//! What the sandbox counted since it started, and the last of what it refused. Messages are in `mailstore`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::AuthRefusal;

/// A snapshot of [`Sandbox::counters`](crate::Sandbox::counters).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// SMTP connections open now.
    pub connections: u64,
    /// Most that were open at the same time.
    pub connections_peak: u64,
    /// All that were ever taken.
    pub connections_total: u64,
    /// Requests to the token path, good and bad.
    pub token_requests: u64,
    /// Of these, those with `client_credentials`.
    pub client_credentials_requests: u64,
    /// Those with `authorization_code`.
    pub authorization_code_requests: u64,
    /// Those with `refresh_token`.
    pub refresh_token_requests: u64,
    /// Those with a device code: how often devices polled.
    pub device_code_requests: u64,
    /// Requests to the metadata service.
    pub imds_requests: u64,
    /// Tokens issued over HTTPS.
    pub tokens_issued: u64,
    /// AUTH commands answered with 235.
    pub auth_successes: u64,
    /// AUTH commands refused after credentials were given.
    pub auth_failures: u64,
    /// Messages kept.
    pub messages: u64,
    /// Messages refused with `SendAsDenied`.
    pub send_as_denials: u64,
    /// DATA transfers cut off before the final dot.
    pub cut_transfers: u64,
}

/// Denials that are kept; the oldest are forgotten.
const DENIALS: usize = 1_000;

/// A message that was refused with `SendAsDenied`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendAsDenial {
    /// The mailbox that was logged in.
    pub login: String,
    /// The address, of From or the reverse-path, that it may not send as.
    pub from: String,
    /// The Message-ID with brackets, if the message had one.
    pub message_id: Option<String>,
}

/// The live counts.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    connections: AtomicU64,
    connections_peak: AtomicU64,
    connections_total: AtomicU64,
    pub(crate) token_requests: AtomicU64,
    pub(crate) client_credentials: AtomicU64,
    pub(crate) authorization_codes: AtomicU64,
    pub(crate) refreshes: AtomicU64,
    pub(crate) device_polls: AtomicU64,
    pub(crate) imds_requests: AtomicU64,
    pub(crate) tokens_issued: AtomicU64,
    auth_successes: AtomicU64,
    auth_failures: AtomicU64,
    pub(crate) cut_transfers: AtomicU64,
    last_refusal: Mutex<Option<AuthRefusal>>,
    send_as_denials: AtomicU64,
    denials: Mutex<VecDeque<SendAsDenial>>,
}

impl Tally {
    /// A connection was taken: its ordinal, from 1, and how many are open with it.
    pub(crate) fn open(&self) -> (u64, u64) {
        let open = self.connections.fetch_add(1, Relaxed) + 1;
        self.connections_peak.fetch_max(open, Relaxed);
        (self.connections_total.fetch_add(1, Relaxed) + 1, open)
    }

    pub(crate) fn close(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    pub(crate) fn authenticated(&self) {
        self.auth_successes.fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self, why: AuthRefusal) {
        self.auth_failures.fetch_add(1, Relaxed);
        *self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    pub(crate) fn last_refusal(&self) -> Option<AuthRefusal> {
        *self.last_refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn denied(&self, denial: SendAsDenial) {
        count(&self.send_as_denials);
        let mut denials = self.denials.lock().unwrap_or_else(PoisonError::into_inner);
        if denials.len() == DENIALS {
            denials.pop_front();
        }
        denials.push_back(denial);
    }

    pub(crate) fn denials(&self) -> Vec<SendAsDenial> {
        self.denials.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(crate) fn snapshot(&self, messages: u64) -> Counters {
        Counters {
            connections: self.connections.load(Relaxed),
            connections_peak: self.connections_peak.load(Relaxed),
            connections_total: self.connections_total.load(Relaxed),
            token_requests: self.token_requests.load(Relaxed),
            client_credentials_requests: self.client_credentials.load(Relaxed),
            authorization_code_requests: self.authorization_codes.load(Relaxed),
            refresh_token_requests: self.refreshes.load(Relaxed),
            device_code_requests: self.device_polls.load(Relaxed),
            imds_requests: self.imds_requests.load(Relaxed),
            tokens_issued: self.tokens_issued.load(Relaxed),
            auth_successes: self.auth_successes.load(Relaxed),
            auth_failures: self.auth_failures.load(Relaxed),
            messages,
            send_as_denials: self.send_as_denials.load(Relaxed),
            cut_transfers: self.cut_transfers.load(Relaxed),
        }
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
