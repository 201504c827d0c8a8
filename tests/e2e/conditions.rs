//! What lasts at Microsoft until somebody changes it: switches, grants, limits, quotas and lifetimes, each driven end to end
//! once, with the relay healthy afterwards. `faults.rs` drives what strikes once.
//!
//! Not here because `trouble.rs` has them: App RBAC taken away and given back, a wrong secret, an endpoint or upstream that
//! is away; and `delivery.rs`: that the relay by its own pace never meets Exchange's.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock as _, ManualClock, SystemClock};
use sandbox::{
    Action, DEFAULT_CLIENT_ID, DEFAULT_TENANT_ID, Fault, Grant, Limits, RateMode, Sandbox, SandboxOptions, SmtpAuth,
    Stage,
};

use crate::harness::{Client, PATIENCE, RECIPIENT, Relay, SENDER, UNKNOWN, World, message, peer, until};

async fn submit(relay: &Relay, name: &str, recipients: &[impl AsRef<str>]) {
    let recipients: Vec<_> = recipients.iter().map(AsRef::as_ref).collect();
    let mut client = Client::connect(relay.address).await.unwrap();
    assert_eq!(client.send(&recipients, &message(name)).await.unwrap().code(), 250);
}

fn warnings(relay: &Relay) -> usize {
    relay.log().count(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""))
}

/// As an operator may after mending the cause, rather than wait for the next probe.
async fn restart(world: &World, relay: Relay) -> Relay {
    let (status, log) = relay.terminate().await;
    assert_eq!(status.code(), Some(0), "{log}");
    world.let_time_pass();
    world.relay().await
}

/// Everything that was submitted is there, once, and so is one more.
async fn is_healthy(world: &World, relay: &Relay, submitted: u64) {
    submit(relay, "afterwards", &[RECIPIENT]).await;
    world.wait_for(submitted + 1).await;
    relay.log().wait_for(|line| line.contains("\"sent\"") && line.contains("<afterwards@test.local>"));
    assert_eq!(world.sandbox.counters().messages, submitted + 1);
    assert_eq!(world.sandbox.duplicates(), []);
}

/// A world whose Exchange has its limits, and a relay that runs into them.
async fn limited(connections: usize) -> World {
    let world = World::with(SandboxOptions { limits: Limits::Exchange, ..SandboxOptions::default() }).await;
    world.set("mailbox", format!("connections = {connections}\nmessages_per_minute = 100000"))
}

/// A state of the tenant that holds the lane, what the log says of it, and what ends it.
struct State {
    name: &'static str,
    begin: fn(&Sandbox),
    told: &'static str,
    end: fn(&Sandbox),
}

const TENANT_SWITCH: &str = "SmtpClientAuthentication is disabled for the Tenant";
const MAILBOX_SWITCH: &str = "SmtpClientAuthentication is disabled for the Mailbox";
const NO_GRANT: &str = "535 5.7.3 Authentication unsuccessful";

const STATES: &[State] = &[
    State {
        name: "the mailbox is full",
        begin: |sandbox| sandbox.set_mailbox_full(SENDER, true).unwrap(),
        told: "554 5.2.2 mailbox full",
        end: |sandbox| sandbox.set_mailbox_full(SENDER, false).unwrap(),
    },
    State {
        name: "the tenant's switch is off",
        begin: |sandbox| sandbox.set_tenant_smtp_auth_disabled(DEFAULT_TENANT_ID, true).unwrap(),
        told: TENANT_SWITCH,
        end: |sandbox| sandbox.set_tenant_smtp_auth_disabled(DEFAULT_TENANT_ID, false).unwrap(),
    },
    State {
        name: "the tenant's switch is off and stays so, the mailbox's own is turned on",
        begin: |sandbox| sandbox.set_tenant_smtp_auth_disabled(DEFAULT_TENANT_ID, true).unwrap(),
        told: TENANT_SWITCH,
        end: |sandbox| sandbox.set_mailbox_smtp_auth(SENDER, SmtpAuth::Enabled).unwrap(),
    },
    State {
        name: "the mailbox's switch is off, the tenant's on",
        begin: |sandbox| sandbox.set_mailbox_smtp_auth(SENDER, SmtpAuth::Disabled).unwrap(),
        told: MAILBOX_SWITCH,
        end: |sandbox| sandbox.set_mailbox_smtp_auth(SENDER, SmtpAuth::Inherit).unwrap(),
    },
    State {
        name: "the classic path is taken away and given back",
        begin: |sandbox| {
            sandbox.set_send_as_app(DEFAULT_CLIENT_ID, true).unwrap();
            sandbox.revoke(SENDER, DEFAULT_CLIENT_ID).unwrap();
        },
        told: NO_GRANT,
        end: |sandbox| sandbox.grant(SENDER, DEFAULT_CLIENT_ID, Grant::FullAccess).unwrap(),
    },
    State {
        name: "the classic path lacks the role SMTP.SendAsApp",
        begin: |sandbox| {
            sandbox.revoke(SENDER, DEFAULT_CLIENT_ID).unwrap();
            sandbox.grant(SENDER, DEFAULT_CLIENT_ID, Grant::FullAccess).unwrap();
        },
        told: NO_GRANT,
        end: |sandbox| sandbox.set_send_as_app(DEFAULT_CLIENT_ID, true).unwrap(),
    },
    State {
        name: "App RBAC has the role that it must not have",
        begin: |sandbox| sandbox.set_send_as_app(DEFAULT_CLIENT_ID, true).unwrap(),
        told: NO_GRANT,
        end: |sandbox| sandbox.set_send_as_app(DEFAULT_CLIENT_ID, false).unwrap(),
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_an_administrator_ends_holds_the_mail_until_then() {
    for state in STATES {
        eprintln!("{}", state.name);
        let world = World::new().await;
        (state.begin)(&world.sandbox);
        let relay = world.relay().await;
        submit(&relay, "first", &[RECIPIENT]).await;
        let line = relay.log().wait_for(|line| line.contains("lane stands still"));
        assert!(line.contains(state.told), "{line}");
        submit(&relay, "second", &[RECIPIENT]).await;
        assert_eq!(warnings(&relay), 1, "told once: {}", relay.log().text());
        assert_eq!(world.sandbox.counters().messages, 0);
        assert!(world.sandbox.counters().auth_failures <= 2, "asked gently");
        (state.end)(&world.sandbox);
        let relay = restart(&world, relay).await;
        world.wait_for(2).await;
        is_healthy(&world, &relay, 2).await;
        assert_eq!(warnings(&relay), 0, "{}", relay.log().text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_takes_effect_late_is_waited_for() {
    let world = World::new().await;
    world.sandbox.revoke(SENDER, DEFAULT_CLIENT_ID).unwrap();
    let relay = world.relay().await;
    submit(&relay, "early", &[RECIPIENT]).await;
    relay.log().wait_for(|line| line.contains("lane stands still") && line.contains(NO_GRANT));
    world.sandbox.change_conditions(|conditions| conditions.permission_delay = Duration::from_hours(2));
    world.sandbox.grant(SENDER, DEFAULT_CLIENT_ID, Grant::Rbac).unwrap();
    assert_eq!(world.sandbox.permission_changes_under_way(), 1);
    // Granted, and refused all the same.
    let relay = restart(&world, relay).await;
    relay.log().wait_for(|line| line.contains("lane stands still") && line.contains(NO_GRANT));
    assert_eq!(world.sandbox.counters().messages, 0);
    // Two hours later.
    world.sandbox.change_conditions(|conditions| conditions.permission_delay = Duration::ZERO);
    let relay = restart(&world, relay).await;
    world.wait_for(1).await;
    is_healthy(&world, &relay, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_is_rejected_slows_the_lane_down_and_costs_no_mail() {
    let world = limited(3).await;
    let relay = world.relay().await;
    for number in 0..31 {
        submit(&relay, &format!("m{number}"), &[RECIPIENT]).await;
    }
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(line.contains("to slow down") && line.contains("421 4.4.2 Message submission rate"), "{line}");
    world.wait_for(30).await;
    // A minute later.
    world.sandbox.change_conditions(|conditions| conditions.limits = Limits::Off);
    let relay = restart(&world, relay).await;
    world.wait_for(31).await;
    is_healthy(&world, &relay, 31).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_is_delayed_is_waited_for_without_a_word() {
    // Exchange's minute is this test's to end.
    let clock = Arc::new(ManualClock::at(SystemClock::new().wall()));
    let exchanges = Arc::clone(&clock);
    let limits = Limits::Exchange;
    let world = World::with(SandboxOptions { limits, clock: exchanges, ..SandboxOptions::default() }).await;
    let world = world.set("mailbox", "connections = 3\nmessages_per_minute = 100000");
    world.sandbox.change_conditions(|conditions| conditions.rate = RateMode::Delay);
    let relay = world.relay().await;
    for number in 0..31 {
        submit(&relay, &format!("m{number}"), &[RECIPIENT]).await;
    }
    world.wait_for(30).await;
    clock.advance(Duration::from_mins(1));
    let taken = world.wait_for(31).await;
    let waited = taken[30].received.saturating_since(taken[0].received);
    assert_eq!(waited, Duration::from_mins(1), "the last was not taken before");
    is_healthy(&world, &relay, 31).await;
    assert_eq!(warnings(&relay), 0, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_slows_the_lane_down_and_the_others_send_its_mail() {
    let world = limited(4).await;
    // Three are under way for long enough that the fourth message gets a fourth connection.
    let slow = Fault::once(Stage::Data, Action::Delay(Duration::from_secs(3))).times(3);
    world.sandbox.inject(slow).unwrap();
    let relay = world.relay().await;
    for number in 0..4 {
        submit(&relay, &format!("m{number}"), &[RECIPIENT]).await;
    }
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(line.contains("to slow down") && line.contains("432 4.3.2 Concurrent connections limit"), "{line}");
    world.wait_for(4).await;
    is_healthy(&world, &relay, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quota_of_recipients_holds_the_mailbox_until_the_window_slides() {
    // The relay would keep below it by itself.
    let world = limited(3).await.set("mailbox", "recipients_per_day = 100000");
    let relay = world.relay().await;
    // No more than 200 of a domain, 500 in a message, 10,000 in a day.
    let recipients: Vec<_> = (0..500).map(|number| format!("r{number}@domain{}.example", number / 200)).collect();
    for number in 0..21 {
        submit(&relay, &format!("m{number}"), &recipients).await;
    }
    let line = relay.log().wait_for(|line| line.contains("lane stands still"));
    assert!(line.contains("takes nothing from") && line.contains("SubmissionQuotaExceededException"), "{line}");
    world.wait_for(20).await;
    // A day later.
    world.sandbox.change_conditions(|conditions| conditions.limits = Limits::Off);
    let relay = restart(&world, relay).await;
    world.wait_for(21).await;
    is_healthy(&world, &relay, 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_takes_fewer_recipients_than_configured_gets_the_others_in_further_messages() {
    let world = World::new().await;
    world.mailbox(|mailbox| mailbox.recipient_limit = 100);
    let relay = world.relay().await;
    let recipients: Vec<_> = (0..250).map(|number| format!("r{number}@domain{}.example", number / 50)).collect();
    submit(&relay, "many", &recipients).await;
    relay.log().wait_for(|line| line.contains("not sent yet") && line.contains("452 4.5.3 Too many recipients"));
    let taken = world.wait_for(3).await;
    let served: HashSet<_> = taken.iter().flat_map(|message| &message.recipients).map(|one| &one.address).collect();
    assert_eq!(served.len(), 250);
    is_healthy(&world, &relay, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tarpit_delays_the_refusal_of_one_recipient_and_nothing_else() {
    let world = World::new().await;
    world.sandbox.change_conditions(|conditions| conditions.tarpit = Duration::from_secs(1));
    let relay = world.relay().await;
    submit(&relay, "two", &[UNKNOWN, RECIPIENT]).await;
    relay.log().wait_for(|line| line.contains("not delivered") && line.contains("550 5.1.1 User unknown"));
    // The message, and the report that its sender gets.
    world.wait_for(2).await;
    is_healthy(&world, &relay, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_lives_for_a_minute_is_renewed_in_time() {
    let world = World::new().await;
    world.sandbox.change_conditions(|conditions| conditions.token_lifetime = Some(Duration::from_mins(1)));
    let relay = world.relay().await;
    submit(&relay, "by the first token", &[RECIPIENT]).await;
    world.wait_for(1).await;
    relay.log().wait_for_another(1, |line| line.contains("token fetched"));
    is_healthy(&world, &relay, 1).await;
    assert_eq!(world.sandbox.counters().tokens_issued, 2);
    assert_eq!(warnings(&relay), 0, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_loop_of_somebody_else_with_our_client_id_is_told_and_waited_out() {
    let Some(curl) = peer("curl") else { return };
    let world = limited(3).await;
    let url = format!("{}/{DEFAULT_TENANT_ID}/oauth2/v2.0/token", world.sandbox.authority());
    let ca = world.path("ca.pem");
    let form = [
        format!("client_id={DEFAULT_CLIENT_ID}"),
        "client_secret=wrong".to_owned(),
        "grant_type=client_credentials".to_owned(),
        "scope=https://outlook.office365.com/.default".to_owned(),
    ];
    let others = tokio::task::spawn_blocking(move || {
        for _ in 0..15 {
            let mut request = Command::new(&curl);
            request.args(["--silent", "--output", "/dev/null", "--cacert"]).arg(&ca);
            for field in &form {
                request.args(["--data-urlencode", field]);
            }
            assert!(request.arg(&url).status().unwrap().success());
        }
    });
    others.await.unwrap();
    let relay = world.relay().await;
    submit(&relay, "first", &[RECIPIENT]).await;
    let line = relay.log().wait_for(|line| line.contains("token request failed"));
    assert!(line.contains("AADSTS50196") && line.contains("find what else requests tokens"), "{line}");
    relay.log().wait_for(|line| line.contains("lane waits for a token"));
    assert_eq!(world.sandbox.counters().token_requests, 16);
    // Five minutes later.
    world.sandbox.change_conditions(|conditions| conditions.limits = Limits::Off);
    let relay = restart(&world, relay).await;
    world.wait_for(1).await;
    is_healthy(&world, &relay, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_for_which_a_sender_is_refused_is_told_once() {
    let world = World::new().await;
    let reasons = ["554 5.2.252 SendAsDenied; not allowed", "550 5.7.60 SMTP; no permissions to send as this sender"];
    for reason in reasons {
        world.sandbox.inject(Fault::once(Stage::EndOfData, Action::Reply(reason.to_owned())).times(2)).unwrap();
    }
    let relay = world.relay().await;
    for reason in reasons {
        submit(&relay, "told", &[RECIPIENT]).await;
        relay.log().wait_for(|line| line.contains("not sent yet") && line.contains(reason));
        submit(&relay, "not told again", &[RECIPIENT]).await;
        let action = Action::Reply(reason.to_owned());
        let struck = || world.sandbox.waiting_faults().iter().all(|fault| fault.action != action);
        assert!(until(PATIENCE, struck).await, "{}", relay.log().text());
    }
    is_healthy(&world, &relay, 0).await;
    assert_eq!(warnings(&relay), reasons.len(), "{}", relay.log().text());
}
