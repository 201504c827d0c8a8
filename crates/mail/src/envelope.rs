//! The envelope of one message: who sends it, and what its transfer needs. Recipients travel beside it, because they
//! part ways (one delivery each lane) while this stays one.

use crate::dsn::{EnvelopeId, Ret};
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
    /// `RET=`: how much of the message a report of failure returns; none if the client did not say.
    pub ret: Option<Ret>,
    /// `ENVID=`: the client's name for this envelope.
    pub envelope_id: Option<EnvelopeId>,
}

impl Envelope {
    /// An envelope of which nothing is said but who sends it.
    pub fn from(reverse_path: ReversePath) -> Self {
        Self { reverse_path, body_type: BodyType::SevenBit, smtputf8: false, ret: None, envelope_id: None }
    }
}
