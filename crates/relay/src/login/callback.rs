//! The loopback address that a browser comes back to (RFC 8252 section 7.3): takes its query to the desk and gives the browser
//! a page that says so. It judges nothing.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::desk::Desk;
use crate::output::complain;

/// A browser opens a few; whoever opens more waits.
const CONNECTIONS: usize = 8;
/// Ports that are tried.
const PORTS: u32 = 16;
/// For a connection as a whole.
const CONNECTION: Duration = Duration::from_secs(30);
/// How long the last page may take to leave.
const LAST_PAGE: Duration = Duration::from_millis(500);

/// Open, and not served yet.
pub(super) struct Loopback {
    /// One for each family that `localhost` may be here.
    listeners: Vec<TcpListener>,
    port: u16,
}

/// Served.
pub(super) struct Callbacks {
    tasks: JoinSet<()>,
    places: Arc<Semaphore>,
}

impl Loopback {
    pub(super) async fn open() -> io::Result<Self> {
        for _ in 0..PORTS {
            let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = first.local_addr()?.port();
            match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
                Ok(second) => return Ok(Self { listeners: vec![first, second], port }),
                // Somebody else has it there, and a browser may go to either.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                // A machine without IPv6.
                Err(_) => return Ok(Self { listeners: vec![first], port }),
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Entra ID takes any port of `http://localhost`, and no path (facts 4.5).
    pub(super) fn redirect_uri(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Takes what comes to `desk`, for the sign-in `id`.
    pub(super) fn serve(self, desk: &Arc<Desk>, id: &str) -> Callbacks {
        let (places, mut tasks) = (Arc::new(Semaphore::new(CONNECTIONS)), JoinSet::new());
        let id: Arc<str> = id.into();
        for listener in self.listeners {
            tasks.spawn(accept(listener, Arc::clone(desk), Arc::clone(&id), Arc::clone(&places)));
        }
        Callbacks { tasks, places }
    }
}

impl Callbacks {
    /// Lets pages leave that are on their way, and ends.
    pub(super) async fn end(&mut self) {
        let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
        let _ = timeout(LAST_PAGE, self.places.acquire_many(all)).await;
        self.tasks.shutdown().await;
    }
}

async fn accept(listener: TcpListener, desk: Arc<Desk>, id: Arc<str>, places: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: pasting goes on.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (desk, id) = (Arc::clone(&desk), Arc::clone(&id));
        connections.spawn(async move {
            let _ = timeout(CONNECTION, serve(stream, desk, id)).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, desk: Arc<Desk>, id: Arc<str>) -> Result<(), hyper::Error> {
    let service = service_fn(|request| answer(request, Arc::clone(&desk), Arc::clone(&id)));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).keep_alive(false).serve_connection(TokioIo::new(stream), service).await
}

async fn answer(
    request: Request<Incoming>,
    desk: Arc<Desk>,
    id: Arc<str>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let address = request.uri().path_and_query().filter(|_| request.method() == Method::GET);
    let Some(address) = address.filter(|address| address.path() == "/" && address.query().is_some()) else {
        return Ok(page(StatusCode::NOT_FOUND, "There is nothing here."));
    };
    let address = Zeroizing::new(address.to_string());
    Ok(match desk.callback(&id, address).await {
        Ok(()) => page(StatusCode::OK, "The sign-in goes on in the terminal; this page can be closed."),
        Err(error) => {
            complain(&format!("xoauth2-relay: {error}"));
            page(StatusCode::BAD_REQUEST, "This does not belong to the sign-in that waits; look at the terminal.")
        }
    })
}

fn page(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let page = format!("<!doctype html><meta charset=\"utf-8\"><title>xoauth2-relay</title><p>{text}</p>\n");
    let mut response = Response::new(Full::new(Bytes::from(page)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}
