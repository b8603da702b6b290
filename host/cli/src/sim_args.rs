//! What `quorate sim` takes.

use clap::{Args, Subcommand};

/// What can be done in simulation.
#[derive(Debug, Subcommand)]
pub(crate) enum SimVerb {
    /// Run seeds; a failing one prints the command that replays it.
    #[command(after_help = "Example:\n  quorate sim run --seeds 1..1000 --minutes 5")]
    Run(SimRunArgs),
    /// Run one seed again, with its whole trace.
    #[command(after_help = "Example:\n  quorate sim replay 4711 --rate 100")]
    Replay(SimReplayArgs),
    /// Plant every known bug and look for the first seed that shows it; takes minutes.
    #[command(
        after_help = "Example:\n  quorate sim planted --seeds 1000\n  quorate sim planted early-vote"
    )]
    Planted(SimPlantedArgs),
}

/// Which bugs to plant.
#[derive(Debug, Args)]
pub(crate) struct SimPlantedArgs {
    /// Only these, by their names; all where there are none.
    pub(crate) names: Vec<String>,
    /// Give a bug up after so many seeds.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seeds: u64,
    /// Write where all of them were found, for the tests, to this file of the repository.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = quorate_sim::RECORD)]
    pub(crate) record: Option<std::path::PathBuf>,
}

/// One seed.
#[derive(Debug, Args)]
pub(crate) struct SimReplayArgs {
    /// The seed.
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) plan: SimPlanArgs,
}

/// What every seed is run under; a replay takes the same.
#[derive(Debug, Args)]
pub(crate) struct SimPlanArgs {
    /// Requests a second; each seed draws its own where absent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) rate: Option<u64>,
    /// Simulated seconds of faults; the time to settle comes on top.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: Option<u64>,
    /// Nodes, all of them voters.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=quorate_sim::NODES_MAX))]
    pub(crate) nodes: Option<u64>,
    /// Shards; each seed draws 1 to 3 where absent.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=8))]
    pub(crate) shards: Option<u16>,
    /// Of the faults that a seed draws let only these happen, by their numbers; `none` for none.
    #[arg(long, value_parser = fault_numbers, value_name = "N,N,…")]
    pub(crate) only: Option<FaultNumbers>,
    /// Plant a bug in the simulated nodes, to see it found, by a name that `sim planted` shows.
    /// Repeatable.
    #[arg(long = "fault", value_name = "NAME")]
    pub(crate) faults: Vec<String>,
}

/// Which seeds.
#[derive(Debug, Args)]
pub(crate) struct SimRunArgs {
    /// From the first up to, but without, the second.
    #[arg(long, value_parser = seeds, value_name = "A..B")]
    pub(crate) seeds: Seeds,
    /// Stop after this long, with what has run.
    #[arg(long)]
    pub(crate) minutes: Option<u64>,
    #[command(flatten)]
    pub(crate) plan: SimPlanArgs,
}

/// A range of seeds, not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seeds(pub(crate) std::ops::Range<u64>);

fn seeds(text: &str) -> Result<Seeds, String> {
    text.split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?))
        .filter(|range: &std::ops::Range<u64>| !range.is_empty())
        .map(Seeds)
        .ok_or_else(|| "write seeds as A..B with A below B, e.g. 1..1000".to_owned())
}

/// Numbers of faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FaultNumbers(pub(crate) std::collections::BTreeSet<usize>);

fn fault_numbers(text: &str) -> Result<FaultNumbers, String> {
    if text == "none" {
        return Ok(FaultNumbers(std::collections::BTreeSet::new()));
    }
    let numbers: Result<_, _> = text.split(',').map(str::parse).collect();
    numbers.map(FaultNumbers).map_err(|_malformed| "write numbers as 3,7,12, or none".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_that_is_not_empty() {
        assert_eq!(seeds("3..9"), Ok(Seeds(3..9)));
        assert!(seeds("9..3").is_err(), "empty");
    }
}
