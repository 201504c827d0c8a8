//! A failure becomes advice, and mail waits for its end. Every row of the sandbox's catalogue meets a client secret in
//! `crate::faults`, pages, redirects and endless answers among them; here are those that meet other credentials, most of them
//! brought about by what they stand for.

use std::time::Duration;

use clock::{Clock as _, ManualClock};
use sandbox::catalogue::{self, Effect};
use sandbox::{DEFAULT_CLIENT_ID, DEFAULT_TENANT_ID, Fault, Stage};

use super::certificates::SECOND;
use super::{
    HOUR, Kind, change_application, each, log_line, manual_clock, register, replace, status, submit, workload_token,
};
use crate::harness::{PATIENCE, Relay, World, field, until};

/// One thing that goes wrong, and its words.
struct Case {
    kind: Kind,
    cause: Cause,
    class: &'static str,
    code: Option<u32>,
    advice: &'static str,
    /// Passes as soon as its cause is away; other failures wait for a minute, which a restart cuts short.
    is_soon_over: bool,
}

#[derive(Clone, Copy, Debug)]
enum Cause {
    /// A row of the catalogue, until it is cleared.
    Row(&'static str),
    /// The simulated Microsoft's clock is this far ahead of ours.
    Clock(Duration),
    /// The certificate is not registered.
    Unregistered,
    /// The federated token is for another of these.
    Subject,
    Audience,
    /// The application does not trust the issuer.
    Issuer,
    /// The file holds no token.
    NoToken,
    /// The machine does not have the identity.
    NoIdentity,
}

impl Cause {
    fn begin(self, world: &World, clock: &ManualClock) {
        match self {
            Self::Row(name) => {
                let fault = catalogue::find(name).unwrap().fault();
                world.sandbox.inject(Fault::always(fault.stage, fault.action)).unwrap();
            }
            Self::Clock(ahead) => clock.advance(ahead),
            Self::Unregistered => register(world, &[&SECOND]),
            Self::Subject => change_trust(world, |trusted| trusted.subject.push('x')),
            Self::Audience => change_trust(world, |trusted| trusted.audience.push('x')),
            Self::Issuer => change_trust(world, |trusted| trusted.issuer.push('x')),
            Self::NoToken => replace(&world.path("token"), "none"),
            Self::NoIdentity => set_identity(world, "88888888-8888-9999-aaaa-000000000000"),
        }
    }

    fn end(self, world: &World, clock: &ManualClock) {
        let shorten = |text: &mut String| assert_eq!(text.pop(), Some('x'));
        match self {
            Self::Row(_) => world.sandbox.clear_faults(),
            Self::Clock(ahead) => clock.set_wall(clock.wall() - ahead),
            Self::Unregistered => register(world, &[&SECOND, &super::FIRST]),
            Self::Subject => change_trust(world, |trusted| shorten(&mut trusted.subject)),
            Self::Audience => change_trust(world, |trusted| shorten(&mut trusted.audience)),
            Self::Issuer => change_trust(world, |trusted| shorten(&mut trusted.issuer)),
            Self::NoToken => replace(&world.path("token"), &workload_token(world)),
            Self::NoIdentity => set_identity(world, super::IDENTITY),
        }
    }
}

fn change_trust(world: &World, change: impl Fn(&mut sandbox::FederatedIdentity)) {
    change_application(world, |application| application.federated.iter_mut().for_each(change));
}

fn set_identity(world: &World, client_id: &str) {
    let change = |tenant: &mut sandbox::TenantModel| client_id.clone_into(&mut tenant.managed_identities[0].client_id);
    world.sandbox.change_tenant(DEFAULT_TENANT_ID, change).unwrap();
}

/// One that waits for somebody.
const fn refused(kind: Kind, cause: Cause, class: &'static str, code: u32, advice: &'static str) -> Case {
    Case { kind, cause, class, code: Some(code), advice, is_soon_over: false }
}

/// One that passes.
const fn passing(kind: Kind, row: &'static str, class: &'static str, advice: &'static str) -> Case {
    Case { kind, cause: Cause::Row(row), class, code: None, advice, is_soon_over: true }
}

const CERTIFICATE: Kind = Kind::CERTIFICATE;
const FEDERATED: Kind = Kind::FederatedToken;
const IDENTITY: Kind = Kind::MANAGED_IDENTITY;

fn cases() -> Vec<Case> {
    use Cause::{Audience, Issuer, NoToken, Row, Subject, Unregistered};
    let day = Cause::Clock(24 * HOUR);
    vec![
        passing(CERTIFICATE, "token-503", "transient", "nothing to do if it passes"),
        refused(CERTIFICATE, Row("token-700027"), "credential", 700_027, "upload its public part"),
        refused(CERTIFICATE, Row("token-700024"), "credential", 700_024, "set this machine's clock right"),
        refused(CERTIFICATE, Row("token-50012"), "credential", 50_012, "check the certificate, its thumbprint"),
        refused(CERTIFICATE, Row("token-700016"), "configuration", 700_016, "check client_id and tenant_id"),
        refused(CERTIFICATE, Row("token-65001"), "grant", 65_001, "grant admin consent"),
        refused(CERTIFICATE, Row("token-53003-invalid-grant"), "grant", 53_003, "Conditional Access blocked it"),
        refused(CERTIFICATE, Unregistered, "credential", 700_027, "upload its public part"),
        refused(CERTIFICATE, day, "credential", 700_024, "set this machine's clock right"),
        refused(FEDERATED, Subject, "credential", 700_213, "federated credential"),
        refused(FEDERATED, Audience, "credential", 700_212, "federated credential"),
        refused(FEDERATED, Issuer, "credential", 700_211, "federated credential"),
        refused(FEDERATED, NoToken, "credential", 50_012, "assertion was not accepted"),
        refused(FEDERATED, day, "credential", 700_024, "federated token"),
        refused(FEDERATED, Row("token-700229"), "credential", 700_229, "only an application's token is allowed"),
        refused(IDENTITY, Issuer, "credential", 700_211, "federated credential"),
        // The machine's own service: no code of Entra's, and no trace id.
        Case { code: None, ..refused(IDENTITY, Cause::NoIdentity, "configuration", 0, "assign the managed identity") },
        Case { code: None, ..refused(IDENTITY, Row("imds-400"), "configuration", 0, "assign the managed identity") },
        passing(IDENTITY, "imds-404", "transient", "Azure's service health"),
        passing(IDENTITY, "imds-410", "transient", "Azure's service health"),
        passing(IDENTITY, "imds-429", "throttled", "asks IMDS for tokens"),
        passing(IDENTITY, "imds-429-retry-after", "throttled", "asks IMDS for tokens"),
        passing(IDENTITY, "imds-500", "transient", "Azure's service health"),
        passing(IDENTITY, "imds-503", "transient", "Azure's service health"),
        passing(IDENTITY, "imds-garbage", "unexpected", "no answer of IMDS"),
        passing(IDENTITY, "imds-drop", "transient", "no managed identity endpoint"),
    ]
}

/// The service that never answers is `managed_identity::tests::an_endpoint_that_hangs`: it is given up after 30 s.
const LEFT_OUT: &str = "imds-hang";

#[test]
fn every_row_of_the_metadata_service_is_driven() {
    let driven = cases();
    for row in catalogue::all().filter(|row| row.stage == Stage::Imds && row.name != LEFT_OUT) {
        assert!(driven.iter().any(|case| matches!(case.cause, Cause::Row(name) if name == row.name)), "{row}");
    }
}

/// What an administrator writes wrongly into the tenant's table, and Entra ID finds.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_tenant_client_id_or_scope_is_told_by_its_own_name() {
    let other = "99999999-8888-7777-6666-555555555555";
    let scope = |scope: &str| (String::new(), format!("scope = \"{scope}\""));
    let id = |key: &str, id: &str| (format!("{key} = \"{id}\""), format!("{key} = \"{other}\""));
    for ((right, wrong), code, advice) in [
        (id("tenant_id", DEFAULT_TENANT_ID), 90_002, "Entra ID does not know this tenant: check tenant_id"),
        (id("client_id", DEFAULT_CLIENT_ID), 700_016, "not in this tenant: check client_id and tenant_id"),
        (scope("https://outlook.office365.com/SMTP.SendAsApp"), 70_011, "the scope is wrong"),
    ] {
        let world = Kind::SecretInFile.world().await;
        let world = if right.is_empty() { world.set("tenant", wrong.clone()) } else { world };
        let configuration = world.configuration();
        let text = std::fs::read_to_string(&configuration).unwrap();
        assert!(text.contains(&right), "{text}");
        std::fs::write(&configuration, if right.is_empty() { text } else { text.replace(&right, &wrong) }).unwrap();
        let relay = Relay::start(&configuration).await;
        submit(relay.address, "one").await;
        let line = log_line(&relay, |line| line.contains("token request failed")).await;
        let failure = field(&line, "failure");
        assert!(
            failure.starts_with("configuration: ") && failure.contains(&format!("AADSTS{code}")),
            "{wrong}: {line}"
        );
        assert!(field(&line, "advice").contains(advice), "{wrong}: {line}");
        let shown = status(&world).await;
        assert_eq!(shown["tokens"][0]["last_failure"]["advice"], field(&line, "advice"), "{wrong}");
        assert_eq!(world.count("SELECT count(*) FROM delivery"), Some(1), "{wrong}: its mail waits");
        relay.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_failure_is_told_with_advice_and_mail_goes_out_when_it_is_over() {
    each(cases(), |case| async move { drive(&case).await }).await;
}

async fn drive(case: &Case) {
    let Case { kind, cause, is_soon_over, .. } = *case;
    let name = format!("{kind:?} {cause:?}");
    let clock = manual_clock();
    let world = kind.world_at(&clock).await;
    cause.begin(&world, &clock);
    let mut relay = kind.relay(&world).await;
    submit(relay.address, "one").await;
    is_told(case, &world, &relay).await;
    let waiting = world.count("SELECT count(*) FROM delivery");
    assert_eq!((world.sandbox.counters().messages, waiting), (0, Some(1)), "{name}");
    cause.end(&world, &clock);
    if !is_soon_over {
        assert_eq!(relay.terminate().await.0.code(), Some(0));
        relay = kind.relay(&world).await;
    }
    world.wait_for(1).await;
    assert!(until(PATIENCE, || world.count("SELECT count(*) FROM delivery") == Some(0)).await, "{name}");
    let log = relay.terminate().await.1;
    assert!(!log.contains("\"ERROR\""), "{name}: {log}");
    assert_eq!(world.sandbox.messages().len(), 1, "{name}: no report, no second copy");
    let counters = world.sandbox.counters();
    assert!(counters.token_requests <= 3 && counters.imds_requests <= 3, "{name}: {counters:?}");
}

/// The log says it with tenant, class, code, trace id and advice, and the status the same.
async fn is_told(case: &Case, world: &World, relay: &Relay) {
    let Case { kind, cause, class, code, advice, .. } = *case;
    let name = format!("{kind:?} {cause:?}");
    let line = log_line(relay, |line| line.contains("token request failed")).await;
    let failure = field(&line, "failure");
    assert!(failure.starts_with(&format!("{class}: ")) && field(&line, "tenant") == "contoso", "{name}: {line}");
    assert!(field(&line, "advice").contains(advice), "{name}: {line}");
    // For Microsoft's support, which takes no case without it.
    let has_code = code.is_none_or(|code| failure.contains(&format!("; AADSTS{code}; trace ")));
    assert!(has_code, "{name}: {line}");
    if let Cause::Row(row) = cause
        && let Effect::Entra { message, .. } = catalogue::find(row).unwrap().effect
    {
        assert!(failure.contains(message), "{name}: {line}");
    }
    log_line(relay, |line| line.contains("lane waits for a token")).await;
    let shown = status(world).await;
    let told = &shown["tokens"][0]["last_failure"];
    // Entra ID gives both to each of its errors, and each is asked for.
    for (word, key) in [("trace", "trace_id"), ("correlation", "correlation_id")] {
        let id = told[key].as_str();
        assert!(code.is_none() || id.is_some_and(|id| id.len() == 36), "{name}: {shown}");
        assert!(id.is_none_or(|id| failure.contains(&format!("; {word} {id}"))), "{name}: {line}: {shown}");
    }
    assert!(told["class"] == class && told["advice"] == field(&line, "advice"), "{name}: {shown}");
    assert_eq!(told["codes"], serde_json::json!(Vec::from_iter(code)), "{name}: {shown}");
}
