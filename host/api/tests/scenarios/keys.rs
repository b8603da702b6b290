//! Keys, leases, locks and elections over HTTP.

use quorate_ledger::ShardCommand;
use quorate_types::Refusal;
use quorate_types::kv::LeaseId;
use quorate_types::problem::ProblemKind;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::house::{House, Sent, json as body, problem};

async fn put(house: &House, path: &str, value: &str) -> Response {
    let request = house.knock(Method::PUT, path).body(value.to_owned());
    request.send().await.expect("an answer")
}

async fn lease(house: &House) -> String {
    let granted = house.post("/v1/leases", &json!({ "segment": "app", "ttl_ms": 5000 })).await;
    body(granted, 201).await["lease"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_key_is_put_read_guarded_and_deleted() {
    let house = House::open().await;
    let first = body(put(&house, "/v1/kv/app/a%20b", "one").await, 200).await;
    assert_eq!(first["put"]["version"], 1);
    let got = house.get("/v1/kv/app/a%20b").await;
    assert_eq!((&got["key"], &got["value"]["text"]), (&json!("app/a b"), &json!("one")));
    assert_eq!((&got["modified"], &got["stale"]), (&first["put"]["revision"], &json!(false)));
    let stale = put(&house, "/v1/kv/app/a%20b?version=2", "two").await;
    let told = problem(stale, ProblemKind::Conflict).await;
    assert!(told.detail.contains("version 1"), "{}", told.detail);
    let guard = format!("/v1/kv/app/a%20b?modified={}", got["modified"].as_str().expect("text"));
    assert_eq!(put(&house, &guard, "two").await.status(), 200);
    let gone = house.knock(Method::DELETE, "/v1/kv/app/a%20b").send().await.expect("an answer");
    assert_eq!(body(gone, 200).await["deleted"]["count"], 1);
    let missing = house.knock(Method::GET, "/v1/kv/app/a%20b").send().await.expect("an answer");
    problem(missing, ProblemKind::NotFound).await;
}

#[tokio::test]
async fn bytes_that_are_no_text_come_back_whole() {
    let house = House::open().await;
    let request = house.knock(Method::PUT, "/v1/kv/app/b").body(vec![0xff, 0x00]);
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    assert_eq!(house.get("/v1/kv/app/b").await["value"]["base64"], "/wA=");
}

#[tokio::test]
async fn a_repeat_under_one_key_is_done_once() {
    let house = House::open().await;
    let send = || {
        let request = house.knock(Method::PUT, "/v1/kv/app/a").header("idempotency-key", "k");
        request.body("x").send()
    };
    let first = body(send().await.expect("an answer"), 200).await;
    assert_eq!(body(send().await.expect("an answer"), 200).await, first);
    assert_eq!(house.get("/v1/kv/app/a").await["version"], 1);
    put(&house, "/v1/kv/app/a", "x").await;
    assert_eq!(house.get("/v1/kv/app/a").await["version"], 2, "without one it is another");
}

#[tokio::test]
async fn keys_are_listed_by_pages_within_one_first_segment() {
    let house = House::open().await;
    for key in ["app/a", "app/b", "app/c", "other/a"] {
        put(&house, &format!("/v1/kv/{key}"), key).await;
    }
    let page = house.get("/v1/kv?prefix=app/&limit=2").await;
    let keys = |page: &Value| -> Vec<String> {
        let keys = page["keys"].as_array().expect("keys");
        keys.iter().map(|one| one["key"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(keys(&page), ["app/a", "app/b"]);
    let cursor = page["cursor"].as_str().expect("more");
    let rest = house.get(&format!("/v1/kv?prefix=app/&limit=2&cursor={cursor}")).await;
    assert_eq!((keys(&rest), &rest["cursor"]), (vec!["app/c".to_owned()], &Value::Null));
    for across in ["/v1/kv?prefix=app", "/v1/kv"] {
        let refused = house.knock(Method::GET, across).send().await.expect("an answer");
        problem(refused, ProblemKind::Across).await;
    }
    let gone = house.knock(Method::DELETE, "/v1/kv?prefix=app/").send().await.expect("an answer");
    assert_eq!(body(gone, 200).await["deleted"]["count"], 3);
}

#[tokio::test]
async fn a_transaction_is_one_act_and_a_batch_is_many() {
    let house = House::open().await;
    let put = |key: &str| json!({ "put": { "key": key, "value": { "text": "x" } } });
    let txn = json!({
        "compare": [{ "key": "app/a", "is": "absent" }],
        "then": [put("app/a")],
        "else": [{ "get": { "key": "app/a" } }],
    });
    let done = body(house.post("/v1/kv:txn", &txn).await, 200).await;
    assert_eq!((&done["held"], &done["results"][0]["put"]["version"]), (&json!(true), &json!(1)));
    let done = body(house.post("/v1/kv:txn", &txn).await, 200).await;
    assert_eq!(done["results"][0]["got"]["value"]["text"], "x");
    let across = json!({ "then": [put("app/a"), put("other/a")] });
    problem(house.post("/v1/kv:txn", &across).await, ProblemKind::Across).await;
    let batch = json!({ "ops": [put("app/a"), put("/wrong"), put("other/a")] });
    let done = body(house.post("/v1/kv:batch", &batch).await, 200).await;
    let results = done["results"].as_array().expect("results");
    assert_eq!(results[0]["done"]["put"]["version"], 2);
    assert_eq!(results[1]["problem"]["status"], 400);
    assert_eq!(results[2]["done"]["put"]["version"], 1);
}

#[tokio::test]
async fn what_is_too_large_or_wrong_is_refused_by_name() {
    let house = House::open().await;
    let long = put(&house, "/v1/kv/app/a", &"x".repeat((64 << 10) + 1)).await;
    assert_eq!(problem(long, ProblemKind::TooLarge).await.limit_bytes, Some(64 << 10));
    let name = format!("/v1/kv/{}", "k".repeat(1025));
    problem(put(&house, &name, "x").await, ProblemKind::TooLarge).await;
    problem(put(&house, "/v1/kv/app//a", "x").await, ProblemKind::Invalid).await;
    problem(put(&house, "/v1/kv/a?version=1&absent=true", "x").await, ProblemKind::Invalid).await;
    problem(put(&house, "/v1/kv/a?versoin=1", "x").await, ProblemKind::Invalid).await;
    let many: Vec<Value> = (0..129).map(|_| json!({ "get": { "key": "a" } })).collect();
    let many = house.post("/v1/kv:batch", &json!({ "ops": many })).await;
    problem(many, ProblemKind::Invalid).await;
}

#[tokio::test]
async fn a_watch_goes_on_after_the_revision_it_saw() {
    let house = House::open().await;
    put(&house, "/v1/kv/app/a", "1").await;
    let as_of = house.get("/v1/kv/app/a").await["as_of"].as_str().expect("text").to_owned();
    let watch = format!("/v1/kv:watch?prefix=app/&after={as_of}");
    let response = house.knock(Method::GET, &watch).send().await.expect("an answer");
    let mut events = Sent::of(response);
    for value in ["2", "3"] {
        put(&house, "/v1/kv/app/a", value).await;
    }
    let (id, event, data) = events.next().await.expect("one");
    assert_eq!((event.as_str(), &data["value"]["text"]), ("put", &json!("2")));
    let again = house.knock(Method::GET, "/v1/kv:watch?prefix=app/").header("last-event-id", id);
    let mut again = Sent::of(again.send().await.expect("an answer"));
    assert_eq!(again.next().await.expect("one").2["value"]["text"], "3");
    house.knock(Method::DELETE, "/v1/kv/app/a").send().await.expect("an answer");
    assert_eq!(again.next().await.expect("one").1, "deleted");
    for wrong in ["/v1/kv:watch", "/v1/kv:watch?prefix=app/&after=7"] {
        let refused = house.knock(Method::GET, wrong).send().await.expect("an answer");
        problem(refused, ProblemKind::Invalid).await;
    }
}

#[tokio::test]
async fn what_hangs_on_a_lease_ends_with_it() {
    let house = House::open().await;
    let lease = lease(&house).await;
    put(&house, &format!("/v1/kv/app/a?lease={lease}"), "x").await;
    assert_eq!(house.get(&format!("/v1/leases/{lease}")).await["holds"], 1);
    assert_eq!(house.get("/v1/leases").await["leases"][0]["lease"], lease.as_str());
    let kept = house.post(&format!("/v1/leases/{lease}/keep"), &json!({})).await;
    assert_eq!(body(kept, 200).await["term_ms"], 5000);
    let path = format!("/v1/leases/{lease}");
    let ended = house.knock(Method::DELETE, &path).send().await.expect("an answer");
    assert_eq!(ended.status(), 204);
    let missing = house.knock(Method::GET, "/v1/kv/app/a").send().await.expect("an answer");
    problem(missing, ProblemKind::NotFound).await;
    let missing = house.knock(Method::GET, &path).send().await.expect("an answer");
    problem(missing, ProblemKind::NotFound).await;
}

#[tokio::test]
async fn a_lock_is_waited_for_in_order_and_handed_over() {
    let house = House::open().await;
    let (one, two) = (lease(&house).await, lease(&house).await);
    let take = |lease: &str, wait_ms: u64| {
        let body = json!({ "lease": lease, "wait_ms": wait_ms });
        let house = &house;
        async move { house.post("/v1/locks/app/lock", &body).await }
    };
    let held = body(take(&one, 0).await, 200).await;
    let token = held["holds"]["token"].as_u64().expect("a number");
    problem(take(&two, 20).await, ProblemKind::Timeout).await;
    let seat = house.get("/v1/locks/app/lock").await;
    assert_eq!((&seat["holder"]["lease"], &seat["waiting"]), (&json!(one), &json!([])));
    let ends = async {
        house
            .toy
            .until(|inside| {
                let asked = &inside
                    .asked
                    .iter()
                    .filter(|(request, _)| format!("{request:?}").contains("Acquire"));
                asked.clone().count() == 3
            })
            .await;
        let id: LeaseId = one.parse().expect("an id");
        house.toy.inside().kv(ShardCommand::KvExpire(vec![id]));
        house.toy.tell();
    };
    let (next, ()) = tokio::join!(take(&two, 10_000), ends);
    let next = body(next, 200).await["holds"]["token"].as_u64().expect("a number");
    assert!(next > token);
    assert_eq!(house.get("/v1/locks").await["seats"].as_array().expect("one").len(), 1);
    let path = format!("/v1/locks/app/lock?lease={two}");
    let left = house.knock(Method::DELETE, &path).send().await.expect("an answer");
    assert_eq!(left.status(), 204);
    assert_eq!(house.get("/v1/locks/app/lock").await["holder"], Value::Null);
}

#[tokio::test]
async fn an_election_shows_its_leader_and_what_it_proclaims() {
    let house = House::open().await;
    let lease = lease(&house).await;
    let campaign = json!({ "lease": lease, "value": { "text": "one" } });
    body(house.post("/v1/elections/app/leader", &campaign).await, 200).await;
    let seat = house.get("/v1/elections/app/leader").await;
    assert_eq!(seat["holder"]["value"]["text"], "one");
    let as_of = seat["as_of"].as_str().expect("text");
    let watch = format!("/v1/elections/app/leader?watch=true&after={as_of}");
    let mut events = Sent::of(house.knock(Method::GET, &watch).send().await.expect("an answer"));
    let proclaim = json!({ "lease": lease, "value": { "text": "two" } });
    let request = house.knock(Method::PUT, "/v1/elections/app/leader").json(&proclaim);
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    let (_id, event, data) = events.next().await.expect("one");
    assert_eq!((event.as_str(), &data["holder"]["value"]["text"]), ("holder", &json!("two")));
    let path = format!("/v1/elections/app/leader?lease={lease}");
    house.knock(Method::DELETE, &path).send().await.expect("an answer");
    assert_eq!(events.next().await.expect("one").2["holder"], Value::Null);
}

#[tokio::test]
async fn a_lost_leader_is_told_as_such() {
    let house = House::open().await;
    house.toy.refuse(Refusal::Unavailable("an election".to_owned()));
    problem(put(&house, "/v1/kv/app/a", "x").await, ProblemKind::Unavailable).await;
}
