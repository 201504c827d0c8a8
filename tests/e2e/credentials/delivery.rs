//! Each credential brings a message down the whole road, at one request and without a warning.

use tokio::task::JoinSet;

use super::certificates::KeyForm;
use super::{HOUR, Kind, Run, all, manual_clock, replace, status, submit, warnings, workload_token};

const KINDS: [Kind; 10] = [
    Kind::SecretInFile,
    Kind::SecretInVariable,
    Kind::SecretOfSystemd,
    Kind::Certificate("PS256", KeyForm::Pkcs8),
    Kind::Certificate("PS256", KeyForm::Pkcs1),
    Kind::Certificate("RS256", KeyForm::Pkcs8),
    Kind::Certificate("RS256", KeyForm::Pkcs1),
    Kind::FederatedToken,
    Kind::ManagedIdentity { is_named: true },
    Kind::ManagedIdentity { is_named: false },
];

#[tokio::test(flavor = "multi_thread")]
async fn each_credential_delivers_a_message_at_one_request() {
    let mut runs = JoinSet::new();
    for kind in KINDS {
        runs.spawn(async move {
            let world = kind.world().await;
            let relay = kind.relay(&world).await;
            submit(relay.address, "one").await;
            world.wait_for(1).await;
            let shown = status(&world).await;
            assert_eq!(shown["tokens"][0]["state"], "fetched", "{kind:?}: {shown}");
            let log = relay.terminate().await.1;
            assert_eq!(warnings(&log), 0, "{kind:?}: {log}");
            let counters = world.sandbox.counters();
            let of_the_machine = u64::from(matches!(kind, Kind::ManagedIdentity { .. }));
            assert_eq!((counters.client_credentials_requests, counters.tokens_issued), (1, 1), "{kind:?}");
            assert_eq!(counters.imds_requests, of_the_machine, "{kind:?}");
        });
    }
    all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federated_token_is_read_anew_when_the_one_before_has_expired() {
    let clock = manual_clock();
    let kind = Kind::FederatedToken;
    let mut run = Run::begin(kind, kind.world_at(&clock).await, 3).await;
    run.send().await;
    // To Microsoft, both the token in the file and the relay's own are over; nobody refuses a login but for that.
    clock.advance(2 * HOUR);
    replace(&run.world.path("token"), &workload_token(&run.world));
    run.send().await;
    let counters = run.world.sandbox.counters();
    assert_eq!((counters.client_credentials_requests, counters.tokens_issued, counters.auth_failures), (2, 2, 1));
    assert_eq!(warnings(&run.end().await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_identity_is_asked_for_its_token_at_each_request() {
    let clock = manual_clock();
    let kind = Kind::MANAGED_IDENTITY;
    let mut run = Run::begin(kind, kind.world_at(&clock).await, 3).await;
    run.send().await;
    clock.advance(2 * HOUR);
    run.send().await;
    let counters = run.world.sandbox.counters();
    assert_eq!((counters.client_credentials_requests, counters.imds_requests), (2, 2));
    assert_eq!(warnings(&run.end().await), 0);
}
