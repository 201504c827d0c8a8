//! The managed identity of an Azure machine: one question to its instance metadata service, IMDS (facts 4.4).
//!
//! What it gives is a token for the audience of federated credentials, by which `request` then asks Entra ID as the
//! application. Nothing is cached here and nothing retried: IMDS caches itself, and `refresher` comes again.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use crate::failure::{FailureClass, TokenFailure};
use crate::http::{Exchange, HttpError, exchange};
use crate::request::{LONGEST_TEXT, LONGEST_WORD, REQUEST_TIMEOUT, line};
use crate::secret::Secret;

const PATH: &str = "metadata/identity/oauth2/token";
const API_VERSION: &str = "2018-02-01";

const NOBODY_THERE: &str = "this machine seems to have no managed identity endpoint: it is no Azure virtual machine, scale set \
                            or container with IMDS, or a firewall rule blocks 169.254.169.254; elsewhere use a certificate";
const PASSES: &str = "nothing to do if it passes; else look whether this is an Azure machine at all, whether the identity was \
                      removed from it, and at Azure's service health";
const THROTTLED: &str = "nothing to do if it passes; else find what else on this machine asks IMDS for tokens";
const REFUSED: &str = "assign the managed identity to this machine, check managed_identity.client_id (it must be there if the \
                       machine has several), and add a federated credential for the identity to the app registration";
const NO_ANSWER_OF_IMDS: &str =
    "this was no answer of IMDS: find what answers at 169.254.169.254, and see that no proxy stands between";

/// Where a managed identity's tokens are asked for, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// `http://169.254.169.254`, other than in tests. Plain HTTP is right: the address never leaves the machine's host.
    pub endpoint: Url,
    /// The client id of a user-assigned identity; none for the machine's own or only one.
    pub client_id: Option<String>,
    /// The audience: `api://AzureADTokenExchange`, or that of a national cloud.
    pub resource: String,
}

/// A good reply. Its numbers, given as strings, do not matter: the token is used at once.
#[derive(Deserialize)]
struct Reply {
    access_token: String,
}

/// A refusal, as far as it is understood.
#[derive(Default, Deserialize)]
struct Refusal {
    error: Option<String>,
    error_description: Option<String>,
}

impl ManagedIdentity {
    /// Asks once, for at most 30 seconds in all. `http` goes through no proxy and follows no redirect; that is how the
    /// caller must have built it, for IMDS answers nobody else than this machine. A failure names nothing of the reply
    /// but `error` and one line of `error_description`.
    pub async fn token(&self, http: &reqwest::Client) -> Result<Secret, TokenFailure> {
        let Ok(answered) = tokio::time::timeout(REQUEST_TIMEOUT, self.ask(http)).await else {
            let text = format!("no reply of the managed identity endpoint within {} s", REQUEST_TIMEOUT.as_secs());
            return Err(failure(FailureClass::Transient, NOBODY_THERE, text));
        };
        answered
    }

    async fn ask(&self, http: &reqwest::Client) -> Result<Secret, TokenFailure> {
        let Exchange { seen, body } = exchange(http.get(self.url()).header("Metadata", "true"), None).await;
        let Some(status) = seen.http_status else {
            let text =
                body.err().map_or_else(|| "no answer".to_owned(), |error| line(&error.to_string(), LONGEST_TEXT));
            return Err(failure(FailureClass::Transient, NOBODY_THERE, text));
        };
        let answered = match body {
            Ok(body) if status == 200 => {
                accept(&body).map_err(|text| failure(FailureClass::Unexpected, NO_ANSWER_OF_IMDS, text.to_owned()))
            }
            Ok(body) => Err(refused(status, &body)),
            Err(error) => Err(unread(status, &error)),
        };
        let (http_status, retry_after) = (seen.http_status, seen.retry_after);
        answered.map_err(|failure| TokenFailure { http_status, retry_after, ..failure })
    }

    fn url(&self) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/{PATH}", self.endpoint.path().trim_end_matches('/')));
        let mut query = url.query_pairs_mut();
        query.clear().append_pair("api-version", API_VERSION).append_pair("resource", &self.resource);
        if let Some(client_id) = &self.client_id {
            query.append_pair("client_id", client_id);
        }
        drop(query);
        url
    }
}

/// The token of a good reply, or what is wrong with it.
fn accept(body: &[u8]) -> Result<Secret, &'static str> {
    let reply: Reply = json(body).ok_or("the reply is not the JSON of a managed identity endpoint")?;
    let token = Zeroizing::new(reply.access_token);
    if !token.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err("the managed identity's token is not printable");
    }
    Secret::new(token).map_err(|_| "the managed identity's token is empty")
}

/// An answer that is no token.
fn refused(status: u16, body: &[u8]) -> TokenFailure {
    let refusal: Refusal = json(body).unwrap_or_default();
    let (class, advice) = judge(status);
    let description = refusal.error_description.as_deref().map(|text| line(text, LONGEST_TEXT));
    let text = match description.filter(|text| !text.is_empty()) {
        Some(description) => format!("the managed identity endpoint says: {description}"),
        None => "the managed identity endpoint gave no token and no reason".to_owned(),
    };
    TokenFailure { error: refusal.error.map(|word| line(&word, LONGEST_WORD)), ..failure(class, advice, text) }
}

/// An answer that broke off or did not end.
fn unread(status: u16, error: &HttpError) -> TokenFailure {
    let (class, advice) = match (error, status) {
        (HttpError::Network(_), 200) => (FailureClass::Transient, PASSES),
        _ => judge(status),
    };
    failure(class, advice, line(&error.to_string(), LONGEST_TEXT))
}

/// What a status without a token means. IMDS gives 404 and 410 while an identity is changed or the machine moved, and
/// wants them tried again; redirects it never gives.
fn judge(status: u16) -> (FailureClass, &'static str) {
    match status {
        404 | 408 | 410 | 500..=599 => (FailureClass::Transient, PASSES),
        429 => (FailureClass::Throttled, THROTTLED),
        400..=499 => (FailureClass::Configuration, REFUSED),
        _ => (FailureClass::Unexpected, NO_ANSWER_OF_IMDS),
    }
}

fn failure(class: FailureClass, advice: &str, text: String) -> TokenFailure {
    TokenFailure {
        class,
        http_status: None,
        error: None,
        codes: Vec::new(),
        trace_id: None,
        correlation_id: None,
        retry_after: None,
        advice: advice.to_owned(),
        text,
    }
}

/// The body, if it is what is wanted. The reason is left out: it could quote the body.
fn json<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::*;
    use FailureClass::*;

    const RESOURCE: &str = "api://AzureADTokenExchange";
    const TOKEN: &str = r#"{"access_token":"eyJ0.tok-en_1","client_id":"1","expires_in":"86399","expires_on":"1800086400","ext_expires_in":"86399","not_before":"1800000000","refresh_token":"","resource":"api://AzureADTokenExchange","token_type":"Bearer"}"#;

    /// An IMDS that answers one request; its end gives the request's header.
    async fn imds(answer: Option<String>) -> (ManagedIdentity, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_head(&mut stream).await;
            if let Some(answer) = answer {
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
            // Until the other side gives up; closing with unread octets would reset the connection under the reply.
            let _ = stream.read(&mut [0; 1]).await;
            head
        });
        (ManagedIdentity { endpoint, client_id: None, resource: RESOURCE.to_owned() }, server)
    }

    async fn read_head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    fn answer(status: u16, headers: &str, body: &str) -> String {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
    }

    /// As the caller builds it.
    fn http() -> reqwest::Client {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
        builder.redirect(reqwest::redirect::Policy::none()).no_proxy().build().unwrap()
    }

    async fn failed(answer: String) -> TokenFailure {
        let (identity, server) = imds(Some(answer)).await;
        let failure = identity.token(&http()).await.unwrap_err();
        server.await.unwrap();
        failure
    }

    #[tokio::test]
    async fn it_asks_as_imds_wants_it_and_takes_the_token() {
        for (client_id, query) in [
            (None, "api-version=2018-02-01&resource=api%3A%2F%2FAzureADTokenExchange"),
            (Some("6 &7"), "api-version=2018-02-01&resource=api%3A%2F%2FAzureADTokenExchange&client_id=6+%267"),
        ] {
            let (identity, server) = imds(Some(answer(200, "", TOKEN))).await;
            let identity = ManagedIdentity { client_id: client_id.map(str::to_owned), ..identity };
            assert_eq!(identity.token(&http()).await.unwrap().expose(), "eyJ0.tok-en_1");
            let head = server.await.unwrap();
            assert!(head.starts_with(&format!("GET /metadata/identity/oauth2/token?{query} HTTP/1.1\r\n")), "{head}");
            assert!(head.to_ascii_lowercase().contains("\r\nmetadata: true\r\n"), "{head}");
            assert!(!head.to_ascii_lowercase().contains("x-forwarded-for"), "{head}");
        }
    }

    #[tokio::test]
    async fn the_table() {
        let long = "x".repeat((1 << 20) + 1);
        let not_found = r#"{"error":"invalid_request","error_description":"Identity not found"}"#;
        let odd = r#"{"error":{"code":7},"message":"sesame"}"#;
        for (status, headers, body, class, text, advice) in [
            (400, "", not_found, Configuration, "says: Identity not found", "assign the managed identity"),
            (401, "", "", Configuration, "no reason", "federated credential"),
            (403, "", odd, Configuration, "no reason", "managed_identity.client_id"),
            (404, "", "", Transient, "no reason", "if it passes"),
            (408, "", "", Transient, "no reason", "if it passes"),
            (410, "", "", Transient, "no reason", "if it passes"),
            (429, "Retry-After: 7\r\n", "", Throttled, "no reason", "asks IMDS"),
            (500, "", not_found, Transient, "says: Identity not found", "if it passes"),
            (503, "Retry-After: 7\r\n", "<html>sesame</html>", Transient, "no reason", "if it passes"),
            (204, "", "", Unexpected, "no reason", "no answer of IMDS"),
            (307, "Location: http://127.0.0.1:9/sesame\r\n", "", Unexpected, "no reason", "no proxy"),
            (200, "", "", Unexpected, "not the JSON", "no answer of IMDS"),
            (200, "", "<html>sesame</html>", Unexpected, "not the JSON", "no answer of IMDS"),
            (200, "", r#"{"access_token":7}"#, Unexpected, "not the JSON", "no answer of IMDS"),
            (200, "", r#"{"access_token":""}"#, Unexpected, "empty", "no answer of IMDS"),
            (200, "", r#"{"access_token":"sesame\n"}"#, Unexpected, "not printable", "no answer of IMDS"),
            (200, "", &long, Unexpected, "longer than 1 MiB", "no answer of IMDS"),
            (502, "", &long, Transient, "longer than 1 MiB", "if it passes"),
        ] {
            let failure = failed(answer(status, headers, body)).await;
            assert_eq!((failure.class, failure.http_status), (class, Some(status)), "{failure:?}");
            assert!(failure.text.contains(text) && failure.advice.contains(advice), "{failure:?}");
            assert_eq!(failure.retry_after.is_some(), headers.contains("Retry-After"), "{failure:?}");
            assert!(!format!("{failure:?}").contains("sesame"), "{failure:?}");
        }
        let throttled = failed(answer(429, "Retry-After: 7\r\n", "")).await;
        assert_eq!(throttled.retry_after, Some(Duration::from_secs(7)));
    }

    #[tokio::test]
    async fn its_words_are_one_line_of_text() {
        let words = format!(
            r#"{{"error":"a\u001b[31m{}","error_description":"\r\n{}\nsesame"}}"#,
            "b".repeat(90),
            "c\\u0007".repeat(600)
        );
        let failure = failed(answer(400, "", &words)).await;
        assert_eq!(failure.error, Some(format!("a[31m{}", "b".repeat(LONGEST_WORD - 5))));
        assert_eq!(failure.text, format!("the managed identity endpoint says: {}", "c".repeat(LONGEST_TEXT)));
    }

    #[tokio::test]
    async fn nobody_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let endpoint = Url::parse(&format!("http://{address}/")).unwrap();
        let identity =
            ManagedIdentity { endpoint, client_id: Some("sesame".to_owned()), resource: RESOURCE.to_owned() };
        let failure = identity.token(&http()).await.unwrap_err();
        assert_eq!((failure.class, failure.http_status), (Transient, None));
        assert!(failure.text.starts_with(&format!("{address}: ")), "{failure:?}");
        assert!(failure.advice.contains("no managed identity endpoint"), "{failure:?}");
        assert!(!format!("{failure:?}").contains("sesame"), "{failure:?}");
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off() {
        let cut = answer(200, "", TOKEN).replace("Content-Length: ", "Content-Length: 9");
        let failure = failed(cut).await;
        assert_eq!((failure.class, failure.http_status), (Transient, Some(200)));
        assert!(!format!("{failure:?}").contains("tok-en"), "{failure:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_hangs() {
        let (identity, server) = imds(None).await;
        let failure = identity.token(&http()).await.unwrap_err();
        assert_eq!((failure.class, failure.http_status), (Transient, None));
        assert_eq!(failure.text, "no reply of the managed identity endpoint within 30 s");
        assert!(failure.advice.contains("169.254.169.254"), "{failure:?}");
        server.abort();
    }
}
