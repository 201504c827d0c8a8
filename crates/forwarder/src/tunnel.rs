//! CONNECT: asks an HTTP proxy for a tunnel to upstream (RFC 9110 section 9.3.6), and says why there is none. Beyond the
//! proxy's answer it reads nothing: what comes after that is upstream's, and TLS with it goes from end to end.
//!
//! Not `hyper_util`'s `Tunnel`: it loses what arrives behind the answer, where SMTP's banner stands, and keeps no status.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::proxy::{Proxy, authority};
use crate::xoauth2::without_secrets;

/// Octets of a proxy's answer. Real ones have a few hundred; pages of errors stand behind the header and are not read.
const MAX_HEADER: usize = 8 << 10;
/// Fields of a proxy's answer.
const MAX_FIELDS: usize = 64;
/// Characters of what a proxy said that are told.
const MAX_SHOWN: usize = 120;

/// Why a proxy gave no tunnel. To follow the proxy's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TunnelError {
    /// It said no.
    #[error("it answered {status_line:?}; {}", remedy(*.code, *.has_login))]
    Refused { code: u16, status_line: String, has_login: bool },
    /// It does not speak HTTP.
    #[error("it sent {0:?}, which is no answer of an HTTP proxy; is smtp_proxy the right host and port?")]
    NotHttp(String),
    /// Its answer does not end.
    #[error("the header of its answer is longer than {MAX_HEADER} octets; is smtp_proxy the right host and port?")]
    TooLong,
    /// It hung up.
    #[error("it closed the connection without an answer to CONNECT; its log may say why")]
    Closed,
    /// The connection to it was lost.
    #[error("the connection to it was lost: {0}")]
    Lost(#[from] io::Error),
    /// It took too long.
    #[error("it did not answer CONNECT within {} s; can it reach upstream?", .0.as_secs_f64())]
    TimedOut(Duration),
}

fn remedy(code: u16, has_login: bool) -> &'static str {
    match code {
        407 if has_login => "it does not take the user and password of smtp_proxy, or wants another scheme than Basic",
        407 => "it wants a user and password, which belong into the URL of smtp_proxy",
        400 | 403 | 405 => "let its rules allow CONNECT to that host and port: many allow port 443 only",
        500..600 => "it cannot reach upstream: look at its log, its name resolution and its firewall",
        _ => "only 200 opens a tunnel; is smtp_proxy an HTTP proxy that allows CONNECT?",
    }
}

/// Makes a tunnel to `host` of a connection to `proxy`, all within `wait`.
pub(crate) async fn open(
    stream: &mut TcpStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
    wait: Duration,
) -> Result<(), TunnelError> {
    timeout(wait, ask(stream, proxy, host, port)).await.map_err(|_elapsed| TunnelError::TimedOut(wait))?
}

async fn ask(stream: &mut TcpStream, proxy: &Proxy, host: &str, port: u16) -> Result<(), TunnelError> {
    stream.write_all(request(proxy, &authority(host, port)).as_bytes()).await?;
    let mut header = Vec::new();
    loop {
        // Looked at first and taken afterwards: what stands behind the answer stays in the socket for whom it is for.
        let mut seen = [0; 1024];
        let count = stream.peek(&mut seen).await?;
        if count == 0 {
            return Err(TunnelError::Closed);
        }
        let before = header.len();
        header.extend_from_slice(&seen[..count]);
        let end = judge(&header, proxy)?;
        let taken = end.unwrap_or(header.len()) - before;
        stream.read_exact(&mut seen[..taken]).await?;
        if end.is_some() {
            return Ok(());
        }
        if header.len() > MAX_HEADER {
            return Err(TunnelError::TooLong);
        }
    }
}

/// The host is named twice, as RFC 9112 section 3.2 wants it.
fn request(proxy: &Proxy, target: &str) -> Zeroizing<String> {
    let login = proxy.authorization.as_ref();
    let login = login.map(|login| Zeroizing::new(format!("Proxy-Authorization: Basic {}\r\n", login.expose())));
    let login = login.as_ref().map_or("", |login| login.as_str());
    Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{login}\r\n"))
}

/// Where the answer ends that gives a tunnel; none while it has not ended.
fn judge(header: &[u8], proxy: &Proxy) -> Result<Option<usize>, TunnelError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    match answer.parse(header) {
        Ok(httparse::Status::Complete(end)) => match answer.code.unwrap_or_default() {
            200 => Ok(Some(end)),
            code => Err(TunnelError::Refused {
                code,
                status_line: first_line(header, proxy),
                has_login: proxy.authorization.is_some(),
            }),
        },
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(TunnelError::TooLong),
        Err(_) => Err(TunnelError::NotHttp(first_line(header, proxy))),
    }
}

/// What the proxy said first, cut, and without our password if it repeats it.
fn first_line(header: &[u8], proxy: &Proxy) -> String {
    let line = header.split(|octet| matches!(octet, b'\r' | b'\n')).find(|line| !line.is_empty());
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    let line = match &proxy.authorization {
        Some(login) => without_secrets(&line, login.expose()),
        None => line.into_owned(),
    };
    line.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;
    use crate::proxy::Authorization;

    fn proxy(login: bool) -> Proxy {
        let authorization = login.then(|| Authorization::basic("relay", "hunter2"));
        Proxy { host: "proxy".into(), port: 3128, authorization }
    }

    #[test]
    fn requests() {
        let target = authority("smtp.office365.com", 587);
        assert_eq!(
            *request(&proxy(false), &target),
            "CONNECT smtp.office365.com:587 HTTP/1.1\r\nHost: smtp.office365.com:587\r\n\r\n"
        );
        assert_eq!(
            *request(&proxy(true), &authority("2001:db8::1", 25)),
            "CONNECT [2001:db8::1]:25 HTTP/1.1\r\nHost: [2001:db8::1]:25\r\nProxy-Authorization: Basic cmVsYXk6aHVudGVyMg==\r\n\r\n"
        );
    }

    #[test]
    fn answers() {
        let login = proxy(true);
        for (answer, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n220 smtp", Ok(Some(39))),
            ("HTTP/1.0 200 OK\r\nVia: x\r\nContent-Length: 9\r\n\r\n", Ok(Some(46))),
            ("HTTP/1.1 200 OK\r\nVia:", Ok(None)),
            ("HT", Ok(None)),
            ("HTTP/1.1 204 No Content\r\n\r\n", Err("it answered \"HTTP/1.1 204 No Content\"; only 200 opens")),
            ("HTTP/1.1 100 Continue\r\n\r\n", Err("it answered \"HTTP/1.1 100 Continue\"; only 200 opens")),
            (
                "HTTP/1.1 403 Forbidden\r\n\r\n<html>",
                Err("it answered \"HTTP/1.1 403 Forbidden\"; let its rules allow"),
            ),
            ("HTTP/1.1 407 Login\r\n\r\n", Err("it answered \"HTTP/1.1 407 Login\"; it does not take the user")),
            ("HTTP/1.1 503 Unavailable\r\n\r\n", Err("it answered \"HTTP/1.1 503 Unavailable\"; it cannot reach")),
            (
                "HTTP/1.1 407 No, cmVsYXk6aHVudGVyMg== is wrong\r\n\r\n",
                Err("it answered \"HTTP/1.1 407 No, (withheld) is wrong\";"),
            ),
            ("220 smtp.example.com ESMTP\r\n", Err("it sent \"220 smtp.example.com ESMTP\", which is no answer")),
            ("\u{1b}[31m\r\n", Err("it sent \"\\u{1b}[31m\", which is no answer")),
        ] {
            match (judge(answer.as_bytes(), &login), expected) {
                (Ok(end), Ok(expected)) => assert_eq!(end, expected, "{answer:?}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().starts_with(expected), "{answer:?}: {error}");
                    assert!(!error.to_string().contains("cmVsYX"), "{error}");
                }
                (said, expected) => panic!("{answer:?}: {said:?} and not {expected:?}"),
            }
        }
        let error = judge(b"HTTP/1.1 407 Login\r\n\r\n", &proxy(false)).unwrap_err();
        assert!(error.to_string().ends_with("it wants a user and password, which belong into the URL of smtp_proxy"));
    }

    proptest! {
        /// Whatever comes behind an answer, and in whatever pieces: none of it is the answer's.
        #[test]
        fn what_comes_behind_the_answer_is_left(behind in any::<Vec<u8>>(), fields in 0..5_usize, cut in any::<usize>()) {
            let answer = format!("HTTP/1.1 200 OK\r\n{}\r\n", "Via: proxy\r\n".repeat(fields)).into_bytes();
            let whole = [&answer[..], &behind].concat();
            prop_assert!(matches!(judge(&whole, &proxy(true)), Ok(Some(end)) if end == answer.len()));
            let part = &answer[..cut % answer.len()];
            prop_assert!(matches!(judge(part, &proxy(true)), Ok(None)), "{:?}", String::from_utf8_lossy(part));
        }

        /// No answer is too strange to be judged, and none that is no answer opens a tunnel.
        #[test]
        fn only_a_200_opens_a_tunnel(octets in any::<Vec<u8>>(), tail in any::<Vec<u8>>()) {
            let said = [&octets[..], b"HTTP/1.1 ", &tail[..]].concat();
            for octets in [&octets, &said] {
                if let Ok(Some(end)) = judge(octets, &proxy(false)) {
                    let text = String::from_utf8_lossy(&octets[..end]);
                    prop_assert!(text.contains(" 200"), "{text:?}");
                }
            }
        }
    }
}
