//! Agents at work: what they are given, what they may do, and how they end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod guests;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt as _;
use guests::agent;
use quorate_types::door::Pending;
use quorate_types::{Digest, Payload, TraceId};
use quorate_wasm::{
    AgentEnv, AgentFault, AgentHost, AgentInstance, AgentLimits, Grants, Level, Work, WorkKind,
};

const ECHO: &str = "(call $inline (local.get 9) (local.get 10))";
const LOOP: &str = "(loop $for_ever (br $for_ever)) (unreachable)";

/// A node for one agent: blobs in memory, lines in a list, a clock that stands still.
#[derive(Default)]
struct Node {
    blobs: Mutex<BTreeMap<Digest, Bytes>>,
    lines: Mutex<Vec<(Level, String)>>,
    now_ms: AtomicU64,
    slept_ms: AtomicU64,
}

impl AgentEnv for Node {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Work's own sleeps are over at once; only deadlines are real.
    fn sleep(&self, ms: u64) -> Pending<()> {
        if ms < DEADLINE_MS {
            self.slept_ms.fetch_add(ms, Ordering::Relaxed);
            return Box::pin(YieldOnce(false));
        }
        Box::pin(tokio::time::sleep(std::time::Duration::from_millis(ms)))
    }

    fn log(&self, level: Level, text: &str) {
        self.lines.lock().unwrap().push((level, text.to_owned()));
    }

    fn read_blob(&self, digest: Digest) -> Pending<Result<Bytes, String>> {
        let found = self.blobs.lock().unwrap().get(&digest).cloned();
        Box::pin(async move {
            YieldOnce(false).await;
            found.ok_or_else(|| format!("no node has {digest}"))
        })
    }

    fn write_blob(&self, content: Bytes) -> Pending<Result<Digest, String>> {
        let digest = Digest::of(&content);
        self.blobs.lock().unwrap().insert(digest, content);
        Box::pin(async move {
            YieldOnce(false).await;
            Ok(digest)
        })
    }
}

/// Pending once, so that the fiber is really suspended.
struct YieldOnce(bool);

impl Future for YieldOnce {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Longer than any honest work of these tests takes, shorter than patience.
const DEADLINE_MS: u64 = 100;

fn start(limits: AgentLimits, component: &[u8]) -> (AgentInstance, Arc<Node>) {
    let host = AgentHost::new(limits, None).unwrap();
    let node = Arc::new(Node::default());
    let agent = host.admit(component, Grants::ALL).unwrap();
    let env: Arc<dyn AgentEnv> = Arc::clone(&node) as Arc<dyn AgentEnv>;
    (agent.start(env, 7), node)
}

fn work(input: impl Into<Bytes>) -> Work {
    Work {
        kind: WorkKind::Call,
        id: "w1".to_owned(),
        attempt: 1,
        capability: "dig".to_owned(),
        content_type: "text/plain".to_owned(),
        input: Payload::Inline(input.into()),
        trace: TraceId(1),
        deadline_ms: 60_000,
    }
}

fn urgent(input: &'static str) -> Work {
    Work { deadline_ms: DEADLINE_MS, ..work(input) }
}

fn inline(bytes: impl Into<Bytes>) -> Result<Payload, AgentFault> {
    Ok(Payload::Inline(bytes.into()))
}

#[tokio::test]
async fn work_goes_in_and_its_answer_comes_out_of_the_same_instance() {
    let count = "(i32.store8 (i32.const 400) (i32.add (global.get $calls) (i32.const 48)))
        (call $inline (i32.const 400) (i32.const 1))";
    let (mut agent, _node) = start(AgentLimits::hot(), &agent(&[], count));
    assert_eq!(agent.handle(work("x")).await, inline("1"));
    assert_eq!(agent.handle(work("x")).await, inline("2"));
    assert_eq!(agent.lives(), 1);
}

#[tokio::test]
async fn a_fault_that_the_agent_reports_leaves_it_alive() {
    let (mut agent, _node) = start(AgentLimits::hot(), &agent(&[], "(call $internal)"));
    let failed = agent.handle(work("x")).await.unwrap_err();
    assert_eq!(failed, AgentFault::Failed("digger".to_owned()));
    assert!(failed.is_retryable());
    assert_eq!(agent.handle(work("x")).await.unwrap_err(), failed);
    assert_eq!(agent.lives(), 1);
}

#[tokio::test]
async fn a_trap_ends_the_instance_and_the_next_work_begins_another() {
    let first_byte =
        "(if (i32.eq (i32.load8_u (local.get 9)) (i32.const 33)) (then (unreachable)))";
    let (mut agent, _node) = start(AgentLimits::hot(), &agent(&[], &format!("{first_byte}{ECHO}")));
    assert_eq!(agent.handle(work("fine")).await, inline("fine"));
    let trapped = agent.handle(work("!")).await.unwrap_err();
    assert!(
        matches!(&trapped, AgentFault::Trapped(why) if why.contains("unreachable")),
        "{trapped}"
    );
    assert_eq!(agent.handle(work("fine again")).await, inline("fine again"));
    assert_eq!(agent.lives(), 2);
}

#[tokio::test]
async fn an_endless_loop_lets_others_run_and_ends_at_its_deadline() {
    let (mut agent, _node) = start(AgentLimits::hot(), &agent(&[], LOOP));
    let turns = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(agent.handle(urgent("x")).await, Err(AgentFault::Deadline(DEADLINE_MS)));
    assert!(turns.load(Ordering::Relaxed) > 5, "the only thread was shared");
    other.abort();
    assert_eq!(agent.handle(urgent("x")).await, Err(AgentFault::Deadline(DEADLINE_MS)));
    assert_eq!(agent.lives(), 2);
}

#[tokio::test]
async fn slices_by_fuel_are_the_same_on_every_run() {
    /// Polls until ready, and says how often.
    async fn polls(agent: &mut AgentInstance, input: Bytes) -> u64 {
        let mut polls = 0;
        let mut handling = pin!(agent.handle(work(input)));
        std::future::poll_fn(|context| {
            polls += 1;
            handling.as_mut().poll(context).map(|answer| answer.expect("it answers"))
        })
        .await;
        polls
    }
    let spin = "(loop $more
            (local.set $spare (i32.add (local.get $spare) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $spare) (i32.const 3000000))))
        (call $inline (local.get 9) (local.get 10))";
    let component = agent(&[], spin);
    let mut seen = Vec::new();
    for _run in 0..2 {
        let (mut agent, _node) = start(AgentLimits::simulated(), &component);
        seen.push(polls(&mut agent, Bytes::from_static(b"x")).await);
    }
    assert!(seen[0] > 10, "it yielded {} times", seen[0]);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn cancelled_work_takes_the_instance_with_it() {
    let sleepy = format!("(call $sleep (i64.const 50)) {ECHO}");
    let (mut agent, node) = start(AgentLimits::hot(), &agent(&["sleep"], &sleepy));
    assert_eq!(agent.handle(work("x")).now_or_never(), None, "it sleeps");
    assert_eq!(agent.handle(work("y")).await, inline("y"));
    assert_eq!(agent.lives(), 2);
    assert_eq!(node.slept_ms.load(Ordering::Relaxed), 100);
}

#[tokio::test]
async fn blobs_are_read_and_written_through_the_node() {
    // Opens the blob of the input, reads up to 1 MiB of it, writes that twice, answers with the digest.
    let copy = "(call $open (local.get 9) (local.get 10) (i32.const 304))
        (if (i32.load8_u (i32.const 304)) (then (return (call $internal))))
        (call $read (i32.load offset=8 (i32.const 304)) (i32.const 4194304) (i32.const 320))
        (call $close (i32.load offset=8 (i32.const 304)))
        (call $create (i32.const 344))
        (call $write (i32.load offset=8 (i32.const 344))
          (i32.load offset=8 (i32.const 320)) (i32.load offset=12 (i32.const 320)) (i32.const 360))
        (call $write (i32.load offset=8 (i32.const 344))
          (i32.load offset=8 (i32.const 320)) (i32.load offset=12 (i32.const 320)) (i32.const 360))
        (call $finish (i32.load offset=8 (i32.const 344)) (i32.const 384))
        (call $inline (i32.load offset=8 (i32.const 384)) (i32.load offset=12 (i32.const 384)))";
    let component = agent(&["open", "read", "close", "create", "write", "finish"], copy);
    let (mut agent, node) = start(AgentLimits::hot(), &component);
    let content = Bytes::from(vec![7; (1 << 20) + 5]);
    let digest = Digest::of(&content);
    node.blobs.lock().unwrap().insert(digest, content.clone());

    let input = Payload::Blob { digest, size: 1_048_581 };
    let written = agent.handle(Work { input, ..work("") }).await;
    let twice = [&content[..1 << 20], &content[..1 << 20]].concat();
    assert_eq!(written, inline(Digest::of(&twice).to_string()));
    assert_eq!(node.blobs.lock().unwrap()[&Digest::of(&twice)], twice);

    let input = Payload::Blob { digest: Digest::of(b"unknown"), size: 7 };
    let missing = agent.handle(Work { input, ..work("") }).await;
    assert_eq!(
        missing,
        Err(AgentFault::Failed("digger".to_owned())),
        "the fault reached the guest"
    );
    let bad = agent.handle(work("not a digest")).await;
    assert_eq!(bad, Err(AgentFault::Failed("digger".to_owned())));
    assert_eq!(agent.lives(), 1);
}

#[tokio::test]
async fn handles_are_bounded_and_forged_ones_trap() {
    let hoard = "(loop $more (call $create (i32.const 344)) (br $more)) (unreachable)";
    let (mut hoarder, _node) = start(AgentLimits::hot(), &agent(&["create"], hoard));
    let trapped = hoarder.handle(work("x")).await.unwrap_err();
    assert!(matches!(trapped, AgentFault::Trapped(_)), "{trapped}");

    let forge = "(call $read (i32.const 77) (i32.const 1) (i32.const 320)) (call $internal)";
    let (mut forger, _node) = start(AgentLimits::hot(), &agent(&["read"], forge));
    let trapped = forger.handle(work("x")).await.unwrap_err();
    assert!(matches!(&trapped, AgentFault::Trapped(why) if why.contains("handle")), "{trapped}");
}

#[tokio::test]
async fn a_blob_and_all_blobs_together_are_bounded() {
    // Writes its memory's first MiB until it is refused, and answers with how often that was taken.
    let fill = "(drop (memory.grow (i32.const 20)))
        (call $create (i32.const 344))
        (loop $more
          (call $write (i32.load offset=8 (i32.const 344)) (i32.const 0) (i32.const 1048576)
            (i32.const 360))
          (if (i32.eqz (i32.load8_u (i32.const 360))) (then
            (local.set $spare (i32.add (local.get $spare) (i32.const 1)))
            (br $more))))
        (i32.store8 (i32.const 400) (local.get $spare))
        (call $inline (i32.const 400) (i32.const 1))";
    let component = agent(&["create", "write"], fill);
    let (mut one, _node) = start(AgentLimits::hot(), &component);
    assert_eq!(one.handle(work("x")).await, inline(vec![64]), "64 MiB is a blob's limit");
    assert_eq!(one.handle(work("x")).await, inline(vec![64]), "the first is still held");
    assert_eq!(one.handle(work("x")).await, inline(vec![0]), "128 MiB is the limit of all");
}

#[tokio::test]
async fn arguments_larger_than_the_limit_trap() {
    let shout = "(drop (memory.grow (i32.const 304)))
        (call $log (i32.const 1) (i32.const 4096) (i32.const 16777216)) (call $internal)";
    let (mut agent, node) = start(AgentLimits::hot(), &agent(&["log"], shout));
    let trapped = agent.handle(work("x")).await.unwrap_err();
    assert!(matches!(trapped, AgentFault::Trapped(_)), "{trapped}");
    assert!(node.lines.lock().unwrap().is_empty());
}

#[tokio::test]
async fn lines_are_cut_counted_and_dropped_above_the_rate() {
    let chatter = "(loop $more
            (call $log (i32.const 2) (i32.const 4096) (i32.const 9000))
            (local.set $spare (i32.add (local.get $spare) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $spare) (i32.const 150))))
        (call $inline (local.get 9) (i32.const 0))";
    let (mut agent, node) = start(AgentLimits::hot(), &agent(&["log"], chatter));
    agent.handle(work("x")).await.unwrap();
    let lines = std::mem::take(&mut *node.lines.lock().unwrap());
    assert_eq!(lines.len(), 100);
    assert!(lines.iter().all(|(level, text)| *level == Level::Warn && text.len() == 8 << 10));
    node.now_ms.store(1_000, Ordering::Relaxed);
    agent.handle(work("x")).await.unwrap();
    let (level, told) = node.lines.lock().unwrap()[0].clone();
    assert_eq!((level, told.as_str()), (Level::Warn, "50 lines were dropped: over the rate"));
}

#[tokio::test]
async fn chance_is_seeded_and_a_new_life_has_its_own() {
    let draw = "(i64.store (i32.const 400) (call $draw))
        (if (i32.eq (i32.load8_u (local.get 9)) (i32.const 33)) (then (unreachable)))
        (call $inline (i32.const 400) (i32.const 8))";
    let component = agent(&["draw"], draw);
    let mut drawn = Vec::new();
    for _run in 0..2 {
        let (mut agent, _node) = start(AgentLimits::hot(), &component);
        let first = agent.handle(work("x")).await.unwrap();
        let second = agent.handle(work("x")).await.unwrap();
        agent.handle(work("!")).await.unwrap_err();
        let reborn = agent.handle(work("x")).await.unwrap();
        assert!(first != second && first != reborn, "a new life does not repeat the old one");
        drawn.push([first, second, reborn]);
    }
    assert_eq!(drawn[0], drawn[1]);
}

#[tokio::test]
async fn an_answer_that_no_record_can_hold_is_refused_with_the_limit() {
    let big = "(drop (memory.grow (i32.const 20))) (call $inline (i32.const 0) (i32.const 70000))";
    let (mut agent, _node) = start(AgentLimits::hot(), &agent(&[], big));
    assert!(
        agent.handle(work("x")).await.is_ok(),
        "a call's reply may be larger than a task's result"
    );
    let refused = agent.handle(Work { kind: WorkKind::Task, ..work("x") }).await.unwrap_err();
    assert!(refused.to_string().contains("65536"), "{refused}");
    assert_eq!(agent.lives(), 1, "the instance is well");
}

#[tokio::test]
async fn memory_grows_to_the_limit_and_no_further() {
    let grow = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
        (i32.store (i32.const 400) (memory.size))
        (call $inline (i32.const 400) (i32.const 4))";
    let (mut agent, _node) = start(AgentLimits::hot(), &agent(&[], grow));
    let pages = 1024_u32.to_le_bytes().to_vec();
    assert_eq!(agent.handle(work("x")).await, inline(pages), "1,024 pages are 64 MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_move_between_threads_and_share_a_host() {
    let host = AgentHost::new(AgentLimits::hot(), None).unwrap();
    let echo = format!("(call $sleep (i64.const 1)) {ECHO}");
    let component = host.admit(&agent(&["sleep"], &echo), Grants::ALL).unwrap();
    let running: Vec<_> = (0..20)
        .map(|number: u64| {
            let mut agent = component.start(Arc::new(Node::default()), number);
            tokio::spawn(async move {
                for turn in 0..20 {
                    let text = format!("{number} {turn}");
                    assert_eq!(agent.handle(work(text.clone())).await, inline(text));
                    tokio::task::yield_now().await;
                }
                agent.lives()
            })
        })
        .collect();
    for agent in running {
        assert_eq!(agent.await.unwrap(), 1);
    }
}

#[tokio::test]
async fn agents_beyond_the_pool_are_told_and_the_others_go_on() {
    let mut limits = AgentLimits::hot();
    limits.shape.instances_max = 1;
    let host = AgentHost::new(limits, None).unwrap();
    let component = host.admit(&agent(&[], ECHO), Grants::NONE).unwrap();
    let mut first = component.start(Arc::new(Node::default()), 1);
    let mut second = component.start(Arc::new(Node::default()), 2);
    assert_eq!(first.handle(work("a")).await, inline("a"));
    let refused = second.handle(work("b")).await.unwrap_err();
    assert!(matches!(refused, AgentFault::Start(_)), "{refused}");
    assert_eq!(first.handle(work("c")).await, inline("c"));
    drop(first);
    assert_eq!(second.handle(work("d")).await, inline("d"));
}
