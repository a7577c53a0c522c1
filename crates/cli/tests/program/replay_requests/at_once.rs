//! Two processes asked at once, and a stream REPLAYS that takes no more.

use fermata_jetstream::core_messages::CoreMessages;

use super::ids::{ask_until_ready, forget_message_ids, other_process, stored};
use super::*;

/// How often both are asked: each time they may meet elsewhere.
const ROUNDS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_bodies_that_come_under_one_id_at_two_processes_at_once_one_is_taken() {
    let secrets = secrets();
    let engine = RunningEngine::start(&knowing(&secrets), &[]).await;
    let mut other = other_process(&engine, &secrets).await;
    let probe = event("probe");
    assert_eq!(ask_until_ready(&other, "probe", &probe).await.status, 202);

    let mut losers = Vec::new();
    for round in 0..ROUNDS {
        let id = format!("request-{round}");
        let bodies = [event(&format!("{round}-a")), json!([event("b"), event("c")])];
        let before = stored(&engine).await;

        let (one, two) = tokio::join!(
            ask_until_ready(&engine.up, &id, &bodies[0]),
            ask_until_ready(&other, &id, &bodies[1]),
        );

        let (won, lost) =
            if one.status == 202 { ((0, one), (1, two)) } else { ((1, two), (0, one)) };
        assert_eq!(won.1.status, 202, "{won:?} {lost:?}");
        assert_eq!(problem(&lost.1), (422, "differs".to_owned()), "{won:?} {lost:?}");
        let events = if won.0 == 0 { 1 } else { 2 };
        assert_eq!(stored(&engine).await, before + events, "nothing of the other");
        // Whoever is asked from here on says the same.
        for up in [&engine.up, &other] {
            let again = ask(up, &id, &bodies[won.0]).await;
            assert_eq!((again.status, &again.body), (202, &won.1.body));
            let differs = ask(up, &id, &bodies[lost.0]).await;
            assert_eq!(problem(&differs), (422, "differs".to_owned()), "{differs:?}");
        }
        assert_eq!(stored(&engine).await, before + events);
        losers.push((id, bodies[lost.0].clone()));
    }

    // That is not by the ids that the broker recognises messages by.
    forget_message_ids(&engine).await;
    for (id, body) in losers {
        for up in [&engine.up, &other] {
            let differs = ask(up, &id, &body).await;
            assert_eq!(problem(&differs), (422, "differs".to_owned()), "{differs:?}");
        }
    }
    other.end().await;
}

/// The answer of the broker's API.
async fn api(engine: &RunningEngine, request: &str, body: String) -> Value {
    let core = CoreMessages::new(&engine.broker().await);
    let subject = format!("$JS.API.{request}");
    let answer = core.request(&subject, body.into_bytes().into(), SOON).await;
    let answer = serde_json::from_slice::<Value>(&answer.expect("an answer").payload);
    let answer = answer.expect("JSON");
    assert!(answer["error"].is_null(), "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn while_replays_is_full_new_ids_are_refused_with_why_and_known_ones_answered_as_before() {
    let secrets = secrets();
    let engine = RunningEngine::start(&knowing(&secrets), &[]).await;
    let first = ask(&engine.up, "request-1", &event("1")).await;
    assert_eq!(first.status, 202, "{first:?}");
    let told = api(&engine, "STREAM.INFO.REPLAYS", String::new()).await;
    let (config, held) = (told["config"].clone(), told["state"]["bytes"].clone());
    let mut full = config.clone();
    full["max_bytes"] = held;
    api(&engine, "STREAM.UPDATE.REPLAYS", full.to_string()).await;
    let before = stored(&engine).await;

    let refused = ask(&engine.up, "request-2", &event("2")).await;
    assert_eq!(problem(&refused), (503, "unavailable".to_owned()), "{refused:?}");
    let detail = refused.json()["detail"].as_str().expect("a detail").to_owned();
    assert!(detail.contains("stream `REPLAYS` is full"), "{detail}");
    assert_eq!(stored(&engine).await, before, "an id that nobody keeps is not used");
    let again = ask(&engine.up, "request-1", &event("1")).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    let differs = ask(&engine.up, "request-1", &event("2")).await;
    assert_eq!(problem(&differs), (422, "differs".to_owned()), "{differs:?}");
    let doctor = engine.run(&["doctor"]).await;
    assert!(doctor.stdout.contains("REPLAYS"), "{}", doctor.stdout);

    // With room the same request goes through, as if it came for the first time.
    api(&engine, "STREAM.UPDATE.REPLAYS", config.to_string()).await;
    let taken = ask(&engine.up, "request-2", &event("2")).await;
    assert_eq!((taken.status, stored(&engine).await), (202, before + 1), "{taken:?}");
}
