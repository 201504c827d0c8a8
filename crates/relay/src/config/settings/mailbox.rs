//! `[mailbox.NAME]`: who mail leaves as.

use crate::config::address::{AddressPattern, MailboxAddress};
use crate::config::place::Name;
use crate::config::schema::section;
use crate::config::value::{Count, Size};

section! {
    /// A mailbox that sends: one road upstream, counted by its login over all tenants of the same `tenant_id`.
    pub struct Mailbox {
        /// The tenant that it is in, by name.
        built tenant ? Name => None, "the only tenant";
        /// Its address; or `*@contoso.com`: the message's own sender is the mailbox.
        built address: MailboxAddress;
        /// The XOAUTH2 user, when it is not `address`.
        built login ? mail::Mailbox => address.one().cloned(), "`address`";
        /// What a rewritten From becomes when it is not `address`: an alias, a SendAs address.
        built from ? mail::Mailbox => address.one().cloned(), "`address`";
        /// What this login may use as From beside its own address: aliases, SendAs.
        built may_send_as: Vec<AddressPattern> = Vec::new();
        /// Connections at a time. Exchange allows 3.
        built connections: Count<1, 1000> = Count::new(3);
        /// Messages in any minute. Exchange allows 30.
        built messages_per_minute: Count<1, 1_000_000_000> = Count::new(30);
        /// Recipients in any 24 hours. Exchange allows 10,000.
        built recipients_per_day: Count<1, 1_000_000_000> = Count::new(10_000);
        /// Recipients of one message; a message with more is sent in parts. Exchange's default is 500, at most 1000.
        built recipients_per_message: Count<1, 1000> = Count::new(500);
        /// The mailbox's `MaxSendSize`. Exchange's default is 35 MiB, at most 150 MiB.
        built max_message_size: Size<{ 1 << 10 }, { 150 << 20 }> = Size::new(35 << 20);
        /// For `*@` mailboxes: serve only logged-in users with `allowed_senders`, as mailboxes of that domain with a section of their own where `{sender}` chooses them; false: any listed client may pick any sender.
        built wildcard_needs_user: bool = true;
    }
}
