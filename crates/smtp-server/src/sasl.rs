//! AUTH's exchanges (RFC 4954, RFC 4616 and the LOGIN that every device speaks) as pure state: a response goes in, the next
//! challenge or the credentials come out. Whether they are right is the intake's question.

use std::fmt;

use zeroize::Zeroizing;

/// What a client logs in with, not verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who it says it is: UTF-8 without control characters, not empty.
    pub name: String,
    /// Any octets; wiped when dropped.
    pub password: Zeroizing<Vec<u8>>,
}

/// The name alone.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with a password", self.name)
    }
}
