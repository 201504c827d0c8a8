//! `[http]`, `[control]`, `[alert]`, `[log]`, `[vault]` and `[shutdown]`: running it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use crate::config::place::{FilePath, HostName, HttpAddress, Text};
use crate::config::schema::section;
use crate::config::secret_reference::SecretReference;
use crate::config::value::{Period, choice};

section! {
    /// Health over HTTP.
    pub struct Http {
        /// Where `/livez` is served; `""` switches it off.
        built address: HttpAddress = HttpAddress(Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9525))));
        /// Host names that are accepted when not on loopback; empty: any.
        later allowed_hosts: Vec<HostName> = Vec::new();
    }
}

section! {
    /// How the commands reach the running daemon.
    pub struct Control {
        /// A Unix socket, with mode 0600; 0660 where its directory has the set-group-ID bit.
        built socket ? FilePath => None, "`$RUNTIME_DIRECTORY/control.sock`, else `control.sock` in the spool directory, else none";
    }
}

impl Control {
    /// With the place where it is when nobody says another: in the state directory, where there is one.
    pub(crate) fn complete(self, state_directory: Option<&Path>) -> Self {
        let default = || Some(state_directory?.join("control.sock").into());
        Self { socket: self.socket.or_else(default) }
    }
}

section! {
    /// How a person is told.
    pub struct Alert {
        /// A program and its arguments; `{summary}` is replaced. Alerts also go to the log and by mail to the postmaster.
        later command: Vec<Text> = Vec::new();
    }
}

choice! {
    /// How log lines look.
    pub enum LogFormat {
        /// Text on a terminal, else JSON.
        built Auto = "auto",
        /// Text.
        built Text = "text",
        /// One JSON object a line.
        built Json = "json",
        /// Fields of systemd's journal.
        later Journald = "journald",
    }
}

choice! {
    /// The least important lines that are shown. Libraries never speak below `warn`.
    pub enum LogLevel {
        /// Faults only.
        built Error = "error",
        /// And what needs looking at.
        built Warn = "warn",
        /// And what happens to each message.
        built Info = "info",
        /// And why.
        built Debug = "debug",
        /// And every step.
        built Trace = "trace",
    }
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

section! {
    /// The log, on standard error.
    pub struct Log {
        /// How lines look.
        built format: LogFormat = LogFormat::Auto;
        /// The least important lines that are shown.
        built level: LogLevel = LogLevel::Info;
        /// Whether subjects are shown.
        later subjects: bool = false;
    }
}

section! {
    /// Where refresh tokens rest.
    pub struct Vault {
        /// A key that encrypts them: 22 characters at least, as `openssl rand -base64 32` makes it.
        built key ? SecretReference;
    }
}

section! {
    /// Stopping.
    pub struct Shutdown {
        /// How long sessions and deliveries may take to end. Docker kills after 10 s, Kubernetes after 30 s.
        built grace: Period<1, 600> = Period::new(8);
    }
}
