//! Every refusal has a status, and says what to try.

use quorate_types::Refusal;
use quorate_types::problem::ProblemKind;
use reqwest::Method;
use serde_json::json;

use crate::house::{House, problem};

fn all() -> Vec<(Refusal, u16, ProblemKind)> {
    let word = || "why".to_owned();
    vec![
        (Refusal::Invalid(word()), 400, ProblemKind::Invalid),
        (Refusal::NotFound(word()), 404, ProblemKind::NotFound),
        (Refusal::Conflict(word()), 409, ProblemKind::Conflict),
        (Refusal::Compacted(word()), 410, ProblemKind::Compacted),
        (
            Refusal::TooLarge { what: word(), got: 70_000, limit: 65_536 },
            413,
            ProblemKind::TooLarge,
        ),
        (Refusal::Busy { what: word(), retry_after_ms: 1_200 }, 429, ProblemKind::Busy),
        (Refusal::Agent(word()), 502, ProblemKind::Agent),
        (Refusal::Unavailable(word()), 503, ProblemKind::Unavailable),
        (Refusal::Timeout(word()), 504, ProblemKind::Timeout),
    ]
}

#[tokio::test]
async fn each_becomes_a_problem_with_its_own_status() {
    let house = House::open().await;
    for (refusal, status, kind) in all() {
        house.toy.refuse(refusal.clone());
        let answer = house.knock(Method::GET, "/v1/members").send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{refusal}");
        let retry_after = answer.headers().get("retry-after").cloned();
        let told = problem(answer, kind).await;
        assert_eq!(told.detail, refusal.to_string());
        match refusal {
            Refusal::Busy { retry_after_ms, .. } => {
                assert_eq!(told.retry_after_ms, Some(retry_after_ms));
                assert_eq!(retry_after.expect("a header"), "2", "whole seconds, rounded up");
            }
            Refusal::TooLarge { limit, .. } => {
                assert_eq!(told.limit_bytes, Some(limit));
                assert!(told.detail.contains("the limit is 65536"), "{}", told.detail);
            }
            Refusal::Unavailable(_) => assert_eq!(retry_after.expect("a header"), "1"),
            Refusal::Invalid(_)
            | Refusal::NotFound(_)
            | Refusal::Conflict(_)
            | Refusal::Timeout(_)
            | Refusal::Agent(_)
            | Refusal::Across(_)
            | Refusal::Compacted(_) => assert_eq!(retry_after, None, "{refusal}"),
        }
    }
}

#[tokio::test]
async fn what_is_misspelt_is_named_with_what_was_meant() {
    let house = House::open().await;
    let body = json!({ "capabilities": ["echo"], "retry": { "attempt_max": 3 } });
    let refused = problem(house.post("/v1/tasks", &body).await, ProblemKind::Invalid).await;
    assert_eq!(refused.detail, "there is no field `attempt_max` in `retry`");
    assert!(refused.next.starts_with("did you mean `attempts_max`?"), "{}", refused.next);
    for (path, next) in [
        ("/v1/tasks?stat=queued", "did you mean `state`?"),
        ("/v1/tasks?state=complete", "did you mean `completed`?"),
        ("/v1/tasks?consistency=eventual", "ask for `linearizable`"),
        ("/v1/tasks?limit=0", "give limit as 1 to 1000"),
        ("/v1/tasks?limit=5&limit=6", "give it once"),
        ("/v1/tasks/t12", "correct it"),
    ] {
        let answer = house.knock(Method::GET, path).send().await.expect("an answer");
        let refused = problem(answer, ProblemKind::Invalid).await;
        assert!(refused.next.starts_with(next), "{path}: {}", refused.next);
    }
}

#[tokio::test]
async fn the_callers_deadline_reaches_the_node_and_is_bounded() {
    let house = House::open().await;
    let ask = |deadline: &str| {
        let request = house.knock(Method::GET, "/v1/members");
        request.header("quorate-deadline-ms", deadline).send()
    };
    assert_eq!(ask("1234").await.expect("an answer").status(), 200);
    assert_eq!(house.toy.inside().asked.last().map(|(_, deadline)| *deadline), Some(1234));
    for nonsense in ["0", "300001", "soon"] {
        problem(ask(nonsense).await.expect("an answer"), ProblemKind::Invalid).await;
    }
}
