//! `[listener.NAME]` and `[user.NAME]`: who may submit.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value as Json;

use crate::config::address::AddressPattern;
use crate::config::network::Network;
use crate::config::place::{FilePath, ListenAddress};
#[cfg(test)]
use crate::config::sample::Chance;
use crate::config::schema::section;
use crate::config::value::{Count, Scalar, Size, Wrong, choice};

choice! {
    /// What a client must say of itself.
    pub enum Authentication {
        /// AUTH is not offered.
        built None = "none",
        /// A client may log in.
        built Optional = "optional",
        /// A client must log in.
        built Required = "required",
        /// Any name and password is taken from the listed networks, for devices that insist on logging in: the name is used for routing only, the password never kept.
        built AcceptAny = "accept-any",
    }
}

impl Authentication {
    /// As a session asks for it: whose password is right is no question of its.
    pub(crate) fn of_session(self) -> smtp_server::session::Authentication {
        match self {
            Self::None => smtp_server::session::Authentication::None,
            Self::Optional | Self::AcceptAny => smtp_server::session::Authentication::Optional,
            Self::Required => smtp_server::session::Authentication::Required,
        }
    }
}

choice! {
    /// Whether sessions are encrypted.
    pub enum Encryption {
        /// Never.
        built None = "none",
        /// When the client asks for it.
        built StartTls = "starttls",
        /// Always, asked for by STARTTLS.
        built RequireStartTls = "require-starttls",
        /// Always, from the first octet.
        built Implicit = "implicit",
    }
}

choice! {
    /// What the answer to a message means.
    pub enum DeliveryMode {
        /// 250 says that the message is stored safely and will be sent.
        built Queue = "queue",
        /// The answer is Exchange's own and nothing is stored.
        later Direct = "direct",
    }
}

choice! {
    /// How closely clients must keep to the standard.
    pub enum Dialect {
        /// What old devices say is understood where the meaning is clear.
        built Lenient = "lenient",
        /// RFC 5321 to the letter.
        built Strict = "strict",
    }
}

impl Dialect {
    /// As the parsers of commands know it.
    pub(crate) fn of_wire(self) -> wire::Dialect {
        match self {
            Self::Lenient => wire::Dialect::Lenient,
            Self::Strict => wire::Dialect::Strict,
        }
    }
}

choice! {
    /// What the Received line tells the world about the client.
    pub enum ReceivedDetail {
        /// Its name and address.
        built Full = "full",
        /// Neither.
        built Minimal = "minimal",
    }
}

section! {
    /// Where mail is taken, and from whom. With none written there is one, `local`, with these defaults.
    /// A client must be in one of the `networks` AND satisfy `authentication`.
    pub struct Listener {
        /// Where it listens: an address with a port, or `systemd:NAME` for a socket handed over by systemd. `[::]` takes IPv6 only; IPv4 beside it is a listener of its own on `0.0.0.0`.
        built address: ListenAddress = ListenAddress::Socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 2525)));
        /// Who may connect.
        built networks: Vec<Network> = Network::loopback();
        /// What a client must say of itself.
        built authentication: Authentication = Authentication::None;
        /// Allows AUTH without TLS from beyond loopback, where passwords can be read on the way.
        built allow_cleartext_auth: bool = false;
        /// Allows networks wider than private ranges without authentication, which is refused otherwise: anybody in them can send as you.
        built allow_public: bool = false;
        /// Whether sessions are encrypted.
        built tls: Encryption = Encryption::None;
        /// The certificate chain in PEM, with `tls` other than none; taken up anew when the file changes.
        built certificate ? FilePath;
        /// Its private key in PEM, in a file that others cannot read; taken up anew when the file changes.
        built private_key ? FilePath;
        /// Load balancers whose PROXY v1 or v2 header is required and believed; everybody else is refused one.
        built proxy_protocol_from: Vec<Network> = Vec::new();
        /// What the answer to a message means.
        built delivery: DeliveryMode = DeliveryMode::Queue;
        /// Largest message. The smaller of this and what the mailboxes take is advertised. Exchange's own default is 35 MiB.
        built max_message_size: Size<{ 1 << 10 }, { 1 << 30 }> = Size::new(35 << 20);
        /// Most recipients of a message.
        built max_recipients: Count<1, 50_000> = Count::new(500);
        /// How closely clients must keep to the standard.
        built dialect: Dialect = Dialect::Lenient;
        /// Lets a client that has sent nothing but bare LF end its message with LF.LF.
        built lf_only_clients: bool = false;
        /// What the Received line tells the world about the client.
        built received: ReceivedDetail = ReceivedDetail::Full;
        /// Most sessions at a time.
        built max_connections: Count<1, 1_000_000> = Count::new(1000);
        /// Most sessions at a time from one address.
        built max_connections_per_client: Count<1, 1_000_000> = Count::new(50);
        /// Most messages in any minute from one address; 0: no limit.
        later max_messages_per_minute_per_client: Count<0, 1_000_000> = Count::new(0);
    }
}

/// A PHC string of Argon2id.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// How it was made, without salt and hash.
    fn shown(&self) -> String {
        let mut fields = self.0.rsplitn(3, '$').skip(2);
        format!("{}$hidden$hidden", fields.next().unwrap_or_default())
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Scalar for PasswordHash {
    fn allowed() -> String {
        "an Argon2id hash \"$argon2id$...\", as xoauth2-relay hash-password prints it".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let mut fields = text.split('$');
        let head = (fields.next(), fields.next()) == (Some(""), Some("argon2id"));
        let fields: Vec<_> = fields.collect();
        let filled = |octet: u8| octet.is_ascii_alphanumeric() || b"+/=,.-".contains(&octet);
        // Version, parameters, salt and hash.
        let right =
            head && fields.len() == 4 && fields.iter().all(|field| !field.is_empty() && field.bytes().all(filled));
        // It may be the password itself.
        right.then(|| Self(text.to_owned())).ok_or(Wrong::Unrepeatable)
    }

    fn json(&self) -> Json {
        Json::String(self.shown())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ${:08x}", chance.below(1 << 32)))
    }
}

section! {
    /// A name and password that a client may log in with. The name may be an address; such a one the environment cannot reach.
    pub struct User {
        /// What `xoauth2-relay hash-password` printed.
        built password_hash: PasswordHash;
        /// Who it may send as, by envelope and From both; empty: whatever the route allows.
        built allowed_senders: Vec<AddressPattern> = Vec::new();
    }
}
