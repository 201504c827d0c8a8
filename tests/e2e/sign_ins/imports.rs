//! Refresh tokens that other products hold, taken over; and what a dead one costs.

use super::people::{BOSS, other_product, people, sign_in, stored, submit};
use super::terminal::Terminal;
use crate::harness::{SENDER, World, write_secret};
use sandbox::{Application, DEFAULT_CLIENT_ID, DEFAULT_TENANT_ID};

fn import(world: &World, file: &str) -> Terminal {
    Terminal::login(world, &["--mailbox", "scanner", "--import", file])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_taken_from_a_file_from_standard_input_and_from_json() {
    let world = people().await;
    let (token, file) = other_product(&world, SENDER);
    let json = format!("{{\n\"access_token\": \"x\", \"expiry\": \"0\",\n\"refresh_token\": \"{token}\"}}\n");
    write_secret(&world.path("sasl-xoauth2"), &json);
    for (file, input) in [
        (file.to_str().unwrap(), None),
        ("-", Some(format!("{token}\n"))),
        ("-", Some(json)),
        (world.path("sasl-xoauth2").to_str().unwrap(), None),
    ] {
        let mut terminal = import(&world, file);
        if let Some(input) = input {
            terminal.pipe(input.as_bytes());
        }
        let ended = terminal.end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.result, format!("Mailbox scanner of tenant contoso is signed in by {SENDER}."));
        let kept = stored(&world, SENDER).unwrap();
        assert_ne!(kept.refresh_token.expose(), token, "the one that came back is kept");
        std::fs::remove_dir_all(super::people::vault_directory(&world)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_token_is_refused_before_anybody_is_asked_and_not_repeated() {
    let world = people().await;
    let secret = "do-not-repeat-this";
    for garbage in [
        Vec::new(),
        b"\n\n".to_vec(),
        format!("my token is {secret}").into_bytes(),
        format!("{{\"access_token\": \"{secret}\"}}").into_bytes(),
        format!("{{\"refresh_token\": \"{secret}\"").into_bytes(),
        format!("{secret}\n{secret}\n").into_bytes(),
        [secret.as_bytes(), b"\xff\xfe\x00"].concat(),
        secret.repeat(10_000).into_bytes(),
    ] {
        for is_piped in [true, false] {
            let file = world.path("garbage");
            std::fs::write(&file, &garbage).unwrap();
            let mut terminal = import(&world, if is_piped { "-" } else { file.to_str().unwrap() });
            if is_piped {
                terminal.pipe(&garbage);
            }
            let ended = terminal.end().await;
            assert_eq!((ended.code, ended.result.as_str()), (Some(64), ""), "{ended:?}");
            assert!(ended.screen.contains("refresh token") && !ended.screen.contains(secret), "{}", ended.screen);
        }
    }
    let ended = import(&world, "/nonexistent/token").end().await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.screen.contains("cannot be read from /nonexistent/token"), "{}", ended.screen);
    // A token has no place on the command line, where others see it.
    for options in [&["0.AXkA-refresh"][..], &["--refresh-token", "0.AXkA-refresh"], &["--import", "-", "--browser"]] {
        assert_eq!(Terminal::login(&world, options).end().await.code, Some(64), "{options:?}");
    }
    assert_eq!(world.sandbox.counters().token_requests, 0);
    assert!(stored(&world, SENDER).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_or_of_another_application_is_refused_with_advice() {
    let world = people().await;
    let other = Application::without_credential("77777777-7777-8888-9999-000000000000").public();
    world.sandbox.change_tenant(DEFAULT_TENANT_ID, |tenant| tenant.applications.push(other)).unwrap();
    let _relay = world.relay().await;
    let foreign = world.sandbox.issue_refresh_token("77777777-7777-8888-9999-000000000000", SENDER).unwrap();
    let revoked = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, SENDER).unwrap();
    world.sandbox.revoke_sign_ins(SENDER).unwrap();
    for (token, code) in [(&revoked, "AADSTS50173"), (&foreign, "AADSTS9002313")] {
        let mut terminal = import(&world, "-");
        terminal.pipe(token.as_bytes());
        let ended = terminal.end().await;
        assert_eq!((ended.code, ended.result.as_str()), (Some(69), ""), "{ended:?}");
        assert!(ended.screen.contains("grant: ") && ended.screen.contains(code), "{}", ended.screen);
        assert!(ended.screen.contains("sign in again with `xoauth2-relay login`"), "{}", ended.screen);
        assert!(!ended.screen.contains(&token[..24]), "{}", ended.screen);
    }
    assert!(stored(&world, SENDER).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_token_costs_five_requests_however_often_it_is_tried() {
    let world = people().await;
    sign_in(&world, "scanner", SENDER).await;
    world.sandbox.revoke_sign_ins(SENDER).unwrap();
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("AADSTS50173"));
    submit(&relay, SENDER, "held").await;
    let (_, file) = other_product(&world, SENDER);
    world.sandbox.revoke_sign_ins(SENDER).unwrap();
    let mut told = Vec::new();
    for _ in 0..5 {
        let ended = import(&world, file.to_str().unwrap()).end().await;
        assert_eq!(ended.code, Some(69), "{ended:?}");
        told.push(ended.screen);
    }
    assert_eq!(world.sandbox.counters().refresh_token_requests, 5);
    let advice = "the budget of token requests is used up; try again in ";
    assert!(told[2].contains("AADSTS50173"), "{}", told[2]);
    for screen in &told[3..] {
        let wait = screen.split(advice).nth(1).unwrap_or_else(|| panic!("{screen}"));
        let seconds: u64 = wait.split(' ').next().unwrap().parse().unwrap();
        assert!((1..=301).contains(&seconds), "{seconds}");
    }
    // Neither a restart nor a command without the daemon has another budget; that of another mailbox is its own.
    relay.kill();
    let ended = import(&world, file.to_str().unwrap()).end().await;
    assert!(ended.code == Some(69) && ended.screen.contains(advice), "{ended:?}");
    let relay = world.relay().await;
    relay.log().wait_for(|line| line.contains("token request budget used up") && line.contains("scanner"));
    assert_eq!(world.sandbox.counters().refresh_token_requests, 5);
    sign_in(&world, "boss", BOSS).await;
}
