//! The spool as its users see it: real files, real threads, no sleeping. One binary, a module a concern.

mod claiming;
mod damage;
mod durability;
mod harness;
mod limits;
mod model;
mod opening;
mod settling;
