//! Servers in networks of their own, which can be cut off from each other while clients still reach
//! them: one network namespace each, joined by a bridge. Or workers, of which what they say or what
//! they are told is lost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use fermata_jetstream::server::{Placement, cluster_places};

use crate::rights::{must_run, run};

/// How long a word may take to be heard.
const WORD_LIMIT: Duration = Duration::from_millis(1_500);

/// Port at which the servers listen for each other; each has an address of its own.
const ROUTE_PORT: u16 = 6222;

/// Set aside for measurements (RFC 2544): nobody's real addresses.
pub const NETWORKS: &str = "198.18.0.0/15";

/// Where what is sent is lost: an address of no network card, which the bridge carries to everybody
/// and nobody takes. The sender is told nothing, as on a broken line.
const NOBODY: &str = "02:00:00:00:00:01";

/// Networks of some servers, or of some workers; they go with the value.
#[derive(Debug)]
pub struct Networks {
    process: u32,
    servers: u8,
}

impl Networks {
    /// Makes a network for each of so many.
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
            place.launcher = self.launcher(server);
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

    /// Address of this machine outside of the networks, by which those inside reach it.
    #[must_use]
    pub fn outside(&self) -> IpAddr {
        IpAddr::V4(self.clients())
    }

    /// Program and arguments that start what is to run inside a network.
    #[must_use]
    pub fn launcher(&self, network: u8) -> Vec<String> {
        ["ip", "netns", "exec", &self.name(network)].map(str::to_owned).into()
    }

    /// Loses what is sent from outside into a network; what is sent out of it arrives.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn deafen(&self, network: u8) {
        let (address, bridge) = (self.address(network).to_string(), self.bridge());
        must_run(&[&["ip"], &lost(&address, &bridge)[..]].concat());
    }

    /// Loses what is sent out of a network; what is sent into it arrives.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn mute(&self, network: u8) {
        self.inside(network, &lost(&self.clients().to_string(), "eth0"));
    }

    /// Undoes either.
    ///
    /// # Panics
    ///
    /// When nothing is lost.
    pub fn mend(&self, network: u8) {
        let (address, bridge) = (self.address(network).to_string(), self.bridge());
        let outside = run(&["ip", "neigh", "del", &address, "dev", &bridge]);
        let (name, clients) = (self.name(network), self.clients().to_string());
        let inside = run(&["ip", "-n", &name, "neigh", "del", &clients, "dev", "eth0"]);
        assert!(outside.is_ok() || inside.is_ok(), "{outside:?} {inside:?}");
    }

    /// Sends a word out of a network, and one back: whether the first arrived, and the second.
    ///
    /// # Panics
    ///
    /// When there is no free port.
    #[must_use]
    pub fn is_heard_and_answered(&self, network: u8) -> (bool, bool) {
        let listener = UdpSocket::bind((self.clients(), 0)).expect("a free port");
        listener.set_read_timeout(Some(WORD_LIMIT)).expect("a limit");
        let port = listener.local_addr().expect("an address").port();
        let ask = format!(
            "exec 3<>/dev/udp/{}/{port}; echo word >&3; read -t 1 -n 1 word <&3",
            self.clients()
        );
        let name = self.name(network);
        let asked = std::thread::spawn(move || {
            run(&["ip", "netns", "exec", &name, "bash", "-c", &ask]).is_ok()
        });
        let mut word = [0; 16];
        let heard = listener.recv_from(&mut word);
        if let Ok((_, from)) = heard {
            // That it cannot be sent is that it does not arrive.
            let _ = listener.send_to(b"word\n", from);
        }
        (heard.is_ok(), asked.join().expect("a thread that does not panic"))
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

    /// Within [`NETWORKS`].
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

fn lost<'a>(address: &'a str, device: &'a str) -> [&'a str; 9] {
    ["neigh", "replace", address, "lladdr", NOBODY, "dev", device, "nud", "permanent"]
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
