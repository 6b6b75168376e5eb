//! What a client's certificate says of the client: whether it may use the database at all, and by
//! `tls-auth-clients-user` which user it is.

use carnelian_tls::TlsSession;
use rustls::pki_types::CertificateDer;

use super::check::Reason;
use super::log::Origin;
use super::{Acl, report_names};
use crate::registry::Registry;
use crate::session::{Session, Worker};
use crate::settings::CertificateUser;

/// Whether who a verified certificate is for may use the database. Who shows none was not asked for one.
pub fn admits(session: &Session, tls: &TlsSession) -> bool {
    let Some([certificate, ..]) = tls.peer_certificates() else { return true };
    let spec = session.database.spec.load();
    spec.as_ref().is_none_or(|spec| spec.client_subjects.admit(certificate))
}

/// Makes a connection whose handshake has just finished the user that its certificate names. The
/// certificate has been verified; one that names nobody leaves the connection as it was.
pub fn log_in(worker: &Worker, session: &mut Session, tls: &TlsSession) {
    if let Some([certificate, ..]) = tls.peer_certificates() {
        log_in_by(worker, session, certificate);
    }
}

/// The same for one that another node of the cluster has verified.
pub fn log_in_by(worker: &Worker, session: &mut Session, certificate: &CertificateDer<'_>) {
    session.refresh_settings();
    let field = session.settings.certificate_user;
    if field == CertificateUser::Off {
        return;
    }
    let Ok(names) = carnelian_tls::client_names(certificate) else { return };
    let names = match field {
        CertificateUser::CommonName => names.common_name.into_iter().collect(),
        _ => names.uris,
    };
    let found = names.iter().find_map(|name| named(&session.database.acl, name));
    match (found, names.first()) {
        (Some(user), _) => session.log_in(user),
        (None, Some(name)) => {
            let registry: &Registry = &worker.server.registry;
            let name = name.as_bytes();
            report_names(
                worker,
                session,
                registry,
                Reason::Certificate,
                Origin::TopLevel,
                b"",
                name,
            );
        }
        (None, None) => {}
    }
}

/// The user with exactly this name, if clients may be it. No user's name has a NUL in it.
fn named(acl: &Acl, name: &str) -> Option<std::sync::Arc<super::User>> {
    acl.find(name.as_bytes()).filter(|user| user.enabled)
}
