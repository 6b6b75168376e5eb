//! Sections about the process and the machine: Server, TLS, CPU.

use std::fmt::Write as _;

use carnelian_config::Config;
use carnelian_tls::CertificateInfo;

use super::{Page, View};
use crate::internode;
use crate::listener::Kind;
use crate::settings::given;
use crate::tasks::{CARNELIAN_VERSION, REDIS_VERSION};
use crate::usage::Usage;

pub(super) fn server(view: &View<'_>, page: &mut Page) {
    let (server, config, identity) = (view.server, &view.config, &view.server.identity);
    let system = rustix::system::uname();
    let uptime_s = view.now_ms().saturating_sub(identity.started_ms) / 1000;
    page.field("redis_version", REDIS_VERSION);
    page.field("server_name", "carnelian");
    page.field("carnelian_version", CARNELIAN_VERSION);
    page.field("redis_git_sha1", "00000000");
    page.field("redis_git_dirty", 0);
    page.field("redis_build_id", CARNELIAN_VERSION);
    page.field("redis_mode", "standalone");
    if !config.availability_zone.is_empty() {
        page.field("availability_zone", &config.availability_zone);
    }
    page.field(
        "os",
        format_args!(
            "{} {} {}",
            system.sysname().to_string_lossy(),
            system.release().to_string_lossy(),
            system.machine().to_string_lossy()
        ),
    );
    page.field("arch_bits", usize::BITS);
    page.field("monotonic_clock", "POSIX clock_gettime");
    page.field("multiplexing_api", "epoll");
    page.field("process_id", identity.process_id);
    page.field("process_supervised", if identity.supervised { "systemd" } else { "no" });
    page.field("run_id", &identity.run_id);
    page.field("tcp_port", if config.port != 0 { config.port } else { config.tls_port });
    page.field("server_time_usec", view.now_us);
    page.field("uptime_in_seconds", uptime_s);
    page.field("uptime_in_days", uptime_s / 86_400);
    page.field("hz", server.hz());
    page.field("configured_hz", config.hz);
    page.field("lru_clock", (view.now_ms() / 1000) & 0xff_ffff);
    page.field("executable", identity.executable.display());
    let file = identity.config_file.as_deref().map(|file| file.display().to_string());
    page.field("config_file", file.unwrap_or_default());
    page.field("io_threads_active", u8::from(1 < server.mailboxes.len()));
    let parts_in_ms = view.database.replication.primary.parts_in_ms(view.now_ms());
    if let Some(parts_in_ms) = parts_in_ms {
        page.field("shutdown_in_milliseconds", parts_in_ms);
    }
    let kinds = view.database.listeners.lock().kinds();
    let listeners = [Kind::Tcp, Kind::Unix, Kind::Tls].into_iter();
    for (index, kind) in listeners.filter(|kind| kinds.contains(kind)).enumerate() {
        page.field(format_args!("listener{index}"), listener(config, kind));
    }
    if let Some(left_ms) = view.database.replication.primary.parts_in_ms(view.now_ms()) {
        page.field("shutdown_in_milliseconds", left_ms);
    }
}

fn listener(config: &Config, kind: Kind) -> String {
    let mut text = format!("name={}", kind.name());
    if kind == Kind::Unix {
        let path = given(&config.unixsocket).map(|path| path.display().to_string());
        return text + ",bind=" + &path.unwrap_or_default();
    }
    for address in &config.bind {
        text += ",bind=";
        text += address;
    }
    let port = if kind == Kind::Tls { config.tls_port } else { config.port };
    // Writing to a string does not fail.
    let _ = write!(text, ",port={port}");
    text
}

/// Valkey's fields, and the days that are left.
pub(super) fn tls(view: &View<'_>, page: &mut Page) {
    let configuration = view.database.tls.configuration();
    let now_s = (view.now_ms() / 1000) as i64;
    let mut certificate = |role: &str, info: Option<&CertificateInfo>| {
        let serial = info.map_or_else(|| "none".to_owned(), |info| info.serial.to_uppercase());
        page.field(format_args!("tls_{role}_cert_serial"), serial);
        let left_s = info.map_or(0, |info| info.not_after.saturating_sub(now_s).max(0));
        page.field(format_args!("tls_{role}_cert_expires_in_seconds"), left_s);
        page.field(format_args!("tls_{role}_cert_days_left"), left_s / 86_400);
    };
    let shown = configuration.as_ref().and_then(|it| it.certificates.first());
    certificate("server", shown);
    // Links to other servers are yet to come, and certificates for them.
    certificate("client", None);
    certificate("ca", configuration.as_ref().and_then(|it| it.authority.as_ref()));
}

/// The channel between nodes.
pub(super) fn internode(view: &View<'_>, page: &mut Page) {
    internode::write_figures(view.server, view.database, |name, value| page.field(name, value));
}

pub(super) fn cpu(view: &View<'_>, page: &mut Page) {
    let Usage { user_s, system_s, children_user_s, children_system_s, .. } = view.usage;
    let main = view.server.watch.main_thread().map(|path| Usage::of_thread(path));
    let main = main.unwrap_or_default();
    for (name, seconds) in [
        ("sys", system_s),
        ("user", user_s),
        ("sys_children", children_system_s),
        ("user_children", children_user_s),
        ("sys_main_thread", main.system_s),
        ("user_main_thread", main.user_s),
    ] {
        page.field(format_args!("used_cpu_{name}"), format_args!("{seconds:.6}"));
    }
}
