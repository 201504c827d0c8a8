//! HTTP answers that both of the sandbox's HTTP services give. What they say is `entra`'s and `imds`'.

use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use crate::fault::HttpFault;

pub(crate) type Reply = Response<Full<Bytes>>;

pub(crate) fn json(status: u16, body: Vec<u8>) -> Reply {
    let mut response = plain(status, body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    // RFC 6749 section 5.1.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-cache"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// An answer that is not the service's own.
pub(crate) fn foreign(fault: HttpFault) -> Reply {
    let kind = if fault.body.starts_with('{') { "application/json; charset=utf-8" } else { "text/html" };
    let mut response = plain(fault.status, fault.body);
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

pub(crate) fn plain(status: u16, body: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// No answer, ever.
pub(crate) async fn never() -> Reply {
    let endless: Infallible = std::future::pending().await;
    match endless {}
}
