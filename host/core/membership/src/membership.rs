//! The whole: gossip and detector as one core.

use quorate_types::{AgentId, Gone, Incarnation, LoadReading, NodeId, Time};

use crate::config::Config;
use crate::io::{Effect, Input, Status};
use crate::record::{Presence, PublishError};

/// Why a frame was not taken, or not wholly. Nothing of it is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("gossip frame from {from}: {cause}")]
pub struct FrameError {
    /// Who sent it.
    pub from: NodeId,
    /// What is wrong with it.
    pub cause: String,
}

/// A member as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// What this node thinks of it.
    pub status: Status,
    /// Its life as it numbers it itself; 0 if nothing was heard of it yet.
    pub incarnation: Incarnation,
}

/// A reading with its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadingView {
    /// Of this agent.
    pub agent: AgentId,
    /// As this node says.
    pub node: NodeId,
    /// What it says.
    pub reading: LoadReading,
    /// When it came here.
    pub received: Time,
}

/// One node's membership. Order of use, once a step: `handle` for each input that is there, any
/// commands, then `tick`, then `poll_effect` until none, then one timer for `poll_timeout`.
#[derive(Debug)]
pub struct Membership {
    config: Config,
}

impl Membership {
    /// A node that has heard of nobody: all others are suspect until they answer.
    pub fn new(config: Config, _seed: u64) -> Self {
        config.check();
        Self { config }
    }

    /// What this node thinks of a member; none if it is no member. Of itself: alive.
    pub fn status(&self, node: NodeId) -> Option<Status> {
        self.config.members.contains(&node).then_some(Status::Suspect)
    }

    /// Every member, this node included, by id.
    pub fn members(&self) -> Vec<Member> {
        Vec::new()
    }

    /// What a member said of itself last.
    pub fn presence(&self, _node: NodeId) -> Option<&Presence> {
        None
    }

    /// The newest reading of an agent and when it came here.
    pub fn reading(&self, _agent: AgentId) -> Option<(LoadReading, Time)> {
        None
    }

    /// Every reading, by agent, then node.
    pub fn readings(&self) -> impl Iterator<Item = ReadingView> + '_ {
        std::iter::empty()
    }

    /// An extension record of a node.
    pub fn extension(&self, _node: NodeId, _id: u64) -> Option<&[u8]> {
        None
    }

    /// Takes one input.
    pub fn handle(&mut self, _now: Time, _input: Input<'_>) -> Result<(), FrameError> {
        Ok(())
    }

    /// A frame came on the gossip lane.
    pub fn handle_frame(&mut self, now: Time, from: NodeId, bytes: &[u8]) -> Result<(), FrameError> {
        self.handle(now, Input::Frame(from, bytes))
    }

    /// A peer is connected.
    pub fn peer_up(&mut self, _now: Time, _node: NodeId) {}

    /// A peer is not connected any more.
    pub fn peer_gone(&mut self, _now: Time, _node: NodeId, _gone: Gone) {}

    /// Does what is due. Given after every input that was there.
    pub fn tick(&mut self, _now: Time) {}

    /// What this node says of itself from now on.
    pub fn set_presence(&mut self, _presence: Presence) -> Result<(), PublishError> {
        Ok(())
    }

    /// A new reading of an agent that lives here.
    pub fn publish_reading(&mut self, _agent: AgentId, _reading: LoadReading) {}

    /// The agent lives here no more.
    pub fn retract(&mut self, _agent: AgentId) {}

    /// A record that only its readers understand; none takes it back.
    pub fn publish_extension(&mut self, _id: u64, _body: Option<&[u8]>) -> Result<(), PublishError> {
        Ok(())
    }

    /// What must be done, until none.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        None
    }

    /// When `tick` is due even if nothing arrives.
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }
}
