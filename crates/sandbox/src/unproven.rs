//! What nobody has proven against a real tenant: every statement that the fact sheet marks U, its open questions, and
//! where the record is silent and the sandbox had to choose. For each, the reading that the sandbox takes. A list to
//! read before believing that what works here works out there.

use std::fmt;

use crate::catalogue;

/// A statement that is not proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statement {
    /// The section of the fact sheet; `silent` where it says nothing at all.
    pub facts: &'static str,
    /// What is not proven.
    pub what: &'static str,
    /// What the sandbox does; `None` if it does not imitate it.
    pub reading: Option<&'static str>,
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.facts {
            "silent" => write!(f, "not on record: {}", self.what)?,
            section => write!(f, "facts {section}: {}", self.what)?,
        }
        write!(f, "\n    {}", self.reading.unwrap_or("not imitated"))
    }
}

const fn taken(facts: &'static str, what: &'static str, reading: &'static str) -> Statement {
    Statement { facts, what, reading: Some(reading) }
}

const fn not_imitated(facts: &'static str, what: &'static str) -> Statement {
    Statement { facts, what, reading: None }
}

const STATEMENTS: &[Statement] = &[
    taken(
        "0.10",
        "refusals after a 250 come later as bounce mail, not on the wire",
        "a 250 is final; no bounce is ever made, and rows known as bounces are offered behind the \
         dot",
    ),
    not_imitated("1.1", "the host of DoD tenants"),
    taken(
        "1.3",
        "Entra tokens have 1.3 to 3.5 kB, and the AUTH line exceeds 512 octets",
        "tokens have 1.5 to 2 kB; AUTH lines and responses up to 12,288 octets are taken, other \
         lines up to 2,048",
    ),
    taken("1.4", "the prompts of AUTH LOGIN", "334 VXNlcm5hbWU6 and 334 UGFzc3dvcmQ6, then every password is refused"),
    taken("1.4", "the replies to RSET and NOOP", "250 2.0.0 Resetting and 250 2.0.0 OK"),
    taken(
        "1.5",
        "421 4.7.0 after repeated protocol errors",
        "said after more than 5 syntax, sequence and AUTH errors, and the session is closed",
    ),
    taken("1.6", "552 5.3.4 for a message over 150 MiB", "said at MAIL when SIZE= announces it, else behind the dot"),
    taken(
        "1.7",
        "421 4.4.1 or 421 4.4.2 to an idle or long session",
        "421 4.4.1 after 5 idle minutes or 20 minutes in all; 4.4.2 only as the row \
         session-timeout-4-4-2",
    ),
    taken("1.7", "whether NOTIFY is honoured", "DSN parameters are checked, taken and shown; no notification is made"),
    taken("2", "MaxSendSize is 35 MB by default", "35 MiB of content as sent, told behind the dot"),
    taken("4.1", "outlook.office.com/.default as the scope of app-only SMTP", "refused with AADSTS70011"),
    taken(
        "4.3",
        "RS256 with x5t stays accepted for certificate assertions",
        "it is, and PS256 with x5t#S256; other pairs of algorithm and thumbprint are refused with AADSTS50012",
    ),
    taken(
        "4.3",
        "AADSTS700024 for an assertion outside its time",
        "said outside nbf and exp with 5 minutes of patience with clocks",
    ),
    taken(
        "4.4",
        "a managed identity straight to SMTP",
        "the metadata service gives the token, and AUTH refuses it with 535 5.7.3",
    ),
    taken("4.6", "AADSTS700024 is invalid_client with 401", "the row token-700024 says so"),
    taken(
        "4.6",
        "AADSTS53003 is access_denied or invalid_grant with 400",
        "rows for both: token-53003 and token-53003-invalid-grant",
    ),
    taken(
        "4.6",
        "the `error` values of most codes, and their HTTP status where none is given",
        "invalid_client with 401, other refusals with 400, faults of the service with 500 or 503",
    ),
    taken("5.3", "the effect of security defaults on app-only SMTP", "none; only the row security-defaults"),
    taken(
        "5.4",
        "AADSTS1002012 for the scope SMTP.Send with client_credentials",
        "AADSTS70011, as for every other unknown scope",
    ),
    not_imitated("6", "the host of Graph in China"),
    not_imitated("6", "the exact cap of a sendMail request"),
    not_imitated("6", "which headers Graph loses"),
    not_imitated("7", "Gmail's token endpoint"),
    not_imitated("7", "OAUTHBEARER at Gmail"),
    not_imitated("7", "the lifetime of a token of a Workspace service account"),
    not_imitated("7", "the hosts of Yahoo and AOL"),
    not_imitated("7", "the host of Fastmail"),
    taken("8b.1", "the reply to an expired token and to a token of another tenant", "535 5.7.3, as for everything"),
    taken(
        "8b.2",
        "what happens beyond 30 messages a minute",
        "421 4.4.2 at MAIL and the end of the connection; `rate delay` for the other reading",
    ),
    taken("8b.3", "at which stage 432 comes", "behind the dot"),
    taken("8b.4", "the idle and total limits of a session", "5 and 20 minutes"),
    taken("8b.6", "outlook.office.com/.default for SMTP", "see 4.1"),
    taken(
        "8b.7",
        "SendFromAlias with app-only SMTP",
        "as documented for other clients: an alias is taken, and recipients see the primary address unless the tenant shows \
         aliases; nobody logs in by an alias",
    ),
    taken("8b.9", "whether a connection survives the end of its token", "it does; the token is looked at only at AUTH"),
    taken("8b.10", "DSN and SMTPUTF8 end to end", "both are taken and shown, and nothing is sent on"),
    taken(
        "silent",
        "the order of checks at AUTH",
        "form, signature, time, audience, mailbox, tenant, application, switches, grant",
    ),
    taken(
        "silent",
        "the order of checks behind the dot",
        "connections, 150 MiB, size of the mailbox, full, SendAs, day quota",
    ),
    taken(
        "silent",
        "whether a refused message uses up the rate and the quota",
        "the rate is used at MAIL, the quota only by accepted messages",
    ),
    taken(
        "silent",
        "whether idle connections count among the three",
        "a connection counts from its login to its end; the three oldest may send",
    ),
    taken(
        "silent",
        "whether refused requests count for AADSTS50196",
        "they do, so a client in a loop stays refused until it pauses",
    ),
    taken(
        "silent",
        "the codes for a client assertion that is malformed, of a wrong issuer, subject, audience or type, or used twice",
        "AADSTS50012 with invalid_client; nbf, exp and jti are all needed",
    ),
    taken(
        "silent",
        "the codes for a federated token that matches no credential",
        "AADSTS700211, 700213 and 700212 for issuer, subject and audience, with invalid_client",
    ),
    taken(
        "silent",
        "a secret from an application that also allows public client flows",
        "refused with AADSTS700025 for every grant, client_credentials too",
    ),
    taken(
        "silent",
        "whether outlook.office.com and outlook.office365.com are one resource in a request for scopes",
        "two: AADSTS700022; both are good at AUTH",
    ),
    taken("silent", "`.default` as a delegated scope", "refused with AADSTS70011"),
    taken(
        "silent",
        "refresh tokens and codes that Entra cannot read, or of another client",
        "invalid_grant with AADSTS9002313",
    ),
    taken("silent", "a refresh token at another tenant's endpoint", "AADSTS50034: the user is not in that tenant"),
    taken(
        "silent",
        "whether use prolongs the life of the old refresh token",
        "no: each dies 90 days after it was issued, only its successor lives longer",
    ),
    taken("silent", "whether PKCE is needed by every client", "it is, with S256"),
    taken(
        "silent",
        "the code of slow_down, and of authorization_declined",
        "AADSTS70016 and AADSTS65004; slow_down adds 5 s to the interval",
    ),
    taken("silent", "where a wrong redirect URI or code verifier is told at the token endpoint", "500112 and 501481"),
    taken(
        "silent",
        "the texts of the metadata service's errors, and several identities without a client_id",
        "400 with invalid_request; X-Forwarded-For is refused, and so is any api-version but 2018-02-01",
    ),
    taken(
        "silent",
        "which user a delegate of a shared mailbox names at AUTH",
        "the mailbox, as Microsoft's text has it; `shared-login delegate` for the other reading",
    ),
    taken("silent", "whether the login outlives another EHLO", "it does; a transaction does not"),
    taken(
        "silent",
        "the replies to VRFY, HELP, bad arguments, bad sequences, long lines and bad recipients",
        "Exchange Server's well-known texts",
    ),
    taken("silent", "501 or 451 to MAIL before STARTTLS", "451 5.7.3, as the connectors say"),
    taken("silent", "a bare LF in a command", "no command: 500 5.3.3"),
    taken(
        "silent",
        "a client that sends BDAT in spite of the hang that was reported",
        "500 5.3.3, and the chunk is swallowed",
    ),
    taken("silent", "when SendAs changes are felt", "like grants: after the permission delay"),
];

/// Every statement, in the order of the facts; what they are silent on comes last.
pub fn all() -> &'static [Statement] {
    STATEMENTS
}

/// The whole list for a person, with the faults of the catalogue that are unproven in part.
pub fn list() -> String {
    let mut lines: Vec<String> = all().iter().map(Statement::to_string).collect();
    let rows = catalogue::all().filter(|row| row.unproven).map(|row| row.name);
    lines.push(format!("faults that are unproven in part:\n    {}", rows.collect::<Vec<_>>().join(" ")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each section has the mark, without the legend and the lines that repeat it.
    const MARKED: &[(&str, usize)] = &[
        ("0.10", 1),
        ("1.1", 1),
        ("1.3", 1),
        ("1.4", 2),
        ("1.5", 1),
        ("1.6", 1),
        ("1.7", 2),
        ("2", 1),
        ("4.1", 1),
        ("4.3", 2),
        ("4.4", 1),
        ("4.6", 3),
        ("5.3", 1),
        ("5.4", 1),
        ("6", 3),
        ("7", 5),
    ];

    #[test]
    fn every_mark_of_the_facts_is_listed() {
        for &(facts, count) in MARKED {
            assert_eq!(all().iter().filter(|statement| statement.facts == facts).count(), count, "{facts}");
        }
        let marked: usize = MARKED.iter().map(|&(_, count)| count).sum();
        let others = all().iter().filter(|statement| statement.facts.starts_with("8b") || statement.facts == "silent");
        assert_eq!(all().len(), marked + others.count());
    }

    #[test]
    fn the_list_says_what_is_not_imitated() {
        let list = list();
        assert!(list.contains("facts 1.1: the host of DoD tenants\n    not imitated\n"), "{list}");
        assert!(list.contains("token-53003 "), "{list}");
        assert!(!list.contains("token-7000215 "), "{list}");
    }
}
