//! What a run can break, and how it is told.

use std::fmt;
use std::time::Duration;

/// A promise that judges hold a run to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// An (index, term) is one entry with one predecessor.
    LogMatching,
    /// At most one leader a term.
    ElectionSafety,
    /// A leader has what was committed before its term.
    LeaderCompleteness,
    /// Voters change in joint steps, and only a voter leads.
    Membership,
    /// What one node applied at an index, all apply there.
    StateMachineSafety,
    /// Equal prefixes make equal states, and a state has its digest.
    StateDigest,
    /// A quorum keeps what is committed; a snapshot outlives a power loss.
    Durability,
    /// A node comes back in no term before one that it was in.
    DurableVote,
    /// A node starts on whatever a power loss leaves.
    Recovery,
    /// An acknowledged task exists, ends once, and has the result of its input.
    Conservation,
    /// A key is one task.
    Idempotency,
    /// A lease ends once, under its token, and tokens only grow.
    Fencing,
    /// Nothing is assigned under an older policy than the one adopted.
    PolicyEpoch,
    /// What callers saw of keys is what one order of their acts would have shown.
    Linearizable,
    /// A lock has one holder a token, tokens only grow, and no lease ends before its time.
    Lock,
    /// A watch shows every change once, in order.
    Watch,
    /// A shard records what the system group decided, never an older word after a newer one, and
    /// gives nothing to a life that it knows to be over.
    Adoption,
    /// What is acknowledged has been applied, and is read from then on.
    ReadYourWrites,
    /// An attempt of a call runs at most once, and its reply is that of its body.
    Call,
    /// Whoever asks is answered within the deadline.
    Deadline,
    /// Acknowledged content can be read.
    Blob,
    /// Once all is healed, all comes to its end.
    Liveness,
    /// No log stops by itself.
    Stopped,
    /// No code panics.
    Panic,
    /// Virtual time never stands still.
    Busy,
    /// The same seed is the same run.
    Repeat,
}

impl fmt::Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LogMatching => "log matching",
            Self::ElectionSafety => "election safety",
            Self::LeaderCompleteness => "leader completeness",
            Self::Membership => "membership",
            Self::StateMachineSafety => "state machine safety",
            Self::StateDigest => "state digest",
            Self::Durability => "durability",
            Self::DurableVote => "durable vote",
            Self::Recovery => "recovery",
            Self::Conservation => "conservation",
            Self::Idempotency => "idempotency",
            Self::Fencing => "fencing",
            Self::PolicyEpoch => "policy epoch",
            Self::Linearizable => "linearizability",
            Self::Lock => "lock",
            Self::Watch => "watch",
            Self::Adoption => "adoption",
            Self::ReadYourWrites => "read your writes",
            Self::Call => "call",
            Self::Deadline => "deadline",
            Self::Blob => "blob",
            Self::Liveness => "liveness",
            Self::Stopped => "stopped log",
            Self::Panic => "panic",
            Self::Busy => "busy",
            Self::Repeat => "repeat",
        })
    }
}

/// A law that was broken, as a judge sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    pub(crate) law: Law,
    pub(crate) what: String,
}

/// What a judge says of what it was shown.
pub(crate) type Verdict = Result<(), Breach>;

impl Law {
    /// This law is broken, by this.
    pub(crate) fn broken(self, what: impl Into<String>) -> Verdict {
        Err(Breach { law: self, what: what.into() })
    }
}

/// A breach and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Virtual time since the run's start.
    pub at: Duration,
    /// The law.
    pub law: Law,
    /// Who did what, for people.
    pub what: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6} s: {}: {}", self.at.as_secs_f64(), self.law, self.what)
    }
}
