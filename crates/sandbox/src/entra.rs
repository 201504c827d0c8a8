//! Entra ID's token endpoint as a pure answer: form parameters in, token or AADSTS error out (facts 4.2 to 4.6), for
//! each grant that mail needs. Its other pages are `authorize` and `device`; HTTP is `endpoint`'s.

mod assertion;
pub(crate) mod authorize;
mod credentials;
pub(crate) mod device;
mod form;
mod page;
mod refusal;
mod scopes;

use aws_lc_rs::{constant_time, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use self::credentials::{Credentials, decode_basic};
pub(crate) use self::form::Form;
pub(crate) use self::page::Page;
pub(crate) use self::refusal::EntraError;
pub(crate) use self::scopes::{Detail, Scopes};
use crate::application::Application;
use crate::counters::{Tally, count};
use crate::directory::Directory;
use crate::fault::OddToken;
use crate::sign_ins::{Poll, REFRESH_LIFETIME, SignIn};
use crate::tenant::TenantModel;
use crate::token::{self, Bearer, seconds};
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
        let form = self.form().ok()?;
        let in_header = || Some(decode_basic(self.authorization?)?.0);
        form.optional("client_id").map(str::to_owned).or_else(in_header)
    }

    /// By which grant it asks, if by one that is known.
    pub(crate) fn grant_type(&self) -> Option<GrantType> {
        GrantType::parse(self.form().ok()?.optional("grant_type")?).ok()
    }

    fn form(&self) -> Result<Form, EntraError> {
        Form::of_body(self.content_type, self.body)
    }
}

/// The grants (RFC 6749, RFC 8628).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrantType {
    ClientCredentials,
    AuthorizationCode,
    RefreshToken,
    DeviceCode,
}

impl GrantType {
    fn parse(name: &str) -> Result<Self, EntraError> {
        Ok(match name {
            "client_credentials" => Self::ClientCredentials,
            "authorization_code" => Self::AuthorizationCode,
            "refresh_token" => Self::RefreshToken,
            "urn:ietf:params:oauth:grant-type:device_code" => Self::DeviceCode,
            _ => {
                let text = format!("The app requested an unsupported grant type '{name}'.");
                return Err(EntraError::new(400, "unsupported_grant_type", 70_003, text));
            }
        })
    }

    pub(crate) fn count(self, tally: &Tally) {
        count(match self {
            Self::ClientCredentials => &tally.client_credentials,
            Self::AuthorizationCode => &tally.authorization_codes,
            Self::RefreshToken => &tally.refreshes,
            Self::DeviceCode => &tally.device_polls,
        });
    }
}

/// The 200 body (facts 4.2); no refresh token for an application.
#[derive(Serialize)]
pub(crate) struct TokenReply {
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    expires_in: u64,
    ext_expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_in: Option<u64>,
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
    /// Only in an answer that a fault made enormous.
    #[serde(skip_serializing_if = "Option::is_none")]
    padding: Option<String>,
}

/// A request whose tenant and application are known.
struct Asked<'a> {
    world: &'a World,
    directory: &'a Directory,
    tenant: &'a TenantModel,
    application: &'a Application,
    form: &'a Form,
    credentials: &'a Credentials,
    odd: Option<OddToken>,
}

/// Answers a token request, oddly if a fault wants that.
pub(crate) fn answer(
    world: &World,
    request: &TokenRequest<'_>,
    odd: Option<OddToken>,
) -> Result<TokenReply, EntraError> {
    let form = request.form()?;
    let directory = &world.directory();
    let tenant = find_tenant(directory, request.tenant)?;
    let grant = GrantType::parse(form.required("grant_type")?)?;
    let credentials = Credentials::of(request, &form)?;
    let application = find_application(tenant, &credentials.client_id, request.tenant)?;
    let asked = Asked { world, directory, tenant, application, form: &form, credentials: &credentials, odd };
    let reply = match grant {
        GrantType::ClientCredentials => asked.client_credentials(),
        GrantType::AuthorizationCode => asked.authorization_code(),
        GrantType::RefreshToken => asked.refresh_token(),
        GrantType::DeviceCode => asked.device_code(),
    }?;
    count(&world.tally.tokens_issued);
    Ok(reply)
}

impl Asked<'_> {
    /// Facts 4.2.
    fn client_credentials(&self) -> Result<TokenReply, EntraError> {
        let scope = self.form.required("scope")?;
        let audience = token::audience(scope).ok_or_else(|| EntraError::bad_scope(scope))?;
        self.guard_against_loops(audience, "")?;
        self.credentials.check(self, GrantType::ClientCredentials)?;
        Ok(self.reply(Bearer::Application(self.application), audience))
    }

    /// Facts 4.5. The checks leave the code good until all of them passed.
    fn authorization_code(&self) -> Result<TokenReply, EntraError> {
        let name = self.form.required("code")?;
        let redirect_uri = self.form.required("redirect_uri")?;
        self.credentials.check(self, GrantType::AuthorizationCode)?;
        let code = self.world.sign_ins.code(name).ok_or_else(EntraError::unreadable_grant)?;
        if !self.is_mine(&code.sign_in) || !self.is_here(&code.sign_in) {
            return Err(EntraError::unreadable_grant());
        }
        if code.redeemed {
            return Err(already_redeemed());
        }
        if code.has_expired(self.world.clock.monotonic()) {
            return Err(EntraError::grant(70_008, "The provided authorization code or refresh token has expired."));
        }
        if code.redirect_uri != redirect_uri {
            let text = format!(
                "The reply address '{redirect_uri}' does not match the reply address '{}' provided when requesting \
                 Authorization code.",
                code.redirect_uri
            );
            return Err(EntraError::client(500_112, text));
        }
        let verifier = self.form.optional("code_verifier").unwrap_or_default();
        let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
        let is_verifier = is_code_verifier(verifier);
        if !is_verifier
            || constant_time::verify_slices_are_equal(challenge.as_bytes(), code.challenge.as_bytes()).is_err()
        {
            let text = "The Code_Verifier does not match the code_challenge supplied in the authorization request.";
            return Err(EntraError::grant(501_481, text));
        }
        let scopes = self.asked_within(&code.sign_in)?;
        if !self.world.sign_ins.redeem(name) {
            return Err(already_redeemed());
        }
        self.sign_in_reply(&code.sign_in, &scopes, code.sign_in.scopes.has(Detail::OfflineAccess))
    }

    /// Facts 4.5: each use gives a new token, and the old one stays good for its own time.
    fn refresh_token(&self) -> Result<TokenReply, EntraError> {
        let name = self.form.required("refresh_token")?;
        let refresh = self.world.sign_ins.refresh(name).filter(|refresh| self.is_mine(&refresh.sign_in));
        if let Some(refresh) = &refresh {
            self.guard_against_loops(refresh.sign_in.scopes.audience(), &refresh.sign_in.user)?;
        }
        self.credentials.check(self, GrantType::RefreshToken)?;
        let refresh = refresh.ok_or_else(EntraError::unreadable_grant)?;
        if !self.is_here(&refresh.sign_in) {
            return Err(EntraError::unknown_user(&refresh.sign_in.user, &self.tenant.tenant_id));
        }
        if refresh.revoked {
            let text = "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user \
                        might have changed or reset their password.";
            return Err(EntraError::grant(50_173, text));
        }
        if refresh.has_expired(self.world.clock.wall()) {
            let text = format!(
                "The refresh token has expired due to inactivity. The token was issued on {} and was inactive for \
                 {}.00:00:00.",
                refresh.issued.rfc3339(),
                REFRESH_LIFETIME.as_secs() / 86_400
            );
            return Err(EntraError::grant(700_082, text));
        }
        let scopes = self.asked_within(&refresh.sign_in)?;
        self.sign_in_reply(&refresh.sign_in, &scopes, true)
    }

    /// Facts 4.5, RFC 8628 section 3.5.
    fn device_code(&self) -> Result<TokenReply, EntraError> {
        let device_code = self.form.required("device_code")?;
        self.credentials.check(self, GrantType::DeviceCode)?;
        let (client_id, tenant_id) = (&self.application.client_id, &self.tenant.tenant_id);
        let now = self.world.clock.monotonic();
        let flow = |error: &str, code, text: &str| Err(EntraError::new(400, error, code, text));
        match self.world.sign_ins.poll(device_code, client_id, tenant_id, now) {
            Poll::Approved(sign_in) => {
                let offline = sign_in.scopes.has(Detail::OfflineAccess);
                self.sign_in_reply(&sign_in, &sign_in.scopes, offline)
            }
            Poll::Unknown => flow("bad_verification_code", 70_018, "Invalid verification code."),
            Poll::Expired => flow("expired_token", 70_019, "Verification code expired."),
            Poll::TooFast => flow("slow_down", 70_016, "OAuth 2.0 device flow error. The client polls too fast."),
            Poll::Pending => {
                flow("authorization_pending", 70_016, "OAuth 2.0 device flow error. Authorization is pending.")
            }
            Poll::Declined => flow("authorization_declined", 65_004, "User declined to consent to access the app."),
            Poll::Redeemed => Err(already_redeemed()),
        }
    }

    /// AADSTS50196. `who` is the user whose token is refreshed.
    fn guard_against_loops(&self, audience: &str, who: &str) -> Result<(), EntraError> {
        let (tenant, client) = (&self.tenant.tenant_id, &self.application.client_id);
        let kind = format!("{tenant}\n{client}\n{audience}\n{}", who.to_ascii_lowercase());
        if !self.world.has_limits() || self.world.requests.note(&kind, self.world.clock.monotonic()) {
            return Ok(());
        }
        let text = "The server terminated an operation because it encountered a client request loop. Please contact \
                    your app vendor.";
        Err(EntraError::grant(50_196, text))
    }

    /// The scopes asked for, which must be among those that the user allowed; without a word, these.
    fn asked_within(&self, sign_in: &SignIn) -> Result<Scopes, EntraError> {
        let Some(scope) = self.form.optional("scope") else { return Ok(sign_in.scopes.clone()) };
        let mut scopes = Scopes::parse(scope)?;
        if !sign_in.scopes.cover(&scopes) {
            let text = format!(
                "The user or administrator has not consented to use the application with ID '{}'. Send an interactive \
                 authorization request for this user and resource.",
                self.application.client_id
            );
            return Err(EntraError::grant(65_001, text));
        }
        scopes.keep_details_of(&sign_in.scopes);
        Ok(scopes)
    }

    fn is_mine(&self, sign_in: &SignIn) -> bool {
        sign_in.client_id.eq_ignore_ascii_case(&self.application.client_id)
    }

    fn is_here(&self, sign_in: &SignIn) -> bool {
        sign_in.tenant_id.eq_ignore_ascii_case(&self.tenant.tenant_id)
    }

    fn sign_in_reply(&self, sign_in: &SignIn, scopes: &Scopes, is_offline: bool) -> Result<TokenReply, EntraError> {
        let of_tenant =
            self.directory.user(&sign_in.user).filter(|(tenant, _)| tenant.tenant_id == self.tenant.tenant_id);
        let Some((_, user)) = of_tenant else {
            return Err(EntraError::unknown_user(&sign_in.user, &self.tenant.tenant_id));
        };
        let scp = scopes.scp();
        let mut reply = self.reply(Bearer::User { application: self.application, user, scp: &scp }, scopes.audience());
        let now = self.world.clock.wall();
        reply.scope = Some(scopes.granted());
        reply.refresh_token = is_offline.then(|| self.world.sign_ins.issue_refresh(sign_in.clone(), now));
        let whose = (user, sign_in.nonce.as_deref());
        let id_token = || self.world.mint.id_token(self.tenant, &self.application.client_id, whose, scopes, now);
        reply.id_token = scopes.has(Detail::OpenId).then(id_token);
        Ok(reply)
    }

    fn reply(&self, bearer: Bearer<'_>, audience: &str) -> TokenReply {
        let conditions = self.world.conditions();
        let lifetime = match self.odd {
            Some(OddToken::Lifetime(lifetime)) => Some(lifetime),
            _ => conditions.token_lifetime,
        };
        let issued = self.world.mint.issue(self.tenant, bearer, audience, lifetime, self.world.clock.as_ref());
        TokenReply {
            token_type: "Bearer",
            scope: None,
            expires_in: issued.expires_in,
            ext_expires_in: issued.expires_in,
            refresh_in: conditions.refresh_in.map(|refresh_in| refresh_in.as_secs()),
            access_token: if self.odd == Some(OddToken::Empty) { String::new() } else { issued.token },
            refresh_token: None,
            id_token: None,
            padding: match self.odd {
                Some(OddToken::Padded(octets)) => Some("x".repeat(octets)),
                _ => None,
            },
        }
    }

    fn now(&self) -> i64 {
        seconds(self.world.clock.wall())
    }
}

fn already_redeemed() -> EntraError {
    EntraError::grant(54_005, "OAuth2 Authorization code was already redeemed, please retry with a new valid code.")
}

/// RFC 7636 section 4.1: 43 to 128 unreserved characters.
fn is_code_verifier(verifier: &str) -> bool {
    let is_unreserved = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
    (43..=128).contains(&verifier.len()) && verifier.bytes().all(is_unreserved)
}

fn find_tenant<'a>(directory: &'a Directory, name: &str) -> Result<&'a TenantModel, EntraError> {
    if ["common", "organizations", "consumers"].contains(&name.to_ascii_lowercase().as_str()) {
        let text = format!(
            "The grant type is not supported over the /{name} endpoint. Please use the tenant-specific endpoint."
        );
        return Err(EntraError::new(400, "invalid_request", 9_001_023, text));
    }
    directory.tenant(name).ok_or_else(|| {
        let text = format!(
            "Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the \
             correct cloud. Check with your subscription administrator, this may happen if there are no active \
             subscriptions for the tenant."
        );
        EntraError::new(400, "invalid_request", 90_002, text)
    })
}

fn find_application<'a>(tenant: &'a TenantModel, client_id: &str, name: &str) -> Result<&'a Application, EntraError> {
    tenant.find_application(client_id).ok_or_else(|| EntraError::unknown_application(client_id, name))
}
