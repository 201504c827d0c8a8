//! Sockets that systemd (or whoever speaks its protocol, `sd_listen_fds(3)`) opened for us and handed over at the start, by
//! the names of their `FileDescriptorName=`. It takes them from the environment; it does not listen or accept.
//!
//! Which variables mean what is pure; `listenfd` turns the descriptors into sockets without unsafe code of ours.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

/// Most sockets that are taken over; systemd itself counts them in a list of the unit's.
const MAX_SOCKETS: usize = 1024;
/// What a socket is called that came without a name (`sd_listen_fds(3)`).
const UNNAMED: &str = "unknown";

/// Why a listener has no socket from systemd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemdSocketError {
    /// Nothing was handed over at all.
    #[error(
        "no socket \"{name}\": none was handed over, because {absence}; start the relay by its .socket unit (`systemctl \
         enable --now xoauth2-relay.socket`), or by hand with `systemd-socket-activate --listen=127.0.0.1:2525 \
         --fdname={name} xoauth2-relay run`"
    )]
    Nothing {
        /// The name that the listener asks for.
        name: String,
        /// Which variable says so.
        absence: Absence,
    },
    /// Others were handed over; which listener has them does not matter.
    #[error(
        "no socket \"{name}\" was handed over, only {}; write FileDescriptorName={name} in the [Socket] section of the \
         .socket unit, which otherwise gives its own name", .there.join(", ")
    )]
    NoSuchName {
        /// The name that the listener asks for.
        name: String,
        /// The names there are, without repetition.
        there: Vec<String>,
    },
    /// It is handed over and cannot be listened on.
    #[error("the socket \"{name}\" that was handed over {}", .fault)]
    Unusable {
        /// Its name.
        name: String,
        /// What is wrong with it, and the remedy.
        fault: Fault,
    },
}

impl SystemdSocketError {
    /// The system refused to use the socket called `name`.
    pub(crate) fn of_system(name: &str, error: io::Error) -> Self {
        Self::Unusable { name: name.to_owned(), fault: Fault::System(error) }
    }
}

/// Why there are no sockets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Absence {
    /// Nobody hands sockets over.
    #[error("LISTEN_FDS is not set")]
    NoFds,
    /// The number of sockets is none.
    #[error("LISTEN_FDS is {0:?}, which is no number of sockets from 1 to {MAX_SOCKETS}")]
    BadFds(String),
    /// Nobody says whom they are for.
    #[error("LISTEN_PID is not set, so they may be another program's")]
    NoPid,
    /// They are another process's.
    #[error(
        "LISTEN_PID is {given:?} and this process is {own}: whatever stands between systemd and the relay must start it \
         with `exec`"
    )]
    OtherPid {
        /// What the variable says.
        given: String,
        /// Our process.
        own: u32,
    },
}

/// What is wrong with a socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A datagram or Unix socket, or none at all.
    #[error("is no TCP socket ({0}); the .socket unit must have ListenStream= with an address and a port")]
    NotTcp(io::Error),
    /// One connection instead of the door.
    #[error("is a connection and not a socket that listens; the .socket unit must have Accept=no")]
    NotListening,
    /// The system refused.
    #[error("cannot be used: {0}")]
    System(io::Error),
}

/// What a socket is called.
struct Name {
    name: String,
    /// The socket, once a listener has asked for it. It stays open here: systemd would not hand it over again when a later
    /// configuration wants it back.
    socket: Option<TcpListener>,
}

impl Name {
    fn new(name: String) -> Self {
        Self { name, socket: None }
    }
}

/// The sockets that were handed over. They stay open for as long as this.
pub(crate) struct SystemdSockets {
    handed: ListenFd,
    /// In the order of the descriptors.
    names: Vec<Name>,
    absence: Absence,
}

impl SystemdSockets {
    /// Takes what was handed over out of the environment, where a child process could mistake it for its own. Call it
    /// once and before the first thread is started: it changes the environment.
    pub(crate) fn from_environment() -> Self {
        let variable = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        let [fds, pid, names] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"].map(variable);
        match handed_over(fds.as_deref(), pid.as_deref(), names.as_deref(), std::process::id()) {
            Ok(names) => {
                let names = names.into_iter().map(Name::new).collect();
                Self { handed: ListenFd::from_env(), names, absence: Absence::NoFds }
            }
            Err(absence) => Self { absence, ..Self::none() },
        }
    }

    /// No sockets, where none are looked for.
    pub(crate) fn none() -> Self {
        Self { handed: ListenFd::empty(), names: Vec::new(), absence: Absence::NoFds }
    }

    /// The sockets of this name, at least one, as often as they are asked for: each `ListenStream=` of a .socket unit is a socket, all of one name.
    /// They are non-blocking and closed on exec. A socket on `[::]` may take IPv4 too, as its unit says.
    pub(crate) fn take(&mut self, name: &str) -> Result<Vec<TcpListener>, SystemdSocketError> {
        if self.names.is_empty() {
            return Err(SystemdSocketError::Nothing { name: name.to_owned(), absence: self.absence.clone() });
        }
        let wanted = |at: &usize| self.names[*at].name == name;
        let places: Vec<_> = (0..self.names.len()).filter(wanted).collect();
        if places.is_empty() {
            return Err(SystemdSocketError::NoSuchName { name: name.to_owned(), there: self.names_of(|_| true) });
        }
        let unusable = |fault| SystemdSocketError::Unusable { name: name.to_owned(), fault };
        places.into_iter().map(|at| self.socket(at).map_err(unusable)).collect()
    }

    /// Where they listen, each with its name; what cannot be used is left out.
    pub(crate) fn addresses(&mut self) -> Vec<(String, SocketAddr)> {
        let mut addresses = Vec::new();
        for at in 0..self.names.len() {
            let address = self.socket(at).ok().and_then(|socket| socket.local_addr().ok());
            addresses.extend(address.map(|address| (self.names[at].name.clone(), address)));
        }
        addresses
    }

    fn socket(&mut self, at: usize) -> Result<TcpListener, Fault> {
        let kept = &mut self.names[at].socket;
        let socket = match kept {
            Some(socket) => socket,
            None => match self.handed.take_tcp_listener(at) {
                Ok(Some(socket)) => {
                    ready(&socket)?;
                    kept.insert(socket)
                }
                Ok(None) => return Err(Fault::NotTcp(io::ErrorKind::NotFound.into())),
                Err(error) => return Err(Fault::NotTcp(error)),
            },
        };
        socket.try_clone().map_err(Fault::System)
    }

    /// The names of the sockets that are not among those `used`, without repetition: connections to them wait for ever.
    pub(crate) fn unused(&self, used: &[&str]) -> Vec<String> {
        self.names_of(|name| !used.contains(&name.name.as_str()))
    }

    fn names_of(&self, wanted: impl Fn(&Name) -> bool) -> Vec<String> {
        let mut names: Vec<_> = self.names.iter().filter(|name| wanted(name)).map(|name| name.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

fn ready(socket: &TcpListener) -> Result<(), Fault> {
    if !socket_acceptconn(socket).map_err(|error| Fault::System(error.into()))? {
        return Err(Fault::NotListening);
    }
    socket.set_nonblocking(true).map_err(Fault::System)
}

/// The names of the sockets that were handed to the process `own`, in their order.
fn handed_over(fds: Option<&str>, pid: Option<&str>, names: Option<&str>, own: u32) -> Result<Vec<String>, Absence> {
    let fds = fds.ok_or(Absence::NoFds)?;
    let count = fds.parse().ok().filter(|count| (1..=MAX_SOCKETS).contains(count));
    let count = count.ok_or_else(|| Absence::BadFds(fds.to_owned()))?;
    // `listenfd` takes them without it; they could be the files of whatever program our environment comes from.
    let pid = pid.ok_or(Absence::NoPid)?;
    if pid.parse() != Ok(own) {
        return Err(Absence::OtherPid { given: pid.to_owned(), own });
    }
    let mut each: Vec<_> = names.into_iter().flat_map(|names| names.split(':')).map(str::to_owned).collect();
    each.resize(count, UNNAMED.to_owned());
    Ok(each)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn what_the_variables_mean() {
        let other = |given: &str| Err(Absence::OtherPid { given: given.to_owned(), own: 7 });
        let bad = |given: &str| Err(Absence::BadFds(given.to_owned()));
        for (fds, pid, names, expected) in [
            (None, None, None, Err(Absence::NoFds)),
            (None, Some("7"), Some("smtp"), Err(Absence::NoFds)),
            (Some("1"), None, Some("smtp"), Err(Absence::NoPid)),
            (Some("1"), Some("8"), Some("smtp"), other("8")),
            (Some("1"), Some(""), Some("smtp"), other("")),
            (Some("0"), Some("7"), None, bad("0")),
            (Some("-1"), Some("7"), None, bad("-1")),
            (Some("two"), Some("7"), None, bad("two")),
            (Some("4000000000"), Some("7"), None, bad("4000000000")),
            (Some("1"), Some("7"), Some("smtp"), Ok(vec!["smtp"])),
            (Some("3"), Some("7"), Some("smtp:smtp:tls"), Ok(vec!["smtp", "smtp", "tls"])),
            (Some("2"), Some("7"), None, Ok(vec!["unknown", "unknown"])),
            (Some("2"), Some("7"), Some("smtp"), Ok(vec!["smtp", "unknown"])),
            (Some("1"), Some("7"), Some("smtp:more"), Ok(vec!["smtp"])),
        ] {
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(handed_over(fds, pid, names, 7), expected, "{fds:?} {pid:?} {names:?}");
        }
    }

    #[test]
    fn without_any_the_error_says_which_variable_is_missing_and_how_to_try() {
        let said = SystemdSockets::none().take("smtp").unwrap_err().to_string();
        for part in ["\"smtp\"", "LISTEN_FDS is not set", "xoauth2-relay.socket", "--fdname=smtp"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    fn named(names: &[&str]) -> SystemdSockets {
        let names = names.iter().map(|name| Name::new((*name).to_owned())).collect();
        SystemdSockets { names, ..SystemdSockets::none() }
    }

    #[test]
    fn a_name_that_another_listener_took_is_told_too() {
        let mut sockets = named(&["smtp"]);
        let said = sockets.take("submission").unwrap_err().to_string();
        assert!(said.contains("only smtp; write FileDescriptorName=submission"), "{said}");
        assert!(sockets.unused(&["smtp"]).is_empty());
    }

    #[test]
    fn a_socket_is_given_again_and_stays_open_while_nobody_has_it() {
        let mut sockets = named(&["smtp"]);
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        sockets.names[0].socket = Some(listening);
        for _ in 0..2 {
            let taken = sockets.take("smtp").unwrap();
            assert_eq!(taken[0].local_addr().unwrap(), address);
        }
        std::net::TcpStream::connect(address).unwrap();
    }

    #[test]
    fn another_name_is_told_with_those_that_there_are() {
        let mut sockets = named(&["b", "a", "b"]);
        let said = sockets.take("smtp").unwrap_err().to_string();
        assert!(said.contains("only a, b; write FileDescriptorName=smtp"), "{said}");
        assert_eq!(sockets.unused(&[]), ["a", "b"]);
        assert_eq!(sockets.unused(&["a"]), ["b"]);
    }

    #[test]
    fn a_listening_socket_is_made_non_blocking() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        ready(&listening).unwrap();
        assert_eq!(listening.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let bound = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
        let said = ready(&TcpListener::from(bound.unwrap())).unwrap_err().to_string();
        assert!(said.contains("Accept=no"), "{said}");
    }

    proptest! {
        #[test]
        fn each_socket_has_one_name_whatever_the_list_says(count in 1usize..40, names in "[a-z:]{0,60}", own in any::<u32>()) {
            let (fds, pid) = (count.to_string(), own.to_string());
            let named = handed_over(Some(&fds), Some(&pid), Some(&names), own).unwrap();
            prop_assert_eq!(named.len(), count);
            for (at, name) in names.split(':').take(count).enumerate() {
                prop_assert_eq!(&named[at], name);
            }
        }
    }
}
