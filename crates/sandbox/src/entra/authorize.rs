//! The authorization endpoint (facts 4.5, RFC 6749 section 4.1, RFC 7636): a browser comes, a person signs in, and the
//! browser goes back with a code or an error. There are no passwords: whoever is named is signed in.

use url::Url;

use super::page::{link, paragraph};
use super::{EntraError, Form, Page, Scopes, find_application, find_tenant};
use crate::sign_ins::{Code, SignIn};
use crate::tenant::TenantModel;
use crate::token::guid;
use crate::world::World;

/// The sandbox's own parameter: `1` consents as the user in `login_hint`, `0` declines.
const CONSENT: &str = "sandbox_consent";
/// Base64url of SHA-256.
const CHALLENGE_LENGTH: usize = 43;

/// Answers `GET /{tenant}/oauth2/v2.0/authorize`. An error goes back to the client only when it is known where that is.
pub(crate) fn answer(world: &World, tenant: &str, query: &str) -> Page {
    match visit(world, tenant, query) {
        Ok(page) => page,
        Err(error) => Page::error(&error),
    }
}

fn visit(world: &World, name: &str, query: &str) -> Result<Page, EntraError> {
    let form = Form::parse(query.as_bytes())?;
    let directory = &world.directory();
    let tenant = find_tenant(directory, name)?;
    let application = find_application(tenant, form.required("client_id")?, name)?;
    let redirect_uri = form.required("redirect_uri")?;
    let known = Url::parse(redirect_uri).ok().filter(|_| application.may_redirect_to(redirect_uri));
    let back = known.ok_or_else(|| {
        let text = format!(
            "The redirect URI '{redirect_uri}' specified in the request does not match the redirect URIs configured \
             for the application '{}'.",
            application.client_id
        );
        EntraError::new(400, "invalid_request", 50_011, text)
    })?;
    let state = form.optional("state");
    let (scopes, challenge) = match check(&form) {
        Ok(checked) => checked,
        Err(error) => return Ok(refuse(back, &error, state)),
    };
    if form.optional(CONSENT) == Some("0") {
        let declined = EntraError::new(400, "access_denied", 65_004, "User declined to consent to access the app.");
        return Ok(refuse(back, &declined, state));
    }
    let named = form.optional("login_hint").filter(|_| form.optional(CONSENT) == Some("1")).map(str::to_owned);
    let Some(user) = named.or_else(|| world.conditions().browser_user) else {
        return Ok(choice(tenant, &form, name));
    };
    let user = tenant.find_user(&user).ok_or_else(|| EntraError::unknown_user(&user, &tenant.tenant_id))?;
    let code = world.sign_ins.keep_code(Code {
        sign_in: SignIn {
            tenant_id: tenant.tenant_id.clone(),
            client_id: application.client_id.clone(),
            user: user.to_owned(),
            scopes,
            nonce: form.optional("nonce").map(str::to_owned),
        },
        redirect_uri: redirect_uri.to_owned(),
        challenge,
        made: world.clock.monotonic(),
        redeemed: false,
    });
    Ok(go_back(back, &[("code", &code)], state, &[("session_state", &guid())]))
}

/// The scopes and the PKCE challenge. Entra demands PKCE of some clients; here it is demanded of all (RFC 9700).
fn check(form: &Form) -> Result<(Scopes, String), EntraError> {
    let response_type = form.required("response_type")?;
    if response_type != "code" {
        let text =
            format!("The provided value for the input parameter 'response_type' is not supported: {response_type}.");
        return Err(EntraError::new(400, "unsupported_response_type", 700_051, text));
    }
    if form.optional("response_mode").is_some_and(|mode| mode != "query") {
        let text =
            "The provided value for the input parameter 'response_mode' is not allowed. Expected value is 'query'.";
        return Err(EntraError::new(400, "invalid_request", 70_007, text));
    }
    let scopes = Scopes::parse(form.required("scope")?)?;
    let challenge = form.optional("code_challenge").ok_or_else(|| {
        let text = "Proof Key for Code Exchange is required for this authorization code redemption.";
        EntraError::new(400, "invalid_request", 9_002_325, text)
    })?;
    if form.optional("code_challenge_method") != Some("S256") {
        let text = "Invalid Code_Challenge_method parameter.";
        return Err(EntraError::new(400, "invalid_request", 50_149, text));
    }
    if challenge.len() != CHALLENGE_LENGTH {
        let text = "Invalid size of Code_Challenge parameter.";
        return Err(EntraError::new(400, "invalid_request", 501_491, text));
    }
    Ok((scopes, challenge.to_owned()))
}

/// A page to pick a user or decline.
fn choice(tenant: &TenantModel, form: &Form, name: &str) -> Page {
    let path = format!("/{name}/oauth2/v2.0/authorize");
    let own = |user: &[(&str, &str)]| format!("{path}?{}", form.without(&["login_hint", CONSENT]).with(user));
    let mut parts = vec![paragraph("An application wants to send mail as the user you pick.")];
    parts.extend(tenant.people().map(|user| link(&own(&[("login_hint", user), (CONSENT, "1")]), user)));
    parts.push(link(&own(&[(CONSENT, "0")]), "Decline"));
    Page::html("Pick an account", &parts)
}

fn refuse(back: Url, error: &EntraError, state: Option<&str>) -> Page {
    go_back(back, &[("error", &error.error), ("error_description", &error.description())], state, &[])
}

fn go_back(mut back: Url, first: &[(&str, &str)], state: Option<&str>, last: &[(&str, &str)]) -> Page {
    back.query_pairs_mut().extend_pairs(first).extend_pairs(state.map(|state| ("state", state))).extend_pairs(last);
    Page::Redirect(back.into())
}
