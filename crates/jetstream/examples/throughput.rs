//! A quick look at what the hot paths do on this machine: messages per second, one line per path.
//!
//! `cargo run --release -p fermata-jetstream --example throughput`

use std::{error::Error, time::Instant};

use fermata_jetstream::{
    Broker, Bytes, ConnectOptions, Durability, EpochConsumer, EpochConsumerOptions, ManagedServer,
    PublishReceipt, Publisher, PublisherOptions, ServerOptions, SharedConsumer,
    SharedConsumerOptions, Topology,
    reader::{Holes, StreamReader},
};

const MESSAGES: u64 = 300_000;
const FRAMES: u64 = 10_000;
const APPENDS: u64 = 5_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let options = ServerOptions {
        data_dir: folder.path().to_owned(),
        durability: Durability::Process,
        port: None,
        monitor: false,
    };
    let server = ManagedServer::start(options).await?;
    let broker = Broker::connect(&server.url(), ConnectOptions::default()).await?;
    Topology { partitions: 1, ..Topology::default() }.apply(&broker).await?;
    let publisher = Publisher::new(&broker, PublisherOptions::default()).await?;

    publish(&publisher, "publish 256 B, window 1024", "fermata.events.acme.order", MESSAGES, 256)
        .await?;
    publish(&publisher, "publish 16 KiB", "fermata.commands.0", FRAMES, 16 * 1024).await?;
    append(&publisher).await?;
    share(&broker).await?;
    replay(&broker, "replay 256 B", "EVENTS", MESSAGES).await?;
    replay(&broker, "replay 16 KiB", "COMMANDS_0", FRAMES).await?;
    follow(&broker).await
}

fn report(what: &str, count: u64, started: Instant) {
    let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    println!("{what:<40} {:>10.0} messages/s", count / started.elapsed().as_secs_f64());
}

async fn publish(
    publisher: &Publisher,
    what: &str,
    subject: &'static str,
    count: u64,
    bytes: usize,
) -> Result<(), Box<dyn Error>> {
    let payload = Bytes::from(vec![7; bytes]);
    let started = Instant::now();
    let mut receipts = std::collections::VecDeque::<PublishReceipt>::with_capacity(1024);
    for _ in 0..count {
        if receipts.len() == 1024
            && let Some(receipt) = receipts.pop_front()
        {
            receipt.await.sequence().ok_or("not stored")?;
        }
        receipts.push_back(
            publisher
                .publish(fermata_jetstream::Subject::from_static(subject), None, payload.clone())
                .await,
        );
    }
    for receipt in receipts {
        receipt.await.sequence().ok_or("not stored")?;
    }
    report(what, count, started);
    Ok(())
}

async fn append(publisher: &Publisher) -> Result<(), Box<dyn Error>> {
    let payload = Bytes::from(vec![7; 16 * 1024]);
    let started = Instant::now();
    for last in 0..APPENDS {
        publisher
            .append("fermata.journal.0", last, "0123456789abcdef", payload.clone())
            .await
            .sequence()
            .ok_or("not stored")?;
    }
    report("append 16 KiB, fenced, one in flight", APPENDS, started);
    Ok(())
}

async fn share(broker: &Broker) -> Result<(), Box<dyn Error>> {
    let mut consumer =
        SharedConsumer::open(broker, SharedConsumerOptions::new("EVENTS", "listener")).await?;
    let (mut count, mut batches) = (0, 0_u64);
    let started = Instant::now();
    while count < MESSAGES {
        let batch = consumer.next_batch(1_000).await?;
        batches += 1;
        for delivery in batch {
            count += 1;
            delivery.acker.ack().await;
        }
    }
    report("share 256 B, acknowledge each", count, started);
    println!("{:<40} {:>10} messages", "  mean batch", count / batches);
    Ok(())
}

async fn replay(
    broker: &Broker,
    what: &str,
    stream: &str,
    expected: u64,
) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut replay = StreamReader::new(broker).replay(stream, 1, Holes::Refused).await?;
    let mut count = 0;
    loop {
        match u64::try_from(replay.next_batch(1_000).await?.len())? {
            0 => break,
            messages => count += messages,
        }
    }
    assert_eq!(count, expected, "every message is read once");
    report(what, count, started);
    Ok(())
}

async fn follow(broker: &Broker) -> Result<(), Box<dyn Error>> {
    let options = EpochConsumerOptions {
        stream: "COMMANDS_0".to_owned(),
        epoch: 1,
        incarnation: "example".to_owned(),
        start: 1,
    };
    let started = Instant::now();
    let mut consumer = EpochConsumer::open(broker, options).await?;
    let mut count = 0;
    while count < FRAMES {
        count += u64::try_from(consumer.next_batch(1_000).await?.len())?;
    }
    report("epoch consumer 16 KiB", count, started);
    Ok(())
}
