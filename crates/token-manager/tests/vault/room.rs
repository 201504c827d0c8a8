//! A directory with vaults in it, keys for them, and grants to store.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use clock::WallTime;
use tempfile::TempDir;
use token_manager::{RefusedGrant, Secret, SecretError, SecretSource, StoredGrant, Vault, VaultName};
use zeroize::Zeroizing;

pub(crate) const TOKEN: &str = "0.AXkA-refresh~\"to\\ken\"";
pub(crate) const KEY: &str = "q3Xk9vB1mZ7tR5nY2wL8pQ==";
pub(crate) const OTHER_KEY: &str = "another-key-of-enough-octets";

/// A key that stands where a test wants it; none cannot be read.
pub(crate) struct Key(pub(crate) Option<&'static str>);

impl SecretSource for Key {
    fn text(&self) -> Result<Zeroizing<String>, SecretError> {
        let text = self.0.ok_or_else(|| SecretError::Unreadable(std::io::ErrorKind::PermissionDenied.into()))?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn description(&self) -> String {
        "file /run/vault.key".to_owned()
    }
}

pub(crate) struct Room {
    pub(crate) directory: TempDir,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("refresh-tokens")
    }

    pub(crate) fn plain(&self) -> Vault {
        Vault::open(self.path(), None).unwrap()
    }

    pub(crate) fn with_key(&self, key: Option<&'static str>) -> Vault {
        Vault::open(self.path(), Some(Arc::new(Key(key)))).unwrap()
    }

    /// The files in the vault's directory.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    /// The only one.
    pub(crate) fn file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files.into_iter().next().unwrap()
    }
}

pub(crate) fn name() -> VaultName {
    named("scanner@contoso.com")
}

pub(crate) fn named(mailbox: &str) -> VaultName {
    let (tenant_id, client_id) = ("contoso.com".to_owned(), "66666666-7777-8888-9999-00000000000a".to_owned());
    VaultName { tenant_id, client_id, mailbox: mailbox.to_owned() }
}

pub(crate) fn grant() -> StoredGrant {
    granted(TOKEN)
}

pub(crate) fn granted(token: &str) -> StoredGrant {
    StoredGrant {
        refresh_token: Secret::new(token.to_owned()).unwrap(),
        account: Some("admin@contoso.com".to_owned()),
        user: "scanner@contoso.com".to_owned(),
        signed_in_at: WallTime::from_unix_millis(1_800_000_000_000),
        renewed_at: WallTime::from_unix_millis(1_800_000_000_001),
        refused: Some(RefusedGrant {
            at: WallTime::from_unix_millis(1_800_000_000_002),
            last: WallTime::from_unix_millis(1_800_000_000_003),
            failure: "AADSTS50173: the password was changed".to_owned(),
        }),
    }
}

/// Panics if the two differ.
#[track_caller]
pub(crate) fn assert_same(found: &StoredGrant, stored: &StoredGrant) {
    assert_eq!(found.refresh_token.expose(), stored.refresh_token.expose());
    assert_eq!(found.account, stored.account);
    assert_eq!(found.user, stored.user);
    assert_eq!((found.signed_in_at, found.renewed_at), (stored.signed_in_at, stored.renewed_at));
    assert_eq!(found.refused, stored.refused);
}
