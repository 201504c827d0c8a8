//! The text of one entry, five lines; pure.
//!
//! ```text
//! xoauth2-relay refresh token 1
//! {"tenant_id":"…","client_id":"…","mailbox":"…"}      for whoever looks
//! plain                                                 or: aes-256-gcm SALT NONCE
//! the grant as JSON, encrypted or not, in base64
//! sha256 of all that stands before, in hexadecimal digits
//! ```
//!
//! Encrypted, the first three lines are part of what the tag vouches for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clock::WallTime;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::seal::{Salts, TAG, seal, unseal};
use super::{RefusedGrant, StoredGrant, VaultName};
use crate::secret::Secret;
use crate::state_file::sha256_hex;

/// The first line, without the version of the format.
const HEADER: &str = "xoauth2-relay refresh token ";
const VERSION: u64 = 1;
const PLAIN: &str = "plain";
const SEALED: &str = "aes-256-gcm";

/// Names of fields, times and marks of the JSON.
const FRAME: usize = 1024;

/// Why an entry cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// How that shows.
    Damaged(&'static str),
    /// The version it has.
    Newer(u64),
    /// Whose entry it is.
    Another(VaultName),
    KeyMissing,
    WrongKey,
}

/// An entry that is whole, which says nothing yet of its encryption.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: VaultName,
    /// The first three lines.
    head: &'a [u8],
    salts: Option<Salts>,
    payload: &'a str,
}

/// What the fourth line holds. The refresh token is in base64, so that it is never unescaped by way of another buffer.
#[derive(Serialize, Deserialize)]
struct Payload<'a> {
    refresh_token_base64: &'a str,
    account: Option<String>,
    user: String,
    signed_in_unix_millis: i64,
    renewed_unix_millis: i64,
    refused: Option<Refused>,
}

#[derive(Serialize, Deserialize)]
struct Refused {
    unix_millis: i64,
    last_unix_millis: i64,
    failure: String,
}

/// The entry for `grant`, encrypted if there is a key.
pub(super) fn render(name: &VaultName, grant: &StoredGrant, key: Option<(&Secret, &Salts)>) -> Zeroizing<Vec<u8>> {
    let protection = key.map_or_else(
        || PLAIN.to_owned(),
        |(_, salts)| format!("{SEALED} {} {}", STANDARD.encode(salts.salt), STANDARD.encode(salts.nonce)),
    );
    let names = serde_json::to_string(name).expect("a struct of strings is JSON");
    let head = format!("{HEADER}{VERSION}\n{names}\n{protection}\n");
    let mut payload = render_payload(grant);
    if let Some((key, salts)) = key {
        seal(&mut payload, head.as_bytes(), key, salts);
    }
    let payload = Zeroizing::new(STANDARD.encode(&*payload));
    let mut text = Zeroizing::new(Vec::with_capacity(head.len() + payload.len() + 80));
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(payload.as_bytes());
    text.push(b'\n');
    let digest = sha256_hex(&text);
    text.extend_from_slice(format!("sha256 {digest}\n").as_bytes());
    text
}

/// With room for the tag, and for each character as `\u0000`: a buffer that grows leaves a copy behind.
fn render_payload(grant: &StoredGrant) -> Zeroizing<Vec<u8>> {
    let refresh_token = Zeroizing::new(STANDARD.encode(grant.refresh_token.expose()));
    let failure = grant.refused.as_ref().map_or(0, |refused| refused.failure.len());
    let words = grant.account.as_ref().map_or(0, String::len) + grant.user.len() + failure;
    let mut text = Zeroizing::new(Vec::with_capacity(FRAME + refresh_token.len() + 6 * words + TAG));
    let payload = Payload {
        refresh_token_base64: &refresh_token,
        account: grant.account.clone(),
        user: grant.user.clone(),
        signed_in_unix_millis: grant.signed_in_at.unix_millis(),
        renewed_unix_millis: grant.renewed_at.unix_millis(),
        refused: grant.refused.as_ref().map(|refused| Refused {
            unix_millis: refused.at.unix_millis(),
            last_unix_millis: refused.last.unix_millis(),
            failure: refused.failure.clone(),
        }),
    };
    serde_json::to_writer(&mut *text, &payload).expect("a struct of strings and numbers is JSON");
    text
}

impl<'a> Entry<'a> {
    /// Reads all but the payload.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, Fault> {
        let text = str::from_utf8(text).map_err(|_| Fault::Damaged("it is no text"))?;
        check_version(text)?;
        let whole = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n'));
        let (body, last) = whole.ok_or(Fault::Damaged("it ends early"))?;
        // With the line end before the last line.
        let covered = &text[..=body.len()];
        if last.strip_prefix("sha256 ") != Some(&*sha256_hex(covered.as_bytes())) {
            return Err(Fault::Damaged("its digest does not match"));
        }
        let lines: Vec<_> = body.split('\n').collect();
        let &[_, names, protection, payload] = &*lines else {
            return Err(Fault::Damaged("it has not five lines"));
        };
        let name =
            serde_json::from_str(names).map_err(|_| Fault::Damaged("its second line does not say whose it is"))?;
        let salts = parse_protection(protection)?;
        let head = &text.as_bytes()[..body.len() - payload.len()];
        Ok(Self { name, head, salts, payload })
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.salts.is_some()
    }

    /// The grant; `key` is for an encrypted one.
    pub(super) fn open(&self, key: Option<&Secret>) -> Result<StoredGrant, Fault> {
        let mut payload = decode(self.payload).ok_or(Fault::Damaged("its fourth line is not base64"))?;
        let Some(salts) = &self.salts else { return parse_payload(&payload) };
        let key = key.ok_or(Fault::KeyMissing)?;
        parse_payload(unseal(&mut payload, self.head, key, salts).ok_or(Fault::WrongKey)?)
    }
}

fn check_version(text: &str) -> Result<(), Fault> {
    let version = text.strip_prefix(HEADER).and_then(|rest| rest.split_once('\n')).map(|(version, _)| version);
    match version.and_then(|version| version.parse().ok()) {
        Some(VERSION) => Ok(()),
        Some(version) if version > VERSION => Err(Fault::Newer(version)),
        _ if text.is_empty() => Err(Fault::Damaged("it is empty")),
        _ => Err(Fault::Damaged("its first line is not that of a refresh token")),
    }
}

/// The salts of an encrypted entry.
fn parse_protection(line: &str) -> Result<Option<Salts>, Fault> {
    let sealed = || {
        let (salt, nonce) = line.strip_prefix(SEALED)?.strip_prefix(' ')?.split_once(' ')?;
        let (salt, nonce) = (STANDARD.decode(salt).ok()?, STANDARD.decode(nonce).ok()?);
        Some(Salts { salt: salt.try_into().ok()?, nonce: nonce.try_into().ok()? })
    };
    if line == PLAIN {
        return Ok(None);
    }
    sealed().map(Some).ok_or(Fault::Damaged("its third line is not understood"))
}

fn parse_payload(payload: &[u8]) -> Result<StoredGrant, Fault> {
    const STRANGE: Fault = Fault::Damaged("what it holds is not understood");
    let payload: Payload<'_> = serde_json::from_slice(payload).map_err(|_| STRANGE)?;
    let refresh_token = decode(payload.refresh_token_base64).ok_or(STRANGE)?;
    let refresh_token = str::from_utf8(&refresh_token).map_err(|_| STRANGE)?;
    Ok(StoredGrant {
        refresh_token: Secret::new(refresh_token.to_owned()).map_err(|_| STRANGE)?,
        account: payload.account,
        user: payload.user,
        signed_in_at: WallTime::from_unix_millis(payload.signed_in_unix_millis),
        renewed_at: WallTime::from_unix_millis(payload.renewed_unix_millis),
        refused: payload.refused.map(|refused| RefusedGrant {
            at: WallTime::from_unix_millis(refused.unix_millis),
            last: WallTime::from_unix_millis(refused.last_unix_millis),
            failure: refused.failure,
        }),
    })
}

fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut octets = Zeroizing::new(Vec::with_capacity(base64::decoded_len_estimate(text.len())));
    STANDARD.decode_vec(text, &mut octets).ok()?;
    Some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLIS: i64 = 1_800_000_000_000;

    fn name() -> VaultName {
        VaultName { tenant_id: "t".to_owned(), client_id: "c".to_owned(), mailbox: "m@c.com".to_owned() }
    }

    fn grant(words: &str) -> StoredGrant {
        StoredGrant {
            refresh_token: Secret::new("0.AX-token".to_owned()).unwrap(),
            account: Some(words.to_owned()),
            user: words.to_owned(),
            signed_in_at: WallTime::from_unix_millis(MILLIS),
            renewed_at: WallTime::from_unix_millis(i64::MIN),
            refused: Some(RefusedGrant {
                at: WallTime::from_unix_millis(i64::MIN),
                last: WallTime::from_unix_millis(0),
                failure: words.to_owned(),
            }),
        }
    }

    fn sealed(text: &str) -> Vec<u8> {
        format!("{text}sha256 {}\n", sha256_hex(text.as_bytes())).into_bytes()
    }

    fn fault(text: &str) -> Fault {
        let text = sealed(text);
        Entry::parse(&text).and_then(|entry| entry.open(None)).unwrap_err()
    }

    #[test]
    fn the_text_is_this() {
        let plain = StoredGrant { refused: None, ..grant("a@c.com") };
        let text = "xoauth2-relay refresh token 1\n\
            {\"tenant_id\":\"t\",\"client_id\":\"c\",\"mailbox\":\"m@c.com\"}\n\
            plain\n";
        let payload = "{\"refresh_token_base64\":\"MC5BWC10b2tlbg==\",\"account\":\"a@c.com\",\"user\":\"a@c.com\",\
            \"signed_in_unix_millis\":1800000000000,\"renewed_unix_millis\":-9223372036854775808,\"refused\":null}";
        let text = sealed(&format!("{text}{}\n", STANDARD.encode(payload)));
        assert_eq!(*render(&name(), &plain, None), text);
    }

    #[test]
    fn what_has_the_right_digest_may_still_be_strange() {
        let head = "xoauth2-relay refresh token 1\n{\"tenant_id\":\"\",\"client_id\":\"\",\"mailbox\":\"\"}\n";
        let odd = |text: &str| fault(&format!("{head}{text}"));
        assert_eq!(fault("xoauth2-relay refresh token 1\n"), Fault::Damaged("it has not five lines"));
        assert_eq!(fault("xoauth2-relay refresh token 2\n"), Fault::Newer(2));
        assert_eq!(
            fault("xoauth2-relay refresh token 0\n"),
            Fault::Damaged("its first line is not that of a refresh token")
        );
        assert_eq!(
            fault("xoauth2-relay refresh token 1\n{}\nplain\n\n"),
            Fault::Damaged("its second line does not say whose it is")
        );
        for protection in ["rot13", "plain ", "aes-256-gcm", "aes-256-gcm AAAA AAAA", "aes-256-gcm  "] {
            assert_eq!(
                odd(&format!("{protection}\n\n")),
                Fault::Damaged("its third line is not understood"),
                "{protection}"
            );
        }
        assert_eq!(odd("plain\n!\n"), Fault::Damaged("its fourth line is not base64"));
        for payload in ["", "{}", "[]", "null"] {
            let text = format!("plain\n{}\n", STANDARD.encode(payload));
            assert_eq!(odd(&text), Fault::Damaged("what it holds is not understood"), "{payload}");
        }
    }

    #[test]
    fn no_buffer_of_a_secret_grows() {
        for words in ["", "\u{1}\u{2}\u{3}", &"\u{1}".repeat(10_000)] {
            let token = grant(words);
            let words = words.len();
            let mut payload = render_payload(&token);
            let room = FRAME + STANDARD.encode("0.AX-token").len() + 18 * words + TAG;
            assert_eq!(payload.capacity(), room);
            let key = Secret::new("k".repeat(22)).unwrap();
            seal(&mut payload, b"", &key, &Salts::random());
            assert_eq!(payload.capacity(), room);
            let text = render(&name(), &token, None);
            assert!(text.capacity() >= text.len() && text.capacity() <= text.len() + 80, "{}", text.capacity());
        }
    }
}
