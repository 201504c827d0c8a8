//! The command `hash-password`: a password from the terminal or from standard input becomes what `[user.*]` holds. It reads no
//! configuration, never takes a password from the command line, where others see it, and prints the hash alone.

use std::io::{self, IsTerminal, Read};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::output;

/// Memory in KiB, passes and threads: what OWASP asks of Argon2id at least, and still cheap on a small machine.
const COSTS: (u32, u32, u32) = (19 * 1024, 2, 1);
/// Octets of a password; RFC 4616 section 2 has clients and servers take 255 characters.
const MAX_PASSWORD: usize = 1024;

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("there is no password: an empty one would let in whoever knows the name")]
    Empty,
    #[error("the password holds a NUL octet, which AUTH PLAIN cannot carry (RFC 4616); choose another")]
    Nul,
    #[error("the password is longer than {MAX_PASSWORD} octets; choose a shorter one")]
    TooLong,
    #[error("standard input has more than one line; give the password alone, on one line")]
    ManyLines,
    #[error("the two were not the same; run it again")]
    Different,
    #[error("the password cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("the password cannot be hashed: {0}")]
    NotHashed(String),
}

impl Refused {
    fn exit(&self) -> Exit {
        match self {
            Self::Empty | Self::Nul | Self::TooLong | Self::ManyLines | Self::Different => Exit::Usage,
            Self::Unreadable(_) | Self::NotHashed(_) => Exit::Unavailable,
        }
    }
}

/// Asks twice on a terminal, else reads one line; prints the hash.
pub(crate) fn hash_password() -> Exit {
    let by_hand = io::stdin().is_terminal();
    let password = if by_hand { ask() } else { read(io::stdin().lock()) };
    match password.and_then(|password| hash(&password)) {
        Ok(hash) => {
            let exit = output::print(&format!("{hash}\n"));
            if by_hand {
                output::complain("Write it into the configuration, in a section [user.NAME], as password_hash.");
            }
            exit
        }
        Err(refused) => {
            output::complain(&format!("xoauth2-relay: {refused}"));
            refused.exit()
        }
    }
}

/// Twice, since nobody sees what is typed. Prompts go to the terminal itself, wherever standard output goes.
fn ask() -> Result<Zeroizing<Vec<u8>>, Refused> {
    let ask = |prompt| rpassword::prompt_password(prompt).map(|typed| Zeroizing::new(typed.into_bytes()));
    let password = acceptable(ask("Password: ")?)?;
    if *ask("Once more: ")? == *password { Ok(password) } else { Err(Refused::Different) }
}

/// One line; the line end is no part of it.
fn read(input: impl Read) -> Result<Zeroizing<Vec<u8>>, Refused> {
    // In one piece from the start: growing would leave copies behind that nobody wipes.
    let room = MAX_PASSWORD + b"\r\n".len() + 1;
    let mut line = Zeroizing::new(Vec::with_capacity(room));
    input.take(room as u64).read_to_end(&mut line)?;
    let end = line.strip_suffix(b"\n").map_or(line.len(), |rest| rest.strip_suffix(b"\r").unwrap_or(rest).len());
    line.truncate(end);
    acceptable(line)
}

fn acceptable(password: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, Refused> {
    if password.is_empty() {
        Err(Refused::Empty)
    } else if password.len() > MAX_PASSWORD {
        Err(Refused::TooLong)
    } else if password.contains(&0) {
        Err(Refused::Nul)
    } else if password.contains(&b'\n') {
        Err(Refused::ManyLines)
    } else {
        Ok(password)
    }
}

/// As a PHC string, with a salt of its own.
fn hash(password: &[u8]) -> Result<String, Refused> {
    let (memory, passes, threads) = COSTS;
    let costs = Params::new(memory, passes, threads, None).map_err(|error| Refused::NotHashed(error.to_string()))?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, costs).hash_password(password);
    hash.map(|hash| hash.to_string()).map_err(|error| Refused::NotHashed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier;
    use argon2::password_hash::phc::PasswordHash;

    use super::*;

    #[test]
    fn a_hash_verifies_its_password_and_no_other() {
        let text = hash(b"correct horse").unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let parsed = PasswordHash::new(&text).unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"correct horse ", &parsed).is_err());
    }

    #[test]
    fn one_line_is_taken_without_its_end() {
        let longest = [b'x'; MAX_PASSWORD];
        for (input, password) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            (b" se cret \n", b" se cret "),
            (b"\xe9\xff\n", b"\xe9\xff"),
            (&[&longest[..], b"\r\n"].concat(), &longest),
        ] {
            assert_eq!(*read(input).unwrap(), password, "{input:?}");
        }
    }

    #[test]
    fn what_no_login_could_carry_is_refused() {
        let too_long = [b'x'; MAX_PASSWORD + 1];
        for (input, text) in [
            (&b""[..], "there is no password"),
            (b"\n", "there is no password"),
            (b"\r\n", "there is no password"),
            (b"a\0b\n", "NUL"),
            (b"one\ntwo\n", "more than one line"),
            (b"one\n\n", "more than one line"),
            (&too_long, "longer than 1024"),
            (&vec![b'x'; 1 << 20], "longer than 1024"),
        ] {
            let refused = read(input).unwrap_err();
            assert!(refused.to_string().contains(text), "{refused}");
            assert_eq!(refused.exit(), Exit::Usage);
        }
    }
}
