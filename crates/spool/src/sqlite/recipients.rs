//! The recipients of a delivery as one text: a line each, readable with any SQLite shell. A line is the path, and after tabs
//! what its client said of reports: NOTIFY, then ORCPT, each empty if it was not said. Nothing of that can hold a control
//! octet (`mail` sees to it), so that tab and line end need no escape.

use mail::{ForwardPath, Notify, OriginalRecipient, Recipient};

/// One line a recipient.
pub(super) fn encode<'a>(recipients: impl IntoIterator<Item = &'a Recipient>) -> String {
    recipients.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(recipient: &Recipient) -> String {
    let Recipient { path, notify, original } = recipient;
    if notify.is_none() && original.is_none() {
        return path.to_string();
    }
    let notify = notify.map(|notify| notify.to_string()).unwrap_or_default();
    let original = original.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{path}\t{notify}\t{original}")
}

/// The recipients; none if any line is not one, or there is no line.
pub(super) fn decode(text: &str) -> Option<Vec<Recipient>> {
    text.split('\n').map(recipient).collect()
}

fn recipient(line: &str) -> Option<Recipient> {
    let mut fields = line.split('\t');
    let path = ForwardPath::parse(fields.next()?.as_bytes()).ok()?;
    let said = |field: Option<&'_ str>| field.filter(|text| !text.is_empty()).map(str::to_owned);
    let notify = said(fields.next()).map(|text| Notify::parse(&text)).transpose().ok()?;
    let original = said(fields.next()).map(|text| OriginalRecipient::parse(&text)).transpose().ok()?;
    fields.next().is_none().then_some(Recipient { path, notify, original })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> Recipient {
        ForwardPath::parse(text.as_bytes()).unwrap().into()
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
    fn what_its_client_said_of_reports_is_kept() {
        let notify = Some(Notify::NEVER);
        let original = OriginalRecipient::parse("rfc822;a+2Bb@c.d").ok();
        for (notify, original, text) in [
            (None, None, "a@b.c"),
            (notify, None, "a@b.c\tNEVER\t"),
            (None, original.clone(), "a@b.c\t\trfc822;a+2Bb@c.d"),
            (notify, original, "a@b.c\tNEVER\trfc822;a+2Bb@c.d"),
        ] {
            let recipient = Recipient { notify, original, ..path("a@b.c") };
            assert_eq!(encode([&recipient]), text);
            assert_eq!(decode(text), Some(vec![recipient]));
        }
    }

    #[test]
    fn what_is_no_list_is_none() {
        for wrong in [
            "",
            "a@b.c\n",
            "\n",
            "a@b.c\n\nd@e.f",
            "nobody",
            "a@b.c,d@e.f",
            "a@b.c\r\nd@e.f",
            "a@b.c\tOFTEN\t",
            "a@b.c\t\tx",
            "a@b.c\t\t\t",
            "\tNEVER\t",
        ] {
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
