//! HTTP proxies that tunnel by CONNECT: their URLs, with user and password from the environment alone, and the one that the
//! environment names for what a tenant asks. Nobody else reads `HTTPS_PROXY`.

use std::fmt;
use std::net::IpAddr;

use config::ValueKind;
use forwarder::Authorization;
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;
use serde_json::Value as Json;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::identity::{plain_url, written};
use super::layers::{PREFIX, VARIABLE};
use super::mistake::Mistake;
use super::reading::{Reading, Table};
#[cfg(test)]
use super::sample::Chance;
use super::schema::{Allowed, Shape};
use super::settings::Settings;
use super::value::{Value, Wrong, kind_name};

/// How a proxy is written.
const ALLOWED: &str = "a URL such as \"http://proxy:3128\"";

/// An HTTP proxy. Shown and printed, it is without user and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl {
    /// Without them.
    url: Url,
    login: Option<Login>,
}

/// What a proxy wants to know of us; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
struct Login {
    user: Zeroizing<String>,
    password: Zeroizing<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(redacted)")
    }
}

impl ProxyUrl {
    /// From its text. What is wrong is told without it, since it may hold a password.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("this is not {ALLOWED}");
        let mut url = Url::parse(text).map_err(|_| wrong())?;
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, Some(password)) => Some(Login::decode(user, password).ok_or_else(wrong)?),
            (_, None) => return Err("has a user without a password; write both, as in user:password@, or none".into()),
        };
        // Neither fails where there is a host.
        if url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(wrong());
        }
        match plain_url(url.as_str(), "http") {
            Ok(url) if url.path() == "/" && url.fragment().is_none() => Ok(Self { url, login }),
            Err(Wrong::Because(why)) => Err(why),
            _ => Err(wrong()),
        }
    }

    /// The same for what a variable that is not ours holds: there the scheme may be left out.
    fn parse_lenient(text: &str) -> Result<Self, String> {
        if text.contains("://") { Self::parse(text) } else { Self::parse(&Zeroizing::new(format!("http://{text}"))) }
    }

    /// Its address, if it has no name.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Domain(_) => None,
            Host::Ipv4(ip) => Some(ip.into()),
            Host::Ipv6(ip) => Some(ip.into()),
        }
    }

    /// For SMTP connections.
    pub(crate) fn for_smtp(&self) -> forwarder::Proxy {
        let host = self.ip().map(|ip| ip.to_string());
        forwarder::Proxy {
            host: host.or_else(|| self.url.host_str().map(ToOwned::to_owned)).unwrap_or_default(),
            port: self.url.port_or_known_default().unwrap_or(80),
            authorization: self.login.as_ref().map(|login| Authorization::basic(&login.user, &login.password)),
        }
    }

    /// For requests by HTTPS.
    pub(crate) fn for_https(&self) -> reqwest::Proxy {
        let proxy = reqwest::Proxy::https(self.url.clone()).expect("a URL with scheme and host is one of a proxy");
        match &self.login {
            Some(login) => proxy.basic_auth(&login.user, &login.password),
            None => proxy,
        }
    }
}

impl Login {
    /// From the parts of a URL; none where Basic could not send them (RFC 7617 section 2).
    fn decode(user: &str, password: &str) -> Option<Self> {
        let decode = |part: &str| {
            let text = Zeroizing::new(percent_decode_str(part).decode_utf8().ok()?.into_owned());
            (!text.chars().any(char::is_control)).then_some(text)
        };
        let login = Self { user: decode(user)?, password: decode(password)? };
        (!login.user.is_empty() && !login.user.contains(':')).then_some(login)
    }
}

/// As errors name it.
impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

impl Value for ProxyUrl {
    fn shape() -> Shape {
        Shape::Scalar(Allowed { text: ALLOWED.to_owned(), words: &[] })
    }

    fn read(table: &mut Table<'_>, key: &str) -> Option<Self> {
        let found = table.take(key)?;
        let parsed = match &found.raw.kind {
            ValueKind::String(text) => Self::parse(text),
            other => Err(format!("must be {ALLOWED}, in quotes, not {}", kind_name(other))),
        };
        match parsed {
            // As with every secret: the file can be read by whoever may know how mail goes, and is shown around.
            Ok(Self { login: Some(_), .. }) if !found.is_from_environment() => {
                let variable = format!("{PREFIX}{}", table.path_of(key).to_ascii_uppercase().replace('.', "__"));
                table.wrong(
                    &found,
                    format!("must hold no user and password; give the whole URL in the environment, as {variable}"),
                );
                None
            }
            parsed => parsed.map_err(|text| table.wrong(&found, text)).ok(),
        }
    }

    fn json(&self) -> Json {
        written(&self.url)
    }

    #[cfg(test)]
    fn sample(chance: &mut Chance) -> Json {
        Json::String(format!("http://proxy:{}", chance.between(1024, 65535)))
    }
}

/// Gives each tenant without `https_proxy` the one of `HTTPS_PROXY`, unless `NO_PROXY` names its authority's host.
pub(crate) fn take_from_environment(settings: &mut Settings, variables: &[(String, String)], reading: &Reading<'_>) {
    let Some((variable, text)) = first(variables, ["HTTPS_PROXY", "https_proxy"]) else { return };
    let excluded = first(variables, ["NO_PROXY", "no_proxy"]).map_or("", |(_, hosts)| hosts);
    let origin = format!("{VARIABLE}{variable}");
    for (name, tenant) in &mut settings.tenants {
        let path = format!("tenant.{name}.https_proxy");
        if reading.is_given(&path) || is_excluded(&tenant.authority.0, excluded) {
            continue;
        }
        match ProxyUrl::parse_lenient(text) {
            Ok(proxy) => {
                tenant.https_proxy = Some(proxy);
                reading.note_origin(path, origin.clone());
            }
            Err(why) => {
                let host = tenant.authority.0.host_str().unwrap_or_default();
                let text = format!("{why}; or name {host} in NO_PROXY, or set the key itself");
                reading.mistakes.add(Mistake { origin: origin.clone(), key: path, text });
            }
        }
    }
}

/// The first that is set and not empty.
fn first<'a>(variables: &'a [(String, String)], names: [&'static str; 2]) -> Option<(&'static str, &'a str)> {
    names.into_iter().find_map(|wanted| {
        let (_, value) = variables.iter().find(|(name, value)| name == wanted && !value.trim().is_empty())?;
        Some((wanted, value.trim()))
    })
}

/// Whether a list as in `NO_PROXY` names the host of `url`: domains with all below them, addresses, networks, or `*`.
fn is_excluded(url: &Url, list: &str) -> bool {
    let Ok(uri) = url.as_str().parse::<hyper::Uri>() else { return false };
    Matcher::builder().all("http://any").no(list).build().intercept(&uri).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_proxies() {
        for (text, shown, login) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("http://proxy", "http://proxy", None),
            ("http://[::1]:3128/", "http://[::1]:3128", None),
            ("http://relay:hunter2@10.0.0.1:3128", "http://10.0.0.1:3128", Some(("relay", "hunter2"))),
            ("http://do%5Crelay:h%40unter%3A2@proxy:8080", "http://proxy:8080", Some(("do\\relay", "h@unter:2"))),
            ("http://relay:@proxy:8080", "http://proxy:8080", Some(("relay", ""))),
        ] {
            match (ProxyUrl::parse(text), login) {
                // A URL does not tell an empty password from none.
                (Err(why), Some((_, ""))) => assert!(why.contains("without a password"), "{why}"),
                (proxy, login) => {
                    let proxy = proxy.unwrap();
                    let found = proxy.login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()));
                    assert_eq!((proxy.to_string().as_str(), found), (shown, login), "{text}");
                    let printed = format!("{proxy:?}{}{:?}", Value::json(&proxy), proxy.for_smtp());
                    assert!(!printed.contains("unter"), "{printed}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_url_of_a_proxy_is_not_repeated() {
        for text in [
            "proxy:3128",
            "https://proxy",
            "socks5://proxy",
            "http://u:hunter2 w@p:99999",
            "http://u:hunter2@",
            "http://u:hunter2@proxy/path",
            "http://u:hunter2@proxy?x=1",
            "http://u:hunter2@proxy#x",
            "http://u%3Aer:hunter2@proxy",
            "http://user:hunter2%0A@proxy",
            "http://hunter2@proxy",
            "",
        ] {
            let why = ProxyUrl::parse(text).unwrap_err();
            assert!(!why.contains("hunter2"), "{text}: {why}");
        }
    }

    #[test]
    fn where_the_forwarder_connects_to() {
        for (text, host, port) in
            [("http://proxy", "proxy", 80), ("http://[::1]:3128", "::1", 3128), ("http://10.0.0.1:80", "10.0.0.1", 80)]
        {
            let proxy = ProxyUrl::parse(text).unwrap().for_smtp();
            assert_eq!((proxy.host.as_str(), proxy.port), (host, port), "{text}");
        }
    }

    #[test]
    fn lists_of_hosts_without_proxy() {
        let url = Url::parse("https://login.microsoftonline.com").unwrap();
        for (list, excluded) in [
            ("", false),
            ("*", true),
            ("localhost, login.microsoftonline.com", true),
            (".microsoftonline.com", true),
            ("microsoftonline.com", true),
            ("online.com", false),
            ("login.microsoftonline.com.evil", false),
        ] {
            assert_eq!(is_excluded(&url, list), excluded, "{list}");
        }
        assert!(is_excluded(&Url::parse("https://10.1.2.3:8443/entra").unwrap(), "10.0.0.0/8"));
    }
}
