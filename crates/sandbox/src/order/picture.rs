//! The sandbox at a glance, for a person: conditions, tenants, faults, counters. Never a secret.

use std::fmt::Write as _;
use std::time::Duration;

use crate::application::SEND_AS_APP;
use crate::{Application, Grant, Limits, Mailbox, RateMode, Sandbox, SharedLogin, SmtpAuth, TenantModel};

/// More mailboxes of a tenant than this are only counted.
const MAILBOXES: usize = 50;

/// The picture, a few lines.
pub(super) fn of(sandbox: &Sandbox) -> String {
    let mut lines = vec![conditions(sandbox), sign_ins(sandbox)];
    for tenant in &sandbox.tenants() {
        describe(tenant, &mut lines);
    }
    lines.push(format!(
        "faults waiting: {}; changes of permissions under way: {}",
        sandbox.waiting_faults().len(),
        sandbox.permission_changes_under_way()
    ));
    let counters = sandbox.counters();
    lines.push(format!(
        "connections: {} now, {} at most, {} in all; AUTH: {} good, {} refused; tokens: {} requests, {} issued",
        counters.connections,
        counters.connections_peak,
        counters.connections_total,
        counters.auth_successes,
        counters.auth_failures,
        counters.token_requests,
        counters.tokens_issued,
    ));
    lines.push(format!(
        "messages: {} kept, {} cut off within DATA, {} refused by SendAs",
        counters.messages, counters.cut_transfers, counters.send_as_denials
    ));
    if let Some(refusal) = sandbox.last_auth_refusal() {
        lines.push(format!("latest refusal at AUTH: {refusal}"));
    }
    lines.join("\n")
}

/// A lifetime of tokens in words.
pub(super) fn lifetime(lifetime: Option<Duration>) -> String {
    lifetime.map_or_else(|| "3600 to 5399 s".to_owned(), |lifetime| format!("{} s", lifetime.as_secs()))
}

fn conditions(sandbox: &Sandbox) -> String {
    let conditions = sandbox.conditions();
    let limits = match conditions.limits {
        Limits::Exchange => "exchange",
        Limits::Off => "off",
    };
    let rate = match conditions.rate {
        RateMode::Reject => "reject",
        RateMode::Delay => "delay",
    };
    format!(
        "limits {limits}; rate {rate}; tarpit {} s; tokens live {}; permission delay {} s",
        conditions.tarpit.as_secs_f64(),
        lifetime(conditions.token_lifetime),
        conditions.permission_delay.as_secs_f64()
    )
}

fn sign_ins(sandbox: &Sandbox) -> String {
    let conditions = sandbox.conditions();
    let shared = match conditions.shared_login {
        SharedLogin::Mailbox => "mailbox",
        SharedLogin::Delegate => "delegate",
    };
    format!(
        "shared-login {shared}; browser {}; devices waiting: {}; refresh tokens alive: {}",
        conditions.browser_user.as_deref().unwrap_or("nobody"),
        sandbox.waiting_devices().len(),
        sandbox.all_refresh_tokens_alive()
    )
}

fn describe(tenant: &TenantModel, lines: &mut Vec<String>) {
    let switch = if tenant.smtp_auth_disabled { "off" } else { "on" };
    lines.push(format!("tenant {} ({}): SMTP AUTH {switch}", tenant.tenant_id, tenant.domains.join(", ")));
    lines.extend(tenant.applications.iter().map(application));
    lines.extend(tenant.mailboxes.iter().take(MAILBOXES).map(mailbox));
    if let Some(more) = tenant.mailboxes.len().checked_sub(MAILBOXES).filter(|&more| more > 0) {
        lines.push(format!("  and {more} mailboxes more"));
    }
}

fn application(application: &Application) -> String {
    let role = if application.roles.iter().any(|role| role == SEND_AS_APP) { "on" } else { "off" };
    let mut text =
        format!("  application {}: role {role}, secrets: {}", application.client_id, application.secrets.len());
    for (count, what) in
        [(application.certificates.len(), "certificates"), (application.federated.len(), "federated identities")]
    {
        if count > 0 {
            // Writing to a string cannot fail.
            let _ = write!(text, ", {what}: {count}");
        }
    }
    if application.public_client {
        text.push_str(", public");
    }
    text
}

fn mailbox(mailbox: &Mailbox) -> String {
    let mut grants: Vec<&str> = mailbox.grants.iter().map(|&(_, grant)| path(grant)).collect();
    grants.sort_unstable();
    grants.dedup();
    let grants = if grants.is_empty() { "none".to_owned() } else { grants.join(" and ") };
    let switch = match mailbox.smtp_auth {
        SmtpAuth::Inherit => "inherit",
        SmtpAuth::Enabled => "on",
        SmtpAuth::Disabled => "off",
    };
    let mut text = format!("  mailbox {}: grant {grants}, smtp-auth {switch}", mailbox.address);
    if mailbox.shared {
        text.push_str(", shared");
    }
    let mut delegates: Vec<&str> = mailbox.full_access.iter().map(String::as_str).collect();
    delegates.sort_unstable();
    for delegate in delegates {
        // Writing to a string cannot fail.
        let _ = write!(text, ", open to {delegate}");
    }
    if mailbox.full {
        text.push_str(", full");
    }
    let mut aliases: Vec<&str> = mailbox.aliases.iter().map(String::as_str).collect();
    aliases.sort_unstable();
    for alias in aliases {
        // Writing to a string cannot fail.
        let _ = write!(text, ", is {alias}");
    }
    let mut others: Vec<&str> = mailbox.may_send_as.iter().map(String::as_str).collect();
    others.sort_unstable();
    for other in others {
        // Writing to a string cannot fail.
        let _ = write!(text, ", sends as {other}");
    }
    text
}

fn path(grant: Grant) -> &'static str {
    match grant {
        Grant::FullAccess => "full-access",
        Grant::Rbac => "rbac",
    }
}
