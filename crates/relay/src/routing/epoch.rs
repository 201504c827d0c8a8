//! Which reading of the routes a delivery was given its lanes by. The same configuration has the same epoch in every run,
//! so that a restart looks through the queue only if something changed.

use aws_lc_rs::digest;
use serde_json::json;

use crate::config::Settings;

/// What the choice of mailboxes and senders depends on, as a number; never 0, which is the epoch of mail from before.
pub(super) fn of(settings: &Settings) -> u64 {
    let routing = ["tenant_id", "tenant", "address", "login", "from", "may_send_as", "wildcard_needs_user"];
    let telling: Vec<_> = settings
        .entries()
        .into_iter()
        .filter(|entry| ["tenant", "mailbox", "route", "rewrite"].contains(&entry.section))
        .map(|entry| {
            let is_whole = matches!(entry.section, "route" | "rewrite");
            let keys = entry.keys.into_iter().filter(|(key, _)| is_whole || routing.contains(&key.name));
            let keys: Vec<_> = keys.map(|(key, value)| json!([key.name, value])).collect();
            json!([entry.section, entry.name, keys])
        })
        .collect();
    let digest = digest::digest(&digest::SHA256, json!(telling).to_string().as_bytes());
    let mut octets = [0; 8];
    octets.copy_from_slice(&digest.as_ref()[..8]);
    u64::from_be_bytes(octets).max(1)
}
