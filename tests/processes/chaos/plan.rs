//! How long, how many, and what befalls them in which order: all of it drawn from a
//! seed.

use std::time::Duration;

use quorate_types::rng::Rng;

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// So long faults come.
    pub(crate) span: Duration,
    pub(crate) nodes: u8,
    pub(crate) seed: u64,
    /// Clients of keys.
    pub(crate) clients: u32,
    /// Processes that work.
    pub(crate) workers: usize,
    /// Tasks submitted a second.
    pub(crate) tasks: u64,
    /// What may befall them.
    pub(crate) kinds: Vec<Kind>,
    /// A bug that the nodes have.
    pub(crate) fault: Option<String>,
    /// Faults that must count, and kinds of which a tenth of that must.
    pub(crate) goal: (usize, usize),
    /// Faults wait so long for the load to come back.
    pub(crate) recovery_max: Duration,
}

impl Plan {
    /// A minute, as in the test command, where nothing else is said.
    pub(crate) fn read(words: &[String]) -> Self {
        let value = |name: &str| {
            let at = words.iter().position(|word| word == name)?;
            words.get(at + 1).map(String::as_str)
        };
        let number = |name: &str, default: u64| {
            value(name).map_or(default, |text| text.parse().expect("a number"))
        };
        let few = |name, default| u8::try_from(number(name, default)).expect("few");
        let minutes = number("--minutes", 0);
        let brief = minutes == 0;
        let (seconds, nodes, clients) = if brief { (45, 5, 48) } else { (60 * minutes, 7, 96) };
        let kinds = value("--only").map_or_else(
            // Whoever is replaced takes its time, which a minute does not have.
            || Kind::ALL.into_iter().filter(|kind| !brief || *kind != Kind::SyncLies).collect(),
            |names| names.split(',').map(|name| Kind::named(name).expect("a kind")).collect(),
        );
        Self {
            span: Duration::from_secs(number("--seconds", seconds)),
            nodes: few("--nodes", nodes),
            seed: number("--seed", 1),
            clients: u32::from(few("--clients", clients)),
            workers: usize::from(few("--workers", 10)),
            tasks: number("--tasks", 100),
            kinds,
            fault: value("--fault").map(str::to_owned),
            // On a busy machine a minute may count nothing; what must hold holds all the same.
            goal: if brief { (0, 0) } else { (10 * usize::try_from(minutes).expect("few"), 8) },
            recovery_max: Duration::from_secs(if brief { 3 } else { 10 }),
        }
    }
}

/// What befalls a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL of one that does not lead.
    FollowerKilled,
    /// SIGKILL of the leader.
    LeaderKilled,
    /// SIGKILL of one leader after the other, as many as leave a quorum.
    LeadersInCascade,
    /// SIGSTOP of the leader, then SIGCONT.
    LeaderPaused,
    /// One way of one of the leader's links is cut.
    OneWay,
    /// A node hears nobody and is heard by nobody.
    Isolated,
    /// Half of the links, each one way, are half a second late.
    HalfLate,
    /// A tenth of all frames is lost.
    Lossy,
    /// SIGKILL of three of ten workers.
    AgentsKilled,
    /// A sync fails with EIO.
    SyncFails,
    /// A node's disk is full.
    DiskFull,
    /// A node's power goes: what it did not sync is gone.
    PowerCut,
    /// The same, after syncs that did nothing and said they had.
    SyncLies,
    /// Leadership is moved by command.
    LeaderMoved,
    /// SIGTERM, and the node comes back.
    Restarted,
}

impl Kind {
    pub(crate) const ALL: [Self; 15] = [
        Self::FollowerKilled,
        Self::LeaderKilled,
        Self::LeadersInCascade,
        Self::LeaderPaused,
        Self::OneWay,
        Self::Isolated,
        Self::HalfLate,
        Self::Lossy,
        Self::AgentsKilled,
        Self::SyncFails,
        Self::DiskFull,
        Self::PowerCut,
        Self::SyncLies,
        Self::LeaderMoved,
        Self::Restarted,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::FollowerKilled => "follower-killed",
            Self::LeaderKilled => "leader-killed",
            Self::LeadersInCascade => "leaders-in-cascade",
            Self::LeaderPaused => "leader-paused",
            Self::OneWay => "one-way-cut",
            Self::Isolated => "node-isolated",
            Self::HalfLate => "half-of-links-500ms-late",
            Self::Lossy => "tenth-of-frames-lost",
            Self::AgentsKilled => "agents-killed-30%",
            Self::SyncFails => "sync-fails-EIO",
            Self::DiskFull => "disk-full",
            Self::PowerCut => "power-cut-of-one",
            Self::SyncLies => "power-cut-lying-sync",
            Self::LeaderMoved => "leader-moved",
            Self::Restarted => "restarted-SIGTERM",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Whoever is replaced takes a quarter of a minute: in one round of so many.
const ROUNDS_A_REPLACEMENT: usize = 4;

/// What comes next: all kinds, shuffled, again and again, so that each comes equally often.
pub(crate) struct Schedule {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
    rounds: usize,
}

impl Schedule {
    pub(crate) fn new(kinds: Vec<Kind>) -> Self {
        Self { kinds, left: Vec::new(), rounds: 0 }
    }

    pub(crate) fn next(&mut self, rng: &mut Rng) -> Option<Kind> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            if !self.rounds.is_multiple_of(ROUNDS_A_REPLACEMENT) && self.kinds.len() > 1 {
                self.left.retain(|kind| *kind != Kind::SyncLies);
            }
            self.rounds += 1;
            shuffle(&mut self.left, rng);
        }
        self.left.pop()
    }
}

/// Puts them in an order that is drawn.
pub(crate) fn shuffle<T>(all: &mut [T], rng: &mut Rng) {
    for at in (1..all.len()).rev() {
        all.swap(at, below(rng, at + 1));
    }
}

/// A number below this one.
pub(crate) fn below(rng: &mut Rng, bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("small");
    usize::try_from(rng.below(bound)).expect("below a usize")
}
