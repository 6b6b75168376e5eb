//! DER by hand, for what no library makes: names of any bytes, and keys that nobody has. Certificates are forged with
//! it here, and by the library's own tests.

use rcgen::{CustomExtension, PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm};

/// Tags of subject alternative names.
pub const EMAIL: u8 = 0x81;
pub const DNS: u8 = 0x82;
pub const URI: u8 = 0x86;
pub const IP: u8 = 0x87;

/// A value of DER.
pub fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut whole = vec![tag];
    match contents.len() {
        length @ 0..=0x7f => whole.push(length as u8),
        length => {
            whole.push(0x82);
            whole.extend((length as u16).to_be_bytes());
        }
    }
    whole.extend(contents);
    whole
}

/// Subject alternative names of any bytes.
pub fn names(names: &[(u8, &[u8])]) -> CustomExtension {
    let all: Vec<u8> = names.iter().flat_map(|(tag, name)| der(*tag, name)).collect();
    CustomExtension::from_oid_content(&[2, 5, 29, 17], der(0x30, &all))
}

/// A public key of RSA to which nobody has the private one.
pub struct PublicOnly {
    der: Vec<u8>,
}

impl PublicOnly {
    /// With a modulus of so many bits.
    pub fn rsa(bits: usize) -> Self {
        let mut modulus = vec![0xa5; bits.div_ceil(8)];
        modulus[0] = 0xff >> (8 * modulus.len() - bits);
        let sign: &[u8] = if bits.is_multiple_of(8) { &[0] } else { &[] };
        let integer = [sign, &modulus].concat();
        Self { der: der(0x30, &[der(2, &integer), der(2, &[1, 0, 1])].concat()) }
    }
}

impl PublicKeyData for PublicOnly {
    fn der_bytes(&self) -> &[u8] {
        &self.der
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}
