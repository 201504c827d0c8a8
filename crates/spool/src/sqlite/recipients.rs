//! The recipients of a delivery as one text: a path a line, readable with any SQLite shell. No path can hold a control
//! octet (`mail` sees to it), so that the line end needs no escape.

use mail::ForwardPath;

/// One line a recipient.
pub(super) fn encode<'a>(recipients: impl IntoIterator<Item = &'a ForwardPath>) -> String {
    recipients.into_iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// The recipients; none if any line is not one, or there is no line.
pub(super) fn decode(text: &str) -> Option<Vec<ForwardPath>> {
    text.split('\n').map(|line| ForwardPath::parse(line.as_bytes()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> ForwardPath {
        ForwardPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for list in [
            vec!["a@b.c"],
            vec!["postmaster"],
            vec!["postmaster@contoso.com", "postmaster", "\"a b\\\"\"@c.d", "müller@bücher.example", "x@[192.0.2.1]"],
        ] {
            let paths: Vec<_> = list.iter().map(|text| path(text)).collect();
            assert_eq!(decode(&encode(&paths)), Some(paths), "{list:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_none() {
        for wrong in ["", "a@b.c\n", "\n", "a@b.c\n\nd@e.f", "nobody", "a@b.c,d@e.f", "a@b.c\r\nd@e.f"] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_paths_survive(locals in proptest::collection::vec("[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}|\"[ -!#-\\[\\]-~]{0,12}\"", 1..20)) {
            let paths: Vec<_> = locals.iter().map(|local| path(&format!("{local}@contoso.com"))).collect();
            prop_assert_eq!(decode(&encode(&paths)), Some(paths));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = decode(&text);
        }
    }
}
