//! Access tokens and ID tokens: made as Entra makes them in shape and size, and read as Exchange reads them; and the
//! tokens of the one external issuer that the sandbox plays.
//!
//! They look like Exchange Online's v1 JWTs but are signed with HMAC-SHA256 under an honest `HS256` header and a key
//! that lives as long as the sandbox. Clients must treat tokens as opaque (facts 1.3); nothing here may tempt them not to.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clock::{Clock, WallTime};
use serde::{Deserialize, Serialize};

use crate::application::Application;
use crate::entra::{Detail, Scopes};
use crate::sasl::AuthRefusal;
use crate::tenant::ManagedIdentity;
use crate::{SandboxError, TenantModel};

/// The one scope for app-only SMTP (facts 0, point 3).
pub const EXCHANGE_SCOPE: &str = "https://outlook.office365.com/.default";
/// A scope that gives a good token for the wrong audience (facts 5.4).
pub const GRAPH_SCOPE: &str = "https://graph.microsoft.com/.default";

/// The usual delegated scopes of SMTP (facts 4.1).
pub const SMTP_SEND_SCOPES: &str = "https://outlook.office.com/SMTP.Send offline_access openid profile email";
/// `iss` of [`Sandbox::workload_token`](crate::Sandbox::workload_token).
pub const WORKLOAD_ISSUER: &str = "https://workload.sandbox.invalid/";

pub(crate) const EXCHANGE_AUDIENCE: &str = "https://outlook.office365.com";
/// The other identifier URI of the same resource (facts 4.1).
pub(crate) const OUTLOOK_AUDIENCE: &str = "https://outlook.office.com";
pub(crate) const GRAPH_AUDIENCE: &str = "https://graph.microsoft.com";

/// Entra draws lifetimes from 60 to 90 minutes (facts 4.2).
const SHORTEST_LIFETIME: Duration = Duration::from_hours(1);
const LIFETIME_SPREAD_SECS: f64 = 1800.0;
/// Entra dates a token five minutes back against slow clocks.
const BACKDATED: Duration = Duration::from_mins(5);
/// Octets of random filler: they bring the raw token to 1.5-2 kB, the usual size.
const FILLER: std::ops::Range<usize> = 290..560;

/// What a scope asks for; `None` for a scope that Entra would not know.
pub(crate) fn audience(scope: &str) -> Option<&'static str> {
    match scope {
        EXCHANGE_SCOPE => Some(EXCHANGE_AUDIENCE),
        GRAPH_SCOPE => Some(GRAPH_AUDIENCE),
        _ => None,
    }
}

/// `iss` of the tokens of Entra's version 2 (facts 4.4: the issuer in a federated identity for a managed identity).
pub(crate) fn v2_issuer(tenant_id: &str) -> String {
    format!("https://login.microsoftonline.com/{tenant_id}/v2.0")
}

/// An issued token and for how long it is good.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expires_in: u64,
    pub(crate) not_before: i64,
    pub(crate) expires_on: i64,
}

/// Who bears a token.
#[derive(Clone, Copy)]
pub(crate) enum Bearer<'a> {
    /// The application itself.
    Application(&'a Application),
    /// The application on behalf of a user, in these scopes.
    User { application: &'a Application, user: &'a str, scp: &'a str },
    /// A managed identity.
    ManagedIdentity(&'a ManagedIdentity),
}

/// The claims that decide.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: String,
    #[serde(default)]
    pub(crate) iss: String,
    #[serde(default)]
    pub(crate) sub: String,
    #[serde(default)]
    pub(crate) tid: String,
    #[serde(default)]
    pub(crate) appid: String,
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    /// The delegated scopes; only in a user's token.
    #[serde(default)]
    pub(crate) scp: Option<String>,
    #[serde(default)]
    pub(crate) upn: Option<String>,
    pub(crate) nbf: i64,
    pub(crate) exp: i64,
}

#[derive(Serialize)]
struct Header<'a> {
    typ: &'a str,
    nonce: String,
    alg: &'a str,
    x5t: &'a str,
    kid: &'a str,
}

/// The claims of an Exchange token in their usual order.
#[derive(Serialize)]
struct Payload<'a> {
    aud: &'a str,
    iss: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    aio: String,
    app_displayname: &'a str,
    appid: &'a str,
    appidacr: &'a str,
    idp: String,
    idtyp: &'a str,
    oid: String,
    rh: String,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    roles: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    scp: Option<&'a str>,
    sid: String,
    sub: String,
    tid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upn: Option<&'a str>,
    uti: String,
    ver: &'a str,
    wids: [&'a str; 1],
    xms_idrel: &'a str,
    xms_ftd: String,
}

/// Makes and checks tokens.
pub(crate) struct TokenMint {
    key: hmac::Key,
}

impl TokenMint {
    pub(crate) fn new() -> Result<Self, SandboxError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| SandboxError::TokenKey)?;
        Ok(Self { key })
    }

    /// A token, without any permission too: that is what path B relies on (facts 4.2). Without a lifetime one is drawn
    /// as Entra draws it.
    pub(crate) fn issue(
        &self,
        tenant: &TenantModel,
        bearer: Bearer<'_>,
        audience: &str,
        lifetime: Option<Duration>,
        clock: &dyn Clock,
    ) -> Issued {
        let lifetime = lifetime.unwrap_or_else(|| {
            SHORTEST_LIFETIME + Duration::from_secs_f64((clock.chance() * LIFETIME_SPREAD_SECS).floor())
        });
        let payload = payload(tenant, bearer, audience, clock.wall(), lifetime);
        Issued {
            token: self.sign(&payload),
            expires_in: lifetime.as_secs(),
            not_before: payload.nbf,
            expires_on: payload.exp,
        }
    }

    /// The ID token of a sign-in: `profile` and `email` bring their claims, as the standard has it.
    pub(crate) fn id_token(
        &self,
        tenant: &TenantModel,
        client_id: &str,
        (user, nonce): (&str, Option<&str>),
        scopes: &Scopes,
        now: WallTime,
    ) -> String {
        let start = seconds(now - BACKDATED);
        self.sign(&IdToken {
            aud: client_id,
            iss: v2_issuer(&tenant.tenant_id),
            iat: start,
            nbf: start,
            exp: seconds(now + SHORTEST_LIFETIME),
            email: scopes.has(Detail::Email).then_some(user),
            name: scopes.has(Detail::Profile).then_some(user),
            nonce,
            oid: guid(),
            preferred_username: scopes.has(Detail::Profile).then_some(user),
            sub: filler(43),
            tid: &tenant.tenant_id,
            ver: "2.0",
        })
    }

    /// A token of the external issuer.
    pub(crate) fn workload_token(&self, sub: &str, aud: &str, now: WallTime, lifetime: Duration) -> String {
        let start = seconds(now);
        let exp = seconds(now + lifetime);
        self.sign(&Workload { iss: WORKLOAD_ISSUER, sub, aud, iat: start, nbf: start, exp, jti: guid() })
    }

    fn sign(&self, payload: &impl Serialize) -> String {
        let header = Header {
            typ: "JWT",
            nonce: filler(32),
            alg: "HS256",
            x5t: "sandbox-hmac-key-not-a-certificate",
            kid: "sandbox-hmac-key-not-a-certificate",
        };
        let signed = format!("{}.{}", segment(&header), segment(payload));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// The claims of a token of this sandbox that is good at `now`.
    pub(crate) fn verify(&self, token: &str, now: WallTime) -> Result<Claims, AuthRefusal> {
        let claims = self.read(token).ok_or(AuthRefusal::ForeignToken)?;
        let now = seconds(now);
        if now >= claims.exp {
            return Err(AuthRefusal::Expired);
        }
        if now < claims.nbf { Err(AuthRefusal::NotYetValid) } else { Ok(claims) }
    }

    /// The claims of a token of this sandbox, whatever its time; `None` if it was not made here.
    pub(crate) fn read(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        hmac::verify(&self.key, signed.as_bytes(), &signature).ok()?;
        let payload = URL_SAFE_NO_PAD.decode(signed.split('.').nth(1)?).ok()?;
        serde_json::from_slice(&payload).ok()
    }
}

#[derive(Serialize)]
struct IdToken<'a> {
    aud: &'a str,
    iss: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    oid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_username: Option<&'a str>,
    sub: String,
    tid: &'a str,
    ver: &'a str,
}

#[derive(Serialize)]
struct Workload<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
}

fn payload<'a>(
    tenant: &'a TenantModel,
    bearer: Bearer<'a>,
    audience: &'a str,
    now: WallTime,
    lifetime: Duration,
) -> Payload<'a> {
    let start = seconds(now - BACKDATED);
    let sts = format!("https://sts.windows.net/{}/", tenant.tenant_id);
    let (application, user, scp) = match bearer {
        Bearer::Application(application) => (Some(application), None, None),
        Bearer::User { application, user, scp } => (Some(application), Some(user), Some(scp)),
        Bearer::ManagedIdentity(_) => (None, None, None),
    };
    let (issuer, oid, appid) = match bearer {
        Bearer::ManagedIdentity(identity) => {
            (v2_issuer(&tenant.tenant_id), identity.object_id.clone(), identity.client_id.as_str())
        }
        Bearer::Application(application) | Bearer::User { application, .. } => {
            (sts, guid(), application.client_id.as_str())
        }
    };
    Payload {
        aud: audience,
        iss: issuer.clone(),
        iat: start,
        nbf: start,
        exp: seconds(now + lifetime),
        aio: filler(44),
        app_displayname: "xoauth2-relay sandbox",
        appid,
        appidacr: if application.is_some_and(|application| application.public_client) { "0" } else { "1" },
        idp: issuer,
        idtyp: if user.is_some() { "user" } else { "app" },
        rh: format!("1.{}.", filler(36)),
        roles: if user.is_some() { &[] } else { application.map_or(&[], |application| &application.roles) },
        scp,
        sid: guid(),
        sub: oid.clone(),
        oid,
        tid: &tenant.tenant_id,
        unique_name: user,
        upn: user,
        uti: filler(22),
        ver: "1.0",
        // The id of "no directory role".
        wids: ["0997a1d0-0d1d-4acb-b408-d5ca73121e90"],
        xms_idrel: "7 26",
        xms_ftd: filler(fastrand::usize(FILLER)),
    }
}

fn segment(value: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).expect("structs of strings and integers always serialise"))
}

/// Whole seconds since the Unix epoch.
pub(crate) fn seconds(time: WallTime) -> i64 {
    time.unix_millis().div_euclid(1000)
}

/// Letters and digits at random.
pub(crate) fn filler(length: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(length).collect()
}

/// A random GUID in the usual form.
pub(crate) fn guid() -> String {
    let bits = fastrand::u128(..);
    let version = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{version:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use clock::ManualClock;

    use super::*;
    use crate::DEFAULT_CLIENT_ID;

    fn issue(mint: &TokenMint, lifetime: Option<Duration>, clock: &ManualClock) -> Issued {
        let tenant = TenantModel::default();
        mint.issue(&tenant, Bearer::Application(&tenant.applications[0]), EXCHANGE_AUDIENCE, lifetime, clock)
    }

    #[test]
    fn tokens_are_jwts_of_the_usual_size() {
        let mint = TokenMint::new().unwrap();
        let clock = ManualClock::at(WallTime::from_unix_millis(1_795_247_640_000));
        for _ in 0..50 {
            let Issued { token, expires_in, .. } = issue(&mint, None, &clock);
            assert!((1500..=2048).contains(&token.len()), "{}", token.len());
            assert_eq!(token.split('.').count(), 3);
            assert_eq!(expires_in, 4500);
            let claims = mint.verify(&token, clock.wall()).unwrap();
            assert_eq!((claims.appid.as_str(), claims.roles.len()), (DEFAULT_CLIENT_ID, 0));
        }
    }

    #[test]
    fn lifetimes_lie_between_3600_and_5399_seconds() {
        let mint = TokenMint::new().unwrap();
        let clock = ManualClock::at(WallTime::from_unix_millis(1_795_247_640_000));
        for (chance, lifetime) in [(0.0, 3600), (0.999_999, 5399)] {
            clock.set_chance(chance);
            assert_eq!(issue(&mint, None, &clock).expires_in, lifetime);
        }
    }

    #[test]
    fn only_genuine_tokens_in_their_time_pass() {
        let mint = TokenMint::new().unwrap();
        let clock = ManualClock::at(WallTime::from_unix_millis(1_795_247_640_000));
        let token = issue(&mint, Some(Duration::from_hours(1)), &clock).token;
        let other = TokenMint::new().unwrap();
        assert_eq!(other.verify(&token, clock.wall()).unwrap_err(), AuthRefusal::ForeignToken);
        assert_eq!(mint.verify(&format!("{token}A"), clock.wall()).unwrap_err(), AuthRefusal::ForeignToken);
        assert_eq!(mint.verify("x", clock.wall()).unwrap_err(), AuthRefusal::ForeignToken);
        let before = clock.wall() - Duration::from_mins(6);
        assert_eq!(mint.verify(&token, before).unwrap_err(), AuthRefusal::NotYetValid);
        clock.advance(Duration::from_secs(3599));
        assert!(mint.verify(&token, clock.wall()).is_ok());
        clock.advance(Duration::from_secs(1));
        assert_eq!(mint.verify(&token, clock.wall()).unwrap_err(), AuthRefusal::Expired);
    }

    #[test]
    fn guids_have_version_and_variant() {
        let guid = guid();
        assert_eq!(guid.len(), 36);
        assert_eq!(&guid[14..15], "4");
        assert!("89ab".contains(&guid[19..20]));
    }
}
