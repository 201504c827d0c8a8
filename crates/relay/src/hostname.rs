//! Our name for EHLO, banner, Received and Message-ID when the configuration gives none: the machine's name made into a
//! valid domain, because a name that upstream or a filter refuses would cost all mail. Pure.

/// A valid, never empty domain made of `machine`, a host name as the system gives it.
pub(crate) fn valid(machine: &str) -> String {
    let labels: Vec<String> = machine.split('.').map(label).filter(|label| !label.is_empty()).collect();
    let name = labels.join(".");
    if name.is_empty() || name.len() > 253 { "localhost.localdomain".to_owned() } else { name }
}

/// What may stand in a host name (RFC 1123 section 2.1); `_` and the like become `-`.
fn label(label: &str) -> String {
    let octets: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    octets.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_names_become_domains() {
        for (machine, name) in [
            ("relay01.example.com", "relay01.example.com"),
            ("ERP_01", "ERP-01"),
            ("_x_.local.", "x.local"),
            ("", "localhost.localdomain"),
            ("__", "localhost.localdomain"),
            ("büro", "b-ro"),
        ] {
            assert_eq!(valid(machine), name, "{machine}");
            assert!(mail::Domain::parse(&valid(machine)).is_ok());
        }
    }
}
