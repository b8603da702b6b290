//! What a kernel says of itself in numbers.

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
        let leading = self.leading.as_ref();
        let in_flight = u64::try_from(self.calls.in_flight()).unwrap_or(u64::MAX);
        [
            ("quorate_calls_total", "Calls begun at this node's door.", self.calls.begun),
            (
                "quorate_call_retries_total",
                "Attempts of calls beyond their first.",
                self.calls.retried,
            ),
            ("quorate_calls_in_flight", "Calls at this node's door without an end.", in_flight),
            ("quorate_raft_term", "The term that this node knows.", self.leadership.term.0),
            (
                "quorate_raft_applied_index",
                "The last entry that the kernel has seen applied.",
                self.applied.0,
            ),
            (
                "quorate_raft_is_leader",
                "Whether this node leads, 1 or 0.",
                u64::from(leading.is_some()),
            ),
            (
                "quorate_assignments_total",
                "Leases given since this node began to lead.",
                leading.map_or(0, |leading| leading.assigned),
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
