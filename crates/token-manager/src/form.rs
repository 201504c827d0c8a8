//! The form body of a request (`application/x-www-form-urlencoded`), which knows what in it is secret. Pure.
//!
//! It is written once into a buffer that has room for all of it, so that no part of a secret stays behind in one that grew,
//! and it can tell whether a text that came back repeats one.

use url::form_urlencoded::{byte_serialize, parse};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Parameters in the order in which they are sent.
#[derive(Default)]
pub(crate) struct Form {
    parameters: Vec<(&'static str, Value)>,
}

enum Value {
    Public(String),
    Secret(Zeroizing<String>),
}

impl Value {
    fn text(&self) -> &str {
        match self {
            Self::Public(text) => text,
            Self::Secret(text) => text,
        }
    }
}

impl Form {
    /// Adds what may be shown.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.parameters.push((name, Value::Public(value.into())));
        self
    }

    /// Adds what may not.
    pub(crate) fn with_secret(mut self, name: &'static str, value: &Secret) -> Self {
        self.parameters.push((name, Value::Secret(Zeroizing::new(value.expose().to_owned()))));
        self
    }

    /// As it is sent; wiped when dropped.
    pub(crate) fn encode(&self) -> Zeroizing<String> {
        // An octet takes three at most; `=` and `&` are two more.
        let room = self.parameters.iter().map(|(name, value)| name.len() + 3 * value.text().len() + 2).sum();
        let mut body = Zeroizing::new(String::with_capacity(room));
        for (name, value) in &self.parameters {
            if !body.is_empty() {
                body.push('&');
            }
            body.push_str(name);
            body.push('=');
            body.extend(byte_serialize(value.text().as_bytes()));
        }
        body
    }

    /// Whether `text` repeats a secret of this form, as a helpful proxy's answer might: as it is, or as it was sent.
    pub(crate) fn is_repeated_in(&self, text: &str) -> bool {
        let secrets = self.parameters.iter().filter_map(|(_, value)| match value {
            Value::Secret(secret) => Some(secret),
            Value::Public(_) => None,
        });
        secrets.into_iter().any(|secret| {
            let encoded: Zeroizing<String> = Zeroizing::new(byte_serialize(secret.as_bytes()).collect());
            text.contains(secret.as_str()) || text.contains(encoded.as_str())
        })
    }
}

/// The value of `name` in a query that came back, as a redirect carries it.
pub(crate) fn parameter(query: &str, name: &str) -> Option<Zeroizing<String>> {
    let (_, value) = parse(query.as_bytes()).find(|(key, _)| key == name)?;
    Some(Zeroizing::new(value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new("s3~+/cret".to_owned()).unwrap()
    }

    #[test]
    fn encoded_without_growing() {
        let form = Form::default().with("scope", "a b").with_secret("client_secret", &secret());
        let body = form.encode();
        assert_eq!(body.as_str(), "scope=a+b&client_secret=s3%7E%2B%2Fcret");
        assert!(body.capacity() >= body.len());
        assert_eq!(Form::default().encode().as_str(), "");
    }

    #[test]
    fn a_text_that_repeats_a_secret_is_known() {
        let form = Form::default().with("client_id", "me").with_secret("client_secret", &secret());
        for (text, repeats) in [
            ("you sent s3~+/cret", true),
            ("client_secret=s3%7E%2B%2Fcret&", true),
            ("client_id=me", false),
            ("s3~+/cre", false),
        ] {
            assert_eq!(form.is_repeated_in(text), repeats, "{text}");
        }
    }

    #[test]
    fn parameters_of_a_query() {
        assert_eq!(parameter("code=a%2Bb&state=1", "code").unwrap().as_str(), "a+b");
        assert!(parameter("code=a", "state").is_none());
    }
}
