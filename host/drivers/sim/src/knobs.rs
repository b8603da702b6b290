//! What a run is asked to be, and what its seed makes of it.

use std::collections::BTreeSet;

use quorate_raft::{Compaction, Profile};
use quorate_types::rng::Rng;
use quorate_types::{Faults, Layout};

use crate::planted::planted;
use crate::runtime::Clock;

/// How to run seeds.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Bugs to plant: none in what ships.
    pub faults: Faults,
    /// Requests a second; the seed draws 1–6 where absent.
    pub rate: Option<u64>,
    /// Simulated seconds of faults; the time to settle comes on top.
    pub seconds: u64,
    /// Nodes, all of them voters.
    pub nodes: u64,
    /// Shards; the seed draws 1–3 where absent.
    pub shards: Option<u16>,
    /// Of the faults that the seed draws only these, by their number; all where absent.
    pub only: Option<BTreeSet<usize>>,
}

const SECONDS: u64 = 72;
const NODES: u64 = 3;
/// A node is a byte in its directory's id, and more say nothing new.
pub const NODES_MAX: u64 = 9;

impl Default for Plan {
    fn default() -> Self {
        Self {
            faults: Faults::none(),
            rate: None,
            seconds: SECONDS,
            nodes: NODES,
            shards: None,
            only: None,
        }
    }
}

impl Plan {
    /// What to type to see this seed again, under the same plan.
    pub fn command(&self, seed: u64) -> String {
        let Self { faults, rate, seconds, nodes, shards, only } = self;
        let mut command = format!("quorate sim replay {seed}");
        let mut flag = |name: &str, value: String| command.push_str(&format!(" --{name} {value}"));
        if let Some(rate) = rate {
            flag("rate", rate.to_string());
        }
        if *seconds != SECONDS {
            flag("seconds", seconds.to_string());
        }
        if *nodes != NODES {
            flag("nodes", nodes.to_string());
        }
        if let Some(shards) = shards {
            flag("shards", shards.to_string());
        }
        if let Some(only) = only {
            let numbers: Vec<String> = only.iter().map(usize::to_string).collect();
            flag("only", if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") });
        }
        for name in planted(faults) {
            flag("fault", name);
        }
        command
    }
}

/// A run's own weather, drawn from its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knobs {
    pub(crate) rate: u64,
    /// How many groups: one of both machines, or the system and two or three shards.
    pub(crate) layout: Layout,
    pub(crate) sync_us_max: u64,
    pub(crate) wire_us_max: u64,
    pub(crate) loss_ppm: u32,
    pub(crate) repeat_ppm: u32,
    pub(crate) gap_ms: u64,
    pub(crate) fault_ppm: u32,
    pub(crate) compaction: Compaction,
    /// Clocks go so much too fast or too slow, parts in a million, and are set so wrong.
    pub(crate) profile: Profile,
    pub(crate) skew_ppm: u64,
    pub(crate) wall_off_ms: u64,
    /// The members change, up to so many voters; 0 where they stay.
    pub(crate) voters_max: u64,
}

impl Knobs {
    /// What `seed` makes of the plan; `rng` begins with it, and goes on to draw the rest of the run.
    pub(crate) fn draw(plan: &Plan, rng: &mut Rng) -> Self {
        // From a stream of its own: to fix these leaves everything else as it was.
        let mut apart = rng.clone().fork();
        let drawn = match apart.below(8) {
            0..6 => 1,
            6 => 2,
            _seven => 3,
        };
        let shards = plan.shards.unwrap_or(drawn);
        // More nodes cost more than twice as much, so the members change in one seed in six.
        let voters_max = match apart.below(24) {
            0 => 3,
            1 | 2 => 5,
            3 => 7,
            _stay => 0,
        };
        let drawn = 1 + rng.below(6);
        let mut pick = |choices: [u64; 3]| {
            let [a, b, c] = choices;
            [a, b, c][usize::try_from(rng.below(3)).unwrap_or(0)]
        };
        let rare = pick([400, 1_000, 50_000]);
        let narrow = |value: u64| u32::try_from(value).unwrap_or(0);
        Self {
            rate: plan.rate.unwrap_or(drawn),
            layout: Layout::new(shards).unwrap_or(Layout::ONE),
            sync_us_max: pick([500, 2_000, 8_000]),
            wire_us_max: pick([600, 1_500, 3_000]),
            loss_ppm: narrow(pick([0, 1_000, 10_000])),
            repeat_ppm: narrow(pick([0, 0, 1_000])),
            gap_ms: pick([1_500, 9_000, 20_000]),
            fault_ppm: narrow(pick([0, 20_000, 100_000])),
            compaction: Compaction {
                // A node that comes back applies again what is above its snapshot: never to take
                // one is dear, and says most about recovery, so one seed in nine does.
                entries_per_snapshot: pick([150, 800, rare]),
                entries_kept: pick([10, 50, 200]),
            },
            profile: [Profile::Default, Profile::Default, Profile::Lan]
                [usize::try_from(pick([0, 1, 2])).unwrap_or(0)],
            skew_ppm: pick([0, 300, 20_000]),
            wall_off_ms: pick([0, 20, 5_000]),
            voters_max,
        }
    }

    /// No weather at all.
    pub(crate) fn calm(profile: Profile) -> Self {
        Self {
            rate: 1,
            layout: Layout::ONE,
            sync_us_max: 1_000,
            wire_us_max: 1_500,
            loss_ppm: 0,
            repeat_ppm: 0,
            gap_ms: 1,
            fault_ppm: 0,
            compaction: Compaction::default(),
            profile,
            skew_ppm: 0,
            wall_off_ms: 0,
            voters_max: 0,
        }
    }

    /// A node's clock, off by no more than these knobs say.
    pub(crate) fn clock(&self, rng: &mut Rng) -> Clock {
        let mut off = |most: u64| {
            let drawn = i64::try_from(rng.below(2 * most + 1)).unwrap_or(0);
            drawn - i64::try_from(most).unwrap_or(0)
        };
        let skew_ppm = i32::try_from(off(self.skew_ppm)).unwrap_or(0);
        let wall_off_us = off(1_000 * self.wall_off_ms);
        Clock { ahead_ns: rng.below(1 << 50), skew_ppm, wall_off_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_seen_again_by_its_own_flags() {
        assert_eq!(Plan::default().command(7), "quorate sim replay 7");
        let faults = Faults { vote_acked_early: true, ..Faults::none() };
        let only = Some(BTreeSet::from([12, 3]));
        let shards = Some(3);
        let plan = Plan { faults, rate: Some(100), seconds: 9, nodes: 5, shards, only };
        let command = "quorate sim replay 7 --rate 100 --seconds 9 --nodes 5 --shards 3 \
                       --only 3,12 --fault early-vote";
        assert_eq!(plan.command(7), command);
    }
}
