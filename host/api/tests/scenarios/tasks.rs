//! Tasks and workers over plain HTTP.

use quorate_types::limits::INLINE_BYTES_MAX;
use quorate_types::problem::ProblemKind;
use quorate_types::{Refusal, Request, TaskId, TraceId};
use reqwest::Method;
use serde_json::{Value, json};

use crate::house::{House, Sent, json as body_of, problem};

#[tokio::test]
async fn a_task_submitted_again_under_its_key_is_the_same_task() {
    let house = House::open().await;
    let spec = json!({ "capabilities": ["echo"], "input": { "text": "hello" } });
    let submit = |body: &Value| {
        let request = house.knock(Method::POST, "/v1/tasks").header("idempotency-key", "k1");
        request.json(body).send()
    };
    let first = submit(&spec).await.expect("an answer");
    let location = first.headers()["location"].to_str().expect("text").to_owned();
    let first = body_of(first, 201).await;
    assert_eq!(first["existed"], false);
    assert_eq!(location, format!("/v1/tasks/{}", first["id"].as_str().expect("an id")));
    let again = body_of(submit(&spec).await.expect("an answer"), 200).await;
    assert_eq!(again, json!({ "id": first["id"], "existed": true }));
    let other = json!({ "capabilities": ["echo"], "input": { "text": "other" } });
    let refused = problem(submit(&other).await.expect("an answer"), ProblemKind::Conflict).await;
    assert_eq!(refused.detail, "key `k1` belongs to another body");
    assert_eq!(house.toy.inside().tasks.len(), 1);
    assert_eq!(house.get(&location).await["spec"]["input"]["text"], "hello");
}

#[tokio::test]
async fn the_key_of_header_and_field_must_agree() {
    let house = House::open().await;
    let request = house.knock(Method::POST, "/v1/tasks").header("idempotency-key", "a");
    let body = json!({ "capabilities": ["echo"], "idempotency_key": "b" });
    let refused = request.json(&body).send().await.expect("an answer");
    assert!(problem(refused, ProblemKind::Invalid).await.detail.contains("differ"));
}

#[tokio::test]
async fn a_batch_is_answered_one_by_one_in_order() {
    let house = House::open().await;
    let large = "x".repeat(INLINE_BYTES_MAX + 1);
    let of = |text: &str| json!({ "capabilities": ["echo"], "input": { "text": text } });
    let batch = json!({ "tasks": [of("a"), of(&large), of("c")] });
    let request = house.knock(Method::POST, "/v1/tasks").header("idempotency-key", "batch");
    let answer = body_of(request.json(&batch).send().await.expect("an answer"), 200).await;
    let tasks = answer["tasks"].as_array().expect("a list");
    assert_eq!(tasks[0]["submitted"]["existed"], false);
    assert_eq!(tasks[1]["problem"]["type"], "urn:quorate:problem:too-large");
    assert_eq!(tasks[1]["problem"]["limit_bytes"], INLINE_BYTES_MAX);
    assert_eq!(tasks[2]["submitted"]["existed"], false);
    let keys: Vec<_> =
        house.toy.inside().tasks.values().map(|t| t.spec.idempotency_key.clone()).collect();
    assert_eq!(keys, [Some("batch/0".to_owned()), Some("batch/2".to_owned())], "one key each");
}

#[tokio::test]
async fn a_request_has_one_trace_from_head_to_task() {
    let house = House::open().await;
    let trace = TraceId(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let request = house.knock(Method::POST, "/v1/tasks").header("traceparent", parent);
    let answer = request.json(&json!({ "capabilities": ["echo"] })).send().await.expect("sent");
    let returned = answer.headers()["traceparent"].to_str().expect("text");
    assert!(returned.starts_with(&format!("00-{trace}-")), "{returned}");
    body_of(answer, 201).await;
    assert_eq!(house.toy.inside().tasks.values().next().map(|task| task.spec.trace), Some(trace));
}

#[tokio::test]
async fn a_worker_waits_for_work_does_it_and_is_fenced_by_its_next_life() {
    let house = House::open().await;
    let worker = json!({ "name": "w", "capabilities": ["echo"], "slots": 2 });
    let registered = body_of(house.post("/v1/agents", &worker).await, 201).await;
    assert_eq!(registered, json!({ "id": 1, "incarnation": 1 }));
    let take = json!({ "incarnation": 1, "max": 2, "wait_ms": 60_000, "holding": [] });
    let polling = house.knock(Method::POST, "/v1/agents/a1/leases").json(&take).send();
    let polling = tokio::spawn(polling);
    let takes = |asked: &[(Request, u64)]| {
        asked.iter().any(|(request, _)| matches!(request, Request::Take { .. }))
    };
    house.toy.until(|inside| takes(&inside.asked)).await;
    let task = json!({ "capabilities": ["echo"], "input": { "text": "work" } });
    body_of(house.post("/v1/tasks", &task).await, 201).await;
    let leases = polling.await.expect("no panic").expect("an answer");
    let grant = body_of(leases, 200).await["leases"][0].clone();
    assert_eq!(grant["spec"]["input"]["text"], "work");
    let (id, token) = (grant["lease"]["task"].as_str().expect("an id"), &grant["lease"]["token"]);

    let beat = house.post("/v1/agents/1/heartbeat", &json!({ "incarnation": 1 })).await;
    assert_eq!(beat.status(), 204, "ids are taken with and without their letter");
    let renewed = house.post(&format!("/v1/tasks/{id}/renew"), &json!({ "token": token })).await;
    assert_eq!(body_of(renewed, 200).await["term_ms"], 5_000);
    let stale = json!({ "token": 99, "result": { "text": "late" } });
    let stale = house.post(&format!("/v1/tasks/{id}/complete"), &stale).await;
    problem(stale, ProblemKind::Conflict).await;
    let result = json!({ "token": token, "result": { "text": "done" } });
    let done = house.post(&format!("/v1/tasks/{id}/complete"), &result).await;
    assert_eq!(done.status(), 204);
    assert_eq!(house.get(&format!("/v1/tasks/{id}")).await["result"]["text"], "done");

    let second = body_of(house.post("/v1/agents", &worker).await, 201).await;
    assert_eq!(second, json!({ "id": 1, "incarnation": 2 }));
    let fenced = house.post("/v1/agents/a1/heartbeat", &json!({ "incarnation": 1 })).await;
    problem(fenced, ProblemKind::Conflict).await;
    let gone = house.knock(Method::DELETE, "/v1/agents/a1?incarnation=2").send().await;
    assert_eq!(gone.expect("an answer").status(), 204);
}

#[tokio::test]
async fn a_record_never_names_a_blob_that_nobody_has() {
    let house = House::open().await;
    let nobody = quorate_types::Digest::of(b"nobody has this");
    let of = |digest: &str, size: usize| json!({ "capabilities": ["echo"], "input": { "blob": digest, "size": size } });
    let unknown = of(&nobody.to_string(), 15);
    let told = problem(house.post("/v1/tasks", &unknown).await, ProblemKind::NotFound).await;
    assert!(told.detail.contains(&nobody.to_string()), "{told:?}");
    assert!(told.next.contains("PUT /v1/blobs"), "{told:?}");

    let stored = house.knock(Method::PUT, "/v1/blobs").body("here").send().await.expect("sent");
    let stored = body_of(stored, 201).await["sha256"].as_str().expect("a digest").to_owned();
    let wrong = house.post("/v1/tasks", &of(&stored, 5)).await;
    assert!(problem(wrong, ProblemKind::Invalid).await.detail.contains("4 bytes, not of 5"));
    let batch = json!({ "tasks": [unknown, of(&stored, 4)] });
    let answer = body_of(house.post("/v1/tasks", &batch).await, 200).await;
    assert_eq!(answer["tasks"][0]["problem"]["type"], "urn:quorate:problem:not-found");
    let id = answer["tasks"][1]["submitted"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(house.toy.inside().tasks.len(), 1, "nothing else was proposed");

    let worker = json!({ "name": "w", "capabilities": ["echo"], "slots": 1 });
    body_of(house.post("/v1/agents", &worker).await, 201).await;
    let take = json!({ "incarnation": 1 });
    let leases = body_of(house.post("/v1/agents/1/leases", &take).await, 200).await;
    let token = &leases["leases"][0]["lease"]["token"];
    let end = json!({ "token": token, "result": { "blob": nobody.to_string(), "size": 15 } });
    let refused = house.post(&format!("/v1/tasks/{id}/complete"), &end).await;
    assert!(problem(refused, ProblemKind::NotFound).await.detail.starts_with("the result"));
    let end = json!({ "token": token, "result": { "blob": stored, "size": 4 } });
    assert_eq!(house.post(&format!("/v1/tasks/{id}/complete"), &end).await.status(), 204);
}

#[tokio::test]
async fn a_take_without_work_ends_empty_and_its_wait_is_bounded() {
    let house = House::open().await;
    let worker = json!({ "name": "w", "capabilities": ["echo"], "slots": 1 });
    body_of(house.post("/v1/agents", &worker).await, 201).await;
    let take = json!({ "incarnation": 1, "wait_ms": 1 });
    let empty = body_of(house.post("/v1/agents/1/leases", &take).await, 200).await;
    assert_eq!(empty, json!({ "leases": [] }));
    let endless = json!({ "incarnation": 1, "wait_ms": 300_001 });
    problem(house.post("/v1/agents/1/leases", &endless).await, ProblemKind::Invalid).await;
}

#[tokio::test]
async fn agents_are_found_by_all_of_their_capabilities() {
    let house = House::open().await;
    for (name, capabilities) in [("both", vec!["index", "rust"]), ("one", vec!["index"])] {
        let worker = json!({ "name": name, "capabilities": capabilities, "slots": 1 });
        body_of(house.post("/v1/agents", &worker).await, 201).await;
    }
    let names = async |query: &str| {
        let found = house.get(&format!("/v1/agents{query}")).await;
        let agents = found["agents"].as_array().expect("a list").clone();
        agents.iter().map(|agent| agent["spec"]["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("?capability=index&capability=rust").await, ["both"]);
    assert_eq!(names("?capability=index").await, ["both", "one"]);
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_says_when_it_may_be_old() {
    let house = House::open().await;
    let tasks: Vec<Value> = (0..5).map(|n| json!({ "queue": format!("q{}", n % 2) })).collect();
    body_of(house.post("/v1/tasks", &json!({ "tasks": tasks })).await, 200).await;
    let mut path = "/v1/tasks?queue=q0&limit=2&consistency=stale".to_owned();
    let mut pages = Vec::new();
    loop {
        let page = house.get(&path).await;
        assert_eq!(page["stale"], true);
        assert_eq!(page["counts"]["queued"], 5);
        pages.push(page["tasks"].as_array().expect("a list").len());
        let Some(cursor) = page["cursor"].as_str() else { break };
        path = format!("/v1/tasks?queue=q0&limit=2&consistency=stale&cursor={cursor}");
    }
    assert_eq!(pages, [2, 1]);
    assert_eq!(house.get("/v1/tasks?state=completed").await["tasks"], json!([]));
}

#[tokio::test]
async fn a_watch_begins_with_the_present_and_ends_with_the_task() {
    let house = House::open().await;
    let worker = json!({ "name": "w", "capabilities": ["echo"], "slots": 1 });
    body_of(house.post("/v1/agents", &worker).await, 201).await;
    let task = json!({ "capabilities": ["echo"] });
    let id = body_of(house.post("/v1/tasks", &task).await, 201).await["id"].clone();
    let id = id.as_str().expect("an id");
    let path = format!("/v1/tasks/{id}/watch");
    let watching = house.knock(Method::GET, &path).send().await.expect("an answer");
    let mut sent = Sent::of(watching);
    let mut state = async || {
        let (_, event, task) = sent.next().await?;
        assert_eq!(event, "task");
        Some(format!("{} {}", task["state"].as_str().expect("a state"), task["attempts"]))
    };
    assert_eq!(state().await.as_deref(), Some("queued 0"), "the present comes first");
    let take = json!({ "incarnation": 1 });
    for (attempt, retry) in [(1, true), (2, false)] {
        let lease = body_of(house.post("/v1/agents/1/leases", &take).await, 200).await;
        assert_eq!(state().await, Some(format!("leased {attempt}")));
        let token = &lease["leases"][0]["lease"]["token"];
        let failed = json!({ "token": token, "reason": "no luck", "retry": retry });
        assert_eq!(house.post(&format!("/v1/tasks/{id}/fail"), &failed).await.status(), 204);
        let expected = if retry { "queued 1" } else { "dead-letter 2" };
        assert_eq!(state().await.as_deref(), Some(expected));
    }
    assert_eq!(state().await, None, "a task that has ended changes no more");
    let after = house.knock(Method::GET, &path).send().await.expect("an answer");
    let mut sent = Sent::of(after);
    assert_eq!(sent.next().await.expect("the end").2["state"], "dead-letter");
    assert!(sent.next().await.is_none());
    let absent = house.knock(Method::GET, "/v1/tasks/t00000000000000ff/watch").send().await;
    problem(absent.expect("an answer"), ProblemKind::NotFound).await;
}

#[tokio::test]
async fn a_watch_outlives_a_lost_leader() {
    let house = House::open().await;
    body_of(house.post("/v1/tasks", &json!({})).await, 201).await;
    let path = "/v1/tasks/t0000000000000001";
    let watching = house.knock(Method::GET, &format!("{path}/watch")).send().await;
    let mut sent = Sent::of(watching.expect("an answer"));
    assert_eq!(sent.next().await.expect("the present").2["state"], "queued");
    let why = house.get(&format!("{path}/why")).await;
    assert_eq!(why["waits"], "no agent has offered a slot");
    house.toy.act(|inside| {
        inside.answer(Request::Cancel(TaskId::new(0, 1))).expect("cancelled");
        // The read that follows the event meets no leader; the one after that does.
        inside.refusals.push_back(Refusal::Unavailable("election".to_owned()));
    });
    assert_eq!(sent.next().await.expect("the end").2["state"], "cancelled");
    assert!(sent.next().await.is_none());
    assert!(house.toy.inside().refusals.is_empty(), "the refusal was met");
}
