//! A secret in memory, and where it is read from.
//!
//! Files, environment and systemd credentials are the relay's business: it implements [`SecretSource`]. Nothing here
//! caches: the source is read every half minute and for each token request, so that a rotated secret is taken up without a
//! restart.

use std::fmt;

use zeroize::Zeroizing;

/// A client secret: not empty, without control characters, wiped when dropped, redacted in Debug.
///
/// It has no `Clone` and no `Display`, so that no copy and no text of it is made by accident:
///
/// ```
/// fn wanted<T: std::fmt::Debug + Send>() {}
/// wanted::<token_manager::Secret>();
/// ```
/// ```compile_fail,E0277
/// fn wanted<T: Clone>() {}
/// wanted::<token_manager::Secret>();
/// ```
/// ```compile_fail,E0277
/// fn wanted<T: std::fmt::Display>() {}
/// wanted::<token_manager::Secret>();
/// ```
pub struct Secret {
    text: Zeroizing<String>,
}

/// Why no secret could be had. It names the place, never the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The place holds nothing, or only a line end.
    #[error("the secret is empty")]
    Empty,
    /// A second line, a NUL or the like: the file is something else, or was saved as UTF-16.
    #[error("the secret holds a control character; it must be one line of plain text")]
    ControlCharacter,
    /// The operating system would not give it.
    #[error("the secret cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
}

/// Where a secret stands. Read on a blocking thread, every half minute and before each request, so it may open
/// files.
pub trait SecretSource: Send + Sync + 'static {
    /// What stands there now, as it stands there.
    fn text(&self) -> Result<Zeroizing<String>, SecretError>;

    /// The place in words for an administrator, as in `file /etc/xoauth2-relay/contoso.secret`; never the content.
    fn description(&self) -> String;

    /// The secret of one line that stands there now.
    fn read(&self) -> Result<Secret, SecretError> {
        Secret::new(self.text()?)
    }
}

impl Secret {
    /// Takes over `text` (wiped when refused). One final LF or CRLF, as editors and `echo` leave it, and a leading byte
    /// order mark, as Notepad leaves it, are not part of the secret. Fails when nothing or a control character is left.
    pub fn new(text: impl Into<Zeroizing<String>>) -> Result<Self, SecretError> {
        let text = text.into();
        let line = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
        if line.is_empty() {
            return Err(SecretError::Empty);
        }
        if line.chars().any(char::is_control) {
            return Err(SecretError::ControlCharacter);
        }
        Ok(Self { text: Zeroizing::new(line.to_owned()) })
    }

    /// A second one, wiped by itself. There is no `Clone`, so that none is made by accident.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self { text: self.text.clone() }
    }

    /// The secret itself, for the one place that puts it into a request.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_final_line_end_and_a_byte_order_mark_are_not_the_secret() {
        for text in ["a~b.C", "a~b.C\n", "a~b.C\r\n", "\u{feff}a~b.C\r\n"] {
            assert_eq!(Secret::new(text.to_owned()).unwrap().expose(), "a~b.C", "{text:?}");
        }
        assert_eq!(Secret::new(" a b ".to_owned()).unwrap().expose(), " a b ");
    }

    #[test]
    fn nothing_and_control_characters_are_refused() {
        for text in ["", "\n", "\r\n", "\u{feff}"] {
            assert!(matches!(Secret::new(text.to_owned()), Err(SecretError::Empty)), "{text:?}");
        }
        for text in ["a\n\n", "a\nb", "a\0", "\u{1b}[31m", "a\r"] {
            assert!(matches!(Secret::new(text.to_owned()), Err(SecretError::ControlCharacter)), "{text:?}");
        }
    }

    #[test]
    fn debug_is_redacted() {
        assert_eq!(format!("{:?}", Secret::new("sesame".to_owned()).unwrap()), "Secret(redacted)");
    }
}
