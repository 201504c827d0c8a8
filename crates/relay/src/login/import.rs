//! Reads a refresh token that another product holds: from a file or from standard input, never from the command line, where
//! others see it. Parsing is pure.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

/// Longest file; Entra ID's refresh tokens have some 2 kB.
const MAX_LEN: u64 = 32 * 1024;

/// Why there is no token. Content is never repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    /// The system would not give it.
    #[error("the refresh token cannot be read from {}: {source}", .file.display())]
    Unreadable {
        /// From where.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("there is no refresh token: it must stand alone on one line, or as \"refresh_token\" in a JSON object")]
    NoToken,
    /// It is something else, too.
    #[error("this is longer than any refresh token: give the token alone, or the JSON file that holds it")]
    TooLong,
}

/// The token in `file`; with "-" from standard input, typed without echo on a terminal.
pub(super) fn read(file: &Path) -> Result<Zeroizing<String>, ImportError> {
    let failed = |source| ImportError::Unreadable { file: file.to_owned(), source };
    if file != "-" {
        return parse(&octets(File::open(file).map_err(failed)?).map_err(failed)?);
    }
    if io::stdin().is_terminal() {
        return parse(Zeroizing::new(rpassword::prompt_password("Refresh token: ").map_err(failed)?).as_bytes());
    }
    parse(&octets(io::stdin().lock()).map_err(failed)?)
}

/// Room for all of it from the start: growing would leave copies behind that nobody wipes.
fn octets(input: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut octets = Zeroizing::new(Vec::with_capacity(usize::try_from(MAX_LEN).unwrap_or_default() + 2));
    input.take(MAX_LEN + 1).read_to_end(&mut octets)?;
    Ok(octets)
}

fn parse(octets: &[u8]) -> Result<Zeroizing<String>, ImportError> {
    #[derive(Deserialize)]
    struct Kept {
        refresh_token: Zeroizing<String>,
    }
    if octets.len() as u64 > MAX_LEN {
        return Err(ImportError::TooLong);
    }
    let text = std::str::from_utf8(octets).map_err(|_| ImportError::NoToken)?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let token = match serde_json::from_str::<Kept>(text) {
        Ok(kept) => kept.refresh_token,
        Err(_) => Zeroizing::new(text.to_owned()),
    };
    // RFC 6749 appendix A.17, without the blank that no token has and every sentence does.
    let is_token = !token.is_empty() && token.bytes().all(|octet| octet.is_ascii_graphic());
    // What a careless copy brings along: JSON, quotes, the name of the field.
    let is_token = is_token && !token.starts_with(['{', '[', '"', '\'']) && !token.starts_with("refresh_token");
    if is_token { Ok(token) } else { Err(ImportError::NoToken) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_others() {
        for text in [
            "0.AXoA-token_1",
            "0.AXoA-token_1\r\n",
            "\u{feff}0.AXoA-token_1\n\n",
            r#"{"access_token": "x", "expiry": "0", "refresh_token": "0.AXoA-token_1"}"#,
            "{\n  \"refresh_token\": \"0.AXoA-token_1\",\n  \"user\": \"a@b.example\"\n}\n",
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().as_str(), "0.AXoA-token_1", "{text}");
        }
        for text in [
            "",
            "\n",
            "two words",
            "one\ntwo",
            r#"{"access_token": "x"}"#,
            r#"{"refresh_token": ""}"#,
            "{}",
            "\"0.AXoA\"",
            "refresh_token=0.AXoA",
        ] {
            assert!(matches!(parse(text.as_bytes()), Err(ImportError::NoToken)), "{text}");
        }
        assert!(matches!(parse(b"0.AXoA\xff"), Err(ImportError::NoToken)));
        assert!(matches!(parse("x".repeat(70_000).as_bytes()), Err(ImportError::TooLong)));
    }
}
