//! What a request must pass before any route.

use std::time::Duration;

use quorate_api::ApiOptions;
use quorate_types::problem::ProblemKind;
use reqwest::{Body, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::house::{House, TOKEN, problem};
use crate::toy::Toy;

#[tokio::test]
async fn a_token_is_needed_for_all_but_the_health_of_the_node() {
    let house = House::open().await;
    let healthy = house.bare(Method::GET, "/healthz").send().await.expect("an answer");
    assert_eq!(healthy.status(), 200);
    let ready = house.bare(Method::GET, "/readyz").send().await.expect("an answer");
    assert_eq!(ready.status(), 200);
    house.toy.inside().not_ready = Some("the log in /secret/place failed".to_owned());
    let behind = house.bare(Method::GET, "/readyz").send().await.expect("an answer");
    let told = problem(behind, ProblemKind::Unavailable).await;
    assert!(told.detail.contains("not ready") && !told.detail.contains("secret"), "{told:?}");
    for path in ["/v1", "/metrics", "/v1/tasks", "/v1/events", "/nowhere"] {
        let none = house.bare(Method::GET, path).send().await.expect("an answer");
        assert_eq!(none.headers()["www-authenticate"], "Bearer realm=\"quorate\"");
        problem(none, ProblemKind::Unauthorized).await;
        let wrong = house.bare(Method::GET, path).bearer_auth("open sesam").send().await;
        problem(wrong.expect("an answer"), ProblemKind::Unauthorized).await;
    }
    let other = house.bare(Method::GET, "/v1").header("authorization", format!("Basic {TOKEN}"));
    problem(other.send().await.expect("an answer"), ProblemKind::Unauthorized).await;
    let lower = house.bare(Method::GET, "/v1").header("authorization", format!("bearer {TOKEN}"));
    assert_eq!(lower.send().await.expect("an answer").status(), 200, "RFC 9110: case is no matter");
}

#[tokio::test]
async fn a_name_that_was_pointed_here_is_refused() {
    let house = House::open().await;
    let by = |name: &'static str, value: &'static str| {
        house.knock(Method::GET, "/v1").header(name, value).send()
    };
    assert_eq!(by("host", "localhost:9").await.expect("an answer").status(), 200);
    assert_eq!(by("origin", "http://127.0.0.1:9").await.expect("an answer").status(), 200);
    for (name, value) in
        [("host", "evil.example"), ("origin", "http://evil.example"), ("origin", "null")]
    {
        let refused = by(name, value).await.expect("an answer");
        assert!(problem(refused, ProblemKind::Forbidden).await.next.contains("localhost"));
    }
    let health = house.bare(Method::GET, "/healthz").header("host", "evil.example");
    assert_eq!(health.send().await.expect("an answer").status(), 403, "not even this");
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_too() {
    let house = House::open().await;
    let nowhere = house.knock(Method::GET, "/v2/tasks").send().await.expect("an answer");
    problem(nowhere, ProblemKind::NotFound).await;
    let patched = house.knock(Method::PATCH, "/v1/tasks").send().await.expect("an answer");
    let allow = patched.headers()["allow"].to_str().expect("text").to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    problem(patched, ProblemKind::MethodNotAllowed).await;
}

#[tokio::test]
async fn every_documented_route_is_served() {
    let house = House::open().await;
    let document = house.get("/v1").await;
    assert!(document["stability"].as_str().expect("text").contains("may still change"));
    let routes = document["routes"].as_array().expect("a list");
    assert!(routes.len() > 20);
    for route in routes {
        let (method, path) = (route["method"].as_str().expect("text"), &route["path"]);
        let path = path.as_str().expect("text").replace("{id}", "1").replace(['{', '}'], "");
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = house.knock(method.clone(), &path).send().await.expect("an answer");
        let status = answer.status();
        assert_ne!(status, 405, "{method} {path}");
        if status == 404 {
            let told = problem(answer, ProblemKind::NotFound).await;
            assert_ne!(told.detail, "there is no such route", "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_unread() {
    let house = House::open().await;
    let address = house.url.strip_prefix("http://").expect("plain HTTP");
    for (path, length, limit) in [
        ("PUT /v1/blobs", (64_u64 << 20) + 1, 64 << 20),
        ("POST /v1/tasks", (4 << 20) + 1, 4 << 20),
        ("POST /v1/call/echo", (1 << 20) + 1, 1 << 20),
        ("POST /v1/policies/balancer?name=p", 1 << 50, 32 << 20),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let head = format!(
            "{path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
             content-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        // The body is never sent, so that an answer shows that nobody waited for it.
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time").expect("read");
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
        assert!(answer.contains(&format!("the limit is {limit}")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_body_that_grows_too_much_is_cut() {
    let options = ApiOptions { json_bytes_max: 1000, ..ApiOptions::new(TOKEN) };
    let house = House::with(Toy::default(), options).await;
    let chunks = (0..20).map(|_| Ok::<_, std::io::Error>(vec![b' '; 100]));
    let body = Body::wrap_stream(futures::stream::iter(chunks));
    let answer = house.knock(Method::POST, "/v1/tasks").body(body).send().await.expect("answered");
    let told = problem(answer, ProblemKind::TooLarge).await;
    assert_eq!(told.limit_bytes, Some(1000));
    assert!(house.toy.inside().asked.is_empty(), "nothing reached the node");
}

#[tokio::test]
async fn readiness_and_metrics_are_told() {
    let house = House::open().await;
    assert_eq!(house.get("/readyz").await["status"], "ready");
    house.toy.inside().not_ready = Some("it has not caught up".to_owned());
    let behind = house.knock(Method::GET, "/readyz").send().await.expect("an answer");
    assert!(problem(behind, ProblemKind::Unavailable).await.detail.contains("not caught up"));
    let metrics = house.knock(Method::GET, "/metrics").send().await.expect("an answer");
    let text = metrics.text().await.expect("text");
    assert!(text.lines().any(|seen| seen == "quorate_tasks 0"), "the node's own: {text}");
    assert!(text.starts_with("# HELP quorate_build_info "), "{text}");
    let line =
        "quorate_api_request_seconds_count{method=\"GET\",route=\"/readyz\",status=\"503\"} 1";
    assert!(text.lines().any(|seen| seen == line), "{text}");
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_their_turn() {
    let options = ApiOptions { connections_max: 1, ..ApiOptions::new(TOKEN) };
    let house = House::with(Toy::default(), options).await;
    let address = house.url.strip_prefix("http://").expect("plain HTTP").to_owned();
    let first = TcpStream::connect(&address).await.expect("connected");
    let mut second = TcpStream::connect(&address).await.expect("queued by the kernel");
    let head = "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    second.write_all(head.as_bytes()).await.expect("sent");
    drop(first);
    let mut answer = String::new();
    second.read_to_string(&mut answer).await.expect("served when the first had gone");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
