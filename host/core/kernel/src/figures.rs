//! What a kernel says of itself in numbers.

use quorate_types::GroupId;

use crate::kernel::Kernel;

/// A number for operators. Monotonic within a life where its name ends in `_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// It.
    pub value: u64,
}

impl Kernel {
    /// The figures of this moment.
    pub fn figures(&self) -> Vec<Figure> {
        let system = self.leadership.get(&GroupId::SYSTEM).copied().unwrap_or_default();
        let applied = self.applied.values().map(|index| index.0).sum();
        let led = u64::try_from(self.leading.len()).unwrap_or(u64::MAX);
        let in_flight = u64::try_from(self.calls.in_flight()).unwrap_or(u64::MAX);
        [
            ("quorate_calls_total", "Calls begun at this node's door.", self.calls.begun),
            (
                "quorate_call_retries_total",
                "Attempts of calls beyond their first.",
                self.calls.retried,
            ),
            ("quorate_calls_in_flight", "Calls at this node's door without an end.", in_flight),
            ("quorate_raft_term", "The system group's term, as this node knows.", system.term.0),
            (
                "quorate_raft_applied_index",
                "Entries that the kernel has seen applied, over all groups.",
                applied,
            ),
            (
                "quorate_raft_is_leader",
                "Whether this node leads the system group, 1 or 0.",
                u64::from(self.leads(GroupId::SYSTEM)),
            ),
            ("quorate_raft_groups_led", "Groups that this node leads.", led),
            (
                "quorate_assignments_total",
                "Leases given since this node began to lead.",
                self.leading.values().map(|leading| leading.assigned).sum(),
            ),
            (
                "quorate_policy_epoch",
                "The activation of the balancer that this node routes by.",
                self.policy.epoch.0,
            ),
        ]
        .map(|(name, help, value)| Figure { name, help, value })
        .into()
    }
}
