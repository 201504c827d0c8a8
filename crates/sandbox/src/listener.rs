//! The accept loop that both services share. It bounds nothing and speaks nothing; each service does so itself.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Rest after a failed accept, which is the process's want of descriptors.
const REST: Duration = Duration::from_millis(50);

/// Serves each connection in a task of its own until `stop`; then cuts them all and returns when they have ended.
/// A panic ends only its own connection.
pub(crate) async fn run<F>(listener: TcpListener, stop: CancellationToken, serve: impl Fn(TcpStream, SocketAddr) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    // Replies are whole when they are written; waiting for more would only delay them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY not set");
                    }
                    connections.spawn(serve(stream, client));
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(REST).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}
