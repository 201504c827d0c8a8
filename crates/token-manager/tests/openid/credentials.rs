//! An application proves who it is, by secret and by certificate.

use reqwest::header::CONTENT_TYPE;
use token_manager::{Algorithm, Application, Credential, FailureClass, TokenFailure, TokenUnavailable};
use url::form_urlencoded::Serializer;

use crate::world::{
    PS256_CLIENT, PUBLIC_CLIENT, RS256_CLIENT, SECRET, SECRET_CLIENT, World, certificate, known, secret, unknown,
};

async fn failure(world: &World, application: Application) -> TokenFailure {
    match world.start(application).token().await {
        Err(TokenUnavailable::Failed { failure, .. }) => (*failure).clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_secret_brings_tokens() {
    let Some(world) = World::new().await else { return };
    let manager = world.start(world.application(SECRET_CLIENT, secret(SECRET)));
    let first = manager.token().await.unwrap();
    let second = manager.replace(&first).await.unwrap();
    assert!(first.expose().len() > 20 && first.expose() != second.expose());
    let life = second.expires_at().saturating_since(manager.status().last_success.unwrap()).as_secs();
    assert!((3500..=3600).contains(&life), "{life}");
}

#[tokio::test]
async fn each_certificate_brings_tokens_by_its_algorithm() {
    let Some(world) = World::new().await else { return };
    for (client_id, algorithm) in [(PS256_CLIENT, Algorithm::Ps256), (RS256_CLIENT, Algorithm::Rs256)] {
        let manager = world.start(world.application(client_id, certificate(known(), algorithm)));
        let first = manager.token().await.unwrap();
        // The provider takes no assertion twice, so this one is another.
        let second = manager.replace(&first).await.unwrap();
        assert_ne!(first.expose(), second.expose(), "{algorithm:?}");
    }
}

#[tokio::test]
async fn an_assertion_counts_once() {
    let Some(world) = World::new().await else { return };
    let application = world.application(PS256_CLIENT, certificate(known(), Algorithm::Ps256));
    let endpoint = application.endpoints.token.clone();
    world.start(application).token().await.unwrap();
    let granted = world.provider.answered(|answer| answer["error"].is_null()).await;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", PS256_CLIENT),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", granted["assertion"].as_str().unwrap()),
    ];
    let body = Serializer::new(String::new()).extend_pairs(form).finish();
    let request = world.http.post(endpoint).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    assert_eq!(request.body(body).send().await.unwrap().status(), 401);
    let refused = world.provider.answered(|answer| answer["error"] == "invalid_client").await;
    assert_eq!(refused["detail"], "client assertion tokens must only be used once");
}

#[tokio::test]
async fn a_credential_that_is_not_known_is_a_credential_to_mend() {
    let Some(world) = World::new().await else { return };
    let (ps256, rs256) = (Algorithm::Ps256, Algorithm::Rs256);
    // The detail is what the provider keeps to itself, so that each is refused for its own reason.
    for (client_id, credential, detail) in [
        (SECRET_CLIENT, secret("another"), "invalid secret provided"),
        (PS256_CLIENT, certificate(unknown(), ps256), "signature verification failed"),
        (RS256_CLIENT, certificate(unknown(), rs256), "signature verification failed"),
        (PS256_CLIENT, certificate(known(), rs256), "alg mismatch"),
        (PS256_CLIENT, secret(SECRET), "does not match the registered client authentication method"),
        (SECRET_CLIENT, Credential::Public, "does not match the registered client authentication method"),
        ("nobody", secret(SECRET), "client not found"),
    ] {
        let before = world.provider.answers().len();
        let failure = failure(&world, world.application(client_id, credential)).await;
        assert_eq!((failure.class, failure.http_status), (FailureClass::Credential, Some(401)), "{failure}");
        assert_eq!(failure.error.as_deref(), Some("invalid_client"), "{failure}");
        assert_eq!(failure.text, "client authentication failed", "{detail}");
        let answer = world.provider.answer(before + 1).await;
        assert_eq!(answer["client"], client_id);
        assert!(answer["detail"].as_str().unwrap().contains(detail), "{answer}");
        assert_eq!(world.provider.answers().len(), before + 1, "{detail}");
    }
}

#[tokio::test]
async fn what_an_application_may_not_ask_for_is_a_configuration_to_mend() {
    let Some(world) = World::new().await else { return };
    let application = world.delegated(SECRET_CLIENT, secret(SECRET));
    let failure = failure(&world, application).await;
    assert_eq!((failure.class, failure.error.as_deref()), (FailureClass::Configuration, Some("invalid_scope")));
    assert_eq!(failure.text, "requested scope is not allowed");
    let failure = self::failure(&world, world.application(PUBLIC_CLIENT, Credential::Public)).await;
    assert_eq!(failure.class, FailureClass::Configuration);
    assert_eq!(failure.text, "requested grant type is not allowed for this client");
}
