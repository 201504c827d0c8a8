//! What must hold between keys: names that refer to something, values that go together, and nothing that would make an
//! open relay. Pure; files are `files`' matter.

use std::net::{IpAddr, SocketAddr};

use crate::routing::Routing;

use super::address::MailboxAddress;
use super::place::ListenAddress;
use super::proxy::ProxyUrl;
use super::reading::Reading;
use super::settings::{
    Authentication, DeliveryMode, Encryption, Family, Grant, Listener, Mailbox, MailboxChoice, Names, Route, Settings,
    Tenant,
};

/// Tells everything that does not go together.
pub(crate) fn check(settings: &Settings, names: &Names, reading: &Reading<'_>) {
    let relations = Relations { settings, names, reading };
    relations.check_presence();
    for (name, listener) in &settings.listeners {
        relations.check_listener(name, listener);
    }
    relations.check_addresses();
    relations.check_user_twins();
    for (name, tenant) in &settings.tenants {
        relations.check_tenant(name, tenant);
        relations.check_families(name, tenant);
    }
    for (name, mailbox) in &settings.mailboxes {
        relations.check_mailbox(name, mailbox);
    }
    relations.check_twins();
    relations.check_tenant_twins();
    if settings.retry.schedule.is_empty() {
        reading.relation(&["retry.schedule"], "is empty; give at least one wait");
    }
    for (at, route) in settings.routes.iter().enumerate() {
        relations.check_route(at + 1, route);
        relations.check_route_name(at + 1, route);
    }
}

/// What is no mistake, and perhaps not meant.
pub(crate) fn doubts(settings: &Settings) -> Vec<String> {
    let takes_any = |listener: &&Listener| listener.authentication == Authentication::AcceptAny;
    let mut doubts = Vec::new();
    if settings.listeners.values().any(|listener| takes_any(&listener)) {
        let by_user = settings.routes.iter().filter(|route| route.listeners.is_none());
        for (route, users) in by_user.filter_map(|route| Some((route, route.users.as_ref()?))) {
            for user in users.iter().filter(|user| settings.users.contains_key(user.as_str())) {
                doubts.push(format!(
                    "route {:?} is for user {}, and any client of a listener with authentication = \"accept-any\" can say that \
                     name without a password: name the route's listeners",
                    route.name.as_str(),
                    user.as_str()
                ));
            }
        }
    }
    doubts
}

struct Relations<'a> {
    settings: &'a Settings,
    names: &'a Names,
    reading: &'a Reading<'a>,
}

impl Relations<'_> {
    fn tell(&self, paths: &[&str], text: impl Into<String>) {
        self.reading.relation(paths, text);
    }

    fn check_presence(&self) {
        let Names { tenants, mailboxes, routes, .. } = self.names;
        if tenants.is_empty() {
            self.tell(&["tenant"], "is missing: a [tenant.NAME] with tenant_id, client_id and client_secret is needed");
        }
        if mailboxes.is_empty() {
            self.tell(&["mailbox"], "is missing: a [mailbox.NAME] with address is needed");
        }
        if mailboxes.len() > 1 && *routes == 0 {
            self.tell(
                &["mailbox", "route"],
                "more than one mailbox needs [[route]] to choose between them: one that names them all shares the mail out among them",
            );
        }
    }

    /// Who may connect must be somebody, and not the world.
    fn check_listener(&self, name: &str, listener: &Listener) {
        let path = |key: &str| format!("listener.{name}.{key}");
        let networks = path("networks");
        if listener.networks.is_empty() {
            self.tell(&[&networks], "is empty: no client could ever connect; leave it out for loopback only");
        }
        let identified = listener.authentication == Authentication::Required;
        for network in listener.networks.iter().filter(|network| !network.is_private()) {
            if !identified && !listener.allow_public {
                self.tell(
                    &[&networks, &path("allow_public")],
                    format!(
                        "{network} reaches beyond private ranges, and without required authentication that is an open relay; \
                         name your own networks, or set allow_public = true if all of that network may send as you"
                    ),
                );
            }
        }
        for network in listener.proxy_protocol_from.iter().filter(|network| !network.is_private()) {
            if !listener.allow_public {
                self.tell(
                    &[&path("proxy_protocol_from"), &path("allow_public")],
                    format!("{network} reaches beyond private ranges: anybody there could claim any client's address"),
                );
            }
        }
        self.check_login(name, listener);
        self.check_certificate(name, listener);
        self.check_sizes(name, listener);
        if listener.max_connections_per_client.get() > listener.max_connections.get() {
            self.tell(
                &[&path("max_connections_per_client"), &path("max_connections")],
                format!("is more than max_connections, which is {}", listener.max_connections.get()),
            );
        }
        let (one, all) = (listener.max_messages_per_minute_per_client.get(), listener.max_messages_per_minute.get());
        if one > all && all > 0 {
            self.tell(
                &[&path("max_messages_per_minute_per_client"), &path("max_messages_per_minute")],
                format!("is more than max_messages_per_minute, which is {all}"),
            );
        }
    }

    fn check_login(&self, name: &str, listener: &Listener) {
        let path = |key: &str| format!("listener.{name}.{key}");
        let (authentication, cleartext) = (path("authentication"), path("allow_cleartext_auth"));
        let wants_users = matches!(listener.authentication, Authentication::Optional | Authentication::Required);
        if wants_users && self.names.users.is_empty() {
            self.tell(&[&authentication], "there is no [user.NAME] that could log in");
        }
        let mut reached = listener.networks.iter().chain(&listener.proxy_protocol_from);
        let distant = reached.any(|network| !network.is_loopback());
        let unprotected = listener.authentication != Authentication::None && listener.tls == Encryption::None;
        if unprotected && distant && !listener.allow_cleartext_auth {
            self.tell(
                &[&authentication, &path("tls"), &path("networks"), &cleartext],
                "passwords would cross the network in the clear, so AUTH would not be offered beyond loopback; \
                 set tls, or allow_cleartext_auth = true for devices that cannot do TLS",
            );
        }
    }

    fn check_certificate(&self, name: &str, listener: &Listener) {
        let path = |key: &str| format!("listener.{name}.{key}");
        let tls = path("tls");
        for (key, given) in
            [("certificate", listener.certificate.is_some()), ("private_key", listener.private_key.is_some())]
        {
            let key = path(key);
            if listener.tls == Encryption::None && given {
                self.tell(&[&key, &tls], "is given but tls is \"none\"; set tls or remove it");
            } else if listener.tls != Encryption::None && !given {
                self.tell(&[&key, &tls], "is missing: tls needs certificate and private_key");
            }
        }
    }

    /// A message that a listener takes must have room in the queue.
    fn check_sizes(&self, name: &str, listener: &Listener) {
        if listener.delivery == DeliveryMode::Direct {
            return;
        }
        let advertised = Routing::new(self.settings).largest_message(name, listener);
        let room = self.settings.spool.max_bytes.octets();
        if room < advertised {
            let paths = ["spool.max_bytes".to_owned(), format!("listener.{name}.max_message_size")];
            self.tell(
                &paths.each_ref().map(String::as_str),
                format!("is less than one message of listener {name} may have ({advertised} octets), which then could never be taken"),
            );
        }
    }

    /// No two things listen at one place.
    fn check_addresses(&self) {
        let mut taken: Vec<(String, String, SocketAddr)> = Vec::new();
        let listeners = self.settings.listeners.iter();
        let listeners = listeners.filter_map(|(name, listener)| {
            Some((format!("listener {name}"), format!("listener.{name}.address"), listener.address.socket()?))
        });
        let http = self.settings.http.address.0.map(|address| ("http".to_owned(), "http.address".to_owned(), address));
        let mut handed: Vec<(&str, &str)> = Vec::new();
        for (name, listener) in &self.settings.listeners {
            let ListenAddress::Systemd(socket) = &listener.address else { continue };
            if let Some((other, _)) = handed.iter().find(|(_, taken)| taken == socket) {
                let text = format!("\"systemd:{socket}\" is already taken by listener {other}");
                self.tell(&[&format!("listener.{name}.address")], text);
            }
            handed.push((name, socket));
        }
        // Whatever is a default is told where the other was written.
        let mut all: Vec<_> = listeners.chain(http).collect();
        all.sort_by_key(|(_, path, _)| self.reading.is_given(path));
        for (what, path, address) in all {
            let twin = taken.iter().find(|(_, _, other)| overlap(*other, address));
            if let Some((other, other_path, other_address)) = twin {
                let text = if *other_address == address {
                    format!("{address} is already taken by {other}")
                } else {
                    format!("{address} overlaps {other_address}, which is taken by {other}")
                };
                self.tell(&[&path, other_path], text);
            }
            taken.push((what, path, address));
        }
    }

    fn check_tenant(&self, name: &str, tenant: &Tenant) {
        let path = |key: &str| format!("tenant.{name}.{key}");
        let table = format!("tenant.{name}");
        let delegated = tenant.grant == Grant::Delegated;
        let all = ["client_secret", "certificate_credential", "federated_token", "managed_identity"].map(path);
        match tenant.credentials().as_slice() {
            [] if !delegated => {
                let paths: Vec<_> = std::iter::once(table.as_str()).chain(all.iter().map(String::as_str)).collect();
                self.tell(
                    &paths,
                    "has no credential; write client_secret = { file = \"...\" } with the file that holds the secret's Value",
                );
            }
            [first, others @ ..] => {
                for other in others {
                    self.tell(&[&path(other)], format!("is a second credential beside {first}; keep exactly one"));
                }
            }
            [] => {}
        }
        for key in ["federated_token", "managed_identity"] {
            if delegated && tenant.credentials().contains(&key) {
                self.tell(
                    &[&path(key), &path("grant")],
                    "cannot be used with a delegated grant, which takes a client_secret, a certificate_credential or none",
                );
            }
        }
        if tenant.tenant_id.is_consumers() && !delegated {
            self.tell(
                &[&path("tenant_id"), &path("grant")],
                "\"consumers\" cannot be used with an application's own login; write the tenant's GUID or a verified domain, or set grant = \"delegated\"",
            );
        }
        if delegated && !tenant.scope.as_str().split(' ').any(|scope| scope == "offline_access") {
            self.tell(
                &[&path("scope"), &path("grant")],
                "holds no offline_access, without which there is no refresh token and somebody would have to sign in every hour",
            );
        }
        if tenant.client_secret_expires.is_some() && tenant.client_secret.is_none() {
            self.tell(
                &[&path("client_secret_expires"), &path("client_secret")],
                "is given but there is no client_secret; a certificate's own date is read",
            );
        }
    }

    /// One connection has addresses of one family.
    fn check_families(&self, name: &str, tenant: &Tenant) {
        let path = |key: &str| format!("tenant.{name}.{key}");
        let (family, source, proxy) = (path("address_family"), path("source_address"), path("smtp_proxy"));
        let kind = |address: IpAddr| if address.is_ipv4() { "an IPv4 address" } else { "an IPv6 address" };
        let allowed = |address: IpAddr| match tenant.address_family {
            Family::Any => true,
            Family::Ipv4 => address.is_ipv4(),
            Family::Ipv6 => address.is_ipv6(),
        };
        let proxy_ip = tenant.smtp_proxy.as_ref().and_then(ProxyUrl::ip);
        for (key, address) in [(&source, tenant.source_address), (&proxy, proxy_ip)] {
            let Some(address) = address.filter(|address| !allowed(*address)) else { continue };
            let text =
                format!("{address} is {}, which address_family does not allow; change one of them", kind(address));
            self.tell(&[key, &family], text);
        }
        let (Some(from), Some(to)) = (tenant.source_address, proxy_ip) else { return };
        if from.is_ipv4() != to.is_ipv4() {
            let text = format!("{from} is {}, and smtp_proxy has {}; change one of them", kind(from), kind(to));
            self.tell(&[&source, &proxy], text);
        }
    }

    fn check_mailbox(&self, name: &str, mailbox: &Mailbox) {
        let path = |key: &str| format!("mailbox.{name}.{key}");
        let tenant = path("tenant");
        match &mailbox.tenant {
            Some(named) if !self.names.tenants.iter().any(|tenant| tenant == named.as_str()) => {
                let there = self.names.tenants.join(", ");
                self.tell(&[&tenant], format!("there is no [tenant.{}]; there is {there}", named.as_str()));
            }
            None if self.names.tenants.len() > 1 => {
                self.tell(&[&tenant], "is missing; it may be left out only when there is one tenant");
            }
            _ => {}
        }
        if let MailboxAddress::Wildcard(domain) = &mailbox.address {
            for (key, given) in [
                ("login", mailbox.login.is_some()),
                ("from", mailbox.from.is_some()),
                ("may_send_as", !mailbox.may_send_as.is_empty()),
            ] {
                if given {
                    self.tell(
                        &[&path(key), &path("address")],
                        format!("is given but every sender of {domain} logs in and sends as itself; remove it"),
                    );
                }
            }
            if self.is_delegated(mailbox) {
                self.tell(
                    &[&path("address"), &tenant],
                    "is in a tenant with grant = \"delegated\", where each user would have to sign in for a mailbox of its own; \
                     write those mailboxes one by one, or use an application's own login",
                );
            }
            let someone = self.settings.users.values().any(|user| !user.allowed_senders.is_empty());
            if mailbox.wildcard_needs_user && !someone {
                self.tell(
                    &[&path("address"), &path("wildcard_needs_user"), "user"],
                    "serves only logged-in users with allowed_senders, and there is none; write one, or set \
                     wildcard_needs_user = false to let any listed client pick any sender",
                );
            }
        }
        let modes = self.settings.listeners.values().map(|listener| listener.delivery);
        let (direct, queue): (Vec<_>, Vec<_>) = modes.partition(|mode| *mode == DeliveryMode::Direct);
        if !direct.is_empty() && !queue.is_empty() && mailbox.connections.get() < 2 {
            self.tell(
                &[&path("connections")],
                "is 1, but with direct and queue listeners each needs one of its own; set at least 2",
            );
        }
    }

    /// Clients write names in capitals or not.
    fn check_user_twins(&self) {
        let users = &self.names.users;
        for (at, name) in users.iter().enumerate() {
            if let Some(other) = users[..at].iter().find(|other| other.eq_ignore_ascii_case(name)) {
                let text = format!("is the same name as [user.{other:?}], since capitals do not count; keep one");
                self.tell(&[&format!("user.{name}")], text);
            }
        }
    }

    /// Mailboxes that share a road upstream, or a wildcard, must agree.
    fn check_twins(&self) {
        let mailboxes: Vec<_> = self.settings.mailboxes.iter().collect();
        for (at, (name, mailbox)) in mailboxes.iter().enumerate() {
            for (other_name, other) in &mailboxes[..at] {
                let path = |key: &str| format!("mailbox.{name}.{key}");
                let wildcards = matches!(mailbox.address, MailboxAddress::Wildcard(_));
                if wildcards && mailbox.address == other.address {
                    self.tell(&[&path("address")], format!("is already that of mailbox {other_name}"));
                }
                let logins = (self.lane(mailbox), self.lane(other));
                if logins.0.is_none() || logins.0 != logins.1 {
                    continue;
                }
                if mailbox.tenant != other.tenant && (self.is_delegated(mailbox) || self.is_delegated(other)) {
                    let text = format!(
                        "has the login of mailbox {other_name} in the same Entra tenant, but another [tenant]: users sign in to one application for a login; give both the same"
                    );
                    self.tell(&[&path("tenant")], text);
                }
                for (key, same) in [
                    ("connections", mailbox.connections == other.connections),
                    ("messages_per_minute", mailbox.messages_per_minute == other.messages_per_minute),
                    ("recipients_per_day", mailbox.recipients_per_day == other.recipients_per_day),
                ] {
                    if !same {
                        let text = format!(
                            "differs from that of mailbox {other_name}, which has the same login and shares its limits"
                        );
                        self.tell(&[&path(key)], text);
                    }
                }
            }
        }
    }

    /// Applications of one Entra tenant share its limit.
    fn check_tenant_twins(&self) {
        let tenants: Vec<_> = self.settings.tenants.iter().collect();
        for (at, (name, tenant)) in tenants.iter().enumerate() {
            let same = |other: &&(&String, &Tenant)| {
                other.1.tenant_id.as_str().eq_ignore_ascii_case(tenant.tenant_id.as_str())
                    && other.1.external_recipients_per_day != tenant.external_recipients_per_day
            };
            if let Some((other, _)) = tenants[..at].iter().find(same) {
                let text =
                    format!("differs from that of tenant {other}, which is the same Entra tenant and shares the limit");
                self.tell(&[&format!("tenant.{name}.external_recipients_per_day")], text);
            }
        }
    }

    /// Whether users sign in for it.
    fn is_delegated(&self, mailbox: &Mailbox) -> bool {
        self.settings.tenant_of(mailbox).is_some_and(|(_, tenant)| tenant.grant == Grant::Delegated)
    }

    /// What Exchange counts by: directory and login.
    fn lane(&self, mailbox: &Mailbox) -> Option<(String, String)> {
        let (_, tenant) = self.settings.tenant_of(mailbox)?;
        let login = mailbox.login.as_ref()?.to_string();
        Some((tenant.tenant_id.as_str().to_owned(), login.to_ascii_lowercase()))
    }

    fn check_route(&self, at: usize, route: &Route) {
        let path = |key: &str| format!("route.{at}.{key}");
        for name in route.listeners.iter().flatten() {
            self.check_name(&path("listeners"), "listener", name.as_str(), &self.names.listeners);
        }
        // Where any name is taken, routes may tell names apart that are no users.
        let takes_any = self.settings.listeners.values().any(|it| it.authentication == Authentication::AcceptAny);
        for name in route.users.iter().flatten().filter(|_| !takes_any) {
            self.check_name(&path("users"), "user", name.as_str(), &self.names.users);
        }
        for (key, empty) in [
            ("listeners", route.listeners.as_ref().is_some_and(Vec::is_empty)),
            ("networks", route.networks.as_ref().is_some_and(Vec::is_empty)),
            ("users", route.users.as_ref().is_some_and(Vec::is_empty)),
            ("senders", route.senders.as_ref().is_some_and(Vec::is_empty)),
            ("recipients", route.recipients.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if empty {
                self.tell(&[&path(key)], "is empty, so that nothing can match; leave it out to match all");
            }
        }
        self.check_route_mailboxes(at, route);
    }

    /// Mail in the queue knows its route by name.
    fn check_route_name(&self, at: usize, route: &Route) {
        let before = self.settings.routes.iter().take(at - 1);
        if before.clone().any(|other| other.name.as_str() == route.name.as_str()) {
            self.tell(&[&format!("route.{at}.name")], "is the name of another route already");
        }
        let takes_all = |route: &Route| {
            route.listeners.is_none()
                && route.networks.is_none()
                && route.users.is_none()
                && route.senders.is_none()
                && route.recipients.is_none()
        };
        if let Some(other) = before.clone().find(|other| takes_all(other)) {
            let text = format!("can never match: route {:?} before it takes everything", other.name.as_str());
            self.tell(&[&format!("route.{at}.name")], text);
        }
    }

    fn check_route_mailboxes(&self, at: usize, route: &Route) {
        let path = |key: &str| format!("route.{at}.{key}");
        let (mailbox, fallback) = (path("mailbox"), path("fallback"));
        let by_sender = route.mailbox.contains(&MailboxChoice::Sender);
        let wildcards = || {
            let mailboxes = self.settings.mailboxes.values();
            mailboxes.filter(|mailbox| matches!(mailbox.address, MailboxAddress::Wildcard(_)))
        };
        if route.mailbox.is_empty() {
            self.tell(&[&mailbox], "is empty; name at least one mailbox");
        }
        if by_sender && route.mailbox.len() > 1 {
            self.tell(&[&mailbox], "\"{sender}\" stands alone; for senders without a mailbox there is fallback");
        }
        if by_sender && self.names.mailboxes.len() == self.settings.mailboxes.len() && wildcards().next().is_none() {
            self.tell(&[&mailbox], "\"{sender}\" needs a mailbox with an address such as \"*@contoso.com\"");
        }
        let mut tenants = Vec::new();
        for choice in &route.mailbox {
            let MailboxChoice::Named(name) = choice else { continue };
            let Some(named) = self.find_mailbox(&mailbox, name.as_str()) else { continue };
            tenants.extend(named.tenant.clone());
        }
        if tenants.windows(2).any(|pair| pair[0] != pair[1]) {
            self.tell(&[&mailbox], "names mailboxes of several tenants; a message is sent within one tenant");
        }
        let Some(name) = &route.fallback else { return };
        if !by_sender {
            self.tell(&[&fallback, &mailbox], "is given but mailbox is not [\"{sender}\"]");
        }
        let Some(named) = self.find_mailbox(&fallback, name.as_str()) else { return };
        if by_sender && wildcards().next().is_some() && wildcards().all(|wildcard| wildcard.tenant != named.tenant) {
            self.tell(&[&fallback], "is in another tenant than the mailboxes it stands in for");
        }
    }

    /// One mailbox by name, told if it is none.
    fn find_mailbox(&self, path: &str, name: &str) -> Option<&Mailbox> {
        self.check_name(path, "mailbox", name, &self.names.mailboxes);
        let mailbox = self.settings.mailboxes.get(name)?;
        if matches!(mailbox.address, MailboxAddress::Wildcard(_)) {
            self.tell(&[path], format!("{name:?} is a mailbox for any sender; it is chosen by \"{{sender}}\""));
            return None;
        }
        Some(mailbox)
    }

    fn check_name(&self, path: &str, section: &str, name: &str, known: &[String]) {
        if known.iter().any(|known| known == name) {
            return;
        }
        let there = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        self.tell(&[path], format!("there is no [{section}.{name}]; there is {there}"));
    }
}

/// Whether two sockets cannot both be bound: the same port, and one of them takes all addresses of the family.
pub(crate) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_family = one.is_ipv4() == other.is_ipv4();
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || same_family && everywhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_overlap_when_one_takes_all() {
        for (one, other, expected) in [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "127.0.0.1:26", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:25", "10.0.0.1:25", true),
            ("[::]:25", "[::1]:25", true),
            ("[::]:25", "0.0.0.0:25", false),
            ("10.0.0.1:25", "10.0.0.2:25", false),
        ] {
            assert_eq!(overlap(one.parse().unwrap(), other.parse().unwrap()), expected, "{one} {other}");
            assert_eq!(overlap(other.parse().unwrap(), one.parse().unwrap()), expected, "{other} {one}");
        }
    }
}
