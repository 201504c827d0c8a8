//! Conditions that change while the sandbox runs: limits, rate, tarpit, token lifetime, late permissions.

use std::time::{Duration, Instant};

use sandbox::{
    DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_TENANT_ID, EXCHANGE_SCOPE, Grant, Limits, Mailbox, RateMode, SmtpAuth,
};

use crate::support::{World, xoauth2};

const DELAY: Duration = Duration::from_mins(90);

impl World {
    /// The code of a login to `mailbox` with a fresh token.
    async fn login_code(&self, mailbox: &str) -> String {
        let token = self.sandbox.issue_token(DEFAULT_CLIENT_ID, EXCHANGE_SCOPE).unwrap();
        let reply = self.secure().await.say(&format!("AUTH XOAUTH2 {}", xoauth2(mailbox, &token))).await;
        reply.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }
}

#[tokio::test]
async fn the_rate_can_delay_instead_of_refusing() {
    let world = World::with(|options| options.rate = RateMode::Delay).await;
    let mut client = world.logged_in().await;
    for _ in 0..30 {
        assert!(client.send("\r\n").await.starts_with("250 "));
    }
    client.write("MAIL FROM:<scanner@contoso.com>\r\nNOOP\r\n").await;
    let mut other = world.logged_in().await;
    assert_eq!(other.say("NOOP").await, "250 2.0.0 OK");
    world.clock.advance(Duration::from_mins(1));
    assert_eq!(client.reply().await, "250 2.1.0 Sender OK");
    assert_eq!(client.reply().await, "250 2.0.0 OK");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_delayed_is_gone() {
    let world = World::with(|options| options.rate = RateMode::Delay).await;
    let mut client = world.logged_in().await;
    for _ in 0..30 {
        client.send("\r\n").await;
    }
    client.write("MAIL FROM:<scanner@contoso.com>\r\n").await;
    drop(client);
    world.connections(0).await;
}

#[tokio::test]
async fn a_delayed_client_is_refused_when_the_mode_changes() {
    let world = World::with(|options| options.rate = RateMode::Delay).await;
    let mut client = world.logged_in().await;
    for _ in 0..30 {
        client.send("\r\n").await;
    }
    client.write("MAIL FROM:<scanner@contoso.com>\r\n").await;
    world.sandbox.change_conditions(|conditions| conditions.rate = RateMode::Reject);
    assert!(client.reply().await.starts_with("421 4.4.2 "));
    assert_eq!(client.line().await, None);
}

#[tokio::test]
async fn limits_come_and_go() {
    let world = World::with(|options| options.limits = Limits::Off).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(world.logged_in().await);
    }
    assert!(clients[3].send("\r\n").await.starts_with("250 "));
    world.sandbox.change_conditions(|conditions| conditions.limits = Limits::Exchange);
    // Connections are counted from their login on, whenever that was.
    assert!(clients[3].send("\r\n").await.starts_with("432 4.3.2 "));
    assert!(clients[0].send("\r\n").await.starts_with("250 "));
}

#[tokio::test]
async fn tarpit_and_lifetime_change_at_once() {
    let world = World::new().await;
    world.sandbox.change_conditions(|conditions| {
        conditions.tarpit = Duration::from_millis(40);
        conditions.token_lifetime = Some(Duration::from_mins(1));
    });
    let mut client = world.logged_in().await;
    let asked = Instant::now();
    assert!(client.say("FOO").await.starts_with("500 "));
    assert!(asked.elapsed() >= Duration::from_millis(40));
    let token = world.sandbox.issue_token(DEFAULT_CLIENT_ID, EXCHANGE_SCOPE).unwrap();
    world.clock.advance(Duration::from_mins(1));
    let mut client = world.secure().await;
    assert!(client.say(&format!("AUTH XOAUTH2 {}", xoauth2(DEFAULT_MAILBOX, &token))).await.starts_with("535 5.7.3 "));
}

#[tokio::test]
async fn a_revoked_grant_holds_until_the_change_arrives() {
    let world = World::with(|options| options.permission_delay = DELAY).await;
    world.sandbox.revoke(DEFAULT_MAILBOX, DEFAULT_CLIENT_ID).unwrap();
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "235 2.7.0");
    world.clock.advance(DELAY / 2);
    // Granted again before the first change arrived: for a while the login fails all the same.
    world.sandbox.grant(DEFAULT_MAILBOX, DEFAULT_CLIENT_ID, Grant::Rbac).unwrap();
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "235 2.7.0");
    world.clock.advance(DELAY / 2);
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "535 5.7.3");
    world.clock.advance(DELAY / 2);
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "235 2.7.0");
}

#[tokio::test]
async fn switches_senders_and_new_mailboxes_arrive_late_too() {
    let world = World::with(|options| options.permission_delay = DELAY).await;
    let new = Mailbox::new("new@contoso.com").granted(DEFAULT_CLIENT_ID, Grant::Rbac);
    world.sandbox.add_mailbox(DEFAULT_TENANT_ID, new).unwrap();
    world.sandbox.allow_send_as(DEFAULT_MAILBOX, "boss@contoso.com").unwrap();
    let mut client = world.logged_in().await;
    let from_boss = async |client: &mut crate::support::Client| {
        client.envelope("boss@contoso.com", "you@example.org").await;
        client.say("\r\n.").await
    };
    assert!(from_boss(&mut client).await.starts_with("554 5.2.252 "));
    assert_eq!(world.login_code("new@contoso.com").await, "535 5.7.3");
    world.clock.advance(DELAY);
    assert!(from_boss(&mut client).await.starts_with("250 "));
    assert_eq!(world.login_code("new@contoso.com").await, "235 2.7.0");
    world.sandbox.set_mailbox_smtp_auth(DEFAULT_MAILBOX, SmtpAuth::Disabled).unwrap();
    world.sandbox.set_tenant_smtp_auth_disabled(DEFAULT_TENANT_ID, true).unwrap();
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "235 2.7.0");
    // What is no permission is felt at once.
    let under_way = world.sandbox.permission_changes_under_way();
    world.sandbox.set_mailbox_full(DEFAULT_MAILBOX, true).unwrap();
    assert_eq!((under_way, world.sandbox.permission_changes_under_way()), (2, 2));
    assert!(client.send("\r\n").await.starts_with("554 5.2.2 "));
    // Without a delay every change is in effect.
    world.sandbox.change_conditions(|conditions| conditions.permission_delay = Duration::ZERO);
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "535 5.7.139");
    assert_eq!(world.login_code("new@contoso.com").await, "535 5.7.139");
}

#[tokio::test]
async fn path_a_needs_the_role_and_full_access() {
    let world = World::new().await;
    world.sandbox.set_send_as_app(DEFAULT_CLIENT_ID, true).unwrap();
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "535 5.7.3");
    world.sandbox.grant(DEFAULT_MAILBOX, DEFAULT_CLIENT_ID, Grant::FullAccess).unwrap();
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "235 2.7.0");
    world.sandbox.set_send_as_app(DEFAULT_CLIENT_ID, false).unwrap();
    // Both grants are there: path B's counts now.
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "235 2.7.0");
    world.sandbox.revoke(DEFAULT_MAILBOX, DEFAULT_CLIENT_ID).unwrap();
    assert_eq!(world.login_code(DEFAULT_MAILBOX).await, "535 5.7.3");
}
