//! The Rust client at the same door, with nodes that die and answers that are lost.

use std::time::Duration;

use quorate_client::{CallRequest, Client, ClientError, ClientOptions, PolicySource};
use quorate_types::door::{Consistency, TaskFilter};
use quorate_types::http::Register;
use quorate_types::problem::ProblemKind;
use quorate_types::{Digest, EventKind, Payload, Refusal, TaskId, TaskState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::house::{House, TOKEN};
use crate::toy::{Toy, task};

fn client(urls: &[&str]) -> Client {
    let urls = urls.iter().map(ToString::to_string);
    Client::new(ClientOptions::new(urls, Some(TOKEN.to_owned()))).expect("sound addresses")
}

/// A port at which nobody listens.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    format!("http://{}", listener.local_addr().expect("bound"))
}

/// A node that does what it is asked and dies before it can say so, once; then it is gone.
async fn dies_before_it_answers(house: &House) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let node = house.url.strip_prefix("http://").expect("plain HTTP").to_owned();
    tokio::spawn(async move {
        let (mut asker, _) = listener.accept().await.expect("a request");
        let mut behind = TcpStream::connect(node).await.expect("the true node");
        let mut request = vec![0; 64 << 10];
        let mut answer = [0; 1];
        loop {
            tokio::select! {
                read = asker.read(&mut request) => {
                    let read = read.expect("the request");
                    behind.write_all(&request[..read]).await.expect("passed on");
                }
                // The answer begins, so the deed is done; nobody hears of it.
                _answered = behind.read(&mut answer) => return,
            }
        }
    });
    url
}

fn worker() -> Register {
    Register {
        namespace: "default".to_owned(),
        name: "w".to_owned(),
        capabilities: vec!["echo".to_owned()],
        slots: 4,
    }
}

#[tokio::test]
async fn a_job_goes_through_from_both_sides() {
    let house = House::open().await;
    let client = client(&[&house.url]);
    let me = client.register(&worker()).await.expect("registered");
    let submitted = client.submit(task("echo", "hello")).await.expect("submitted");
    let mut states = client.watch(submitted.id).await.expect("watched");
    let first = states.next().await.expect("the present").expect("read");
    assert_eq!(first.state, TaskState::Queued);
    let leases =
        client.take(me.id, me.incarnation, &[], 4, Duration::from_secs(5)).await.expect("taken");
    let [grant] = leases.as_slice() else { panic!("one lease, not {}", leases.len()) };
    assert_eq!(grant.spec.input, Payload::Inline("hello".into()));
    let why = client.why(submitted.id, Consistency::Stale).await.expect("explained");
    assert_eq!(why.why.decisions[0].agent, me.id);
    client.heartbeat(me.id, me.incarnation, None).await.expect("alive");
    let token = grant.lease.token;
    assert_eq!(client.renew(submitted.id, token).await.expect("kept"), Duration::from_secs(5));
    let result = Payload::Inline("done".into());
    client.complete(submitted.id, token, result.clone()).await.expect("completed");
    let ended = client.wait(submitted.id).await.expect("it ends");
    assert_eq!((ended.state, ended.result), (TaskState::Completed, Some(result)));
    let mut seen = Vec::new();
    while let Some(state) = states.next().await {
        seen.push(state.expect("read").state);
    }
    assert_eq!(seen.last(), Some(&TaskState::Completed));
    let late = client.fail(submitted.id, token, "late", true).await.expect_err("refused");
    assert_eq!(late.kind(), Some(ProblemKind::Conflict));
    let agents = client.agents(&["echo".to_owned()], Consistency::Stale).await.expect("listed");
    assert_eq!(agents.len(), 1);
    client.deregister(me.id, me.incarnation).await.expect("gone");
}

#[tokio::test]
async fn another_node_is_asked_when_one_is_gone_or_has_no_leader() {
    let house = House::open().await;
    let client = client(&[&dead().await, &house.url]);
    assert_eq!(client.members().await.expect("the second answers").len(), 1);
    house.toy.refuse(Refusal::Unavailable("election".to_owned()));
    house.toy.refuse(Refusal::Busy { what: "the queue".to_owned(), retry_after_ms: 1 });
    let submitted = client.submit(task("echo", "x")).await.expect("in the end");
    assert!(!submitted.existed);
    assert_eq!(house.toy.inside().tasks.len(), 1);
}

#[tokio::test]
async fn a_submission_whose_answer_was_lost_is_still_one_task() {
    let house = House::open().await;
    let client = client(&[&dies_before_it_answers(&house).await, &house.url]);
    let submitted = client.submit(task("echo", "x")).await.expect("by the second node");
    assert!(submitted.existed, "the first had done it");
    assert_eq!(house.toy.inside().tasks.len(), 1);
}

#[tokio::test]
async fn a_call_runs_twice_only_if_it_may() {
    let house = House::open().await;
    let once = client(&[&dies_before_it_answers(&house).await, &house.url]);
    let lost = once.call(&CallRequest::new("echo", "x")).await.expect_err("nobody knows");
    assert!(matches!(lost, ClientError::Unreachable { .. }), "{lost}");
    assert_eq!(house.toy.inside().calls.len(), 1, "not again");
    let twice = client(&[&dies_before_it_answers(&house).await, &house.url]);
    let call = CallRequest { idempotent: true, ..CallRequest::new("echo", "x") };
    let reply = twice.call(&call).await.expect("by the second node");
    assert_eq!((reply.body.as_ref(), reply.attempts), (b"x".as_ref(), 3));
    let untaken = client(&[&dead().await, &house.url]);
    let reply = untaken.call(&CallRequest::new("echo", "y")).await.expect("the first never had it");
    assert_eq!(reply.body.as_ref(), b"y");
}

#[tokio::test]
async fn a_batch_is_sent_again_for_those_that_met_a_full_queue() {
    let house = House::open().await;
    let client = client(&[&house.url]);
    let mut wrong = task("echo", "b");
    wrong.input = Payload::Inline(vec![b'x'; (64 << 10) + 1].into());
    let answers = client
        .submit_many(vec![task("echo", "a"), wrong, task("echo", "c")])
        .await
        .expect("answered");
    let kinds: Vec<_> = answers.iter().map(|one| one.as_ref().map_err(|p| p.kind).err()).collect();
    assert_eq!(kinds, [None, Some(ProblemKind::TooLarge), None]);
    assert_eq!(house.toy.inside().tasks.len(), 2);
}

#[tokio::test]
async fn events_go_on_at_another_node_without_a_gap() {
    let toy = Toy::default();
    let options = || quorate_api::ApiOptions::new(TOKEN);
    let first = House::with(toy.clone(), options()).await;
    let second = House::with(toy.clone(), options()).await;
    let client = client(&[&first.url, &second.url]);
    let mut events = client.events(None).await.expect("connected");
    let mut seen = Vec::new();
    client.submit(task("echo", "0")).await.expect("submitted");
    seen.push(events.next().await.expect("one").expect("sound"));
    first.close().await;
    for n in 1..4 {
        client.submit(task("echo", &n.to_string())).await.expect("submitted");
    }
    for _ in 1..4 {
        seen.push(events.next().await.expect("one more").expect("sound"));
    }
    let ids: Vec<TaskId> = seen
        .iter()
        .map(|seen| {
            let EventKind::Task { task, .. } = seen.kind else { panic!("{seen:?}") };
            task
        })
        .collect();
    assert_eq!(ids, (1..5).map(|n| TaskId::new(0, n)).collect::<Vec<_>>());
    assert_eq!(events.revision(), Some(seen[3].revision.as_str()));
}

#[tokio::test]
async fn a_stream_that_may_have_missed_something_says_so() {
    let house = House::open().await;
    let client = client(&[&house.url]);
    let mut events = client.events(None).await.expect("connected");
    let toy = house.toy.clone();
    house.close().await;
    let gap = events.next().await.expect("an end").expect_err("not in silence");
    assert!(matches!(gap, ClientError::Gap { .. }), "{gap}");
    assert!(events.next().await.is_none());

    toy.inside().compacted = 9;
    let again = House::with(toy, quorate_api::ApiOptions::new(TOKEN)).await;
    let old = "0-1.0".to_owned();
    let lost = self::client(&[&again.url]).events(Some(old)).await.expect_err("compacted");
    assert_eq!(lost.kind(), Some(ProblemKind::Compacted));
}

#[tokio::test]
async fn blobs_policies_and_pages_cross_in_their_types() {
    let house = House::open().await;
    let client = client(&[&house.url]);
    let stored = client.put_blob("content".into()).await.expect("stored");
    assert_eq!(client.get_blob(stored.sha256).await.expect("there").as_ref(), b"content");
    house.toy.inside().blobs.insert(Digest::of(b"true"), "false".into());
    let forged = client.get_blob(Digest::of(b"true")).await.expect_err("checked");
    assert!(matches!(forged, ClientError::Garbled { .. }), "{forged}");
    let source = PolicySource::Component("component".into(), "mine".to_owned());
    let applied = client.apply_policy("balancer", source, false).await.expect("applied");
    let again = PolicySource::Blob(applied.digest, "again".to_owned());
    let again = client.apply_policy("balancer", again, false).await.expect("applied");
    assert_eq!(client.policies(Consistency::Linearizable).await.expect("listed").policies, [again]);
    client.submit(task("echo", "x")).await.expect("submitted");
    let filter = TaskFilter { namespace: "default".to_owned(), limit: 10, ..TaskFilter::default() };
    let page = client.tasks(&filter, Consistency::Linearizable).await.expect("listed");
    assert_eq!((page.tasks.len(), page.counts[&TaskState::Queued]), (1, 1));
    assert!(client.metrics().await.expect("told").contains("quorate_tasks 1"));
    assert_eq!(client.cluster().await.expect("told").len(), 1);
}

#[tokio::test]
async fn streamed_replies_come_in_parts_and_break_aloud() {
    let house = House::open().await;
    let client = client(&[&house.url]);
    let mut parts = client.call_stream(&CallRequest::new("letters", "abc")).await.expect("begun");
    let mut whole = Vec::new();
    while let Some(part) = parts.next().await {
        whole.extend_from_slice(&part.expect("sound"));
    }
    assert_eq!(whole, b"abc");
    let mut parts = client.call_stream(&CallRequest::new("broken", "abc")).await.expect("begun");
    let mut last = parts.next().await;
    while let Some(Ok(_)) = last {
        last = parts.next().await;
    }
    assert!(matches!(last, Some(Err(ClientError::Unreachable { .. }))), "{last:?}");
}

#[tokio::test]
async fn without_an_answer_the_client_gives_up_at_its_deadline() {
    let options = ClientOptions {
        timeout: Duration::from_millis(50),
        ..ClientOptions::new([dead().await, dead().await], None)
    };
    let client = Client::new(options).expect("sound addresses");
    let gone = client.members().await.expect_err("nobody there");
    assert!(matches!(gone, ClientError::Unreachable { .. }), "{gone}");
    let house = House::open().await;
    let stranger = Client::new(ClientOptions::new([house.url.clone()], None)).expect("an address");
    let denied = stranger.members().await.expect_err("no token");
    assert_eq!(denied.kind(), Some(ProblemKind::Unauthorized));
}
