//! The authorization request that a browser carries, with PKCE (RFC 7636) and a state, and the callback that it brings back.
//! Pure but for the randomness it is made with.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{constant_time, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;
use zeroize::Zeroizing;

use crate::application::Application;
use crate::form::parameter;
use crate::request::{LONGEST_TEXT, line};
use crate::secret::Secret;

/// Octets of a verifier and of a state: 256 bits, 43 characters in base64url as RFC 7636 section 4.1 wants at least.
const RANDOM: usize = 32;

/// An authorization request under way.
pub struct AuthorizationRequest {
    url: Url,
    state: Secret,
    pub(super) verifier: Secret,
    pub(super) redirect_uri: String,
}

/// Why a callback brings no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCallback {
    /// It is no URL, or one without code and error.
    #[error("this is not the address that the browser ended at: it must hold code= and state=")]
    NoCallback,
    /// It belongs to another request, or to nobody's.
    #[error("this address belongs to another sign-in: use the one of the link shown last")]
    OtherState,
    /// The endpoint says no. What it said, one line without control characters.
    #[error("the sign-in was refused: {0}")]
    Refused(String),
}

impl AuthorizationRequest {
    pub(super) fn new(application: &Application, redirect_uri: &str, hint: Option<&str>) -> Self {
        let (state, verifier) = (random(), random());
        let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.expose().as_bytes()));
        let mut url = application.endpoints.authorization.clone();
        url.query_pairs_mut()
            .append_pair("client_id", &application.client_id)
            .append_pair("response_type", "code")
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("response_mode", "query")
            .append_pair("scope", &application.scope)
            .append_pair("state", state.expose())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if let Some(hint) = hint {
            url.query_pairs_mut().append_pair("login_hint", hint);
        }
        Self { url, state, verifier, redirect_uri: redirect_uri.to_owned() }
    }

    /// Where the browser goes.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The code in `callback`: the address that the browser came back to, whole, or its path and query.
    pub fn accept(&self, callback: &str) -> Result<Secret, BadCallback> {
        let (_, query) = callback.trim().split_once('?').ok_or(BadCallback::NoCallback)?;
        let query = query.split('#').next().unwrap_or_default();
        let state = parameter(query, "state");
        let is_ours = |state: &Zeroizing<String>| {
            constant_time::verify_slices_are_equal(state.as_bytes(), self.state.expose().as_bytes()).is_ok()
        };
        if !state.as_ref().is_some_and(is_ours) {
            let is_callback = parameter(query, "code").or_else(|| parameter(query, "error")).is_some();
            return Err(if is_callback { BadCallback::OtherState } else { BadCallback::NoCallback });
        }
        if let Some(error) = parameter(query, "error") {
            let description = parameter(query, "error_description").unwrap_or_default();
            let text = format!("{}: {}", error.as_str(), line(&description, LONGEST_TEXT));
            return Err(BadCallback::Refused(line(&text, LONGEST_TEXT)));
        }
        let code = parameter(query, "code").ok_or(BadCallback::NoCallback)?;
        Secret::new(code).map_err(|_| BadCallback::NoCallback)
    }
}

/// 256 random bits in base64url.
fn random() -> Secret {
    let mut octets = Zeroizing::new([0; RANDOM]);
    SystemRandom::new().fill(&mut *octets).expect("the system's randomness does not fail once the process runs");
    Secret::new(URL_SAFE_NO_PAD.encode(*octets)).expect("base64url is text of one line")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::application::{Endpoints, Grant};
    use crate::credential::Credential;
    use crate::kinship::Kinship;

    fn request() -> AuthorizationRequest {
        let application = Application {
            name: "contoso".to_owned(),
            tenant_id: "contoso.com".to_owned(),
            client_id: "66666666-7777-8888-9999-000000000000".to_owned(),
            endpoints: Endpoints::of(&Url::parse("https://login.example").unwrap(), "contoso.com"),
            proxy: None,
            scope: "https://outlook.office.com/SMTP.Send offline_access".to_owned(),
            credential: Credential::Public,
            secret_expires: None,
            grant: Grant::ClientCredentials,
            kinship: Kinship::default(),
        };
        AuthorizationRequest::new(&application, "http://localhost:1234", Some("scanner@contoso.com"))
    }

    #[test]
    fn the_url_carries_the_challenge_and_not_the_verifier() {
        let request = request();
        let value = |name: &str| parameter(request.url().query().unwrap(), name).unwrap().to_string();
        assert!(request.url().as_str().starts_with("https://login.example/contoso.com/oauth2/v2.0/authorize?"));
        assert_eq!(value("redirect_uri"), "http://localhost:1234");
        assert_eq!(value("scope"), "https://outlook.office.com/SMTP.Send offline_access");
        assert_eq!(value("login_hint"), "scanner@contoso.com");
        assert_eq!(value("code_challenge_method"), "S256");
        let digest = digest::digest(&digest::SHA256, request.verifier.expose().as_bytes());
        assert_eq!(value("code_challenge"), URL_SAFE_NO_PAD.encode(digest));
        assert!(!request.url().as_str().contains(request.verifier.expose()));
        assert_eq!((value("state").len(), request.verifier.expose().len()), (43, 43));
        assert_ne!(value("state"), self::request().state.expose());
    }

    #[test]
    fn callbacks() {
        let request = request();
        let state = request.state.expose();
        for callback in [
            format!("http://localhost:1234/?code=c%2B1&state={state}"),
            format!("/?state={state}&session_state=x&code=c%2B1#"),
            format!("  http://localhost:1234?code=c%2B1&state={state}\n"),
        ] {
            assert_eq!(request.accept(&callback).unwrap().expose(), "c+1", "{callback}");
        }
        for (callback, expected) in [
            ("c+1".to_owned(), BadCallback::NoCallback),
            ("http://localhost:1234/".to_owned(), BadCallback::NoCallback),
            ("/favicon.ico?x=1".to_owned(), BadCallback::NoCallback),
            (format!("/?state={state}"), BadCallback::NoCallback),
            (format!("/?code=&state={state}"), BadCallback::NoCallback),
            ("/?code=c&state=other".to_owned(), BadCallback::OtherState),
            ("/?code=c".to_owned(), BadCallback::OtherState),
            ("/?error=access_denied".to_owned(), BadCallback::OtherState),
            (
                format!("/?error=access_denied&error_description=AADSTS65004%3a+no%0d%0aTrace&state={state}"),
                BadCallback::Refused("access_denied: AADSTS65004: no".to_owned()),
            ),
        ] {
            assert_eq!(request.accept(&callback).unwrap_err(), expected, "{callback}");
        }
    }
}
