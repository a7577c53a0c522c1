//! Objects: read whole or told to be damaged, and nothing left behind of a reading.

use fermata_jetstream::{
    Bytes, StreamReader,
    core_messages::CoreMessages,
    definitions_store::{DefinitionsStore, StoreError},
    object_folder::ObjectFolder,
    payloads::{find_payload, put_payload},
    topology::{ARCHIVE_BUCKET, PAYLOADS_BUCKET, PLANS_BUCKET},
};
use sha2::{Digest as _, Sha256};

use crate::support::{SOON, Stage};

/// More than a broker lets a stream have consumers, where nobody says how many.
const OBJECTS: u64 = 200;

async fn consumers(stage: &Stage, bucket: &str) -> String {
    let core = CoreMessages::new(&stage.broker);
    let subject = format!("$JS.API.CONSUMER.NAMES.OBJ_{bucket}");
    let answer = core.request(&subject, "".into(), SOON).await.expect("an answer");
    String::from_utf8_lossy(&answer.payload).into_owned()
}

#[tokio::test]
async fn many_objects_are_read_one_after_the_other_without_a_consumer() {
    let stage = Stage::new().await;
    let folder = ObjectFolder::open(&stage.broker, ARCHIVE_BUCKET, "0").await.expect("a folder");
    let of = |number: u64| Bytes::from(number.to_string().repeat(100));
    for number in 0..OBJECTS {
        folder.put(&format!("{number:04}"), &of(number)).await.expect("stored");
    }

    for number in 0..OBJECTS {
        let read = folder.get(&format!("{number:04}")).await.expect("read");
        assert_eq!(read, Some(of(number)));
    }
    let told = consumers(&stage, ARCHIVE_BUCKET).await;
    assert!(told.contains(r#""total":0"#), "{told}");
}

#[tokio::test]
async fn an_object_of_many_chunks_is_read_whole_and_none_without_all_of_them() {
    let stage = Stage::new().await;
    let folder = ObjectFolder::open(&stage.broker, ARCHIVE_BUCKET, "0").await.expect("a folder");
    let bytes = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect::<Vec<_>>();
    let (bytes, nothing) = (Bytes::from(bytes), Bytes::new());
    folder.put("large", &bytes).await.expect("stored");
    folder.put("empty", &nothing).await.expect("stored");

    assert_eq!(folder.get("large").await.expect("read"), Some(bytes));
    assert_eq!(folder.get("empty").await.expect("read"), Some(nothing));
    assert_eq!(folder.get("none").await.expect("read"), None);

    // The first chunk of all is the large one's.
    let core = CoreMessages::new(&stage.broker);
    let subject = format!("$JS.API.STREAM.MSG.DELETE.OBJ_{ARCHIVE_BUCKET}");
    let deleted = core.request(&subject, r#"{"seq":1}"#.into(), SOON).await.expect("an answer");
    assert!(String::from_utf8_lossy(&deleted.payload).contains(r#""success":true"#));
    assert!(!folder.is_whole("large").await.expect("an answer"));
    let read = folder.get("large").await;
    assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
}

#[tokio::test]
async fn what_somebody_put_in_place_of_a_chunk_or_of_a_description_is_damage() {
    let stage = Stage::new().await;
    let store = DefinitionsStore::open(&stage.broker).await.expect("a store");
    store.put_blob("00ff", b"as it was stored").await.expect("stored");
    assert_eq!(store.get_blob("00ff").await.expect("read"), Some("as it was stored".into()));
    // A description that fits other bytes of the same length.
    let meta = format!("$O.{PLANS_BUCKET}.M.MDBmZg==");
    let reader = fermata_jetstream::StreamReader::new(&stage.broker);
    let stream = format!("OBJ_{PLANS_BUCKET}");
    let described = reader.last_of_subject(&stream, &meta).await.expect("an answer");
    let described = described.expect("a description").payload;
    let mut other: serde_json::Value = serde_json::from_slice(&described).expect("JSON");
    other["digest"] = "SHA-256=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
    for description in [other.to_string(), "no description".to_owned()] {
        let stored = stage.publisher.publish(meta.as_str(), None, description.into()).await.await;
        stored.sequence().expect("stored");

        let read = store.get_blob("00ff").await;
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{read:?}");
    }
}

#[tokio::test]
async fn what_could_not_be_stored_takes_no_room() {
    let stage = Stage::new().await;
    let folder = ObjectFolder::open(&stage.broker, ARCHIVE_BUCKET, "0").await.expect("a folder");
    let bytes = vec![7; 1_500_000];

    let stored = folder.put_from("other", &bytes[..], Some([0; 32]), |_| ()).await;

    assert!(matches!(stored, Err(StoreError::Damaged { .. })), "{stored:?}");
    let stream = format!("OBJ_{ARCHIVE_BUCKET}");
    let reader = fermata_jetstream::StreamReader::new(&stage.broker);
    let state = reader.stream_state(&stream).await.expect("a stream");
    assert_eq!((state.last_sequence, state.messages), (3, 0), "three chunks came and went");
    assert_eq!(folder.get("other").await.expect("read"), None);
}

#[tokio::test]
async fn a_payload_that_somebody_removes_is_missing_and_can_be_stored_again() {
    let stage = Stage::new().await;
    let (bytes, reader) = (vec![7; 600_000], StreamReader::new(&stage.broker));
    let digest: [u8; 32] = Sha256::digest(&bytes).into();
    let store = async || {
        let stored = put_payload(&stage.broker, "acme", digest, "00ff", &bytes[..], |_| ()).await;
        stored.expect("stored");
        reader.stream_state("OBJ_fermata-payloads").await.expect("a stream").last_sequence
    };
    let find = async || find_payload(&reader, "acme", "00ff").await.expect("an answer");
    assert_eq!(store().await, 3, "two chunks and their description");
    assert_eq!(store().await, 3, "it is there since a moment");

    // As the program `nats` does.
    let client = async_nats::connect(stage.server.url()).await.expect("a connection");
    let payloads = async_nats::jetstream::new(client).get_object_store(PAYLOADS_BUCKET).await;
    payloads.expect("the bucket").delete("acme.00ff").await.expect("removed");

    assert_eq!(find().await, None);
    assert_eq!(store().await, 7);
    assert_eq!(find().await.expect("a payload").bytes, 600_000);
}
