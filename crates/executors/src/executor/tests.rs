use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::scripted_plugin::{Script, ScriptedPlugin, response};
use crate::{
    ConfigError, EffectKind, EffectOutcome, EffectRequest, Executors, ExecutorsConfig,
    FailureClass, HttpCall, HttpConfig, PluginTarget,
};

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// Longer than any test that does not mean to run into it.
const AMPLE: Duration = Duration::from_secs(30);
/// For tests that mean to run into it.
const SHORT: Duration = Duration::from_millis(50);

pub(super) fn config(url: &str) -> HttpConfig {
    let target = PluginTarget { url: url.to_owned(), ..PluginTarget::default() };
    HttpConfig {
        plugins: BTreeMap::from([("reports".to_owned(), target)]),
        ..HttpConfig::default()
    }
}

fn executors(http: HttpConfig) -> Executors {
    Executors::new(&ExecutorsConfig { http, ..ExecutorsConfig::default() }).unwrap()
}

pub(super) fn call(path: &str) -> EffectRequest {
    EffectRequest {
        tenant: "acme".into(),
        key: "0198c0de/fetch/1".to_owned(),
        attempt: 2,
        traceparent: Some(TRACEPARENT.to_owned()),
        timeout: AMPLE,
        callback: None,
        kind: EffectKind::Http(HttpCall {
            plugin: "reports".to_owned(),
            path: path.to_owned(),
            body: json!({"job": 7}),
        }),
    }
}

pub(super) fn class(outcome: &EffectOutcome) -> Option<&'static str> {
    match outcome {
        EffectOutcome::Succeeded { .. } => None,
        EffectOutcome::Failed { class, .. } => Some(class.as_str()),
    }
}

async fn class_of_answer(status: &str, body: &str) -> Option<&'static str> {
    let plugin = ScriptedPlugin::answering(status, body).await;
    class(&executors(config(&plugin.url())).execute(call("/execute")).await)
}

#[tokio::test]
async fn a_noop_succeeds_with_nothing_even_without_time() {
    let request = EffectRequest { kind: EffectKind::Noop, timeout: Duration::ZERO, ..call("/") };

    let outcome = executors(HttpConfig::default()).execute(request).await;

    assert_eq!(outcome, EffectOutcome::Succeeded { output: Value::Null });
}

#[tokio::test]
async fn a_call_arrives_with_its_body_key_attempt_and_trace_and_its_answer_comes_back() {
    let plugin = ScriptedPlugin::answering("200 OK", r#"{"rows": 3}"#).await;
    let base = format!("{}/plugin/", plugin.url());

    let outcome = executors(config(&base)).execute(call("/runtime/a/execute")).await;

    assert_eq!(outcome, EffectOutcome::Succeeded { output: json!({"rows": 3}) });
    let received = plugin.received();
    let [request] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!(request.head[0], "post /plugin/runtime/a/execute http/1.1");
    assert_eq!(request.header("host"), Some(plugin.address.to_string().as_str()));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("idempotency-key"), Some("0198c0de/fetch/1"));
    assert_eq!(request.header("fermata-attempt"), Some("2"));
    assert_eq!(request.header("traceparent"), Some(TRACEPARENT));
    assert_eq!(request.header("authorization"), None);
    assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), json!({"job": 7}));
}

#[test]
fn a_proxy_of_the_environment_is_not_used() {
    let test = "executor::tests::a_call_arrives_with_its_body_key_attempt_and_trace_and_its_answer_comes_back";

    // In a process of its own, for the environment belongs to all tests of one.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .envs(["HTTP_PROXY", "http_proxy", "ALL_PROXY"].map(|name| (name, "http://127.0.0.1:1")))
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .output()
        .unwrap();

    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
async fn a_malformed_trace_is_left_out_and_fails_nothing() {
    let plugin = ScriptedPlugin::answering("200 OK", "null").await;
    let request = EffectRequest { traceparent: Some("00-not-a-trace".to_owned()), ..call("/") };

    let outcome = executors(config(&plugin.url())).execute(request).await;

    assert_eq!(class(&outcome), None);
    assert_eq!(plugin.received()[0].header("traceparent"), None);
}

#[tokio::test]
async fn an_answer_said_to_be_empty_is_a_success_without_output() {
    for status in ["200 OK", "202 Accepted", "204 No Content"] {
        assert_eq!(class_of_answer(status, "").await, None, "{status}");
    }
}

#[tokio::test]
async fn a_status_that_is_no_success_names_its_class() {
    let cases = [
        ("304 Not Modified", "http_3xx"),
        ("400 Bad Request", "http_4xx"),
        ("429 Too Many Requests", "http_4xx"),
        ("500 Internal Server Error", "http_5xx"),
        ("503 Service Unavailable", "http_5xx"),
        ("777 Unheard Of", "http_5xx"),
    ];

    for (status, expected) in cases {
        assert_eq!(class_of_answer(status, "").await, Some(expected), "{status}");
    }
}

#[tokio::test]
async fn a_redirect_is_refused_and_its_destination_never_asked() {
    let destination = ScriptedPlugin::answering("200 OK", "{}").await;
    for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("location: {}/\r\n", destination.url());
        let plugin = ScriptedPlugin::start(Script::Answer(response(status, &location, ""))).await;

        let outcome = executors(config(&plugin.url())).execute(call("/execute")).await;

        assert_eq!(class(&outcome), Some("http_3xx"), "{status}");
        assert_eq!(plugin.received().len(), 1);
    }
    assert_eq!(destination.received(), []);
}

#[tokio::test]
async fn a_plugin_that_hangs_is_given_up_after_the_time_limit_wherever_it_hangs() {
    let beginnings =
        ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\""];
    for beginning in beginnings {
        let plugin = ScriptedPlugin::start(Script::Hang(beginning.as_bytes().to_vec())).await;
        let executors = executors(config(&plugin.url()));
        // One that is given up before it was sent shows nothing.
        for timeout in [SHORT, SHORT * 20, AMPLE] {
            let request = EffectRequest { timeout, ..call("/execute") };
            let outcome = executors.execute(request).await;
            assert_eq!(class(&outcome), Some("timeout"), "after `{beginning}`");
            if !plugin.received().is_empty() {
                break;
            }
        }

        plugin.connection_closed().await;
    }
}

#[tokio::test]
async fn a_plugin_that_acts_and_drops_the_connection_may_have_acted_and_is_asked_once() {
    let beginnings =
        ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\""];
    for beginning in beginnings {
        let plugin = ScriptedPlugin::start(Script::Answer(beginning.as_bytes().to_vec())).await;

        let outcome = executors(config(&plugin.url())).execute(call("/execute")).await;

        assert_eq!(class(&outcome), Some("connect"), "after `{beginning}`");
        assert_eq!(plugin.received().len(), 1);
    }
    assert!(FailureClass::Connect.may_have_acted());
}

#[tokio::test]
async fn a_body_cut_off_without_notice_is_no_success() {
    let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    let plugin = ScriptedPlugin::start(Script::Answer(head)).await;

    let outcome = executors(config(&plugin.url())).execute(call("/execute")).await;

    assert_eq!(class(&outcome), Some("response_not_json"));
}

#[tokio::test]
async fn a_plugin_that_nobody_serves_can_not_be_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);

    let outcome = executors(config(&url)).execute(call("/execute")).await;

    assert_eq!(class(&outcome), Some("connect"));
}

#[tokio::test]
async fn an_encrypted_plugin_is_never_spoken_to_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let executors = executors(config(&url));
    let first_byte = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap()
    };

    let (outcome, first_byte) = tokio::join!(executors.execute(call("/execute")), first_byte);

    // 22: a TLS handshake record (RFC 8446 §5.1).
    assert_eq!(first_byte, 22);
    assert_eq!(class(&outcome), Some("connect"));
}

#[tokio::test]
async fn a_response_is_taken_up_to_its_limit_and_not_a_byte_further() {
    let announced = |body: &str| response("200 OK", "", body);
    let unannounced = |body: &str| format!("HTTP/1.1 200 OK\r\n\r\n{body}").into_bytes();
    let chunked = |body: &str| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
        let (first, second) = body.split_at(3);
        format!("{head}{}{}{}", chunk(first), chunk(second), chunk("")).into_bytes()
    };
    let cases = [
        (announced("[1234]"), None),
        (announced("[12345]"), Some("response_too_large")),
        (unannounced("[1234]"), None),
        (unannounced("[12345]"), Some("response_too_large")),
        (chunked("[1234]"), None),
        (chunked("[12345]"), Some("response_too_large")),
    ];

    for (answer, expected) in cases {
        let plugin = ScriptedPlugin::start(Script::Answer(answer.clone())).await;
        let config = HttpConfig { response_bytes_max: 6, ..config(&plugin.url()) };

        let outcome = executors(config).execute(call("/execute")).await;

        assert_eq!(class(&outcome), expected, "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn an_endless_response_is_dropped_at_its_limit() {
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n[{}", "1,".repeat(4096));
    let plugin = ScriptedPlugin::start(Script::Hang(endless.into_bytes())).await;
    let config = HttpConfig { response_bytes_max: 4096, ..config(&plugin.url()) };

    let outcome = executors(config).execute(call("/execute")).await;

    assert_eq!(class(&outcome), Some("response_too_large"));
    plugin.connection_closed().await;
}

#[tokio::test]
async fn a_response_that_is_not_json_is_refused_without_repeating_it() {
    let deep = "[".repeat(100_000);
    for body in ["<html>secret</html>", "{\"secret\": ", "{} secret", "\u{feff}{}", &deep] {
        let plugin = ScriptedPlugin::answering("200 OK", body).await;

        let outcome = executors(config(&plugin.url())).execute(call("/execute")).await;

        let EffectOutcome::Failed { class, detail } = outcome else { panic!("`{body}` was taken") };
        assert_eq!(class, FailureClass::ResponseNotJson);
        assert!(!detail.contains("secret"), "{detail}");
    }
}

#[tokio::test]
async fn a_plugin_that_is_not_on_the_list_and_a_path_that_leads_elsewhere_reach_nobody() {
    let plugin = ScriptedPlugin::answering("200 OK", "{}").await;
    let other = ScriptedPlugin::answering("200 OK", "{}").await;
    let executors = executors(config(&plugin.url()));
    let mut unlisted = call("/execute");
    if let EffectKind::Http(call) = &mut unlisted.kind {
        call.plugin = other.url();
    }
    let paths = ["", "@{}/", "//{}/", "/\\{}/", "\\\\{}/", "http://{}/", "/../{}", "/%2e%2e/{}"];

    assert_eq!(class(&executors.execute(unlisted).await), Some("not_allowed"));
    for path in paths {
        let path = path.replace("{}", &other.address.to_string());
        let outcome = executors.execute(call(&path)).await;
        assert_eq!(class(&outcome), Some("not_allowed"), "`{path}`");
    }

    assert_eq!((plugin.received(), other.received()), (vec![], vec![]));
}

#[tokio::test]
async fn a_request_that_is_too_large_or_has_no_usable_key_is_not_sent() {
    let plugin = ScriptedPlugin::answering("200 OK", "{}").await;
    let small = HttpConfig { request_bytes_max: 9, ..config(&plugin.url()) };
    let fitting = HttpConfig { request_bytes_max: r#"{"job":7}"#.len(), ..small.clone() };
    let too_small = HttpConfig { request_bytes_max: 8, ..small };
    let bad_key = EffectRequest { key: "a\r\nb".to_owned(), ..call("/") };

    assert_eq!(class(&executors(too_small).execute(call("/")).await), Some("not_allowed"));
    let fitting = executors(fitting);
    assert_eq!(class(&fitting.execute(bad_key).await), Some("not_allowed"));
    assert_eq!(plugin.received(), []);

    assert_eq!(class(&fitting.execute(call("/")).await), None);
}

#[tokio::test]
async fn a_plugin_that_hangs_takes_no_more_connections_than_allowed_and_holds_up_no_other() {
    let hanging = ScriptedPlugin::start(Script::Hang(Vec::new())).await;
    let healthy = ScriptedPlugin::answering("200 OK", "{}").await;
    let mut config = HttpConfig { connections_per_plugin_max: 2, ..config(&healthy.url()) };
    config.plugins.insert(
        "hanging".to_owned(),
        PluginTarget { url: hanging.url(), ..PluginTarget::default() },
    );
    let executors = executors(config);
    let hang = |timeout: Duration| {
        let mut request = EffectRequest { timeout, ..call("/") };
        if let EffectKind::Http(call) = &mut request.kind {
            call.plugin = "hanging".to_owned();
        }
        executors.execute(request)
    };

    let mut held = std::pin::pin!(futures_util::future::join(hang(AMPLE), hang(AMPLE)));
    while hanging.received().len() < 2 {
        tokio::select! {
            biased;
            outcomes = &mut held => panic!("{outcomes:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    let (c, d, other) = tokio::select! {
        outcomes = held => panic!("{outcomes:?}"),
        outcomes = async { tokio::join!(hang(SHORT), hang(SHORT), executors.execute(call("/"))) } => outcomes,
    };

    assert_eq!([c, d].each_ref().map(class), [Some("timeout"); 2]);
    assert_eq!(hanging.received().len(), 2);
    assert_eq!(class(&other), None);
}

#[tokio::test]
async fn a_dropped_attempt_closes_its_connection() {
    let plugin = ScriptedPlugin::start(Script::Hang(Vec::new())).await;
    let executors = executors(config(&plugin.url()));
    let mut attempt = Box::pin(executors.execute(call("/")));
    while plugin.received().is_empty() {
        tokio::select! {
            biased;
            outcome = &mut attempt => panic!("{outcome:?}"),
            () = tokio::task::yield_now() => {}
        }
    }

    drop(attempt);

    plugin.connection_closed().await;
}

#[test]
fn an_unusable_plugin_address_is_refused_with_the_plugin_s_name() {
    let config = ExecutorsConfig {
        http: config("http://user:secret@127.0.0.1"),
        ..ExecutorsConfig::default()
    };

    let error = Executors::new(&config).unwrap_err();

    assert!(matches!(error, ConfigError::PluginUrl { .. }));
    assert!(error.to_string().contains("`http.plugins.reports.url`"), "{error}");
}

proptest! {
    #[test]
    fn whatever_is_asked_of_an_unknown_place_is_answered(
        key in prop_oneof!["[!-~]{1,40}", any::<String>()],
        path in prop_oneof!["(/[a-z]{1,8}){1,4}", any::<String>()],
        traceparent in any::<Option<String>>(),
        plugin in "reports|other",
        attempt in any::<u32>(),
    ) {
        // Given a listener that takes no connection off its queue,
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let body = json!({ "path": path });
            let kind = EffectKind::Http(HttpCall { plugin, path, body });
            let timeout = Duration::from_millis(1);
            let request = EffectRequest { tenant: "acme".into(), key, attempt, traceparent, timeout, callback: None, kind };
            executors(config(&url)).execute(request).await
        });

        // then every attempt ends, and its detail fits the journal.
        let EffectOutcome::Failed { class, detail } = outcome else { panic!("{outcome:?}") };
        prop_assert!(matches!(class, FailureClass::NotAllowed | FailureClass::Timeout), "{}", class);
        prop_assert!(detail.len() <= 512 && !detail.contains('\n'), "{}", detail);
    }
}
