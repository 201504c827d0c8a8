//! Nothing of a refresh token or a key in Debug, in errors, or in an encrypted file; also not as base64 or numbers.

use std::fmt::Write;
use std::fs;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use token_manager::VaultError;

use crate::room::{KEY, OTHER_KEY, Room, TOKEN, grant, name};

/// How a secret would look if something printed it. Base64 is searched without the characters that neighbours change.
fn traces(secret: &str) -> Vec<String> {
    let numbers = |octets: &[u8]| {
        let octets: Vec<_> = octets.iter().map(u8::to_string).collect();
        octets.join(", ")
    };
    let mut traces = vec![secret.to_owned(), secret.escape_debug().to_string(), numbers(&secret.as_bytes()[..8])];
    for start in 0..3 {
        let whole = secret.len() - (secret.len() - start) % 3;
        traces.push(STANDARD_NO_PAD.encode(&secret.as_bytes()[start..whole]));
        traces.push(URL_SAFE_NO_PAD.encode(&secret.as_bytes()[start..whole]));
    }
    traces
}

#[track_caller]
fn assert_clean(text: &str) {
    for trace in [TOKEN, KEY, OTHER_KEY].iter().flat_map(|secret| traces(secret)) {
        assert!(!text.contains(&trace), "{trace} in {text}");
    }
}

#[test]
fn nothing_secret_is_shown() {
    let room = Room::new();
    let vault = room.with_key(Some(KEY));
    let grant = grant();
    vault.store(&name(), &grant).unwrap();
    let whole = fs::read_to_string(room.file()).unwrap();
    let mut shown = format!("{vault:?} {vault:#?} {grant:?} {grant:#?} {:?} {whole}", vault.stamp(&name()));
    let mut show = |error: VaultError| {
        write!(shown, "{error} {error:?} {error:#?}").unwrap();
    };
    show(room.with_key(Some(OTHER_KEY)).load(&name()).unwrap_err());
    show(room.plain().load(&name()).unwrap_err());
    show(room.with_key(Some(&KEY[..20])).load(&name()).unwrap_err());
    show(room.with_key(Some("q3Xk9vB1mZ7tR5nY2wL8pQ==\u{7}")).load(&name()).unwrap_err());
    room.plain().store(&name(), &grant).unwrap();
    let plain = fs::read(room.file()).unwrap();
    for length in [30, plain.len() / 2, plain.len() - 1] {
        fs::write(room.file(), &plain[..length]).unwrap();
        show(room.plain().load(&name()).unwrap_err());
    }
    assert_clean(&shown);
}

#[test]
#[should_panic(expected = "in ")]
fn the_search_finds_what_is_there() {
    let text = format!("x{TOKEN}x");
    assert_clean(&STANDARD_NO_PAD.encode(text));
}
