//! Makes the TCP connection that a session starts on: all addresses of the host, both families racing (RFC 8305), so
//! that a broken IPv6 path costs a fraction of a second and not a timeout.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::endpoint::{AddressFamily, Endpoint};

/// Head start of each address over the next (RFC 8305 section 5).
const HEAD_START: Duration = Duration::from_millis(250);
/// Addresses tried of one host.
const MAX_ADDRESSES: usize = 8;

/// A connected stream with small writes going out at once.
pub(crate) async fn dial(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let stream =
        timeout(endpoint.timeouts.connect, connect(endpoint)).await.map_err(|_elapsed| timed_out(endpoint))??;
    // Without it each message waits for an acknowledgement that the peer delays (43 ms a message measured).
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let found: Vec<_> = lookup_host((endpoint.host.as_str(), endpoint.port)).await?.collect();
    let addresses = in_turn(&found, endpoint.address_family);
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{} has no address of the wanted family", endpoint.host),
        ));
    }
    race(addresses).await
}

fn timed_out(endpoint: &Endpoint) -> io::Error {
    let seconds = endpoint.timeouts.connect.as_secs();
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no connection within {seconds} s; is port {} open in the firewall?", endpoint.port),
    )
}

/// The addresses in the order to try them: IPv6 first, the families in turn.
fn in_turn(found: &[SocketAddr], family: AddressFamily) -> Vec<SocketAddr> {
    let wanted = |address: &&SocketAddr| match family {
        AddressFamily::Any => true,
        AddressFamily::Ipv4 => address.is_ipv4(),
        AddressFamily::Ipv6 => address.is_ipv6(),
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
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(async move { TcpStream::connect(address).await.map_err(|error| named(&error, address)) });
        } else if attempts.is_empty() {
            return Err(failure);
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = error,
                Err(error) => failure = io::Error::other(error),
            },
            () = sleep(HEAD_START), if more => {}
        }
    }
}

fn named(error: &io::Error, address: SocketAddr) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_with_ipv6_first() {
        let found: Vec<SocketAddr> =
            ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1"].iter().map(|text| text.parse().unwrap()).collect();
        let texts = |family| in_turn(&found, family).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(AddressFamily::Any), ["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"]);
        assert_eq!(texts(AddressFamily::Ipv4), ["192.0.2.1:1", "192.0.2.2:1"]);
        assert_eq!(texts(AddressFamily::Ipv6), ["[2001:db8::1]:1"]);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_stop_the_next() {
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = race(vec![dead, listener.local_addr().unwrap()]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert_eq!(race(vec![dead]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
