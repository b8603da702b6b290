//! What a node knows of one other, and where it stands in probing it.

use quorate_types::{NodeId, Time};

use crate::io::Status;
use crate::record::Version;

/// The probe's timer; there is one for each peer, and it is the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The next look at the peer; none while it is down and not connected, since then only a
    /// connection or others' word can bring it back.
    Resting(Option<Time>),
    /// A ping is out; at the end others are asked.
    Direct { nonce: u64, until: Time },
    /// Those in `asked` have not answered; at the end, or when nobody is left, the probe failed.
    Indirect { nonce: u64, asked: Vec<NodeId>, until: Time },
}

impl Probe {
    pub(crate) fn deadline(&self) -> Option<Time> {
        match self {
            Self::Resting(at) => *at,
            Self::Direct { until, .. } | Self::Indirect { until, .. } => Some(*until),
        }
    }

    pub(crate) fn in_flight(&self) -> bool {
        match self {
            Self::Resting(_) => false,
            Self::Direct { .. } | Self::Indirect { .. } => true,
        }
    }
}

/// A suspicion of this node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Suspicion {
    /// Where the peer stood when it fell silent; a newer word of it is a refutation. None for a
    /// peer that was never heard: old records of it say nothing about today.
    pub(crate) accused: Option<Version>,
    pub(crate) began: Time,
    pub(crate) down_at: Time,
}

/// One other member.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) status: Status,
    pub(crate) connected: bool,
    pub(crate) heard: Option<Time>,
    /// A stall of this node's own was taken into account since the peer was last heard. Once
    /// only: a node that always comes late must still see the dead.
    pub(crate) forgiven: bool,
    /// Its newest presence.
    pub(crate) version: Version,
    /// Present while it is suspect.
    pub(crate) suspicion: Option<Suspicion>,
    pub(crate) probe: Probe,
}

impl Peer {
    /// Not heard yet: suspect, so that it gets no work, and given up after `suspicion_max`.
    pub(crate) fn unheard(began: Time, down_at: Time, look_at: Time) -> Self {
        Self {
            status: Status::Suspect,
            connected: false,
            heard: None,
            forgiven: false,
            version: Version::default(),
            suspicion: Some(Suspicion { accused: None, began, down_at }),
            probe: Probe::Resting(Some(look_at)),
        }
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        let down_at = self.suspicion.map(|suspicion| suspicion.down_at);
        [self.probe.deadline(), down_at].into_iter().flatten().min()
    }

    /// Whether something waits for an answer that should have come by now.
    pub(crate) fn overdue(&self, now: Time) -> bool {
        let probe = self.probe.in_flight() && self.probe.deadline().is_some_and(|at| at <= now);
        probe || self.suspicion.is_some_and(|suspicion| suspicion.down_at <= now)
    }

    /// Looks at it in the next tick, unless a look is under way.
    pub(crate) fn hasten(&mut self, now: Time) {
        if !self.probe.in_flight() {
            self.probe = Probe::Resting(Some(now));
        }
    }
}
