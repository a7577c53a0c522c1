//! Servers in networks of their own, which can be cut off from each other while clients still reach
//! them: one network namespace each, joined by a bridge. Or workers, of which what they say or what
//! they are told is lost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fermata_jetstream::server::{Placement, cluster_places};

use crate::rights::{must_run, own_names, run};

/// How long a word may take to be heard.
const WORD_LIMIT: Duration = Duration::from_millis(1_500);

/// How long it is asked again where a word is to arrive: a busy machine starts late who sends it.
const ARRIVE_LIMIT: Duration = Duration::from_secs(20);

/// Port at which the servers listen for each other; each has an address of its own.
const ROUTE_PORT: u16 = 6222;

/// Set aside for measurements (RFC 2544): nobody's real addresses.
pub const NETWORKS: &str = "198.18.0.0/15";

/// How many there are of 256 addresses each, and where they begin.
const NETWORKS_MAX: u32 = 512;
const NETWORKS_BEGIN: [u8; 2] = [198, 18];

/// Where what is sent is lost: an address of no network card, which the bridge carries to everybody
/// and nobody takes. The sender is told nothing, as on a broken line.
const NOBODY: &str = "02:00:00:00:00:01";

/// Networks of some servers and some workers, counted in this order; they go with the value. A
/// process has only one of these at a time, and others wait.
#[derive(Debug)]
pub struct Networks {
    process: u32,
    /// What its addresses begin with.
    network: [u8; 3],
    servers: u8,
    workers: u8,
    lost: Mutex<Vec<Lost>>,
    _names: MutexGuard<'static, ()>,
}

/// Because of one network, what is sent to another cannot leave where it is sent from.
#[derive(Debug, Clone, Copy)]
struct Lost {
    because_of: u8,
    /// A network; absent is outside of all.
    from: Option<u8>,
    to: Option<u8>,
}

impl Lost {
    fn is_the_same_line(&self, other: &Self) -> bool {
        (self.from, self.to) == (other.from, other.to)
    }
}

impl Networks {
    /// Makes a network for each of so many servers and workers.
    ///
    /// # Panics
    ///
    /// When that fails; see [`crate::rights::network_namespaces`].
    #[must_use]
    pub fn new(servers: u8, workers: u8) -> Self {
        let names = own_names();
        remove_left_over();
        let process = std::process::id();
        let network = free_network(process);
        let lost = Mutex::default();
        let networks = Self { process, network, servers, workers, lost, _names: names };
        let bridge = networks.bridge();
        must_run(&["ip", "link", "add", &bridge, "type", "bridge"]);
        let own = format!("{}/24", networks.clients());
        must_run(&["ip", "address", "add", &own, "dev", &bridge]);
        must_run(&["ip", "link", "set", &bridge, "up"]);
        for network in networks.all() {
            let (name, link) = (networks.name(network), format!("{bridge}-{network}"));
            let address = format!("{}/24", networks.address(network));
            must_run(&["ip", "netns", "add", &name]);
            let pair = ["type", "veth", "peer", "name", "eth0", "netns", &name];
            must_run(&[&["ip", "link", "add", link.as_str()][..], &pair].concat());
            must_run(&["ip", "link", "set", &link, "master", &bridge, "up"]);
            networks.inside(network, &["address", "add", &address, "dev", "eth0"]);
            networks.inside(network, &["link", "set", "eth0", "up"]);
            networks.inside(network, &["link", "set", "lo", "up"]);
        }
        networks
    }

    /// Where a server is to run that is alone.
    #[must_use]
    pub fn place_alone(&self) -> Placement {
        let (address, launcher) = (IpAddr::V4(self.address(0)), self.launcher(0));
        Placement { address, launcher, ..Placement::default() }
    }

    /// The network of a worker.
    #[must_use]
    pub fn of_worker(&self, worker: u8) -> u8 {
        self.servers + worker
    }

    /// Where the servers of a cluster are to run.
    #[must_use]
    pub fn places(&self) -> Vec<Placement> {
        let listen = |server| SocketAddr::new(IpAddr::V4(self.address(server)), ROUTE_PORT);
        let mut places = cluster_places((0..self.servers).map(listen).collect());
        for (place, server) in places.iter_mut().zip(0..) {
            place.launcher = self.launcher(server);
        }
        places
    }

    /// Cuts a server off from the other servers, both ways; clients reach it still.
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

    /// Loses what is sent into a network; what is sent out of it arrives.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn deafen(&self, network: u8) {
        let lines = self.others(network).map(|from| (from, Some(network)));
        self.lose(network, lines);
    }

    /// Loses what is sent out of a network; what is sent into it arrives.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn mute(&self, network: u8) {
        let lines = self.others(network).map(|to| (Some(network), to));
        self.lose(network, lines);
    }

    /// Undoes either.
    ///
    /// # Panics
    ///
    /// When nothing is lost because of this network, or that fails.
    pub fn mend(&self, network: u8) {
        let mut lost = self.lost();
        let (mended, rest): (Vec<_>, Vec<_>) =
            lost.iter().copied().partition(|line| line.because_of == network);
        assert!(!mended.is_empty(), "network {network} loses nothing");
        for line in mended.iter().filter(|line| !rest.iter().any(|it| it.is_the_same_line(line))) {
            let (address, device) = (self.address_of(line.to), self.device(line.from));
            self.within(line.from, &["neigh", "del", &address.to_string(), "dev", &device]);
        }
        *lost = rest;
    }

    fn lose(&self, network: u8, lines: impl Iterator<Item = (Option<u8>, Option<u8>)>) {
        let mut lost = self.lost();
        for (from, to) in lines {
            let (address, device) = (self.address_of(to), self.device(from));
            let nobody = ["lladdr", NOBODY, "dev", &device, "nud", "permanent"];
            let address = address.to_string();
            self.within(from, &[&["neigh", "replace", address.as_str()][..], &nobody].concat());
            lost.push(Lost { because_of: network, from, to });
        }
    }

    /// Every network but this one, and outside.
    fn others(&self, network: u8) -> impl Iterator<Item = Option<u8>> {
        self.all().filter(move |other| *other != network).map(Some).chain([None])
    }

    fn lost(&self) -> MutexGuard<'_, Vec<Lost>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a word out of a network, and one back: the first arrives or does not, and so does the
    /// second. What is to arrive is sent again for 20 s.
    ///
    /// # Panics
    ///
    /// When it is otherwise, or there is no free port.
    pub fn assert_heard_and_answered(&self, network: u8, expected: (bool, bool)) {
        let begun = Instant::now();
        loop {
            let found = self.is_heard_and_answered(network);
            let is_missing = (expected.0 && !found.0) || (expected.1 && !found.1);
            if !is_missing || begun.elapsed() > ARRIVE_LIMIT {
                return assert_eq!(found, expected, "network {network} is heard and answered");
            }
        }
    }

    /// Whether the first word arrived, and the second.
    fn is_heard_and_answered(&self, network: u8) -> (bool, bool) {
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

    fn all(&self) -> std::ops::Range<u8> {
        0..self.servers + self.workers
    }

    fn inside(&self, network: u8, words: &[&str]) {
        self.within(Some(network), words);
    }

    /// Inside a network or outside of all.
    fn within(&self, place: Option<u8>, words: &[&str]) {
        let name = place.map(|network| self.name(network));
        let place = name.as_ref().map_or(vec!["ip"], |name| vec!["ip", "-n", name]);
        must_run(&[&place, words].concat());
    }

    /// By which network card others are reached.
    fn device(&self, place: Option<u8>) -> String {
        place.map_or_else(|| self.bridge(), |_| "eth0".to_owned())
    }

    fn bridge(&self) -> String {
        format!("fm{}", self.process)
    }

    fn name(&self, server: u8) -> String {
        format!("fermata-{}-{server}", self.process)
    }

    fn clients(&self) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, 254)
    }

    fn address(&self, network: u8) -> Ipv4Addr {
        let [a, b, c] = self.network;
        Ipv4Addr::new(a, b, c, network + 1)
    }

    fn address_of(&self, place: Option<u8>) -> Ipv4Addr {
        place.map_or_else(|| self.clients(), |network| self.address(network))
    }
}

/// One of [`NETWORKS`] that nobody has. Processes that ask at the same time are told different ones:
/// each begins to look elsewhere.
fn free_network(process: u32) -> [u8; 3] {
    let routes = must_run(&["ip", "-4", "route", "list"]);
    let [first, second] = NETWORKS_BEGIN;
    let network = |number: u32| {
        let [.., high, low] = (number % NETWORKS_MAX).to_be_bytes();
        [first, second + high, low]
    };
    let is_free = |[a, b, c]: &[u8; 3]| !routes.contains(&format!("{a}.{b}.{c}.0/24 "));
    let mut networks = (0..NETWORKS_MAX).map(|step| network(process.wrapping_add(step)));
    networks.find(is_free).expect("a free network")
}

/// Removes what processes left that were killed.
fn remove_left_over() {
    let is_gone = |process: u32| !std::path::Path::new(&format!("/proc/{process}")).exists();
    let names = must_run(&["ip", "netns", "list"]);
    for name in names.lines().filter_map(|line| line.split_whitespace().next()) {
        let process = name.strip_prefix("fermata-").and_then(|rest| rest.split('-').next());
        if process.and_then(|process| process.parse().ok()).is_some_and(is_gone) {
            let _ = run(&["ip", "netns", "del", name]);
        }
    }
    // `7: fm1234: <BROADCAST,…`
    let bridges = must_run(&["ip", "-o", "link", "show", "type", "bridge"]);
    for name in bridges.lines().filter_map(|line| line.split(": ").nth(1)) {
        let process = name.strip_prefix("fm").and_then(|process| process.parse().ok());
        if process.is_some_and(is_gone) {
            let _ = run(&["ip", "link", "del", name]);
        }
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for network in self.all() {
            let _ = run(&["ip", "netns", "del", &self.name(network)]);
        }
        let _ = run(&["ip", "link", "del", &self.bridge()]);
    }
}
