//! A manager keeps a user's token by the refresh token in the vault, which holds the newest one over restarts.

use clock::{Clock, SystemClock};
use token_manager::{FailureClass, Secret, SignedIn, StoredGrant, TokenUnavailable, Vault};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use crate::world::{USER, World, vault_name};

/// Puts what a sign-in brought into the vault, as `login` does.
fn store(vault: &Vault, signed_in: SignedIn) {
    let now = SystemClock::new().wall();
    let SignedIn { refresh_token, account, .. } = signed_in;
    let user = USER.to_owned();
    let grant = StoredGrant { refresh_token, account, user, signed_in_at: now, renewed_at: now, refused: None };
    vault.store(&vault_name(), &grant).unwrap();
}

fn stored(vault: &Vault) -> StoredGrant {
    vault.load(&vault_name()).unwrap().unwrap()
}

#[tokio::test]
async fn the_newest_refresh_token_is_in_the_vault_and_serves_after_a_restart() {
    let Some(world) = World::new().await else { return };
    let vault = world.vault();
    store(&vault, world.signed_in().await);
    let mut refresh_tokens = vec![stored(&vault).refresh_token];

    let stop = CancellationToken::new();
    let manager = world.start_until(world.holder(world.vault()), stop.clone());
    let first = manager.token().await.unwrap();
    assert_eq!(first.user(), Some(USER));
    refresh_tokens.push(stored(&vault).refresh_token);
    let second = manager.replace(&first).await.unwrap();
    refresh_tokens.push(stored(&vault).refresh_token);
    stop.cancel();
    while manager.token().await.is_ok() {
        yield_now().await;
    }

    let manager = world.start(world.holder(world.vault()));
    let third = manager.token().await.unwrap();
    refresh_tokens.push(stored(&vault).refresh_token);
    let sign_in = manager.status().sign_in.unwrap();
    assert_eq!((sign_in.account.as_deref(), sign_in.refused), (Some(USER), None));

    let is_alone = |texts: &[&str]| texts.iter().all(|one| texts.iter().filter(|other| one == *other).count() == 1);
    assert!(is_alone(&refresh_tokens.iter().map(Secret::expose).collect::<Vec<_>>()));
    assert!(is_alone(&[first.expose(), second.expose(), third.expose()]));
    // The code and three of them, each used once, or the provider had taken back all.
    world.provider.answer(4).await;
    assert!(world.provider.answers().iter().all(|answer| answer["error"].is_null()));
}

#[tokio::test]
async fn a_refused_refresh_token_stays_until_somebody_signs_in_anew() {
    let Some(world) = World::new().await else { return };
    let vault = world.vault();
    let signed_in = world.signed_in().await;
    // Whoever uses it elsewhere makes ours a used one.
    world.public_sign_in().take_over(&signed_in.refresh_token).await.unwrap();
    let text = signed_in.refresh_token.expose().to_owned();
    store(&vault, signed_in);

    let manager = world.start(world.holder(world.vault()));
    let Err(TokenUnavailable::Failed { failure, .. }) = manager.token().await else { panic!("no failure") };
    assert_eq!((failure.class, failure.error.as_deref()), (FailureClass::Grant, Some("invalid_grant")));
    let refused = stored(&vault);
    assert_eq!(refused.refresh_token.expose(), text);
    assert!(refused.refused.unwrap().failure.contains("grant request is invalid"));
    assert!(manager.status().sign_in.unwrap().refused.is_some());

    store(&vault, world.signed_in().await);
    let mut status = manager.watch_status();
    manager.wake();
    status.wait_for(|status| status.last_success.is_some()).await.unwrap();
    assert_eq!(manager.token().await.unwrap().user(), Some(USER));
    let anew = stored(&vault);
    assert!(anew.refused.is_none() && anew.refresh_token.expose() != text);
}
