//! A command line never panics; what strict takes means the same in lenient; what was read as MAIL or RCPT can be written again
//! and reads the same, in strict too, so that no address smuggles a parameter or a second command upstream; names and errors
//! stay short and free of control characters, and no line with a control octet is a command.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mail::BodyType;
use wire::{Command, CommandError, Dialect, MailParameters};

fuzz_target!(|line: &[u8]| {
    let lenient = Command::parse(line, Dialect::Lenient);
    let strict = Command::parse(line, Dialect::Strict);
    for answer in [&lenient, &strict] {
        check(line, answer);
    }
    if let Ok(command) = strict {
        assert_eq!(lenient, Ok(command.clone()));
        if let Some(written) = write(&command) {
            assert_eq!(Command::parse(written.as_bytes(), Dialect::Strict), Ok(command), "{written:?}");
        }
    }
    if let Ok(command) = lenient
        && let Some(written) = write(&command)
    {
        assert_eq!(Command::parse(written.as_bytes(), Dialect::Lenient), Ok(command), "{written:?}");
    }
});

fn check(line: &[u8], answer: &Result<Command, CommandError>) {
    match answer {
        Ok(command) => {
            assert!(!line.iter().any(|octet| octet.is_ascii_control() && *octet != b'\t'));
            match command {
                Command::Ehlo(name) | Command::Helo(name) => {
                    assert!(name.chars().count() <= 255 && !name.contains(char::is_control));
                }
                Command::NotOffered(verb) => {
                    assert!(line.trim_ascii()[..verb.len()].eq_ignore_ascii_case(verb.as_bytes()));
                }
                _ => {}
            }
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.chars().count() <= 200 && !error.contains(char::is_control));
        }
    }
}

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
