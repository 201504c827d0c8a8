//! A server on a control socket as a value: started, stopped, and gone with its file when dropped.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::server::{Bounds, Handler, serve};
use super::socket::{Socket, SocketError, SocketFile};

/// Answers at a path until it is stopped or dropped.
pub(crate) struct Service {
    file: SocketFile,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Service {
    /// Starts to answer at `path` by `handler`.
    pub(crate) async fn start<H: Handler>(path: &Path, handler: Arc<H>) -> Result<Self, SocketError> {
        let socket = Socket::bind(path).await?;
        let (file, stop) = (socket.file(), CancellationToken::new());
        let mut task = JoinSet::new();
        task.spawn(serve(socket, handler, Bounds::default(), stop.clone()));
        Ok(Self { file, stop, task })
    }

    /// Ends in order: requests under way are answered, within their bounds.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The task would do it too, but a process that ends at once does not wait for tasks.
        self.file.remove();
    }
}
