//! A user's sign-in, from its beginning to a refresh token: by device code (RFC 8628), by a browser with PKCE (RFC 6749
//! section 4.1, RFC 7636), or by taking over a refresh token that somebody else holds.
//!
//! It talks to the endpoints and stores nothing; whoever runs it shows the prompt, proves the token and puts the refresh token
//! into the vault.

mod authorization;
mod device;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use tokio::task::spawn_blocking;

pub use authorization::{AuthorizationRequest, BadCallback};
pub use device::{DeviceCode, DevicePrompt};

use crate::access_token::AccessToken;
use crate::application::Application;
use crate::credential::{Proof, Standing};
use crate::failure::{FailureClass, TokenFailure};
use crate::ledger::{Ledger, MemoryLedger};
use crate::request::{Answer, Asked, failure, request_device_code, request_token};
use crate::schedule::Now;
use crate::secret::Secret;
use device::{Next, Polling};

/// What asks during one sign-in.
pub struct SignIn {
    application: Application,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
}

/// What a sign-in brought.
#[derive(Debug)]
pub struct SignedIn {
    /// The first token, to be proven upstream.
    pub token: AccessToken,
    /// What keeps it fresh.
    pub refresh_token: Secret,
    /// Who signed in, where the endpoint said so.
    pub account: Option<String>,
}

/// Why a sign-in brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignInError {
    /// A request failed.
    #[error("{0}")]
    Failed(Box<TokenFailure>),
    /// The user, or a rule of the tenant, said no.
    #[error("the sign-in was declined")]
    Declined,
    /// Nobody finished it in time.
    #[error("the sign-in was not finished in time; start again")]
    Expired,
    /// The endpoint gave a token without a refresh token.
    #[error(
        "the endpoint gave no refresh token: the scope must hold offline_access, and the application must be allowed to keep access"
    )]
    NoRefreshToken,
    /// The budget of token requests is used up.
    #[error("the budget of token requests is used up; try again in {wait_secs} s")]
    Budget {
        /// Seconds until it is free.
        wait_secs: u64,
    },
}

impl SignIn {
    /// For `application`, whose `grant` is no matter here. `http` as for [`crate::TokenManager::start`]; `ledger` is the one
    /// of the same (tenant, client, scope) and mailbox.
    pub fn new(application: Application, http: reqwest::Client, clock: Arc<dyn Clock>, ledger: Ledger) -> Self {
        Self { application, http, clock, ledger }
    }

    /// Asks for a device code (RFC 8628 section 3.1).
    pub async fn device_code(&mut self) -> Result<DeviceCode, SignInError> {
        let standing = self.standing().await?;
        let proof = self.prove(&standing).await?;
        self.take().await?;
        let asked = Now::of(&*self.clock);
        let (seen, reply) = request_device_code(&self.http, &self.application, &proof).await.map_err(failed)?;
        DeviceCode::of(reply, asked).map_err(|text| failed(failure(FailureClass::Unexpected, &seen, text)))
    }

    /// Waits until the user has finished at another screen, has declined, or the code has ended (RFC 8628 section 3.4). Its
    /// polls are not counted in the budget: their pace is the endpoint's. Safe to drop.
    pub async fn finish_device_code(&mut self, code: &DeviceCode) -> Result<SignedIn, SignInError> {
        let mut polling = Polling::new(code);
        let standing = self.standing().await?;
        loop {
            tokio::time::sleep(polling.wait()).await;
            match self.poll(code, &standing).await {
                Ok(answer) => return signed_in(answer, None),
                Err(failure) => match polling.after(failure, Now::of(&*self.clock)) {
                    Next::Poll => {}
                    Next::End(error) => return Err(error),
                },
            }
        }
    }

    async fn poll(&self, code: &DeviceCode, standing: &Standing) -> Result<Answer, TokenFailure> {
        let proof = self.proof(standing).await?;
        let asked = Asked::DeviceCode(&code.secret);
        let answer = request_token(&self.http, &self.application, &proof, &asked, &*self.clock).await;
        answer.map_err(|useless| useless.failure)
    }

    /// Where to send a browser, which comes back to `redirect_uri`: a loopback URL as RFC 8252 section 7.3 has it. `hint` is
    /// the account that is wanted.
    pub fn authorization(&self, redirect_uri: &str, hint: Option<&str>) -> AuthorizationRequest {
        AuthorizationRequest::new(&self.application, redirect_uri, hint)
    }

    /// Redeems what the browser came back with.
    pub async fn redeem(&mut self, request: &AuthorizationRequest, code: &Secret) -> Result<SignedIn, SignInError> {
        let asked = Asked::AuthorizationCode { code, verifier: &request.verifier, redirect_uri: &request.redirect_uri };
        self.ask(&asked, None).await
    }

    /// Takes over a refresh token. It is used once, to prove it; the endpoint may give another in its place.
    ///
    /// Whose it is, only the answer tells: it counts in the budget of that account then. A few may be more than that had room
    /// for; the next ones wait.
    pub async fn take_over(&mut self, refresh_token: &Secret) -> Result<SignedIn, SignInError> {
        let path = self.ledger.account_path(&self.application, "");
        let mut beyond = self.open(path, Ledger::open_take_overs).await;
        let wait = beyond.wait(Now::of(&*self.clock));
        if !wait.is_zero() {
            return Err(budget(wait));
        }
        let signed_in = self.ask(&Asked::RefreshToken(refresh_token), Some(refresh_token)).await?;
        if let Some(account) = &signed_in.account {
            let path = self.ledger.account_path(&self.application, account);
            let mut ledger = self.open(path, Ledger::open_account).await;
            let now = Now::of(&*self.clock);
            if !ledger.note(now).await {
                beyond.note(now).await;
            }
        }
        Ok(signed_in)
    }

    async fn open(&self, path: Option<PathBuf>, open: fn(PathBuf, &dyn Clock) -> Ledger) -> Ledger {
        let Some(path) = path else { return MemoryLedger::default().ledger() };
        let (on_thread, clock) = (path.clone(), Arc::clone(&self.clock));
        let opened = spawn_blocking(move || open(on_thread, &*clock)).await;
        opened.unwrap_or_else(|_| open(path, &*self.clock))
    }

    async fn ask(&mut self, asked: &Asked<'_>, before: Option<&Secret>) -> Result<SignedIn, SignInError> {
        let standing = self.standing().await?;
        let proof = self.prove(&standing).await?;
        self.take().await?;
        let answer = request_token(&self.http, &self.application, &proof, asked, &*self.clock).await;
        signed_in(answer.map_err(|useless| failed(useless.failure))?, before)
    }

    async fn standing(&self) -> Result<Standing, SignInError> {
        self.application.credential.read().await.map_err(failed)
    }

    async fn prove<'s>(&self, standing: &'s Standing) -> Result<Proof<'s>, SignInError> {
        self.proof(standing).await.map_err(failed)
    }

    /// An assertion is for the token endpoint, wherever it is shown (RFC 7523 section 3).
    async fn proof<'s>(&self, standing: &'s Standing) -> Result<Proof<'s>, TokenFailure> {
        let (application, now) = (&self.application, self.clock.wall());
        application.credential.prove(standing, &application.client_id, &application.endpoints.token, now).await
    }

    async fn take(&mut self) -> Result<(), SignInError> {
        let taken = self.ledger.take(Now::of(&*self.clock)).await;
        taken.map_err(budget)
    }
}

fn budget(wait: Duration) -> SignInError {
    SignInError::Budget { wait_secs: wait.as_secs() + 1 }
}

fn signed_in(answer: Answer, before: Option<&Secret>) -> Result<SignedIn, SignInError> {
    let refresh_token = answer.refresh_token.or_else(|| before.map(Secret::duplicate));
    let refresh_token = refresh_token.ok_or(SignInError::NoRefreshToken)?;
    Ok(SignedIn { token: answer.issued.token, refresh_token, account: answer.account })
}

fn failed(failure: TokenFailure) -> SignInError {
    SignInError::Failed(Box::new(failure))
}
