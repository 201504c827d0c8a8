//! Entra ID's token endpoint as a pure answer: form parameters in, token or AADSTS error out (facts 4.2, 4.6). Only the
//! `client_credentials` grant with a secret so far. HTTP is `endpoint`'s.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clock::WallTime;
use serde::Serialize;
use url::form_urlencoded;

use crate::counters::count;
use crate::fault::{OddToken, TokenFault};
use crate::tenant::{Application, TenantModel};
use crate::token::{self, guid};
use crate::world::World;

/// The parts of an HTTP request that the endpoint looks at.
pub(crate) struct TokenRequest<'a> {
    /// The first segment of the path: a GUID or a domain.
    pub(crate) tenant: &'a str,
    pub(crate) authorization: Option<&'a str>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

impl TokenRequest<'_> {
    /// Who says to ask, whether or not it is true.
    pub(crate) fn client_id(&self) -> Option<String> {
        let form = Form::parse(self).ok()?;
        let in_header = || Some(decode_basic(self.authorization?)?.0);
        form.optional("client_id").map(str::to_owned).or_else(in_header)
    }
}

/// The 200 body (facts 4.2); no refresh token for an application.
#[derive(Debug, Serialize)]
pub(crate) struct TokenReply {
    token_type: &'static str,
    expires_in: u64,
    ext_expires_in: u64,
    access_token: String,
    /// Only in an answer that a fault made enormous.
    #[serde(skip_serializing_if = "Option::is_none")]
    padding: Option<String>,
}

/// An error of the endpoint (facts 4.6).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EntraError {
    pub(crate) status: u16,
    pub(crate) error: String,
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) retry_after: Option<u32>,
}

impl EntraError {
    pub(crate) fn new(status: u16, error: &str, code: u32, message: impl Into<String>) -> Self {
        Self { status, error: error.to_owned(), code, message: message.into(), retry_after: None }
    }

    fn missing(parameter: &str) -> Self {
        let text = format!("The request body must contain the following parameter: '{parameter}'.");
        Self::new(400, "invalid_request", 900_144, text)
    }

    fn no_credential() -> Self {
        let text = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
        Self::new(401, "invalid_client", 7_000_218, text)
    }

    /// The JSON body, with fresh trace and correlation ids.
    pub(crate) fn json(&self, now: WallTime) -> Vec<u8> {
        let (trace, correlation, time) = (guid(), guid(), entra_time(now));
        let description = format!(
            "AADSTS{}: {}\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {time}",
            self.code, self.message
        );
        let body = ErrorBody {
            error: &self.error,
            error_description: description,
            error_codes: [self.code],
            timestamp: time,
            trace_id: trace,
            correlation_id: correlation,
            error_uri: format!("https://login.microsoftonline.com/error?code={}", self.code),
        };
        serde_json::to_vec(&body).expect("a struct of strings and integers always serialises")
    }
}

impl From<TokenFault> for EntraError {
    fn from(fault: TokenFault) -> Self {
        let TokenFault { status, error, code, message, retry_after } = fault;
        Self { status, error, code, message, retry_after }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_description: String,
    error_codes: [u32; 1],
    timestamp: String,
    trace_id: String,
    correlation_id: String,
    error_uri: String,
}

/// `2026-11-21 08:34:00Z`, Entra's own form.
fn entra_time(now: WallTime) -> String {
    let time = now.rfc3339();
    let (date, time) = time.split_once('T').unwrap_or((&time, ""));
    format!("{date} {}Z", time.split('.').next().unwrap_or_default())
}

/// Answers a token request, oddly if a fault wants that.
pub(crate) fn answer(
    world: &World,
    request: &TokenRequest<'_>,
    odd: Option<OddToken>,
) -> Result<TokenReply, EntraError> {
    let form = Form::parse(request)?;
    let directory = world.directory();
    let tenant = find_tenant(directory.tenant(request.tenant), request.tenant)?;
    check_grant_type(form.required("grant_type")?)?;
    let credentials = Credentials::of(request, &form)?;
    let application = tenant
        .find_application(&credentials.client_id)
        .ok_or_else(|| unknown_application(&credentials.client_id, request.tenant))?;
    let scope = form.required("scope")?;
    let audience = token::audience(scope).ok_or_else(|| bad_scope(scope))?;
    let kind = format!("{}\n{}\n{audience}", tenant.tenant_id, application.client_id);
    if world.has_limits() && !world.requests.note(&kind, world.clock.monotonic()) {
        return Err(EntraError::new(
            400,
            "invalid_grant",
            50_196,
            "The server terminated an operation because it encountered a client request loop. \
             Please contact your app vendor.",
        ));
    }
    credentials.check(application)?;
    let lifetime = match odd {
        Some(OddToken::Lifetime(lifetime)) => Some(lifetime),
        _ => world.conditions().token_lifetime,
    };
    let issued = world.mint.issue(tenant, application, audience, lifetime, world.clock.as_ref());
    count(&world.tally.tokens_issued);
    Ok(TokenReply {
        token_type: "Bearer",
        expires_in: issued.expires_in,
        ext_expires_in: issued.expires_in,
        access_token: if odd == Some(OddToken::Empty) { String::new() } else { issued.token },
        padding: match odd {
            Some(OddToken::Padded(octets)) => Some("x".repeat(octets)),
            _ => None,
        },
    })
}

fn find_tenant<'a>(found: Option<&'a TenantModel>, name: &str) -> Result<&'a TenantModel, EntraError> {
    if ["common", "organizations", "consumers"].contains(&name.to_ascii_lowercase().as_str()) {
        let text = format!(
            "The grant type is not supported over the /{name} endpoint. Please use the tenant-specific endpoint."
        );
        return Err(EntraError::new(400, "invalid_request", 9_001_023, text));
    }
    found.ok_or_else(|| {
        let text = format!(
            "Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the \
             correct cloud. Check with your subscription administrator, this may happen if there are no active \
             subscriptions for the tenant."
        );
        EntraError::new(400, "invalid_request", 90_002, text)
    })
}

fn check_grant_type(grant_type: &str) -> Result<(), EntraError> {
    if grant_type == "client_credentials" {
        return Ok(());
    }
    let text = format!("The app requested an unsupported grant type '{grant_type}'.");
    Err(EntraError::new(400, "unsupported_grant_type", 70_003, text))
}

fn unknown_application(client_id: &str, tenant: &str) -> EntraError {
    let text = format!(
        "Application with identifier '{client_id}' was not found in the directory '{tenant}'. This can happen if the \
         application has not been installed by the administrator of the tenant or consented to by any user in the \
         tenant. You may have sent your authentication request to the wrong tenant."
    );
    EntraError::new(400, "unauthorized_client", 700_016, text)
}

fn bad_scope(scope: &str) -> EntraError {
    let text = format!(
        "The provided request must include a 'scope' input parameter. The provided value for the input parameter \
         'scope' is not valid. The scope {scope} is not valid."
    );
    EntraError::new(400, "invalid_scope", 70_011, text)
}

/// A parsed form body.
struct Form(Vec<(String, String)>);

impl Form {
    /// A body of another type has no parameters for Entra. A parameter given twice is an error.
    fn parse(request: &TokenRequest<'_>) -> Result<Self, EntraError> {
        let is_form = request.content_type.is_some_and(|content_type| {
            let essence = content_type.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
        let body = if is_form { request.body } else { b"" };
        let pairs: Vec<(String, String)> = form_urlencoded::parse(body).into_owned().collect();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                let text = format!("The request is not properly formatted. The parameter '{name}' is duplicated.");
                return Err(EntraError::new(400, "invalid_request", 9_000_411, text));
            }
        }
        Ok(Self(pairs))
    }

    /// An empty value is a missing one (RFC 6749 section 3.2).
    fn optional(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    fn required(&self, name: &str) -> Result<&str, EntraError> {
        self.optional(name).ok_or_else(|| EntraError::missing(name))
    }
}

/// Who asks, and with which secret. Never in Debug output.
struct Credentials {
    client_id: String,
    secret: Option<String>,
    has_assertion: bool,
}

impl Credentials {
    /// From the form, or from HTTP Basic; both at once is an error (RFC 6749 section 2.3).
    fn of(request: &TokenRequest<'_>, form: &Form) -> Result<Self, EntraError> {
        let has_assertion = form.optional("client_assertion").is_some();
        let in_form = form.optional("client_secret").map(str::to_owned);
        let Some(header) = request.authorization else {
            let client_id = form.required("client_id")?.to_owned();
            return Ok(Self { client_id, secret: in_form, has_assertion });
        };
        let (client_id, secret) = decode_basic(header).ok_or_else(malformed)?;
        let is_contradicted = form.optional("client_id").is_some_and(|other| other != client_id);
        if is_contradicted || in_form.is_some() || has_assertion {
            return Err(malformed());
        }
        Ok(Self { client_id, secret: Some(secret), has_assertion })
    }

    fn check(&self, application: &Application) -> Result<(), EntraError> {
        let Some(secret) = &self.secret else {
            return Err(if self.has_assertion { unknown_certificate() } else { EntraError::no_credential() });
        };
        if application.secrets.contains(secret) {
            return Ok(());
        }
        let text = format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, \
             not the client secret ID, for a secret added to app '{}'.",
            application.client_id
        );
        Err(EntraError::new(401, "invalid_client", 7_000_215, text))
    }
}

/// No application of the sandbox has a certificate yet, so no assertion can match one.
fn unknown_certificate() -> EntraError {
    let text = "The certificate with identifier used to sign the client assertion is not registered on application.";
    EntraError::new(401, "invalid_client", 700_027, text)
}

fn malformed() -> EntraError {
    EntraError::new(400, "invalid_request", 90_023, "The authentication service request isn't valid.")
}

/// RFC 6749 section 2.3.1: both halves are form-encoded before they are joined and encoded again.
fn decode_basic(header: &str) -> Option<(String, String)> {
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
