//! One HTTP exchange with the token endpoint, as `oauth2` asks for it, with what `oauth2` does not show: status,
//! `Retry-After`, request id, and a bound on the body.
//!
//! It follows nothing, retries nothing and knows nothing of JSON.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use oauth2::http::HeaderMap;
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use zeroize::Zeroizing;

/// The longest reply that is read. Entra ID's have a few KiB.
pub(crate) const MAX_BODY: usize = 1 << 20;

/// Room for a usual reply, so that no half token stays behind in a buffer that grew.
const USUAL_BODY: usize = 16 << 10;

/// Why an exchange gave no reply. The text is of the HTTP library, with the host and port that were asked, never the body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("{0}")]
    Network(String),
    #[error("the reply is longer than 1 MiB")]
    TooLong,
    #[error("the reply could not be put together")]
    Unbuildable,
}

/// What the header of the reply said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) http_status: Option<u16>,
    pub(crate) retry_after: Option<Duration>,
    /// `x-ms-request-id`, Entra ID's trace id, also there when the body is no JSON.
    pub(crate) request_id: Option<String>,
}

/// The token endpoint behind a client, remembering the header of the last reply.
pub(crate) struct Endpoint {
    // Owned (it is a handle): with a borrowed one the compiler cannot prove oauth2's future `Send`.
    http: reqwest::Client,
    /// What it goes through, for errors to name.
    proxy: Option<String>,
    seen: Mutex<Seen>,
}

impl Endpoint {
    pub(crate) fn new(http: reqwest::Client, proxy: Option<String>) -> Self {
        Self { http, proxy, seen: Mutex::default() }
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let proxy = self.proxy.as_deref();
        let network = |error| network(error, proxy);
        let request = reqwest::Request::try_from(request).map_err(network)?;
        let mut response = self.http.execute(request).await.map_err(network)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Seen {
            http_status: Some(response.status().as_u16()),
            retry_after: retry_after(response.headers()),
            request_id: text_of(response.headers(), "x-ms-request-id"),
        };
        let mut reply = oauth2::http::Response::builder().status(response.status());
        if let Some(kind) = response.headers().get(oauth2::http::header::CONTENT_TYPE) {
            reply = reply.header(oauth2::http::header::CONTENT_TYPE, kind);
        }
        let mut body = read_body(&mut response, proxy).await?;
        reply.body(std::mem::take(&mut *body)).map_err(|_| HttpError::Unbuildable)
    }
}

impl<'c> AsyncHttpClient<'c> for Endpoint {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.exchange(request))
    }
}

async fn read_body(response: &mut reqwest::Response, proxy: Option<&str>) -> Result<Zeroizing<Vec<u8>>, HttpError> {
    let mut body = Zeroizing::new(Vec::with_capacity(USUAL_BODY));
    while let Some(chunk) = response.chunk().await.map_err(|error| network(error, proxy))? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(HttpError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Whole seconds only, as Entra ID sends it; a date is ignored and our own back-off stands.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    text_of(headers, "retry-after")?.trim().parse().ok().map(Duration::from_secs)
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// The chain of causes in one line, since the outer one only says "error sending request".
// By value, as `map_err` hands it over and `without_url` wants it.
fn network(error: reqwest::Error, proxy: Option<&str>) -> HttpError {
    // Whoever reads this must know which host and port a firewall has to let through, and where.
    let place = error.url().and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)));
    let way = proxy.map(|proxy| format!(" through the proxy {proxy}"));
    let place = place.map(|place| format!("{place}{}: ", way.unwrap_or_default()));
    let error = error.without_url();
    let mut text = place.unwrap_or_default() + &error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.push_str(remedy(&text));
    HttpError::Network(text)
}

/// What to do about a proxy that gives no tunnel. The library tells its reasons apart in words only; words that it changes
/// cost this advice and nothing else.
fn remedy(text: &str) -> &'static str {
    match text.rsplit_once("tunnel error: ").map(|(_, reason)| reason) {
        Some("proxy authorization required") => {
            "; the proxy wants a user and password, or others than those in the URL of https_proxy, by Basic"
        }
        Some("unsuccessful") => {
            "; the proxy did not answer CONNECT with 200: let its rules allow that host and port, and look at its log"
        }
        _ => "",
    }
}
