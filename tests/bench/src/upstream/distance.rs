//! A wire that takes time: passes octets on in both directions, each as late as half a round trip.
//!
//! Bandwidth is not limited and nothing is lost; opening the connection itself takes no time.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Octets read at a time, and how many such reads may be on the way.
const READ: usize = 64 * 1024;
const ON_THE_WAY: usize = 256;

/// Passes every connection on to a port of this machine, without end.
pub(super) async fn carry(listener: TcpListener, port: u16, round_trip: Duration) {
    loop {
        let Ok((here, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            // A connection that fails is the business of the two at its ends.
            let Ok(there) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            if here.set_nodelay(true).and(there.set_nodelay(true)).is_err() {
                return;
            }
            let (here_reader, here_writer) = here.into_split();
            let (there_reader, there_writer) = there.into_split();
            tokio::spawn(pass(here_reader, there_writer, round_trip / 2));
            tokio::spawn(pass(there_reader, here_writer, round_trip / 2));
        });
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, to: impl AsyncWrite + Unpin + Send + 'static, delay: Duration) {
    let (way, arrivals) = mpsc::channel(ON_THE_WAY);
    tokio::spawn(arrive(arrivals, to));
    let mut buffer = vec![0; READ];
    while let Ok(count) = from.read(&mut buffer).await {
        let due = Instant::now() + delay;
        if count == 0 || way.send((due, buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn arrive(mut arrivals: mpsc::Receiver<(Instant, Vec<u8>)>, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some((due, octets)) = arrivals.recv().await {
        tokio::time::sleep_until(due).await;
        to.write_all(&octets).await?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_round_trip_takes_its_time() {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = echo.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = echo.accept().await.unwrap();
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await.unwrap();
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let round_trip = Duration::from_millis(20);
        tokio::spawn(carry(listener, port, round_trip));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let begun = Instant::now();
        stream.write_all(b"hello").await.unwrap();
        let mut said = [0; 5];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"hello");
        assert!(begun.elapsed() >= round_trip, "{:?}", begun.elapsed());
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut said).await.unwrap(), 0);
    }
}
