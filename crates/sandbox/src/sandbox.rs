//! The handle that whoever runs the sandbox holds: starts the listeners, changes the tenants, shows what came in.
//! Everything it tells is for tests and people; no client of the simulated services can see it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::application::SEND_AS_APP;
use crate::authority::{Authority, HOST};
use crate::entra::Scopes;
use crate::sign_ins::SignIn;
use crate::tenant::SmtpAuth;
use crate::token::{Bearer, SMTP_SEND_SCOPES};
use crate::world::World;
use crate::{
    Application, AuthRefusal, Conditions, Counters, Duplicate, Fault, Grant, Mailbox, Message, SandboxError,
    SandboxOptions, SendAsDenial, TenantModel, endpoint, front_end, imds, token,
};

/// A running Microsoft 365. Dropping it ends it; [`stop`](Self::stop) also waits for its tasks.
pub struct Sandbox {
    world: Arc<World>,
    ca_pem: String,
    smtp_port: u16,
    token_port: u16,
    imds_port: u16,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Sandbox {
    /// Makes the certificates, opens the listeners on 127.0.0.1 and serves them from tasks of the current runtime.
    pub async fn start(options: SandboxOptions) -> Result<Self, SandboxError> {
        let (smtp, smtp_port) = listen(options.smtp_port).await?;
        let (https, token_port) = listen(options.token_port).await?;
        let (metadata, imds_port) = listen(options.imds_port).await?;
        let authority = Authority::make()?;
        let world = Arc::new(World::new(options, authority_at(token_port))?);
        let stop = CancellationToken::new();
        let front_end = front_end::run(smtp, TlsAcceptor::from(authority.smtp), Arc::clone(&world), stop.clone());
        let endpoint = endpoint::run(https, TlsAcceptor::from(authority.https), Arc::clone(&world), stop.clone());
        let imds = imds::run(metadata, Arc::clone(&world), stop.clone());
        let tasks = vec![tokio::spawn(front_end), tokio::spawn(endpoint), tokio::spawn(imds)];
        Ok(Self { world, ca_pem: authority.ca_pem, smtp_port, token_port, imds_port, stop, tasks })
    }

    /// Closes the listeners, cuts every connection and waits until all tasks have ended.
    pub async fn stop(mut self) {
        self.stop.cancel();
        for task in std::mem::take(&mut self.tasks) {
            // A panic in a listener has been reported by the runtime; there is nothing left to stop.
            let _ = task.await;
        }
    }

    /// The CA certificate that a client must trust, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The authority, as `https://localhost:PORT`; the token endpoint is `{authority}/{tenant}/oauth2/v2.0/token`.
    pub fn authority(&self) -> String {
        authority_at(self.token_port)
    }

    /// The metadata service, as `http://127.0.0.1:PORT`: where 169.254.169.254 would be (facts 4.4).
    pub fn imds(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.imds_port)
    }

    /// The front end's host name, for which its certificate is.
    pub fn smtp_host(&self) -> &'static str {
        HOST
    }

    /// The front end's port.
    pub fn smtp_port(&self) -> u16 {
        self.smtp_port
    }

    /// A token as the endpoint would issue, without HTTP and without counting. For tests of what comes after it.
    pub fn issue_token(&self, client_id: &str, scope: &str) -> Result<String, SandboxError> {
        let audience = token::audience(scope).ok_or_else(|| SandboxError::UnknownScope(scope.to_owned()))?;
        let lifetime = self.world.conditions().token_lifetime;
        let directory = self.world.directory();
        let (tenant, application) = directory.application(client_id).ok_or_else(|| no_application(client_id))?;
        let bearer = Bearer::Application(application);
        Ok(self.world.mint.issue(tenant, bearer, audience, lifetime, self.world.clock.as_ref()).token)
    }

    /// A person's access token with `SMTP.Send`, as after a sign-in.
    pub fn issue_delegated_token(&self, client_id: &str, user: &str) -> Result<String, SandboxError> {
        let sign_in = self.sign_in(client_id, user)?;
        let lifetime = self.world.conditions().token_lifetime;
        let directory = self.world.directory();
        let (tenant, application) = directory.application(client_id).ok_or_else(|| no_application(client_id))?;
        let scp = sign_in.scopes.scp();
        let bearer = Bearer::User { application, user: &sign_in.user, scp: &scp };
        let audience = sign_in.scopes.audience();
        Ok(self.world.mint.issue(tenant, bearer, audience, lifetime, self.world.clock.as_ref()).token)
    }

    /// A refresh token for the usual scopes, as another product with the same application would hold it.
    pub fn issue_refresh_token(&self, client_id: &str, user: &str) -> Result<String, SandboxError> {
        let sign_in = self.sign_in(client_id, user)?;
        Ok(self.world.sign_ins.issue_refresh(sign_in, self.world.clock.wall()))
    }

    /// A token of the external issuer [`WORKLOAD_ISSUER`](crate::WORKLOAD_ISSUER), as Kubernetes would project it into
    /// a file (facts 4.4).
    pub fn workload_token(&self, subject: &str, audience: &str, lifetime: Duration) -> String {
        self.world.mint.workload_token(subject, audience, self.world.clock.wall(), lifetime)
    }

    /// The codes of the devices that wait for a person, oldest first.
    pub fn waiting_devices(&self) -> Vec<String> {
        let waiting = self.world.sign_ins.waiting(self.world.clock.monotonic());
        waiting.into_iter().map(|device| device.user_code).collect()
    }

    /// Signs in as `user` on behalf of the device that waits with this code.
    pub fn approve_device(&self, user_code: &str, user: &str) -> Result<(), SandboxError> {
        let now = self.world.clock.monotonic();
        let waiting = self.world.sign_ins.waiting(now);
        let device = waiting.iter().find(|device| device.user_code.eq_ignore_ascii_case(user_code));
        let device = device.ok_or_else(|| SandboxError::UnknownDevice(user_code.to_owned()))?;
        let directory = self.world.directory();
        let (tenant, user) = directory.user(user).ok_or_else(|| SandboxError::UnknownUser(user.to_owned()))?;
        if tenant.tenant_id != device.tenant_id {
            return Err(SandboxError::ForeignUser { user: user.to_owned(), client_id: device.client_id.clone() });
        }
        self.decide(user_code, Some(user))
    }

    /// Declines what the device that waits with this code asks for.
    pub fn decline_device(&self, user_code: &str) -> Result<(), SandboxError> {
        self.decide(user_code, None)
    }

    fn decide(&self, user_code: &str, user: Option<&str>) -> Result<(), SandboxError> {
        let is_decided = self.world.sign_ins.decide(user_code, user, self.world.clock.monotonic());
        is_decided.then_some(()).ok_or_else(|| SandboxError::UnknownDevice(user_code.to_owned()))
    }

    /// Ends every sign-in of a user, as a change of the password does (facts 4.5): his refresh tokens are refused with
    /// AADSTS50173. Gives how many died. Access tokens already issued stay good.
    pub fn revoke_sign_ins(&self, user: &str) -> Result<usize, SandboxError> {
        self.world.directory().user(user).ok_or_else(|| SandboxError::UnknownUser(user.to_owned()))?;
        Ok(self.world.sign_ins.revoke(user, self.world.clock.wall()))
    }

    /// How many refresh tokens of a user are good: neither revoked nor 90 days old.
    pub fn refresh_tokens_alive(&self, user: &str) -> usize {
        self.world.sign_ins.alive(Some(user), self.world.clock.wall())
    }

    /// The same of everybody.
    pub(crate) fn all_refresh_tokens_alive(&self) -> usize {
        self.world.sign_ins.alive(None, self.world.clock.wall())
    }

    /// A sign-in for the usual scopes.
    fn sign_in(&self, client_id: &str, user: &str) -> Result<SignIn, SandboxError> {
        let directory = self.world.directory();
        let (tenant, application) = directory.application(client_id).ok_or_else(|| no_application(client_id))?;
        let (home, user) = directory.user(user).ok_or_else(|| SandboxError::UnknownUser(user.to_owned()))?;
        if home.tenant_id != tenant.tenant_id {
            return Err(SandboxError::ForeignUser { user: user.to_owned(), client_id: client_id.to_owned() });
        }
        Ok(SignIn {
            tenant_id: tenant.tenant_id.clone(),
            client_id: application.client_id.clone(),
            user: user.to_owned(),
            scopes: Scopes::parse(SMTP_SEND_SCOPES).expect("the usual scopes are known"),
            nonce: None,
        })
    }

    /// Changes a tenant, named by GUID or domain, in any way at all. Takes effect with the next command or request,
    /// permissions only after [`Conditions::permission_delay`].
    pub fn change_tenant(&self, tenant: &str, change: impl FnOnce(&mut TenantModel)) -> Result<(), SandboxError> {
        let changed = self.world.change_directory(|directory| directory.change_tenant(tenant, change));
        changed.ok_or_else(|| SandboxError::UnknownTenant(tenant.to_owned()))
    }

    /// Changes a mailbox in any way at all.
    pub fn change_mailbox(&self, address: &str, change: impl FnOnce(&mut Mailbox)) -> Result<(), SandboxError> {
        let changed = self.world.change_directory(|directory| directory.change_mailbox(address, change));
        changed.ok_or_else(|| SandboxError::UnknownMailbox(address.to_owned()))
    }

    /// Changes an application in any way at all. Tokens already issued keep their roles (facts 4.2).
    pub fn change_application(
        &self,
        client_id: &str,
        change: impl FnOnce(&mut Application),
    ) -> Result<(), SandboxError> {
        let changed = self.world.change_directory(|directory| directory.change_application(client_id, change));
        changed.ok_or_else(|| no_application(client_id))
    }

    /// Grants a mailbox to an application (facts 5).
    pub fn grant(&self, address: &str, client_id: &str, grant: Grant) -> Result<(), SandboxError> {
        self.change_mailbox(address, |mailbox| {
            mailbox.grants.insert((client_id.to_ascii_lowercase(), grant));
        })
    }

    /// Takes every grant of a mailbox from an application. Sessions already logged in go on.
    pub fn revoke(&self, address: &str, client_id: &str) -> Result<(), SandboxError> {
        self.change_mailbox(address, |mailbox| {
            mailbox.grants.retain(|(granted, _)| !granted.eq_ignore_ascii_case(client_id));
        })
    }

    /// Replaces every secret of an application. Tokens already issued stay good.
    pub fn rotate_secret(&self, client_id: &str, secret: &str) -> Result<(), SandboxError> {
        self.change_application(client_id, |application| application.secrets = vec![secret.to_owned()])
    }

    /// Sets "Allow public client flows". A public client must not send a secret, a confidential one must (facts 4.5).
    pub fn set_public_client(&self, client_id: &str, public: bool) -> Result<(), SandboxError> {
        self.change_application(client_id, |application| application.public_client = public)
    }

    /// Sets the tenant's switch `SmtpClientAuthenticationDisabled`.
    pub fn set_tenant_smtp_auth_disabled(&self, tenant: &str, disabled: bool) -> Result<(), SandboxError> {
        self.change_tenant(tenant, |tenant| tenant.smtp_auth_disabled = disabled)
    }

    /// Sets the mailbox's switch.
    pub fn set_mailbox_smtp_auth(&self, address: &str, smtp_auth: SmtpAuth) -> Result<(), SandboxError> {
        self.change_mailbox(address, |mailbox| mailbox.smtp_auth = smtp_auth)
    }

    /// The tenants as their administrators see them: every change is in, whether or not logins feel it yet.
    pub fn tenants(&self) -> Vec<TenantModel> {
        self.world.directory().tenants().to_vec()
    }

    /// How many changes of the tenants logins do not feel yet ([`Conditions::permission_delay`]).
    pub fn permission_changes_under_way(&self) -> usize {
        self.world.directory().under_way(self.world.clock.monotonic())
    }

    /// Adds a mailbox to a tenant, or replaces the one with its address.
    pub fn add_mailbox(&self, tenant: &str, mailbox: Mailbox) -> Result<(), SandboxError> {
        self.change_tenant(tenant, |tenant| {
            tenant.mailboxes.retain(|other| !other.address.eq_ignore_ascii_case(&mailbox.address));
            tenant.mailboxes.push(mailbox);
        })
    }

    /// Makes a mailbox shared, or a user's own: nobody signs in as a shared one.
    pub fn set_mailbox_shared(&self, address: &str, shared: bool) -> Result<(), SandboxError> {
        self.change_mailbox(address, |mailbox| mailbox.shared = shared)
    }

    /// Gives a user full access to a mailbox (`Add-MailboxPermission -AccessRights FullAccess`).
    pub fn add_delegate(&self, address: &str, user: &str) -> Result<(), SandboxError> {
        self.world.directory().user(user).ok_or_else(|| SandboxError::UnknownUser(user.to_owned()))?;
        self.change_mailbox(address, |mailbox| {
            mailbox.full_access.insert(user.to_ascii_lowercase());
        })
    }

    /// Lets a mailbox send as another address (`Add-RecipientPermission -AccessRights SendAs`).
    pub fn allow_send_as(&self, address: &str, other: &str) -> Result<(), SandboxError> {
        self.change_mailbox(address, |mailbox| {
            mailbox.may_send_as.insert(other.to_ascii_lowercase());
        })
    }

    /// Gives a mailbox another address (`Set-Mailbox -EmailAddresses`).
    pub fn add_alias(&self, address: &str, alias: &str) -> Result<(), SandboxError> {
        self.change_mailbox(address, |mailbox| {
            mailbox.aliases.insert(alias.to_ascii_lowercase());
        })
    }

    /// Lets recipients see a tenant's aliases, or the primary address instead (facts 5.3).
    pub fn set_send_from_alias(&self, tenant: &str, enabled: bool) -> Result<(), SandboxError> {
        self.change_tenant(tenant, |tenant| tenant.send_from_alias = enabled)
    }

    /// Consents to the application permission `SMTP.SendAsApp` or withdraws it. Path A needs it, path B must not have it
    /// (facts 5); tokens already issued keep what they were issued with.
    pub fn set_send_as_app(&self, client_id: &str, consented: bool) -> Result<(), SandboxError> {
        self.change_application(client_id, |application| {
            application.roles.retain(|role| role != SEND_AS_APP);
            if consented {
                application.roles.push(SEND_AS_APP.to_owned());
            }
        })
    }

    /// How the services are at the moment.
    pub fn conditions(&self) -> Conditions {
        self.world.conditions()
    }

    /// Changes the conditions in any way at all.
    pub fn change_conditions(&self, change: impl FnOnce(&mut Conditions)) {
        self.world.change_conditions(change);
    }

    /// Fills a mailbox or empties it: full, it answers `554 5.2.2` behind the final dot.
    pub fn set_mailbox_full(&self, address: &str, full: bool) -> Result<(), SandboxError> {
        self.change_mailbox(address, |mailbox| mailbox.full = full)
    }

    /// Lets a fault strike. Faults at the same stage strike in the order in which they were injected.
    pub fn inject(&self, fault: Fault) -> Result<(), SandboxError> {
        self.world.faults.inject(fault)
    }

    /// The faults that wait to strike, in the order in which they were injected.
    pub fn waiting_faults(&self) -> Vec<Fault> {
        self.world.faults.waiting()
    }

    /// Forgets every fault that waits.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// The messages that are kept, oldest first.
    pub fn messages(&self) -> Vec<Arc<Message>> {
        self.world.mail.all()
    }

    /// The message with this index; `None` if it has not come or was forgotten.
    pub fn message(&self, index: u64) -> Option<Arc<Message>> {
        self.world.mail.at(index)
    }

    /// Waits until `count` messages have come since the start, and gives all that are kept.
    pub async fn wait_for(&self, count: u64, within: Duration) -> Result<Vec<Arc<Message>>, SandboxError> {
        self.world.mail.wait_for(count, within).await
    }

    /// Every message from now on. Bounded: a subscriber that lags by more than 1,024 loses the oldest and is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Message>> {
        self.world.mail.subscribe()
    }

    /// Recipients that were sent the same Message-ID more than once, among the messages that are kept.
    pub fn duplicates(&self) -> Vec<Duplicate> {
        self.world.mail.duplicates()
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        self.world.tally.snapshot(self.world.mail.total())
    }

    /// The messages that were refused with `SendAsDenied`, oldest first; the last 1,000.
    pub fn send_as_denials(&self) -> Vec<SendAsDenial> {
        self.world.tally.denials()
    }

    /// Why the latest AUTH was refused: what Exchange never tells.
    pub fn last_auth_refusal(&self) -> Option<AuthRefusal> {
        self.world.tally.last_refusal()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn authority_at(port: u16) -> String {
    format!("https://{HOST}:{port}")
}

async fn listen(port: u16) -> Result<(TcpListener, u16), SandboxError> {
    let failed = |source| SandboxError::Listen { port, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

fn no_application(client_id: &str) -> SandboxError {
    SandboxError::UnknownApplication(client_id.to_owned())
}
