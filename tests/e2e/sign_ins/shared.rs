//! Shared mailboxes: whose name upstream wants is found out at the sign-in and remembered.

use sandbox::SharedLogin;

use super::people::{ADMIN, BOSS, INFO, other_product, people, sign_in, stored, stored_token, submit};
use super::terminal::Terminal;
use crate::harness::World;

async fn import(world: &World, user: &str, more: &[&str]) -> super::terminal::Ended {
    let (_, file) = other_product(world, user);
    let options = [&["--mailbox", "info", "--import", file.to_str().unwrap()], more].concat();
    Terminal::login(world, &options).end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_that_upstream_took_is_remembered_and_used_after_a_restart() {
    for (shared, user, shown) in [
        (SharedLogin::Mailbox, INFO, ""),
        (SharedLogin::Delegate, BOSS, "mail leaves by the mailbox of boss@contoso.com, which needs SendAs"),
    ] {
        let world = people().await;
        world.sandbox.change_conditions(|conditions| conditions.shared_login = shared);
        world.sandbox.allow_send_as(BOSS, INFO).unwrap();
        let relay = world.relay().await;
        submit(&relay, INFO, "held").await;
        let ended = import(&world, BOSS, &[]).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let signed_in = format!("Mailbox info of tenant contoso is signed in by {BOSS}.");
        assert!(ended.result.starts_with(&signed_in) && ended.result.contains(shown), "{}", ended.result);
        assert_eq!(ended.result.len() > signed_in.len(), !shown.is_empty(), "{}", ended.result);
        let refusal = format!("AUTH XOAUTH2 as {INFO} is not taken: 535 5.7.3");
        assert_eq!(ended.screen.contains(&refusal), shared == SharedLogin::Delegate, "{}", ended.screen);
        assert!(ended.screen.contains(&format!("AUTH XOAUTH2 as {user} is taken: 235")), "{}", ended.screen);
        let kept = stored(&world, INFO).unwrap();
        assert_eq!((kept.user.as_str(), kept.account.as_deref()), (user, Some(BOSS)));
        assert_eq!(world.wait_for(1).await[0].login, user);
        relay.terminate().await;
        let refused = world.sandbox.counters().auth_failures;
        let relay = world.relay().await;
        submit(&relay, INFO, "later").await;
        let messages = world.wait_for(2).await;
        assert_eq!((messages[1].login.as_str(), messages[1].reverse_path.as_str()), (user, INFO));
        assert_eq!(world.sandbox.counters().auth_failures, refused, "nobody is asked again whose name it wants");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_without_access_is_refused_and_what_was_stored_goes_on() {
    let world = people().await;
    sign_in(&world, "info", BOSS).await;
    let relay = world.relay().await;
    submit(&relay, INFO, "first").await;
    world.wait_for(1).await;
    let before = stored_token(&world, INFO);
    let ended = import(&world, ADMIN, &[]).await;
    assert_eq!((ended.code, ended.result.as_str()), (Some(69), ""), "{ended:?}");
    for text in [
        &format!("Signed in by {ADMIN}."),
        &format!("AUTH XOAUTH2 as {INFO} is not taken: 535 5.7.3"),
        &format!("AUTH XOAUTH2 as {ADMIN} is not taken: 535 5.7.3"),
        "sign in as info@contoso.com itself, or as a user with FullAccess to it",
        "Nothing was stored; --unproven stores it all the same",
    ] {
        assert!(ended.screen.contains(text), "{text}: {}", ended.screen);
    }
    assert_eq!(world.sandbox.counters().auth_failures, 2);
    assert_eq!(stored_token(&world, INFO), before);
    submit(&relay, INFO, "second").await;
    assert_eq!(world.wait_for(2).await[1].login, INFO);
    relay.terminate().await;
    let ended = import(&world, ADMIN, &["--unproven"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let kept = stored(&world, INFO).unwrap();
    assert_eq!((kept.user.as_str(), kept.account.as_deref()), (INFO, Some(ADMIN)));
    // Once the permission is in effect, it is as good as any.
    world.sandbox.add_delegate(INFO, ADMIN).unwrap();
    let relay = world.relay().await;
    submit(&relay, INFO, "third").await;
    assert_eq!(world.wait_for(3).await[2].login, INFO);
}
