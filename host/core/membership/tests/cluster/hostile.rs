//! What a lying or broken node cannot do. Frames are written out by hand: this is
//! also the wire format as others must speak it.

use bytes::Bytes;
use minicbor::Encoder;
use proptest::prelude::*;
use quorate_membership::{Config, Effect, Membership, Reason, Status};
use quorate_types::{AgentId, Incarnation, NodeId, Time};

use crate::harness::{Cluster, ms, n, named};

const PUSH: u16 = 5;
const DIGEST: u16 = 6;
const RELAY: u16 = 7;

const PRESENCE: (u16, u64) = (1, 0);
const READING: u16 = 2;
const VERDICT: u16 = 3;

/// (counter, kind, id, body)
type Record<'a> = (u64, u16, u64, Option<&'a [u8]>);

struct Delta<'a> {
    owner: u64,
    incarnation: u64,
    since: u64,
    upto: u64,
    records: &'a [Record<'a>],
}

fn frame(kind: u16, body: impl FnOnce(&mut Encoder<Vec<u8>>)) -> Bytes {
    let mut encoder = Encoder::new(Vec::new());
    encoder.array(3).unwrap().u16(kind).unwrap().u16(1).unwrap();
    body(&mut encoder);
    encoder.into_writer().into()
}

fn deltas(kind: u16, deltas: &[Delta<'_>]) -> Bytes {
    frame(kind, |e| {
        e.array(1).unwrap().array(deltas.len() as u64).unwrap();
        for delta in deltas {
            e.array(5).unwrap().u64(delta.owner).unwrap().u64(delta.incarnation).unwrap();
            e.u64(delta.since).unwrap().u64(delta.upto).unwrap();
            e.array(delta.records.len() as u64).unwrap();
            for (counter, kind, id, value) in delta.records {
                e.array(4).unwrap().u64(*counter).unwrap().u16(*kind).unwrap().u64(*id).unwrap();
                match value {
                    Some(value) => e.bytes(value).unwrap(),
                    None => e.null().unwrap(),
                };
            }
        }
    })
}

fn digest(known: &[(u64, u64, u64)]) -> Bytes {
    frame(DIGEST, |e| {
        e.array(2).unwrap().bool(true).unwrap().array(known.len() as u64).unwrap();
        for (owner, incarnation, seen) in known {
            e.array(3).unwrap().u64(*owner).unwrap().u64(*incarnation).unwrap().u64(*seen).unwrap();
        }
    })
}

fn reading_body(in_flight: u32) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(5).unwrap().u16(1).unwrap().u32(in_flight).unwrap().u32(0).unwrap();
    e.u64(0).unwrap().u32(0).unwrap();
    e.into_writer()
}

fn verdict_body(incarnation: u64, counter: u64) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(4).unwrap().u16(1).unwrap().u64(incarnation).unwrap().u64(counter).unwrap();
    e.bool(false).unwrap();
    e.into_writer()
}

fn presence_body(name: &str) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(4).unwrap().u16(1).unwrap().str(name).unwrap().null().unwrap().bool(false).unwrap();
    e.into_writer()
}

/// What the harness gives each node.
const LIFE: u64 = 1_000_000;

fn incarnation(cluster: &Cluster, by: NodeId, of: NodeId) -> Incarnation {
    cluster.core(by).members().find(|member| member.node == of).unwrap().incarnation
}

#[test]
fn nobody_pushes_records_of_another() {
    let mut cluster = Cluster::settled(3, 41);
    let body = reading_body(99);
    let records = [(50, READING, 5, Some(&body[..]))];
    let forged = Delta { owner: 2, incarnation: LIFE, since: 0, upto: 50, records: &records };
    cluster.inject(n(3), n(1), deltas(PUSH, &[forged]));
    cluster.run(ms(20));
    assert_eq!(
        cluster.faults,
        ["gossip frame from n3: it writes records of n2, which only n2 may"]
    );
    assert_eq!(cluster.core(n(1)).reading(AgentId(5)), None);
}

#[test]
fn a_relayed_forgery_is_refuted_by_its_owner_everywhere() {
    for (incarnation_claimed, seed) in [(LIFE, 42), (LIFE + 900, 43)] {
        let mut cluster = Cluster::settled(4, seed);
        cluster.command(n(2), |core| core.set_presence(named("honest")).unwrap());
        cluster.publish(n(2), 5, 1);
        cluster.run(ms(50));
        let (lie, name) = (reading_body(99), presence_body("forged"));
        let records = [
            (7000, READING, 5, Some(&lie[..])),
            (7001, READING, 6, Some(&lie[..])),
            (7002, PRESENCE.0, PRESENCE.1, Some(&name[..])),
        ];
        let forged = Delta {
            owner: 2,
            incarnation: incarnation_claimed,
            since: 0,
            upto: 7002,
            records: &records,
        };
        cluster.inject(n(3), n(1), deltas(RELAY, &[forged]));
        cluster.run(ms(2));
        assert_eq!(
            cluster.core(n(1)).reading(AgentId(5)).unwrap().0.in_flight,
            99,
            "not signed yet"
        );
        let honest = |cluster: &Cluster| {
            cluster.members().all(|by| {
                let core = cluster.core(by);
                core.presence(n(2)).is_some_and(|said| said.name == "honest")
                    && core.reading(AgentId(5)).is_some_and(|(it, _)| it.in_flight == 1)
                    && core.reading(AgentId(6)).is_none()
            })
        };
        let took = cluster.run_until(ms(5000), honest);
        println!("forgery refuted everywhere after {took:?}");
        cluster.run(ms(5000));
        assert!(honest(&cluster) && cluster.all_alive());
        assert!(incarnation(&cluster, n(1), n(2)) > Incarnation(incarnation_claimed));
    }
}

#[test]
fn a_forgery_told_to_its_owner_is_never_believed() {
    let mut cluster = Cluster::settled(3, 44);
    cluster.publish(n(1), 5, 1);
    cluster.run(ms(50));
    let lie = reading_body(99);
    let records = [(3, READING, 6, Some(&lie[..]))];
    let forged = Delta { owner: 1, incarnation: LIFE, since: 0, upto: 3, records: &records };
    cluster.inject(n(3), n(1), deltas(RELAY, &[forged]));
    cluster.run(ms(50));
    assert_eq!(cluster.core(n(1)).reading(AgentId(6)), None);
    assert_eq!(incarnation(&cluster, n(2), n(1)), Incarnation(LIFE + 1), "it said so aloud");
    assert_eq!(cluster.holders(5, 1), 3, "and everything that stands again");
}

#[test]
fn a_huge_counter_or_incarnation_is_refused_and_names_its_sender() {
    let mut cluster = Cluster::settled(3, 45);
    let far = (1 << 32) + 1000;
    let counter = Delta { owner: 2, incarnation: LIFE, since: 0, upto: far, records: &[] };
    let life = Delta { owner: 2, incarnation: LIFE + (1 << 53), since: 0, upto: 1, records: &[] };
    cluster.inject(n(3), n(1), deltas(RELAY, &[counter]));
    cluster.inject(n(3), n(1), deltas(RELAY, &[life]));
    // A claim that the receiver itself is far ahead moves it nowhere.
    cluster.inject(n(3), n(1), digest(&[(1, u64::MAX, u64::MAX)]));
    cluster.inject(n(3), n(1), digest(&[(1, LIFE + (1 << 53), 1)]));
    cluster.run(ms(20));
    assert_eq!(cluster.faults.len(), 2);
    assert!(
        cluster.faults[0].starts_with("gossip frame from n3: records of n2: counter 4294968296")
    );
    assert!(
        cluster.faults[1].starts_with("gossip frame from n3: records of n2: incarnation i9007")
    );
    assert_eq!(incarnation(&cluster, n(2), n(1)), Incarnation(LIFE));
    cluster.publish(n(2), 8, 8);
    cluster.run(ms(20));
    assert_eq!(cluster.holders(8, 8), 3, "its true records still count");
}

#[test]
fn one_bad_delta_does_not_keep_the_good_ones_out() {
    let mut cluster = Cluster::settled(3, 46);
    let body = reading_body(3);
    let records = [(1000, READING, 4, Some(&body[..]))];
    let bad = Delta { owner: 2, incarnation: LIFE, since: 5, upto: 1, records: &[] };
    let good = Delta { owner: 3, incarnation: LIFE, since: 0, upto: 0, records: &records };
    cluster.inject(n(3), n(1), deltas(RELAY, &[bad, good]));
    cluster.run(ms(5));
    assert_eq!(
        cluster.faults,
        ["gossip frame from n3: records of n2: its counters are out of order"]
    );
    assert_eq!(cluster.core(n(1)).reading(AgentId(4)).unwrap().0.in_flight, 3);
}

#[test]
fn kinds_of_a_newer_program_are_kept_and_forwarded() {
    let mut cluster = Cluster::of(3, 47);
    cluster.connect(n(1), n(2));
    cluster.run(ms(50));
    let records = [(900, 4, 12, Some(&b"ext"[..])), (901, 700, 12, Some(&b"tomorrow"[..]))];
    let newer = Delta { owner: 2, incarnation: LIFE, since: 0, upto: 901, records: &records };
    cluster.inject(n(2), n(1), deltas(PUSH, &[newer]));
    cluster.run(ms(5));
    assert_eq!(cluster.core(n(1)).extension(n(2), 12), Some(&b"ext"[..]));
    // Node 3 never meets node 2.
    cluster.vanish(n(2));
    cluster.connect(n(1), n(3));
    cluster.run(ms(1500));
    assert_eq!(cluster.core(n(3)).extension(n(2), 12), Some(&b"ext"[..]));
    assert_eq!(cluster.faults, [""; 0]);
}

#[test]
fn a_liar_who_accuses_everybody_makes_nobody_suspect() {
    let mut cluster = Cluster::settled(5, 48);
    let lie = verdict_body(LIFE, 1 << 20);
    let records: Vec<Record<'_>> =
        (1..5).map(|accused| (5000 + accused, VERDICT, accused, Some(&lie[..]))).collect();
    for to in 1..5 {
        let accusation =
            Delta { owner: 5, incarnation: LIFE, since: 0, upto: 5004, records: &records };
        cluster.inject(n(5), n(to), deltas(PUSH, &[accusation]));
    }
    cluster.run(ms(10_000));
    assert_eq!(cluster.verdicts, []);
    assert!(incarnation(&cluster, n(1), n(2)) > Incarnation(LIFE), "the accused said a newer word");
}

#[test]
fn strangers_and_oneself_are_not_heard() {
    let mut cluster = Cluster::settled(3, 49);
    cluster.inject(n(99), n(1), digest(&[]));
    cluster.inject(n(1), n(1), digest(&[]));
    cluster.run(ms(5));
    assert_eq!(cluster.faults.len(), 2);
    assert_eq!(cluster.faults[0], "gossip frame from n99: the sender is no other member");
}

/// One core among members 1 to 3, for what must be seen step by step.
fn alone(seed: u64) -> Membership {
    let members = (1..=3).map(NodeId).collect();
    Membership::new(Config::new(n(1), members, Incarnation(LIFE)), seed)
}

fn effects(core: &mut Membership) -> Vec<Effect> {
    std::iter::from_fn(|| core.poll_effect()).collect()
}

#[test]
fn a_newer_word_of_a_suspect_refutes_the_suspicion_whoever_brings_it() {
    let mut core = alone(50);
    let relay = |counter: u64| {
        let body = presence_body("two");
        let records = [(counter, PRESENCE.0, PRESENCE.1, Some(&body[..]))];
        deltas(
            RELAY,
            &[Delta { owner: 2, incarnation: 5, since: 0, upto: counter, records: &records }],
        )
    };
    let beat = digest(&[]);
    core.peer_up(Time::ZERO, n(2));
    core.peer_up(Time::ZERO, n(3));
    core.handle_frame(Time::ZERO, n(2), &beat).unwrap();
    core.handle_frame(Time::ZERO, n(3), &relay(4)).unwrap();
    let mut now = Time::ZERO;
    while core.status(n(2)) != Some(Status::Suspect) {
        now = Time(now.0 + 1000);
        core.handle_frame(now, n(3), &beat).unwrap();
        core.tick(now);
    }
    core.handle_frame(now, n(3), &relay(4)).unwrap();
    assert_eq!(core.status(n(2)), Some(Status::Suspect), "nothing new");
    effects(&mut core);
    core.handle_frame(now, n(3), &relay(5)).unwrap();
    let verdicts: Vec<Reason> = effects(&mut core)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::StatusChanged { node: NodeId(2), to: Status::Alive, reason, .. } => {
                Some(reason)
            }
            Effect::StatusChanged { .. } | Effect::Send { .. } | Effect::ReadingChanged { .. } => {
                None
            }
        })
        .collect();
    assert_eq!(verdicts, [Reason::Refuted]);
}

#[test]
fn a_peer_that_asks_without_end_is_answered_now_and_then() {
    let mut core = alone(54);
    core.peer_up(Time::ZERO, n(3));
    core.tick(Time::ZERO);
    let large = [7; 1000];
    let records: Vec<Record<'_>> = (1..=60).map(|id| (id, 4, id, Some(&large[..]))).collect();
    let told = Delta { owner: 2, incarnation: LIFE, since: 0, upto: 60, records: &records };
    core.handle_frame(Time::ZERO, n(3), &deltas(RELAY, &[told])).unwrap();
    effects(&mut core);
    for at in 0..1000 {
        core.handle_frame(Time::from_millis(at), n(3), &digest(&[])).unwrap();
    }
    let bytes = |effect: Effect| match effect {
        Effect::Send { frame, .. } => frame.len(),
        Effect::StatusChanged { .. } | Effect::ReadingChanged { .. } => 0,
    };
    let sent: usize = effects(&mut core).into_iter().map(bytes).sum();
    assert!(sent > 60_000 && sent < 21 * 64 * 1024, "{sent} bytes in a second");
}

#[test]
fn a_frame_that_outlived_its_connection_raises_nobody_from_the_dead() {
    let mut core = alone(51);
    core.peer_up(Time::ZERO, n(2));
    core.handle_frame(Time::ZERO, n(2), &digest(&[])).unwrap();
    assert_eq!(core.status(n(2)), Some(Status::Alive));
    core.peer_gone(Time(5), n(2), quorate_types::Gone::Refused);
    assert_eq!(core.status(n(2)), Some(Status::Down));
    core.handle_frame(Time(6), n(2), &digest(&[])).unwrap();
    assert_eq!(core.status(n(2)), Some(Status::Down));
}

proptest! {
    #[test]
    fn no_bytes_make_a_node_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut core = alone(52);
        core.peer_up(Time::ZERO, n(2));
        let kinds = [PUSH, DIGEST, RELAY, 1, 2, 3, 4];
        for kind in kinds {
            let framed = frame(kind, |e| e.writer_mut().extend_from_slice(&bytes));
            for bytes in [&framed[..], &bytes] {
                if let Err(error) = core.handle_frame(Time::ZERO, n(2), bytes) {
                    prop_assert_eq!(error.from, n(2));
                }
            }
        }
        core.tick(Time::from_millis(500));
    }

    #[test]
    fn no_mutation_of_a_frame_makes_a_node_panic(
        place in 0..120_usize,
        byte in any::<u8>(),
        numbers in prop::array::uniform4(any::<u64>()),
    ) {
        let mut core = alone(53);
        core.peer_up(Time::ZERO, n(2));
        let [owner, incarnation, since, counter] = numbers;
        let body = reading_body(1);
        let records = [(counter, READING, 4, Some(&body[..])), (counter.wrapping_add(1), VERDICT, 1, Some(&body[..]))];
        for owner in [owner, 1, 2, 3] {
            for kind in [PUSH, RELAY] {
                let delta = Delta { owner, incarnation, since, upto: counter, records: &records };
                let mut bytes = deltas(kind, &[delta]).to_vec();
                if let Some(target) = bytes.get_mut(place) {
                    *target = byte;
                }
                if let Err(error) = core.handle_frame(Time::ZERO, n(2), &bytes) {
                    prop_assert_eq!(error.from, n(2));
                }
                core.tick(Time::from_millis(50));
            }
        }
        let verdict = verdict_body(incarnation, counter);
        let records = [(9, VERDICT, 1, Some(&verdict[..])), (10, VERDICT, 3, Some(&verdict[..]))];
        let accusation = Delta { owner: 2, incarnation: LIFE, since: 0, upto: 10, records: &records };
        core.handle_frame(Time::ZERO, n(2), &digest(&[(owner, incarnation, since), (1, incarnation, counter)])).unwrap();
        core.handle_frame(Time::ZERO, n(2), &deltas(PUSH, &[accusation])).unwrap();
        core.tick(Time::from_millis(5000));
    }
}
