//! HTTPS around `entra`: HTTP/1.1 on loopback, one path, everything else 404. Requests are bounded in size and time.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::counters::count;
use crate::entra::{self, EntraError, TokenRequest};
use crate::fault::{Action, HttpFault, Stage};
use crate::listener;
use crate::world::World;

/// Longest form body; a certificate assertion is the largest real one, with a few kB.
const LONGEST_FORM: usize = 64 << 10;
const HANDSHAKE: Duration = Duration::from_secs(30);

/// Takes connections until `stop`.
pub(crate) async fn run(listener: TcpListener, acceptor: TlsAcceptor, world: Arc<World>, stop: CancellationToken) {
    listener::run(listener, stop, |stream, client| {
        let (acceptor, world) = (acceptor.clone(), Arc::clone(&world));
        async move {
            if let Err(error) = serve(stream, &acceptor, &world).await {
                tracing::debug!(%error, %client, "token connection ended");
            }
        }
    })
    .await;
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, world: &Arc<World>) -> io::Result<()> {
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let service = service_fn(|request| respond(Arc::clone(world), request));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

/// Answers one request. An error cuts the connection without a response, which is what a fault may ask for.
async fn respond(world: Arc<World>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, io::Error> {
    let Some(tenant) = token_path(request.uri().path()).map(str::to_owned) else {
        return Ok(plain(StatusCode::NOT_FOUND, ""));
    };
    count(&world.tally.token_requests);
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LONGEST_FORM).collect().await else {
        return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE, ""));
    };
    let body = body.to_bytes();
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let request = TokenRequest {
        tenant: &tenant,
        authorization: text(header::AUTHORIZATION),
        content_type: text(header::CONTENT_TYPE),
        body: &body,
    };
    let mut odd = None;
    match world.faults.strike(Stage::Token, request.client_id().as_deref()) {
        Some(Action::TokenError(fault)) => return Ok(failure(&world, &fault.into())),
        Some(Action::Http(fault)) => return Ok(foreign(fault)),
        Some(Action::OddToken(how)) => odd = Some(how),
        Some(Action::Delay(delay)) => sleep(delay).await,
        Some(Action::Close) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Action::Stall) => return Ok(never().await),
        _ => {}
    }
    if head.method != Method::POST {
        let text = format!("The endpoint only accepts POST requests. Received a {} request.", head.method);
        return Ok(failure(&world, &EntraError::new(405, "invalid_request", 900_561, text)));
    }
    Ok(match entra::answer(&world, &request, odd) {
        Ok(reply) => {
            let body = serde_json::to_vec(&reply).expect("a struct of strings and integers always serialises");
            json(StatusCode::OK, body)
        }
        Err(error) => failure(&world, &error),
    })
}

/// The tenant in `/{tenant}/oauth2/v2.0/token`.
fn token_path(path: &str) -> Option<&str> {
    let tenant = path.strip_prefix('/')?.strip_suffix("/oauth2/v2.0/token")?;
    (!tenant.is_empty() && !tenant.contains('/')).then_some(tenant)
}

async fn never() -> Response<Full<Bytes>> {
    let endless: Infallible = std::future::pending().await;
    match endless {}
}

/// An answer that is not Entra's own.
fn foreign(fault: HttpFault) -> Response<Full<Bytes>> {
    let kind = if fault.body.starts_with('{') { "application/json; charset=utf-8" } else { "text/html" };
    let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = plain(status, fault.body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(secs) = fault.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    if let Some(location) = fault.location.and_then(|location| HeaderValue::try_from(location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    response
}

fn failure(world: &World, error: &EntraError) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, error.json(world.clock.wall()));
    if let Some(secs) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = plain(status, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    // RFC 6749 section 5.1.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
