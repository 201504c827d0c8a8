//! Makes the TCP connection that a session starts on: all addresses of the host, both families racing (RFC 8305), so
//! that a broken IPv6 path costs a fraction of a second and not a timeout. Where there is a proxy it is the proxy that is
//! connected to, and asked for a tunnel.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::endpoint::{AddressFamily, Endpoint};
use crate::tunnel::{self, TunnelError};

/// Head start of each address over the next (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses tried of one host.
const MAX_ADDRESSES: usize = 8;
/// Octets of the kernel's buffer for what is sent; it doubles that for its own bookkeeping. The kernel takes more once a
/// third is free, and what it holds still has to leave when the wait for the final reply begins: with the megabytes that
/// it gives by itself a line of 5 KB a second would time out while it progresses. With this, 500 octets a second will do.
const SEND_BUFFER: u32 = 128 << 10;

/// Why there is no connection. To follow the name of what was to be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The name is not known here.
    #[error("the name {name} cannot be resolved: {source}")]
    Name { name: String, source: io::Error },
    /// The host has addresses, but none that may be tried.
    #[error("{name} has no {}", wanted(*.family, *.source_address))]
    NoAddress { name: String, family: AddressFamily, source_address: Option<IpAddr> },
    /// The connection cannot come from there.
    #[error("{}", source_remedy(*.address, .error))]
    Source { address: IpAddr, error: io::Error },
    /// The address that was tried last.
    #[error("{address}: {source}")]
    Address { address: SocketAddr, source: io::Error },
    /// None of the addresses answered.
    #[error("no connection within {} s; is port {port} open in the firewall?", .wait.as_secs())]
    TimedOut { wait: Duration, port: u16 },
    /// The proxy gave no tunnel.
    #[error("{0}")]
    Tunnel(#[from] TunnelError),
    /// Something of this machine.
    #[error("{0}")]
    Local(#[from] io::Error),
}

fn wanted(family: AddressFamily, source_address: Option<IpAddr>) -> String {
    match (family, source_address) {
        (_, Some(source)) => format!(
            "{} address that could be reached from source_address {source}; set that to an address of the other family, or remove it",
            if source.is_ipv4() { "IPv4" } else { "IPv6" }
        ),
        (AddressFamily::Any, None) => "address".to_owned(),
        (AddressFamily::Ipv4, None) => "IPv4 address; address_family allows no other".to_owned(),
        (AddressFamily::Ipv6, None) => "IPv6 address; address_family allows no other".to_owned(),
    }
}

fn source_remedy(address: IpAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => format!(
            "this machine does not have the address {address} of source_address; set that to one that `ip address` shows, or remove it"
        ),
        _ => format!("source_address {address} cannot be used: {error}"),
    }
}

/// A connection to upstream, with small writes going out at once.
pub(crate) async fn dial(endpoint: &Endpoint) -> Result<TcpStream, DialError> {
    let (host, port) = match &endpoint.proxy {
        Some(proxy) => (proxy.host.as_str(), proxy.port),
        None => (endpoint.host.as_str(), endpoint.port),
    };
    let wait = endpoint.timeouts.connect;
    let connecting = timeout(wait, connect(host, port, endpoint));
    let mut stream = connecting.await.map_err(|_elapsed| DialError::TimedOut { wait, port })??;
    // Without it each message waits for an acknowledgement that the peer delays (43 ms a message measured).
    stream.set_nodelay(true)?;
    if let Some(proxy) = &endpoint.proxy {
        tunnel::open(&mut stream, proxy, &endpoint.host, endpoint.port, endpoint.timeouts.greeting).await?;
    }
    Ok(stream)
}

async fn connect(host: &str, port: u16, endpoint: &Endpoint) -> Result<TcpStream, DialError> {
    let (family, source_address) = (endpoint.address_family, endpoint.source_address);
    let found = lookup_host((host, port)).await;
    let found: Vec<_> = found.map_err(|source| DialError::Name { name: host.to_owned(), source })?.collect();
    let addresses = in_turn(&found, family, source_address);
    if addresses.is_empty() {
        return Err(DialError::NoAddress { name: host.to_owned(), family, source_address });
    }
    race(addresses, source_address).await
}

/// The addresses in the order to try them: IPv6 first, the families in turn.
fn in_turn(found: &[SocketAddr], family: AddressFamily, source: Option<IpAddr>) -> Vec<SocketAddr> {
    let wanted = |address: &&SocketAddr| {
        let of_family = match family {
            AddressFamily::Any => true,
            AddressFamily::Ipv4 => address.is_ipv4(),
            AddressFamily::Ipv6 => address.is_ipv6(),
        };
        of_family && source.is_none_or(|source| source.is_ipv4() == address.is_ipv4())
    };
    let mut six = found.iter().filter(wanted).filter(|address| address.is_ipv6());
    let mut four = found.iter().filter(wanted).filter(|address| address.is_ipv4());
    let mut addresses = Vec::new();
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] {
            break;
        }
        addresses.extend(pair.into_iter().flatten());
    }
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

/// Connects to each in turn with a head start; the first connection wins and the others are dropped.
async fn race(addresses: Vec<SocketAddr>, source: Option<IpAddr>) -> Result<TcpStream, DialError> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = DialError::Local(io::ErrorKind::NotFound.into());
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(reach(address, source));
        } else if attempts.is_empty() {
            return Err(failure);
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = error,
                Err(error) => failure = DialError::Local(io::Error::other(error)),
            },
            () = sleep(HEAD_START), if more => {}
        }
    }
}

async fn reach(address: SocketAddr, source: Option<IpAddr>) -> Result<TcpStream, DialError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Where it cannot be had, slow lines suffer and nobody else.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    if let Some(source) = source {
        let bound = socket.bind(SocketAddr::new(source, 0));
        bound.map_err(|error| DialError::Source { address: source, error })?;
    }
    socket.connect(address).await.map_err(|source| DialError::Address { address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_with_ipv6_first() {
        let found: Vec<SocketAddr> =
            ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1"].iter().map(|text| text.parse().unwrap()).collect();
        let (six, four) = (["[2001:db8::1]:1"], ["192.0.2.1:1", "192.0.2.2:1"]);
        let both = [&six[..], &four[..]].concat();
        for (family, source, expected) in [
            (AddressFamily::Any, None, &both[..]),
            (AddressFamily::Ipv4, None, &four),
            (AddressFamily::Ipv6, None, &six),
            (AddressFamily::Any, Some("10.1.0.5"), &four),
            (AddressFamily::Any, Some("2001:db8::5"), &six),
            (AddressFamily::Ipv4, Some("10.1.0.5"), &four),
            (AddressFamily::Ipv6, Some("10.1.0.5"), &[]),
        ] {
            let source = source.map(|source| source.parse().unwrap());
            let addresses = in_turn(&found, family, source);
            let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected, "{family:?} {source:?}");
        }
    }

    #[tokio::test]
    async fn a_dead_address_does_not_stop_the_next() {
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = race(vec![dead, listener.local_addr().unwrap()], None).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        let error = race(vec![dead], None).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{dead}: Connection refused (os error 111)"));
    }
}
