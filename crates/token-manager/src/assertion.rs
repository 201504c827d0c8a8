//! The assertion by which an application proves with its certificate who it is: RFC 7523 section 3, as a signed JWT
//! (RFC 7515 section 7.1) the way Entra ID wants it (facts 4.3).
//!
//! Made anew for each request, of what it is given and of nothing else; sending it is `request`'s matter.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clock::WallTime;
use serde::Serialize;

use crate::certificate::{Algorithm, SigningCertificate};
use crate::secret::Secret;

/// Seconds that an assertion counts; Microsoft advises 5 to 10 minutes after `nbf`.
const LIFETIME: i64 = 600;

/// Seconds before now at which it begins to count. It is sent at once and judged within seconds, so the window is there
/// for clocks alone: this machine's may be 2 minutes ahead or nearly 8 behind. A clock that is wronger than that is
/// better found (AADSTS700024) than hidden.
const SKEW: i64 = 120;

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    x5t_s256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5t: Option<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: &'a str,
    sub: &'a str,
    jti: &'a str,
    nbf: i64,
    iat: i64,
    exp: i64,
}

/// The assertion of the application `client_id` for the token endpoint `audience`: good from 2 minutes before `now` to
/// 8 after it. `jti` is a GUID of its own, [`new_jti`]'s. Whoever has it is the application while it lasts.
pub(crate) fn assertion(
    certificate: &SigningCertificate,
    algorithm: Algorithm,
    client_id: &str,
    audience: &str,
    now: WallTime,
    jti: &str,
) -> Secret {
    let (x5t_s256, x5t) = match algorithm {
        Algorithm::Ps256 => (Some(certificate.x5t_s256()), None),
        Algorithm::Rs256 => (None, Some(certificate.x5t())),
    };
    let begin = now.unix_millis().div_euclid(1000).saturating_sub(SKEW);
    let claims =
        Claims { aud: audience, iss: client_id, sub: client_id, jti, nbf: begin, iat: begin, exp: begin + LIFETIME };
    let header = Header { alg: algorithm.as_str(), typ: "JWT", x5t_s256, x5t };
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(certificate.sign(algorithm, signed.as_bytes()));
    Secret::new(format!("{signed}.{signature}")).expect("base64url and dots are neither empty nor control characters")
}

fn part(json: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(json).expect("texts and numbers under names are JSON"))
}

/// A GUID of chance (RFC 9562 section 5.4), so that no two assertions are one.
pub(crate) fn new_jti() -> String {
    let mut octets = [0; 16];
    rand::fill(&mut octets).expect("AWS-LC ends the process sooner than it gives no randomness");
    // Version 4, variant 10.
    octets[6] = octets[6] & 0x0f | 0x40;
    octets[8] = octets[8] & 0x3f | 0x80;
    let hex = format!("{:032x}", u128::from_be_bytes(octets));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::sync::OnceLock;

    use aws_lc_rs::signature::{
        RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
    };
    use proptest::prelude::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    use serde_json::{Value, json};
    use x509_parser::certificate::X509Certificate;
    use x509_parser::prelude::FromDer;

    use super::*;
    use crate::certificate::tests::{pkcs1, rsa};

    const CLIENT_ID: &str = "66666666-7777-8888-9999-000000000000";
    const AUDIENCE: &str = "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token";
    const JTI: &str = "01234567-89ab-4cde-8f01-23456789abcd";
    const NOW: WallTime = WallTime::from_unix_millis(1_800_000_000_999);

    fn certificate() -> &'static SigningCertificate {
        static CERTIFICATE: OnceLock<SigningCertificate> = OnceLock::new();
        CERTIFICATE.get_or_init(|| SigningCertificate::from_pem(&rsa().certificate, &rsa().key).unwrap())
    }

    fn made(algorithm: Algorithm) -> String {
        assertion(certificate(), algorithm, CLIENT_ID, AUDIENCE, NOW, JTI).expose().to_owned()
    }

    /// What was signed, its header and claims, and the signature.
    fn taken_apart(jws: &str) -> (String, [Value; 2], Vec<u8>) {
        let octets = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
        let parts: Vec<_> = jws.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("{jws}") };
        let json = [header, claims].map(|part| serde_json::from_slice(&octets(part)).unwrap());
        (format!("{header}.{claims}"), json, octets(signature))
    }

    fn verifies(parameters: &'static RsaParameters, jws: &str) -> bool {
        let der = CertificateDer::from_pem_slice(rsa().certificate.as_bytes()).unwrap();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        let (signed, _, signature) = taken_apart(jws);
        UnparsedPublicKey::new(parameters, parsed.public_key().raw).verify(signed.as_bytes(), &signature).is_ok()
    }

    #[test]
    fn ps256_names_the_certificate_by_sha_256() {
        let jws = made(Algorithm::Ps256);
        let (_, [header, claims], _) = taken_apart(&jws);
        assert_eq!(header, json!({"alg": "PS256", "typ": "JWT", "x5t#S256": certificate().x5t_s256()}));
        assert_eq!(
            claims,
            json!({
                "aud": AUDIENCE, "iss": CLIENT_ID, "sub": CLIENT_ID, "jti": JTI,
                "nbf": 1_799_999_880, "iat": 1_799_999_880, "exp": 1_800_000_480,
            })
        );
        assert!(verifies(&RSA_PSS_2048_8192_SHA256, &jws));
        assert!(!verifies(&RSA_PKCS1_2048_8192_SHA256, &jws));
    }

    #[test]
    fn rs256_names_it_by_sha_1() {
        let jws = made(Algorithm::Rs256);
        let (_, [header, claims], _) = taken_apart(&jws);
        assert_eq!(header, json!({"alg": "RS256", "typ": "JWT", "x5t": certificate().x5t()}));
        assert_eq!(claims, taken_apart(&made(Algorithm::Ps256)).1[1]);
        assert!(verifies(&RSA_PKCS1_2048_8192_SHA256, &jws));
        assert!(!verifies(&RSA_PSS_2048_8192_SHA256, &jws));
    }

    #[test]
    fn a_key_in_pkcs_1_signs_the_same() {
        let other = SigningCertificate::from_pem(&rsa().certificate, &pkcs1(&rsa().key)).unwrap();
        // RS256 has no chance in it.
        let jws = assertion(&other, Algorithm::Rs256, CLIENT_ID, AUDIENCE, NOW, JTI);
        assert_eq!(jws.expose(), made(Algorithm::Rs256));
    }

    #[test]
    fn each_id_is_a_guid_of_its_own() {
        let (one, two) = (new_jti(), new_jti());
        assert_ne!(one, two);
        let lengths: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(one.bytes().all(|octet| matches!(octet, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{one}");
        assert_eq!(&one[14..15], "4");
        assert!("89ab".contains(&one[19..20]), "{one}");
    }

    /// Says that `openssl` is missing; fails where it must be there.
    fn openssl() -> Option<Command> {
        if Command::new("openssl").arg("version").output().is_ok() {
            return Some(Command::new("openssl"));
        }
        assert!(
            std::env::var("REQUIRE_REAL_PEERS").as_deref() != Ok("1"),
            "REQUIRE_REAL_PEERS=1, but there is no openssl"
        );
        eprintln!("skipped: openssl is not installed");
        None
    }

    fn verified_by_openssl(directory: &Path, options: &[&str], jws: &str) -> Option<bool> {
        let file = |name: &str| directory.join(name).display().to_string();
        let (signed, _, signature) = taken_apart(jws);
        std::fs::write(file("certificate"), &rsa().certificate).unwrap();
        std::fs::write(file("signed"), signed).unwrap();
        std::fs::write(file("signature"), signature).unwrap();
        let public = openssl()?.args(["x509", "-in", &file("certificate"), "-pubkey", "-noout"]).output().unwrap();
        assert!(public.status.success(), "{public:?}");
        std::fs::write(file("public"), public.stdout).unwrap();
        let mut verify = openssl()?;
        verify.args(["dgst", "-sha256"]).args(options);
        verify.args(["-verify", &file("public"), "-signature", &file("signature"), &file("signed")]);
        Some(verify.output().unwrap().status.success())
    }

    #[test]
    fn openssl_verifies_both() {
        let directory = tempfile::tempdir().unwrap();
        let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32"];
        for (algorithm, options, right) in
            [(Algorithm::Ps256, &pss[..], true), (Algorithm::Rs256, &[], true), (Algorithm::Rs256, &pss, false)]
        {
            let Some(verified) = verified_by_openssl(directory.path(), options, &made(algorithm)) else { return };
            assert_eq!(verified, right, "{algorithm:?} {options:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_counts_now_whatever_the_clock_and_the_client(millis in any::<i64>(), client_id in any::<String>()) {
            let now = WallTime::from_unix_millis(millis);
            let jws = assertion(certificate(), Algorithm::Rs256, &client_id, AUDIENCE, now, JTI);
            let (_, [_, claims], _) = taken_apart(jws.expose());
            let time = |name: &str| i128::from(claims[name].as_i64().unwrap()) * 1000;
            let millis = i128::from(millis);
            prop_assert!(time("nbf") <= millis && millis < time("exp"));
            prop_assert_eq!(time("exp") - time("nbf"), 600_000);
            prop_assert_eq!(time("iat"), time("nbf"));
            prop_assert_eq!(claims["iss"].as_str(), Some(client_id.as_str()));
            prop_assert_eq!(&claims["sub"], &claims["iss"]);
        }
    }
}
