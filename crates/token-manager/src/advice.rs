//! One line for an administrator for each AADSTS code we know (facts 4.6), else for each class.
//!
//! Only words: nothing decides by these codes.

use crate::failure::FailureClass;

/// What to do, by the first code that the table knows, else by the class.
pub(crate) fn advice(class: FailureClass, codes: &[u32]) -> &'static str {
    codes.iter().find_map(|code| by_code(*code)).unwrap_or_else(|| by_class(class))
}

/// What to do about the first code that `text` names, as in `access_denied: AADSTS65004: ...`; none if the table does not know
/// it. For what comes back by a browser, where there is nothing but a text.
pub fn code_advice(text: &str) -> Option<&'static str> {
    let (_, rest) = text.split_once("AADSTS")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    by_code(digits.parse().ok()?)
}

fn by_code(code: u32) -> Option<&'static str> {
    TABLE.iter().find(|(codes, _)| codes.contains(&code)).map(|(_, advice)| *advice)
}

fn by_class(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Transient => {
            "nothing to do if it passes; else check DNS, firewall and proxy from this machine to the token endpoint on port 443, and Microsoft's service health"
        }
        FailureClass::Throttled => {
            "nothing to do if it passes; else find what else requests tokens with this client id"
        }
        FailureClass::Credential => {
            "check the credential of this tenant: that it can be read, belongs to this client id and has not expired"
        }
        FailureClass::Configuration => {
            "check tenant_id, client_id, cloud and scope of this tenant against the app registration"
        }
        FailureClass::Consent => "have an administrator of the tenant grant consent to the application",
        FailureClass::Grant => {
            "sign in again with `xoauth2-relay login`; for client credentials look the code up at https://login.microsoftonline.com/error"
        }
        FailureClass::Policy => {
            "look at the Entra sign-in log for the policy that blocked it, and exclude this application or user"
        }
        FailureClass::Unexpected => {
            "this was no answer of Entra ID: check the authority, and whether a proxy or captive portal stands between"
        }
    }
}

const NOT_IN_TENANT: &str = "the application is not in this tenant: check client_id and tenant_id (both on the Overview of the app registration) and cloud";
const SERVICE_FAULT: &str =
    "a fault at Microsoft, nothing to do here; if it lasts, look at the Microsoft 365 service health";
const SUPPORT: &str =
    "an internal failure at Microsoft; if it lasts, open a ticket with the trace id and correlation id";

const TABLE: &[(&[u32], &str)] = &[
    (
        &[7_000_215],
        "the client secret is wrong: paste the secret's Value, not its Secret ID, and check that it belongs to this client_id",
    ),
    (&[7_000_222], "the client secret has expired: create a new one in the app registration, or use a certificate"),
    (
        &[700_027],
        "Entra ID does not know the certificate: upload its public part to this app registration, then wait a few minutes",
    ),
    (
        &[700_024],
        "the assertion is outside its time window: set this machine's clock right (NTP), and see that the file of a federated token is renewed in time",
    ),
    (
        &[50_012],
        "the certificate or assertion was not accepted: check the certificate, its thumbprint and the tenant's policy for application credentials",
    ),
    (&[700_016], NOT_IN_TENANT),
    (&[700_011], NOT_IN_TENANT),
    (&[7_000_112, 70_001], "the application is disabled in this tenant: enable it under Enterprise applications"),
    (
        &[7_000_218],
        "no credential was sent: configure one, or for `xoauth2-relay login` turn on \"Allow public client flows\" in the app registration",
    ),
    (&[700_025], "the application is a public client: remove the client secret from this tenant's configuration"),
    (
        &[90_002],
        "Entra ID does not know this tenant: check tenant_id, and cloud if the tenant is not in the worldwide one",
    ),
    (&[90_038], "the tenant is in another national cloud: change the cloud setting of this tenant"),
    (&[900_144], "the request lacked a parameter: this is a bug of the relay, please report it"),
    (
        &[70_011, 28_002],
        "the scope is wrong: for client credentials it is https://outlook.office365.com/.default in the worldwide cloud",
    ),
    (&[500_011], "this tenant has no Exchange Online, or the scope is that of another cloud"),
    (
        &[650_052, 65_005],
        "the organisation has not enabled the service that the application asks for: assign a licence, or correct the application's permissions",
    ),
    (&[65_001], "nobody consented to the application: have an administrator of the tenant grant admin consent"),
    (&[90_094], "an administrator must consent: have one grant admin consent to the application"),
    (&[50_034], "the user is not in this tenant: check the user name and tenant_id"),
    (&[50_126, 50_056], "the user's password is wrong or missing: use another grant than a password"),
    (&[50_053], "the account is locked or its address is blocked: unblock the user and look at the Entra sign-in log"),
    (
        &[50_055, 50_057, 50_144],
        "the user's password has expired or the user is disabled: reset the password or enable the user",
    ),
    (
        &[50_076, 50_079, 50_074, 50_078, 50_072],
        "multi-factor authentication is wanted: sign in again with `xoauth2-relay login`",
    ),
    (
        &[50_158, 50_097, 53_000, 53_001, 530_032],
        "a policy wants a device or an external check: exclude the service user, or use client credentials",
    ),
    (
        &[53_003],
        "Conditional Access blocked it: allow this user or workload identity, and this machine's address, in the policy",
    ),
    (&[530_035], "security defaults blocked it: use OAuth client credentials, or adjust the security defaults"),
    (
        &[70_043],
        "the sign-in frequency has been reached: sign in again with `xoauth2-relay login`, and exempt the account from that policy",
    ),
    (&[70_008, 700_082], "the refresh token expired after long disuse: sign in again with `xoauth2-relay login`"),
    (
        &[50_173, 50_133, 50_132],
        "the sign-in was revoked, as after a change of password: sign in again with `xoauth2-relay login`",
    ),
    (&[54_005], "the sign-in code was used before: start `xoauth2-relay login` again"),
    (&[9_001_023, 50_194], "`common` is not allowed here: set tenant_id to the tenant's own id"),
    (
        &[700_211, 700_212, 700_213],
        "no federated credential of the app registration fits the token: compare its issuer, subject and audience letter by letter",
    ),
    (&[700_229], "a user's token was used as federated credential: only an application's token is allowed"),
    (&[70_016], "the sign-in has not been finished yet: enter the code that `xoauth2-relay login` shows"),
    (&[70_018, 70_019], "the sign-in code is wrong or has expired: start `xoauth2-relay login` again"),
    (
        &[50_196],
        "Entra ID sees a loop of like requests: the relay waits; find what else requests tokens with this client id",
    ),
    (
        &[90_055],
        "the tenant is throttled at Microsoft: the relay backs off; look for other applications that request many tokens",
    ),
    (&[90_033, 90_006, 90_012, 90_024, 90_090, 50_033, 50_087, 70_012, 40_010, 80_002, 80_014], SERVICE_FAULT),
    (&[50_000, 90_036], SUPPORT),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code of facts/exchange-online.md section 4.6, and those of federated credentials, with words that only their remedy
    /// has.
    const KNOWN: &[(&[u32], &str)] = &[
        (&[7_000_215], "paste the secret's Value"),
        (&[7_000_222], "secret has expired"),
        (&[700_027], "upload its public part"),
        (&[700_024], "set this machine's clock right"),
        (&[50_012], "thumbprint"),
        (&[700_016, 700_011], "not in this tenant: check client_id"),
        (&[7_000_112, 70_001], "enable it under Enterprise applications"),
        (&[7_000_218], "Allow public client flows"),
        (&[700_025], "remove the client secret"),
        (&[90_002], "does not know this tenant"),
        (&[90_038], "another national cloud"),
        (&[900_144], "bug of the relay"),
        (&[70_011, 28_002], "the scope is wrong"),
        (&[500_011], "no Exchange Online"),
        (&[650_052, 65_005], "assign a licence"),
        (&[65_001, 90_094], "grant admin consent"),
        (&[50_034], "user is not in this tenant"),
        (&[50_126, 50_056], "another grant than a password"),
        (&[50_053], "unblock the user"),
        (&[50_055, 50_057, 50_144], "reset the password or enable the user"),
        (&[50_076, 50_079, 50_074, 50_078, 50_072], "multi-factor"),
        (&[50_158, 50_097, 53_000, 53_001, 530_032], "exclude the service user"),
        (&[53_003], "Conditional Access"),
        (&[530_035], "security defaults"),
        (&[70_043], "sign-in frequency"),
        (&[70_008, 700_082], "expired after long disuse"),
        (&[50_173, 50_133, 50_132], "sign-in was revoked"),
        (&[54_005], "code was used before"),
        (&[9_001_023, 50_194], "tenant's own id"),
        (&[700_211, 700_212, 700_213], "issuer, subject and audience"),
        (&[700_229], "only an application's token"),
        (&[70_016], "enter the code"),
        (&[70_018, 70_019], "wrong or has expired: start"),
        (&[50_196], "loop of like requests"),
        (&[90_055], "tenant is throttled"),
        (&[90_033, 90_006, 90_012, 90_024, 90_090, 50_033, 50_087, 70_012, 40_010, 80_002, 80_014], "service health"),
        (&[50_000, 90_036], "open a ticket with the trace id"),
    ];

    #[test]
    fn every_known_code_has_one_row_of_one_line() {
        let known = || KNOWN.iter().flat_map(|(codes, _)| *codes);
        for code in known() {
            assert_eq!(TABLE.iter().filter(|(codes, _)| codes.contains(code)).count(), 1, "AADSTS{code}");
        }
        assert_eq!(TABLE.iter().map(|(codes, _)| codes.len()).sum::<usize>(), known().count());
        for (codes, advice) in TABLE {
            assert!(!advice.is_empty() && !advice.contains('\n') && advice.len() < 200, "{codes:?}");
        }
    }

    #[test]
    fn each_code_is_given_its_own_remedy_and_no_other_has_it() {
        for (codes, words) in KNOWN {
            let has_them = |code: u32| by_code(code).is_some_and(|advice| advice.contains(words));
            for (others, _) in KNOWN {
                for code in *others {
                    assert_eq!(has_them(*code), codes.contains(code), "{words}: AADSTS{code}");
                }
            }
        }
    }

    #[test]
    fn a_text_names_its_code() {
        assert_eq!(code_advice("access_denied: AADSTS53003: blocked"), by_code(53_003));
        for text in ["access_denied", "AADSTS", "AADSTS1: x", "AADSTS99999999999: x"] {
            assert_eq!(code_advice(text), None, "{text}");
        }
    }

    #[test]
    fn the_first_known_code_speaks_and_else_the_class() {
        assert!(advice(FailureClass::Credential, &[1, 7_000_222, 50_000]).contains("expired"));
        assert_eq!(advice(FailureClass::Consent, &[1]), by_class(FailureClass::Consent));
        assert_eq!(advice(FailureClass::Throttled, &[]), by_class(FailureClass::Throttled));
    }
}
