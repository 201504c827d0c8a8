//! One service account that has signed in for many shared mailboxes: Entra ID counts what all of them ask together. That each of
//! them has its turn is told in `token-manager`'s own tests, by a manual clock.

use sandbox::{Application, DEFAULT_CLIENT_ID, DEFAULT_TENANT_ID, Mailbox, SandboxOptions, TenantModel, User};
use serde_json::Value;
use token_manager::{StoredGrant, Vault, VaultName};

use super::people::{submit, vault_directory};
use crate::credentials::status;
use crate::harness::{PATIENCE, Relay, World, until};

const SERVICE: &str = "service@contoso.com";
const MAILBOXES: usize = 20;
/// What an account may ask in five minutes; Entra ID answers AADSTS50196 to the 16th.
const LIMIT: usize = 12;

fn address(number: usize) -> String {
    format!("shared{number}@contoso.com")
}

/// The account has signed in for all of them, with a refresh token for each; Entra's guard against loops is on.
async fn office() -> World {
    let mailboxes = (0..MAILBOXES).map(|number| Mailbox::new(&address(number)).shared().delegate(SERVICE));
    let mut tenant = mailboxes.fold(TenantModel::default().user(User::new(SERVICE)), TenantModel::mailbox);
    tenant.applications = vec![Application::without_credential(DEFAULT_CLIENT_ID).public()];
    let world = World::with(SandboxOptions { tenants: vec![tenant], ..SandboxOptions::default() }).await;
    std::fs::create_dir(world.path("state")).unwrap();
    let vault = Vault::open(vault_directory(&world), None).unwrap();
    for number in 0..MAILBOXES {
        let token = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, SERVICE).unwrap();
        let now = clock::Clock::wall(&clock::SystemClock::new());
        let grant = StoredGrant {
            refresh_token: token_manager::Secret::new(token).unwrap(),
            account: Some(SERVICE.to_owned()),
            user: address(number),
            signed_in_at: now,
            renewed_at: now,
            refused: None,
        };
        let (tenant_id, client_id) = (DEFAULT_TENANT_ID.to_owned(), DEFAULT_CLIENT_ID.to_owned());
        vault.store(&VaultName { tenant_id, client_id, mailbox: address(number) }, &grant).unwrap();
    }
    let tables = (0..MAILBOXES).map(|number| {
        format!(
            "[mailbox.shared{number}]\naddress = \"{}\"\n[listener.shared{number}]\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"shared{number}\"\nlisteners = [\"shared{number}\"]\nmailbox = [\"shared{number}\"]\n",
            address(number)
        )
    });
    let tables =
        std::iter::once("[[route]]\nname = \"local\"\nlisteners = [\"local\"]\nmailbox = [\"scanner\"]\n".to_owned())
            .chain(tables);
    let tables = tables.collect::<String>();
    world.proved_by("grant = \"delegated\"").set("tables", tables).set("log", "level = \"debug\"")
}

/// The numbers of the shared mailboxes whose token stands so.
async fn those(world: &World, state: &str) -> Vec<usize> {
    let shown = status(world).await;
    let tokens = shown["tokens"].as_array().unwrap();
    let number = |token: &Value| token["mailbox"].as_str()?.strip_prefix("shared")?.parse().ok();
    tokens.iter().filter(|token| token["state"] == state).filter_map(number).collect()
}

async fn at_rest(relay: &Relay) {
    let is_queued = |line: &str| line.contains("other mailboxes of the same account ask first");
    assert!(until(PATIENCE, || relay.log().count(is_queued) >= MAILBOXES - LIMIT).await, "{}", relay.log().text());
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_shared_mailboxes_of_one_account_start_without_a_loop_and_again() {
    let world = office().await;
    let relay = world.relay().await;
    at_rest(&relay).await;
    let is_fetched = |line: &str| line.contains("token fetched");
    assert!(until(PATIENCE, || relay.log().count(is_fetched) == LIMIT).await, "{}", relay.log().text());
    let (fetched, waiting) = (those(&world, "fetched").await, those(&world, "waiting").await);
    assert_eq!((fetched.len(), waiting.len()), (LIMIT, MAILBOXES - LIMIT));
    assert_eq!(world.sandbox.counters().refresh_token_requests, LIMIT as u64);
    let sender = address(fetched[0]);
    submit(&relay, &sender, "one").await;
    assert_eq!(world.wait_for(1).await[0].login, sender);
    // Mail of those whose turn has not come is taken, and waits.
    submit(&relay, &address(waiting[0]), "held").await;
    let mut log = relay.terminate().await.1;
    // Started again at once, nobody asks.
    let relay = world.relay().await;
    let is_queued = |line: &str| line.contains("other mailboxes of the same account ask first");
    assert!(until(PATIENCE, || relay.log().count(is_queued) >= MAILBOXES).await, "{}", relay.log().text());
    assert_eq!(world.sandbox.counters().refresh_token_requests, LIMIT as u64);
    log += &relay.terminate().await.1;
    assert!(!log.contains("AADSTS50196"), "{log}");
    assert_eq!(world.sandbox.messages().len(), 1);
    assert_eq!(world.count("SELECT count(*) FROM delivery"), Some(1));
}
