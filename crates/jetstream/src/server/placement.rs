//! Where a server runs, and with whom it forms a cluster; and the configuration that follows.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{Durability, MAX_PAYLOAD_BYTES, ServerOptions};

/// Name of the clusters that are made here.
const CLUSTER_NAME: &str = "fermata";

/// Where a server runs. The default is what `fermata up` does: loopback, everything below the data
/// folder, alone.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Address that it listens on, for clients and for other servers.
    pub address: IpAddr,
    /// Folder for the streams; absent means one below the data folder.
    pub store_dir: Option<PathBuf>,
    /// How much the streams may reserve, in bytes; absent means what the server makes of the free disk.
    pub file_store_bytes: Option<u64>,
    /// Program and arguments that start the server and become it, such as `ip netns exec <name>`.
    pub launcher: Vec<String>,
    /// What it needs to know as a member of a cluster.
    pub member: Option<ClusterMember>,
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            store_dir: None,
            file_store_bytes: None,
            launcher: Vec::new(),
            member: None,
        }
    }
}

/// A server that is one of several.
#[derive(Debug, Clone)]
pub struct ClusterMember {
    /// Name of the server, another one for each member.
    pub name: String,
    /// Where it listens for the others.
    pub listen: SocketAddr,
    /// Where all members listen for each other.
    pub routes: Vec<SocketAddr>,
}

pub(super) fn configuration(
    options: &ServerOptions,
    placement: &Placement,
    port: Option<u16>,
) -> String {
    let data_dir = options.data_dir.display();
    let address = placement.address;
    let port = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
    let sync = match options.durability {
        Durability::Process => "",
        Durability::Power => "  sync_interval: always\n",
    };
    let monitor = if options.monitor { format!("http: \"{address}:-1\"\n") } else { String::new() };
    let room = placement.file_store_bytes;
    let room = room.map(|bytes| format!("  max_file_store: {bytes}\n")).unwrap_or_default();
    let below = format!("{data_dir}/streams");
    let store_dir = placement.store_dir.as_deref().unwrap_or(Path::new(&below)).display();
    let name = placement.member.as_ref().map_or("fermata", |member| &member.name);
    format!(
        "# Written at every start; changes are lost.\n\
         server_name: {name}\n\
         listen: \"{address}:{port}\"\n\
         {monitor}\
         max_payload: {MAX_PAYLOAD_BYTES}\n\
         write_deadline: \"10s\"\n\
         pid_file: {:?}\n\
         ports_file_dir: {:?}\n\
         jetstream {{\n  store_dir: {:?}\n  strict: true\n{sync}{room}}}\n\
         {}",
        format!("{data_dir}/nats-server.pid"),
        format!("{data_dir}"),
        format!("{store_dir}"),
        placement.member.as_ref().map(cluster).unwrap_or_default(),
    )
}

fn cluster(member: &ClusterMember) -> String {
    let routes: Vec<_> = member.routes.iter().map(|route| format!("\"nats://{route}\"")).collect();
    format!(
        "cluster {{\n  name: {CLUSTER_NAME}\n  listen: \"{}\"\n  routes: [{}]\n}}\n",
        member.listen,
        routes.join(", ")
    )
}
