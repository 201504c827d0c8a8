//! What names an application and its tenant at Entra: GUIDs, directories, clouds and the URLs that follow from them.

use clock::WallTime;
use serde_json::Value as Json;
use url::{Host, Url};

#[cfg(test)]
use super::sample::Chance;
use super::value::{Scalar, Wrong, choice};

/// A GUID, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guid(String);

impl Guid {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for Guid {
    fn allowed() -> String {
        "a GUID such as \"66666666-7777-8888-9999-000000000000\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let groups: Vec<_> = text.split('-').collect();
        let right = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
            && groups.iter().all(|group| group.bytes().all(|octet| octet.is_ascii_hexdigit()));
        // What stands where a GUID should may be a pasted secret.
        right.then(|| Self(text.to_ascii_lowercase())).ok_or(Wrong::Unrepeatable)
    }

    fn json(&self) -> Json {
        Json::from(self.0.as_str())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        let tail = chance.below(1 << 40);
        Json::String(format!("66666666-7777-8888-9999-{tail:012x}"))
    }
}

/// Which Entra directory: by GUID, by a verified domain, or the one of all personal accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(String);

impl Directory {
    /// As the token endpoint's URL has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is that of personal accounts, which has no application logins.
    pub fn is_consumers(&self) -> bool {
        self.0 == "consumers"
    }
}

impl Scalar for Directory {
    fn allowed() -> String {
        "a GUID or a verified domain such as \"contoso.onmicrosoft.com\" (Entra admin center, Overview, Tenant ID)"
            .to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Ok(Guid(guid)) = Guid::parse(text) {
            return Ok(Self(guid));
        }
        let domain = text.contains('.') && mail::Domain::parse(text).is_ok();
        match text {
            "common" | "organizations" => {
                Err(Wrong::Because(format!("{text:?} names no tenant; write the tenant's GUID or a verified domain")))
            }
            "consumers" => Ok(Self(text.to_owned())),
            _ if domain => Ok(Self(text.to_ascii_lowercase())),
            _ => Err(Wrong::Unrepeatable),
        }
    }

    fn json(&self) -> Json {
        Json::from(self.0.as_str())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        if chance.below(2) == 0 { Guid::sample(chance) } else { Json::String(chance.domain()) }
    }
}

choice! {
    /// Which of Microsoft's clouds a tenant lives in: it decides the authority, the scope and the SMTP host.
    pub enum Cloud {
        /// Worldwide and GCC: login.microsoftonline.com, smtp.office365.com.
        built Global = "global",
        /// US Government GCC High: login.microsoftonline.us, smtp.office365.us.
        built GccHigh = "gcc-high",
        /// US Department of Defense: login.microsoftonline.us, outlook-dod.office365.us (set `smtp` if Microsoft gave you another host).
        built Dod = "dod",
        /// 21Vianet: login.partner.microsoftonline.cn, smtp.partner.outlook.cn.
        built China = "china",
    }
}

impl Cloud {
    /// Where tokens come from.
    pub(crate) fn authority(self) -> Authority {
        let host = match self {
            Self::Global => "login.microsoftonline.com",
            Self::GccHigh | Self::Dod => "login.microsoftonline.us",
            Self::China => "login.partner.microsoftonline.cn",
        };
        Authority(Url::parse(&format!("https://{host}")).expect("https and a host name make a URL"))
    }

    /// What a token must be for.
    pub(crate) fn scope(self) -> &'static str {
        match self {
            Self::Global => "https://outlook.office365.com/.default",
            Self::GccHigh => "https://outlook.office365.us/.default",
            Self::Dod => "https://outlook-dod.office365.us/.default",
            Self::China => "https://partner.outlook.cn/.default",
        }
    }

    /// What the token of a user must be for (facts 4.1): sending mail, a refresh token, and who it is.
    pub(crate) fn delegated_scope(self) -> &'static str {
        match self {
            Self::Global => "https://outlook.office.com/SMTP.Send offline_access openid profile",
            Self::GccHigh | Self::Dod => "https://outlook.office365.us/SMTP.Send offline_access openid profile",
            Self::China => "https://partner.outlook.cn/SMTP.Send offline_access openid profile",
        }
    }

    /// What a token of a managed identity must be for to vouch for an application.
    pub(crate) fn token_exchange(self) -> &'static str {
        match self {
            Self::Global => "api://AzureADTokenExchange",
            Self::GccHigh | Self::Dod => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }

    /// Where mail goes.
    pub(crate) fn smtp_host(self) -> &'static str {
        match self {
            Self::Global => "smtp.office365.com",
            Self::GccHigh => "smtp.office365.us",
            Self::Dod => "outlook-dod.office365.us",
            Self::China => "smtp.partner.outlook.cn",
        }
    }
}

/// Where tokens come from: an `https` URL without a query; plain `http` to this machine alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority(pub Url);

impl Scalar for Authority {
    fn allowed() -> String {
        "an https URL without password and query, such as \"https://login.microsoftonline.com\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        plain_url(text, "https").or_else(|wrong| loopback_url(text).ok_or(wrong)).map(Self)
    }

    fn json(&self) -> Json {
        written(&self.0)
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("https://login.{}:{}", chance.domain(), chance.between(1024, 65535)))
    }
}

/// A plain `http` URL of this machine.
fn loopback_url(text: &str) -> Option<Url> {
    plain_url(text, "http").ok().filter(|url| match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    })
}

/// Where a managed identity is asked for its token: by plain `http`, on a link that does not leave the machine's host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataService(pub Url);

impl MetadataService {
    /// Azure's.
    pub(crate) fn azure() -> Self {
        Self(Url::parse("http://169.254.169.254").expect("http and an address make a URL"))
    }
}

impl Scalar for MetadataService {
    fn allowed() -> String {
        "\"http://169.254.169.254\", or an http URL of this machine such as \"http://127.0.0.1:8080\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let link_local = |url: &Url| matches!(url.host(), Some(Host::Ipv4(address)) if address.is_link_local());
        let url = loopback_url(text).or_else(|| plain_url(text, "http").ok().filter(link_local));
        url.map(Self).ok_or(Wrong::Unrepeatable)
    }

    fn json(&self) -> Json {
        written(&self.0)
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("http://127.0.0.1:{}", chance.between(1024, 65535)))
    }
}

/// A URL of a host, without query, and without user and password, which would be a secret in the configuration. What is
/// none is not repeated, since it may hold one.
pub(crate) fn plain_url(text: &str, scheme: &str) -> Result<Url, Wrong> {
    let url = Url::parse(text).map_err(|_| Wrong::Unrepeatable)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::Because("must hold no user and password".to_owned()));
    }
    let right = url.scheme() == scheme && url.has_host() && url.query().is_none();
    if right { Ok(url) } else { Err(Wrong::Unrepeatable) }
}

/// As it is usually written: without the slash that stands for an empty path.
pub(crate) fn written(url: &Url) -> Json {
    Json::from(url.as_str().trim_end_matches('/'))
}

/// A day: `2027-05-27`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Date(String);

impl Date {
    /// Its end, in UTC.
    pub(crate) fn end(&self) -> Option<WallTime> {
        WallTime::parse_rfc3339(&format!("{}T23:59:59Z", self.0))
    }
}

impl Scalar for Date {
    fn allowed() -> String {
        "a date such as \"2027-05-27\"".to_owned()
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let numbers: Vec<u32> = text.split('-').filter_map(|part| part.parse().ok()).collect();
        let well_formed = text.split('-').map(str::len).eq([4, 2, 2]);
        let [year, month, day] = numbers[..] else { return Err(Wrong::NotAllowed) };
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            4 | 6 | 9 | 11 => 30,
            2 => 28 + u32::from(leap),
            1..=12 => 31,
            _ => 0,
        };
        if well_formed && (1..=days).contains(&day) { Ok(Self(text.to_owned())) } else { Err(Wrong::NotAllowed) }
    }

    fn json(&self) -> Json {
        Json::from(self.0.as_str())
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!(
            "20{:02}-{:02}-{:02}",
            chance.between(26, 99),
            chance.between(1, 12),
            chance.between(1, 28)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        for text in ["11111111-2222-3333-4444-555555555555", "contoso.onmicrosoft.com", "consumers"] {
            assert_eq!(Directory::parse(text).unwrap().as_str(), text);
        }
        for text in ["common", "organizations"] {
            assert!(matches!(Directory::parse(text), Err(Wrong::Because(_))), "{text}");
        }
        for text in ["", "contoso", "11111111-2222-3333-4444-55555555555", "11111111222233334444555555555555"] {
            assert_eq!(Directory::parse(text), Err(Wrong::Unrepeatable), "{text}");
        }
    }

    #[test]
    fn dates() {
        for text in ["2027-05-27", "2028-02-29"] {
            assert!(Date::parse(text).is_ok(), "{text}");
        }
        for text in ["2027-02-29", "2027-13-01", "27-05-27", "2027-5-27", "2027-00-10", "2027-05-00", "", "2027-05-27-"]
        {
            assert!(Date::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn each_cloud_has_its_own_addresses() {
        let rows = [
            (
                Cloud::Global,
                "https://login.microsoftonline.com/",
                "https://outlook.office365.com/.default",
                "https://outlook.office.com/SMTP.Send",
                "api://AzureADTokenExchange",
                "smtp.office365.com",
            ),
            (
                Cloud::GccHigh,
                "https://login.microsoftonline.us/",
                "https://outlook.office365.us/.default",
                "https://outlook.office365.us/SMTP.Send",
                "api://AzureADTokenExchangeUSGov",
                "smtp.office365.us",
            ),
            (
                Cloud::Dod,
                "https://login.microsoftonline.us/",
                "https://outlook-dod.office365.us/.default",
                "https://outlook.office365.us/SMTP.Send",
                "api://AzureADTokenExchangeUSGov",
                "outlook-dod.office365.us",
            ),
            (
                Cloud::China,
                "https://login.partner.microsoftonline.cn/",
                "https://partner.outlook.cn/.default",
                "https://partner.outlook.cn/SMTP.Send",
                "api://AzureADTokenExchangeChina",
                "smtp.partner.outlook.cn",
            ),
        ];
        for (cloud, authority, scope, delegated, exchange, host) in rows {
            assert_eq!(cloud.authority().0.as_str(), authority, "{cloud:?}");
            assert_eq!(
                (cloud.scope(), cloud.token_exchange(), cloud.smtp_host()),
                (scope, exchange, host),
                "{cloud:?}"
            );
            // With a refresh token, and who it is.
            assert_eq!(cloud.delegated_scope(), format!("{delegated} offline_access openid profile"), "{cloud:?}");
        }
    }

    #[test]
    fn urls_hold_no_password() {
        assert!(
            matches!(Authority::parse("https://user:hunter2@x.example"), Err(Wrong::Because(text)) if !text.contains("hunter2"))
        );
        for text in
            ["http://login.example.com", "https://x/?a=b", "u:p w@x", "http://127.0.0.1.example.com", "http://10.0.0.1"]
        {
            assert_eq!(Authority::parse(text), Err(Wrong::Unrepeatable), "{text}");
        }
        for text in ["http://127.0.0.1:8080", "http://[::1]:8080/entra", "http://localhost"] {
            assert!(Authority::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn managed_identities_are_asked_on_the_machine_alone() {
        for text in ["http://169.254.169.254", "http://127.0.0.1:8080", "http://localhost:40342"] {
            assert!(MetadataService::parse(text).is_ok(), "{text}");
        }
        for text in ["https://169.254.169.254", "http://10.0.0.1", "http://metadata.example.com", "169.254.169.254"] {
            assert_eq!(MetadataService::parse(text), Err(Wrong::Unrepeatable), "{text}");
        }
    }
}
