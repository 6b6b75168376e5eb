//! The table as text: one file, so that what changes together is written together.
//!
//! ```text
//! certificate proxy customer
//! -----BEGIN CERTIFICATE-----
//! ...
//! -----BEGIN PRIVATE KEY-----
//! ...
//! ```

use zeroize::Zeroizing;

use super::table::Entries;
use super::{Certificate, CertificateError, CertificateName, ManagedBy};

const HEAD: &str = "certificate ";

pub(super) fn write(entries: &Entries) -> Zeroizing<String> {
    // Reserved at once: text that moves leaves copies of keys behind.
    let parts = entries.values().map(|entry| {
        let head = format!("{HEAD}{} {}\n", entry.name(), entry.managed_by().as_str());
        (head, entry.certificate_pem(), entry.key_pem().unwrap_or(""))
    });
    let parts: Vec<_> = parts.collect();
    let length = parts.iter().map(|(head, pem, key)| head.len() + pem.len() + key.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(length));
    for (head, pem, key) in &parts {
        text.push_str(head);
        text.push_str(pem);
        text.push_str(key);
    }
    text
}

/// A file of ours is read as a whole or not at all.
pub(super) fn read(text: &str) -> Result<Entries, String> {
    let mut entries = Entries::new();
    let mut rest = text;
    while let Some((head, body, after)) = next(rest)? {
        let entry = entry(head, body)?;
        let name = entry.name();
        if entries.insert(name, std::sync::Arc::new(entry)).is_some() {
            return Err(format!("{name} is there twice"));
        }
        rest = after;
    }
    Ok(entries)
}

/// The first head of a text, what it is about, and the text after that.
fn next(text: &str) -> Result<Option<(&str, &str, &str)>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let rest = text.strip_prefix(HEAD).ok_or("it does not begin with a certificate's name")?;
    let (head, rest) = rest.split_once('\n').ok_or("it is cut short")?;
    let end = rest.find(&format!("\n{HEAD}")).map_or(rest.len(), |place| place + 1);
    let (body, after) = rest.split_at(end);
    Ok(Some((head, body, after)))
}

fn entry(head: &str, body: &str) -> Result<Certificate, String> {
    let text = |error: CertificateError| error.to_string();
    let (name, managed_by) = head.split_once(' ').ok_or("a certificate has no manager")?;
    let name: CertificateName = name.parse().map_err(text)?;
    let managed_by =
        ManagedBy::parse(managed_by).ok_or_else(|| format!("{name} has a manager unknown here"))?;
    let key = name.has_key().then_some(body);
    Certificate::kept(name, managed_by, body, key).map_err(text)
}
