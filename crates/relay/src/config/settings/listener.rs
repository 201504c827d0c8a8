//! `[listener.NAME]` and `[user.NAME]`: who may submit.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use argon2::password_hash::phc;
use argon2::{Params, Version};
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
        built Direct = "direct",
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
        /// Most messages in any minute from all clients together; those beyond are asked to come back (`450 4.7.1`). 0: no limit.
        built max_messages_per_minute: Count<0, 1_000_000> = Count::new(0);
        /// Most messages in any minute from one address; 0: no limit.
        built max_messages_per_minute_per_client: Count<0, 1_000_000> = Count::new(0);
    }
}

/// A PHC string of Argon2id version 19 that can be verified at a bearable cost.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(phc::PasswordHash);

/// What a verification may cost: memory in KiB, passes, threads.
const COSTS: [(&str, RangeInclusive<u32>); 3] = [("m", 8 << 10..=1 << 20), ("t", 1..=16), ("p", 1..=16)];
/// Octets of the salt.
const SALT: RangeInclusive<usize> = 8..=48;
/// Octets of the hash itself.
const OUTPUT: RangeInclusive<usize> = 16..=64;

impl PasswordHash {
    /// What a password is verified against.
    pub(crate) fn phc(&self) -> &phc::PasswordHash {
        &self.0
    }

    /// How it was made, without salt and hash.
    fn shown(&self) -> String {
        format!("$argon2id$v=19${}$hidden$hidden", self.0.params)
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
        // It may be the password itself, so nothing of it is repeated.
        let hash = phc::PasswordHash::new(text).map_err(|_| Wrong::Unrepeatable)?;
        if hash.algorithm.as_str() != "argon2id" || hash.version != Some(Version::V0x13.into()) {
            return Err(Wrong::Unrepeatable);
        }
        for (name, bounds) in COSTS {
            let cost = hash.params.get_decimal(name).ok_or(Wrong::Unrepeatable)?;
            if !bounds.contains(&cost) {
                let (low, high) = bounds.into_inner();
                return Err(Wrong::Because(format!(
                    "its parameter {name} is not from {low} to {high}; make another with xoauth2-relay hash-password"
                )));
            }
        }
        let salt = hash.salt.as_ref().is_some_and(|salt| SALT.contains(&salt.len()));
        let output = hash.hash.as_ref().is_some_and(|output| OUTPUT.contains(&output.len()));
        let verifiable = hash.params.iter().count() == COSTS.len() && Params::try_from(&hash).is_ok();
        if salt && output && verifiable { Ok(Self(hash)) } else { Err(Wrong::Unrepeatable) }
    }

    fn json(&self) -> Json {
        Json::String(self.shown())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ${:024x}", chance.below(1 << 32)))
    }
}

section! {
    /// A name and password that a client may log in with. The name may be an address; such a one the environment cannot reach.
    /// Clients may write it in capitals or not.
    pub struct User {
        /// What `xoauth2-relay hash-password` printed. One made elsewhere should cost no less than that (`m=19456,t=2,p=1`); taken are `m` (KiB) from 8192 to 1048576, `t` and `p` from 1 to 16.
        built password_hash: PasswordHash;
        /// Who it may send as, by envelope and From both; empty: whatever the route allows; as the client writes them, before `[rewrite]`.
        built allowed_senders: Vec<AddressPattern> = Vec::new();
        /// Most messages in any minute that it sends, whatever listeners and addresses it comes by; 0: no limit. Not where `authentication` is accept-any: there nobody has proved to be this user.
        built max_messages_per_minute: Count<0, 1_000_000> = Count::new(0);
    }
}

#[cfg(test)]
impl User {
    /// One whose password costs next to nothing to verify, which no configuration would be allowed.
    pub(crate) fn cheap(password: &str, passes: u32, allowed_senders: &[&str]) -> Self {
        use argon2::{Algorithm, Argon2, PasswordHasher};

        let costs = Params::new(8, passes, 1, None).unwrap();
        let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, costs).hash_password(password.as_bytes()).unwrap();
        let allowed_senders = allowed_senders.iter().map(|text| AddressPattern::parse(text).unwrap()).collect();
        Self { password_hash: PasswordHash(hash), allowed_senders, max_messages_per_minute: Count::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "c2FsdHNhbHQ";
    const OUTPUT: &str = "aGFzaGhhc2hoYXNoaGFzaA";

    #[test]
    fn hashes_that_argon2_verifies_are_taken_and_shown_without_salt_and_hash() {
        for params in ["m=19456,t=2,p=1", "m=8192,t=1,p=1", "m=1048576,t=16,p=16"] {
            let text = format!("$argon2id$v=19${params}${SALT}${OUTPUT}");
            let hash = PasswordHash::parse(&text).unwrap();
            assert_eq!(hash.phc().to_string(), text);
            assert_eq!(format!("{hash:?}"), format!("$argon2id$v=19${params}$hidden$hidden"));
        }
    }

    #[test]
    fn hashes_that_cost_too_much_or_too_little_are_refused_with_the_parameter() {
        for (params, name) in [
            ("m=8191,t=2,p=1", "m"),
            ("m=1048577,t=2,p=1", "m"),
            ("m=4294967295,t=2,p=1", "m"),
            ("m=19456,t=0,p=1", "t"),
            ("m=19456,t=17,p=1", "t"),
            ("m=19456,t=2,p=0", "p"),
            ("m=19456,t=2,p=17", "p"),
        ] {
            let wrong = PasswordHash::parse(&format!("$argon2id$v=19${params}${SALT}${OUTPUT}")).unwrap_err();
            let told = wrong.tell::<PasswordHash>("");
            assert!(told.starts_with(&format!("its parameter {name} is not from")), "{params}: {told}");
        }
    }

    #[test]
    fn what_is_no_such_hash_is_refused_and_not_repeated() {
        let costs = "m=19456,t=2,p=1";
        for text in [
            "hunter2".to_owned(),
            String::new(),
            "$argon2id$hunter2".to_owned(),
            format!("$argon2i$v=19${costs}${SALT}${OUTPUT}"),
            format!("$argon2d$v=19${costs}${SALT}${OUTPUT}"),
            format!("$argon2id$v=16${costs}${SALT}${OUTPUT}"),
            format!("$argon2id${costs}${SALT}${OUTPUT}"),
            format!("$argon2id$v=19${SALT}${OUTPUT}"),
            format!("$argon2id$v=19$m=19456,t=2${SALT}${OUTPUT}"),
            format!("$argon2id$v=19${costs},data=c2FsdA${SALT}${OUTPUT}"),
            format!("$argon2id$v=19${costs},m=19456${SALT}${OUTPUT}"),
            format!("$argon2id$v=19${costs}$c2FsdA${OUTPUT}"),
            format!("$argon2id$v=19${costs}${SALT}"),
            format!("$argon2id$v=19${costs}${SALT}$aGFzaGhhc2hoYXM"),
            format!("$argon2id$v=19${costs}${SALT}${OUTPUT}$hunter2"),
            format!("$argon2id$v=19${costs}${SALT}$not/base64!"),
            " ".repeat(1 << 16),
            "$".repeat(1 << 16),
            "$2y$10$abcdefghijklmnopqrstuv".to_owned(),
        ] {
            assert_eq!(PasswordHash::parse(&text), Err(Wrong::Unrepeatable), "{text}");
        }
    }
}
