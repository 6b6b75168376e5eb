//! Private keys as operators have them: PKCS#8, PKCS#1 and SEC1, plain or under a password in
//! either of OpenSSL's two ways (PKCS#8 with PBES2, which is today's, and the traditional
//! `Proc-Type: 4,ENCRYPTED`).

use std::num::NonZeroU32;
use std::path::Path;

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use md5::{Digest, Md5};
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::der::{INTEGER, OBJECT_ID, OCTET_STRING, Reader, SEQUENCE, small_integer};
use crate::error::ConfigError;
use crate::provider::provider;
use crate::{describe, store};

/// OpenSSL makes keys with 2048 rounds, the careful ask for a million.
const ROUNDS_MAX: u32 = 10_000_000;

/// Reads the first private key of a PEM file.
pub(crate) fn load(
    path: &Path,
    password: Option<&str>,
) -> Result<PrivateKeyDer<'static>, ConfigError> {
    let contents = store::read(path)?;
    parse(&contents, password).map_err(|problem| problem.of(path))
}

/// The first private key of a text, with its PEM section as it stands there. It must be usable as it
/// is; why it is not carries nothing of the key.
pub(crate) fn plain_in(text: &str) -> Result<(PrivateKeyDer<'static>, Zeroizing<String>), String> {
    let key = parse(text.as_bytes(), None).map_err(|problem| match problem {
        Problem::None => {
            "no private key in it (expected PEM, BEGIN PRIVATE KEY or the like)".into()
        }
        Problem::NeedsPassword | Problem::WrongPassword => {
            "the private key is encrypted: decrypt it first".to_owned()
        }
        Problem::Pem(reason) => format!("the private key is damaged PEM: {reason}"),
        Problem::Unusable(reason) => format!("the private key is not usable: {reason}"),
    })?;
    let mut section = Zeroizing::new(String::with_capacity(text.len()));
    let mut is_inside = false;
    for line in text.lines().map(str::trim_end) {
        is_inside |= line.starts_with("-----BEGIN ") && line.ends_with("PRIVATE KEY-----");
        if !is_inside {
            continue;
        }
        section.push_str(line);
        section.push('\n');
        if line.starts_with("-----END ") {
            break;
        }
    }
    Ok((key, section))
}

/// Checks that `key` can sign and is the one `certificate` was made for.
///
/// Compares the public keys themselves: the engine's own check will not look at the X.509 version 1
/// certificates that `openssl x509 -req` makes when it is given no extensions.
pub(crate) fn check_pair(
    certificate: &CertificateDer<'_>,
    path: &Path,
    key: &PrivateKeyDer<'static>,
    key_path: &Path,
) -> Result<(), ConfigError> {
    let bad = |reason: String| ConfigError::BadCertificate { path: path.to_owned(), reason };
    let parsed = describe::parse(certificate).map_err(|error| bad(error.0))?;
    let signer = provider().key_provider.load_private_key(key.clone_key()).map_err(|error| {
        ConfigError::BadPrivateKey { path: key_path.to_owned(), reason: error.to_string() }
    })?;
    match signer.public_key() {
        Some(public) if public.as_ref() != parsed.public_key().raw => {
            Err(ConfigError::KeyMismatch { certificate: path.to_owned(), key: key_path.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Why there is no key to be had.
#[derive(Debug, Eq, PartialEq)]
enum Problem {
    None,
    NeedsPassword,
    WrongPassword,
    Pem(String),
    Unusable(String),
}

impl Problem {
    fn of(self, path: &Path) -> ConfigError {
        let path = path.to_owned();
        match self {
            Self::None => ConfigError::NoPrivateKey { path },
            Self::NeedsPassword => ConfigError::KeyNeedsPassword { path },
            Self::WrongPassword => ConfigError::WrongKeyPassword { path },
            Self::Pem(reason) => ConfigError::BadPem { path, reason },
            Self::Unusable(reason) => ConfigError::BadPrivateKey { path, reason },
        }
    }

    fn damaged() -> Self {
        Self::Unusable("its encryption header is damaged".into())
    }
}

fn parse(contents: &[u8], password: Option<&str>) -> Result<PrivateKeyDer<'static>, Problem> {
    let text = String::from_utf8_lossy(contents);
    let Some(section) = Section::first_private_key(&text) else {
        return Err(Problem::None);
    };
    let body = section.decode()?;
    if section.label == "ENCRYPTED PRIVATE KEY" {
        let password = password.ok_or(Problem::NeedsPassword)?;
        let key = decrypt_pkcs8(&body, password.as_bytes())?;
        return Ok(PrivatePkcs8KeyDer::from(key).into());
    }
    let body = match section.encryption()? {
        None => body,
        Some((algorithm, iv)) => {
            let password = password.ok_or(Problem::NeedsPassword)?;
            let key = traditional_key(password.as_bytes(), &iv, algorithm.length);
            decrypt(algorithm.cipher, &key, &iv, body)?
        }
    };
    Ok(match section.label {
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(body.into()),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(body.into()),
        _ => PrivateKeyDer::Pkcs8(body.into()),
    })
}

/// One PEM section: its label, the header lines RFC 1421 allows, and the base64 lines.
struct Section<'a> {
    label: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: Vec<&'a str>,
}

impl<'a> Section<'a> {
    fn first_private_key(text: &'a str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim_end);
        let label = lines.by_ref().find_map(|line| {
            let label = line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
            label.ends_with("PRIVATE KEY").then_some(label)
        })?;
        let mut section = Section { label, headers: Vec::new(), body: Vec::new() };
        for line in lines.take_while(|line| !line.starts_with("-----")) {
            match line.split_once(':') {
                Some((name, value)) => section.headers.push((name.trim(), value.trim())),
                None => section.body.push(line),
            }
        }
        Some(section)
    }

    /// Decodes the body, through the PEM reader of the TLS library (which knows no headers).
    fn decode(&self) -> Result<Vec<u8>, Problem> {
        let mut bare = String::from("-----BEGIN PRIVATE KEY-----\n");
        self.body.iter().for_each(|line| bare.extend([line, "\n"]));
        bare.push_str("-----END PRIVATE KEY-----\n");
        <(SectionKind, Vec<u8>)>::from_pem_slice(bare.as_bytes())
            .map(|(_, bytes)| bytes)
            .map_err(|error| Problem::Pem(store::reason(&error)))
    }

    /// The cipher and initial vector of a traditional encrypted key.
    fn encryption(&self) -> Result<Option<(TraditionalCipher, Vec<u8>)>, Problem> {
        let header =
            |name| self.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
        match header("Proc-Type") {
            Some(value) if value.ends_with("ENCRYPTED") => {}
            _ => return Ok(None),
        }
        let info = header("DEK-Info").ok_or_else(Problem::damaged)?;
        let (name, iv) = info.split_once(',').ok_or_else(Problem::damaged)?;
        let (cipher, length) = match name.trim() {
            "AES-128-CBC" => (&AES_128, 16),
            "AES-192-CBC" => (&AES_192, 24),
            "AES-256-CBC" => (&AES_256, 32),
            "DES-EDE3-CBC" => (triple_des(), 24),
            other => return Err(unknown_cipher(other)),
        };
        let iv =
            describe::unhex(iv.trim()).filter(|iv| 8 <= iv.len()).ok_or_else(Problem::damaged)?;
        Ok(Some((TraditionalCipher { cipher, length }, iv)))
    }
}

struct TraditionalCipher {
    cipher: &'static Algorithm,
    length: usize,
}

/// OpenSSL's first key derivation: MD5 over what came before, the password and the salt (the first
/// half of an AES vector), until there is enough.
fn traditional_key(password: &[u8], iv: &[u8], length: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(length + 16);
    let mut last: Vec<u8> = Vec::new();
    while key.len() < length {
        last = Md5::new()
            .chain_update(&last)
            .chain_update(password)
            .chain_update(&iv[..8])
            .finalize()
            .to_vec();
        key.extend_from_slice(&last);
    }
    key.truncate(length);
    key
}

/// `EncryptedPrivateKeyInfo` (RFC 5958) with PBES2 (RFC 8018).
fn decrypt_pkcs8(der: &[u8], password: &[u8]) -> Result<Vec<u8>, Problem> {
    let envelope = Pbes2::parse(der)??;
    let mut key = vec![0; envelope.key_length];
    pbkdf2::derive(envelope.hash, envelope.rounds, envelope.salt, password, &mut key);
    decrypt(envelope.cipher, &key, envelope.iv, envelope.contents.to_vec())
}

struct Pbes2<'a> {
    hash: pbkdf2::Algorithm,
    rounds: NonZeroU32,
    salt: &'a [u8],
    cipher: &'static Algorithm,
    key_length: usize,
    iv: &'a [u8],
    contents: &'a [u8],
}

const OID_PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const OID_PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
const OID_HMAC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02];
const OID_AES_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
const OID_DES_EDE3_CBC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x03, 0x07];

impl<'a> Pbes2<'a> {
    /// Damage is the outer error, a scheme unknown here the inner one.
    fn parse(der: &'a [u8]) -> Result<Result<Self, Problem>, Problem> {
        Self::read(der).ok_or_else(Problem::damaged)
    }

    fn read(der: &'a [u8]) -> Option<Result<Self, Problem>> {
        let mut outer = Reader::new(der).sequence()?;
        let mut scheme = outer.sequence()?;
        let contents = outer.value(OCTET_STRING)?;
        if scheme.value(OBJECT_ID)? != OID_PBES2 {
            return Some(Err(unknown_cipher("an older scheme than PBES2")));
        }
        let mut parameters = scheme.sequence()?;
        let mut derivation = parameters.sequence()?;
        let mut encryption = parameters.sequence()?;

        if derivation.value(OBJECT_ID)? != OID_PBKDF2 {
            return Some(Err(unknown_cipher("a key derivation that is not PBKDF2")));
        }
        let mut derivation = derivation.sequence()?;
        let salt = derivation.value(OCTET_STRING)?;
        let rounds = NonZeroU32::new(small_integer(derivation.value(INTEGER)?)?)?;
        if ROUNDS_MAX < rounds.get() {
            return Some(Err(Problem::Unusable(format!("{rounds} rounds of PBKDF2 are too many"))));
        }
        if derivation.peek() == Some(INTEGER) {
            derivation.value(INTEGER)?; // the key length, which the cipher says as well
        }
        // Without a hash named, it is SHA-1.
        let hash = match derivation.peek() {
            Some(SEQUENCE) => derivation.sequence()?.value(OBJECT_ID)?.strip_prefix(OID_HMAC)?,
            _ => &[7],
        };
        let hash = match hash {
            [7] => pbkdf2::PBKDF2_HMAC_SHA1,
            [9] => pbkdf2::PBKDF2_HMAC_SHA256,
            [10] => pbkdf2::PBKDF2_HMAC_SHA384,
            [11] => pbkdf2::PBKDF2_HMAC_SHA512,
            _ => return Some(Err(unknown_cipher("a hash other than SHA-1 or SHA-2"))),
        };

        let (cipher, key_length) = match encryption.value(OBJECT_ID)? {
            OID_DES_EDE3_CBC => (triple_des(), 24),
            id => match id.strip_prefix(OID_AES_CBC) {
                Some([2]) => (&AES_128, 16),
                Some([22]) => (&AES_192, 24),
                Some([42]) => (&AES_256, 32),
                _ => return Some(Err(unknown_cipher("a cipher other than AES-CBC or 3DES-CBC"))),
            },
        };
        let iv = encryption.value(OCTET_STRING)?;
        Some(Ok(Self { hash, rounds, salt, cipher, key_length, iv, contents }))
    }
}

/// CBC with PKCS#7 padding. A wrong password shows as wrong padding or, once in 256 times, as
/// something that is no DER sequence of the right length.
fn decrypt(
    algorithm: &'static Algorithm,
    key: &[u8],
    iv: &[u8],
    mut contents: Vec<u8>,
) -> Result<Vec<u8>, Problem> {
    let key = UnboundCipherKey::new(algorithm, key)
        .and_then(PaddedBlockDecryptingKey::cbc_pkcs7)
        .map_err(|_| Problem::WrongPassword)?;
    let context = match iv.len() {
        16 => FixedLength::try_from(iv).map(DecryptionContext::Iv128),
        _ => FixedLength::try_from(iv).map(DecryptionContext::Iv64),
    };
    let context = context.map_err(|_| Problem::damaged())?;
    let plain = key.decrypt(&mut contents, context).map_err(|_| Problem::WrongPassword)?;
    let mut reader = Reader::new(plain);
    match reader.sequence().is_some() && reader.is_empty() {
        true => Ok(plain.to_vec()),
        false => Err(Problem::WrongPassword),
    }
}

fn triple_des() -> &'static Algorithm {
    // Deprecated for encrypting; this only opens what an operator encrypted long ago.
    #[allow(deprecated)]
    let cipher = &aws_lc_rs::cipher::DES_EDE3_FOR_LEGACY_USE_ONLY;
    cipher
}

fn unknown_cipher(name: &str) -> Problem {
    Problem::Unusable(format!(
        "it is encrypted with {name}; `openssl pkey -aes256` writes it in a form that can be read"
    ))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;
    use crate::issue::KeyKind;
    use crate::testing::{Openssl, authority};

    fn load_all(
        folder: &Path,
        password: Option<&str>,
    ) -> Vec<Result<PrivateKeyDer<'static>, String>> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names.iter().map(|path| load(path, password).map_err(|error| error.to_string())).collect()
    }

    #[test]
    fn every_plain_form_is_read() {
        let Some(openssl) = Openssl::new() else { return };
        openssl.run("genrsa -out rsa.key 2048");
        openssl.run("rsa -in rsa.key -traditional -out pkcs1.key");
        openssl.run("ecparam -name prime256v1 -genkey -out sec1.key");
        openssl.run("genpkey -algorithm ed25519 -out ed.key");
        for key in load_all(openssl.folder(), None) {
            provider().key_provider.load_private_key(key.unwrap()).unwrap();
        }
    }

    #[test]
    fn encrypted_keys_open_with_their_password_only() {
        let Some(openssl) = Openssl::new() else { return };
        openssl.run("genrsa -out plain 2048");
        let plain = fs::read(openssl.folder().join("plain")).unwrap();
        fs::remove_file(openssl.folder().join("plain")).unwrap();
        for (name, arguments) in [
            ("a", "rsa -aes256"),
            ("b", "pkey -aes128"),
            ("c", "rsa -traditional -aes256"),
            ("d", "rsa -traditional -aes192"),
            ("e", "rsa -traditional -aes128"),
            ("f", "rsa -traditional -des3"),
            ("g", "pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA1 -iter 5000"),
            ("h", "pkcs8 -topk8 -v2 des3"),
            ("i", "pkcs8 -topk8 -v2 aes-192-cbc -v2prf hmacWithSHA512"),
        ] {
            openssl.run_with_input(&format!("{arguments} -passout pass:1234 -out {name}"), &plain);
        }
        let expected = parse(&plain, None).unwrap();
        let signer = provider().key_provider.load_private_key(expected).unwrap();
        for key in load_all(openssl.folder(), Some("1234")) {
            let opened = provider().key_provider.load_private_key(key.unwrap()).unwrap();
            assert_eq!(opened.public_key(), signer.public_key());
        }
        for error in load_all(openssl.folder(), Some("12345")) {
            assert!(error.unwrap_err().contains("does not open with this tls-key-file-pass"));
        }
        for error in load_all(openssl.folder(), None) {
            assert!(error.unwrap_err().contains("tls-key-file-pass is not set"));
        }
    }

    #[test]
    fn schemes_unknown_here_are_named() {
        let Some(openssl) = Openssl::new() else { return };
        openssl.run("genrsa -out plain 2048");
        openssl.run("pkcs8 -topk8 -scrypt -in plain -passout pass:1 -out scrypt");
        let error = load(&openssl.folder().join("scrypt"), Some("1")).unwrap_err().to_string();
        assert!(error.contains("not PBKDF2") && error.contains("openssl pkey -aes256"), "{error}");
    }

    #[test]
    fn damaged_keys_are_errors() {
        let header = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";
        for damaged in [
            format!("{header}\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
            format!("{header}DEK-Info: AES-256-CBC,00\n\nAAAA\n"),
            format!("{header}DEK-Info: AES-256-CBC,zz\n\nAAAA\n"),
            format!("{header}DEK-Info: AES-256-CBC,0011223344556677\n\nAAAA\n"),
            format!("{header}DEK-Info: RC2,0011223344556677\n\nAAAA\n"),
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----"
                .into(),
            "-----BEGIN PRIVATE KEY-----\n??\n-----END PRIVATE KEY-----".into(),
        ] {
            assert!(parse(damaged.as_bytes(), Some("x")).is_err(), "{damaged}");
        }
        assert_eq!(parse(b"", None).unwrap_err(), Problem::None);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (_folder, authority) = authority();
        let names = crate::issue::SubjectAltNames::of(["localhost"]).unwrap();
        let now = SystemTime::now();
        let one = authority.issue_server(&names, KeyKind::EcdsaP256, now).unwrap();
        let two = authority.issue_server(&names, KeyKind::EcdsaP256, now).unwrap();
        let check = |key| check_pair(&one.certificate, Path::new("c"), key, Path::new("k"));
        assert!(check(&one.key).is_ok());
        let error = check(&two.key).unwrap_err().to_string();
        assert_eq!(error, "c and k do not belong together: the key is not the certificate's");
    }
}
