//! Events: in order, resumed without a gap, refused where they are lost.

use quorate_api::ApiOptions;
use quorate_types::problem::ProblemKind;
use reqwest::Method;
use serde_json::json;

use crate::house::{House, Sent, TOKEN, json as body_of, problem};
use crate::toy::Toy;

async fn events(house: &House, query: &str, last: Option<&str>) -> reqwest::Response {
    let request = house.knock(Method::GET, &format!("/v1/events{query}"));
    let request = last.into_iter().fold(request, |r, last| r.header("last-event-id", last));
    request.send().await.expect("an answer")
}

async fn submit(house: &House, queue: &str) {
    body_of(
        house.post("/v1/tasks", &json!({ "queue": queue, "capabilities": ["index"] })).await,
        201,
    )
    .await;
}

#[tokio::test]
async fn a_reader_resumes_where_it_stopped() {
    let house = House::open().await;
    let mut live = Sent::of(events(&house, "", None).await);
    for queue in ["a", "b", "c"] {
        submit(&house, queue).await;
    }
    let (first, event, data) = live.next().await.expect("the first");
    assert_eq!((event.as_str(), &data["task"]), ("task", &json!("t0000000000000001")));
    drop(live);
    for (query, last) in [
        (String::new(), Some(first.as_str())),
        (format!("?after={first}"), None),
        // A browser repeats its query, but its header is newer.
        ("?after=0-0.0".to_owned(), Some(first.as_str())),
    ] {
        let mut resumed = Sent::of(events(&house, &query, last).await);
        let (_, _, second) = resumed.next().await.expect("the second");
        let (_, _, third) = resumed.next().await.expect("the third");
        assert_eq!(second["task"], "t0000000000000002", "{query}");
        assert_eq!(third["task"], "t0000000000000003", "{query}");
    }
}

#[tokio::test]
async fn what_is_no_longer_kept_is_gone() {
    let house = House::open().await;
    submit(&house, "a").await;
    house.toy.inside().compacted = 1;
    let lost = events(&house, "?after=0-0.0", None).await;
    assert_eq!(lost.status(), 410);
    problem(lost, ProblemKind::Compacted).await;
    let nonsense = events(&house, "?after=yesterday", None).await;
    problem(nonsense, ProblemKind::Invalid).await;
}

#[tokio::test]
async fn streams_are_bounded_and_give_their_place_back() {
    let options = ApiOptions { streams_max: 1, ..ApiOptions::new(TOKEN) };
    let house = House::with(Toy::default(), options).await;
    let first = events(&house, "", None).await;
    let crowded = events(&house, "", None).await;
    assert_eq!(crowded.status(), 503);
    problem(crowded, ProblemKind::Busy).await;
    drop(first);
    // The door notices at its next word; until then it may still be crowded.
    let freed = async {
        while events(&house, "", None).await.status() != 200 {
            submit(&house, "a").await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), freed).await.expect("given back");
}

#[tokio::test]
async fn closing_ends_streams_and_long_polls_finish() {
    let house = House::open().await;
    let worker = json!({ "name": "w", "capabilities": ["echo"], "slots": 1 });
    body_of(house.post("/v1/agents", &worker).await, 201).await;
    let mut live = Sent::of(events(&house, "", None).await);
    submit(&house, "a").await;
    assert!(live.next().await.is_some());
    let path = "/v1/tasks/t0000000000000001/watch";
    let mut watch = Sent::of(house.knock(Method::GET, path).send().await.expect("an answer"));
    assert!(watch.next().await.is_some());
    let take = json!({ "incarnation": 1, "wait_ms": 200 });
    let polling = tokio::spawn(house.knock(Method::POST, "/v1/agents/1/leases").json(&take).send());
    house.toy.until(|inside| inside.asked.len() == 4).await;
    house.close().await;
    assert!(live.next().await.is_none(), "the stream ended in order");
    assert!(watch.next().await.is_none(), "the watch ended in order");
    let leases = polling.await.expect("no panic").expect("answered before the door closed");
    assert_eq!(body_of(leases, 200).await, json!({ "leases": [] }));
}
