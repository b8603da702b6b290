//! The whole cluster as one stream of bytes: whole, refused, or seen to break off.

use std::time::Duration;

use quorate_client::{Client, ClientError, ClientOptions};
use quorate_types::Refusal;
use quorate_types::problem::ProblemKind;
use reqwest::Method;

use crate::house::{House, TOKEN, problem};

const ROUTE: &str = "/v1/cluster/backup";

#[tokio::test]
async fn a_backup_comes_whole_or_is_refused_or_breaks_off() {
    let house = House::open().await;
    let whole = house.knock(Method::GET, "/v1/cluster/backup?blobs=false").send().await;
    let whole = whole.expect("an answer");
    assert_eq!(whole.headers()["content-type"], "application/octet-stream");
    assert_eq!(whole.bytes().await.expect("whole"), "system and shards");
    house.toy.refuse(Refusal::Unavailable("no leader".to_owned()));
    let refused = house.knock(Method::GET, ROUTE).send().await.expect("an answer");
    problem(refused, ProblemKind::Unavailable).await;
    let broken = house.knock(Method::GET, ROUTE).send().await.expect("a head");
    assert_eq!(broken.status(), 200, "its first piece was there");
    assert!(broken.bytes().await.is_err(), "what breaks off is not whole");
    let strange = house.knock(Method::GET, "/v1/cluster/backup?since=3").send().await;
    problem(strange.expect("an answer"), ProblemKind::Invalid).await;
    assert_eq!(house.bare(Method::GET, ROUTE).send().await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn the_client_reads_pieces_and_sees_the_break() {
    let house = House::open().await;
    let mut options = ClientOptions::new([house.url.clone()], Some(TOKEN.to_owned()));
    options.timeout = Duration::from_secs(5);
    let client = Client::new(options).expect("a client");
    let mut stream = client.backup(false).await.expect("begun");
    let mut whole = Vec::new();
    while let Some(piece) = stream.next().await.expect("it does not break") {
        whole.extend_from_slice(&piece);
    }
    assert_eq!(whole, b"system and shards");
    let mut stream = client.backup(true).await.expect("begun");
    let broken = loop {
        match stream.next().await {
            Ok(Some(_piece)) => {}
            Ok(None) => panic!("it was not whole"),
            Err(error) => break error,
        }
    };
    assert!(matches!(broken, ClientError::Unreachable { .. }), "{broken}");
}
