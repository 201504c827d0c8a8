//! The experiments: each does one thing to a subject and notes its figures.

mod calls;
mod distance;
mod drain;
mod idle;
mod large;
mod latency;
mod limits;
mod matrix;
mod meter;
mod start;

pub(crate) use calls::calls;
pub(crate) use distance::distance;
pub(crate) use drain::drain;
pub(crate) use idle::idle;
pub(crate) use large::large;
pub(crate) use latency::latency;
pub(crate) use limits::limits;
pub(crate) use matrix::{Cell, cell};
pub(crate) use start::start;
