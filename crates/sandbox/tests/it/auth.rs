//! AUTH (facts 1.3, 1.5): both forms of XOAUTH2, everything that is refused, and the reasons that Exchange hides.

use std::time::Duration;

use sandbox::{
    Application, AuthRefusal, DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_TENANT_ID, EXCHANGE_SCOPE, GRAPH_SCOPE,
    Grant, Mailbox, SmtpAuth, TenantModel,
};

use crate::support::{World, xoauth2};

const OK: &str = "235 2.7.0 Authentication successful";
const FAILED: &str = "535 5.7.3 Authentication unsuccessful [..]";
const OTHER_CLIENT: &str = "77777777-7777-8888-9999-000000000000";

impl World {
    fn token(&self) -> String {
        self.sandbox.issue_token(DEFAULT_CLIENT_ID, EXCHANGE_SCOPE).unwrap()
    }

    /// Logs in on a new connection; gives the reply and, if it was refused, the true reason.
    async fn login(&self, user: &str, token: &str) -> (String, Option<AuthRefusal>) {
        let failures = self.sandbox.counters().auth_failures;
        let mut client = self.secure().await;
        let reply = client.say(&format!("AUTH XOAUTH2 {}", xoauth2(user, token))).await;
        let refused = self.sandbox.counters().auth_failures > failures;
        (reply, self.sandbox.last_auth_refusal().filter(|_| refused))
    }

    async fn refused(&self, user: &str, token: &str, why: AuthRefusal) {
        assert_eq!(self.login(user, token).await, (FAILED.to_owned(), Some(why)));
    }
}

#[tokio::test]
async fn inline_and_in_two_steps() {
    let world = World::new().await;
    let response = xoauth2("Scanner@contoso.com", &world.token());
    let mut client = world.secure().await;
    assert_eq!(client.say(&format!("auth xoauth2 {response}")).await, OK);
    let mut client = world.secure().await;
    assert_eq!(client.say("AUTH XOAUTH2").await, "334 ");
    assert_eq!(client.say(&response).await, OK);
    assert_eq!(world.sandbox.counters().auth_successes, 2);
    assert_eq!(client.send("\r\n").await.split(' ').next(), Some("250"));
    // The login is the mailbox's own spelling.
    assert_eq!(world.sandbox.message(0).unwrap().login, DEFAULT_MAILBOX);
}

#[tokio::test]
async fn microsofts_vector_is_well_formed_and_not_ours() {
    let world = World::new().await;
    let vector = "dXNlcj10ZXN0QGNvbnRvc28ub25taWNyb3NvZnQuY29tAWF1dGg9QmVhcmVyIEV3QkFBbDNCQUFVRkZwVUFvN0ozVmUwYmpMQldaV0NjbFJDM0VvQUEBAQ==";
    assert_eq!(vector, xoauth2("test@contoso.onmicrosoft.com", "EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA"));
    let mut client = world.secure().await;
    assert_eq!(client.say(&format!("AUTH XOAUTH2 {vector}")).await, FAILED);
    assert_eq!(world.sandbox.last_auth_refusal(), Some(AuthRefusal::ForeignToken));
    assert_eq!(client.say("AUTH XOAUTH2 dXNlcj0=").await, FAILED);
    assert_eq!(world.sandbox.last_auth_refusal(), Some(AuthRefusal::Malformed));
    assert_eq!(client.say("AUTH XOAUTH2").await, "334 ");
    assert_eq!(client.say("*").await, FAILED);
    assert_eq!(world.sandbox.last_auth_refusal(), Some(AuthRefusal::Cancelled));
}

#[tokio::test]
async fn other_mechanisms() {
    let world = World::with(|options| options.protocol_errors = 1_000).await;
    let mut client = world.secure().await;
    client
        .play(
            "C: AUTH PLAIN AGEAYg==
             S: 504 5.7.4 Unrecognized authentication type [..]
             C: AUTH OAUTHBEARER
             S: 504 5.7.4 Unrecognized authentication type [..]
             C: AUTH
             S: 501 5.5.4 Invalid arguments [..]
             C: AUTH LOGIN
             S: 334 VXNlcm5hbWU6
             C: c2Nhbm5lckBjb250b3NvLmNvbQ==
             S: 334 UGFzc3dvcmQ6
             C: cGFzc3dvcmQ=
             S: 535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [..]
             C: AUTH LOGIN c2Nhbm5lckBjb250b3NvLmNvbQ==
             S: 334 UGFzc3dvcmQ6
             C: cGFzc3dvcmQ=
             S: 535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [..]
             C: MAIL FROM:<scanner@contoso.com>
             S: 530 5.7.57 Client not authenticated to send mail. Error: 535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [..]",
        )
        .await;
}

#[tokio::test]
async fn bad_tokens_are_refused_alike() {
    let world = World::new().await;
    let token = world.token();
    world.refused("nobody@contoso.com", &token, AuthRefusal::UnknownMailbox).await;
    world.refused(DEFAULT_MAILBOX, &token[..token.len() - 2], AuthRefusal::ForeignToken).await;
    let graph = world.sandbox.issue_token(DEFAULT_CLIENT_ID, GRAPH_SCOPE).unwrap();
    world.refused(DEFAULT_MAILBOX, &graph, AuthRefusal::WrongAudience).await;
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let world = World::with(|options| options.token_lifetime = Some(Duration::from_hours(1))).await;
    let token = world.token();
    world.clock.advance(Duration::from_secs(3_599));
    assert_eq!(world.login(DEFAULT_MAILBOX, &token).await.0, OK);
    world.clock.advance(Duration::from_secs(1));
    world.refused(DEFAULT_MAILBOX, &token, AuthRefusal::Expired).await;
}

#[tokio::test]
async fn another_tenants_token_is_refused() {
    let world = World::with(|options| {
        let fabrikam = TenantModel::new("99999999-2222-3333-4444-555555555555", &["fabrikam.com"])
            .application(Application::new(OTHER_CLIENT, "secret"))
            .mailbox(Mailbox::new("print@fabrikam.com").granted(OTHER_CLIENT, Grant::Rbac));
        options.tenants.push(fabrikam);
    })
    .await;
    let token = world.sandbox.issue_token(OTHER_CLIENT, EXCHANGE_SCOPE).unwrap();
    assert_eq!(world.login("print@fabrikam.com", &token).await.0, OK);
    world.refused(DEFAULT_MAILBOX, &token, AuthRefusal::OtherTenant).await;
}

#[tokio::test]
async fn grants_come_and_go() {
    let world = World::with(|options| {
        options.tenants[0].mailboxes.push(Mailbox::new("second@contoso.com"));
        options.tenants[0].applications.push(Application::new(OTHER_CLIENT, "secret").with_send_as_app());
    })
    .await;
    let token = world.token();
    world.refused("second@contoso.com", &token, AuthRefusal::NotGranted).await;
    world.sandbox.grant("second@contoso.com", DEFAULT_CLIENT_ID, Grant::Rbac).unwrap();
    assert_eq!(world.login("second@contoso.com", &token).await.0, OK);
    world.sandbox.revoke("second@contoso.com", DEFAULT_CLIENT_ID).unwrap();
    world.refused("second@contoso.com", &token, AuthRefusal::NotGranted).await;
    // A token with the role needs the other kind of grant.
    let with_role = world.sandbox.issue_token(OTHER_CLIENT, EXCHANGE_SCOPE).unwrap();
    world.sandbox.grant("second@contoso.com", OTHER_CLIENT, Grant::Rbac).unwrap();
    world.refused("second@contoso.com", &with_role, AuthRefusal::NotGranted).await;
    world.sandbox.grant("second@contoso.com", OTHER_CLIENT, Grant::FullAccess).unwrap();
    assert_eq!(world.login("second@contoso.com", &with_role).await.0, OK);
    assert!(world.sandbox.grant("nobody@contoso.com", OTHER_CLIENT, Grant::Rbac).is_err());
}

#[tokio::test]
async fn the_switches_are_told() {
    let world = World::new().await;
    let token = world.token();
    let told = |whose: &str| {
        format!(
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the {whose}. \
             Visit https://aka.ms/smtp_auth_disabled for more information. [..]"
        )
    };
    world.sandbox.set_tenant_smtp_auth_disabled(DEFAULT_TENANT_ID, true).unwrap();
    assert_eq!(world.login(DEFAULT_MAILBOX, &token).await.0, told("Tenant"));
    world.sandbox.set_mailbox_smtp_auth(DEFAULT_MAILBOX, SmtpAuth::Enabled).unwrap();
    assert_eq!(world.login(DEFAULT_MAILBOX, &token).await.0, OK);
    world.sandbox.set_mailbox_smtp_auth(DEFAULT_MAILBOX, SmtpAuth::Disabled).unwrap();
    let mut client = world.secure().await;
    let auth = format!("AUTH XOAUTH2 {}", xoauth2(DEFAULT_MAILBOX, &token));
    assert_eq!(client.say(&auth).await, told("Mailbox"));
    let embedded = format!("530 5.7.57 Client not authenticated to send mail. Error: {}", told("Mailbox"));
    assert_eq!(client.say("MAIL FROM:<scanner@contoso.com>").await, embedded);
    world.sandbox.set_mailbox_smtp_auth(DEFAULT_MAILBOX, SmtpAuth::Enabled).unwrap();
    assert_eq!(client.say(&auth).await, OK);
}
