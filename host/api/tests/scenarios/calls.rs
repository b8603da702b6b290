//! Calls and blobs over plain HTTP.

use quorate_types::problem::ProblemKind;
use quorate_types::{Digest, Refusal};
use reqwest::Method;

use crate::house::{House, json, problem};

#[tokio::test]
async fn a_reply_comes_whole_and_signed() {
    let house = House::open().await;
    let path = "/v1/call/echo?capability=rust&namespace=n&deadline_ms=900&idempotent=true";
    let request = house.knock(Method::POST, path).header("content-type", "text/plain");
    let reply = request.body("hello").send().await.expect("an answer");
    assert_eq!(reply.status(), 200);
    for (name, value) in
        [("quorate-agent", "a3"), ("quorate-policy-epoch", "2"), ("quorate-attempts", "1")]
    {
        assert_eq!(reply.headers()[name], value, "{name}");
    }
    let trace = reply.headers()["quorate-trace"].to_str().expect("text").to_owned();
    assert_eq!(reply.text().await.expect("a body"), "hello");
    let call = house.toy.inside().calls[0].clone();
    assert_eq!(call.capabilities, ["echo", "rust"]);
    assert_eq!((call.namespace.as_str(), call.content_type.as_str()), ("n", "text/plain"));
    assert_eq!((call.deadline_ms, call.idempotent), (900, true));
    assert_eq!(call.trace.to_string(), trace);
}

#[tokio::test]
async fn a_streamed_reply_comes_in_parts_and_a_broken_one_is_seen_as_such() {
    let house = House::open().await;
    let call = |capability: &str, body: &'static str| {
        let path = format!("/v1/call/{capability}?stream=true");
        house.knock(Method::POST, &path).body(body).send()
    };
    let mut reply = call("letters", "abc").await.expect("an answer");
    assert_eq!(reply.headers()["transfer-encoding"], "chunked");
    let mut whole = Vec::new();
    while let Some(part) = reply.chunk().await.expect("a sound stream") {
        whole.extend_from_slice(&part);
    }
    assert_eq!(whole, b"abc");
    let mut broken = call("broken", "half").await.expect("an answer");
    assert_eq!(broken.status(), 200, "it broke after its head");
    let mut end = broken.chunk().await;
    while matches!(end, Ok(Some(_))) {
        end = broken.chunk().await;
    }
    assert!(end.is_err(), "a cut reply must not look whole");
    let absent = call("nobody", "x").await.expect("an answer");
    problem(absent, ProblemKind::NotFound).await;
}

#[tokio::test]
async fn a_refusal_before_the_first_byte_keeps_its_status() {
    let house = House::open().await;
    for stream in ["true", "false"] {
        house.toy.refuse(Refusal::Busy { what: "agent a3".to_owned(), retry_after_ms: 5 });
        let path = format!("/v1/call/echo?stream={stream}");
        let refused = house.knock(Method::POST, &path).send().await.expect("an answer");
        problem(refused, ProblemKind::Busy).await;
    }
    let broken = house.knock(Method::POST, "/v1/call/broken").body("x").send().await;
    let told = problem(broken.expect("an answer"), ProblemKind::Agent).await;
    assert_eq!(told.detail, "the agent failed: it trapped");
}

#[tokio::test]
async fn a_silent_agent_ends_in_a_timeout_and_a_caller_who_leaves_cancels() {
    let house = House::open().await;
    let late = house.knock(Method::POST, "/v1/call/silent?deadline_ms=1").send().await;
    problem(late.expect("an answer"), ProblemKind::Timeout).await;
    let waiting = house.knock(Method::POST, "/v1/call/silent?deadline_ms=300000").send();
    let waiting = tokio::spawn(waiting);
    house.toy.until(|inside| inside.calls.len() == 2).await;
    assert_eq!(house.toy.inside().calls_dropped, 1, "the first was dropped at its deadline");
    waiting.abort();
    house.toy.until(|inside| inside.calls_dropped == 2).await;
}

#[tokio::test]
async fn a_blob_is_known_by_its_content() {
    let house = House::open().await;
    let put = house.knock(Method::PUT, "/v1/blobs").body("content").send().await;
    let stored = json(put.expect("an answer"), 201).await;
    let name = Digest::of(b"content").to_string();
    assert_eq!(stored, serde_json::json!({ "sha256": name, "size": 7 }));
    let path = format!("/v1/blobs/{name}");
    let got = house.knock(Method::GET, &path).send().await.expect("an answer");
    assert_eq!(got.headers()["etag"], format!("\"{name}\"").as_str());
    assert_eq!(got.text().await.expect("a body"), "content");
    let head = house.knock(Method::HEAD, &path).send().await.expect("an answer");
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &"7".parse().expect("ascii"))
    );
    let absent =
        house.knock(Method::GET, &format!("/v1/blobs/{}", Digest::of(b"other"))).send().await;
    problem(absent.expect("an answer"), ProblemKind::NotFound).await;
    let nonsense = house.knock(Method::GET, "/v1/blobs/abc").send().await.expect("an answer");
    problem(nonsense, ProblemKind::Invalid).await;
}
