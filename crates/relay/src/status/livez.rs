//! Whether a daemon without a control socket serves: what `status --check` asks its `/livez` for, in a container's health check. It
//! tells nothing of mail; that is the control socket's.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::exit::Exit;
use crate::output;

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// More is no answer of ours.
const MAX_LINE: u64 = 256;

/// Asks what listens on `address`, as the configuration has it.
pub(crate) fn check(address: SocketAddr) -> Exit {
    let address = reachable(address);
    match ask(address) {
        Ok(line) if line.split(' ').nth(1) == Some("200") => {
            output::print("healthy, as far as /livez tells; more needs a control socket (control.socket)\n");
            Exit::Success
        }
        Ok(line) => unhealthy(&format!("http://{address}/livez answered {:?}", line.trim_end())),
        Err(error) => unhealthy(&format!("http://{address}/livez: {error}")),
    }
}

fn unhealthy(reason: &str) -> Exit {
    output::print(&format!("not healthy: {reason}\n"));
    Exit::Unavailable
}

/// Who listens everywhere is asked on this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The first line of the answer.
fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut line = String::new();
    BufReader::new(io::Read::take(stream, MAX_LINE)).read_line(&mut line)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn the_answer_decides() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n", Exit::Success),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Exit::Unavailable),
            ("220 mail.example ESMTP 200\r\n", Exit::Unavailable),
            ("", Exit::Unavailable),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut request).unwrap();
                assert_eq!(request, "GET /livez HTTP/1.1\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
            });
            assert_eq!(check(address), expected, "{answer:?}");
            server.join().unwrap();
        }
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(check(closed), Exit::Unavailable);
    }

    #[test]
    fn who_listens_everywhere_is_asked_here() {
        for (given, asked) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.1.2.3:1", "10.1.2.3:1")] {
            assert_eq!(reachable(given.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
