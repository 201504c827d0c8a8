//! `[spool]`, `[retry]`, `[bounce]` and `[history]`: what becomes of mail that was taken.

use std::path::PathBuf;

use crate::config::address::OptionalAddress;
use crate::config::place::FilePath;
use crate::config::schema::section;
use crate::config::value::{Count, Period, Size, choice};

const GIB: u64 = 1 << 30;

/// The state directory where there is state and nobody says another.
pub(crate) const USUAL_DIRECTORY: &str = "/var/lib/xoauth2-relay";

section! {
    /// The queue on disk.
    pub struct Spool {
        /// The state directory: made with mode 0700, one daemon at a time, on a local disk. Without it nothing is stored, and counts are kept in memory.
        built directory ? FilePath => None, "`$STATE_DIRECTORY`, else `$XDG_STATE_HOME/xoauth2-relay`, else `/var/lib/xoauth2-relay`; with direct listeners alone and no delegated grant: none";
        /// Most messages in it.
        built max_messages: Count<1, 4_294_967_295> = Count::new(1_000_000);
        /// Most octets in it.
        built max_bytes: Size<{ 1 << 20 }, { 1 << 50 }> = Size::new(20 * GIB);
        /// Free disk space below which nothing is accepted.
        built min_free_bytes: Size<0, { 1 << 50 }> = Size::new(500 << 20);
    }
}

impl Spool {
    /// With the place where it is when nobody says another.
    pub(crate) fn complete(self) -> Self {
        let directory = self.directory.unwrap_or_else(|| PathBuf::from(USUAL_DIRECTORY).into());
        Self { directory: Some(directory), ..self }
    }
}

section! {
    /// When mail that could not go is tried again.
    pub struct Retry {
        /// Waits after the first, second and later failures; the last repeats; spread by a fifth.
        built schedule: Vec<Period<1, 86_400>> = [60, 300, 900, 1800, 3600].map(Period::new).to_vec();
        /// How long a message is tried whose sender may not be sent as (permissions take up to two hours), then bounced.
        built refused_sender_for: Period<0, { 30 * 86_400 }> = Period::new(86_400);
        /// Wait after a reply was lost behind the final dot: Exchange may have the message.
        built uncertain_delay: Period<1, 86_400> = Period::new(3600);
        /// Tries after such an uncertain one; then it is held for the operator.
        built uncertain_resends: Count<0, 10> = Count::new(2);
        /// How long held mail is kept before it is given up; 0: never, only reported.
        built max_hold: Period<0, { 365 * 86_400 }> = Period::new(0);
    }
}

choice! {
    /// How much of the message a bounce returns.
    pub enum BounceContent {
        /// Its header.
        built Headers = "headers",
        /// All of it.
        built Full = "full",
    }
}

section! {
    /// Reports to senders about mail that was not delivered.
    pub struct Bounce {
        /// Takes bounces with no usable sender, digests and alerts; `""`: log, history and alert command only.
        built postmaster: OptionalAddress = OptionalAddress(None);
        /// How much of the message is returned; a client's RET is honoured up to this.
        built content: BounceContent = BounceContent::Headers;
        /// After how long a sender is told that a message is late; 0: never.
        built delay_notice_after: Period<0, { 30 * 86_400 }> = Period::new(4 * 3600);
    }
}

section! {
    /// What was sent.
    pub struct History {
        /// How long it is remembered.
        built keep: Period<86_400, { 3650 * 86_400 }> = Period::new(30 * 86_400);
    }
}
