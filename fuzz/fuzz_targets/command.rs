//! A command line never panics; what was read as MAIL or RCPT can be written again and reads the same, so that no address
//! smuggles a parameter or a second command upstream; names and errors stay short and free of control characters.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::BodyType;
use wire::{Command, Dialect, MailParameters};

fuzz_target!(|line: &[u8]| {
    match Command::parse(line, Dialect::Lenient) {
        Ok(Command::Ehlo(name) | Command::Helo(name)) => {
            assert!(name.chars().count() <= 255 && !name.contains(char::is_control));
        }
        Ok(command) => {
            if let Some(written) = write(&command) {
                assert_eq!(Command::parse(written.as_bytes(), Dialect::Lenient), Ok(command), "{written:?}");
            }
        }
        Err(error) => assert!(error.to_string().chars().count() <= 200),
    }
});

fn write(command: &Command) -> Option<String> {
    match command {
        Command::Mail(path, MailParameters { size, body, smtputf8, ret, envelope_id }) => {
            let size = size.map(|octets| format!(" SIZE={octets}")).unwrap_or_default();
            let body = if *body == BodyType::EightBitMime { " BODY=8BITMIME" } else { "" };
            let smtputf8 = if *smtputf8 { " SMTPUTF8" } else { "" };
            let (ret, envelope_id) = (parameter("RET", ret.as_ref()), parameter("ENVID", envelope_id.as_ref()));
            Some(format!("MAIL FROM:<{path}>{size}{body}{smtputf8}{ret}{envelope_id}"))
        }
        Command::Rcpt(recipient) => {
            let notify = parameter("NOTIFY", recipient.notify.as_ref());
            Some(format!("RCPT TO:<{recipient}>{notify}{}", parameter("ORCPT", recipient.original.as_ref())))
        }
        _ => None,
    }
}

fn parameter(keyword: &str, value: Option<&impl std::fmt::Display>) -> String {
    value.map(|value| format!(" {keyword}={value}")).unwrap_or_default()
}
