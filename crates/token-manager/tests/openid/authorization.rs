//! A user signs in by a browser, with PKCE (RFC 7636).

use token_manager::{BadCallback, FailureClass};
use url::Url;

use crate::world::{USER, World, refusal};

const REDIRECT: &str = "http://localhost:49152";

/// Whether `callback` is an address at [`REDIRECT`].
fn is_back(callback: &Url) -> bool {
    callback.as_str().starts_with(&format!("{REDIRECT}/?"))
}

#[tokio::test]
async fn a_browser_brings_a_code_and_the_code_a_refresh_token() {
    let Some(world) = World::new().await else { return };
    let mut sign_in = world.public_sign_in();
    let request = sign_in.authorization(REDIRECT, Some(USER));
    let callback = world.browser().go(request.url(), USER, "").await.address();
    assert!(is_back(&callback), "{callback}");
    let code = request.accept(callback.as_str()).unwrap();
    let signed_in = sign_in.redeem(&request, &code).await.unwrap();
    assert_eq!(signed_in.account.as_deref(), Some(USER));

    // RFC 6749 section 4.1.2: a code that comes again is stolen, and what it brought is worth nothing more.
    let refused = refusal(sign_in.redeem(&request, &code).await);
    assert_eq!((refused.class, refused.error.as_deref()), (FailureClass::Grant, Some("invalid_grant")));
    world.provider.answered(|answer| answer["detail"] == "authorization code already consumed").await;
    let refused = refusal(sign_in.take_over(&signed_in.refresh_token).await);
    assert_eq!(refused.class, FailureClass::Grant);
}

#[tokio::test]
async fn a_code_is_for_its_own_verifier() {
    let Some(world) = World::new().await else { return };
    let mut sign_in = world.public_sign_in();
    let (one, other) = (sign_in.authorization(REDIRECT, None), sign_in.authorization(REDIRECT, None));
    let callback = world.browser().go(one.url(), USER, "").await.address();
    assert_eq!(other.accept(callback.as_str()).unwrap_err(), BadCallback::OtherState);
    let code = one.accept(callback.as_str()).unwrap();
    let refused = refusal(sign_in.redeem(&other, &code).await);
    assert_eq!((refused.class, refused.error.as_deref()), (FailureClass::Grant, Some("invalid_grant")));
    world.provider.answered(|answer| answer["detail"] == "PKCE verification failed").await;
}

#[tokio::test]
async fn a_user_who_cancels_is_told_in_the_providers_words() {
    let Some(world) = World::new().await else { return };
    let request = world.public_sign_in().authorization(REDIRECT, None);
    let callback = world.browser().cancel(request.url()).await.address();
    assert!(is_back(&callback), "{callback}");
    let refused = BadCallback::Refused("access_denied: End-User aborted interaction".to_owned());
    assert_eq!(request.accept(callback.as_str()).unwrap_err(), refused);
}
