//! `status`: what a running daemon is doing, what is wrong, and what to do about it.
//!
//! [`Overview`] gathers a `Snapshot` in the daemon, `screen` makes it readable, `command` asks for it over the control
//! socket; without one `livez` asks for the little that HTTP tells. Nothing here changes anything.

mod command;
mod livez;
mod overview;
mod screen;
mod snapshot;

pub(crate) use command::status;
pub(crate) use livez::check as check_livez;
pub(crate) use overview::{LaneView, ListenerView, Opened, Overview};
pub(crate) use screen::size;
