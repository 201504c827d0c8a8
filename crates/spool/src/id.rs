//! Identifiers of what is stored.

use std::fmt;
use std::str::FromStr;

/// Names a message for its whole life, in the reply to the client, in the Received field, in logs and history:
/// the number of the daemon's start (boot) and of the message within it. Orders by acceptance; never used twice in a
/// spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    boot: u32,
    sequence: u32,
}

impl QueueId {
    /// The `sequence`th message of boot `boot`. Boots are below 2^31, so that the id fits SQLite's signed integer.
    pub fn new(boot: u32, sequence: u32) -> Self {
        Self { boot: boot & 0x7fff_ffff, sequence }
    }

    /// The integer that the database stores.
    pub fn to_i64(self) -> i64 {
        (i64::from(self.boot) << 32) | i64::from(self.sequence)
    }

    /// From the integer that the database stored; none for a negative one.
    pub fn from_i64(id: i64) -> Option<Self> {
        let id = u64::try_from(id).ok()?;
        Some(Self { boot: u32::try_from(id >> 32).ok()?, sequence: u32::try_from(id & 0xffff_ffff).ok()? })
    }

    /// The boot in which it was accepted.
    pub fn boot(self) -> u32 {
        self.boot
    }
}

/// `1F-3A2`: both numbers in upper-case hex. An RFC 5322 atom, as the Received field wants it.
impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}-{:X}", self.boot, self.sequence)
    }
}

/// A text that is not a queue id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a queue id (they look like 1F-3A2)")]
pub struct ParseQueueIdError;

impl FromStr for QueueId {
    type Err = ParseQueueIdError;

    fn from_str(text: &str) -> Result<Self, ParseQueueIdError> {
        let number = |digits: &str| {
            let right = (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            if right { u32::from_str_radix(digits, 16).map_err(|_| ParseQueueIdError) } else { Err(ParseQueueIdError) }
        };
        let (boot, sequence) = text.split_once('-').ok_or(ParseQueueIdError)?;
        let boot = number(boot)?;
        if boot > 0x7fff_ffff { Err(ParseQueueIdError) } else { Ok(Self { boot, sequence: number(sequence)? }) }
    }
}

/// Names a delivery within its spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub(crate) i64);

impl DeliveryId {
    /// As a number, for whoever asks for the next page of a list from outside the process.
    pub fn to_i64(self) -> i64 {
        self.0
    }

    /// From that number.
    pub fn from_i64(id: i64) -> Self {
        Self(id)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_database_and_the_log() {
        for id in [QueueId::new(0, 0), QueueId::new(31, 930), QueueId::new(0x7fff_ffff, u32::MAX)] {
            assert_eq!(QueueId::from_i64(id.to_i64()), Some(id));
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(QueueId::new(31, 930).to_string(), "1F-3A2");
        assert_eq!(QueueId::from_i64(-1), None);
        for wrong in ["", "-", "1F", "1F-", "1F-3A2-", "+1-2", "G-1", "123456789-1", "80000000-0"] {
            assert_eq!(wrong.parse::<QueueId>(), Err(ParseQueueIdError), "{wrong}");
        }
    }
}
