//! Sign-ins by a code that is typed at another screen: beside the daemon, without one, and those that come to nothing.

use std::time::Duration;

use sandbox::{Action, Fault, HttpFault, SmtpAuth, Stage, TokenFault};
use tokio::task::JoinSet;

use super::people::{BOSS, Proof, people, people_of, stored, submit};
use super::terminal::Terminal;
use crate::harness::{PATIENCE, SENDER, skip, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_code_signs_a_mailbox_in_whatever_the_credential_and_its_mail_leaves() {
    let mut runs = JoinSet::new();
    for proof in [Proof::Nothing, Proof::Secret, Proof::Certificate] {
        runs.spawn(async move {
            let world = people_of(proof).await;
            let relay = world.relay().await;
            relay.log().wait_for(|line| line.contains("nobody has signed in") && line.contains("--mailbox scanner"));
            submit(&relay, SENDER, "held").await;
            relay.log().wait_for(|line| line.contains("lane waits for a token") && line.contains(SENDER));
            let terminal = Terminal::device(&world, "scanner");
            assert_eq!(terminal.page(), format!("{}/common/oauth2/deviceauth", world.sandbox.authority()));
            let code = terminal.code();
            assert_eq!(world.sandbox.waiting_devices(), [code.as_str()]);
            assert_eq!(world.sandbox.counters().auth_successes, 0);
            world.sandbox.approve_device(&code, SENDER).unwrap();
            let ended = terminal.end().await;
            assert_eq!(ended.code, Some(0), "{proof:?} {ended:?}");
            assert_eq!(ended.result, format!("Mailbox scanner of tenant contoso is signed in by {SENDER}."));
            let shows = |text: &str| assert!(ended.screen.contains(text), "{text}: {}", ended.screen);
            shows("by the daemon that runs");
            shows(&format!("Signed in by {SENDER}."));
            shows(&format!("AUTH XOAUTH2 as {SENDER} is taken: 235 2.7.0"));
            let grant = stored(&world, SENDER).unwrap();
            assert_eq!((grant.user.as_str(), grant.account.as_deref()), (SENDER, Some(SENDER)));
            assert_eq!(grant.refused, None);
            let messages = world.wait_for(1).await;
            assert_eq!((messages[0].login.as_str(), messages[0].reverse_path.as_str()), (SENDER, SENDER));
            let log = relay.terminate().await.1;
            assert!(log.contains("\"sign-in begun\"") && log.contains("\"signed in\""), "{log}");
        });
    }
    runs.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_command_does_it_and_a_daemon_started_later_sends() {
    let world = people().await;
    let terminal = Terminal::device(&world, "scanner");
    world.sandbox.approve_device(&terminal.code(), SENDER).unwrap();
    let ended = terminal.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.screen.contains("by this command alone: no daemon runs"), "{}", ended.screen);
    assert!(ended.screen.contains("is taken: 235 2.7.0"), "{}", ended.screen);
    let relay = world.relay().await;
    submit(&relay, SENDER, "first").await;
    assert_eq!(world.wait_for(1).await[0].login, SENDER);
    let log = relay.terminate().await.1;
    assert!(!log.contains("nobody has signed in for this mailbox\",\"mailbox\":\"scanner"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_during_a_sign_in_takes_it_up() {
    let world = people().await;
    let terminal = Terminal::device(&world, "scanner");
    let code = terminal.code();
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("nobody has signed in") && line.contains("--mailbox scanner"));
    submit(&relay, SENDER, "first").await;
    world.sandbox.approve_device(&code, SENDER).unwrap();
    let ended = terminal.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(world.wait_for(1).await[0].login, SENDER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_is_declined_or_not_finished_stores_nothing() {
    for with_daemon in [true, false] {
        let world = people().await;
        let relay = if with_daemon { Some(world.relay().await) } else { None };
        let terminal = Terminal::device(&world, "scanner");
        world.sandbox.decline_device(&terminal.code()).unwrap();
        let ended = terminal.end().await;
        assert_eq!((ended.code, ended.result.as_str()), (Some(69), ""), "{ended:?}");
        assert!(ended.screen.contains("the sign-in was declined"), "{}", ended.screen);
        world.sandbox.change_conditions(|conditions| conditions.device_lifetime = Duration::from_secs(2));
        let ended = Terminal::device(&world, "scanner").end().await;
        assert_eq!((ended.code, ended.result.as_str()), (Some(69), ""), "{ended:?}");
        assert!(ended.screen.contains("the sign-in was not finished in time; start again"), "{}", ended.screen);
        assert!(stored(&world, SENDER).is_none());
        drop(relay);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_is_interrupted_stores_nothing_even_if_somebody_finishes_it() {
    for with_daemon in [true, false] {
        let world = people().await;
        let relay = if with_daemon { Some(world.relay().await) } else { None };
        let terminal = Terminal::device(&world, "scanner");
        let code = terminal.code();
        terminal.signal("INT");
        let ended = terminal.end().await;
        assert_eq!((ended.code, ended.result.as_str()), (Some(69), ""), "{ended:?}");
        assert!(ended.screen.contains("given up; nothing was changed"), "{}", ended.screen);
        let polls = world.sandbox.counters().device_code_requests;
        world.sandbox.approve_device(&code, SENDER).unwrap();
        if let Some(relay) = relay {
            relay.log().wait_for(|line| line.contains("sign-in given up"));
            relay.terminate().await;
        }
        // One poll may have been under way.
        assert!(world.sandbox.counters().device_code_requests <= polls + 1);
        assert!(stored(&world, SENDER).is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_login_is_given_up_by_the_daemon() {
    let world = people().await;
    let relay = world.relay().await;
    let terminal = Terminal::device(&world, "scanner");
    let code = terminal.code();
    terminal.signal("KILL");
    assert_eq!(terminal.end().await.code, None);
    relay.log().wait_for(|line| line.contains("sign-in given up: nobody waits for it any more"));
    world.sandbox.approve_device(&code, SENDER).unwrap();
    // A fresh one for the same mailbox is none the worse for it.
    let terminal = Terminal::device(&world, "scanner");
    let code = terminal.code();
    assert!(stored(&world, SENDER).is_none());
    world.sandbox.approve_device(&code, SENDER).unwrap();
    assert_eq!(terminal.end().await.code, Some(0));
    assert!(stored(&world, SENDER).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_sign_in_of_a_mailbox_takes_the_place_of_the_one_before() {
    let world = people().await;
    let _relay = world.relay().await;
    let (old, other) = (Terminal::device(&world, "scanner"), Terminal::device(&world, "boss"));
    let (old_code, other_code) = (old.code(), other.code());
    let new = Terminal::device(&world, "scanner");
    let new_code = new.code();
    let ended = old.end().await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.screen.contains("another `login` for the same mailbox has begun"), "{}", ended.screen);
    world.sandbox.approve_device(&old_code, SENDER).unwrap();
    world.sandbox.approve_device(&new_code, SENDER).unwrap();
    world.sandbox.approve_device(&other_code, BOSS).unwrap();
    assert_eq!((new.end().await.code, other.end().await.code), (Some(0), Some(0)));
    assert!(stored(&world, SENDER).is_some() && stored(&world, BOSS).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_stops_ends_its_sign_ins_and_says_nothing_is_stored() {
    let world = people().await;
    let relay = world.relay().await;
    let terminal = Terminal::device(&world, "scanner");
    let code = terminal.code();
    assert_eq!(relay.terminate().await.0.code(), Some(0));
    let ended = terminal.end().await;
    assert_eq!((ended.code, ended.result.as_str()), (Some(69), ""), "{ended:?}");
    assert!(ended.screen.contains("xoauth2-relay: "), "{}", ended.screen);
    world.sandbox.approve_device(&code, SENDER).unwrap();
    assert!(stored(&world, SENDER).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_on_the_way_ends_no_sign_in() {
    let world = people().await;
    let _relay = world.relay().await;
    let unavailable = Action::Http(HttpFault { status: 503, ..HttpFault::default() });
    world.sandbox.inject(Fault::once(Stage::Token, Action::Close)).unwrap();
    world.sandbox.inject(Fault::once(Stage::Token, unavailable)).unwrap();
    let terminal = Terminal::device(&world, "scanner");
    let code = terminal.code();
    assert!(until(PATIENCE, || world.sandbox.waiting_faults().is_empty()).await);
    world.sandbox.approve_device(&code, SENDER).unwrap();
    let ended = terminal.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refuses_a_sign_in_is_told_with_what_to_do() {
    let blocked = TokenFault {
        status: 400,
        error: "invalid_grant".to_owned(),
        code: 53_003,
        message: "Access has been blocked by Conditional Access policies.".to_owned(),
        retry_after: None,
    };
    let busy = HttpFault { status: 429, retry_after: Some(7), ..HttpFault::default() };
    for (fault, told, advice) in [
        (Fault::once(Stage::DeviceCode, Action::Http(busy)), "throttled: ", "nothing to do if it passes"),
        (Fault::once(Stage::DeviceCode, Action::Close), "transient: ", "check DNS, firewall and proxy"),
        (Fault::once(Stage::Token, Action::TokenError(blocked)), "AADSTS53003", "sign in with --browser"),
        (
            Fault::always(Stage::Connect, Action::Close),
            "the sign-in is good, but upstream could not be asked whether it takes it",
            "--unproven",
        ),
    ] {
        let world = people().await;
        let _relay = world.relay().await;
        let stage = fault.stage;
        world.sandbox.inject(fault).unwrap();
        let terminal = Terminal::device(&world, "scanner");
        if stage != Stage::DeviceCode {
            world.sandbox.approve_device(&terminal.code(), SENDER).unwrap();
        }
        let ended = terminal.end().await;
        assert_eq!((ended.code, ended.result.as_str()), (Some(69), ""), "{stage} {ended:?}");
        assert!(ended.screen.contains(told) && ended.screen.contains(advice), "{stage}: {}", ended.screen);
        assert!(stored(&world, SENDER).is_none());
    }
    let world = people().await;
    world.sandbox.set_mailbox_smtp_auth(SENDER, SmtpAuth::Disabled).unwrap();
    let terminal = Terminal::device(&world, "scanner");
    world.sandbox.approve_device(&terminal.code(), SENDER).unwrap();
    let ended = terminal.end().await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.screen.contains("535 5.7.139") && ended.screen.contains("Set-CASMailbox"), "{}", ended.screen);
    assert!(stored(&world, SENDER).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_the_time_that_is_left_is_written_over() {
    let world = people().await;
    let Some(terminal) = Terminal::on_a_screen(&world, "--mailbox scanner") else {
        return skip("there is no script(1) of util-linux");
    };
    let code = terminal.code();
    // The line ends only with the sign-in; the device asks each second, and the screen changes every five.
    let polls = || world.sandbox.counters().device_code_requests;
    assert!(until(PATIENCE, || polls() >= 7).await);
    world.sandbox.approve_device(&code, SENDER).unwrap();
    let ended = terminal.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let line = ended.screen.lines().find(|line| line.contains("Waiting for you ...")).unwrap();
    let shown: Vec<_> = line.split("\r\u{1b}[K").filter(|text| text.contains(" left")).collect();
    assert!(shown.len() > 1 && shown[0] != shown[1], "{:?}", ended.screen);
    // What stays begins at the left, where the line before was.
    assert!(ended.screen.contains(&format!("\r\u{1b}[KSigned in by {SENDER}.")), "{:?}", ended.screen);
}
