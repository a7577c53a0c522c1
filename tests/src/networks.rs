//! Servers in networks of their own, which can be cut off from each other while clients still reach
//! them: one network namespace each, joined by a bridge.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fermata_jetstream::server::{Placement, cluster_places};

use crate::rights::{must_run, run};

/// Port at which the servers listen for each other; each has an address of its own.
const ROUTE_PORT: u16 = 6222;

/// Networks of some servers; they go with the value.
#[derive(Debug)]
pub struct Networks {
    process: u32,
    servers: u8,
}

impl Networks {
    /// Makes a network for each of so many servers.
    ///
    /// # Panics
    ///
    /// When that fails; see [`crate::rights::network_namespaces`].
    #[must_use]
    pub fn new(servers: u8) -> Self {
        remove_left_over();
        let networks = Self { process: std::process::id(), servers };
        let bridge = networks.bridge();
        must_run(&["ip", "link", "add", &bridge, "type", "bridge"]);
        let own = format!("{}/24", networks.clients());
        must_run(&["ip", "address", "add", &own, "dev", &bridge]);
        must_run(&["ip", "link", "set", &bridge, "up"]);
        for server in 0..servers {
            let (name, link) = (networks.name(server), format!("{bridge}-{server}"));
            let address = format!("{}/24", networks.address(server));
            must_run(&["ip", "netns", "add", &name]);
            let pair = ["type", "veth", "peer", "name", "eth0", "netns", &name];
            must_run(&[&["ip", "link", "add", link.as_str()][..], &pair].concat());
            must_run(&["ip", "link", "set", &link, "master", &bridge, "up"]);
            networks.inside(server, &["address", "add", &address, "dev", "eth0"]);
            networks.inside(server, &["link", "set", "eth0", "up"]);
            networks.inside(server, &["link", "set", "lo", "up"]);
        }
        networks
    }

    /// Where the servers are to run.
    #[must_use]
    pub fn places(&self) -> Vec<Placement> {
        let listen = |server| SocketAddr::new(IpAddr::V4(self.address(server)), ROUTE_PORT);
        let mut places = cluster_places((0..self.servers).map(listen).collect());
        for (place, server) in places.iter_mut().zip(0..) {
            place.launcher = ["ip", "netns", "exec", &self.name(server)].map(str::to_owned).into();
        }
        places
    }

    /// Cuts a server off from the others, both ways; clients reach it still.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn cut_off(&self, server: u8) {
        self.routes("add", server);
    }

    /// Undoes that.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn join_again(&self, server: u8) {
        self.routes("del", server);
    }

    fn routes(&self, verb: &str, server: u8) {
        for other in (0..self.servers).filter(|other| *other != server) {
            for (from, to) in [(server, other), (other, server)] {
                self.inside(from, &["route", verb, "blackhole", &self.address(to).to_string()]);
            }
        }
    }

    fn inside(&self, server: u8, words: &[&str]) {
        let name = self.name(server);
        must_run(&[&["ip", "-n", name.as_str()][..], words].concat());
    }

    fn bridge(&self) -> String {
        format!("fm{}", self.process)
    }

    fn name(&self, server: u8) -> String {
        format!("fermata-{}-{server}", self.process)
    }

    /// 198.18.0.0/15 is set aside for measurements (RFC 2544): nobody's real address.
    fn network(&self) -> [u8; 3] {
        let [.., third] = self.process.to_be_bytes();
        [198, 18, third]
    }

    fn clients(&self) -> Ipv4Addr {
        let [a, b, c] = self.network();
        Ipv4Addr::new(a, b, c, 254)
    }

    fn address(&self, server: u8) -> Ipv4Addr {
        let [a, b, c] = self.network();
        Ipv4Addr::new(a, b, c, server + 1)
    }
}

/// Removes what a process left that was killed: its addresses would be in the way.
fn remove_left_over() {
    let names = must_run(&["ip", "netns", "list"]);
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        let process = name.strip_prefix("fermata-").and_then(|rest| rest.split('-').next());
        let Some(process) = process.and_then(|process| process.parse::<u32>().ok()) else {
            continue;
        };
        if !std::path::Path::new(&format!("/proc/{process}")).exists() {
            let _ = run(&["ip", "netns", "del", name]);
            let _ = run(&["ip", "link", "del", &format!("fm{process}")]);
        }
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for server in 0..self.servers {
            let _ = run(&["ip", "netns", "del", &self.name(server)]);
        }
        let _ = run(&["ip", "link", "del", &self.bridge()]);
    }
}
