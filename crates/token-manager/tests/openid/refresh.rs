//! A refresh token brings the next one, and counts once.

use token_manager::{FailureClass, Secret};

use crate::world::{World, refusal};

#[tokio::test]
async fn a_refresh_token_is_followed_by_another() {
    let Some(world) = World::new().await else { return };
    let first = world.signed_in().await;
    let mut sign_in = world.public_sign_in();
    let second = sign_in.take_over(&first.refresh_token).await.unwrap();
    let third = sign_in.take_over(&second.refresh_token).await.unwrap();
    let all = [&first, &second, &third];
    assert!(all.iter().all(|one| all.iter().filter(|other| one.token.expose() == other.token.expose()).count() == 1));
    let texts = all.map(|one| one.refresh_token.expose());
    assert!(texts[0] != texts[1] && texts[1] != texts[2] && texts[0] != texts[2]);

    let refused = refusal(sign_in.take_over(&first.refresh_token).await);
    assert_eq!((refused.class, refused.error.as_deref()), (FailureClass::Grant, Some("invalid_grant")));
    assert_eq!(refused.text, "grant request is invalid");
    world.provider.answered(|answer| answer["detail"] == "refresh token already used").await;
}

#[tokio::test]
async fn a_text_that_is_no_refresh_token_is_refused() {
    let Some(world) = World::new().await else { return };
    let made_up = Secret::new("0.AXoA-made-up".to_owned()).unwrap();
    let refused = refusal(world.public_sign_in().take_over(&made_up).await);
    assert_eq!((refused.class, refused.http_status), (FailureClass::Grant, Some(400)));
}
