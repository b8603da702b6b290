//! The whole: gossip and detector as one core.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_types::rng::Rng;
use quorate_types::{AgentId, Gone, Incarnation, LoadReading, NodeId, Time};

use crate::config::Config;
use crate::detector::{Act, Detector};
use crate::frame::{self, FrameError, FrameFault, Message};
use crate::gossip::{Changes, Gossip};
use crate::io::{Effect, Input, Status};
use crate::readings::{ReadingView, Readings};
use crate::record::{self, Key, Presence, PublishError, Subject, Version};

/// A member as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub node: NodeId,
    /// What this node thinks of it.
    pub status: Status,
    /// Its life as it numbers it itself; 0 if nothing was heard of it yet.
    pub incarnation: Incarnation,
}

/// One node's membership.
///
/// Order of use, once a step: `handle` (or the verbs it stands for) for each input that is
/// there, and any commands; then `tick`; then `poll_effect` until none; then one timer for
/// `poll_timeout`. What a command changes is sent by the next `tick`, which is due at once
/// unless a flush was just made.
#[derive(Debug)]
pub struct Membership {
    config: Config,
    /// Seeds the detector, which needs the time of the first step.
    rng: Rng,
    /// Time of the last step.
    now: Time,
    /// Present from the first step on.
    detector: Option<Detector>,
    gossip: Gossip,
    presences: BTreeMap<NodeId, Presence>,
    readings: Readings,
    /// Emptied after each step; a step adds at most what one frame or one tick causes.
    effects: VecDeque<Effect>,
}

impl Membership {
    /// A node that has heard of nobody: all others are suspect until they answer.
    pub fn new(config: Config, seed: u64) -> Self {
        config.check();
        let mut rng = Rng::new(seed);
        let mut membership = Self {
            gossip: Gossip::new(&config, rng.fork()),
            rng,
            now: Time::ZERO,
            detector: None,
            presences: BTreeMap::new(),
            readings: Readings::default(),
            effects: VecDeque::new(),
            config,
        };
        // Every life has a presence from its start: it is what answers an accusation.
        if let Err(error) = membership.set_presence(Presence::default()) {
            unreachable!("an empty presence is within every limit: {error}");
        }
        membership
    }

    /// What this node thinks of a member; none if it is no member. Of itself: alive.
    pub fn status(&self, node: NodeId) -> Option<Status> {
        let unheard = if node == self.config.node { Status::Alive } else { Status::Suspect };
        let status = self.detector.as_ref().and_then(|detector| detector.status(node));
        self.config.members.contains(&node).then(|| status.unwrap_or(unheard))
    }

    /// Every member, this node included, by id.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        self.config.members.iter().filter_map(|node| {
            let incarnation = self.gossip.table(*node)?.incarnation();
            Some(Member { node: *node, status: self.status(*node)?, incarnation })
        })
    }

    /// What a member said of itself last.
    pub fn presence(&self, node: NodeId) -> Option<&Presence> {
        self.presences.get(&node)
    }

    /// The reading of an agent and when it came here: the newest, but of a node that is not
    /// down before one that is.
    pub fn reading(&self, agent: AgentId) -> Option<(LoadReading, Time)> {
        let up = |node| self.status(node).is_some_and(|status| status != Status::Down);
        self.readings
            .of(agent)
            .max_by_key(|view| (up(view.node), view.received))
            .map(|view| (view.reading, view.received))
    }

    /// Every reading, by agent, then node.
    pub fn readings(&self) -> impl Iterator<Item = ReadingView> + '_ {
        self.readings.iter()
    }

    /// An extension record of a node.
    pub fn extension(&self, node: NodeId, id: u64) -> Option<&[u8]> {
        self.gossip.table(node)?.value(Key::extension(id))
    }

    /// How far this node doubts itself: 0 is sound, at 8 its timeouts are nine times as long.
    pub fn health(&self) -> u32 {
        self.detector.as_ref().map_or(0, Detector::health)
    }

    /// Takes one input.
    pub fn handle(&mut self, now: Time, input: Input<'_>) -> Result<(), FrameError> {
        match input {
            Input::Frame(from, bytes) => return self.handle_frame(now, from, bytes),
            Input::PeerUp(node) => self.peer_up(now, node),
            Input::PeerGone(node, gone) => self.peer_gone(now, node, gone),
            Input::Tick => self.tick(now),
        }
        Ok(())
    }

    /// A frame came on the gossip lane.
    pub fn handle_frame(
        &mut self,
        now: Time,
        from: NodeId,
        bytes: &[u8],
    ) -> Result<(), FrameError> {
        let refuse = |fault| FrameError { from, fault };
        if from == self.config.node || !self.config.members.contains(&from) {
            return Err(refuse(FrameFault::Stranger));
        }
        self.now = now;
        let result = match frame::decode(bytes) {
            Ok(message) => self.message(now, from, message),
            // A newer program speaks; it is there all the same.
            Err(fault @ FrameFault::Unknown { .. }) => Err(fault),
            Err(fault) => return Err(refuse(fault)),
        };
        let result = result.map_err(refuse);
        self.detector(now).heard(now, from);
        self.drain();
        result
    }

    /// The cluster has these members from now on, this node among them in any case. Whoever is new
    /// is suspect until it answers; whatever was known of others is forgotten. A peer that is
    /// connected already is told again by `peer_up`.
    pub fn set_members(&mut self, now: Time, members: BTreeSet<NodeId>) {
        let mut config = self.config.clone();
        config.members = members;
        config.members.insert(config.node);
        if config.members == self.config.members {
            return;
        }
        config.check();
        self.now = now;
        self.config = config;
        let members = &self.config.members;
        self.gossip.set_members(members);
        self.presences.retain(|node, _presence| members.contains(node));
        self.readings.retain(|node| members.contains(&node));
        if let Some(detector) = &mut self.detector {
            detector.set_members(members, now);
        }
        self.drain();
    }

    /// A peer is connected.
    pub fn peer_up(&mut self, now: Time, node: NodeId) {
        if node == self.config.node || !self.config.members.contains(&node) {
            return;
        }
        self.now = now;
        self.gossip.link_up(node);
        self.detector(now).peer_up(now, node);
        self.drain();
    }

    /// A peer is not connected any more. If it was refused it is down at once.
    pub fn peer_gone(&mut self, now: Time, node: NodeId, gone: Gone) {
        self.now = now;
        self.gossip.link_down(node);
        self.detector(now).peer_gone(now, node, gone);
        self.drain();
    }

    /// Does what is due. Given after every input that was there.
    pub fn tick(&mut self, now: Time) {
        self.now = now;
        self.detector(now).tick(now);
        self.drain();
        self.gossip.tick(now);
        self.drain();
    }

    /// What this node says of itself from now on.
    pub fn set_presence(&mut self, presence: Presence) -> Result<(), PublishError> {
        self.gossip.write(Key::PRESENCE, Some(&record::encode_presence(&presence)))?;
        self.presences.insert(self.config.node, presence);
        Ok(())
    }

    /// A new reading of an agent that lives here. Beyond `KEYS_MAX` records of this node it is
    /// not told to others, and a warning says so.
    pub fn publish_reading(&mut self, agent: AgentId, reading: LoadReading) {
        self.write(Key::reading(agent), Some(&record::encode_reading(reading)));
        self.note_reading(agent, self.config.node, Some(reading));
    }

    /// The agent lives here no more.
    pub fn retract(&mut self, agent: AgentId) {
        self.write(Key::reading(agent), None);
        self.note_reading(agent, self.config.node, None);
    }

    /// A record that only its readers understand; none takes it back.
    pub fn publish_extension(&mut self, id: u64, body: Option<&[u8]>) -> Result<(), PublishError> {
        self.gossip.write(Key::extension(id), body)
    }

    /// What must be done, until none.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When `tick` is due even if nothing arrives.
    pub fn poll_timeout(&self) -> Option<Time> {
        match &self.detector {
            None => Some(Time::ZERO),
            Some(detector) => {
                [detector.deadline(), self.gossip.deadline()].into_iter().flatten().min()
            }
        }
    }

    fn message(&mut self, now: Time, from: NodeId, message: Message<'_>) -> Result<(), FrameFault> {
        match message {
            Message::Ping(ping) => self.detector(now).ping(from, ping.nonce),
            Message::Ack(ack) => self.detector(now).ack(now, from, ack.nonce),
            Message::Ask(ask) => self.detector(now).ask(now, from, ask),
            Message::Asked(answer) => self.detector(now).asked(now, from, answer),
            Message::Digest(digest) => self.gossip.digest(now, from, &digest),
            Message::Push(deltas) => {
                let (changes, result) = self.gossip.deltas(now, from, &deltas, true);
                self.learn(now, changes);
                return result;
            }
            Message::Relay(deltas) => {
                let (changes, result) = self.gossip.deltas(now, from, &deltas, false);
                self.learn(now, changes);
                return result;
            }
        }
        Ok(())
    }

    /// Takes note of records that changed.
    fn learn(&mut self, now: Time, changes: Changes) {
        for (owner, keys) in changes {
            for key in keys {
                self.learn_one(now, owner, key);
            }
        }
    }

    fn learn_one(&mut self, now: Time, owner: NodeId, key: Key) {
        let Some(table) = self.gossip.table(owner) else { return };
        let value = table.value(key);
        match key.subject() {
            Subject::Presence => {
                match value.and_then(record::decode_presence) {
                    Some(presence) => self.presences.insert(owner, presence),
                    None => self.presences.remove(&owner),
                };
                if let Some(version) = table.version(key) {
                    self.detector(now).learned(now, owner, version);
                }
            }
            Subject::Reading(agent) => {
                let reading = value.and_then(record::decode_reading);
                self.note_reading(agent, owner, reading);
            }
            Subject::Verdict(accused) => {
                let at = value.and_then(record::decode_verdict);
                if accused == self.config.node {
                    self.answer(now, at);
                } else {
                    self.detector(now).accused(now, owner, accused, at);
                }
            }
            Subject::Opaque => {}
        }
    }

    /// Another node says that this one, standing at `accused`, does not answer: say a newer word.
    fn answer(&mut self, now: Time, accused: Option<Version>) {
        let me = self.config.node;
        let own = self.gossip.table(me).and_then(|table| table.version(Key::PRESENCE));
        let (Some(accused), Some(own)) = (accused, own) else { return };
        if accused < own {
            return;
        }
        self.detector(now).doubted(now);
        if accused.incarnation > own.incarnation || accused > own {
            self.gossip.exceed(now, accused.incarnation);
        } else if let Some(presence) = self.presences.get(&me) {
            let body = record::encode_presence(presence);
            self.write(Key::PRESENCE, Some(&body));
        }
    }

    fn note_reading(&mut self, agent: AgentId, node: NodeId, reading: Option<LoadReading>) {
        if self.readings.set(self.now, agent, node, reading) {
            self.effects.push_back(Effect::ReadingChanged { agent, node });
        }
    }

    fn write(&mut self, key: Key, value: Option<&[u8]>) {
        if let Err(error) = self.gossip.write(key, value) {
            tracing::warn!(?key, %error, "a record is not told to other nodes");
        }
    }

    fn detector(&mut self, now: Time) -> &mut Detector {
        let (config, rng) = (&self.config, &mut self.rng);
        self.detector.get_or_insert_with(|| Detector::new(config, now, rng.fork()))
    }

    /// Turns what the parts want into effects and records.
    fn drain(&mut self) {
        while let Some(act) = self.detector.as_mut().and_then(Detector::poll_act) {
            match act {
                Act::Send(to, message) => {
                    self.effects.push_back(Effect::Send { to, frame: message.encode() });
                }
                Act::Judge { node, from, to, at, reason } => {
                    let verdict = match to {
                        Status::Alive => None,
                        Status::Suspect => Some(record::encode_verdict(at, false)),
                        Status::Down => Some(record::encode_verdict(at, true)),
                    };
                    self.write(Key::verdict(node), verdict.as_deref());
                    let incarnation =
                        self.gossip.table(node).map_or(at.incarnation, |table| table.incarnation());
                    let change = Effect::StatusChanged { node, from, to, incarnation, reason };
                    self.effects.push_back(change);
                }
            }
        }
        while let Some((to, frame)) = self.gossip.poll_send() {
            self.effects.push_back(Effect::Send { to, frame });
        }
    }
}
