//! What a listener of the configuration says and asks, as sessions and intakes are told. Not here: where it listens, and how
//! many it serves.

use std::sync::Arc;

use smtp_server::session::{Profile, Tls};

use super::door::ListenerPolicy;
use super::login::Logins;
use super::pace::MessageLimits;
use crate::config::{Authentication, Listener, Settings};
use crate::container::Gateways;
use crate::users::Users;

/// What sessions of `listener` say; messages of more than `largest` octets they refuse.
pub(crate) fn profile(hostname: &str, listener: &Listener, largest: u64, tls: Tls) -> Profile {
    Profile {
        hostname: hostname.to_owned(),
        max_message_size: largest,
        max_recipients: listener.max_recipients.size(),
        dialect: listener.dialect.of_wire(),
        lf_only_clients: listener.lf_only_clients,
        authentication: listener.authentication.of_session(),
        cleartext_auth: listener.allow_cleartext_auth,
        tls,
    }
}

/// What `listener` asks of its clients.
pub(crate) fn policy(
    settings: &Settings,
    listener: &Listener,
    users: &Arc<Users>,
    gateways: Gateways,
) -> ListenerPolicy {
    ListenerPolicy {
        networks: listener.networks.clone(),
        proxies: listener.proxy_protocol_from.clone(),
        gateways,
        limits: MessageLimits::new(settings, listener),
        dialect: listener.dialect.of_wire(),
        received: listener.received,
        logins: match listener.authentication {
            Authentication::AcceptAny => Logins::Anybody,
            _ => Logins::Users(Arc::clone(users)),
        },
        needs_login: listener.authentication == Authentication::Required,
        delivery: listener.delivery,
    }
}
