//! The lanes of a configuration: one for each login, whatever mailboxes have it, with what those of one Entra tenant share.
//! Made once, when the queue is open; what an earlier run has used of their limits is counted from the start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, WallTime};
use forwarder::{Allowance, ConnectionLimits, Endpoint, Lane, LaneParts, Timeouts};
use mail::{Domain, LaneId};
use spool::Spool;
use token_manager::{Vault, VaultError};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{self, FilePath, Mailbox, ProxyUrl, Settings, Tenant};
use crate::refused_senders::RefusedSenders;
use crate::registration::{self, Registration};
use crate::routing;
use crate::sign_ins::{Seat, SeatLane};
use crate::status::LaneView;
use crate::tls::{CaFileError, Trust};
use crate::tokens::Tokens;

/// The window of `recipients_per_day`, and the minute that the spool's counts may be older than they say.
const DAY: Duration = Duration::from_mins(24 * 60 + 1);
/// The window of `messages_per_minute`.
const MINUTE: Duration = Duration::from_mins(1);

/// What the lanes are made with.
pub(crate) struct Ground<'a> {
    /// The configuration.
    pub(crate) settings: &'a Settings,
    /// Trust in upstream's certificates.
    pub(crate) trust: &'a Trust,
    /// Time.
    pub(crate) clock: &'a Arc<dyn Clock>,
    /// Ends the tokens.
    pub(crate) stop_tokens: &'a CancellationToken,
}

/// Why there are no lanes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LanesError {
    /// A CA file.
    #[error("{0}")]
    CaFile(#[from] CaFileError),
    /// The directory of refresh tokens.
    #[error("{0}")]
    Vault(#[from] VaultError),
}

/// All lanes of a configuration.
#[derive(Default)]
pub(crate) struct Lanes {
    /// By login.
    pub(crate) views: BTreeMap<LaneId, LaneView>,
    /// All tokens: of tenants, and of mailboxes that users sign in for.
    pub(crate) tokens: Vec<Arc<Tokens>>,
    /// Where users sign in.
    pub(crate) seats: Vec<Seat>,
    /// By the tenant's name.
    registrations: BTreeMap<String, Registration>,
    /// Of applications, by the tenant's name.
    of_applications: BTreeMap<String, Arc<Tokens>>,
    /// Opened when the first seat is.
    vault: Option<Arc<Vault>>,
    /// By Entra tenant: the first of its applications.
    tenants: BTreeMap<String, Arc<forwarder::Tenant>>,
    /// By the tenant's name.
    applications: BTreeMap<String, Arc<forwarder::Tenant>>,
}

impl Lanes {
    /// Opens them; nothing is connected yet, and tokens are asked for.
    pub(crate) fn open(ground: &Ground<'_>) -> Result<Self, LanesError> {
        let mut lanes = Self::default();
        for (name, mailbox) in &ground.settings.mailboxes {
            lanes.add(ground, name, mailbox)?;
        }
        Ok(lanes)
    }

    fn add(&mut self, ground: &Ground<'_>, name: &str, mailbox: &Mailbox) -> Result<(), LanesError> {
        let Ground { settings, clock, .. } = ground;
        // Wildcards have no lane of their own, and are not built.
        let (Some((tenant_name, tenant)), Some(id), Some(address)) =
            (settings.tenant_of(mailbox), routing::lane(settings, mailbox), mailbox.address.one())
        else {
            return Ok(());
        };
        if let Some(view) = self.views.get_mut(&id) {
            // Another name of the same login.
            view.mailbox = format!("{}, {name}", view.mailbox);
            for seat in self.seats.iter_mut().filter(|seat| seat.id == id) {
                seat.mailboxes.push(name.to_owned());
            }
            return Ok(());
        }
        let registration = self.registration(ground, tenant_name, tenant)?;
        let tokens = match tenant.grant {
            config::Grant::ClientCredentials => self.of_application(ground, tenant_name, &registration),
            config::Grant::Delegated => self.of_mailbox(ground, (name, &id), &registration)?,
        };
        let login = mailbox.login.as_ref().map(ToString::to_string).unwrap_or_default();
        let endpoint = endpoint(ground.settings, ground.trust, tenant)?;
        let parts = LaneParts {
            id: id.clone(),
            login: login.clone(),
            endpoint: endpoint.clone(),
            tokens: Arc::clone(&tokens),
            tenant: self.tenant(tenant_name, tenant),
            allowance: allowance(settings, tenant_name, mailbox),
            limits: ConnectionLimits::default(),
            clock: Arc::clone(clock),
        };
        let lane = Lane::new(parts);
        if let (config::Grant::Delegated, Some(vault)) = (tenant.grant, &self.vault) {
            self.seats.push(Seat {
                tenant: tenant_name.to_owned(),
                mailboxes: vec![name.to_owned()],
                login,
                id: id.clone(),
                registration,
                endpoint,
                vault: Arc::clone(vault),
                lane: Some(SeatLane { lane: Arc::clone(&lane), tokens }),
            });
        }
        let view = LaneView {
            tenant: tenant_name.to_owned(),
            mailbox: name.to_owned(),
            address: address.clone(),
            queues: Vec::new(),
            lane,
            refused_senders: Arc::new(RefusedSenders::default()),
        };
        self.views.insert(id, view);
        Ok(())
    }

    fn registration(&mut self, ground: &Ground<'_>, name: &str, tenant: &Tenant) -> Result<Registration, CaFileError> {
        if let Some(registration) = self.registrations.get(name) {
            return Ok(registration.clone());
        }
        let directory = ground.settings.spool.directory.as_path();
        let registration = Registration::new(name, tenant, directory, ground.trust)?;
        self.registrations.insert(name.to_owned(), registration.clone());
        Ok(registration)
    }

    /// The application's own tokens, which all its mailboxes share.
    fn of_application(&mut self, ground: &Ground<'_>, name: &str, registration: &Registration) -> Arc<Tokens> {
        if let Some(tokens) = self.of_applications.get(name) {
            return Arc::clone(tokens);
        }
        let (clock, stop) = (Arc::clone(ground.clock), CancellationToken::clone(ground.stop_tokens));
        let tokens = Arc::new(Tokens::of_application(registration, clock, stop));
        self.of_applications.insert(name.to_owned(), Arc::clone(&tokens));
        self.tokens.push(Arc::clone(&tokens));
        tokens
    }

    /// The tokens of a user who signed in for one mailbox.
    fn of_mailbox(
        &mut self,
        ground: &Ground<'_>,
        mailbox: (&str, &LaneId),
        registration: &Registration,
    ) -> Result<Arc<Tokens>, VaultError> {
        let vault = match &self.vault {
            Some(vault) => Arc::clone(vault),
            None => Arc::clone(self.vault.insert(registration::vault(ground.settings)?)),
        };
        let (clock, stop) = (Arc::clone(ground.clock), CancellationToken::clone(ground.stop_tokens));
        let tokens = Arc::new(Tokens::of_mailbox(registration, mailbox, &vault, clock, stop));
        self.tokens.push(Arc::clone(&tokens));
        Ok(tokens)
    }

    /// What the lanes of one application share; its external recipients with all applications of the same Entra tenant.
    fn tenant(&mut self, name: &str, tenant: &Tenant) -> Arc<forwarder::Tenant> {
        if let Some(own) = self.applications.get(name) {
            return Arc::clone(own);
        }
        let limit = Some(tenant.external_recipients_per_day.get()).filter(|limit| *limit > 0);
        let key = tenant.tenant_id.as_str().to_ascii_lowercase();
        let own = if let Some(other) = self.tenants.get(&key) {
            Arc::new(other.beside())
        } else {
            let first = Arc::new(forwarder::Tenant::new(limit));
            self.tenants.insert(key, Arc::clone(&first));
            first
        };
        self.applications.insert(name.to_owned(), Arc::clone(&own));
        own
    }

    /// Upstream's minute and day do not begin anew with a restart of ours.
    pub(crate) async fn remember(&self, spool: &impl Spool, clock: &dyn Clock) {
        if let Err(error) = self.count_used(spool, clock).await {
            warn!(%error, "what was used of the last minute and day cannot be counted; both start anew");
        }
    }

    /// Lanes that no mailbox has any more count for their tenant all the same.
    async fn count_used(&self, spool: &impl Spool, clock: &dyn Clock) -> Result<(), spool::StoreError> {
        let (now, monotonic) = (clock.wall(), clock.monotonic());
        let mut external: BTreeMap<String, Vec<(WallTime, u64)>> = BTreeMap::new();
        for id in spool.used_lanes(now - DAY).await? {
            let entra_tenant = id.tenant_id().to_owned();
            let mut lately = 0;
            for (minute, usage) in spool.usage_since(&id, now - DAY).await? {
                let ago = now.saturating_since(minute);
                if let Some(view) = self.views.get(&id) {
                    view.lane.assume_used(u64::from(usage.recipients), ago);
                }
                // This minute and the one before: rather too many.
                lately += if ago < 2 * MINUTE { usage.messages as usize } else { 0 };
                external.entry(entra_tenant.clone()).or_default().push((minute, u64::from(usage.external)));
            }
            if let Some(view) = self.views.get(&id) {
                view.lane.assume_sent(lately);
            }
        }
        for (entra_tenant, mut used) in external {
            let Some(tenant) = self.tenants.get(&entra_tenant) else { continue };
            used.sort_unstable();
            for (minute, recipients) in used {
                tenant.assume_used(recipients, now.saturating_since(minute), monotonic);
            }
        }
        Ok(())
    }
}

/// Where the mail of `tenant` goes.
pub(crate) fn endpoint(settings: &Settings, trust: &Trust, tenant: &Tenant) -> Result<Endpoint, CaFileError> {
    Ok(Endpoint {
        host: tenant.smtp_host().to_owned(),
        port: tenant.smtp.port.port(),
        address_family: tenant.address_family.into(),
        source_address: tenant.source_address,
        proxy: tenant.smtp_proxy.as_ref().map(ProxyUrl::for_smtp),
        hostname: settings.hostname.as_str().to_owned(),
        tls: trust.client(tenant.smtp.ca_file.as_ref().map(FilePath::as_path))?,
        timeouts: Timeouts::default(),
    })
}

fn allowance(settings: &Settings, tenant: &str, mailbox: &Mailbox) -> Allowance {
    Allowance {
        connections: mailbox.connections.size(),
        messages_per_minute: mailbox.messages_per_minute.size(),
        recipients_per_day: mailbox.recipients_per_day.get(),
        recipients_per_message: mailbox.recipients_per_message.size(),
        internal_domains: internal_domains(settings, tenant),
    }
}

/// The tenant's own domains: as given, or those of its mailboxes.
pub(crate) fn internal_domains(settings: &Settings, tenant: &str) -> Vec<Domain> {
    let given = settings.tenants.get(tenant).map(|tenant| tenant.internal_domains.clone()).unwrap_or_default();
    if !given.is_empty() {
        return given;
    }
    let mailboxes = settings.mailboxes.values();
    let of_tenant = mailboxes.filter(|mailbox| mailbox.tenant.as_ref().is_some_and(|name| name.as_str() == tenant));
    let mut domains: Vec<Domain> = Vec::new();
    for domain in of_tenant.filter_map(|mailbox| Some(mailbox.address.one()?.domain())) {
        if !domains.contains(domain) {
            domains.push(domain.clone());
        }
    }
    domains
}
