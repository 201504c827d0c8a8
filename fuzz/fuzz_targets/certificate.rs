//! Whatever an administrator's two files hold, it is a pair that can sign or a refusal: one printable line that says what to do
//! and repeats nothing of the files.

#![no_main]

use libfuzzer_sys::fuzz_target;
use token_manager::SigningCertificate;

/// A run of base64 that is longer than any word of ours.
const LONGEST_WORD: usize = 40;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // The first NUL divides the files; without one it is a combined file, named twice.
    let (certificate, key) = text.split_once('\0').unwrap_or((text, text));
    match SigningCertificate::from_pem(certificate, key) {
        Ok(pair) => {
            assert!(pair.same(&pair));
            assert!(!pair.subject().chars().any(char::is_control));
            assert_eq!((pair.x5t().len(), pair.x5t_s256().len(), pair.thumbprint().len()), (27, 43, 40));
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.chars().any(char::is_control), "{said}");
            let words = said.split(|c: char| !c.is_ascii_alphanumeric());
            assert!(words.clone().all(|word| word.len() < LONGEST_WORD), "{said}");
        }
    }
});
