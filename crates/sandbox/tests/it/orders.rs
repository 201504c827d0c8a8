//! Orders, one line each, and what a client feels of them.

use std::time::Duration;

use sandbox::{DEFAULT_CLIENT_ID, DEFAULT_MAILBOX, DEFAULT_SECRET, EXCHANGE_SCOPE, Order, Sandbox, SandboxError};

use crate::support::{World, form, http, xoauth2};

/// What obeying one line answers.
fn obey(sandbox: &Sandbox, line: &str) -> String {
    sandbox.obey(&line.parse::<Order>().unwrap()).unwrap()
}

fn refused(sandbox: &Sandbox, line: &str) -> SandboxError {
    sandbox.obey(&line.parse::<Order>().unwrap()).unwrap_err()
}

impl World {
    /// The code of a login to `mailbox` with a fresh token.
    async fn code(&self, mailbox: &str) -> String {
        let token = self.sandbox.issue_token(DEFAULT_CLIENT_ID, EXCHANGE_SCOPE).unwrap();
        let reply = self.secure().await.say(&format!("AUTH XOAUTH2 {}", xoauth2(mailbox, &token))).await;
        reply.split(' ').nth(1).unwrap().to_owned()
    }

    /// The status and the lifetime or error code of a token request with this secret.
    async fn ask_with(&self, secret: &str) -> (u16, u64) {
        let parameters = [
            ("client_id", DEFAULT_CLIENT_ID),
            ("scope", EXCHANGE_SCOPE),
            ("grant_type", "client_credentials"),
            ("client_secret", secret),
        ];
        let reply = form(&self.sandbox, &parameters).await.unwrap();
        let json = reply.json();
        (reply.status, json["expires_in"].as_u64().or(json["error_codes"][0].as_u64()).unwrap())
    }
}

#[tokio::test]
async fn faults_are_injected_listed_and_forgotten() {
    let world = World::new().await;
    let obey = |line| obey(&world.sandbox, line);
    assert_eq!(obey("waiting"), "no fault waits");
    assert_eq!(
        obey("fault mailbox-full-newer for scanner@contoso.com times 2"),
        "waits at end-of-data, 2 times, for scanner@contoso.com: 554 5.2.2 Mailbox full. Visit \
         https://aka.ms/mailboxfull for more information. [Hostname=AM9PR04MB8765.EURPRD04.PROD.OUTLOOK.COM]"
    );
    obey("fault at mail always reply 451 4.7.0 Not now [..]");
    let mut client = world.logged_in().await;
    assert_eq!(client.say("MAIL FROM:<scanner@contoso.com>").await, "451 4.7.0 Not now [..]");
    assert!(obey("waiting").ends_with("at mail, always: 451 4.7.0 Not now [..]"));
    assert!(obey("clear").starts_with("no fault waits; "));
    assert!(client.send("\r\n").await.starts_with("250 "));
    obey("fault token-53003");
    assert_eq!(world.ask_with(DEFAULT_SECRET).await, (400, 53_003));
    let error = refused(&world.sandbox, "fault drop-at-connect for scanner@contoso.com");
    assert_eq!(error.to_string(), "a fault at connect cannot know the mailbox");
}

#[tokio::test]
async fn a_fault_at_every_stage_can_be_ordered() {
    let world = World::new().await;
    for stage in [
        "connect",
        "ehlo",
        "starttls",
        "auth",
        "mail",
        "rcpt",
        "data",
        "content",
        "end-of-data",
        "token",
        "device-code",
        "imds",
    ] {
        obey(&world.sandbox, &format!("fault at {stage} always close"));
        obey(&world.sandbox, &format!("fault at {stage} stall"));
    }
    assert_eq!(world.sandbox.waiting_faults().len(), 24);
}

#[tokio::test]
async fn the_catalogue_is_listed_by_word() {
    let world = World::new().await;
    let obey = |line| obey(&world.sandbox, line);
    let listed = obey("faults recipient-quota");
    assert!(listed.starts_with("recipient-quota (at end-of-data; facts 1.6)\n    554 5.2.0 STOREDRV"), "{listed}");
    assert_eq!(listed.lines().count(), 3);
    assert!(obey("faults MAILBOXFULL").starts_with("mailbox-full-newer "));
    assert!(obey("faults").lines().count() > 400);
    assert_eq!(obey("faults nonsense"), "no fault has `nonsense` in its name or text");
    assert!(obey("help").contains("permission-delay SECONDS"));
    assert!(obey("unproven").contains("not imitated"));
}

#[tokio::test]
async fn mailboxes_are_changed() {
    let world = World::new().await;
    let obey = |line| obey(&world.sandbox, line);
    obey("mailbox new@contoso.com add");
    assert_eq!(world.code("new@contoso.com").await, "5.7.3");
    obey("mailbox new@contoso.com grant rbac");
    assert_eq!(world.code("new@contoso.com").await, "2.7.0");
    assert!(obey("mailbox new@contoso.com grant full-access").contains("`role on`"));
    assert_eq!(world.code("new@contoso.com").await, "5.7.3");
    obey("role on");
    assert_eq!(world.code("new@contoso.com").await, "2.7.0");
    assert_eq!(world.code(DEFAULT_MAILBOX).await, "5.7.3");
    obey("role off");
    obey("mailbox new@contoso.com grant none");
    assert_eq!(world.code("new@contoso.com").await, "5.7.3");
    obey("mailbox scanner@contoso.com smtp-auth off");
    assert_eq!(world.code(DEFAULT_MAILBOX).await, "5.7.139");
    obey("tenant smtp-auth off");
    obey("mailbox scanner@contoso.com smtp-auth on");
    assert_eq!(world.code(DEFAULT_MAILBOX).await, "2.7.0");
    obey("mailbox scanner@contoso.com smtp-auth inherit");
    assert_eq!(world.code(DEFAULT_MAILBOX).await, "5.7.139");
    obey("tenant smtp-auth on for contoso.com");
    obey("mailbox scanner@contoso.com full on");
    let mut client = world.logged_in().await;
    assert!(client.send("\r\n").await.starts_with("554 5.2.2 "));
    obey("mailbox scanner@contoso.com full off");
    obey("mailbox scanner@contoso.com send-as boss@contoso.com");
    client.envelope("boss@contoso.com", "you@example.org").await;
    assert!(client.say("From: boss@contoso.com\r\n\r\n.").await.starts_with("250 "));
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let world = World::new().await;
    for (line, error) in [
        ("mailbox new@fabrikam.com add", "no tenant `fabrikam.com` in the sandbox"),
        ("mailbox Scanner@contoso.com add", "mailbox `Scanner@contoso.com` is in the sandbox already"),
        ("mailbox no@contoso.com grant rbac", "no mailbox `no@contoso.com` in the sandbox"),
        ("tenant smtp-auth off for fabrikam.com", "no tenant `fabrikam.com` in the sandbox"),
        ("secret x for nobody", "no application `nobody` in the sandbox"),
        ("fault mailbox-full for no@contoso.com", "no mailbox `no@contoso.com` in the sandbox"),
        ("fault at mail for no@contoso.com close", "no mailbox `no@contoso.com` in the sandbox"),
        ("fault token-429 for nobody", "no application `nobody` in the sandbox"),
    ] {
        assert_eq!(refused(&world.sandbox, line).to_string(), error);
    }
    assert_eq!(obey(&world.sandbox, "waiting"), "no fault waits");
    for line in ["fault mailbox-full for Scanner@contoso.com", &format!("fault token-429 for {DEFAULT_CLIENT_ID}")] {
        assert!(obey(&world.sandbox, line).starts_with("waits "), "{line}");
    }
}

#[tokio::test]
async fn what_only_logins_meet_says_so_and_leaves_sessions_alone() {
    let world = World::new().await;
    let mut client = world.logged_in().await;
    for line in [
        "tenant smtp-auth off",
        "mailbox scanner@contoso.com smtp-auth off",
        "mailbox scanner@contoso.com grant none",
        "role on",
    ] {
        let answer = obey(&world.sandbox, line);
        assert!(answer.contains("(logged-in sessions go on; the next login "), "{line}: {answer}");
    }
    assert!(client.send("\r\n").await.starts_with("250 "));
    assert_eq!(world.code(DEFAULT_MAILBOX).await, "5.7.139");
}

#[tokio::test]
async fn conditions_are_changed() {
    let world = World::new().await;
    let obey = |line| obey(&world.sandbox, line);
    obey("lifetime 60");
    assert_eq!(world.ask_with(DEFAULT_SECRET).await, (200, 60));
    assert_eq!(obey("lifetime random"), "new tokens live 3600 to 5399 s");
    assert_eq!(world.ask_with(DEFAULT_SECRET).await, (200, 4_500));
    obey("secret another~1");
    assert_eq!(world.ask_with(DEFAULT_SECRET).await, (401, 7_000_215));
    assert_eq!(world.ask_with("another~1").await, (200, 4_500));
    for line in ["tarpit 0.25", "rate delay", "limits off"] {
        obey(line);
    }
    obey("permission-delay 5400");
    assert_eq!(
        obey("mailbox scanner@contoso.com grant none"),
        "no application may use scanner@contoso.com (logged-in sessions go on; logins notice it after 5400 s)"
    );
    assert_eq!(world.code(DEFAULT_MAILBOX).await, "2.7.0");
    let state = obey("state");
    assert!(
        state.starts_with(
            "limits off; rate delay; tarpit 0.25 s; tokens live 3600 to 5399 s; permission delay 5400 s\n"
        )
    );
    assert!(state.contains("changes of permissions under way: 1\n"), "{state}");
    world.clock.advance(Duration::from_mins(90));
    obey("tarpit 0");
    assert_eq!(world.code(DEFAULT_MAILBOX).await, "5.7.3");
}

#[tokio::test]
async fn the_state_shows_everything_but_secrets() {
    let world = World::new().await;
    world.logged_in().await.send("\r\n").await;
    world.connections(0).await;
    obey(&world.sandbox, "mailbox scanner@contoso.com send-as boss@contoso.com");
    obey(&world.sandbox, "fault stall-after-dot");
    let state = obey(&world.sandbox, "state");
    assert_eq!(
        state,
        "limits exchange; rate reject; tarpit 0 s; tokens live 3600 to 5399 s; permission delay 0 s\n\
         shared-login mailbox; browser nobody; devices waiting: 0; refresh tokens alive: 0\n\
         tenant 11111111-2222-3333-4444-555555555555 (contoso.onmicrosoft.com, contoso.com): SMTP AUTH on\n  \
           application 66666666-7777-8888-9999-000000000000: role off, secrets: 1\n  \
           mailbox scanner@contoso.com: grant rbac, smtp-auth inherit, sends as boss@contoso.com\n\
         faults waiting: 1; changes of permissions under way: 0\n\
         connections: 0 now, 1 at most, 1 in all; AUTH: 1 good, 0 refused; tokens: 0 requests, 0 issued\n\
         messages: 1 kept, 0 cut off within DATA, 0 refused by SendAs"
    );
    assert!(!state.contains(DEFAULT_SECRET));
}

#[tokio::test]
async fn sign_ins_are_ordered() {
    let world = World::new().await;
    let obey = |line: &str| obey(&world.sandbox, line);
    assert_eq!(obey("public on"), format!("public client flows are on for application {DEFAULT_CLIENT_ID}"));
    assert_eq!(world.ask_with(DEFAULT_SECRET).await, (401, 700_025));
    assert_eq!(obey("devices"), "no device waits");
    let begin = async || {
        let body = format!("client_id={DEFAULT_CLIENT_ID}&scope=https%3A%2F%2Foutlook.office.com%2FSMTP.Send");
        let head = "Content-Type: application/x-www-form-urlencoded\r\n";
        let path = "/contoso.com/oauth2/v2.0/devicecode";
        http(&world.sandbox, "POST", path, head, &body).await.unwrap().text("user_code")
    };
    let (first, second, third) = (begin().await, begin().await, begin().await);
    assert_eq!(obey("devices"), format!("{first}\n{second}\n{third}"));
    assert_eq!(
        obey(&format!("device approve {first}")),
        format!("the device with {first} is signed in as scanner@contoso.com")
    );
    obey("mailbox boss@contoso.com add");
    obey(&format!("device approve {second} as Boss@contoso.com"));
    assert_eq!(obey(&format!("device decline {third}")), format!("the device with {third} is declined"));
    assert_eq!(obey("devices"), "no device waits");
    for (line, error) in [
        (format!("device approve {first}"), format!("no device waits with the code `{first}`")),
        ("device decline X".to_owned(), "no device waits with the code `X`".to_owned()),
        ("browser no@contoso.com".to_owned(), "no user `no@contoso.com` in the sandbox".to_owned()),
        ("revoke no@contoso.com".to_owned(), "no user `no@contoso.com` in the sandbox".to_owned()),
        ("public on for nobody".to_owned(), "no application `nobody` in the sandbox".to_owned()),
        (
            "mailbox boss@contoso.com delegate no@contoso.com".to_owned(),
            "no user `no@contoso.com` in the sandbox".to_owned(),
        ),
    ] {
        assert_eq!(refused(&world.sandbox, &line).to_string(), error);
    }
    world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, DEFAULT_MAILBOX).unwrap();
    obey("browser BOSS@contoso.com");
    obey("shared-login delegate");
    obey("mailbox info@contoso.com add");
    obey("mailbox info@contoso.com shared on");
    obey("mailbox info@contoso.com delegate boss@contoso.com");
    let state = obey("state");
    for line in [
        "shared-login delegate; browser boss@contoso.com; devices waiting: 0; refresh tokens alive: 1",
        "  application 66666666-7777-8888-9999-000000000000: role off, secrets: 1, public",
        "  mailbox info@contoso.com: grant none, smtp-auth inherit, shared, open to boss@contoso.com",
    ] {
        assert!(state.lines().any(|shown| shown == line), "{line} is not in {state}");
    }
    assert!(obey("revoke scanner@contoso.com").contains("; 1 refresh tokens died"));
    assert_eq!(world.sandbox.refresh_tokens_alive(DEFAULT_MAILBOX), 0);
    assert_eq!(
        refused(&world.sandbox, "browser info@contoso.com").to_string(),
        "no user `info@contoso.com` in the sandbox"
    );
    assert_eq!(obey("browser nobody"), "whoever comes by a browser picks a user");
    assert_eq!(world.sandbox.conditions().browser_user, None);
}
