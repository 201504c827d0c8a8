//! HTTPS around `entra`: HTTP/1.1 on loopback, the paths of Entra that sign-ins need, everything else 404. Requests are
//! bounded in size and time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::counters::count;
use crate::entra::{self, EntraError, Page, TokenRequest, authorize, device};
use crate::fault::{Action, OddToken, Stage};
use crate::http_reply::{Reply, foreign, json, never, plain};
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

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    Token(&'a str),
    DeviceCode(&'a str),
    Authorize(&'a str),
    DevicePage,
}

impl<'a> Route<'a> {
    fn parse(path: &'a str) -> Option<Self> {
        if path == device::PAGE || path == device::SHORT_PAGE {
            return Some(Self::DevicePage);
        }
        let (tenant, endpoint) = path.strip_prefix('/')?.split_once('/')?;
        if tenant.is_empty() {
            return None;
        }
        match endpoint {
            "oauth2/v2.0/token" => Some(Self::Token(tenant)),
            "oauth2/v2.0/devicecode" => Some(Self::DeviceCode(tenant)),
            "oauth2/v2.0/authorize" => Some(Self::Authorize(tenant)),
            _ => None,
        }
    }
}

/// Answers one request. An error cuts the connection without a response, which is what a fault may ask for.
async fn respond(world: Arc<World>, request: Request<Incoming>) -> Result<Reply, io::Error> {
    let path = request.uri().path().to_owned();
    let Some(route) = Route::parse(&path) else {
        return Ok(plain(404, ""));
    };
    if matches!(route, Route::Token(_)) {
        count(&world.tally.token_requests);
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, LONGEST_FORM).collect().await else {
        return Ok(plain(413, ""));
    };
    let body = body.to_bytes();
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let query = head.uri.query().unwrap_or_default();
    let request = |tenant| TokenRequest {
        tenant,
        authorization: text(header::AUTHORIZATION),
        content_type: text(header::CONTENT_TYPE),
        body: &body,
    };
    Ok(match (route, &head.method) {
        (Route::Token(tenant), method) => return token(&world, method, &request(tenant)).await,
        (Route::DeviceCode(tenant), method) => return device_code(&world, method, &request(tenant)).await,
        (Route::Authorize(tenant), &Method::GET) => page(authorize::answer(&world, tenant, query)),
        (Route::DevicePage, &Method::GET) => page(device::page(&world, query.as_bytes())),
        (Route::DevicePage, &Method::POST) => page(device::page(&world, &body)),
        (Route::Authorize(_) | Route::DevicePage, _) => plain(405, ""),
    })
}

/// What a fault leaves of a request.
enum Struck {
    /// It is answered as is right, but for one thing perhaps.
    Not(Option<OddToken>),
    Answered(Reply),
}

async fn strike(world: &World, stage: Stage, request: &TokenRequest<'_>) -> Result<Struck, io::Error> {
    Ok(match world.faults.strike(stage, request.client_id().as_deref()) {
        Some(Action::TokenError(fault)) => Struck::Answered(failure(world, &fault.into())),
        Some(Action::Http(fault)) => Struck::Answered(foreign(fault)),
        Some(Action::OddToken(how)) => Struck::Not(Some(how)),
        Some(Action::Delay(delay)) => {
            sleep(delay).await;
            Struck::Not(None)
        }
        Some(Action::Close) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Action::Stall) => Struck::Answered(never().await),
        _ => Struck::Not(None),
    })
}

/// The token endpoint, or what a fault makes of it: whatever the grant.
async fn token(world: &World, method: &Method, request: &TokenRequest<'_>) -> Result<Reply, io::Error> {
    if let Some(grant) = request.grant_type() {
        grant.count(&world.tally);
    }
    Ok(match strike(world, Stage::Token, request).await? {
        Struck::Answered(reply) => reply,
        Struck::Not(_) if method != Method::POST => failure(world, &only_post(method)),
        Struck::Not(odd) => answer(world, entra::answer(world, request, odd)),
    })
}

async fn device_code(world: &World, method: &Method, request: &TokenRequest<'_>) -> Result<Reply, io::Error> {
    Ok(match strike(world, Stage::DeviceCode, request).await? {
        Struck::Answered(reply) => reply,
        Struck::Not(_) if method != Method::POST => failure(world, &only_post(method)),
        Struck::Not(_) => answer(world, device::begin(world, request)),
    })
}

fn answer(world: &World, answer: Result<impl Serialize, EntraError>) -> Reply {
    match answer {
        Ok(reply) => json(200, serde_json::to_vec(&reply).expect("a struct of strings and integers always serialises")),
        Err(error) => failure(world, &error),
    }
}

fn only_post(method: &Method) -> EntraError {
    let text = format!("The endpoint only accepts POST requests. Received a {method} request.");
    EntraError::new(405, "invalid_request", 900_561, text)
}

fn page(page: Page) -> Reply {
    match page {
        Page::Redirect(location) => {
            let mut response = plain(302, "");
            let location = HeaderValue::try_from(location).expect("a serialised URL is visible ASCII");
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Page::Html(status, body) => {
            let mut response = plain(status, body);
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
    }
}

fn failure(world: &World, error: &EntraError) -> Reply {
    let mut response = json(error.status, error.json(world.clock.wall()));
    if let Some(secs) = error.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_what_they_name() {
        for (path, expected) in [
            ("/contoso.com/oauth2/v2.0/token", Some(Route::Token("contoso.com"))),
            ("/contoso.com/oauth2/v2.0/devicecode", Some(Route::DeviceCode("contoso.com"))),
            ("/contoso.com/oauth2/v2.0/authorize", Some(Route::Authorize("contoso.com"))),
            ("/common/oauth2/deviceauth", Some(Route::DevicePage)),
            ("/devicelogin", Some(Route::DevicePage)),
            ("//oauth2/v2.0/token", None),
            ("/a/b/oauth2/v2.0/token", None),
            ("/a/oauth2/v2.0/token/", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
    }
}
