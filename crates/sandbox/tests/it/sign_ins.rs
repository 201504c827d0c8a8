//! People who sign in: by a browser, by a device code, and again by refresh tokens (facts 4.5).

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sandbox::{
    Application, DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_SECRET, DEFAULT_TENANT_ID, EXCHANGE_SCOPE, Fault,
    HttpFault, Limits, Mailbox, SMTP_SEND_SCOPES, SandboxOptions, SharedLogin, Stage, Target, TenantModel, User,
};
use url::Url;
use url::form_urlencoded::Serializer;

use crate::support::{HttpReply, World, form, http};

const BOSS: &str = "boss@contoso.com";
const SHARED: &str = "info@contoso.com";
const ADMIN: &str = "admin@contoso.com";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7636 appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://localhost:49152";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const AUTHORIZE: &str = "/contoso.com/oauth2/v2.0/authorize";

/// A public client, a boss with a mailbox of his own, a shared mailbox of his, and an admin without one.
fn with_people(options: &mut SandboxOptions) {
    let mut tenant = TenantModel::default()
        .mailbox(Mailbox::new(BOSS))
        .mailbox(Mailbox::new(SHARED).shared().delegate(BOSS))
        .user(User::new(ADMIN));
    tenant.applications = vec![Application::without_credential(DEFAULT_CLIENT_ID).public()];
    let other = TenantModel::new("99999999-2222-3333-4444-555555555555", &["fabrikam.com"])
        .application(Application::without_credential(DEFAULT_CLIENT_ID).public())
        .mailbox(Mailbox::new("boss@fabrikam.com"));
    options.tenants = vec![tenant, other];
}

fn encode(parameters: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(parameters).finish()
}

fn claims(token: &str) -> serde_json::Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn of_query(url: &Url, name: &str) -> String {
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

fn grant_error(code: u64) -> (u16, String, u64) {
    (400, "invalid_grant".to_owned(), code)
}

/// The parameters of a good visit.
fn visit() -> Vec<(&'static str, &'static str)> {
    vec![
        ("client_id", DEFAULT_CLIENT_ID),
        ("response_type", "code"),
        ("redirect_uri", REDIRECT),
        ("scope", SMTP_SEND_SCOPES),
        ("state", "st&te"),
        ("nonce", "n0nce"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]
}

impl World {
    async fn people() -> Self {
        Self::with(with_people).await
    }

    async fn get(&self, path: &str) -> HttpReply {
        http(&self.sandbox, "GET", path, "", "").await.unwrap()
    }

    async fn browse(&self, parameters: &[(&str, &str)]) -> HttpReply {
        self.get(&format!("{AUTHORIZE}?{}", encode(parameters))).await
    }

    /// A fresh authorization code for the boss.
    async fn fresh_code(&self) -> String {
        self.sandbox.change_conditions(|conditions| conditions.browser_user = Some(BOSS.to_owned()));
        of_query(&self.browse(&visit()).await.location(), "code")
    }

    async fn redeem(&self, code: &str, change: &[(&str, &str)]) -> HttpReply {
        let mut parameters = vec![
            ("client_id", DEFAULT_CLIENT_ID),
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        parameters.retain(|(name, _)| change.iter().all(|(changed, _)| changed != name));
        parameters.extend(change.iter().filter(|(_, value)| !value.is_empty()));
        form(&self.sandbox, &parameters).await.unwrap()
    }

    async fn refresh(&self, token: &str, more: &[(&str, &str)]) -> HttpReply {
        let mut parameters =
            vec![("client_id", DEFAULT_CLIENT_ID), ("grant_type", "refresh_token"), ("refresh_token", token)];
        parameters.extend(more);
        form(&self.sandbox, &parameters).await.unwrap()
    }

    async fn device(&self, scope: &str) -> HttpReply {
        let body = encode(&[("client_id", DEFAULT_CLIENT_ID), ("scope", scope)]);
        http(&self.sandbox, "POST", "/contoso.com/oauth2/v2.0/devicecode", FORM, &body).await.unwrap()
    }

    async fn poll(&self, device_code: &str) -> HttpReply {
        let parameters = [("client_id", DEFAULT_CLIENT_ID), ("grant_type", DEVICE_GRANT), ("device_code", device_code)];
        form(&self.sandbox, &parameters).await.unwrap()
    }
}

#[tokio::test]
async fn a_browser_comes_back_with_a_code_that_is_worth_tokens() {
    let world = World::people().await;
    assert_eq!(CHALLENGE, URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, VERIFIER.as_bytes())));
    world.sandbox.change_conditions(|conditions| conditions.browser_user = Some("Boss@contoso.com".to_owned()));
    let reply = world.browse(&visit()).await;
    let back = reply.location();
    assert_eq!((reply.status, back.host_str(), back.port()), (302, Some("localhost"), Some(49_152)));
    assert_eq!(of_query(&back, "state"), "st&te");
    let reply = world.redeem(&of_query(&back, "code"), &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.text("scope"), "https://outlook.office.com/SMTP.Send openid profile email");
    let access = claims(&reply.text("access_token"));
    assert_eq!(
        (access["aud"].as_str(), access["scp"].as_str()),
        (Some("https://outlook.office.com"), Some("SMTP.Send"))
    );
    assert_eq!((access["upn"].as_str(), access.get("roles")), (Some(BOSS), None));
    let identity = claims(&reply.text("id_token"));
    assert_eq!((identity["aud"].as_str(), identity["nonce"].as_str()), (Some(DEFAULT_CLIENT_ID), Some("n0nce")));
    assert_eq!((identity["preferred_username"].as_str(), identity["email"].as_str()), (Some(BOSS), Some(BOSS)));
    assert_eq!(identity["iss"], format!("https://login.microsoftonline.com/{DEFAULT_TENANT_ID}/v2.0"));
    assert_eq!(world.answer_to(BOSS, &reply.text("access_token")).await, "235 2.7.0");
    assert_eq!(world.answer_to(BOSS, &reply.text("id_token")).await, "535 5.7.3");
    assert_eq!(world.refresh(&reply.text("refresh_token"), &[]).await.status, 200);
    let counters = world.sandbox.counters();
    assert_eq!((counters.authorization_code_requests, counters.refresh_token_requests), (1, 1));
}

#[tokio::test]
async fn scopes_decide_what_comes_with_the_access_token() {
    let world = World::people().await;
    world.sandbox.change_conditions(|conditions| conditions.browser_user = Some(BOSS.to_owned()));
    for (scope, has_refresh, has_identity, has_name) in [
        ("https://outlook.office.com/SMTP.Send", false, false, false),
        ("https://outlook.office365.com/SMTP.Send offline_access", true, false, false),
        ("https://outlook.office.com/SMTP.Send openid", false, true, false),
        ("https://outlook.office.com/SMTP.Send openid profile offline_access", true, true, true),
    ] {
        let mut parameters = visit();
        parameters[3].1 = scope;
        let code = of_query(&world.browse(&parameters).await.location(), "code");
        let reply = world.redeem(&code, &[]).await;
        let json = reply.json();
        assert_eq!((json.get("refresh_token").is_some(), json.get("id_token").is_some()), (has_refresh, has_identity));
        if has_identity {
            assert_eq!(claims(&reply.text("id_token")).get("preferred_username").is_some(), has_name, "{scope}");
        }
        assert_eq!(world.answer_to(BOSS, &reply.text("access_token")).await, "235 2.7.0", "{scope}");
    }
    // A permission without its resource is Graph's, which SMTP refuses (facts 4.1).
    let mut parameters = visit();
    parameters[3].1 = "SMTP.Send";
    let code = of_query(&world.browse(&parameters).await.location(), "code");
    let token = world.redeem(&code, &[]).await.text("access_token");
    assert_eq!(world.answer_to(BOSS, &token).await, "535 5.7.3");
}

#[tokio::test]
async fn a_code_is_good_once_for_ten_minutes_and_for_whoever_asked() {
    let world = World::people().await;
    let code = world.fresh_code().await;
    let client = (401, "invalid_client".to_owned(), 500_112);
    for (change, expected) in [
        (&[("code_verifier", "")][..], grant_error(501_481)),
        (&[("code_verifier", "aBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")], grant_error(501_481)),
        (&[("code_verifier", "short")], grant_error(501_481)),
        (&[("redirect_uri", "http://localhost:49153")], client),
        (&[("redirect_uri", "")], (400, "invalid_request".to_owned(), 900_144)),
        (&[("code", "1.garbage")], grant_error(9_002_313)),
        (&[("scope", "https://outlook.office.com/IMAP.AccessAsUser.All")], grant_error(65_001)),
        (&[("client_secret", "x")], (401, "invalid_client".to_owned(), 700_025)),
    ] {
        assert_eq!(world.redeem(&code, change).await.verdict(), expected, "{change:?}");
    }
    assert_eq!(world.redeem(&code, &[]).await.status, 200);
    assert_eq!(world.redeem(&code, &[]).await.verdict(), grant_error(54_005));
    let code = world.fresh_code().await;
    world.clock.advance(Duration::from_mins(10));
    assert_eq!(world.redeem(&code, &[]).await.verdict(), grant_error(70_008));
    let code = world.fresh_code().await;
    assert_eq!(world.sandbox.revoke_sign_ins(BOSS).unwrap(), 1);
    assert_eq!(world.redeem(&code, &[]).await.verdict(), grant_error(9_002_313));
}

#[tokio::test]
async fn a_confidential_client_sends_its_secret_with_every_grant() {
    let world = World::people().await;
    let change = |application: &mut Application| *application = Application::new(DEFAULT_CLIENT_ID, DEFAULT_SECRET);
    world.sandbox.change_application(DEFAULT_CLIENT_ID, change).unwrap();
    let missing = (401, "invalid_client".to_owned(), 7_000_218);
    let secret = ("client_secret", DEFAULT_SECRET);
    let code = world.fresh_code().await;
    assert_eq!(world.redeem(&code, &[]).await.verdict(), missing);
    let token = world.redeem(&code, &[secret]).await.text("refresh_token");
    assert_eq!(world.refresh(&token, &[]).await.verdict(), missing);
    assert_eq!(world.refresh(&token, &[("client_secret", "x")]).await.verdict().2, 7_000_215);
    assert_eq!(world.refresh(&token, &[secret]).await.status, 200);
    let device = world.device(SMTP_SEND_SCOPES).await;
    assert_eq!(device.status, 200);
    assert_eq!(world.poll(&device.text("device_code")).await.verdict(), missing);
}

#[tokio::test]
async fn a_browser_without_a_user_gets_a_page_of_links() {
    let world = World::people().await;
    let page = world.browse(&visit()).await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("\r\ncontent-type: text/html"));
    let links: Vec<String> = page
        .body
        .split("<a href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&"))
        .collect();
    assert_eq!(links.len(), 4, "three users, no shared mailbox, and a way to decline: {}", page.body);
    assert!(!page.body.contains(SHARED));
    let back = world.get(&links[1]).await.location();
    let token = world.redeem(&of_query(&back, "code"), &[]).await.text("access_token");
    assert_eq!(claims(&token)["upn"], BOSS);
    let back = world.get(&links[3]).await.location();
    assert_eq!((of_query(&back, "error").as_str(), of_query(&back, "state").as_str()), ("access_denied", "st&te"));
    assert!(of_query(&back, "error_description").starts_with("AADSTS65004: "));
    assert!(of_query(&back, "code").is_empty());
    // A hint alone signs nobody in.
    let mut parameters = visit();
    parameters.push(("login_hint", BOSS));
    assert_eq!(world.browse(&parameters).await.status, 200);
    parameters.push(("sandbox_consent", "1"));
    assert_eq!(world.browse(&parameters).await.status, 302);
}

#[tokio::test]
async fn a_wrong_visit_goes_back_with_an_error_only_where_it_may() {
    let world = World::people().await;
    world.sandbox.change_conditions(|conditions| conditions.browser_user = Some(BOSS.to_owned()));
    for (name, value, code) in [
        ("client_id", "nobody", "AADSTS700016"),
        ("client_id", "", "AADSTS900144"),
        ("redirect_uri", "http://127.0.0.1:49152", "AADSTS50011"),
        ("redirect_uri", "http://localhost:49152/callback", "AADSTS50011"),
        ("redirect_uri", "https://evil.example/", "AADSTS50011"),
        ("redirect_uri", "", "AADSTS900144"),
    ] {
        let mut parameters = visit();
        parameters.iter_mut().find(|(key, _)| *key == name).unwrap().1 = value;
        let reply = world.browse(&parameters).await;
        assert!(reply.status == 400 && reply.body.contains(code), "{name} {value}: {}", reply.body);
        assert!(!reply.head.contains("\r\nlocation:"));
    }
    for (name, value, error, code) in [
        ("response_type", "token", "unsupported_response_type", "AADSTS700051"),
        ("scope", "https://outlook.office.com/SMTP.SendAsApp", "invalid_scope", "AADSTS70011"),
        ("scope", "https://outlook.office.com/SMTP.Send User.Read", "invalid_scope", "AADSTS700022"),
        ("code_challenge", "", "invalid_request", "AADSTS9002325"),
        ("code_challenge", "short", "invalid_request", "AADSTS501491"),
        ("code_challenge_method", "plain", "invalid_request", "AADSTS50149"),
        ("code_challenge_method", "", "invalid_request", "AADSTS50149"),
    ] {
        let mut parameters = visit();
        parameters.iter_mut().find(|(key, _)| *key == name).unwrap().1 = value;
        let back = world.browse(&parameters).await.location();
        assert_eq!((of_query(&back, "error").as_str(), of_query(&back, "state").as_str()), (error, "st&te"), "{name}");
        assert!(of_query(&back, "error_description").starts_with(&format!("{code}: ")), "{back}");
    }
    world.sandbox.change_conditions(|conditions| conditions.browser_user = Some(SHARED.to_owned()));
    assert!(world.browse(&visit()).await.body.contains("AADSTS50034"), "nobody signs in as a shared mailbox");
    assert_eq!(http(&world.sandbox, "POST", AUTHORIZE, FORM, "").await.unwrap().status, 405);
}

#[tokio::test]
async fn each_use_of_a_refresh_token_gives_another_and_leaves_the_old_one_good() {
    let world = World::people().await;
    let first = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, BOSS).unwrap();
    let reply = world.refresh(&first, &[]).await;
    let second = reply.text("refresh_token");
    assert_ne!(first, second);
    assert_eq!(world.answer_to(BOSS, &reply.text("access_token")).await, "235 2.7.0");
    assert_eq!(world.refresh(&first, &[("scope", SMTP_SEND_SCOPES)]).await.status, 200);
    assert_eq!(world.refresh(&second, &[]).await.status, 200);
    assert_eq!(world.sandbox.refresh_tokens_alive(BOSS), 4);
    let beyond = [("scope", "https://graph.microsoft.com/User.Read")];
    assert_eq!(world.refresh(&second, &beyond).await.verdict(), grant_error(65_001));
    // Each lives for 90 days from its own issue.
    world.clock.advance(Duration::from_hours(89 * 24));
    let third = world.refresh(&second, &[]).await.text("refresh_token");
    world.clock.advance(Duration::from_hours(24));
    assert_eq!(world.sandbox.refresh_tokens_alive(BOSS), 1);
    let expired = world.refresh(&second, &[]).await;
    assert_eq!(expired.verdict(), grant_error(700_082));
    assert!(expired.text("error_description").contains(" inactive for 90.00:00:00."), "{}", expired.body);
    let fourth = world.refresh(&third, &[]).await.text("refresh_token");
    assert_eq!(world.sandbox.revoke_sign_ins("Boss@contoso.com").unwrap(), 2);
    for dead in [&third, &fourth] {
        assert_eq!(world.refresh(dead, &[]).await.verdict(), grant_error(50_173));
    }
    assert_eq!(world.sandbox.refresh_tokens_alive(BOSS), 0);
}

#[tokio::test]
async fn a_refresh_token_is_of_one_client_one_user_and_his_tenant() {
    let world = World::people().await;
    let other = Application::without_credential("77777777-7777-8888-9999-000000000000").public();
    world.sandbox.change_tenant("contoso.com", |tenant| tenant.applications.push(other)).unwrap();
    let token = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, BOSS).unwrap();
    assert_eq!(world.refresh("1.garbage", &[]).await.verdict(), grant_error(9_002_313));
    let parameters = [
        ("client_id", "77777777-7777-8888-9999-000000000000"),
        ("grant_type", "refresh_token"),
        ("refresh_token", &token),
    ];
    assert_eq!(form(&world.sandbox, &parameters).await.unwrap().verdict(), grant_error(9_002_313));
    let body = encode(&[("client_id", DEFAULT_CLIENT_ID), ("grant_type", "refresh_token"), ("refresh_token", &token)]);
    let elsewhere = http(&world.sandbox, "POST", "/fabrikam.com/oauth2/v2.0/token", FORM, &body).await.unwrap();
    assert_eq!(elsewhere.verdict(), grant_error(50_034));
    world.sandbox.change_tenant("contoso.com", |tenant| tenant.mailboxes.retain(|own| own.address != BOSS)).unwrap();
    assert_eq!(world.refresh(&token, &[]).await.verdict(), grant_error(50_034));
    for (user, error) in [
        ("gone@contoso.com", "no user `gone@contoso.com` in the sandbox"),
        (SHARED, "no user `info@contoso.com` in the sandbox"),
        (
            "boss@fabrikam.com",
            "user `boss@fabrikam.com` is not in the tenant of application `66666666-7777-8888-9999-000000000000`",
        ),
    ] {
        let refused = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, user).unwrap_err();
        assert_eq!(refused.to_string(), error);
    }
}

#[tokio::test]
async fn a_loop_of_refreshes_is_ended_for_the_user_alone() {
    let world = World::people().await;
    let token = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, BOSS).unwrap();
    let other = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, DEFAULT_MAILBOX).unwrap();
    let mut latest = token.clone();
    for _ in 0..15 {
        latest = world.refresh(&latest, &[]).await.text("refresh_token");
    }
    assert_eq!(world.refresh(&latest, &[]).await.verdict(), grant_error(50_196));
    assert_eq!(world.refresh(&token, &[]).await.verdict(), grant_error(50_196));
    assert_eq!(world.refresh(&other, &[]).await.status, 200);
    world.clock.advance(Duration::from_mins(5));
    assert_eq!(world.refresh(&latest, &[]).await.status, 200);
}

#[tokio::test]
async fn a_device_polls_until_somebody_signs_in() {
    let world = World::people().await;
    let device = world.device(SMTP_SEND_SCOPES).await;
    let json = device.json();
    let (user_code, device_code) = (device.text("user_code"), device.text("device_code"));
    assert_eq!((json["expires_in"].as_u64(), json["interval"].as_u64()), (Some(900), Some(5)));
    assert!(json.get("verification_uri_complete").is_none());
    let page = device.text("verification_uri");
    assert_eq!(page, format!("{}/common/oauth2/deviceauth", world.sandbox.authority()));
    let message = device.text("message");
    assert!(message.contains(&page) && message.contains(&user_code), "{message}");
    assert_eq!(world.sandbox.waiting_devices(), [user_code.as_str()]);
    let flow = |error: &str, code| (400, error.to_owned(), code);
    assert_eq!(world.poll(&device_code).await.verdict(), flow("authorization_pending", 70_016));
    // Too fast costs five seconds more, each time (RFC 8628 section 3.5).
    world.clock.advance(Duration::from_millis(4_999));
    assert_eq!(world.poll(&device_code).await.verdict().1, "slow_down");
    world.clock.advance(Duration::from_millis(9_999));
    assert_eq!(world.poll(&device_code).await.verdict().1, "slow_down");
    world.clock.advance(Duration::from_secs(15));
    assert_eq!(world.poll(&device_code).await.verdict().1, "authorization_pending");
    world.sandbox.approve_device(&user_code.to_lowercase(), "Boss@contoso.com").unwrap();
    assert!(world.sandbox.waiting_devices().is_empty());
    world.clock.advance(Duration::from_secs(15));
    let reply = world.poll(&device_code).await;
    assert_eq!(world.answer_to(BOSS, &reply.text("access_token")).await, "235 2.7.0");
    assert_eq!(world.refresh(&reply.text("refresh_token"), &[]).await.status, 200);
    world.clock.advance(Duration::from_secs(15));
    assert_eq!(world.poll(&device_code).await.verdict(), grant_error(54_005));
    assert_eq!(world.sandbox.counters().device_code_requests, 6);
}

#[tokio::test]
async fn a_device_hears_when_it_is_declined_expired_or_unknown() {
    let world = World::people().await;
    world.sandbox.change_conditions(|conditions| {
        conditions.device_interval = Duration::ZERO;
        conditions.device_lifetime = Duration::from_mins(1);
    });
    let device = world.device(SMTP_SEND_SCOPES).await;
    assert_eq!((device.json()["expires_in"].as_u64(), device.json()["interval"].as_u64()), (Some(60), Some(0)));
    world.sandbox.decline_device(&device.text("user_code")).unwrap();
    let flow = |error: &str, code| (400, error.to_owned(), code);
    let declined = world.poll(&device.text("device_code")).await;
    assert_eq!(declined.verdict(), flow("authorization_declined", 65_004));
    let device = world.device(SMTP_SEND_SCOPES).await;
    let polls = async || world.poll(&device.text("device_code")).await.verdict();
    for _ in 0..20 {
        assert_eq!(polls().await.1, "authorization_pending", "polls are no loop");
    }
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(polls().await, flow("expired_token", 70_019));
    assert!(world.sandbox.approve_device(&device.text("user_code"), BOSS).is_err());
    assert_eq!(world.poll("x").await.verdict(), flow("bad_verification_code", 70_018));
    assert_eq!(world.device("https://outlook.office.com/SMTP.SendAsApp").await.verdict().2, 70_011);
    assert_eq!(world.device("").await.verdict().2, 900_144);
}

#[tokio::test]
async fn a_person_enters_the_code_on_a_page() {
    let world = World::people().await;
    world.sandbox.change_conditions(|conditions| conditions.device_interval = Duration::ZERO);
    assert!(world.get("/devicelogin").await.body.contains("name=\"otc\""));
    assert!(world.get("/common/oauth2/deviceauth?otc=WRONG").await.body.contains("That code didn&#39;t work."));
    let device = world.device(SMTP_SEND_SCOPES).await;
    let code = device.text("user_code");
    let page = world.get(&format!("/devicelogin?otc=+{}+", code.to_lowercase())).await.body;
    assert!(page.contains(BOSS) && page.contains(ADMIN) && !page.contains(SHARED), "{page}");
    let post = async |parameters: &[(&str, &str)]| {
        http(&world.sandbox, "POST", "/devicelogin", FORM, &encode(parameters)).await.unwrap().body
    };
    assert!(post(&[("otc", &code), ("user", SHARED)]).await.contains("AADSTS50034"));
    assert!(post(&[("otc", &code), ("user", BOSS)]).await.contains("You have signed in"));
    assert!(post(&[("otc", &code), ("user", BOSS)]).await.contains("That code didn&#39;t work."));
    let token = world.poll(&device.text("device_code")).await.text("access_token");
    assert_eq!(claims(&token)["upn"], BOSS);
    let device = world.device(SMTP_SEND_SCOPES).await;
    assert!(post(&[("otc", &device.text("user_code")), ("decline", "1")]).await.contains("You have declined"));
    assert_eq!(world.poll(&device.text("device_code")).await.verdict().1, "authorization_declined");
}

#[tokio::test]
async fn a_shared_mailbox_is_opened_by_its_delegate_under_the_name_that_counts() {
    let world = World::people().await;
    let token = |user| world.sandbox.issue_delegated_token(DEFAULT_CLIENT_ID, user).unwrap();
    let (boss, admin, scanner) = (token(BOSS), token(ADMIN), token(DEFAULT_MAILBOX));
    for (shared, user, token, expected) in [
        (SharedLogin::Mailbox, SHARED, &boss, "235 2.7.0"),
        (SharedLogin::Mailbox, BOSS, &boss, "235 2.7.0"),
        (SharedLogin::Mailbox, SHARED, &scanner, "535 5.7.3"),
        (SharedLogin::Mailbox, BOSS, &admin, "535 5.7.3"),
        (SharedLogin::Mailbox, ADMIN, &admin, "535 5.7.3"),
        (SharedLogin::Delegate, SHARED, &boss, "535 5.7.3"),
        (SharedLogin::Delegate, BOSS, &boss, "235 2.7.0"),
    ] {
        world.sandbox.change_conditions(|conditions| conditions.shared_login = shared);
        assert_eq!(world.answer_to(user, token).await, expected, "{shared:?} {user}");
    }
    assert!(world.sandbox.issue_delegated_token(DEFAULT_CLIENT_ID, SHARED).is_err());
    world.sandbox.set_mailbox_smtp_auth(BOSS, sandbox::SmtpAuth::Disabled).unwrap();
    assert_eq!(world.answer_to(BOSS, &boss).await, "535 5.7.139");
}

#[tokio::test]
async fn faults_strike_every_grant() {
    let world = World::with(|options| {
        with_people(options);
        options.limits = Limits::Off;
    })
    .await;
    let refresh = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, BOSS).unwrap();
    let device = world.device(SMTP_SEND_SCOPES).await.text("device_code");
    for parameters in [
        &[("grant_type", "client_credentials"), ("scope", EXCHANGE_SCOPE)][..],
        &[("grant_type", "authorization_code"), ("code", "x")],
        &[("grant_type", "refresh_token"), ("refresh_token", &refresh)],
        &[("grant_type", DEVICE_GRANT), ("device_code", &device)],
    ] {
        let client = Target::Client(DEFAULT_CLIENT_ID.to_uppercase());
        let answer = sandbox::Action::Http(HttpFault { status: 503, ..HttpFault::default() });
        world.sandbox.inject(Fault::once(Stage::Token, answer).only(client)).unwrap();
        let with = |client| [&[("client_id", client)], parameters].concat();
        assert_ne!(form(&world.sandbox, &with("somebody")).await.unwrap().status, 503);
        assert_eq!(form(&world.sandbox, &with(DEFAULT_CLIENT_ID)).await.unwrap().status, 503);
        assert_ne!(form(&world.sandbox, &with(DEFAULT_CLIENT_ID)).await.unwrap().status, 503);
    }
}

#[tokio::test]
async fn the_device_code_endpoint_fails_as_told() {
    let world = World::people().await;
    let fault = |line: &str| world.sandbox.obey(&line.parse().unwrap()).unwrap();
    fault("fault at device-code close");
    let body = encode(&[("client_id", DEFAULT_CLIENT_ID), ("scope", SMTP_SEND_SCOPES)]);
    let path = "/contoso.com/oauth2/v2.0/devicecode";
    assert!(http(&world.sandbox, "POST", path, FORM, &body).await.is_none());
    let answer = sandbox::Action::Http(HttpFault { status: 429, retry_after: Some(7), ..HttpFault::default() });
    let client = Target::Client(DEFAULT_CLIENT_ID.to_owned());
    world.sandbox.inject(Fault::once(Stage::DeviceCode, answer).only(client)).unwrap();
    assert_eq!(world.device(SMTP_SEND_SCOPES).await.status, 429);
    assert_eq!(world.device(SMTP_SEND_SCOPES).await.status, 200);
    assert_eq!(http(&world.sandbox, "GET", path, "", "").await.unwrap().verdict().2, 900_561);
    assert_eq!(world.sandbox.counters().token_requests, 0, "these are no requests for tokens");
}

#[tokio::test]
async fn answers_can_say_when_to_refresh() {
    let world = World::people().await;
    let token = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, BOSS).unwrap();
    assert!(world.refresh(&token, &[]).await.json().get("refresh_in").is_none());
    world.sandbox.change_conditions(|conditions| conditions.refresh_in = Some(Duration::from_mins(30)));
    assert_eq!(world.refresh(&token, &[]).await.json()["refresh_in"], 1_800);
}
