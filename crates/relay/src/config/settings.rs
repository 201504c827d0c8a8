//! The settings: what the daemon is built from. Reading them checks each value and the relations between them; a
//! `Settings` that exists is right as far as the text of the configuration can tell.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use forwarder::AddressFamily;
use url::Url;

use super::schema;
use super::table::Table;
use super::value::{Network, octets};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Exchange's default `MaxSendSize`.
const DEFAULT_MESSAGE_SIZE: u64 = 35 * MIB;
/// Exchange advertises 150 MiB and an administrator can allow no more.
const LARGEST_MESSAGE_SIZE: u64 = 150 * MIB;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What we call ourselves.
    pub hostname: String,
    /// By name.
    pub listeners: BTreeMap<String, Listener>,
    /// By name.
    pub tenants: BTreeMap<String, Tenant>,
    /// By name.
    pub mailboxes: BTreeMap<String, Mailbox>,
    /// The queue.
    pub spool: Spool,
    /// Health over HTTP.
    pub http: Http,
    /// Logging.
    pub log: Log,
    /// Stopping.
    pub shutdown: Shutdown,
}

/// `[listener.NAME]`
#[derive(Clone, Debug)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may connect.
    pub networks: Vec<Network>,
    /// Largest message, in octets.
    pub max_message_size: u64,
    /// Most recipients of a message.
    pub max_recipients: usize,
    /// Most sessions.
    pub max_connections: usize,
    /// Most sessions of one address.
    pub max_connections_per_client: usize,
}

/// `[tenant.NAME]`
#[allow(clippy::struct_field_names, reason = "the configuration's own names")]
#[derive(Clone, Debug)]
pub struct Tenant {
    /// GUID or verified domain.
    pub tenant_id: String,
    /// GUID of the application.
    pub client_id: String,
    /// Where the secret is.
    pub client_secret: SecretReference,
    /// Where tokens come from.
    pub authority: Url,
    /// The only CA trusted for it, when given.
    pub authority_ca_file: Option<PathBuf>,
    /// What the token is for.
    pub scope: String,
    /// Where mail goes.
    pub smtp: SmtpEndpoint,
    /// Which addresses of that host are used.
    pub address_family: AddressFamily,
}

/// `smtp = { ... }` of a tenant.
#[derive(Clone, Debug)]
pub struct SmtpEndpoint {
    /// Host name, as in its certificate.
    pub host: String,
    /// Port; STARTTLS is always used.
    pub port: u16,
    /// The only CA trusted for it, when given.
    pub ca_file: Option<PathBuf>,
}

/// Where a secret is; never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretReference {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A credential that systemd puts under `$CREDENTIALS_DIRECTORY`.
    SystemdCredential(String),
}

/// `[mailbox.NAME]`
#[derive(Clone, Debug)]
pub struct Mailbox {
    /// Name of its tenant.
    pub tenant: String,
    /// Its address.
    pub address: mail::Mailbox,
    /// The XOAUTH2 user.
    pub login: String,
    /// Connections upstream.
    pub connections: usize,
    /// Messages in any minute.
    pub messages_per_minute: usize,
    /// Its `MaxSendSize`.
    pub max_message_size: u64,
}

/// `[spool]`
#[derive(Clone, Debug)]
pub struct Spool {
    /// The state directory.
    pub directory: PathBuf,
    /// Most messages.
    pub max_messages: u64,
    /// Most octets.
    pub max_bytes: u64,
    /// Free space below which nothing is accepted.
    pub min_free_bytes: u64,
}

/// `[http]`
#[derive(Clone, Debug)]
pub struct Http {
    /// Where it listens; none when switched off.
    pub address: Option<SocketAddr>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// JSON, one object a line.
    Json,
    /// Text.
    Text,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// The least important level shown.
    pub level: tracing::Level,
}

/// `[shutdown]`
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// How long sessions and deliveries may take to end.
    pub grace: Duration,
}

impl Settings {
    /// Reads the top level. None, or mistakes recorded, when something is wrong.
    pub(crate) fn read(mut root: Table<'_>) -> Option<Self> {
        let hostname = hostname(&mut root);
        let listeners = listeners(&mut root);
        let tenant_names = root.names_in("tenant");
        let tenants = tenants(&mut root);
        let mailboxes = mailboxes(&mut root, &tenant_names);
        let spool = Spool::read(root.table("spool"));
        let http = Http::read(root.table("http"));
        let twin = listeners.iter().find(|(_, listener)| Some(listener.address) == http.address);
        if let (Some((name, listener)), true) = (twin, http.address.is_some_and(|address| address.port() != 0)) {
            root.mistake("http.address", format!("{} is already taken by listener {name}", listener.address));
        }
        let log = Log::read(root.table("log"));
        let shutdown = Shutdown::read(root.table("shutdown"));
        root.finish(schema::ROOT);
        Some(Self {
            hostname: hostname?,
            listeners,
            tenants: tenants?,
            mailboxes: mailboxes?,
            spool,
            http,
            log,
            shutdown,
        })
    }
}

fn hostname(root: &mut Table<'_>) -> Option<String> {
    let Some((name, found)) = root.text("hostname") else {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        return Some(crate::hostname::valid(&machine));
    };
    // Exchange answers EHLO with another name by 501, and no mail would leave.
    if crate::hostname::valid(&name) == name {
        Some(name)
    } else {
        root.wrong(
            &found,
            format!("{name:?} is not a host name such as \"relay01.example.com\" (letters, digits, hyphens and dots)"),
        );
        None
    }
}

fn listeners(root: &mut Table<'_>) -> BTreeMap<String, Listener> {
    let mut section = root.table("listener");
    let named = section.named_tables();
    if named.is_empty() {
        return BTreeMap::from([("local".to_owned(), Listener::local())]);
    }
    let listeners: BTreeMap<_, _> =
        named.into_iter().filter_map(|(name, table)| Some((name, Listener::read(table)?))).collect();
    for (name, listener) in &listeners {
        let twin = listeners.iter().find(|(other, twin)| *other < name && twin.address == listener.address);
        if let (Some((other, _)), true) = (twin, listener.address.port() != 0) {
            root.mistake(
                &format!("listener.{name}.address"),
                format!("{} is already taken by listener {other}", listener.address),
            );
        }
    }
    listeners
}

impl Listener {
    /// The one that exists when none is written.
    fn local() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 2525)),
            networks: ["127.0.0.0/8", "::1/128"].iter().filter_map(|text| text.parse().ok()).collect(),
            max_message_size: DEFAULT_MESSAGE_SIZE,
            max_recipients: 500,
            max_connections: 1000,
            max_connections_per_client: 50,
        }
    }

    fn read(mut table: Table<'_>) -> Option<Self> {
        let default = Self::local();
        if !table.has("address") {
            table.mistake("address", "is missing; write for example \"127.0.0.1:2525\"");
        }
        let address = address(&mut table);
        let networks = table.list("networks", "a network such as \"10.1.2.0/24\" with no bits beyond its length");
        let networks = networks.unwrap_or(default.networks);
        if networks.is_empty() {
            table.mistake("networks", "is empty: no client could ever connect; leave it out for loopback only");
        }
        for network in networks.iter().filter(|network| !network.is_private()) {
            table.mistake("networks", format!("{network} reaches beyond private ranges, and without authentication (not built yet) that is an open relay"));
        }
        table.choice("authentication", &[("none", ())], &["optional", "required", "accept-any"]);
        table.choice("tls", &[("none", ())], &["starttls", "require-starttls", "implicit"]);
        table.choice("delivery", &[("queue", ())], &["direct"]);
        let max_message_size = table.size("max_message_size", 1024, 1 << 40).unwrap_or(default.max_message_size);
        let max_recipients = table.number("max_recipients", 1, 50_000).unwrap_or(default.max_recipients);
        let max_connections = table.number("max_connections", 1, 1_000_000).unwrap_or(default.max_connections);
        let max_connections_per_client =
            table.number("max_connections_per_client", 1, 1_000_000).unwrap_or(default.max_connections_per_client);
        table.finish(schema::LISTENER);
        let address = address?;
        Some(Self { address, networks, max_message_size, max_recipients, max_connections, max_connections_per_client })
    }
}

fn address(table: &mut Table<'_>) -> Option<SocketAddr> {
    let (text, found) = table.text("address")?;
    if text.starts_with("systemd:") {
        table.wrong(&found, "sockets handed over by systemd are not built yet in this release");
        return None;
    }
    let address = text.parse().ok();
    if address.is_none() {
        table.wrong(
            &found,
            format!("{text:?} is not an address with a port such as \"127.0.0.1:2525\" or \"[::1]:2525\""),
        );
    }
    address
}

fn tenants(root: &mut Table<'_>) -> Option<BTreeMap<String, Tenant>> {
    let mut section = root.table("tenant");
    let named = section.named_tables();
    if named.is_empty() {
        root.mistake("tenant", "is missing: a [tenant.NAME] with tenant_id, client_id and client_secret is needed");
        return None;
    }
    let count = named.len();
    let tenants: BTreeMap<_, _> =
        named.into_iter().filter_map(|(name, table)| Some((name, Tenant::read(table)?))).collect();
    (tenants.len() == count).then_some(tenants)
}

impl Tenant {
    fn read(mut table: Table<'_>) -> Option<Self> {
        let tenant_id = directory_id(&mut table);
        let client_id = guid(&mut table, "client_id");
        table.choice("cloud", &[("global", ())], &["gcc-high", "dod", "china"]);
        table.choice("grant", &[("client-credentials", ())], &["delegated"]);
        let client_secret = secret(&mut table, "client_secret");
        let authority = authority(&mut table);
        let authority_ca_file = ca_file(&mut table, "authority_ca_file");
        let scope = table.text("scope").map(|(scope, _)| scope);
        let smtp = SmtpEndpoint::read(table.table("smtp"));
        let families = [("any", AddressFamily::Any), ("ipv4", AddressFamily::Ipv4), ("ipv6", AddressFamily::Ipv6)];
        let address_family = table.choice("address_family", &families, &[]).unwrap_or_default();
        table.finish(schema::TENANT);
        Some(Self {
            tenant_id: tenant_id?,
            client_id: client_id?,
            client_secret: client_secret?,
            authority: authority?,
            authority_ca_file,
            scope: scope.unwrap_or_else(|| "https://outlook.office365.com/.default".to_owned()),
            smtp,
            address_family,
        })
    }
}

/// A path, which may not be empty.
fn path(table: &mut Table<'_>, key: &str) -> Option<PathBuf> {
    let (text, found) = table.text(key)?;
    if text.is_empty() {
        table.wrong(&found, "is empty; write a path, or leave it out for the default");
        return None;
    }
    Some(PathBuf::from(text))
}

/// A file of CA certificates that can be used.
fn ca_file(table: &mut Table<'_>, key: &str) -> Option<PathBuf> {
    let (text, found) = table.text(key)?;
    let path = PathBuf::from(text);
    match crate::tls::read_ca_file(&path) {
        Ok(_) => Some(path),
        Err(error) => {
            table.wrong(&found, error.to_string());
            None
        }
    }
}

fn directory_id(table: &mut Table<'_>) -> Option<String> {
    let (text, found) = table.required("tenant_id")?;
    let domain = text.contains('.') && mail::Domain::parse(&text).is_ok();
    if matches!(text.as_str(), "common" | "organizations" | "consumers") {
        table.wrong(
            &found,
            format!(
                "{text:?} cannot be used with an application's own login; write the tenant's GUID or a verified domain"
            ),
        );
        None
    } else if domain || is_guid(&text) {
        Some(text)
    } else {
        table.wrong(&found, "this is neither a GUID nor a verified domain (Entra admin center, Overview, Tenant ID)");
        None
    }
}

fn guid(table: &mut Table<'_>, key: &str) -> Option<String> {
    let (text, found) = table.required(key)?;
    if is_guid(&text) {
        Some(text)
    } else {
        table.wrong(&found, "this is not a GUID such as \"66666666-7777-8888-9999-000000000000\" (App registration, Application (client) ID)");
        None
    }
}

fn is_guid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|octet| octet.is_ascii_hexdigit()))
}

fn secret(table: &mut Table<'_>, key: &str) -> Option<SecretReference> {
    const ALLOWED: &str = "{ file = \"...\" }, { env = \"NAME\" } or { systemd_credential = \"name\" }";
    if !table.has(key) {
        table.mistake(key, format!("is missing; write {ALLOWED}"));
        return None;
    }
    if !table.is_table(key) {
        // The value is not repeated: it may well be the secret.
        table.reject(key, format!("a secret never stands in the configuration itself; write {ALLOWED}"));
        return None;
    }
    let mut reference = table.table(key);
    let file = reference.text("file").map(|(path, _)| SecretReference::File(path.into()));
    let variable = reference.text("env").map(|(name, _)| SecretReference::Environment(name));
    let credential = reference.text("systemd_credential").map(|(name, _)| SecretReference::SystemdCredential(name));
    let given: Vec<_> = [file, variable, credential].into_iter().flatten().collect();
    if given.len() != 1 {
        reference.mistake("", format!("must be exactly one of {ALLOWED}"));
    }
    reference.finish(schema::SECRET);
    given.into_iter().next()
}

fn authority(table: &mut Table<'_>) -> Option<Url> {
    const DEFAULT: &str = "https://login.microsoftonline.com";
    let Some((text, found)) = table.text("authority") else {
        return Some(Url::parse(DEFAULT).expect("the default authority is a URL"));
    };
    match Url::parse(&text) {
        Ok(url) if url.scheme() == "https" && url.has_host() && url.query().is_none() => Some(url),
        _ => {
            table.wrong(&found, format!("{text:?} is not an https URL such as {DEFAULT:?}"));
            None
        }
    }
}

impl SmtpEndpoint {
    fn read(mut table: Table<'_>) -> Self {
        let host = table.text("host").and_then(|(host, found)| {
            let right = mail::Domain::parse(&host).is_ok() && host.parse::<std::net::IpAddr>().is_err();
            if !right {
                table.wrong(&found, format!("{host:?} is not a host name; an address has no certificate to verify"));
            }
            right.then_some(host)
        });
        let port = table.number("port", 1, u16::MAX);
        let ca_file = ca_file(&mut table, "ca_file");
        table.finish(schema::SMTP);
        Self { host: host.unwrap_or_else(|| "smtp.office365.com".to_owned()), port: port.unwrap_or(587), ca_file }
    }
}

fn mailboxes(root: &mut Table<'_>, tenants: &[String]) -> Option<BTreeMap<String, Mailbox>> {
    let mut section = root.table("mailbox");
    let named = section.named_tables();
    let count = named.len();
    if count == 0 {
        root.mistake("mailbox", "is missing: a [mailbox.NAME] with address is needed");
    } else if count > 1 {
        root.mistake(
            "mailbox",
            "more than one mailbox needs [[route]], which is not built yet in this release; keep one",
        );
    }
    let mailboxes: BTreeMap<_, _> =
        named.into_iter().filter_map(|(name, table)| Some((name, Mailbox::read(table, tenants)?))).collect();
    (mailboxes.len() == count && count == 1).then_some(mailboxes)
}

impl Mailbox {
    fn read(mut table: Table<'_>, tenants: &[String]) -> Option<Self> {
        let tenant = tenant_of(&mut table, tenants);
        let address = mailbox_address(&mut table);
        let login = table.parsed::<mail::Mailbox>("login", "an address such as \"scanner@contoso.onmicrosoft.com\"");
        let connections = table.number("connections", 1, 1000).unwrap_or(3);
        let messages_per_minute = table.number("messages_per_minute", 1, 1_000_000_000).unwrap_or(30);
        let max_message_size = table.size("max_message_size", 1024, LARGEST_MESSAGE_SIZE);
        table.finish(schema::MAILBOX);
        let address = address?;
        Some(Self {
            tenant: tenant?,
            login: login.unwrap_or_else(|| address.clone()).to_string(),
            address,
            connections,
            messages_per_minute,
            max_message_size: max_message_size.unwrap_or(DEFAULT_MESSAGE_SIZE),
        })
    }
}

fn tenant_of(table: &mut Table<'_>, tenants: &[String]) -> Option<String> {
    match table.text("tenant") {
        Some((name, _)) if tenants.contains(&name) => Some(name),
        Some((name, found)) => {
            table.wrong(&found, format!("there is no [tenant.{name}]; there is {}", tenants.join(", ")));
            None
        }
        None if tenants.len() == 1 => tenants.first().cloned(),
        None => {
            table.mistake("tenant", "is missing; it may be left out only when there is one tenant");
            None
        }
    }
}

fn mailbox_address(table: &mut Table<'_>) -> Option<mail::Mailbox> {
    let (text, found) = table.required("address")?;
    if text.starts_with("*@") {
        table.wrong(&found, "wildcard mailboxes are not built yet in this release");
        return None;
    }
    let address = text.parse().ok();
    if address.is_none() {
        table.wrong(&found, format!("{text:?} is not an address such as \"scanner@contoso.com\""));
    }
    address
}

impl Spool {
    fn read(mut table: Table<'_>) -> Self {
        let directory = path(&mut table, "directory");
        let max_messages = table.number::<u32>("max_messages", 1, u32::MAX);
        let max_bytes = table.size("max_bytes", MIB, 1 << 50);
        let min_free_bytes = table.size("min_free_bytes", 0, 1 << 50);
        table.finish(schema::SPOOL);
        Self {
            directory: directory.unwrap_or_else(default_directory),
            max_messages: max_messages.map_or(1_000_000, u64::from),
            max_bytes: max_bytes.unwrap_or(20 * GIB),
            min_free_bytes: min_free_bytes.unwrap_or(500 * MIB),
        }
    }
}

/// `$STATE_DIRECTORY` (systemd; the first of several), else `$XDG_STATE_HOME/xoauth2-relay`, else the service's place.
fn default_directory() -> PathBuf {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let systemd = variable("STATE_DIRECTORY").and_then(|list| list.split(':').next().map(PathBuf::from));
    let own = || variable("XDG_STATE_HOME").map(|home| PathBuf::from(home).join("xoauth2-relay"));
    systemd.or_else(own).unwrap_or_else(|| PathBuf::from("/var/lib/xoauth2-relay"))
}

impl Http {
    fn read(mut table: Table<'_>) -> Self {
        let default = Some(SocketAddr::from(([127, 0, 0, 1], 9525)));
        let address = match table.text("address") {
            None => default,
            Some((text, _)) if text.is_empty() => None,
            Some((text, found)) => {
                let address = text.parse().ok();
                if address.is_none() {
                    table.wrong(
                        &found,
                        format!("{text:?} is not an address with a port such as \"127.0.0.1:9525\", nor \"\" for none"),
                    );
                }
                address
            }
        };
        table.finish(schema::HTTP);
        Self { address }
    }
}

impl Log {
    fn read(mut table: Table<'_>) -> Self {
        let formats = [("auto", LogFormat::Auto), ("json", LogFormat::Json), ("text", LogFormat::Text)];
        let format = table.choice("format", &formats, &["journald"]).unwrap_or(LogFormat::Auto);
        let level = table.choice("level", &LEVELS, &[]).unwrap_or(tracing::Level::INFO);
        table.finish(schema::LOG);
        Self { format, level }
    }
}

const LEVELS: [(&str, tracing::Level); 5] = [
    ("error", tracing::Level::ERROR),
    ("warn", tracing::Level::WARN),
    ("info", tracing::Level::INFO),
    ("debug", tracing::Level::DEBUG),
    ("trace", tracing::Level::TRACE),
];

impl Shutdown {
    fn read(mut table: Table<'_>) -> Self {
        let grace = table.duration("grace", Duration::from_secs(1), Duration::from_mins(10));
        table.finish(schema::SHUTDOWN);
        Self { grace: grace.unwrap_or(Duration::from_secs(8)) }
    }
}

/// The effective configuration as TOML, defaults included. It holds where secrets are and never what they are.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "hostname = {:?}", self.hostname)?;
        for (name, listener) in &self.listeners {
            write!(f, "\n[listener.{name}]\n{listener}")?;
        }
        for (name, tenant) in &self.tenants {
            write!(f, "\n[tenant.{name}]\n{tenant}")?;
        }
        for (name, mailbox) in &self.mailboxes {
            write!(f, "\n[mailbox.{name}]\n{mailbox}")?;
        }
        let Spool { directory, max_messages, max_bytes, min_free_bytes } = &self.spool;
        writeln!(f, "\n[spool]\ndirectory = {:?}\nmax_messages = {max_messages}", directory.display().to_string())?;
        writeln!(f, "max_bytes = {:?}\nmin_free_bytes = {:?}", octets(*max_bytes), octets(*min_free_bytes))?;
        let http = self.http.address.map(|address| address.to_string()).unwrap_or_default();
        writeln!(f, "\n[http]\naddress = {http:?}")?;
        let format = format!("{:?}", self.log.format).to_lowercase();
        writeln!(f, "\n[log]\nformat = {format:?}\nlevel = {:?}", self.log.level.to_string().to_lowercase())?;
        writeln!(f, "\n[shutdown]\ngrace = \"{}s\"", self.shutdown.grace.as_secs())
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<_> = self.networks.iter().map(|network| format!("\"{network}\"")).collect();
        writeln!(f, "address = \"{}\"\nnetworks = [{}]", self.address, networks.join(", "))?;
        writeln!(f, "authentication = \"none\"\ntls = \"none\"\ndelivery = \"queue\"")?;
        writeln!(
            f,
            "max_message_size = {:?}\nmax_recipients = {}",
            octets(self.max_message_size),
            self.max_recipients
        )?;
        writeln!(f, "max_connections = {}", self.max_connections)?;
        writeln!(f, "max_connections_per_client = {}", self.max_connections_per_client)
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tenant_id = {:?}\nclient_id = {:?}", self.tenant_id, self.client_id)?;
        writeln!(f, "cloud = \"global\"\ngrant = \"client-credentials\"\nclient_secret = {}", self.client_secret)?;
        writeln!(f, "authority = {:?}", self.authority.as_str())?;
        if let Some(path) = &self.authority_ca_file {
            writeln!(f, "authority_ca_file = {:?}", path.display().to_string())?;
        }
        let SmtpEndpoint { host, port, ca_file } = &self.smtp;
        let ca_file = ca_file.as_ref().map(|path| format!(", ca_file = {:?}", path.display().to_string()));
        writeln!(f, "scope = {:?}", self.scope)?;
        writeln!(f, "smtp = {{ host = {host:?}, port = {port}{} }}", ca_file.unwrap_or_default())?;
        writeln!(f, "address_family = {:?}", format!("{:?}", self.address_family).to_lowercase())
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "tenant = {:?}\naddress = {:?}", self.tenant, self.address.to_string())?;
        writeln!(f, "login = {:?}\nconnections = {}", self.login, self.connections)?;
        writeln!(f, "messages_per_minute = {}", self.messages_per_minute)?;
        writeln!(f, "max_message_size = {:?}", octets(self.max_message_size))
    }
}

/// As it is written in the configuration.
impl fmt::Display for SecretReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{{ file = {:?} }}", path.display().to_string()),
            Self::Environment(name) => write!(f, "{{ env = {name:?} }}"),
            Self::SystemdCredential(name) => write!(f, "{{ systemd_credential = {name:?} }}"),
        }
    }
}
