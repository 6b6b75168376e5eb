//! Namespaces of the kernel's network, one for each node, on a bridge that the tool itself is on too.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where clients are, and the nodes' addresses begin.
const SUBNET: &str = "10.213.7";
const BRIDGE: &str = "sim-bridge";

pub struct Net {
    count: u8,
}

fn ip(words: &str) -> Result<()> {
    let mut command = Command::new("ip");
    let output = command.args(words.split(' ')).output().context("the program ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {words}: {said}");
    Ok(())
}

impl Net {
    pub fn new(count: u8) -> Result<Self> {
        let net = Self { count };
        net.remove();
        ip(&format!("link add {BRIDGE} type bridge"))?;
        ip(&format!("addr add {SUBNET}.254/24 dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        for place in 0..count {
            let name = Self::name(place);
            ip(&format!("netns add {name}"))?;
            ip(&format!("link add {name}-v type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set {name}-v master {BRIDGE} up"))?;
            let address = Self::address(place);
            ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(net)
    }

    pub fn name(place: u8) -> String {
        format!("sim-{}", place + 1)
    }

    pub fn address(place: u8) -> String {
        format!("{SUBNET}.{}", place + 1)
    }

    /// Between one node and all others nothing gets through; clients still reach it.
    pub fn isolate(&self, place: u8) -> Result<()> {
        self.cut(place, "add")
    }

    pub fn heal(&self, place: u8) -> Result<()> {
        self.cut(place, "del")
    }

    fn cut(&self, place: u8, verb: &str) -> Result<()> {
        for other in (0..self.count).filter(|other| *other != place) {
            for (from, to) in [(place, other), (other, place)] {
                let (from, to) = (Self::name(from), Self::address(to));
                ip(&format!("-n {from} route {verb} blackhole {to}/32"))?;
            }
        }
        Ok(())
    }

    fn remove(&self) {
        for place in 0..self.count {
            let _ = ip(&format!("netns del {}", Self::name(place)));
            let _ = ip(&format!("link del {}-v", Self::name(place)));
        }
        let _ = ip(&format!("link del {BRIDGE}"));
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.remove();
    }
}
