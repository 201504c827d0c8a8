//! The HTTP side: `/livez` says that the process serves. Nothing here tells anything of mail.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Connections at the same time; whoever comes beyond waits in the backlog.
const MAX_CONNECTIONS: usize = 64;

/// Pause after a failed accept, which may fail again at once.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    // The timer bounds how long a client may take for its request's head.
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .serve_connection(TokioIo::new(stream), service_fn(answer));
                    connections.spawn(async move {
                        if let Err(error) = connection.await {
                            debug!(%error, "HTTP connection ended");
                        }
                    });
                }
                Err(error) => {
                    debug!(%error, "an HTTP connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = respond(request.method(), request.uri().path());
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    Ok(response)
}

fn respond(method: &Method, path: &str) -> (StatusCode, &'static str) {
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/livez") => (StatusCode::OK, "ok\n"),
        (_, "/livez") => (StatusCode::METHOD_NOT_ALLOWED, "use GET\n"),
        _ => (StatusCode::NOT_FOUND, "there is /livez\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(respond(&Method::GET, "/livez").0, StatusCode::OK);
        assert_eq!(respond(&Method::POST, "/livez").0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(respond(&Method::GET, "/").0, StatusCode::NOT_FOUND);
    }
}
