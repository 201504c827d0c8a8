//! How a client proves itself at the token endpoint: a secret in the form or by HTTP Basic, an assertion, or nothing if
//! it is public (facts 4.2, 4.5). An assertion itself is `assertion`'s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::form_urlencoded;

use super::{Asked, EntraError, Form, GrantType, TokenRequest, assertion};

/// RFC 7523 section 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Who asks, and with what proof. Never in Debug output.
pub(super) struct Credentials {
    pub(super) client_id: String,
    proof: Proof,
}

enum Proof {
    None,
    Secret(String),
    Assertion(String),
}

impl Credentials {
    /// From the form, or from HTTP Basic; two proofs at once are an error (RFC 6749 section 2.3).
    pub(super) fn of(request: &TokenRequest<'_>, form: &Form) -> Result<Self, EntraError> {
        let in_form = match (form.optional("client_secret"), form.optional("client_assertion")) {
            (None, None) => Proof::None,
            (Some(secret), None) => Proof::Secret(secret.to_owned()),
            (None, Some(assertion)) => {
                if form.required("client_assertion_type")? != JWT_BEARER {
                    return Err(EntraError::malformed());
                }
                Proof::Assertion(assertion.to_owned())
            }
            (Some(_), Some(_)) => return Err(EntraError::malformed()),
        };
        let Some(header) = request.authorization else {
            return Ok(Self { client_id: form.required("client_id")?.to_owned(), proof: in_form });
        };
        let (client_id, secret) = decode_basic(header).ok_or_else(EntraError::malformed)?;
        let is_contradicted = form.optional("client_id").is_some_and(|other| other != client_id);
        if is_contradicted || !matches!(in_form, Proof::None) {
            return Err(EntraError::malformed());
        }
        Ok(Self { client_id, proof: Proof::Secret(secret) })
    }

    pub(super) fn check(&self, asked: &Asked<'_>, grant: GrantType) -> Result<(), EntraError> {
        let application = asked.application;
        match &self.proof {
            Proof::None if application.public_client && grant != GrantType::ClientCredentials => Ok(()),
            Proof::None => Err(no_credential()),
            _ if application.public_client => Err(public_client()),
            Proof::Assertion(assertion) => assertion::check(asked, assertion),
            Proof::Secret(secret) if application.secrets.contains(secret) => Ok(()),
            Proof::Secret(secret) if application.expired_secrets.contains(secret) => {
                let id = &application.client_id;
                let text = format!("The provided client secret keys for app '{id}' are expired.");
                Err(EntraError::client(7_000_222, text))
            }
            Proof::Secret(_) => {
                let text = format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
                     value, not the client secret ID, for a secret added to app '{}'.",
                    application.client_id
                );
                Err(EntraError::client(7_000_215, text))
            }
        }
    }
}

fn no_credential() -> EntraError {
    let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
    EntraError::client(7_000_218, text)
}

fn public_client() -> EntraError {
    let text = "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.";
    EntraError::client(700_025, text)
}

/// RFC 6749 section 2.3.1: both halves are form-encoded before they are joined and encoded again.
pub(super) fn decode_basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let joined = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (client_id, secret) = joined.split_once(':')?;
    Some((form_decode(client_id), form_decode(secret)))
}

fn form_decode(text: &str) -> String {
    // An `&` or `=` cannot stand in a form-encoded half; what is behind one is not part of the value.
    form_urlencoded::parse(format!("v={text}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}
