//! Random operations, failing syncs and crashes against a model that is a list
//! of states: a recovered log is one of them, at or behind what was acknowledged.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use quorate_types::rng::Rng;

use super::*;

const GROUPS: u32 = 3;

#[derive(Clone, Debug)]
enum Op {
    Append {
        group: u32,
        count: u64,
        bytes: usize,
    },
    Truncate {
        group: u32,
        back: u64,
    },
    Purge {
        group: u32,
        back: u64,
    },
    Vote {
        group: u32,
        bytes: usize,
    },
    Commit {
        group: u32,
    },
    /// Waits until all that was submitted is durable, or the log has failed.
    Settle,
    /// Lets files grow by this much and no more, until the model settles or starts again.
    Fill {
        bytes: usize,
    },
    /// Lets this many syncs succeed and then none.
    Doom {
        syncs: u64,
    },
    /// Power loss; what was not synced reached the disk by the sector and by chance. Then a start
    /// with this segment size.
    Crash {
        seed: u64,
        size: u32,
    },
    /// The process is killed, then a start.
    Kill {
        size: u32,
    },
    /// Closed in order, then a start.
    Close {
        size: u32,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let group = 0..GROUPS;
    let size = || prop_oneof![Just(1024_u32), Just(1536), Just(4096)];
    prop_oneof![
        8 => (group.clone(), 1..6_u64, 0..300_usize)
            .prop_map(|(group, count, bytes)| Op::Append { group, count, bytes }),
        2 => (group.clone(), 0..6_u64).prop_map(|(group, back)| Op::Truncate { group, back }),
        3 => (group.clone(), 0..6_u64).prop_map(|(group, back)| Op::Purge { group, back }),
        2 => (group.clone(), 0..60_usize).prop_map(|(group, bytes)| Op::Vote { group, bytes }),
        1 => group.prop_map(|group| Op::Commit { group }),
        4 => Just(Op::Settle),
        1 => (0..3_usize).prop_map(|segments| Op::Fill { bytes: segments * 1_500 }),
        1 => (0..5_u64).prop_map(|syncs| Op::Doom { syncs }),
        1 => (any::<u64>(), size()).prop_map(|(seed, size)| Op::Crash { seed, size }),
        1 => size().prop_map(|size| Op::Kill { size }),
        1 => size().prop_map(|size| Op::Close { size }),
    ]
}

type State = BTreeMap<u32, Seen>;

struct Model {
    disk: MemoryDisk,
    log: SimLog,
    /// Every state since the last start, one a record.
    states: Vec<State>,
    /// The newest of them that was acknowledged.
    acknowledged: Arc<AtomicUsize>,
    /// Makes contents differ.
    stamp: u64,
    marks: Vec<Bytes>,
}

fn empty() -> State {
    let nothing = Seen { entries: Vec::new(), purged: None, vote: None };
    (0..GROUPS).map(|group| (group, nothing.clone())).collect()
}

impl Model {
    async fn start() -> Self {
        let disk = MemoryDisk::new();
        let log = open_with(&disk, 1024, &Faults::none()).await.expect("opens").0;
        let acknowledged = Arc::default();
        Self { disk, log, states: vec![empty()], acknowledged, stamp: 0, marks: Vec::new() }
    }

    fn now(&self) -> State {
        self.states.last().cloned().unwrap_or_else(empty)
    }

    fn body(&mut self, bytes: usize) -> Bytes {
        self.stamp += 1;
        let stamp = self.stamp.to_le_bytes();
        Bytes::from([&stamp[..], &vec![0x77; bytes]].concat())
    }

    /// Submits one operation that leads through `states`.
    fn submit(
        &mut self,
        states: Vec<State>,
        submit: impl FnOnce(&SimLog, Done) -> Result<(), SubmitError>,
    ) {
        let (position, acknowledged) =
            (self.states.len() + states.len() - 1, Arc::clone(&self.acknowledged));
        let done = move |result: Result<(), _>| {
            if result.is_ok() {
                acknowledged.fetch_max(position, Ordering::Relaxed);
            }
        };
        match submit(&self.log, Box::new(done)) {
            Ok(()) => self.states.extend(states),
            Err(SubmitError::Failed(_) | SubmitError::Full { .. }) => {}
            Err(error) => panic!("the model is never refused: {error}"),
        }
    }

    async fn step(&mut self, op: &Op) {
        match *op {
            Op::Append { group, count, bytes } => self.append(group, count, bytes),
            Op::Truncate { group, back } => {
                let mut state = self.now();
                let seen = state.entry(group).or_insert_with(|| unreachable!("a known group"));
                let purged = seen.purged.map_or(0, |(index, _)| index.0);
                let last = seen.entries.last().map_or(purged, |record| record.index.0);
                let index = Index(last.saturating_sub(back).max(purged));
                seen.entries.retain(|record| record.index <= index);
                let group = GroupId(group);
                self.submit(vec![state], |log, done| log.truncate_after(group, index, done));
            }
            Op::Purge { group, back } => self.purge(group, back),
            Op::Vote { group, bytes } => {
                let vote = self.body(bytes);
                let mut state = self.now();
                state.entry(group).and_modify(|seen| seen.vote = Some(vote.clone()));
                let group = GroupId(group);
                self.submit(vec![state], |log, done| log.save_vote(group, vote, done));
            }
            Op::Commit { group } => {
                let mark = self.body(8);
                if self.log.save_committed(GroupId(group), mark.clone()).is_ok() {
                    self.marks.push(mark);
                }
            }
            Op::Settle => self.settle().await,
            Op::Fill { bytes } => self.disk.fill_after(bytes),
            Op::Doom { syncs } => self.disk.fail_syncs_after(syncs),
            Op::Crash { seed, size } => {
                let mut rng = Rng::new(seed);
                let chance = u32::try_from(rng.below(1_000_001)).expect("small");
                self.restart(size, |disk| disk.crash_keeping(|| rng.chance(chance))).await;
            }
            Op::Kill { size } => self.restart(size, MemoryDisk::kill).await,
            Op::Close { size } => {
                if self.log.close().await.is_ok() {
                    let all = self.states.len() - 1;
                    assert_eq!(self.acknowledged.load(Ordering::Relaxed), all, "all was told");
                }
                self.restart(size, MemoryDisk::kill).await;
            }
        }
    }

    fn append(&mut self, group: u32, count: u64, bytes: usize) {
        let mut state = self.now();
        let (mut states, mut records) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let payload = self.body(bytes);
            let seen = state.entry(group).or_insert_with(|| unreachable!("a known group"));
            let purged = seen.purged.map_or(0, |(index, _)| index.0);
            let last = seen.entries.last().map_or(purged, |record| record.index.0);
            let record = Record { index: Index(last + 1), term: Term(self.stamp), payload };
            seen.entries.push(record.clone());
            records.push(record);
            states.push(state.clone());
        }
        let group = GroupId(group);
        self.submit(states, |log, done| log.append(group, records, done));
    }

    /// Purges up to a little before the end, or a little beyond it.
    fn purge(&mut self, group: u32, back: u64) {
        let mut state = self.now();
        let term = Term(self.stamp);
        let seen = state.entry(group).or_insert_with(|| unreachable!("a known group"));
        let purged = seen.purged.map_or(0, |(index, _)| index.0);
        let last = seen.entries.last().map_or(purged, |record| record.index.0);
        let index = Index((last + 2).saturating_sub(back));
        if index.0 >= purged {
            seen.entries.retain(|record| record.index > index);
            seen.purged = Some((index, term));
        }
        let group = GroupId(group);
        self.submit(vec![state], |log, done| log.purge_upto(group, index, term, done));
    }

    async fn settle(&mut self) {
        self.disk.free_up();
        let (tell, waits) = <<SimRuntime as AsyncRuntime>::Oneshot as Oneshot>::channel();
        let done = move |result: Result<(), Arc<LogError>>| {
            drop(openraft_rt::OneshotSender::send(tell, result));
        };
        // An empty append is durable when all before it is.
        if self.log.append(GroupId(0), Vec::new(), done).is_ok() {
            // A failed log is a state like another: what it acknowledged must come back.
            drop(waits.await.expect("told"));
        }
    }

    async fn restart(&mut self, size: u32, end: impl FnOnce(&MemoryDisk) -> MemoryDisk) {
        self.disk = end(&self.disk);
        let opened = open_with(&self.disk, size, &Faults::none()).await;
        self.log = opened.unwrap_or_else(|error| panic!("an honest crash is refused: {error}")).0;
        let found: State =
            (0..GROUPS).map(|group| (group, seen(&self.log, GroupId(group)))).collect();
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        assert!(
            self.states[acknowledged..].contains(&found),
            "found {found:#?}\nwhich is none of {:#?}",
            &self.states[acknowledged..]
        );
        for group in 0..GROUPS {
            let mark = self.log.committed(GroupId(group));
            assert!(mark.is_none_or(|mark| self.marks.contains(&mark)), "a mark from nowhere");
        }
        self.states = vec![found];
        self.acknowledged = Arc::default();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_recovered_log_is_a_state_that_was(
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        SimRuntime::with_seed(seed).block_on(async {
            let mut model = Model::start().await;
            for op in &ops {
                model.step(op).await;
            }
            model.settle().await;
            model.restart(4096, MemoryDisk::crash).await;
        });
    }
}
