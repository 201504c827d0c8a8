//! The experiments: each does one thing to a subject and notes its figures.

mod calls;
mod distance;
mod idle;
mod large;
mod limits;
mod matrix;
mod start;

pub(crate) use calls::calls;
pub(crate) use distance::distance;
pub(crate) use idle::idle;
pub(crate) use large::large;
pub(crate) use limits::limits;
pub(crate) use matrix::{Cell, cell};
pub(crate) use start::start;
