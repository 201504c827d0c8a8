//! What a browser is answered with: a redirect or a small page. The pages are for people and tests; Entra's look
//! different and do the same.

use std::fmt::Write as _;

use super::EntraError;

/// An answer to a browser.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// 302 to this address.
    Redirect(String),
    /// HTML with this status.
    Html(u16, String),
}

impl Page {
    /// A page with this heading and these parts of HTML.
    pub(super) fn html(heading: &str, parts: &[String]) -> Self {
        Self::Html(200, document(heading, parts))
    }

    /// An error that nobody but the person can be told.
    pub(super) fn error(error: &EntraError) -> Self {
        Self::Html(
            error.status,
            document("Sorry, but we're having trouble signing you in.", &[paragraph(&error.description())]),
        )
    }
}

pub(super) fn paragraph(text: &str) -> String {
    format!("<p>{}</p>", escape(text))
}

pub(super) fn link(address: &str, text: &str) -> String {
    format!("<p><a href=\"{}\">{}</a></p>", escape(address), escape(text))
}

/// A button that posts these values.
pub(super) fn button(values: &[(&str, &str)], text: &str) -> String {
    let mut form = "<form method=\"post\">".to_owned();
    for (name, value) in values {
        // Writing to a string cannot fail.
        let _ = write!(form, "<input type=\"hidden\" name=\"{}\" value=\"{}\">", escape(name), escape(value));
    }
    form + &format!("<button>{}</button></form>", escape(text))
}

fn document(heading: &str, parts: &[String]) -> String {
    let heading = escape(heading);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Sandbox sign-in</title></head>\n\
         <body><h1>{heading}</h1>\n{}\n</body></html>\n",
        parts.join("\n")
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_becomes_html() {
        let parts = [paragraph("<b>"), link("a?b&c=\"", "x"), button(&[("n", "'>")], "y")];
        let Page::Html(200, text) = Page::html("<h>", &parts) else { panic!("a page") };
        assert!(text.contains("<p>&lt;b&gt;</p>"), "{text}");
        assert!(text.contains("<a href=\"a?b&amp;c=&quot;\">x</a>"), "{text}");
        assert!(text.contains("value=\"&#39;&gt;\""), "{text}");
        assert!(text.contains("<h1>&lt;h&gt;</h1>"), "{text}");
    }
}
