//! Client assertions at the token endpoint (facts 4.3, 4.4): made here by hand, as a client would.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clock::Clock as _;
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use sandbox::{
    Application, DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_SECRET, DEFAULT_TENANT_ID, EXCHANGE_SCOPE,
    FederatedIdentity, Limits, TOKEN_EXCHANGE_AUDIENCE, WORKLOAD_ISSUER,
};
use serde_json::{Value, json};

use crate::support::{HttpReply, World, form};

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const SUBJECT: &str = "system:serviceaccount:mail:relay";

/// A key with its certificate. Keys are costly, so all tests have the same two.
struct Signer {
    key: RsaKeyPair,
    der: Vec<u8>,
}

static SIGNER: LazyLock<Signer> = LazyLock::new(Signer::new);
static OTHER: LazyLock<Signer> = LazyLock::new(Signer::new);

impl Signer {
    fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { key: RsaKeyPair::from_pkcs8(&key.serialize_der()).unwrap(), der }
    }

    fn thumbprint(&self, algorithm: &'static digest::Algorithm) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &self.der))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", segment(header), segment(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        let random = rand::SystemRandom::new();
        let padding = if header["alg"] == "RS256" { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
        self.key.sign(padding, &random, signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn ps256() -> Value {
    json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": SIGNER.thumbprint(&digest::SHA256) })
}

impl World {
    /// A world whose application has the certificate and no secret.
    async fn certified() -> Self {
        let world = Self::with(|options| options.limits = Limits::Off).await;
        let change = |application: &mut Application| {
            *application = Application::without_credential(DEFAULT_CLIENT_ID).with_certificate(SIGNER.der.clone());
        };
        world.sandbox.change_application(DEFAULT_CLIENT_ID, change).unwrap();
        world
    }

    /// Good claims with a fresh `jti`.
    fn claims(&self) -> Value {
        let now = self.clock.wall().unix_millis() / 1_000;
        json!({
            "aud": format!("{}/{DEFAULT_TENANT_ID}/oauth2/v2.0/token", self.sandbox.authority()),
            "iss": DEFAULT_CLIENT_ID,
            "sub": DEFAULT_CLIENT_ID,
            "jti": fastrand::u64(..).to_string(),
            "nbf": now,
            "iat": now,
            "exp": now + 600,
        })
    }

    async fn prove(&self, assertion: &str) -> HttpReply {
        let parameters = [
            ("client_id", DEFAULT_CLIENT_ID),
            ("scope", EXCHANGE_SCOPE),
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion),
        ];
        form(&self.sandbox, &parameters).await.unwrap()
    }
}

#[tokio::test]
async fn both_algorithms_prove_the_application_by_either_name_of_the_tenant() {
    let world = World::certified().await;
    let rs256 = json!({ "alg": "RS256", "typ": "JWT", "x5t": SIGNER.thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY) });
    for header in [ps256(), rs256] {
        for tenant in [DEFAULT_TENANT_ID, "contoso.com"] {
            let mut claims = world.claims();
            claims["aud"] = format!("{}/{tenant}/oauth2/v2.0/token", world.sandbox.authority()).into();
            let reply = world.prove(&SIGNER.sign(&header, &claims)).await;
            assert_eq!(reply.status, 200, "{header} {}", reply.body);
            assert_eq!(world.answer_to(DEFAULT_MAILBOX, &reply.text("access_token")).await, "235 2.7.0");
        }
    }
}

#[tokio::test]
async fn certificates_rotate_side_by_side() {
    let world = World::certified().await;
    let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": OTHER.thumbprint(&digest::SHA256) });
    let code = async || world.prove(&OTHER.sign(&header, &world.claims())).await.verdict().2;
    assert_eq!(code().await, 700_027);
    let change = |certificates: fn(&mut Vec<Vec<u8>>)| {
        let change = |application: &mut Application| certificates(&mut application.certificates);
        world.sandbox.change_application(DEFAULT_CLIENT_ID, change).unwrap();
    };
    change(|certificates| certificates.push(OTHER.der.clone()));
    assert_eq!(code().await, 0);
    assert_eq!(world.prove(&SIGNER.sign(&ps256(), &world.claims())).await.status, 200);
    change(|certificates| drop(certificates.remove(0)));
    assert_eq!(code().await, 0);
    assert_eq!(world.prove(&SIGNER.sign(&ps256(), &world.claims())).await.verdict().2, 700_027);
}

#[tokio::test]
async fn an_expired_certificate_proves_nothing() {
    let world = World::certified().await;
    let mut params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2024, 2, 14);
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let der = params.self_signed(&key).unwrap().der().to_vec();
    let expired = Signer { key: RsaKeyPair::from_pkcs8(&key.serialize_der()).unwrap(), der };
    let register = |application: &mut Application| application.certificates.push(expired.der.clone());
    world.sandbox.change_application(DEFAULT_CLIENT_ID, register).unwrap();
    let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": expired.thumbprint(&digest::SHA256) });
    let reply = world.prove(&expired.sign(&header, &world.claims())).await;
    assert_eq!(reply.verdict(), (401, "invalid_client".to_owned(), 700_027));
    assert!(reply.text("error_description").contains("The key used is expired"), "{}", reply.body);
}

#[tokio::test]
async fn every_wrong_assertion_has_its_code() {
    let world = World::certified().await;
    let now = world.clock.wall().unix_millis() / 1_000;
    let wrong_tenant = format!("{}/common/oauth2/v2.0/token", world.sandbox.authority());
    let v1 = format!("{}/{DEFAULT_TENANT_ID}/oauth2/token", world.sandbox.authority());
    let sha1 = SIGNER.thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    let table: Vec<(&str, Value, u64)> = vec![
        ("claims.aud", wrong_tenant.into(), 50_012),
        ("claims.aud", v1.into(), 50_012),
        ("claims.aud", "https://login.microsoftonline.com/x/oauth2/v2.0/token".into(), 50_012),
        ("claims.iss", "somebody".into(), 50_012),
        ("claims.sub", "somebody".into(), 50_012),
        ("claims.jti", Value::Null, 50_012),
        ("claims.jti", "".into(), 50_012),
        ("claims.nbf", Value::Null, 50_012),
        ("claims.exp", Value::Null, 50_012),
        ("claims.exp", "soon".into(), 50_012),
        ("claims.nbf", (now + 301).into(), 700_024),
        ("claims.nbf", (now + 300).into(), 0),
        ("claims.exp", (now - 300).into(), 700_024),
        ("claims.exp", (now - 299).into(), 0),
        ("header.typ", "at+jwt".into(), 50_012),
        ("header.typ", Value::Null, 50_012),
        ("header.alg", "none".into(), 50_012),
        ("header.alg", "ES256".into(), 50_012),
        ("header.alg", "HS256".into(), 700_027),
        // The signature would be right, the thumbprint is the other algorithm's.
        ("header.alg", "RS256".into(), 50_012),
        ("header.x5t#S256", Value::Null, 50_012),
        ("header.x5t#S256", sha1.into(), 700_027),
        ("header.x5t#S256", "AAAA".into(), 700_027),
    ];
    for (name, value, code) in table {
        let (mut header, mut claims) = (ps256(), world.claims());
        let (place, key) = name.split_once('.').unwrap();
        let place = if place == "claims" { &mut claims } else { &mut header };
        let object = place.as_object_mut().unwrap();
        object.remove(key);
        if !value.is_null() {
            object.insert(key.to_owned(), value.clone());
        }
        let reply = world.prove(&SIGNER.sign(&header, &claims)).await;
        let error = if code == 0 { "" } else { "invalid_client" };
        let status = if code == 0 { 200 } else { 401 };
        assert_eq!(reply.verdict(), (status, error.to_owned(), code), "{name} {value}: {}", reply.body);
    }
    let good = SIGNER.sign(&ps256(), &world.claims());
    for (wrong, code) in [
        ("x".to_owned(), 50_012),
        ("x.y.z".to_owned(), 50_012),
        (good.rsplit_once('.').unwrap().0.to_owned(), 50_012),
        (format!("{good}="), 50_012),
        (OTHER.sign(&ps256(), &world.claims()), 700_027),
    ] {
        assert_eq!(world.prove(&wrong).await.verdict().2, code, "{wrong}");
    }
}

#[tokio::test]
async fn an_assertion_is_good_once() {
    let world = World::certified().await;
    let assertion = SIGNER.sign(&ps256(), &world.claims());
    assert_eq!(world.prove(&assertion).await.status, 200);
    assert_eq!(world.prove(&assertion).await.verdict(), (401, "invalid_client".to_owned(), 50_012));
    world.clock.advance(Duration::from_secs(899));
    assert_eq!(world.prove(&assertion).await.verdict().2, 50_012);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.prove(&assertion).await.verdict().2, 700_024);
}

#[tokio::test]
async fn one_proof_and_the_right_kind_of_it_is_needed() {
    let world = World::certified().await;
    let ask = async |more: &[(&str, &str)]| {
        let mut parameters =
            vec![("client_id", DEFAULT_CLIENT_ID), ("scope", EXCHANGE_SCOPE), ("grant_type", "client_credentials")];
        parameters.extend(more);
        form(&world.sandbox, &parameters).await.unwrap().verdict()
    };
    let assertion = SIGNER.sign(&ps256(), &world.claims());
    let (kind, proof) = (("client_assertion_type", JWT_BEARER), ("client_assertion", assertion.as_str()));
    let refused = |error: &str, code| (if error == "invalid_client" { 401 } else { 400 }, error.to_owned(), code);
    assert_eq!(ask(&[]).await, refused("invalid_client", 7_000_218));
    assert_eq!(ask(&[proof]).await, refused("invalid_request", 900_144));
    assert_eq!(ask(&[("client_assertion_type", "x"), proof]).await, refused("invalid_request", 90_023));
    assert_eq!(ask(&[kind, proof, ("client_secret", "x")]).await, refused("invalid_request", 90_023));
    assert_eq!(ask(&[("client_secret", DEFAULT_SECRET)]).await, refused("invalid_client", 7_000_215));
    let change = |application: &mut Application| {
        application.secrets = vec![DEFAULT_SECRET.to_owned()];
        application.expire_secrets();
    };
    world.sandbox.change_application(DEFAULT_CLIENT_ID, change).unwrap();
    assert_eq!(ask(&[("client_secret", DEFAULT_SECRET)]).await, refused("invalid_client", 7_000_222));
    world.sandbox.set_public_client(DEFAULT_CLIENT_ID, true).unwrap();
    assert_eq!(ask(&[("client_secret", "x")]).await, refused("invalid_client", 700_025));
    assert_eq!(ask(&[kind, proof]).await, refused("invalid_client", 700_025));
    assert_eq!(ask(&[]).await, refused("invalid_client", 7_000_218));
    world.sandbox.set_public_client(DEFAULT_CLIENT_ID, false).unwrap();
    assert_eq!(ask(&[kind, proof]).await, (200, String::new(), 0));
}

#[tokio::test]
async fn an_external_token_proves_the_application_that_trusts_it() {
    let world = World::certified().await;
    let hour = Duration::from_hours(1);
    let token = || world.sandbox.workload_token(SUBJECT, TOKEN_EXCHANGE_AUDIENCE, hour);
    let refused = |code| (401, "invalid_client".to_owned(), code);
    assert_eq!(world.prove(&token()).await.verdict(), refused(700_211));
    let trusted = FederatedIdentity::workload(SUBJECT);
    assert_eq!(trusted.issuer, WORKLOAD_ISSUER);
    let trust = |application: &mut Application| application.federated.push(trusted);
    world.sandbox.change_application(DEFAULT_CLIENT_ID, trust).unwrap();
    let reply = world.prove(&token()).await;
    assert_eq!(world.answer_to(DEFAULT_MAILBOX, &reply.text("access_token")).await, "235 2.7.0");
    let projected = token();
    // A projected token is used until the file has another.
    assert_eq!((world.prove(&projected).await.status, world.prove(&projected).await.status), (200, 200));
    let other = world.sandbox.workload_token("System:serviceaccount:mail:relay", TOKEN_EXCHANGE_AUDIENCE, hour);
    assert_eq!(world.prove(&other).await.verdict(), refused(700_213));
    let other = world.sandbox.workload_token(SUBJECT, "https://kubernetes.default.svc", hour);
    assert_eq!(world.prove(&other).await.verdict(), refused(700_212));
    assert_eq!(world.prove(&format!("{projected}A")).await.verdict(), refused(700_027));
    world.clock.advance(hour + Duration::from_secs(299));
    assert_eq!(world.prove(&projected).await.status, 200);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.prove(&projected).await.verdict(), refused(700_024));
    assert_eq!(world.answer_to(DEFAULT_MAILBOX, &token()).await, "535 5.7.3", "it is no access token");
}
