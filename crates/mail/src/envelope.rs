//! The envelope of one message: who sends it, and what its transfer needs. Recipients travel beside it, because they
//! part ways (one delivery each lane) while this stays one.

use crate::path::ReversePath;

/// What a message declared its body to be (RFC 6152). We declare the same upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    /// `BODY=7BIT`, or nothing said.
    #[default]
    SevenBit,
    /// `BODY=8BITMIME`.
    EightBitMime,
}

/// What MAIL said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where bounces go.
    pub reverse_path: ReversePath,
    /// What the body may hold.
    pub body_type: BodyType,
    /// Whether addresses or header may hold UTF-8 (RFC 6531).
    pub smtputf8: bool,
}
