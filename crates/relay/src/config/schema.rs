//! The names of the configuration contract, whole: what this release reads and what is still to come. A name of the
//! second kind is refused by name and never ignored; any other is a mistake with the nearest name beside it.

/// A name that may stand in a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// Whether this release reads it.
    pub(crate) built: bool,
}

const fn built(name: &'static str) -> Key {
    Key { name, built: true }
}

const fn later(name: &'static str) -> Key {
    Key { name, built: false }
}

/// The top level.
pub(crate) const ROOT: &[Key] = &[
    built("hostname"),
    built("listener"),
    built("tenant"),
    built("mailbox"),
    built("spool"),
    built("http"),
    built("log"),
    built("shutdown"),
    later("user"),
    later("route"),
    later("rewrite"),
    later("retry"),
    later("bounce"),
    later("history"),
    later("control"),
    later("alert"),
    later("vault"),
];

/// `[listener.NAME]`
pub(crate) const LISTENER: &[Key] = &[
    built("address"),
    built("networks"),
    built("authentication"),
    built("tls"),
    built("delivery"),
    built("max_message_size"),
    built("max_recipients"),
    built("max_connections"),
    built("max_connections_per_client"),
    later("allow_cleartext_auth"),
    later("allow_public"),
    later("certificate"),
    later("private_key"),
    later("proxy_protocol_from"),
    later("dialect"),
    later("lf_only_clients"),
    later("received"),
    later("max_messages_per_minute_per_client"),
];

/// `[tenant.NAME]`
pub(crate) const TENANT: &[Key] = &[
    built("tenant_id"),
    built("client_id"),
    built("cloud"),
    built("grant"),
    built("client_secret"),
    built("authority"),
    built("authority_ca_file"),
    built("scope"),
    built("smtp"),
    built("address_family"),
    later("certificate_credential"),
    later("federated_token"),
    later("managed_identity"),
    later("client_secret_expires"),
    later("internal_domains"),
    later("external_recipients_per_day"),
    later("source_address"),
    later("https_proxy"),
    later("smtp_proxy"),
];

/// `smtp = { ... }` of a tenant.
pub(crate) const SMTP: &[Key] = &[built("host"), built("port"), built("ca_file")];

/// A secret reference: exactly one of these.
pub(crate) const SECRET: &[Key] = &[built("file"), built("env"), built("systemd_credential")];

/// `[mailbox.NAME]`
pub(crate) const MAILBOX: &[Key] = &[
    built("tenant"),
    built("address"),
    built("login"),
    built("connections"),
    built("messages_per_minute"),
    built("max_message_size"),
    later("from"),
    later("may_send_as"),
    later("recipients_per_day"),
    later("recipients_per_message"),
    later("wildcard_needs_user"),
];

/// `[spool]`
pub(crate) const SPOOL: &[Key] =
    &[built("directory"), built("max_messages"), built("max_bytes"), built("min_free_bytes")];

/// `[http]`
pub(crate) const HTTP: &[Key] = &[built("address"), later("allowed_hosts")];

/// `[log]`
pub(crate) const LOG: &[Key] = &[built("format"), built("level"), later("subjects")];

/// `[shutdown]`
pub(crate) const SHUTDOWN: &[Key] = &[built("grace")];

/// Whether `path` is the place of a secret reference.
pub(crate) fn is_secret_reference(path: &str) -> bool {
    let mut names = path.split('.');
    names.next() == Some("tenant")
        && names.next().is_some()
        && names.next() == Some("client_secret")
        && names.next().is_none()
}

/// The name in `keys` that was probably meant.
pub(crate) fn nearest(keys: &[Key], name: &str) -> Option<&'static str> {
    keys.iter()
        .map(|key| (strsim::damerau_levenshtein(key.name, name), key.name))
        .min()
        .filter(|(distance, key)| *distance <= key.len() / 3 + 1)
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        assert_eq!(nearest(TENANT, "clientid"), Some("client_id"));
        assert_eq!(nearest(TENANT, "client_secrte"), Some("client_secret"));
        assert_eq!(nearest(MAILBOX, "adress"), Some("address"));
        assert_eq!(nearest(MAILBOX, "colour"), None);
    }

    #[test]
    fn secret_references_are_known_by_their_path() {
        assert!(is_secret_reference("tenant.contoso.client_secret"));
        assert!(!is_secret_reference("tenant.contoso"));
        assert!(!is_secret_reference("tenant.contoso.client_secret.file"));
        assert!(!is_secret_reference("mailbox.contoso.client_secret"));
    }
}
