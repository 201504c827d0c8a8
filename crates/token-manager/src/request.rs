//! One token request: builds it with `oauth2`, sends it, and turns every possible answer into a token or a failure.
//!
//! It neither retries nor counts; `manager` does. `oauth2::RequestTokenError` is taken apart and never formatted: its
//! Debug prints the body as numbers, its Display repeats what the server said. Copies of the secret inside `oauth2` and
//! `reqwest` (form body) live as long as the request; ours are wiped.

use std::time::Duration;

use clock::Clock;
use oauth2::basic::{BasicRevocationErrorResponse, BasicTokenIntrospectionResponse};
use oauth2::{AuthType, Client, ClientId, ClientSecret, RequestTokenError, Scope, StandardRevocableToken, TokenUrl};
use zeroize::Zeroizing;

use crate::access_token::AccessToken;
use crate::advice::advice;
use crate::application::{Application, Grant};
use crate::failure::{FailureClass, Grounds, TokenFailure, classify};
use crate::http::{Endpoint, HttpError, Seen};
use crate::reply::{ErrorReply, TokenReply};
use crate::secret::Secret;

/// For the whole request, from connecting to the last octet of the reply.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A token that lives shorter than this is of no use to a mail session and would make us ask without pause.
const SHORTEST_LIFE: Duration = Duration::from_mins(1);

/// Entra ID gives 60-90 minutes, 28 hours at most (facts 4.2); what says more is not believed.
const LONGEST_LIFE: Duration = Duration::from_hours(48);

const LONGEST_TEXT: usize = 500;
const LONGEST_WORD: usize = 80;
const MOST_CODES: usize = 8;

type EntraClient<A, D, I, R, T> = Client<
    ErrorReply,
    TokenReply,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    A,
    D,
    I,
    R,
    T,
>;
type Unset = oauth2::EndpointNotSet;
type Refusal = RequestTokenError<HttpError, ErrorReply>;

/// A token with what the schedule needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) token: AccessToken,
    pub(crate) lifetime: Duration,
    pub(crate) refresh_in: Option<Duration>,
    pub(crate) extended_lifetime: Option<Duration>,
}

/// Asks once, bounded by [`REQUEST_TIMEOUT`].
pub(crate) async fn request_token(
    http: &reqwest::Client,
    application: &Application,
    secret: &Secret,
    clock: &dyn Clock,
) -> Result<Issued, TokenFailure> {
    // The life of the token is counted from here, so that a slow reply never makes it look longer.
    let asked = clock.wall();
    let endpoint = Endpoint::new(http.clone(), application.proxy.clone());
    let answer = match application.grant {
        Grant::ClientCredentials => {
            tokio::time::timeout(REQUEST_TIMEOUT, client_credentials(&endpoint, application, secret)).await
        }
    };
    let seen = endpoint.seen();
    let reply = match answer {
        Err(_) => {
            return Err(failure(
                FailureClass::Transient,
                &seen,
                format!("no reply within {} s", REQUEST_TIMEOUT.as_secs()),
            ));
        }
        Ok(Err(refusal)) => return Err(refused(refusal, &seen, secret)),
        Ok(Ok(reply)) => reply,
    };
    accept(reply, asked).map_err(|text| failure(FailureClass::Unexpected, &seen, text))
}

async fn client_credentials(
    endpoint: &Endpoint,
    application: &Application,
    secret: &Secret,
) -> Result<TokenReply, Refusal> {
    let client: EntraClient<Unset, Unset, Unset, Unset, Unset> =
        Client::new(ClientId::new(application.client_id.clone()));
    client
        .set_auth_type(AuthType::RequestBody)
        .set_client_secret(ClientSecret::new(secret.expose().to_owned()))
        .set_token_uri(TokenUrl::from_url(application.token_endpoint.clone()))
        .exchange_client_credentials()
        .add_scope(Scope::new(application.scope.clone()))
        .request_async(endpoint)
        .await
}

fn accept(reply: TokenReply, asked: clock::WallTime) -> Result<Issued, String> {
    if !reply.is_bearer() {
        return Err("the reply's token is not of type Bearer".to_owned());
    }
    let lifetime = reply.lifetime().ok_or("the reply does not say how long the token lives")?.min(LONGEST_LIFE);
    if lifetime < SHORTEST_LIFE {
        return Err(format!("the reply's token lives only {} s", lifetime.as_secs()));
    }
    let (refresh_in, extended_lifetime) = (reply.refresh_in(), reply.extended_lifetime());
    let token = AccessToken::new(reply.into_token(), asked + lifetime).map_err(|error| error.to_string())?;
    Ok(Issued { token, lifetime, refresh_in, extended_lifetime })
}

fn refused(refusal: Refusal, seen: &Seen, secret: &Secret) -> TokenFailure {
    match refusal {
        RequestTokenError::ServerResponse(reply) => explained(reply, seen, secret),
        RequestTokenError::Request(HttpError::Network(text)) => {
            failure(FailureClass::Transient, seen, filter(&text, LONGEST_TEXT, secret))
        }
        RequestTokenError::Request(error) => failure(by_status(seen), seen, error.to_string()),
        RequestTokenError::Parse(_, body) => {
            let body = Zeroizing::new(body);
            // An error with status 200 was taken for a token by a peer (fluent-smtp#407).
            match serde_json::from_slice(&body) {
                Ok(reply) => explained(reply, seen, secret),
                Err(_) => failure(by_status(seen), seen, "the reply is not the JSON of a token endpoint".to_owned()),
            }
        }
        RequestTokenError::Other(_) => failure(by_status(seen), seen, "the reply is empty or not JSON".to_owned()),
    }
}

fn by_status(seen: &Seen) -> FailureClass {
    classify(Grounds { http_status: seen.http_status, ..Grounds::default() })
}

/// The failure that the endpoint itself explains.
fn explained(reply: ErrorReply, seen: &Seen, secret: &Secret) -> TokenFailure {
    let class = classify(Grounds {
        http_status: seen.http_status,
        error: Some(&reply.error),
        suberror: reply.suberror.as_deref(),
        claims: reply.claims.is_some(),
    });
    let word = |text: String| Some(filter(&text, LONGEST_WORD, secret));
    let text = filter(reply.error_description.as_deref().unwrap_or("no description"), LONGEST_TEXT, secret);
    let mut codes = reply.error_codes;
    codes.truncate(MOST_CODES);
    let from_header = failure(class, seen, text);
    TokenFailure {
        error: word(reply.error),
        trace_id: reply.trace_id.and_then(word).or(from_header.trace_id),
        correlation_id: reply.correlation_id.and_then(word),
        advice: advice(class, &codes).to_owned(),
        codes,
        ..from_header
    }
}

/// A failure without an explanation of the endpoint's. `text` is ours or filtered.
fn failure(class: FailureClass, seen: &Seen, text: String) -> TokenFailure {
    TokenFailure {
        class,
        http_status: seen.http_status,
        error: None,
        codes: Vec::new(),
        // Nothing secret was filtered here: a header that repeats a whole form parameter is no id and is left out.
        trace_id: seen.request_id.as_deref().filter(|id| is_id(id)).map(str::to_owned),
        correlation_id: None,
        retry_after: seen.retry_after,
        advice: advice(class, &[]).to_owned(),
        text,
    }
}

/// The failure of a credential that could not even be read.
pub(crate) fn unreadable_credential(place: &str, error: &str) -> TokenFailure {
    let text = format!("{place}: {error}");
    TokenFailure {
        advice: format!(
            "it must be there, hold the secret's Value and nothing else, and be readable for the user that runs this: {place}"
        ),
        ..failure(FailureClass::Credential, &Seen::default(), text)
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|octet| octet.is_ascii_hexdigit() || octet == b'-')
}

/// The first line of a text of the network's, without control characters, at most `longest` characters. A text that
/// repeats our secret, as a helpful proxy's might, is withheld altogether.
fn filter(text: &str, longest: usize, secret: &Secret) -> String {
    let encoded: Zeroizing<String> =
        Zeroizing::new(url::form_urlencoded::byte_serialize(secret.expose().as_bytes()).collect());
    if text.contains(secret.expose()) || text.contains(encoded.as_str()) {
        return "(withheld: it repeats the secret)".to_owned();
    }
    let line = text.trim_start().lines().next().unwrap_or_default();
    line.chars().filter(|char| !char.is_control()).take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new("s3~+/cret".to_owned()).unwrap()
    }

    #[test]
    fn filter_table() {
        for (text, expected) in [
            ("AADSTS7000215: wrong.\r\nTrace ID: 1\r\nTimestamp: 2", "AADSTS7000215: wrong."),
            ("\n\u{1b}[31mred\u{7}", "[31mred"),
            ("you sent s3~+/cret", "(withheld: it repeats the secret)"),
            ("client_secret=s3%7E%2B%2Fcret&", "(withheld: it repeats the secret)"),
            ("first\nclient_secret=s3~+/cret", "(withheld: it repeats the secret)"),
            ("", ""),
        ] {
            assert_eq!(filter(text, 500, &secret()), expected, "{text:?}");
        }
        assert_eq!(filter(&"ä".repeat(600), 500, &secret()).chars().count(), 500);
    }

    #[test]
    fn accept_table() {
        let asked = clock::WallTime::from_unix_millis(1_000);
        let accept = |json: &str| accept(serde_json::from_str(json).unwrap(), asked);
        for (json, text) in [
            (r#"{"token_type":"Bearer","expires_in":3599,"access_token":""}"#, "empty"),
            (r#"{"token_type":"Bearer","expires_in":3599,"access_token":"a\u0001b"}"#, "not printable"),
            (r#"{"token_type":"Bearer","access_token":"a"}"#, "how long"),
            (r#"{"token_type":"Bearer","expires_in":0,"access_token":"a"}"#, "only 0 s"),
            (r#"{"token_type":"pop","expires_in":3599,"access_token":"a"}"#, "Bearer"),
        ] {
            assert!(accept(json).unwrap_err().contains(text), "{json}");
        }
        let issued =
            accept(r#"{"token_type":"Bearer","expires_in":9999999999999,"refresh_in":"7","access_token":"a"}"#)
                .unwrap();
        assert_eq!((issued.lifetime, issued.refresh_in), (LONGEST_LIFE, Some(Duration::from_secs(7))));
        assert_eq!(issued.token.expires_at(), asked + LONGEST_LIFE);
    }

    #[test]
    fn only_a_guid_is_taken_for_a_trace_id() {
        assert!(is_id("ab2a65b2-0c3d-4b5a-9f1e-2a3b4c5d6e00"));
        assert!(!is_id("s3cret") && !is_id(&"z".repeat(36)));
    }
}
