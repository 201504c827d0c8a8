//! A user signs in at another screen, by device code (RFC 8628).

use token_manager::{Algorithm, FailureClass, SignInError};

use crate::world::{PS256_CLIENT, USER, World, certificate, known, refusal};

#[tokio::test]
async fn it_waits_until_the_user_has_finished() {
    let Some(world) = World::new().await else { return };
    let mut sign_in = world.public_sign_in();
    let code = sign_in.device_code().await.unwrap();
    let prompt = code.prompt().clone();
    assert_eq!(prompt.lifetime.as_secs(), 600);
    let approve = async {
        world.provider.answered(|answer| answer["error"] == "authorization_pending").await;
        let end = world.browser().go(&prompt.verification_uri, USER, &prompt.user_code).await.page();
        assert!(end.contains("Sign-in Success"), "{end}");
    };
    let (signed_in, ()) = tokio::join!(sign_in.finish_device_code(&code), approve);
    let signed_in = signed_in.unwrap();
    assert_eq!(signed_in.account.as_deref(), Some(USER));
    assert_ne!(signed_in.token.expose(), signed_in.refresh_token.expose());
    // A device code counts once.
    let refused = refusal(sign_in.finish_device_code(&code).await);
    assert_eq!((refused.class, refused.error.as_deref()), (FailureClass::Grant, Some("invalid_grant")));
}

#[tokio::test]
async fn the_user_may_decline() {
    let Some(world) = World::new().await else { return };
    let mut sign_in = world.public_sign_in();
    let code = sign_in.device_code().await.unwrap();
    let prompt = code.prompt();
    world.browser().abort_device(&prompt.verification_uri, &prompt.user_code).await;
    assert_eq!(sign_in.finish_device_code(&code).await.unwrap_err(), SignInError::Declined);
    // It was the provider's word, not ours.
    let refused = world.provider.answered(|answer| answer["error"] == "access_denied").await;
    assert_eq!(refused["grant"], "urn:ietf:params:oauth:grant-type:device_code");
}

/// The assertion is for the endpoint that it is shown to, and for each request another.
#[tokio::test]
async fn an_application_that_signs_may_have_a_user_too() {
    let Some(world) = World::new().await else { return };
    let application = world.delegated(PS256_CLIENT, certificate(known(), Algorithm::Ps256));
    let mut sign_in = world.sign_in(application);
    let code = sign_in.device_code().await.unwrap();
    let prompt = code.prompt();
    world.browser().go(&prompt.verification_uri, USER, &prompt.user_code).await.page();
    let first = sign_in.finish_device_code(&code).await.unwrap();
    let second = sign_in.take_over(&first.refresh_token).await.unwrap();
    assert_ne!(first.refresh_token.expose(), second.refresh_token.expose());
}
