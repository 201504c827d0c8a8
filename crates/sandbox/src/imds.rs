//! Azure's instance metadata service, as far as managed identities need it (facts 4.4): plain HTTP on loopback, one
//! path. The identities are in `tenant`, their tokens in `token`.

use std::io;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::application::TOKEN_EXCHANGE_AUDIENCE;
use crate::counters::count;
use crate::entra::Form;
use crate::fault::{Action, OddToken, Stage};
use crate::http_reply::{Reply, foreign, json, never, plain};
use crate::listener;
use crate::token::{Bearer, EXCHANGE_AUDIENCE, GRAPH_AUDIENCE};
use crate::world::World;

const PATH: &str = "/metadata/identity/oauth2/token";
/// The only version on record (facts 4.4).
const API_VERSION: &str = "2018-02-01";
/// What tokens are given for.
const RESOURCES: &[&str] = &[TOKEN_EXCHANGE_AUDIENCE, EXCHANGE_AUDIENCE, GRAPH_AUDIENCE];

/// Takes connections until `stop`.
pub(crate) async fn run(listener: TcpListener, world: Arc<World>, stop: CancellationToken) {
    listener::run(listener, stop, |stream, client| {
        let world = Arc::clone(&world);
        async move {
            if let Err(error) = serve(stream, &world).await {
                tracing::debug!(%error, %client, "metadata connection ended");
            }
        }
    })
    .await;
}

async fn serve(stream: TcpStream, world: &Arc<World>) -> io::Result<()> {
    let service = service_fn(|request| respond(Arc::clone(world), request));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

/// Answers one request. An error cuts the connection without a response, which is what a fault may ask for.
async fn respond(world: Arc<World>, request: Request<Incoming>) -> Result<Reply, io::Error> {
    count(&world.tally.imds_requests);
    let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes()).ok();
    let client_id = query.as_ref().and_then(|query| query.optional("client_id"));
    let mut odd = None;
    match world.faults.strike(Stage::Imds, client_id) {
        Some(Action::Http(fault)) => return Ok(foreign(fault)),
        Some(Action::OddToken(how)) => odd = Some(how),
        Some(Action::Delay(delay)) => sleep(delay).await,
        Some(Action::Close) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Action::Stall) => return Ok(never().await),
        _ => {}
    }
    if request.uri().path() != PATH {
        return Ok(plain(404, ""));
    }
    if request.method() != Method::GET {
        return Ok(plain(405, ""));
    }
    Ok(match answer(&world, request.headers(), query.as_ref(), odd) {
        Ok(reply) => encode(200, &reply),
        Err(error) => encode(400, &error),
    })
}

fn encode(status: u16, body: &impl Serialize) -> Reply {
    json(status, serde_json::to_vec(body).expect("a struct of strings always serialises"))
}

/// The 200 body: numbers are strings, and there is an empty refresh token (facts 4.4).
#[derive(Serialize)]
struct IdentityReply {
    access_token: String,
    client_id: String,
    expires_in: String,
    expires_on: String,
    ext_expires_in: String,
    not_before: String,
    refresh_token: &'static str,
    resource: String,
    token_type: &'static str,
    /// Only in an answer that a fault made enormous.
    #[serde(skip_serializing_if = "Option::is_none")]
    padding: Option<String>,
}

/// The 400 body.
#[derive(Serialize)]
struct IdentityError {
    error: &'static str,
    error_description: String,
}

fn invalid(text: impl Into<String>) -> IdentityError {
    IdentityError { error: "invalid_request", error_description: text.into() }
}

fn answer(
    world: &World,
    headers: &HeaderMap,
    query: Option<&Form>,
    odd: Option<OddToken>,
) -> Result<IdentityReply, IdentityError> {
    let is_true = |value: &hyper::header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"true");
    if !headers.get("metadata").is_some_and(is_true) {
        return Err(invalid("Required metadata header not specified"));
    }
    // The service refuses what came by a proxy.
    if headers.contains_key("x-forwarded-for") {
        return Err(invalid("Requests with the header X-Forwarded-For are refused"));
    }
    let query = query.ok_or_else(|| invalid("A query variable is duplicated"))?;
    if query.optional("api-version") != Some(API_VERSION) {
        return Err(invalid("api-version is invalid or was not specified in the request"));
    }
    let resource =
        query.optional("resource").ok_or_else(|| invalid("Required query variable 'resource' not specified"))?;
    let audience = resource.trim_end_matches('/');
    let directory = world.directory();
    let mut identities = directory
        .tenants()
        .iter()
        .flat_map(|tenant| tenant.managed_identities.iter().map(move |identity| (tenant, identity)));
    let found = if let Some(client_id) = query.optional("client_id") {
        identities.find(|(_, identity)| identity.client_id.eq_ignore_ascii_case(client_id))
    } else {
        let first = identities.next();
        if identities.next().is_some() {
            let text = "Multiple user assigned identities exist, please specify the clientId / resourceId of the \
                        identity in the token request";
            return Err(invalid(text));
        }
        first
    };
    let (tenant, identity) = found.ok_or_else(|| invalid("Identity not found"))?;
    if !RESOURCES.contains(&audience) {
        let text = format!(
            "AADSTS500011: The resource principal named {resource} was not found in the tenant named {}.",
            tenant.tenant_id
        );
        return Err(IdentityError { error: "invalid_resource", error_description: text });
    }
    let lifetime = match odd {
        Some(OddToken::Lifetime(lifetime)) => Some(lifetime),
        _ => world.conditions().token_lifetime,
    };
    let issued = world.mint.issue(tenant, Bearer::ManagedIdentity(identity), audience, lifetime, world.clock.as_ref());
    Ok(IdentityReply {
        access_token: if odd == Some(OddToken::Empty) { String::new() } else { issued.token },
        client_id: identity.client_id.clone(),
        expires_in: issued.expires_in.to_string(),
        expires_on: issued.expires_on.to_string(),
        ext_expires_in: issued.expires_in.to_string(),
        not_before: issued.not_before.to_string(),
        refresh_token: "",
        resource: resource.to_owned(),
        token_type: "Bearer",
        padding: match odd {
            Some(OddToken::Padded(octets)) => Some("x".repeat(octets)),
            _ => None,
        },
    })
}
