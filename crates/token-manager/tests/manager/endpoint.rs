//! A token endpoint that checks every octet it is sent that matters, and answers by script.
//!
//! Minimal HTTP/1.1 on 127.0.0.1, a connection for each request. Anything unexpected is a fault that fails the test.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use url::Url;

pub(crate) const PATH: &str = "/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token";
pub(crate) const CLIENT_ID: &str = "66666666-7777-8888-9999-000000000000";
pub(crate) const SCOPE: &str = "https://outlook.office365.com/.default";
pub(crate) const DELEGATED_SCOPE: &str = "https://outlook.office.com/SMTP.Send offline_access";
pub(crate) const TRACE_ID: &str = "ab2a65b2-0c3d-4b5a-9f1e-2a3b4c5d6e00";
pub(crate) const CORRELATION_ID: &str = "cd3b76c3-1d4e-4c6b-8a2f-3b4c5d6e7f11";

/// One scripted answer.
pub(crate) struct Answer {
    pub(crate) octets: Vec<u8>,
    held: bool,
    hangs: bool,
    /// The refresh token in it, with which the next request must come.
    refresh_token: Option<String>,
}

/// By what right the next request must come.
#[derive(Clone)]
enum Right {
    /// The application's secret.
    Secret(String),
    /// A user's refresh token, from a public client.
    RefreshToken(String),
}

impl Answer {
    pub(crate) fn raw(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let fields: String = headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{fields}", body.len());
        Self { octets: format!("{head}\r\n{body}").into_bytes(), held: false, hangs: false, refresh_token: None }
    }

    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::raw(status, &[("Content-Type", "application/json; charset=utf-8")], body)
    }

    /// A token as Entra ID gives it to client credentials.
    pub(crate) fn token(token: &str, expires_in: u32) -> Self {
        let body = format!(
            r#"{{"token_type":"Bearer","expires_in":{expires_in},"ext_expires_in":{expires_in},"access_token":"{token}"}}"#
        );
        Self::json(200, &body)
    }

    /// The same with the id token of `account`.
    pub(crate) fn token_of(token: &str, expires_in: u32, account: &str) -> Self {
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"preferred_username":"{account}"}}"#));
        let body = format!(
            r#"{{"token_type":"Bearer","expires_in":{expires_in},"access_token":"{token}","id_token":"e30.{claims}.c2ln"}}"#
        );
        Self::json(200, &body)
    }

    /// A token as Entra ID gives it for a refresh token, with another one that must be used from then on.
    pub(crate) fn renewed(token: &str, refresh_token: &str) -> Self {
        let body = format!(
            r#"{{"token_type":"Bearer","scope":"{DELEGATED_SCOPE}","expires_in":3600,"ext_expires_in":3600,"access_token":"{token}","refresh_token":"{refresh_token}"}}"#
        );
        Self { refresh_token: Some(refresh_token.to_owned()), ..Self::json(200, &body) }
    }

    /// An error as Entra ID words it.
    pub(crate) fn error(status: u16, error: &str, code: u32, text: &str) -> Self {
        let body = format!(
            r#"{{"error":"{error}","error_description":"AADSTS{code}: {text}\r\nTrace ID: {TRACE_ID}\r\nCorrelation ID: {CORRELATION_ID}\r\nTimestamp: 2026-11-21 07:54:00Z","error_codes":[{code}],"timestamp":"2026-11-21 07:54:00Z","trace_id":"{TRACE_ID}","correlation_id":"{CORRELATION_ID}","error_uri":"https://login.microsoftonline.com/error?code={code}"}}"#
        )
        .replace('\r', "\\r")
        .replace('\n', "\\n");
        Self::json(status, &body)
    }

    /// Takes the request and never answers.
    pub(crate) fn hang() -> Self {
        Self { octets: Vec::new(), held: false, hangs: true, refresh_token: None }
    }

    /// Answers only when [`Endpoint::release`] is called.
    pub(crate) fn held(mut self) -> Self {
        self.held = true;
        self
    }
}

#[derive(Clone, Copy, Default)]
struct Counts {
    received: usize,
    open: usize,
    most_open: usize,
}

struct Inner {
    script: Mutex<VecDeque<Answer>>,
    right: Mutex<Right>,
    faults: Mutex<Vec<String>>,
    counts: watch::Sender<Counts>,
    gate: Semaphore,
}

pub(crate) struct Endpoint {
    pub(crate) url: Url,
    inner: Arc<Inner>,
}

impl Endpoint {
    pub(crate) async fn start(secret: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}{PATH}", listener.local_addr().unwrap())).unwrap();
        let inner = Arc::new(Inner {
            script: Mutex::default(),
            right: Mutex::new(Right::Secret(secret.to_owned())),
            faults: Mutex::default(),
            counts: watch::Sender::default(),
            gate: Semaphore::new(0),
        });
        let server = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&server), stream));
            }
        });
        Self { url, inner }
    }

    pub(crate) fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.inner.script.lock().unwrap().extend(answers);
    }

    pub(crate) fn expect_secret(&self, secret: &str) {
        *self.inner.right.lock().unwrap() = Right::Secret(secret.to_owned());
    }

    pub(crate) fn expect_refresh_token(&self, token: &str) {
        *self.inner.right.lock().unwrap() = Right::RefreshToken(token.to_owned());
    }

    pub(crate) fn release(&self) {
        self.inner.gate.add_permits(1);
    }

    pub(crate) async fn received(&self, number: usize) {
        self.inner.counts.subscribe().wait_for(|counts| counts.received >= number).await.unwrap();
    }

    /// How many requests came, all of them right, one at a time.
    pub(crate) fn requests(&self) -> usize {
        assert_eq!(*self.inner.faults.lock().unwrap(), Vec::<String>::new());
        let counts = *self.inner.counts.borrow();
        assert!(counts.most_open <= 1, "{} requests in the air at once", counts.most_open);
        counts.received
    }
}

async fn serve(inner: Arc<Inner>, mut stream: TcpStream) {
    let Some((head, body)) = read_request(&mut stream).await else { return };
    inner.counts.send_modify(|counts| {
        counts.received += 1;
        counts.open += 1;
        counts.most_open = counts.most_open.max(counts.open);
    });
    let right = inner.right.lock().unwrap().clone();
    let mut faults = faults(&head, &body, &right);
    let answer = inner.script.lock().unwrap().pop_front().unwrap_or_else(|| {
        faults.push("a request beyond the script".to_owned());
        Answer::raw(500, &[], "")
    });
    inner.faults.lock().unwrap().extend(faults);
    if let Some(token) = &answer.refresh_token {
        *inner.right.lock().unwrap() = Right::RefreshToken(token.clone());
    }
    if answer.held {
        inner.gate.acquire().await.unwrap().forget();
    }
    if answer.hangs {
        // Until the other side gives up.
        let _ = stream.read(&mut [0; 1]).await;
    }
    // The count falls before the reply leaves, or the next request could overtake it.
    inner.counts.send_modify(|counts| counts.open -= 1);
    let _ = stream.write_all(&answer.octets).await;
    let _ = stream.shutdown().await;
    // Closing with unread octets would reset the connection under the reply.
    let _ = stream.read(&mut [0; 1]).await;
}

pub(crate) async fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut octets = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        octets.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&octets).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            return Some((head.to_owned(), body.to_owned()));
        }
    }
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let line =
        head.lines().skip(1).filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name));
    line.map(|(_, value)| value.trim())
}

/// What is wrong with a request.
fn faults(head: &str, body: &str, right: &Right) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |right: bool, what: &str| {
        if !right {
            faults.push(format!("{what}: {head}\n\n{body}"));
        }
    };
    check(head.starts_with(&format!("POST {PATH} HTTP/1.1\r\n")), "request line");
    check(header(head, "content-type") == Some("application/x-www-form-urlencoded"), "content type");
    check(header(head, "accept") == Some("application/json"), "accept");
    check(header(head, "authorization").is_none(), "the secret belongs into the body");
    let mut form: Vec<(String, String)> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    form.sort();
    let expected = match right {
        Right::Secret(secret) => [
            ("client_id", CLIENT_ID),
            ("client_secret", secret),
            ("grant_type", "client_credentials"),
            ("scope", SCOPE),
        ],
        Right::RefreshToken(token) => [
            ("client_id", CLIENT_ID),
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("scope", DELEGATED_SCOPE),
        ],
    };
    check(form.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected), "form");
    faults
}
