//! The refresh token of one mailbox, as the task holds it: read from the vault, and put back whenever a request brought
//! another one.
//!
//! It asks nobody for tokens and decides no retry. What an answer says of the refresh token is written down beside it; nothing
//! ever throws it away but a newer one.

use std::sync::Arc;
use std::time::Duration;

use clock::WallTime;
use tokio::task::spawn_blocking;

use crate::advice::code_advice;
use crate::failure::{FailureClass, TokenFailure};
use crate::http::Seen;
use crate::request::failure;
use crate::schedule::{FIRST_REFUSED_GRANT_RETRY, REFUSED_GRANT_RETRY};
use crate::secret::Secret;
use crate::status::SignInStatus;
use crate::vault::{RefusedGrant, Stamp, StoredGrant, Vault, VaultError, VaultName};

/// A refresh token of Entra ID ends after this long without use (facts 4.5); each use brings a new one.
pub(crate) const REFRESH_TOKEN_LIFE: Duration = Duration::from_hours(90 * 24);

/// One that the endpoint does not replace is noted as renewed no more often than this.
const NOTED_EVERY: Duration = Duration::from_hours(24);
/// What is said where the vault stands in the way.
const VAULT_ADVICE: &str = "mend that; a new sign-in by `xoauth2-relay login` needs it as well";

/// A refresh token in use, and where it rests.
pub(crate) struct Holding {
    vault: Arc<Vault>,
    name: VaultName,
    grant: Option<Arc<StoredGrant>>,
    /// Of the file that `grant` was read from or written to.
    stamp: Option<Stamp>,
    /// The vault does not have it yet: it could not be written.
    is_unsaved: bool,
    /// What the vault has cannot be read now, and may be newer: it is not written over.
    is_hidden: bool,
    /// Somebody signed in while the one before was in use for a request.
    is_overtaken: bool,
    /// Why the vault could not be read or written last.
    trouble: Option<String>,
    /// How one signs in anew.
    remedy: String,
}

/// Why nothing is asked now, and for how long at least.
pub(crate) struct Denied {
    pub(crate) failure: Arc<TokenFailure>,
    pub(crate) least: Duration,
}

impl From<TokenFailure> for Denied {
    fn from(failure: TokenFailure) -> Self {
        Self { failure: Arc::new(failure), least: Duration::ZERO }
    }
}

/// What a look at the vault found, or a write ended with.
struct Looked {
    stamp: Option<Stamp>,
    /// None: as before.
    grant: Option<Result<Option<StoredGrant>, VaultError>>,
}

impl Holding {
    /// Nothing yet; `tenant` and `mailbox` are their names in the configuration.
    pub(crate) fn new(vault: Arc<Vault>, name: VaultName, tenant: &str, mailbox: &str) -> Self {
        let remedy = format!("sign in with `xoauth2-relay login --tenant {tenant} --mailbox {mailbox}`");
        let (is_unsaved, is_hidden, is_overtaken) = (false, false, false);
        Self { vault, name, grant: None, stamp: None, is_unsaved, is_hidden, is_overtaken, trouble: None, remedy }
    }

    /// Takes up what another sign-in left in the vault, or writes what could not be written. Says whether there is another
    /// refresh token now than before.
    pub(crate) async fn look(&mut self) -> bool {
        let (vault, name, before) = (Arc::clone(&self.vault), self.name.clone(), self.stamp);
        let looked = spawn_blocking(move || {
            let stamp = vault.stamp(&name);
            let grant = (stamp != before).then(|| vault.load(&name));
            Looked { stamp, grant }
        });
        let is_other = match looked.await {
            // The file of an earlier day, as from a backup, or from before a write that failed.
            Ok(Looked { stamp, grant: Some(Ok(Some(grant))) }) if self.is_newer_than(&grant) => {
                (self.stamp, self.is_unsaved, self.is_hidden) = (stamp, true, false);
                false
            }
            Ok(Looked { stamp, grant: Some(Ok(Some(grant))) }) => {
                let is_other = self.grant.as_ref().is_none_or(|own| !own.is_same(&grant));
                self.grant = Some(Arc::new(grant));
                (self.stamp, self.is_unsaved, self.is_hidden, self.trouble) = (stamp, false, false, None);
                is_other
            }
            // What is in memory goes on when its file is gone or damaged, and is written anew.
            Ok(Looked { stamp, grant: Some(Ok(None)) }) => {
                (self.stamp, self.is_unsaved, self.is_hidden) = (stamp, self.grant.is_some(), false);
                self.trouble = None;
                false
            }
            Ok(Looked { stamp, grant: Some(Err(trouble @ VaultError::Damaged { .. })) }) if self.grant.is_some() => {
                self.tell(trouble.to_string());
                (self.stamp, self.is_unsaved, self.is_hidden) = (stamp, true, false);
                false
            }
            // It is read again at the next look: the key, or the right to read, may come back without a change of the file.
            Ok(Looked { grant: Some(Err(trouble)), .. }) => {
                self.is_hidden = true;
                self.tell(trouble.to_string());
                false
            }
            Ok(Looked { grant: None, .. }) => {
                self.is_hidden = false;
                if !self.is_unsaved {
                    self.trouble = None;
                }
                false
            }
            Err(_) => false,
        };
        if self.is_unsaved {
            self.save().await;
        }
        std::mem::take(&mut self.is_overtaken) || is_other
    }

    /// Whether what is held is of the same sign-in, and came later.
    fn is_newer_than(&self, grant: &StoredGrant) -> bool {
        let is_same_sign_in = |own: &StoredGrant| own.signed_in_at == grant.signed_in_at && own.user == grant.user;
        self.grant.as_ref().is_some_and(|own| is_same_sign_in(own) && own.renewed_at > grant.renewed_at)
    }

    /// What to ask with at `now`; or why not, and for how long at least.
    pub(crate) fn usable(&self, now: WallTime) -> Result<Arc<StoredGrant>, Denied> {
        let Some(grant) = &self.grant else {
            // What is wrong with the vault says itself what to do.
            let (text, advice) = match &self.trouble {
                Some(trouble) => (trouble.clone(), VAULT_ADVICE.to_owned()),
                None => ("nobody has signed in for this mailbox".to_owned(), self.remedy.clone()),
            };
            return Err(denied(text, advice, Duration::ZERO));
        };
        if let Some(refused) = &grant.refused {
            // One that is refused is asked with seldom, over restarts too. A time to come is a clock that was set back.
            let left = refused_wait(refused).saturating_sub(now.saturating_since(refused.last));
            if refused.last <= now && !left.is_zero() {
                return Err(denied(refused.failure.clone(), self.advice(&refused.failure), left));
            }
        }
        Ok(Arc::clone(grant))
    }

    /// What to do about a refusal that was written down: what its code asks for, where that is more than to sign in anew.
    fn advice(&self, failure: &str) -> String {
        let other = code_advice(failure).filter(|advice| !advice.contains("xoauth2-relay login"));
        other.map_or_else(|| self.remedy.clone(), |advice| format!("{advice}; or {}", self.remedy))
    }

    /// The refresh token `used` brought an answer, and with it another one or none.
    /// `account` is who signed in, if the endpoint said so: of one that was taken over nobody may have known it.
    pub(crate) async fn renew(
        &mut self,
        used: &StoredGrant,
        refresh_token: Option<Secret>,
        account: Option<String>,
        now: WallTime,
    ) {
        let is_fresh = now.saturating_since(used.renewed_at) < NOTED_EVERY;
        let is_known = used.account.is_some() || account.is_none();
        if refresh_token.is_none() && used.refused.is_none() && is_fresh && is_known {
            return;
        }
        // An endpoint that gives no other has renewed the one that it took.
        let refresh_token = refresh_token.unwrap_or_else(|| used.refresh_token.duplicate());
        let mut grant = used.followed_by(refresh_token, now, None);
        grant.account = grant.account.or(account);
        self.replace(used, grant).await;
    }

    /// The endpoint does not take the refresh token `used`. Gives how long it is not asked with at least.
    pub(crate) async fn refuse(&mut self, used: &StoredGrant, failure: &TokenFailure, now: WallTime) -> Duration {
        let at = used.refused.as_ref().map_or(now, |refused| refused.at);
        let refused = RefusedGrant { at, last: now, failure: failure.words() };
        let wait = refused_wait(&refused);
        let grant = used.followed_by(used.refresh_token.duplicate(), used.renewed_at, Some(refused));
        self.replace(used, grant).await;
        // Who signed in meanwhile does not wait for what was refused.
        if self.is_overtaken { Duration::ZERO } else { wait }
    }

    async fn replace(&mut self, used: &StoredGrant, grant: StoredGrant) {
        // Somebody signed in meanwhile: that is newer than what came of the one before.
        if self.look().await && self.grant.as_ref().is_some_and(|own| !own.is_same(used)) {
            self.is_overtaken = true;
            return;
        }
        self.grant = Some(Arc::new(grant));
        self.is_unsaved = true;
        self.save().await;
    }

    async fn save(&mut self) {
        let Some(grant) = self.grant.clone().filter(|_| !self.is_hidden) else { return };
        let (vault, name) = (Arc::clone(&self.vault), self.name.clone());
        let expected = self.stamp;
        let saved =
            spawn_blocking(move || vault.store_over(&name, &grant, expected).map_err(|error| error.to_string()));
        match saved.await.unwrap_or_else(|_| Err("writing it ended early".to_owned())) {
            Ok(Some(stamp)) => (self.stamp, self.is_unsaved, self.trouble) = (Some(stamp), false, None),
            // Somebody signed in at this moment, or the file is not where it was: the next look tells.
            Ok(None) => self.stamp = None,
            // The one that the vault still has is good for weeks (facts 4.5), should we be restarted before.
            Err(trouble) => self.tell(trouble),
        }
    }

    fn tell(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            let is_held = self.grant.is_some();
            tracing::warn!(mailbox = self.name.mailbox, trouble, is_held, "the vault of refresh tokens is in trouble");
        }
        self.trouble = Some(trouble);
    }

    /// What an operator may see.
    pub(crate) fn status(&self) -> Option<SignInStatus> {
        let grant = self.grant.as_ref()?;
        Some(SignInStatus {
            account: grant.account.clone(),
            user: grant.user.clone(),
            signed_in_at: grant.signed_in_at,
            renewed_at: grant.renewed_at,
            ends_at: grant.renewed_at + REFRESH_TOKEN_LIFE,
            refused: grant.refused.as_ref().map(|refused| (refused.at, refused.failure.clone())),
        })
    }
}

fn denied(text: String, advice: String, least: Duration) -> Denied {
    let failure = TokenFailure { advice, ..failure(FailureClass::Grant, &Seen::default(), text) };
    Denied { failure: Arc::new(failure), least }
}

/// How long a refresh token is not asked with that was refused: a few minutes while it may be a passing state of the account
/// or of Entra ID, then ever longer.
fn refused_wait(refused: &RefusedGrant) -> Duration {
    refused.last.saturating_since(refused.at).clamp(FIRST_REFUSED_GRANT_RETRY, REFUSED_GRANT_RETRY)
}
