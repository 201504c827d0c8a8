//! One request to an endpoint of Entra ID: puts the form together, sends it, and turns every possible answer into a token,
//! a device code or a failure.
//!
//! It neither retries nor counts; whoever calls does.

use std::time::Duration;

use clock::{Clock, WallTime};
use serde::de::DeserializeOwned;
use url::Url;
use zeroize::Zeroizing;

use crate::access_token::AccessToken;
use crate::advice::advice;
use crate::application::Application;
use crate::credential::Proof;
use crate::failure::{FailureClass, Grounds, TokenFailure, classify};
use crate::form::Form;
use crate::http::{Exchange, HttpError, Seen, post};
use crate::reply::{DeviceReply, ErrorReply, TokenReply};
use crate::secret::Secret;

/// For the whole request, from connecting to the last octet of the reply.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A token that lives shorter than this is of no use to a mail session and would make us ask without pause.
const SHORTEST_LIFE: Duration = Duration::from_mins(1);

/// Entra ID gives 60-90 minutes, 28 hours at most (facts 4.2); what says more is not believed.
const LONGEST_LIFE: Duration = Duration::from_hours(48);

pub(crate) const LONGEST_TEXT: usize = 500;
pub(crate) const LONGEST_WORD: usize = 80;
const MOST_CODES: usize = 8;

/// By what right a token is asked for in one request.
pub(crate) enum Asked<'a> {
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// RFC 6749 section 6.
    RefreshToken(&'a Secret),
    /// RFC 6749 section 4.1.3, with RFC 7636 section 4.5.
    AuthorizationCode { code: &'a Secret, verifier: &'a Secret, redirect_uri: &'a str },
    /// RFC 8628 section 3.4.
    DeviceCode(&'a Secret),
}

/// A token with what the schedule needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) token: AccessToken,
    pub(crate) lifetime: Duration,
    pub(crate) refresh_in: Option<Duration>,
    pub(crate) extended_lifetime: Option<Duration>,
}

/// All that a good answer brings.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) issued: Issued,
    /// It takes the place of the one before.
    pub(crate) refresh_token: Option<Secret>,
    /// Who signed in.
    pub(crate) account: Option<String>,
}

/// An answer that is of no use, with what of it must not be lost all the same.
#[derive(Debug)]
pub(crate) struct Useless {
    pub(crate) failure: TokenFailure,
    /// It takes the place of the one before, which the endpoint may have used up.
    pub(crate) refresh_token: Option<Secret>,
}

impl From<TokenFailure> for Box<Useless> {
    fn from(failure: TokenFailure) -> Self {
        Self::new(Useless { failure, refresh_token: None })
    }
}

/// Asks for a token once, bounded by [`REQUEST_TIMEOUT`].
pub(crate) async fn request_token(
    http: &reqwest::Client,
    application: &Application,
    proof: &Proof<'_>,
    asked: &Asked<'_>,
    clock: &dyn Clock,
) -> Result<Answer, Box<Useless>> {
    // The life of the token is counted from here, so that a slow reply never makes it look longer.
    let sent = clock.wall();
    let form = token_form(application, proof, asked);
    let (seen, mut reply) = ask::<TokenReply>(http, application, &application.endpoints.token, &form).await?;
    let refresh_token = reply.take_refresh_token().and_then(|token| Secret::new(token).ok());
    let account = reply.account();
    match accept(reply, sent) {
        Ok(issued) => Ok(Answer { issued, refresh_token, account }),
        Err(text) => Err(Box::new(Useless { failure: failure(FailureClass::Unexpected, &seen, text), refresh_token })),
    }
}

/// Asks for a device code once (RFC 8628 section 3.1), bounded by [`REQUEST_TIMEOUT`].
pub(crate) async fn request_device_code(
    http: &reqwest::Client,
    application: &Application,
    proof: &Proof<'_>,
) -> Result<(Seen, DeviceReply), TokenFailure> {
    let form = Form::default().with("client_id", &application.client_id).with("scope", &application.scope);
    ask(http, application, &application.endpoints.device_authorization, &proof.add_to(form)).await
}

fn token_form(application: &Application, proof: &Proof<'_>, asked: &Asked<'_>) -> Form {
    let form = Form::default().with("client_id", &application.client_id);
    let form = match asked {
        Asked::ClientCredentials => form.with("grant_type", "client_credentials").with("scope", &application.scope),
        Asked::RefreshToken(token) => form
            .with("grant_type", "refresh_token")
            .with_secret("refresh_token", token)
            .with("scope", &application.scope),
        Asked::AuthorizationCode { code, verifier, redirect_uri } => form
            .with("grant_type", "authorization_code")
            .with_secret("code", code)
            .with_secret("code_verifier", verifier)
            .with("redirect_uri", *redirect_uri),
        Asked::DeviceCode(code) => {
            form.with("grant_type", "urn:ietf:params:oauth:grant-type:device_code").with_secret("device_code", code)
        }
    };
    proof.add_to(form)
}

async fn ask<T: DeserializeOwned>(
    http: &reqwest::Client,
    application: &Application,
    endpoint: &Url,
    form: &Form,
) -> Result<(Seen, T), TokenFailure> {
    let exchange = post(http, endpoint, form, application.proxy.as_deref());
    let Ok(Exchange { seen, body }) = tokio::time::timeout(REQUEST_TIMEOUT, exchange).await else {
        return Err(no_reply());
    };
    let body = body.map_err(|error| unheard(&error, &seen, form))?;
    match serde_json::from_slice(&body) {
        Ok(reply) if seen.http_status == Some(200) => Ok((seen, reply)),
        // An error with status 200 was taken for a token by a peer (fluent-smtp#407).
        _ => Err(refused(&body, &seen, form)),
    }
}

fn accept(reply: TokenReply, sent: WallTime) -> Result<Issued, String> {
    if !reply.is_bearer() {
        return Err("the reply's token is not of type Bearer".to_owned());
    }
    let lifetime = reply.lifetime().ok_or("the reply does not say how long the token lives")?.min(LONGEST_LIFE);
    if lifetime < SHORTEST_LIFE {
        return Err(format!("the reply's token lives only {} s", lifetime.as_secs()));
    }
    let (refresh_in, extended_lifetime) = (reply.refresh_in(), reply.extended_lifetime());
    let token = AccessToken::new(reply.into_token(), sent + lifetime).map_err(|error| error.to_string())?;
    Ok(Issued { token, lifetime, refresh_in, extended_lifetime })
}

/// Nothing came in time.
pub(crate) fn no_reply() -> TokenFailure {
    let text = format!("no reply within {} s", REQUEST_TIMEOUT.as_secs());
    failure(FailureClass::Transient, &Seen::default(), text)
}

/// No whole reply came.
pub(crate) fn unheard(error: &HttpError, seen: &Seen, form: &Form) -> TokenFailure {
    match error {
        HttpError::Network(text) => failure(FailureClass::Transient, seen, filter(text, LONGEST_TEXT, form)),
        HttpError::TooLong => failure(by_status(seen), seen, error.to_string()),
    }
}

/// What came was not what was asked for.
pub(crate) fn refused(body: &Zeroizing<Vec<u8>>, seen: &Seen, form: &Form) -> TokenFailure {
    match serde_json::from_slice::<ErrorReply>(body) {
        Ok(reply) => explained(reply, seen, form),
        Err(_) if body.is_empty() => failure(by_status(seen), seen, "the reply is empty".to_owned()),
        Err(_) => failure(by_status(seen), seen, "the reply is not the JSON of a token endpoint".to_owned()),
    }
}

fn by_status(seen: &Seen) -> FailureClass {
    classify(Grounds { http_status: seen.http_status, ..Grounds::default() })
}

/// The failure that the endpoint itself explains.
fn explained(reply: ErrorReply, seen: &Seen, form: &Form) -> TokenFailure {
    let class = classify(Grounds {
        http_status: seen.http_status,
        error: Some(&reply.error),
        suberror: reply.suberror.as_deref(),
        claims: reply.claims.is_some(),
    });
    let word = |text: String| Some(filter(&text, LONGEST_WORD, form));
    let text = filter(reply.error_description.as_deref().unwrap_or("no description"), LONGEST_TEXT, form);
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
pub(crate) fn failure(class: FailureClass, seen: &Seen, text: String) -> TokenFailure {
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

/// The failure of a credential that could not even be read. `place` says which and where.
pub(crate) fn unusable_credential(place: &str, error: &str) -> TokenFailure {
    TokenFailure {
        advice: format!(
            "it must be there, hold what it is for and nothing else (of a secret its Value), and be readable for the user that runs this: {place}"
        ),
        ..failure(FailureClass::Credential, &Seen::default(), format!("{place}: {error}"))
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|octet| octet.is_ascii_hexdigit() || octet == b'-')
}

/// The first line of a text of the network's, without control characters, at most `longest` characters. A text that
/// repeats a secret of ours is withheld altogether.
pub(crate) fn filter(text: &str, longest: usize, form: &Form) -> String {
    if form.is_repeated_in(text) {
        return "(withheld: it repeats the secret)".to_owned();
    }
    line(text, longest)
}

/// The same of a text that can repeat no secret.
pub(crate) fn line(text: &str, longest: usize) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    line.chars().filter(|char| !char.is_control()).take(longest).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form() -> Form {
        Form::default().with_secret("client_secret", &Secret::new("s3~+/cret".to_owned()).unwrap())
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
            assert_eq!(filter(text, 500, &form()), expected, "{text:?}");
        }
        assert_eq!(filter(&"ä".repeat(600), 500, &form()).chars().count(), 500);
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

    proptest! {
        /// Whatever comes back, what is said of it is one printable line of bounded length that repeats no secret.
        #[test]
        fn no_body_is_too_strange(
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                any::<String>().prop_map(|text| serde_json::json!({ "error": text, "error_description": text }).to_string().into_bytes()),
                any::<String>().prop_map(|text| format!(r#"{{"error":"e","error_description":"{text} s3~+/cret"}}"#).into_bytes()),
            ],
            status in prop::option::of(100u16..600),
        ) {
            let seen = Seen { http_status: status, ..Seen::default() };
            let failure = refused(&Zeroizing::new(body), &seen, &form());
            let said = format!("{failure} {}", failure.advice);
            prop_assert!(!said.contains("s3~+/cret") && !said.chars().any(char::is_control), "{said:?}");
            prop_assert!(failure.text.chars().count() <= LONGEST_TEXT);
            prop_assert!(failure.error.is_none_or(|error| error.chars().count() <= LONGEST_WORD));
        }
    }
}
