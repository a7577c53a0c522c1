//! Several servers of our own that form a cluster, for tests and measurements: on one machine they
//! show what a cluster does, and protect from nothing that befalls the machine.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use serde_json::Value;
use tokio::time::timeout;

use super::{
    ClusterMember, Durability, ManagedServer, Placement, ServerError, ServerOptions, ports,
};
use crate::{
    api::ask,
    connection::{Broker, ConnectOptions},
};

/// How long the servers may take to elect who leads them.
const LEADER_LIMIT: Duration = Duration::from_secs(60);

/// How long an answer may take: without a leader there is none.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// How often it is asked whether they have one.
const LEADER_POLL: Duration = Duration::from_millis(50);

/// Places for `servers` servers on loopback that know each other.
///
/// # Errors
/// When there is no free port.
pub fn loopback_places(servers: usize) -> Result<Vec<Placement>, ServerError> {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // All are held until all are known, so that none is given out twice.
    let held = (0..servers)
        .map(|_| ports::hold_free_port(address))
        .collect::<Result<Vec<_>, _>>()
        .map_err(ServerError::io("find a free port"))?;
    let addresses = held.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>();
    Ok(cluster_places(addresses.map_err(ServerError::io("find a free port"))?))
}

/// Places for servers that listen for each other at `routes`, each for its clients at the same address.
pub fn cluster_places(routes: Vec<SocketAddr>) -> Vec<Placement> {
    let place = |(index, listen): (usize, &SocketAddr)| {
        let address: IpAddr = listen.ip();
        let name = format!("fermata-{}", index + 1);
        let member = ClusterMember { name, listen: *listen, routes: routes.clone() };
        Placement { address, member: Some(member), ..Placement::default() }
    };
    routes.iter().enumerate().map(place).collect()
}

/// Starts a server at each place, each with a folder of its own below `folder`, and waits until
/// they have agreed on who leads them.
///
/// # Errors
/// As [`ManagedServer::start`], and when they do not agree.
///
/// # Cancel safety
/// When dropped half-way, the servers that were started are killed.
pub async fn start_cluster(
    folder: &Path,
    durability: Durability,
    places: Vec<Placement>,
) -> Result<Vec<ManagedServer>, ServerError> {
    let start = |(index, place)| {
        let data_dir = folder.join(format!("nats-{}", index + 1));
        let options = ServerOptions { data_dir, durability, port: None, monitor: true };
        ManagedServer::start_at(options, place)
    };
    let servers = try_join_all(places.into_iter().enumerate().map(start)).await?;
    cluster_ready(&servers).await?;
    Ok(servers)
}

/// Addresses of all servers as clients take them: they go to another one when theirs is gone.
pub fn cluster_url(servers: &[ManagedServer]) -> String {
    servers.iter().map(ManagedServer::url).collect::<Vec<_>>().join(",")
}

/// Waits until the servers have a leader that answers for their streams.
///
/// # Errors
/// When they have none in time.
///
/// # Cancel safety
/// Can be dropped.
pub async fn cluster_ready(servers: &[ManagedServer]) -> Result<(), ServerError> {
    let started = Instant::now();
    while started.elapsed() < LEADER_LIMIT {
        if let Ok(broker) = Broker::connect(&cluster_url(servers), ConnectOptions::default()).await
            && answers(&broker).await
        {
            return Ok(());
        }
        tokio::time::sleep(LEADER_POLL).await;
    }
    Err(ServerError::NoLeader { limit: LEADER_LIMIT })
}

async fn answers(broker: &Broker) -> bool {
    let asked = ask::<Value>(broker.publishing(), "STREAM.NAMES", &());
    timeout(ANSWER_LIMIT, asked).await.is_ok_and(|answer| answer.is_ok())
}
