//! Client assertions (facts 4.3, 4.4): a JWT in place of a secret, signed by a registered certificate or issued by
//! somebody whom the application trusts. It checks one assertion; whether there must be one is `credentials`'.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Asked, EntraError};
use crate::application::FederatedIdentity;
use crate::certificate::{Algorithm, Certificate};
use crate::token::Claims;

/// Entra forgives clocks five minutes.
const SKEW: i64 = 300;

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    x5t: Option<String>,
    #[serde(rename = "x5t#S256")]
    x5t_s256: Option<String>,
}

/// The claims that Microsoft's page asks for, all of them.
#[derive(Deserialize)]
struct Assertion {
    aud: String,
    iss: String,
    sub: String,
    jti: String,
    nbf: i64,
    exp: i64,
}

/// Refuses an assertion that does not prove the application.
pub(super) fn check(asked: &Asked<'_>, assertion: &str) -> Result<(), EntraError> {
    let (signed, signature) = assertion.rsplit_once('.').ok_or_else(|| invalid("it is no JWT"))?;
    let (header, claims) = signed.split_once('.').ok_or_else(|| invalid("it is no JWT"))?;
    let header: Header = decode(header).ok_or_else(|| invalid("its header is malformed"))?;
    match header.alg.as_str() {
        "PS256" | "RS256" => {
            let claims: Assertion = decode(claims).ok_or_else(|| invalid("its claims are malformed"))?;
            let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| invalid("its signature is malformed"))?;
            check_signature(asked, &header, signed.as_bytes(), &signature)?;
            check_claims(asked, &claims)
        }
        // The one algorithm of the sandbox's own tokens and of the external issuer that it plays.
        "HS256" => check_federated(asked, assertion),
        _ => Err(invalid("its algorithm is not supported")),
    }
}

fn check_signature(asked: &Asked<'_>, header: &Header, signed: &[u8], signature: &[u8]) -> Result<(), EntraError> {
    if !header.typ.as_deref().is_some_and(|typ| typ.eq_ignore_ascii_case("JWT")) {
        return Err(invalid("its type is not JWT"));
    }
    // Each algorithm with the thumbprint that Microsoft documents for it; other pairs are not on record.
    let (algorithm, thumbprint) = match header.alg.as_str() {
        "PS256" => (Algorithm::Ps256, header.x5t_s256.as_deref()),
        _ => (Algorithm::Rs256, header.x5t.as_deref()),
    };
    let thumbprint = thumbprint.ok_or_else(|| invalid("it does not name its certificate as its algorithm demands"))?;
    let registered = asked.application.certificates.iter().filter_map(|der| Certificate::parse(der));
    let Some(certificate) = registered.into_iter().find(|certificate| certificate.thumbprint(algorithm) == thumbprint)
    else {
        let text =
            "The certificate with identifier used to sign the client assertion is not registered on application.";
        return Err(EntraError::client(700_027, text));
    };
    if !certificate.has_signed(algorithm, signed, signature) {
        return Err(bad_signature("The key was found, but the signature does not match"));
    }
    if !certificate.is_valid_at(asked.now()) {
        return Err(bad_signature("The key used is expired"));
    }
    Ok(())
}

fn check_claims(asked: &Asked<'_>, claims: &Assertion) -> Result<(), EntraError> {
    let client_id = &asked.application.client_id;
    if !claims.iss.eq_ignore_ascii_case(client_id) || !claims.sub.eq_ignore_ascii_case(client_id) {
        return Err(invalid("its issuer or subject is not the client"));
    }
    if !is_token_endpoint(asked, &claims.aud) {
        return Err(invalid("its audience is not this tenant's token endpoint"));
    }
    check_time(asked, claims.nbf, claims.exp)?;
    let until = claims.exp.saturating_add(SKEW);
    if claims.jti.is_empty() || !asked.world.sign_ins.is_first_use(client_id, &claims.jti, until, asked.now()) {
        return Err(invalid("it was used before"));
    }
    Ok(())
}

/// True for the URL of the tenant's token endpoint, by whichever of its names.
fn is_token_endpoint(asked: &Asked<'_>, aud: &str) -> bool {
    let path = aud.strip_prefix(&asked.world.authority).and_then(|path| path.strip_prefix('/'));
    let tenant = path.and_then(|path| path.strip_suffix("/oauth2/v2.0/token"));
    tenant.is_some_and(|tenant| asked.tenant.answers_to(tenant))
}

fn check_time(asked: &Asked<'_>, nbf: i64, exp: i64) -> Result<(), EntraError> {
    let now = asked.now();
    if now.saturating_add(SKEW) >= nbf && now.saturating_sub(SKEW) < exp {
        return Ok(());
    }
    let text = format!(
        "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {nbf}, expiry \
         time of assertion {exp}."
    );
    Err(EntraError::client(700_024, text))
}

/// A token of the external issuer or of a managed identity, compared with what the application trusts.
fn check_federated(asked: &Asked<'_>, assertion: &str) -> Result<(), EntraError> {
    let claims = asked.world.mint.read(assertion).ok_or_else(|| bad_signature("The key was not found"))?;
    if claims.scp.is_some() {
        let text = "Only app-only tokens can be used as federated identity credentials.";
        return Err(EntraError::client(700_229, text));
    }
    check_time(asked, claims.nbf, claims.exp)?;
    let Claims { iss, sub, aud, .. } = claims;
    let trusted = &asked.application.federated;
    if trusted.contains(&FederatedIdentity { issuer: iss.clone(), subject: sub.clone(), audience: aud.clone() }) {
        return Ok(());
    }
    let (code, what) = if !trusted.iter().any(|trusted| trusted.issuer == iss) {
        (700_211, format!("issuer '{iss}'"))
    } else if !trusted.iter().any(|trusted| trusted.issuer == iss && trusted.subject == sub) {
        (700_213, format!("subject '{sub}'"))
    } else {
        (700_212, format!("audience '{aud}'"))
    };
    let text = format!(
        "No matching federated identity record found for presented assertion {what}. Check your federated identity \
         credential Subject, Audience and Issuer against the presented assertion."
    );
    Err(EntraError::client(code, text))
}

fn bad_signature(reason: &str) -> EntraError {
    EntraError::client(700_027, format!("Client assertion contains an invalid signature. [Reason - {reason}.]"))
}

fn invalid(why: &str) -> EntraError {
    EntraError::client(50_012, format!("Authentication failed. The client assertion is not valid: {why}."))
}

fn decode<T: DeserializeOwned>(segment: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
}
