//! What is to befall a cluster, drawn before anything runs: values in a list, so that
//! a run can be given fewer of them and a failing seed be brought down to few.
//!
//! Each seed draws which kinds of fault it has at all and how dense they come
//! (swarm testing: Groce et al., ISSTA 2012): a seed with everything hides what a
//! seed with two things shows.

use std::fmt;
use std::time::Duration;

use quorate_types::rng::Rng;

use crate::knobs::Plan;

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The node at this place, from 0.
    Place(usize),
    /// Whoever leads when it strikes, or else the node at this place.
    Leader(usize),
}

/// Which ways are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// To and from one node.
    Isolated,
    /// To one node.
    Deaf,
    /// From one node.
    Mute,
    /// Between one node and the next.
    Pair,
    /// Between two halves, which both still reach one node.
    Bridge,
    /// Between all but one node: it alone reaches the others.
    Star,
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// Writes and syncs take this long.
    Stalls,
    /// Writes that would grow it fail.
    Full,
    /// The next write fails.
    Write,
    /// The next sync fails, and nothing before it is durable.
    Sync,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Power goes; with an ambush, as soon as something is unsynced and so long after.
    Crash {
        /// Who loses it.
        whom: Whom,
        /// How long after the first unsynced write.
        ambush: Option<Duration>,
    },
    /// Power goes everywhere, in an ambush at the leader.
    Blackout {
        /// How long after the leader's first unsynced write.
        ambush: Duration,
    },
    /// Ways are cut.
    Cut(Whom, Shape),
    /// A process is stopped and goes on later, like by SIGSTOP.
    Freeze(Whom),
    /// The ways to and from a node take so much longer.
    Slow(Whom, Duration),
    /// A wall clock is set by so many milliseconds.
    Jump(Whom, i64),
    /// The leader of a group is asked to hand it over, at this node's door.
    HandOver {
        /// Whose door.
        whom: Whom,
        /// To the node at this place, or to whom the leader finds.
        to: Option<usize>,
    },
    /// A disk fails in this way.
    Disk(Whom, Failing),
    /// Bytes that were durable change while the power is off, by these draws.
    Rot(Whom, u64),
    /// The disk is emptied while the power is off.
    Wipe(Whom),
    /// The next write lands beside its place, by this draw.
    Misdirect(Whom, u64),
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blow {
    /// When it strikes, since the run's start.
    pub(crate) at: Duration,
    /// What it does.
    pub(crate) act: Act,
    /// When it is put right, after that.
    pub(crate) lasts: Duration,
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.3} s for {:.3} s: ", self.at.as_secs_f64(), self.lasts.as_secs_f64())?;
        match self.act {
            Act::Crash { whom, ambush: None } => write!(f, "{whom} loses power"),
            Act::Crash { whom, ambush: Some(_) } => write!(f, "{whom} loses power as it writes"),
            Act::Blackout { .. } => f.write_str("all lose power as the leader writes"),
            Act::Cut(whom, Shape::Isolated) => write!(f, "{whom} is cut off"),
            Act::Cut(whom, Shape::Deaf) => write!(f, "{whom} hears nobody"),
            Act::Cut(whom, Shape::Mute) => write!(f, "nobody hears {whom}"),
            Act::Cut(whom, Shape::Pair) => write!(f, "{whom} and the next are cut apart"),
            Act::Cut(whom, Shape::Bridge) => write!(f, "{whom} is a bridge between two halves"),
            Act::Cut(whom, Shape::Star) => write!(f, "{whom} alone reaches the others"),
            Act::Freeze(whom) => write!(f, "{whom} stands still"),
            Act::Slow(whom, by) => write!(f, "{whom} is {by:?} further away"),
            Act::Jump(whom, ms) => write!(f, "the clock of {whom} is set by {ms} ms"),
            Act::HandOver { whom, to: None } => write!(f, "a lead is handed over, says {whom}"),
            Act::HandOver { whom, to: Some(to) } => {
                write!(f, "a lead is handed over to n{}, says {whom}", to + 1)
            }
            Act::Disk(whom, Failing::Stalls) => write!(f, "the disk of {whom} stalls"),
            Act::Disk(whom, Failing::Full) => write!(f, "the disk of {whom} is full"),
            Act::Disk(whom, Failing::Write) => write!(f, "a write of {whom} fails"),
            Act::Disk(whom, Failing::Sync) => write!(f, "a sync of {whom} fails"),
            Act::Rot(whom, _) => write!(f, "{whom} loses power and its disk rots"),
            Act::Wipe(whom) => write!(f, "{whom} loses power and its disk is emptied"),
            Act::Misdirect(whom, _) => write!(f, "a write of {whom} is misdirected"),
        }
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place) => write!(f, "n{}", place + 1),
            Self::Leader(place) => write!(f, "the leader (or n{})", place + 1),
        }
    }
}

/// The kinds of fault, and how often each is drawn against the others.
const KINDS: [(Kind, u64); 13] = [
    (Kind::Crash, 2),
    (Kind::Ambush, 3),
    (Kind::Blackout, 2),
    (Kind::Isolate, 2),
    (Kind::OneWay, 2),
    (Kind::Partial, 2),
    (Kind::Freeze, 1),
    (Kind::Slow, 1),
    (Kind::Jump, 1),
    (Kind::HandOver, 1),
    (Kind::Stall, 1),
    (Kind::Full, 1),
    (Kind::Error, 1),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Crash,
    Ambush,
    Blackout,
    Isolate,
    OneWay,
    Partial,
    Freeze,
    Slow,
    Jump,
    HandOver,
    Stall,
    Full,
    Error,
}

/// The kinds that a seed has: each with a chance of three in four, and never none.
fn swarm(rng: &mut Rng) -> Vec<Kind> {
    loop {
        let drawn = KINDS.iter().filter(|_| rng.chance(750_000));
        let kinds: Vec<Kind> =
            drawn.flat_map(|(kind, weight)| (0..*weight).map(|_| *kind)).collect();
        if !kinds.is_empty() {
            return kinds;
        }
    }
}

struct Draw<'a> {
    rng: &'a mut Rng,
    nodes: u64,
    sync_us_max: u64,
}

impl Draw<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    fn ms(&mut self, least: u64, spread: u64) -> Duration {
        Duration::from_millis(least + self.below(spread))
    }

    fn place(&mut self) -> usize {
        let nodes = self.nodes;
        usize::try_from(self.below(nodes)).unwrap_or(0)
    }

    fn whom(&mut self) -> Whom {
        let place = self.place();
        if self.rng.chance(500_000) { Whom::Leader(place) } else { Whom::Place(place) }
    }

    fn ambush(&mut self) -> Duration {
        let most = self.sync_us_max;
        Duration::from_micros(self.below(most))
    }

    fn act(&mut self, kind: Kind) -> (Act, Duration) {
        let whom = self.whom();
        match kind {
            Kind::Crash => (Act::Crash { whom, ambush: None }, self.ms(5, 2_000)),
            Kind::Ambush => (Act::Crash { whom, ambush: Some(self.ambush()) }, self.ms(5, 60)),
            Kind::Blackout => (Act::Blackout { ambush: self.ambush() }, self.ms(5, 100)),
            Kind::Isolate => (Act::Cut(whom, Shape::Isolated), self.ms(100, 5_000)),
            Kind::OneWay => {
                let shape = if self.rng.chance(500_000) { Shape::Deaf } else { Shape::Mute };
                (Act::Cut(whom, shape), self.ms(100, 5_000))
            }
            Kind::Partial => {
                let shape = [Shape::Pair, Shape::Bridge, Shape::Star];
                let drawn = usize::try_from(self.below(3)).unwrap_or(0);
                (Act::Cut(whom, shape[drawn % 3]), self.ms(100, 5_000))
            }
            Kind::Freeze => (Act::Freeze(whom), self.ms(20, 3_500)),
            Kind::Slow => {
                let by = self.ms(1, 120);
                (Act::Slow(whom, by), self.ms(200, 5_000))
            }
            Kind::Jump => {
                let most = [200, 5_000, 120_000][usize::try_from(self.below(3)).unwrap_or(0) % 3];
                let by = i64::try_from(self.below(2 * most)).unwrap_or(0);
                (Act::Jump(whom, by - i64::try_from(most).unwrap_or(0)), Duration::ZERO)
            }
            Kind::HandOver => {
                let to = self.rng.chance(500_000).then(|| self.place());
                (Act::HandOver { whom, to }, Duration::ZERO)
            }
            Kind::Stall => (Act::Disk(whom, Failing::Stalls), self.ms(200, 4_000)),
            Kind::Full => (Act::Disk(whom, Failing::Full), self.ms(200, 4_000)),
            Kind::Error => {
                let how = if self.rng.chance(500_000) { Failing::Write } else { Failing::Sync };
                (Act::Disk(whom, how), self.ms(100, 2_000))
            }
        }
    }
}

/// All faults of a run, in the order of their times.
pub(crate) fn draw(plan: &Plan, gap_ms: u64, sync_us_max: u64, rng: &mut Rng) -> Vec<Blow> {
    let kinds = swarm(rng);
    let mut blows = Vec::new();
    let mut at_ms = 200 + rng.below(gap_ms);
    let mut draw = Draw { rng, nodes: plan.nodes.max(1), sync_us_max };
    while at_ms < 1_000 * plan.seconds {
        let drawn = draw.below(u64::try_from(kinds.len()).unwrap_or(1));
        let kind = usize::try_from(drawn).ok().and_then(|at| kinds.get(at));
        let (act, lasts) = draw.act(kind.copied().unwrap_or(Kind::Crash));
        blows.push(Blow { at: Duration::from_millis(at_ms), act, lasts });
        at_ms += 50 + draw.below(2 * gap_ms);
    }
    damage(&mut draw, plan, &mut blows);
    blows.sort_by_key(|blow| blow.at);
    blows
}

/// Some seeds have a minority whose disks change by themselves what was durable.
fn damage(draw: &mut Draw<'_>, plan: &Plan, blows: &mut Vec<Blow>) {
    let most = usize::try_from((draw.nodes - 1) / 2).unwrap_or(0);
    let first = draw.place();
    for number in 0..most {
        if !draw.rng.chance(300_000) {
            continue;
        }
        let whom = Whom::Place(first + number);
        let drawn = draw.rng.next_u64();
        let act = match draw.below(3) {
            0 => Act::Rot(whom, drawn),
            1 => Act::Wipe(whom),
            _misdirect => Act::Misdirect(whom, drawn),
        };
        let at = Duration::from_millis(draw.below(1_000 * plan.seconds.max(1)));
        blows.push(Blow { at, act, lasts: draw.ms(5, 500) });
    }
}
