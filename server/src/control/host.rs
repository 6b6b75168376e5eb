//! What there is to say of the machine that this node is on.

use std::net::{IpAddr, Ipv4Addr};

use carnelian_admin::Address;
use carnelian_cluster::state::{NodeFacts, NodeSettings};
use rustix::fs::statvfs;

use super::Member;

/// As the node describes itself to the cluster.
pub fn facts(member: &Member) -> NodeFacts {
    let uname = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let of_release = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned()).unwrap_or_default()
    };
    let (storage, _) = storage(member);
    let folder = member.folder.display().to_string();
    NodeFacts {
        hostname: text(uname.nodename()),
        architecture: text(uname.machine()),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        total_memory: memory().total,
        software_version: SOFTWARE_VERSION.to_owned(),
        os_name: of_release("ID"),
        os_family: text(uname.sysname()),
        os_version: of_release("PRETTY_NAME"),
        os_semantic_version: of_release("VERSION_ID"),
        ephemeral_storage_path: folder.clone(),
        ephemeral_storage_size: storage,
        persistent_storage_path: folder,
        persistent_storage_size: storage,
    }
}

/// The level of Redis Enterprise's interfaces that is on offer: programs ask whether it is 6.2.4 at least.
pub const SOFTWARE_VERSION: &str = "8.0.6-1";

/// Where other nodes reach this one.
pub fn node_settings(member: &Member) -> NodeSettings {
    let config = member.server.config();
    NodeSettings {
        addr: own_address(&config.bind, &config.internode_bind).to_string(),
        internode_port: config.internode_port,
        admin_port: member.admin_port,
        ..NodeSettings::default()
    }
}

/// The first address that is meant: of those for other nodes, else of those for clients.
fn own_address(bind: &[String], internode: &[String]) -> IpAddr {
    let named = internode.iter().chain(bind).filter_map(|word| {
        word.trim_start_matches('-').parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified())
    });
    let named: Vec<IpAddr> = named.collect();
    let first = named.iter().find(|ip| ip.is_ipv4()).or(named.first()).copied();
    first.or_else(outward).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The address that packets to elsewhere would come from. Nothing is sent for this.
fn outward() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Of the block for documentation: it leads wherever the default route does.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// For `available_addrs`.
pub fn addresses(member: &Member) -> Vec<Address> {
    let own = own_address(&member.server.config().bind, &member.server.config().internode_bind);
    let mut all = vec![own];
    all.extend(outward().filter(|address| *address != own));
    all.into_iter()
        .map(|address| Address {
            address,
            interface: if address.is_loopback() { "lo" } else { "" }.to_owned(),
        })
        .collect()
}

pub struct Memory {
    pub total: u64,
    pub free: u64,
    pub available: u64,
}

pub fn memory() -> Memory {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Memory { total: of("MemTotal"), free: of("MemFree"), available: of("MemAvailable") }
}

/// The size of the data folder's file system, and what is free there.
pub fn storage(member: &Member) -> (u64, u64) {
    statvfs(&member.folder)
        .map_or((0, 0), |found| (found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize))
}

/// Seconds that all processors have spent since the machine started: for programs, for the kernel, idle.
pub fn processors() -> (f64, f64, f64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).filter_map(|it| it.parse().ok()).collect();
    // The kernel tells of hundredths of a second, on every machine that we run on.
    let of =
        |places: &[usize]| places.iter().filter_map(|&place| ticks.get(place)).sum::<f64>() / 100.0;
    (of(&[0, 1]), of(&[2, 5, 6]), of(&[3, 4]))
}
