//! Where calls must not go, what must not come back, and who sent them.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::tests::{call, class, config};
use crate::http::HttpExecutor;
use crate::resolver::Lookup;
use crate::scripted_plugin::{Script, ScriptedPlugin};
use crate::{
    EffectKind, EffectOutcome, Executors, ExecutorsConfig, HttpConfig, PluginTarget, SecretSource,
    SigningConfig,
};

/// A resolver that answers every name with these addresses.
fn lookup(addresses: &'static [&'static str]) -> Lookup {
    Arc::new(move |_| {
        let found = addresses.iter().map(|address| address.parse::<IpAddr>());
        let found = found.collect::<Result<Vec<_>, _>>().map_err(io::Error::other);
        Box::pin(async move { found })
    })
}

/// A resolver that answers with the next of these addresses each time it is asked, and how often
/// that was.
fn changing(answers: &'static [&'static str]) -> (Lookup, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let lookup: Lookup = Arc::new(move |_| {
        let answer = answers.get(count.fetch_add(1, Ordering::SeqCst)).copied();
        let found = answer.ok_or_else(|| io::Error::other("asked once too often"));
        let found = found.and_then(|address| address.parse().map_err(io::Error::other));
        Box::pin(async move { found.map(|address| vec![address]) })
    });
    (lookup, asked)
}

fn settings(plugin: PluginTarget) -> HttpConfig {
    HttpConfig {
        plugins: BTreeMap::from([("reports".to_owned(), plugin)]),
        ..HttpConfig::default()
    }
}

async fn called(
    plugin: PluginTarget,
    addresses: &'static [&'static str],
    brokers: &[String],
) -> EffectOutcome {
    let http = HttpExecutor::new(&settings(plugin), brokers, &lookup(addresses)).unwrap();
    let request = call("/execute");
    let EffectKind::Http(post) = &request.kind else { panic!("{request:?}") };
    http.execute(&request, post).await
}

fn named(server: &ScriptedPlugin) -> PluginTarget {
    let url = format!("http://plugin.example:{}", server.address.port());
    PluginTarget { url, ..PluginTarget::default() }
}

#[tokio::test]
async fn a_name_that_resolves_inside_is_not_called() {
    let server = ScriptedPlugin::answering("200 OK", "1").await;

    for addresses in
        [["127.0.0.1"].as_slice(), &["::ffff:127.0.0.1"], &["1.1.1.1", "127.0.0.1"], &["::1"]]
    {
        let outcome = called(named(&server), addresses, &[]).await;
        assert_eq!(class(&outcome), Some("not_allowed"), "{addresses:?}: {outcome:?}");
    }
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn an_allowed_address_is_called_and_the_connection_goes_to_what_was_checked() {
    let server = ScriptedPlugin::answering("200 OK", "1").await;
    let allow_addresses = vec!["127.0.0.0/8".to_owned()];

    let by_block = PluginTarget { allow_addresses, ..named(&server) };
    let by_flag = PluginTarget { allow_loopback: true, ..named(&server) };

    for plugin in [by_block, by_flag] {
        let outcome = called(plugin, &["127.0.0.1"], &[]).await;
        assert_eq!(class(&outcome), None, "{outcome:?}");
    }
    assert_eq!(server.received().len(), 2, "`plugin.example` is nobody's name");
}

#[tokio::test]
async fn a_name_that_changes_its_mind_is_checked_each_time_it_is_looked_up() {
    let server = ScriptedPlugin::answering("200 OK", "1").await;
    let allow_addresses = vec!["127.0.0.1/32".to_owned()];
    let plugin = PluginTarget { allow_addresses, ..named(&server) };
    // Each call makes a connection of its own, so that each looks the name up.
    let settings = HttpConfig { idle_connections_per_host_max: 0, ..settings(plugin) };
    let request = call("/execute");
    let EffectKind::Http(post) = &request.kind else { panic!("{request:?}") };

    for answers in [
        &["127.0.0.1", "127.0.0.2", "127.0.0.1", "10.0.0.1"],
        &["127.0.0.2", "127.0.0.1", "::1", "127.0.0.1"],
    ] {
        let before = server.received().len();
        let (lookup, asked) = changing(answers);
        let http = HttpExecutor::new(&settings, &[], &lookup).unwrap();
        for (calls, address) in (1..).zip(*answers) {
            let outcome = http.execute(&request, post).await;

            let refused = (address != "127.0.0.1").then_some("not_allowed");
            assert_eq!(class(&outcome), refused, "{address} of {answers:?}: {outcome:?}");
            assert_eq!(asked.load(Ordering::SeqCst), calls, "what is called is what was checked");
        }
        assert_eq!(server.received().len() - before, 2, "{answers:?}");
    }
}

#[tokio::test]
async fn our_own_broker_is_not_called_by_name_nor_by_address() {
    let server = ScriptedPlugin::answering("200 OK", "1").await;
    let broker = [format!("nats://127.0.0.1:{}", server.address.port())];

    let named = PluginTarget { allow_loopback: true, ..named(&server) };
    let literal = PluginTarget { url: server.url(), ..PluginTarget::default() };

    for plugin in [named, literal] {
        let outcome = called(plugin, &["127.0.0.1"], &broker).await;
        assert_eq!(class(&outcome), Some("not_allowed"), "{outcome:?}");
    }
    assert!(server.received().is_empty());
}

#[tokio::test]
async fn an_endless_answer_is_dropped_at_its_limit() {
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let chunk = [b"1000\r\n".as_slice(), &[b'1'; 4096], b"\r\n"].concat();
    let server = ScriptedPlugin::start(Script::Endless(head, chunk)).await;
    let http = HttpConfig { response_bytes_max: 64 * 1024, ..config(&server.url()) };
    let executors =
        Executors::new(&ExecutorsConfig { http, ..ExecutorsConfig::default() }).unwrap();

    let outcome = executors.execute(call("/execute")).await;

    assert_eq!(class(&outcome), Some("response_too_large"), "{outcome:?}");
    server.connection_closed().await;
}

#[tokio::test]
async fn a_signed_call_names_its_effect_and_verifies() {
    let server = ScriptedPlugin::answering("200 OK", "1").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let signing = Some(SigningConfig { secrets: vec![SecretSource::File(file)] });

    let plugin = PluginTarget { url: server.url(), signing, ..PluginTarget::default() };
    let outcome = called(plugin, &[], &[]).await;

    assert_eq!(class(&outcome), None, "{outcome:?}");
    let received = server.received();
    let [request] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(request.header("webhook-id"), Some("0198c0de/fetch/1"));
    let timestamp: u64 = request.header("webhook-timestamp").unwrap().parse().unwrap();
    assert!(timestamp > 1_700_000_000);
    // As the standard says, and without what signs.
    let secret = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let mut expected = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
    expected.update(format!("0198c0de/fetch/1.{timestamp}.").as_bytes());
    expected.update(&request.body);
    let expected = BASE64_STANDARD.encode(expected.finalize().into_bytes());
    assert!(!request.body.is_empty(), "{request:?}");
    // The server notes heads in lower case.
    let expected = format!("v1,{}", expected.to_ascii_lowercase());
    assert_eq!(request.header("webhook-signature"), Some(expected.as_str()));
}
