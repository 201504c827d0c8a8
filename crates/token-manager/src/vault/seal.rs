//! AES-256-GCM for entries of the vault, with a key of its own for each time one is stored. No I/O but chance.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// What the derived key is for; the version is that of the entry's format.
const PURPOSE: &[&[u8]] = &[b"xoauth2-relay refresh token 1"];

/// The octets that sealing adds.
pub(super) const TAG: usize = 16;

/// Chance that must be new each time something is sealed; not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Salts {
    /// For the derivation of the key.
    pub(super) salt: [u8; 32],
    pub(super) nonce: [u8; 12],
}

impl Salts {
    pub(super) fn random() -> Self {
        let mut salts = Self { salt: [0; 32], nonce: [0; 12] };
        crate::state_file::fill_random(&mut salts.salt);
        crate::state_file::fill_random(&mut salts.nonce);
        salts
    }
}

/// Encrypts `text` where it stands and appends the tag, which vouches for `head` too.
pub(super) fn seal(text: &mut Zeroizing<Vec<u8>>, head: &[u8], key: &Secret, salts: &Salts) {
    derive(key, salts)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(salts.nonce), Aad::from(head), &mut **text)
        .expect("AES-GCM seals anything below 64 GiB");
}

/// Decrypts `text` where it stands; none if key, head or text are not those that were sealed.
pub(super) fn unseal<'a>(text: &'a mut [u8], head: &[u8], key: &Secret, salts: &Salts) -> Option<&'a [u8]> {
    let nonce = Nonce::assume_unique_for_key(salts.nonce);
    derive(key, salts).open_in_place(nonce, Aad::from(head), text).ok().map(|text| &*text)
}

/// RFC 5869. The key is text of at least 128 bits; nothing here makes a password safe.
fn derive(key: &Secret, salts: &Salts) -> LessSafeKey {
    let derived = Salt::new(HKDF_SHA256, &salts.salt).extract(key.expose().as_bytes());
    let derived = derived.expand(PURPOSE, &AES_256_GCM).expect("HKDF gives 32 octets at once");
    LessSafeKey::new(UnboundKey::from(derived))
}
