//! The lanes of a configuration: one for each login, whatever mailboxes have it, with what those of one Entra tenant share.
//! Made once, when the queue is open; what an earlier run has used of their limits is counted from the start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, WallTime};
use forwarder::{Allowance, ConnectionLimits, Endpoint, Lane, LaneParts, Timeouts};
use mail::{Domain, LaneId};
use spool::Spool;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::config::{FilePath, Mailbox, ProxyUrl, Settings, Tenant};
use crate::refused_senders::RefusedSenders;
use crate::routing;
use crate::status::LaneView;
use crate::tls::{CaFileError, Trust};
use crate::tokens::TenantTokens;

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

/// All lanes of a configuration.
#[derive(Default)]
pub(crate) struct Lanes {
    /// By login.
    pub(crate) views: BTreeMap<LaneId, LaneView>,
    /// By the tenant's name.
    pub(crate) tokens: BTreeMap<String, Arc<TenantTokens>>,
    /// By Entra tenant.
    tenants: BTreeMap<String, Arc<forwarder::Tenant>>,
}

impl Lanes {
    /// Opens them; nothing is connected yet, and tokens are asked for.
    pub(crate) fn open(ground: &Ground<'_>) -> Result<Self, CaFileError> {
        let mut lanes = Self::default();
        for (name, mailbox) in &ground.settings.mailboxes {
            lanes.add(ground, name, mailbox)?;
        }
        Ok(lanes)
    }

    fn add(&mut self, ground: &Ground<'_>, name: &str, mailbox: &Mailbox) -> Result<(), CaFileError> {
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
            return Ok(());
        }
        let tokens = self.tokens(ground, tenant_name, tenant)?;
        let login = mailbox.login.as_ref().map(ToString::to_string).unwrap_or_default();
        let parts = LaneParts {
            id: id.clone(),
            login,
            endpoint: endpoint(ground, tenant)?,
            tokens,
            tenant: self.tenant(tenant),
            allowance: allowance(settings, tenant_name, mailbox),
            limits: ConnectionLimits::default(),
            clock: Arc::clone(clock),
        };
        let view = LaneView {
            tenant: tenant_name.to_owned(),
            mailbox: name.to_owned(),
            address: address.clone(),
            queues: Vec::new(),
            lane: Lane::new(parts),
            refused_senders: Arc::new(RefusedSenders::default()),
        };
        self.views.insert(id, view);
        Ok(())
    }

    fn tokens(&mut self, ground: &Ground<'_>, name: &str, tenant: &Tenant) -> Result<Arc<TenantTokens>, CaFileError> {
        if let Some(tokens) = self.tokens.get(name) {
            return Ok(Arc::clone(tokens));
        }
        let Ground { settings, trust, clock, stop_tokens } = ground;
        let directory = settings.spool.directory.as_path();
        let (clock, stop) = (Arc::clone(clock), CancellationToken::clone(stop_tokens));
        let tokens = Arc::new(TenantTokens::start(name, tenant, directory, trust, clock, stop)?);
        self.tokens.insert(name.to_owned(), Arc::clone(&tokens));
        Ok(tokens)
    }

    /// What lanes of the same Entra tenant share, under whatever names of the configuration.
    fn tenant(&mut self, tenant: &Tenant) -> Arc<forwarder::Tenant> {
        let limit = Some(tenant.external_recipients_per_day.get()).filter(|limit| *limit > 0);
        let key = tenant.tenant_id.as_str().to_ascii_lowercase();
        Arc::clone(self.tenants.entry(key).or_insert_with(|| Arc::new(forwarder::Tenant::new(limit))))
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

fn endpoint(ground: &Ground<'_>, tenant: &Tenant) -> Result<Endpoint, CaFileError> {
    Ok(Endpoint {
        host: tenant.smtp_host().to_owned(),
        port: tenant.smtp.port.port(),
        address_family: tenant.address_family.into(),
        source_address: tenant.source_address,
        proxy: tenant.smtp_proxy.as_ref().map(ProxyUrl::for_smtp),
        hostname: ground.settings.hostname.as_str().to_owned(),
        tls: ground.trust.client(tenant.smtp.ca_file.as_ref().map(FilePath::as_path))?,
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
