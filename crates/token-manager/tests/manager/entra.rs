//! A token endpoint that knows which proofs are good and remembers which it was shown, as Entra ID does while a credential is
//! rotated. What a request must look like beyond that is `endpoint`'s.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clock::{Clock as _, ManualClock, Monotonic};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::endpoint::{Answer, PATH, read_request};

/// What Entra ID gives on average (facts 4.2).
pub(crate) const LIFETIME: u32 = 4500;

pub(crate) struct Entra {
    pub(crate) url: Url,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    known: Mutex<Vec<String>>,
    /// Who signed in, for the answers to refresh tokens.
    account: Mutex<Option<String>>,
    /// What answers next, whatever is shown.
    scripted: Mutex<VecDeque<Answer>>,
    shown: Mutex<Vec<String>>,
    /// Whose time the requests came at, and these times.
    clock: Mutex<Option<Arc<ManualClock>>>,
    came: Mutex<Vec<Monotonic>>,
    gate: tokio::sync::Mutex<()>,
}

impl Entra {
    /// Takes these secrets, certificates by their `x5t#S256`, and refresh tokens of a public client.
    pub(crate) async fn start(known: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}{PATH}", listener.local_addr().unwrap())).unwrap();
        let inner = Arc::new(Inner::default());
        let server = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&server), stream));
            }
        });
        let entra = Self { url, inner };
        entra.know(known);
        entra
    }

    /// Takes these from now on, and no others.
    pub(crate) fn know(&self, known: &[&str]) {
        *self.inner.known.lock().unwrap() = known.iter().map(|proof| (*proof).to_owned()).collect();
    }

    /// Says from now on that refresh tokens are of `account`.
    pub(crate) fn name(&self, account: &str) {
        *self.inner.account.lock().unwrap() = Some(account.to_owned());
    }

    /// Answers so next, whatever is shown.
    pub(crate) fn script(&self, answer: Answer) {
        self.inner.scripted.lock().unwrap().push_back(answer);
    }

    /// The proofs of all requests so far.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.inner.shown.lock().unwrap().clone()
    }

    /// Notes from now on when requests come.
    pub(crate) fn keep_time(&self, clock: Arc<ManualClock>) {
        *self.inner.clock.lock().unwrap() = Some(clock);
    }

    /// When requests came since then.
    pub(crate) fn came(&self) -> Vec<Monotonic> {
        self.inner.came.lock().unwrap().clone()
    }

    /// No request is answered until the guard is dropped.
    pub(crate) async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.inner.gate.lock().await
    }
}

async fn serve(inner: Arc<Inner>, mut stream: TcpStream) {
    let Some((_, body)) = read_request(&mut stream).await else { return };
    let now = inner.clock.lock().unwrap().as_ref().map(|clock| clock.monotonic());
    inner.came.lock().unwrap().extend(now);
    let proof = proof(&body);
    let is_known = inner.known.lock().unwrap().contains(&proof);
    let number = {
        let mut shown = inner.shown.lock().unwrap();
        shown.push(proof);
        shown.len()
    };
    let scripted = inner.scripted.lock().unwrap().pop_front();
    let account = inner.account.lock().unwrap().clone();
    let answer = if let Some(answer) = scripted {
        answer
    } else if let (true, Some(account)) = (is_known, account) {
        Answer::token_of(&format!("t{number}"), LIFETIME, &account)
    } else if is_known {
        Answer::token(&format!("t{number}"), LIFETIME)
    } else {
        Answer::error(401, "invalid_client", 7_000_215, "Invalid client secret provided.")
    };
    drop(inner.gate.lock().await);
    let _ = stream.write_all(&answer.octets).await;
    let _ = stream.shutdown().await;
}

/// The client secret, or the thumbprint that an assertion names its certificate by, or a public client's refresh token.
fn proof(body: &str) -> String {
    let value = |wanted: &str| {
        let mut form = url::form_urlencoded::parse(body.as_bytes());
        form.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
    };
    value("client_secret").unwrap_or_else(|| {
        let Some(assertion) = value("client_assertion") else { return value("refresh_token").unwrap() };
        let header = URL_SAFE_NO_PAD.decode(assertion.split('.').next().unwrap()).unwrap();
        let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
        header["x5t#S256"].as_str().unwrap().to_owned()
    })
}
