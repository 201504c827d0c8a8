//! The relay itself.
