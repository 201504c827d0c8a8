//! Users who sign in for mailboxes: `login` beside the daemon and alone, every way of signing in, the life of a refresh token,
//! and the vault in which it rests. The life over months is told in `token-manager`'s own tests, by a manual clock.

mod browser;
mod devices;
mod imports;
mod life;
mod office;
mod people;
mod secrecy;
mod shared;
mod terminal;
mod vault;
