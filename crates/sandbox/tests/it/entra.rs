//! The token endpoint over HTTPS (facts 4.2, 4.6).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sandbox::{DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_SECRET, DEFAULT_TENANT_ID, EXCHANGE_SCOPE, Limits};
use url::form_urlencoded;

use crate::support::{HttpReply, World, http, xoauth2};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// The parameters of a good request.
fn good() -> Vec<(&'static str, &'static str)> {
    vec![
        ("client_id", DEFAULT_CLIENT_ID),
        ("scope", EXCHANGE_SCOPE),
        ("grant_type", "client_credentials"),
        ("client_secret", DEFAULT_SECRET),
    ]
}

fn encode(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

impl World {
    async fn ask(&self, tenant: &str, head: &str, parameters: &[(&str, &str)]) -> HttpReply {
        let path = format!("/{tenant}/oauth2/v2.0/token");
        http(&self.sandbox, "POST", &path, &format!("{FORM}{head}"), &encode(parameters)).await.unwrap()
    }
}

#[tokio::test]
async fn a_good_request_gets_a_token_that_opens_the_mailbox() {
    let world = World::with(|options| options.limits = Limits::Off).await;
    for tenant in [DEFAULT_TENANT_ID, "contoso.onmicrosoft.com", "Contoso.com"] {
        let reply = world.ask(tenant, "", &good()).await;
        assert_eq!(reply.status, 200);
        assert!(reply.head.contains("\r\ncontent-type: application/json; charset=utf-8"));
        assert!(reply.head.contains("\r\ncache-control: no-store"));
        let json = reply.json();
        assert_eq!(json["token_type"], "Bearer");
        assert_eq!((json["expires_in"].as_u64(), json["ext_expires_in"].as_u64()), (Some(4_500), Some(4_500)));
        assert!(json.get("refresh_token").is_none());
        let token = json["access_token"].as_str().unwrap();
        let mut client = world.secure().await;
        let answer = client.say(&format!("AUTH XOAUTH2 {}", xoauth2(DEFAULT_MAILBOX, token))).await;
        assert_eq!(answer, "235 2.7.0 Authentication successful");
    }
    let counters = world.sandbox.counters();
    assert_eq!((counters.token_requests, counters.tokens_issued), (3, 3));
}

#[tokio::test]
async fn tokens_have_the_claims_of_an_app_only_token() {
    let world = World::with(|options| options.token_lifetime = Some(Duration::from_secs(4_000))).await;
    let json = world.ask(DEFAULT_TENANT_ID, "", &good()).await.json();
    assert_eq!(json["expires_in"], 4_000);
    let token = json["access_token"].as_str().unwrap();
    let part = |index| -> serde_json::Value {
        let part = token.split('.').nth(index).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(part(0)["alg"], "HS256");
    let claims = part(1);
    assert_eq!(claims["aud"], "https://outlook.office365.com");
    assert_eq!(claims["iss"], format!("https://sts.windows.net/{DEFAULT_TENANT_ID}/"));
    assert_eq!((claims["appid"].as_str(), claims["tid"].as_str()), (Some(DEFAULT_CLIENT_ID), Some(DEFAULT_TENANT_ID)));
    assert_eq!(claims["exp"].as_i64(), Some(1_707_922_226 + 4_000));
    assert!(claims.get("roles").is_none());
}

#[tokio::test]
async fn the_secret_may_come_by_http_basic() {
    let world = World::new().await;
    // Characters that are lost when one of the two encodings is forgotten.
    let secret = "a+b&c=d %:\u{fc}";
    world.sandbox.rotate_secret(DEFAULT_CLIENT_ID, secret).unwrap();
    let encoded: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let header = format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{DEFAULT_CLIENT_ID}:{encoded}")));
    let rest = [("scope", EXCHANGE_SCOPE), ("grant_type", "client_credentials")];
    assert_eq!(world.ask(DEFAULT_TENANT_ID, &header, &rest).await.status, 200);
    // Both at once is an error (RFC 6749 section 2.3).
    assert_eq!(world.ask(DEFAULT_TENANT_ID, &header, &good()).await.status, 400);
    // The old secret is gone.
    assert_eq!(world.ask(DEFAULT_TENANT_ID, "", &good()).await.json()["error_codes"][0], 7_000_215);
    let mut in_form = good();
    in_form[3].1 = secret;
    assert_eq!(world.ask(DEFAULT_TENANT_ID, "", &in_form).await.status, 200);
}

/// What a request differs in from a good one, and what it gets.
struct Case {
    tenant: &'static str,
    change: (&'static str, Option<&'static str>),
    status: u16,
    error: &'static str,
    code: u32,
}

#[tokio::test]
async fn every_mistake_has_its_code() {
    let world = World::with(|options| options.limits = Limits::Off).await;
    let case = |change, status, error, code| Case { tenant: DEFAULT_TENANT_ID, change, status, error, code };
    let at = |tenant, code| Case { tenant, change: ("x", None), status: 400, error: "invalid_request", code };
    let table = [
        at("fabrikam.com", 90_002),
        at("00000000-0000-0000-0000-000000000000", 90_002),
        at("common", 9_001_023),
        case(("grant_type", None), 400, "invalid_request", 900_144),
        case(("client_id", None), 400, "invalid_request", 900_144),
        case(("scope", None), 400, "invalid_request", 900_144),
        case(("scope", Some("")), 400, "invalid_request", 900_144),
        case(("grant_type", Some("password")), 400, "unsupported_grant_type", 70_003),
        case(("client_id", Some("00000000-7777-8888-9999-000000000000")), 400, "unauthorized_client", 700_016),
        case(("scope", Some("https://outlook.office365.com/SMTP.Send")), 400, "invalid_scope", 70_011),
        case(("scope", Some("https://outlook.office.com/.default")), 400, "invalid_scope", 70_011),
        case(("scope", Some("https://outlook.office365.com/.default offline_access")), 400, "invalid_scope", 70_011),
        case(("client_secret", None), 401, "invalid_client", 7_000_218),
        case(("client_secret", Some("11111111-0000-0000-0000-000000000000")), 401, "invalid_client", 7_000_215),
    ];
    for Case { tenant, change: (name, value), status, error, code } in table {
        let mut parameters = good();
        parameters.retain(|&(key, _)| key != name);
        parameters.extend(value.map(|value| (name, value)));
        let reply = world.ask(tenant, "", &parameters).await;
        let json = reply.json();
        let seen = (reply.status, json["error"].as_str(), json["error_codes"][0].as_u64());
        assert_eq!(seen, (status, Some(error), Some(u64::from(code))), "{tenant} {name} {value:?}");
    }
    assert_eq!(world.sandbox.counters().tokens_issued, 0);
}

#[tokio::test]
async fn errors_have_entras_form() {
    let world = World::new().await;
    let mut parameters = good();
    parameters[3].1 = "wrong";
    let json = world.ask(DEFAULT_TENANT_ID, "", &parameters).await.json();
    let text = |key: &str| json[key].as_str().unwrap().to_owned();
    assert_eq!(text("timestamp"), "2024-02-14 14:50:26Z");
    assert_eq!(text("error_uri"), "https://login.microsoftonline.com/error?code=7000215");
    let description = text("error_description");
    assert!(description.starts_with("AADSTS7000215: Invalid client secret provided. "), "{description}");
    let tail = format!(
        "\r\nTrace ID: {}\r\nCorrelation ID: {}\r\nTimestamp: 2024-02-14 14:50:26Z",
        text("trace_id"),
        text("correlation_id")
    );
    assert!(description.ends_with(&tail), "{description}");
    assert!(!description.contains("wrong"));
}

#[tokio::test]
async fn odd_requests_are_refused() {
    let world = World::new().await;
    let path = format!("/{DEFAULT_TENANT_ID}/oauth2/v2.0/token");
    let body = encode(&good());
    let code = async |method: &str, path: &str, head: &str, body: &str| {
        let reply = http(&world.sandbox, method, path, head, body).await.unwrap();
        (
            reply.status,
            serde_json::from_str(&reply.body)
                .map_or(0, |json: serde_json::Value| json["error_codes"][0].as_u64().unwrap()),
        )
    };
    assert_eq!(code("POST", &path, "Content-Type: application/json\r\n", "{}").await, (400, 900_144));
    assert_eq!(code("POST", &path, "", &body).await, (400, 900_144));
    assert_eq!(code("POST", &path, FORM, &format!("{body}&scope=x")).await, (400, 9_000_411));
    assert_eq!(code("GET", &path, "", "").await.1, 900_561);
    assert_eq!(code("POST", &path, FORM, &"x".repeat(70_000)).await, (413, 0));
    for other in ["/", "/token", "//oauth2/v2.0/token", "/a/b/oauth2/v2.0/token", &format!("{path}/")] {
        assert_eq!(code("POST", other, FORM, &body).await, (404, 0), "{other}");
    }
}

#[tokio::test]
async fn a_request_loop_is_ended() {
    let world = World::new().await;
    for _ in 0..15 {
        assert_eq!(world.ask(DEFAULT_TENANT_ID, "", &good()).await.status, 200);
    }
    let reply = world.ask("contoso.com", "", &good()).await;
    assert_eq!((reply.status, reply.json()["error"].as_str()), (400, Some("invalid_grant")));
    assert_eq!(reply.json()["error_codes"][0], 50_196);
    world.clock.advance(Duration::from_mins(5));
    assert_eq!(world.ask(DEFAULT_TENANT_ID, "", &good()).await.status, 200);
}
