//! SMTP octets without I/O: lines, commands, replies and the coding of the body (RFC 5321).
//!
//! Everything here is a function of octets, fed in pieces of any size. It knows no socket, no policy and no clock:
//! whether a command may come now is the session's question, what becomes of a body the caller's.

mod body;
mod command;
mod dialect;
mod line;
mod parameters;
mod path_argument;
mod proxy_header;
mod reply;
mod reply_parser;
mod stuffing;
mod tls_hello;

pub use body::{BodyDecoder, Decoded};
pub use command::{AuthCommand, Command, CommandError};
pub use dialect::Dialect;
pub use line::{Framed, LineFramer, MAX_COMMAND_LEN};
pub use mail::EnhancedCode;
pub use parameters::MailParameters;
pub use proxy_header::{ProxyError, ProxyHeader, ProxyProgress, starts_like_proxy_header};
pub use reply::Reply;
pub use reply_parser::{ReplyError, ReplyParser};
pub use stuffing::DotStuffer;
pub use tls_hello::{TlsHello, looks_like_tls};
