//! The native stream, from the client's end and by hand.

use std::time::Duration;

use quorate_api::ApiOptions;
use quorate_client::{Client, ClientError, ClientOptions, Link};
use quorate_types::door::Consistency;
use quorate_types::kv::{
    Act, Compare, Done, Expect, KvWatch, Op, OpDone, Revision, SeatAct, SeatKind, SeatStand,
    Subject, Txn, What,
};
use quorate_types::problem::ProblemKind;
use quorate_types::{Refusal, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::house::{House, TOKEN};
use crate::toy::{Toy, task};

const SPACE: &str = "default";
const TTL: Duration = Duration::from_secs(60);

fn client(urls: &[&str]) -> Client {
    let urls = urls.iter().map(|url| (*url).to_owned());
    Client::new(ClientOptions::new(urls, Some(TOKEN.to_owned()))).expect("sound addresses")
}

async fn link(house: &House) -> Link {
    client(&[&house.url]).connect_stream().await.expect("connected")
}

fn put(key: &str, value: &str) -> Act {
    Act::Op(Op::Put { key: key.to_owned(), value: value.into(), lease: None, expect: None })
}

#[tokio::test]
async fn acts_reads_and_tasks_go_over_one_connection() {
    let house = House::open().await;
    let link = link(&house).await;
    let (_revision, version) = link.put(SPACE, "app/a", "1".into()).await.expect("put");
    assert_eq!(version, 1);
    let (found, _as_of) = link.get(SPACE, "app/a", Consistency::Linearizable).await.expect("read");
    assert_eq!(found.expect("there").value, "1".into());
    let txn = Txn {
        compare: vec![Compare { key: "app/a".to_owned(), is: Expect::Version(1) }],
        then: vec![Op::Delete { key: "app/a".to_owned(), expect: None }],
        otherwise: Vec::new(),
    };
    let (held, results) = link.txn(SPACE, txn).await.expect("done");
    assert!(held && matches!(results.as_slice(), [OpDone::Deleted { count: 1, .. }]));
    let answers = link.kv(SPACE, vec![put("app/a", "x"), put("/wrong", "x")]).await.expect("done");
    assert!(matches!(answers[0], Ok(Done::Op(OpDone::Put { .. }))));
    assert!(matches!(answers[1], Err(Refusal::Invalid(_))));
    let submitted = link.submit(vec![task("echo", "x")]).await.expect("answered");
    assert!(submitted[0].is_ok());
    let page = link.range(SPACE, "app/", None, 10, Consistency::Stale).await.expect("read");
    assert_eq!(page.keys.len(), 1);
    let across = link.range(SPACE, "app", None, 10, Consistency::Stale).await.expect_err("no");
    assert_eq!(across.kind(), Some(ProblemKind::Across));
}

#[tokio::test]
async fn many_at_once_are_asked_together_and_each_is_answered() {
    let house = House::open().await;
    let link = link(&house).await;
    let puts = (0..500).map(|n| {
        let link = link.clone();
        tokio::spawn(async move { link.put(SPACE, &format!("app/{n}"), "x".into()).await })
    });
    let puts: Vec<_> = puts.collect();
    for put in puts {
        assert_eq!(put.await.expect("no panic").expect("put").1, 1);
    }
    let page = link.range(SPACE, "app/", None, 1000, Consistency::Stale).await.expect("read");
    assert_eq!(page.keys.len(), 500);
    let together = |(request, _): &(Request, u64)| {
        if let Request::Kv(requests) = request { requests.len() } else { 0 }
    };
    let inside = house.toy.inside();
    assert_eq!(inside.asked.iter().map(together).sum::<usize>(), 500);
    assert!(inside.asked.iter().any(|one| together(one) > 1), "some went together");
}

#[tokio::test]
async fn a_link_goes_on_at_another_node_and_does_nothing_twice() {
    let toy = Toy::default();
    let first = House::with(toy.clone(), ApiOptions::new(TOKEN)).await;
    let second = House::with(toy.clone(), ApiOptions::new(TOKEN)).await;
    let link = client(&[&first.url, &second.url]).connect_stream().await.expect("connected");
    let subject = Subject::Prefix("app/".to_owned());
    let watch = KvWatch { namespace: SPACE.to_owned(), subject, after: Some(Revision::default()) };
    let mut changes = link.watch(watch).await;
    link.put(SPACE, "app/a", "1".into()).await.expect("put");
    let seen = changes.next().await.expect("one").expect("sound");
    assert!(matches!(seen.what, What::Put(record) if record.version == 1));
    first.close().await;
    link.put(SPACE, "app/a", "2".into()).await.expect("by the second node");
    let seen = changes.next().await.expect("one").expect("sound");
    assert!(matches!(seen.what, What::Put(record) if record.version == 2), "once, and no other");
}

#[tokio::test]
async fn a_bound_lease_ends_with_its_stream_and_the_lock_goes_on() {
    let house = House::open().await;
    let (one, two) = (link(&house).await, link(&house).await);
    let lease = one.grant(SPACE, "app/lock", TTL).await.expect("granted").lease;
    one.bind(SPACE, lease).await;
    let acquire = SeatAct::Acquire { value: "".into() };
    let held = one.on_seat(SPACE, SeatKind::Lock, "app/lock", lease, acquire).await;
    let Ok(SeatStand::Holds { token: first, .. }) = held else { panic!("{held:?}") };
    let waiting = tokio::spawn(async move {
        let held = two.lock(SPACE, "app/lock", TTL).await.expect("handed over");
        (held.token(), two)
    });
    let waits = |inside: &crate::toy::Inside| {
        inside.asked.iter().filter(|(one, _)| format!("{one:?}").contains("Acquire")).count() == 2
    };
    house.toy.until(waits).await;
    // The holder goes without a word.
    drop(one);
    let (second, two) = waiting.await.expect("no panic");
    assert!(second > first);
    let (seat, _as_of) = two.seat(SPACE, SeatKind::Lock, "app/lock").await.expect("read");
    assert!(seat.waiting.is_empty());
}

#[tokio::test]
async fn a_lock_is_free_when_its_guard_is_dropped() {
    let house = House::open().await;
    let link = link(&house).await;
    let held = link.lock(SPACE, "app/lock", TTL).await.expect("free");
    let first = held.token();
    drop(held);
    let again = link.lock(SPACE, "app/lock", TTL).await.expect("free again");
    assert!(again.token() > first);
    again.release().await.expect("answered");
    let (seat, _as_of) = link.seat(SPACE, SeatKind::Lock, "app/lock").await.expect("read");
    assert_eq!(seat.holder, None);
}

#[tokio::test]
async fn a_leader_is_observed_proclaims_and_resigns() {
    let house = House::open().await;
    let (one, two) = (link(&house).await, link(&house).await);
    let mut observed = two.observe(SPACE, SeatKind::Election, "app/leader").await.expect("seen");
    assert!(matches!(observed.next().await, Some(Ok((_, None)))));
    let led = one.campaign(SPACE, "app/leader", TTL, "one".into()).await.expect("free");
    let (_, holder) = observed.next().await.expect("one").expect("sound");
    assert_eq!(holder.expect("somebody").token, led.token());
    led.proclaim("two".into()).await.expect("leads");
    let (_, holder) = observed.next().await.expect("one").expect("sound");
    assert_eq!(holder.expect("somebody").value, "two".into());
    led.resign().await.expect("answered");
    assert!(matches!(observed.next().await, Some(Ok((_, None)))));
}

#[tokio::test]
async fn only_the_token_opens_the_stream() {
    let house = House::open().await;
    let options = ClientOptions::new([house.url.clone()], Some("wrong".to_owned()));
    let refused = Client::new(options).expect("an address").connect_stream().await;
    assert_eq!(refused.expect_err("no").kind(), Some(ProblemKind::Unauthorized));
    let plain = house.knock(reqwest::Method::GET, "/v1/stream").send().await.expect("an answer");
    crate::house::problem(plain, ProblemKind::Invalid).await;
}

#[tokio::test]
async fn a_stream_that_talks_nonsense_ends_and_nothing_is_allocated_for_it() {
    let house = House::open().await;
    for nonsense in [u32::MAX.to_be_bytes().as_slice(), &[0, 0, 0, 2, 0xff, 0xff]] {
        let address = house.url.strip_prefix("http://").expect("our own");
        let mut socket = TcpStream::connect(address).await.expect("a port");
        let head = format!(
            "GET /v1/stream HTTP/1.1\r\nHost: {address}\r\nConnection: upgrade\r\n\
             Upgrade: quorate/1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.expect("sent");
        socket.write_all(nonsense).await.expect("sent");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.expect("it ends");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "no word after the head");
    }
}

#[tokio::test]
async fn a_full_door_and_a_closed_one_say_so() {
    let options = ApiOptions { links_max: 1, ..ApiOptions::new(TOKEN) };
    let house = House::with(Toy::default(), options).await;
    let first = link(&house).await;
    let short = ClientOptions {
        timeout: Duration::from_millis(50),
        ..ClientOptions::new([house.url.clone()], Some(TOKEN.to_owned()))
    };
    let short = Client::new(short).expect("an address");
    let crowded = short.connect_stream().await.expect_err("one too many");
    assert_eq!(crowded.kind(), Some(ProblemKind::Busy));
    drop(first);
    house.close().await;
    let closed = short.connect_stream().await.expect_err("nobody there");
    assert!(matches!(closed, ClientError::Broken { .. }), "{closed}");
}
