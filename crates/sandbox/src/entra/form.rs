//! The parameters of a request, from a form body or a query. What they mean is told elsewhere.

use url::form_urlencoded;

use super::EntraError;

/// Parsed parameters.
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// A body of another type has no parameters for Entra. A parameter given twice is an error.
    pub(crate) fn of_body(content_type: Option<&str>, body: &[u8]) -> Result<Self, EntraError> {
        let is_form = content_type.is_some_and(|content_type| {
            let essence = content_type.split(';').next().unwrap_or_default().trim();
            essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        });
        Self::parse(if is_form { body } else { b"" })
    }

    /// The parameters of a query or body.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, EntraError> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(text).into_owned().collect();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                let text = format!("The request is not properly formatted. The parameter '{name}' is duplicated.");
                return Err(EntraError::new(400, "invalid_request", 9_000_411, text));
            }
        }
        Ok(Self(pairs))
    }

    /// An empty value is a missing one (RFC 6749 section 3.2).
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    pub(crate) fn required(&self, name: &str) -> Result<&str, EntraError> {
        self.optional(name).ok_or_else(|| EntraError::missing(name))
    }

    /// The same parameters but these.
    pub(crate) fn without(&self, names: &[&str]) -> Self {
        Self(self.0.iter().filter(|(name, _)| !names.contains(&name.as_str())).cloned().collect())
    }

    /// The same parameters and these, encoded again.
    pub(crate) fn with(&self, more: &[(&str, &str)]) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).extend_pairs(more).finish()
    }
}
