//! One HTTP exchange with an endpoint: a form or a question goes out, status, `Retry-After`, request id and a bounded body
//! come back.
//!
//! It follows nothing, retries nothing and knows nothing of JSON.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap};
use reqwest::{Body, RequestBuilder};
use url::Url;
use zeroize::Zeroizing;

use crate::form::Form;

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
}

/// What the header of the reply said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) http_status: Option<u16>,
    pub(crate) retry_after: Option<Duration>,
    /// `x-ms-request-id`, Entra ID's trace id, also there when the body is no JSON.
    pub(crate) request_id: Option<String>,
}

/// How an exchange ended. `seen` holds as much as came.
pub(crate) struct Exchange {
    pub(crate) seen: Seen,
    /// Wiped when dropped.
    pub(crate) body: Result<Zeroizing<Vec<u8>>, HttpError>,
}

/// The form as a body that is wiped once the client has sent it.
struct Wiped(Zeroizing<String>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Sends `form` to `endpoint`. `proxy` is what the client goes through, for errors to name.
pub(crate) async fn post(http: &reqwest::Client, endpoint: &Url, form: &Form, proxy: Option<&str>) -> Exchange {
    let body = Body::from(Bytes::from_owner(Wiped(form.encode())));
    let request = http.post(endpoint.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
    exchange(request, proxy).await
}

/// Sends `request` and reads its reply.
pub(crate) async fn exchange(request: RequestBuilder, proxy: Option<&str>) -> Exchange {
    let mut response = match request.header(ACCEPT, "application/json").send().await {
        Ok(response) => response,
        Err(error) => return Exchange { seen: Seen::default(), body: Err(network(error, proxy)) },
    };
    let seen = Seen {
        http_status: Some(response.status().as_u16()),
        retry_after: retry_after(response.headers()),
        request_id: text_of(response.headers(), "x-ms-request-id"),
    };
    Exchange { seen, body: read_body(&mut response, proxy).await }
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
