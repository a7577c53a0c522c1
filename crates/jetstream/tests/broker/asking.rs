//! Questions to the broker's API that nobody answers.

use async_nats::{Client, Message};
use fermata_jetstream::{Broker, ConnectOptions, StreamReader};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::support::{PlainServer, SOON};

async fn answer(client: &Client, question: Message, last: u64) {
    let state =
        serde_json::json!({ "first_seq": 1, "last_seq": last, "bytes": 1, "messages": last });
    let answer = serde_json::json!({ "state": state }).to_string();
    client.publish(question.reply.expect("an inbox"), answer.into()).await.expect("queued");
    client.flush().await.expect("sent");
}

/// A leader that was killed with the question in its hands never answers it; the next one would.
#[tokio::test]
async fn what_only_reads_is_asked_again_and_whoever_answers_first_is_heard() {
    for answered in [0, 1] {
        let server = PlainServer::start("").await;
        let client = async_nats::connect(&server.url).await.expect("a connection");
        let mut questions =
            client.subscribe("$JS.API.STREAM.INFO.A").await.expect("a subscription");
        client.flush().await.expect("subscribed");
        let broker = Broker::connect(&server.url, ConnectOptions::default()).await;
        let reader = StreamReader::new(&broker.expect("a connection"));
        let asking = tokio::spawn(async move { reader.stream_state("A").await });

        let mut asked = Vec::new();
        for _ in 0..2 {
            let question = timeout(SOON, questions.next()).await.expect("in time");
            asked.push(question.expect("a question"));
        }
        answer(&client, asked.swap_remove(answered), 7).await;

        let state = timeout(SOON, asking).await.expect("in time").expect("a task");
        assert_eq!(state.expect("an answer").last_sequence, 7, "question {answered}");
    }
}
