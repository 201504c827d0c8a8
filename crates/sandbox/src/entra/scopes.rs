//! Delegated scopes: what a person is asked to allow (facts 4.1). App-only requests have one scope, which is `token`'s.

use super::EntraError;
use crate::token::{EXCHANGE_AUDIENCE, GRAPH_AUDIENCE, OUTLOOK_AUDIENCE};

/// Resources and the delegated permissions that the sandbox knows of them.
const RESOURCES: &[(&str, &[&str])] =
    &[(OUTLOOK_AUDIENCE, EXCHANGE_SCOPES), (EXCHANGE_AUDIENCE, EXCHANGE_SCOPES), (GRAPH_AUDIENCE, GRAPH_SCOPES)];
const EXCHANGE_SCOPES: &[&str] = &["SMTP.Send", "IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "Mail.Send"];
const GRAPH_SCOPES: &[&str] = &["SMTP.Send", "IMAP.AccessAsUser.All", "POP.AccessAsUser.All", "Mail.Send", "User.Read"];

/// The scopes that belong to no resource, in the order in which Entra tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// An ID token is wanted.
    OpenId,
    /// With the user's name in it.
    Profile,
    /// With his address.
    Email,
    /// A refresh token is wanted.
    OfflineAccess,
}

const DETAILS: &[(&str, Detail)] = &[
    ("openid", Detail::OpenId),
    ("profile", Detail::Profile),
    ("email", Detail::Email),
    ("offline_access", Detail::OfflineAccess),
];

/// The scopes of one request: those of one resource, and those that belong to none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes {
    /// The resource, if one was named.
    resource: Option<&'static str>,
    /// Permissions without their prefix, in the order of the request.
    permissions: Vec<&'static str>,
    details: Vec<Detail>,
}

impl Scopes {
    /// Scopes apart by spaces. An unknown one is refused, as is what only an application can have; so are those of two
    /// resources. A permission without a resource is Graph's.
    pub(crate) fn parse(text: &str) -> Result<Self, EntraError> {
        let mut scopes = Self::default();
        for scope in text.split(' ').filter(|scope| !scope.is_empty()) {
            if let Some(&(_, detail)) = DETAILS.iter().find(|&&(name, _)| name == scope) {
                scopes.details.push(detail);
                continue;
            }
            let refusal = |is_second| if is_second { two_resources() } else { EntraError::bad_scope(text) };
            scopes.add(scope).map_err(refusal)?;
        }
        if scopes == Self::default() { Err(EntraError::missing("scope")) } else { Ok(scopes) }
    }

    pub(crate) fn has(&self, detail: Detail) -> bool {
        self.details.contains(&detail)
    }

    /// Fails with true for a second resource, with false for an unknown scope.
    fn add(&mut self, scope: &str) -> Result<(), bool> {
        let (resource, name) = scope.rsplit_once('/').unwrap_or((GRAPH_AUDIENCE, scope));
        let &(resource, known) = RESOURCES.iter().find(|&&(known, _)| known == resource).ok_or(false)?;
        let &name = known.iter().find(|&&known| known == name).ok_or(false)?;
        if self.resource.is_some_and(|other| other != resource) {
            return Err(true);
        }
        self.resource = Some(resource);
        if !self.permissions.contains(&name) {
            self.permissions.push(name);
        }
        Ok(())
    }

    /// `aud` of the access token: Graph's when no resource was named.
    pub(crate) fn audience(&self) -> &'static str {
        self.resource.unwrap_or(GRAPH_AUDIENCE)
    }

    /// The claim `scp`.
    pub(crate) fn scp(&self) -> String {
        if self.permissions.is_empty() { "User.Read".to_owned() } else { self.permissions.join(" ") }
    }

    /// `scope` in the answer: what was granted, without `offline_access`.
    pub(crate) fn granted(&self) -> String {
        let audience = self.audience();
        let permissions = self.permissions.iter().map(|name| format!("{audience}/{name}"));
        let told = DETAILS.iter().filter(|&&(_, detail)| detail != Detail::OfflineAccess && self.has(detail));
        permissions.chain(told.map(|&(name, _)| name.to_owned())).collect::<Vec<_>>().join(" ")
    }

    /// Forgets what `allowed` has not: they cannot be had later without asking the user.
    pub(crate) fn keep_details_of(&mut self, allowed: &Self) {
        self.details.retain(|&detail| allowed.has(detail));
    }

    /// True if whoever allowed `self` allowed `asked` with it.
    pub(crate) fn cover(&self, asked: &Self) -> bool {
        (asked.resource.is_none() || asked.resource == self.resource)
            && asked.permissions.iter().all(|name| self.permissions.contains(name))
    }
}

fn two_resources() -> EntraError {
    let text = "The provided value for the input parameter 'scope' is not valid because it contains more than one \
                resource.";
    EntraError::new(400, "invalid_scope", 700_022, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::SMTP_SEND_SCOPES;

    #[test]
    fn scopes_are_of_one_resource_and_known() {
        let code = |text: &str| Scopes::parse(text).err().map(|error| (error.error, error.code));
        let bad = |error: &str, code| Some((error.to_owned(), code));
        let (wrong, two) = (bad("invalid_scope", 70_011), bad("invalid_scope", 700_022));
        for (text, expected) in [
            (SMTP_SEND_SCOPES, None),
            ("https://outlook.office365.com/SMTP.Send", None),
            ("https://outlook.office.com/SMTP.Send  https://outlook.office.com/IMAP.AccessAsUser.All", None),
            ("openid", None),
            ("SMTP.Send offline_access", None),
            ("", bad("invalid_request", 900_144)),
            (" ", bad("invalid_request", 900_144)),
            ("https://outlook.office.com/SMTP.SendAsApp", wrong.clone()),
            ("https://outlook.office.com/.default", wrong.clone()),
            ("https://outlook.office.com/smtp.send", wrong.clone()),
            ("https://example.com/SMTP.Send", wrong.clone()),
            ("https://outlook.office.com//SMTP.Send", wrong),
            ("https://outlook.office.com/SMTP.Send https://graph.microsoft.com/User.Read", two.clone()),
            ("https://outlook.office.com/SMTP.Send https://outlook.office365.com/SMTP.Send", two.clone()),
            ("https://outlook.office.com/SMTP.Send User.Read", two),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn what_was_granted_is_told_without_offline_access() {
        let scopes = Scopes::parse(SMTP_SEND_SCOPES).unwrap();
        assert_eq!(scopes.granted(), "https://outlook.office.com/SMTP.Send openid profile email");
        assert_eq!((scopes.scp().as_str(), scopes.audience()), ("SMTP.Send", OUTLOOK_AUDIENCE));
        assert!(scopes.has(Detail::OfflineAccess));
        let graph = Scopes::parse("SMTP.Send").unwrap();
        assert_eq!(graph.audience(), GRAPH_AUDIENCE);
        assert!(!scopes.cover(&graph) && scopes.cover(&Scopes::parse("openid").unwrap()));
    }
}
