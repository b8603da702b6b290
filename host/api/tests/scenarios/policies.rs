//! Policies: shipped, sent along, or stored before.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_api::ApiOptions;
use quorate_types::Digest;
use quorate_types::problem::ProblemKind;
use reqwest::Method;
use serde_json::json;

use crate::house::{House, TOKEN, json as body_of, problem};
use crate::toy::Toy;

async fn house() -> House {
    let component = |name: &str| (name.to_owned(), Bytes::from(format!("component {name}")));
    let builtins = BTreeMap::from(["round-robin", "load-aware"].map(component));
    House::with(Toy::default(), ApiOptions { builtins, ..ApiOptions::new(TOKEN) }).await
}

#[tokio::test]
async fn a_slot_takes_a_policy_by_name_by_bytes_or_by_digest() {
    let house = house().await;
    let by_name = house.post("/v1/policies/balancer", &json!({ "builtin": "load-aware" })).await;
    let applied = body_of(by_name, 200).await;
    assert_eq!(applied["digest"], Digest::of(b"component load-aware").to_string());
    assert_eq!((&applied["name"], &applied["epoch"]), (&json!("load-aware"), &json!(1)));

    let path = "/v1/policies/balancer?name=mine";
    let by_bytes = house.knock(Method::POST, path).body("my component").send().await;
    let applied = body_of(by_bytes.expect("an answer"), 200).await;
    assert_eq!((&applied["name"], &applied["epoch"]), (&json!("mine"), &json!(2)));

    let digest = Digest::of(b"my component").to_string();
    let body = json!({ "digest": digest, "name": "again", "force": true });
    let applied = body_of(house.post("/v1/policies/balancer", &body).await, 200).await;
    assert_eq!((&applied["name"], &applied["digest"]), (&json!("again"), &json!(digest)));
    assert_eq!(house.get("/v1/policies").await["policies"][0], applied);
}

#[tokio::test]
async fn what_is_meant_must_be_clear() {
    let house = house().await;
    let apply = async |body: serde_json::Value| house.post("/v1/policies/balancer", &body).await;
    let unknown = apply(json!({ "builtin": "load-awar" })).await;
    let told = problem(unknown, ProblemKind::NotFound).await;
    assert!(told.next.starts_with("did you mean `load-aware`?"), "{}", told.next);
    let absent = json!({ "digest": Digest::of(b"none").to_string(), "name": "n" });
    problem(apply(absent).await, ProblemKind::NotFound).await;
    let digest = Digest::of(b"x").to_string();
    for body in
        [json!({}), json!({ "digest": digest }), json!({ "builtin": "b", "digest": digest })]
    {
        problem(apply(body).await, ProblemKind::Invalid).await;
    }
    let nameless =
        house.knock(Method::POST, "/v1/policies/balancer").body("component").send().await;
    problem(nameless.expect("an answer"), ProblemKind::Invalid).await;
}

#[tokio::test]
async fn members_and_groups_are_shown() {
    let house = house().await;
    assert_eq!(house.get("/v1/members").await["members"][0]["status"], "alive");
    let group = &house.get("/v1/cluster").await["nodes"][0]["groups"][0];
    assert_eq!(group["state_digest"], Digest::of(b"state").to_string());
    assert_eq!((&group["leader"], &group["applied_index"]), (&json!(1), &json!(0)));
}
