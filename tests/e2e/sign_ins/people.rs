//! A tenant with people in it whose mailboxes the relay sends from by their sign-ins, and what the relay keeps of these.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};
use sandbox::{Application, DEFAULT_CLIENT_ID, DEFAULT_SECRET, DEFAULT_TENANT_ID, Limits, Mailbox, SandboxOptions};
use sandbox::{TenantModel, User};
use token_manager::{StoredGrant, Vault, VaultError, VaultName};

use super::terminal::Terminal;
use crate::harness::{Client, RECIPIENT, Relay, SENDER, World, field, message, write_secret};

/// A user with a mailbox, called `boss` in the configuration, and full access to [`INFO`].
pub(crate) const BOSS: &str = "boss@contoso.com";
/// A shared mailbox, called `info` in the configuration.
pub(crate) const INFO: &str = "info@contoso.com";
/// A user without a mailbox and without access to any.
pub(crate) const ADMIN: &str = "admin@contoso.com";

/// How the application proves itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof {
    /// Not at all: a public client.
    Nothing,
    Secret,
    Certificate,
}

/// People who sign in to a public client.
pub(crate) async fn people() -> World {
    people_of(Proof::Nothing).await
}

pub(crate) async fn people_of(proof: Proof) -> World {
    let application = Application::without_credential(DEFAULT_CLIENT_ID);
    let key = KeyPair::generate_for(if matches!(proof, Proof::Certificate) {
        &PKCS_RSA_SHA256
    } else {
        &rcgen::PKCS_ECDSA_P256_SHA256
    });
    let key = key.unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let application = match proof {
        Proof::Nothing => application.public(),
        Proof::Secret => Application::new(DEFAULT_CLIENT_ID, DEFAULT_SECRET),
        Proof::Certificate => application.with_certificate(certificate.der().to_vec()),
    };
    let mut tenant = TenantModel::default()
        .mailbox(Mailbox::new(BOSS))
        .mailbox(Mailbox::new(INFO).shared().delegate(BOSS))
        .user(User::new(ADMIN));
    tenant.applications = vec![application];
    let world =
        World::with(SandboxOptions { limits: Limits::Off, tenants: vec![tenant], ..SandboxOptions::default() }).await;
    world.sandbox.change_conditions(|conditions| conditions.device_interval = Duration::from_secs(1));
    std::fs::create_dir(world.path("state")).unwrap();
    std::fs::write(world.path("certificate.pem"), certificate.pem()).unwrap();
    write_secret(&world.path("key.pem"), &key.serialize_pem());
    let shown = |name: &str| world.path(name).display().to_string();
    let credential = match proof {
        Proof::Nothing => String::new(),
        Proof::Secret => format!("client_secret = {{ file = \"{}\" }}", shown("secret")),
        Proof::Certificate => format!(
            "certificate_credential = {{ certificate = \"{}\", key = {{ file = \"{}\" }} }}",
            shown("certificate.pem"),
            shown("key.pem")
        ),
    };
    let world = world.proved_by(format!("grant = \"delegated\"\n{credential}"));
    // A listener for each mailbox, of the mailbox's name.
    let seats = [("local", "scanner", SENDER), ("boss", "boss", BOSS), ("info", "info", INFO)];
    let route = |(listener, mailbox, _): (&str, &str, &str)| {
        format!("[[route]]\nname = \"{mailbox}\"\nlisteners = [\"{listener}\"]\nmailbox = [\"{mailbox}\"]\n")
    };
    // One of each is there already.
    let seat = |(listener, mailbox, address): (&str, &str, &str)| {
        format!("[listener.{listener}]\naddress = \"127.0.0.1:0\"\n[mailbox.{mailbox}]\naddress = \"{address}\"\n")
    };
    let tables: String = seats.into_iter().map(route).chain(seats.into_iter().skip(1).map(seat)).collect();
    world.set("tables", tables).set("retry", "schedule = [\"1s\"]")
}

/// A vault that is encrypted with what stands in the file `vault-key`.
pub(crate) fn with_vault_key(world: World) -> World {
    write_secret(&world.path("vault-key"), KEY);
    let table = format!("[vault]\nkey = {{ file = \"{}\" }}", world.path("vault-key").display());
    world.set("tables", table)
}

pub(crate) const KEY: &str = "q3Xk9vB1mZ7tR5nY2wL8pQ==";

/// A refresh token of `user` that another product holds, in a file.
pub(crate) fn other_product(world: &World, user: &str) -> (String, PathBuf) {
    let token = world.sandbox.issue_refresh_token(DEFAULT_CLIENT_ID, user).unwrap();
    let file = world.path("other-product");
    write_secret(&file, &token);
    (token, file)
}

/// `user` signs in for the mailbox called `mailbox`, with one request.
pub(crate) async fn sign_in(world: &World, mailbox: &str, user: &str) {
    let (_, file) = other_product(world, user);
    let ended = Terminal::login(world, &["--mailbox", mailbox, "--import", file.to_str().unwrap()]).end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Hands the relay a message from `sender`, whose mailbox sends it.
pub(crate) async fn submit(relay: &Relay, sender: &str, name: &str) {
    let text = String::from_utf8(message(name)).unwrap().replace(SENDER, sender);
    let listener = if sender == SENDER { "local" } else { sender.split_once('@').unwrap().0 };
    let is_it = |line: &str| line.contains("\"listening\"") && field(line, "listener") == listener;
    let address = field(&relay.log().wait_for(is_it), "address").parse().unwrap();
    let mut client = Client::connect(address).await.unwrap();
    let reply = client.send_from(sender, &[RECIPIENT], text.as_bytes()).await.unwrap();
    assert_eq!(reply.code(), 250, "{reply}");
}

/// Where the sign-ins rest.
pub(crate) fn vault_directory(world: &World) -> PathBuf {
    world.path("state/refresh-tokens")
}

/// What is stored for the mailbox of `address`, in a vault without a key.
pub(crate) fn stored(world: &World, address: &str) -> Option<StoredGrant> {
    load(&Vault::open(vault_directory(world), None).unwrap(), address).unwrap()
}

/// The same in one with [`KEY`].
pub(crate) fn sealed(world: &World, address: &str) -> Option<StoredGrant> {
    struct Key;
    impl token_manager::SecretSource for Key {
        fn text(&self) -> Result<zeroize::Zeroizing<String>, token_manager::SecretError> {
            Ok(zeroize::Zeroizing::new(KEY.to_owned()))
        }
        fn description(&self) -> String {
            "the test's".to_owned()
        }
    }
    load(&Vault::open(vault_directory(world), Some(Arc::new(Key))).unwrap(), address).unwrap()
}

fn load(vault: &Vault, address: &str) -> Result<Option<StoredGrant>, VaultError> {
    vault.load(&VaultName {
        tenant_id: DEFAULT_TENANT_ID.to_owned(),
        client_id: DEFAULT_CLIENT_ID.to_owned(),
        mailbox: address.to_owned(),
    })
}

/// The stored refresh token.
pub(crate) fn stored_token(world: &World, address: &str) -> String {
    stored(world, address).unwrap().refresh_token.expose().to_owned()
}
