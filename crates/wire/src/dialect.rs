//! How closely a client must keep to the standard: one word that the parser of commands, the framing of lines and the
//! session read alike.

/// What is taken of what old devices say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// What is meant clearly is understood, however it is written.
    #[default]
    Lenient,
    /// RFC 5321 to the letter.
    Strict,
}
