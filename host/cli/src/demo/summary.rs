//! The one summary at the end.

use std::collections::BTreeMap;

use serde::Serialize;

use super::stages::Shares;
use crate::output::Table;

/// What was asked of the cluster and what became of it. Times are seconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// Tasks that the cluster acknowledged.
    pub(crate) submitted: u64,
    /// Of those, completed.
    pub(crate) completed: u64,
    /// Acknowledged, and not in the index that the results make.
    pub(crate) lost: u64,
    /// Files whose postings came more than once.
    pub(crate) applied_twice: u64,
    /// Leases that were taken back and given to another.
    pub(crate) requeued: u64,
    /// Calls made, before and after the index was whole.
    pub(crate) calls: u64,
    /// Of those, without an answer inside their deadline.
    pub(crate) failed_calls: u64,
    /// Queries whose answer was compared with the scan.
    pub(crate) queries_compared: u64,
    /// Answers that differ from the scan, an index that differs from the reference, and
    /// assignments under an old policy epoch.
    pub(crate) mismatches: u64,
    /// Assignments by policy and epoch.
    pub(crate) decisions_per_policy_version: BTreeMap<String, u64>,
    /// From the kill of the leader to the acknowledgement of a submission begun right after it.
    pub(crate) failover_time: Option<f64>,
    /// From the first upload to the last answer.
    pub(crate) wall_time: f64,
    /// Completed tasks a second, from the first upload to the last completion, kill included.
    pub(crate) tasks_per_second: f64,
    /// Where a task's time goes.
    pub(crate) stages: Option<Shares>,
    /// Leaders killed.
    pub(crate) leader_kills: u64,
    /// Leases that the leader's agents held when it was killed.
    pub(crate) leases_at_kill: u64,
    /// Calls in flight when the leader was killed.
    pub(crate) calls_at_kill: u64,
    /// Policy swaps.
    pub(crate) policy_swaps: u64,
    /// Calls in flight when the policy was swapped.
    pub(crate) calls_at_swap: u64,
    /// Files and bytes of the corpus.
    pub(crate) files: u64,
    /// Bytes of the corpus.
    pub(crate) bytes: u64,
    /// Nodes.
    pub(crate) nodes: u64,
    /// What drew the sample, the queries and the moments.
    pub(crate) seed: u64,
}

impl Summary {
    /// Whether everything is as it should be.
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0 && self.applied_twice == 0 && self.failed_calls == 0 && self.mismatches == 0
    }

    /// For people.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::of_fields();
        table.field("submitted", self.submitted);
        table.field("completed", self.completed);
        table.field("lost", self.lost);
        table.field("applied twice", self.applied_twice);
        table.field("requeued", self.requeued);
        table.field("calls", self.calls);
        table.field("failed calls", self.failed_calls);
        table.field("queries compared", self.queries_compared);
        table.field("mismatches", self.mismatches);
        for (policy, count) in &self.decisions_per_policy_version {
            table.field(&format!("decisions by {policy}"), count);
        }
        let failover =
            self.failover_time.map_or("-".to_owned(), |s| format!("{:.0} ms", s * 1000.0));
        table.field("failover time", failover);
        table.field("tasks per second", format!("{:.0}", self.tasks_per_second));
        table.field("wall time", format!("{:.1} s", self.wall_time));
        table
    }
}
