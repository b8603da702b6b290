//! Operators: they let nodes join, give them votes, take votes and members away,
//! replace who is lost, while all else goes on. They ask at doors, as everybody
//! does, and do one thing after the other, in all groups alike.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use quorate_types::member::{MemberRequest, NewMember, NewVoters};
use quorate_types::rng::Rng;
use quorate_types::{GroupId, NodeId, Refusal, Reply, Request};

use crate::fleet::Fleet;
use crate::node::{SimHandle, SimNode, Site, address_of, peer_of};
use crate::runtime::{SimRuntime, elapsed};
use crate::workload::Front;

/// A change of voters waits for new ones to catch up, and then for two commits.
const WITHIN_MS: u64 = 12_000;
/// What is refused or unanswered is asked so often.
const TRIES: usize = 5;
/// So long after it was asked for a set may yet come into force: its leader waits for who catches
/// up, and for two quorums.
const PENDING: Duration = Duration::from_secs(45);
/// Fewer voters than this survive nothing.
const VOTERS_MIN: usize = 3;

/// Who changes the members.
pub(crate) struct Operator {
    front: Front,
    site: Site,
    fleet: Fleet,
    rng: Rng,
    /// No id is given twice.
    next: u64,
    /// Sets that were asked for, and when.
    asked: Vec<(Duration, BTreeSet<NodeId>)>,
}

/// How things stand, as whoever leads sees it.
struct Standing {
    members: BTreeSet<NodeId>,
    next_id: u64,
    voters: BTreeSet<NodeId>,
}

impl Operator {
    pub(crate) fn new(front: Front, site: Site, fleet: Fleet, rng: Rng) -> Self {
        Self { front, site, fleet, rng, next: 0, asked: Vec::new() }
    }

    /// One change after the other, until requests do not begin any more.
    pub(crate) async fn operate(mut self) {
        loop {
            SimRuntime::sleep(Duration::from_millis(1_000 + self.rng.below(7_000))).await;
            if self.front.is_over() {
                return;
            }
            self.guard();
            if let Some(standing) = self.look() {
                self.tidy(&standing).await;
                self.change(standing).await;
            }
        }
    }

    /// Tells the fleet which sets must not lose their majority for good.
    fn guard(&mut self) {
        let now = elapsed();
        self.asked.retain(|(at, _)| *at + PENDING > now);
        let mut sets = self.front.world().voters();
        sets.extend(self.asked.iter().map(|(_, set)| set.clone()));
        self.fleet.set_voters(sets);
    }

    /// Nothing while nobody leads, or voters change. Where groups have not all the same, as after a
    /// change that came to nothing in between, all of them count.
    fn look(&self) -> Option<Standing> {
        let mut voters = BTreeSet::new();
        for group in self.site.knobs.layout.groups() {
            let status = self.leader_of(group)?.groups().get(group)?.status();
            if status.joint {
                return None;
            }
            voters.extend(status.voters);
        }
        let views = self.leader_of(GroupId::SYSTEM)?.views();
        let roster = views.roster();
        roster.begun().then(|| Standing {
            members: roster.members().map(|member| member.id).collect(),
            next_id: roster.next_id().0,
            voters,
        })
    }

    fn leader_of(&self, group: GroupId) -> Option<SimHandle> {
        let leader = self.fleet.those(|node| node.leads(group)).first().copied()?;
        self.fleet.on(leader, |node| node.handle()).flatten()
    }

    /// Members that never came, or that a change which came to nothing has left over.
    async fn tidy(&mut self, standing: &Standing) {
        let here: BTreeSet<NodeId> = self.fleet.ids().into_iter().collect();
        let stray = standing.members.iter().find(|id| !here.contains(id)).copied();
        if let Some(stray) = stray.filter(|stray| !standing.voters.contains(stray)) {
            self.remove(stray).await;
        }
        let is_lost = |id: &NodeId| standing.members.contains(id) && !standing.voters.contains(id);
        let lost = self.fleet.those(SimNode::is_ruined).into_iter().find(is_lost);
        if let Some(lost) = lost {
            self.remove(lost).await;
        }
    }

    async fn change(&mut self, standing: Standing) {
        let ruined = self.fleet.those(SimNode::is_ruined);
        if let Some(lost) = standing.voters.intersection(&ruined).next().copied() {
            return self.replace(&standing, lost).await;
        }
        let most = usize::try_from(self.site.knobs.voters_max).unwrap_or(VOTERS_MIN);
        let sound = self.fleet.those(|node| !node.has_lost());
        let idle: Vec<NodeId> = standing
            .members
            .iter()
            .filter(|id| sound.contains(id) && !standing.voters.contains(id))
            .copied()
            .collect();
        match self.rng.below(10) {
            0..4 if standing.voters.len() + 2 <= most => self.grow(&standing, idle).await,
            0..6 if standing.voters.len() >= VOTERS_MIN + 2 => self.shrink(&standing).await,
            6..7 if !idle.is_empty() => self.remove(idle[0]).await,
            7..8 if idle.is_empty() => {
                self.join(&standing).await;
            }
            _swap => {
                if let Some(old) = self.any_of(&standing.voters) {
                    self.replace(&standing, old).await;
                }
            }
        }
    }

    fn any_of(&mut self, of: &BTreeSet<NodeId>) -> Option<NodeId> {
        let drawn = self.rng.below(u64::try_from(of.len()).unwrap_or(0).max(1));
        of.iter().nth(usize::try_from(drawn).unwrap_or(0)).copied()
    }

    /// Two more voters: those who follow already, or new ones.
    async fn grow(&mut self, standing: &Standing, idle: Vec<NodeId>) {
        let mut voters = standing.voters.clone();
        voters.extend(idle.into_iter().take(2));
        while voters.len() < standing.voters.len() + 2 {
            let Some(fresh) = self.join(standing).await else { return };
            voters.insert(fresh);
        }
        self.set_voters(voters).await;
    }

    /// Two fewer voters; mostly they leave altogether.
    async fn shrink(&mut self, standing: &Standing) {
        let mut voters = standing.voters.clone();
        let marred = self.fleet.those(SimNode::has_lost);
        let mut leave: Vec<NodeId> = voters.intersection(&marred).take(2).copied().collect();
        voters.retain(|id| !leave.contains(id));
        while leave.len() < 2 {
            let Some(id) = self.any_of(&voters) else { return };
            voters.remove(&id);
            leave.push(id);
        }
        if self.set_voters(voters).await {
            for id in leave {
                if self.rng.chance(700_000) {
                    self.remove(id).await;
                }
            }
        }
    }

    /// Another takes the place of a voter.
    async fn replace(&mut self, standing: &Standing, old: NodeId) {
        let Some(fresh) = self.join(standing).await else { return };
        let mut voters = standing.voters.clone();
        voters.remove(&old);
        voters.insert(fresh);
        if self.set_voters(voters).await {
            self.remove(old).await;
        }
    }

    /// A node under a new id becomes a member and starts; it follows before long.
    async fn join(&mut self, standing: &Standing) -> Option<NodeId> {
        if self.front.is_over() {
            return None;
        }
        self.next = self.next.max(standing.next_id);
        let id = NodeId(self.next);
        self.next += 1;
        let member =
            NewMember { id, name: id.to_string(), peer: peer_of(id), address: address_of(id) };
        if !self.ask("add a member", MemberRequest::Add(member), TRIES).await {
            return None;
        }
        let (site, rng) = (self.site.clone(), self.rng.fork());
        let mut node = SimNode::joining(site, id, rng, standing.members.clone());
        node.boot();
        self.fleet.add(node);
        self.front.world().count(|tally| tally.joined += 1);
        Some(id)
    }

    async fn set_voters(&mut self, voters: BTreeSet<NodeId>) -> bool {
        self.asked.push((elapsed(), voters.clone()));
        self.guard();
        for group in self.site.knobs.layout.groups() {
            let request = NewVoters { group, voters: voters.clone() };
            if !self.ask("set voters", MemberRequest::Voters(request), TRIES).await {
                return false;
            }
            self.front.world().acknowledged(group, &voters);
        }
        self.front.world().count(|tally| tally.revoted += 1);
        true
    }

    /// Nobody is sent to it any more, it is removed, and its process goes on for a while.
    async fn remove(&mut self, id: NodeId) {
        self.fleet.on(id, |node| node.close_door());
        if !self.ask("remove a member", MemberRequest::Remove(id), TRIES).await {
            self.fleet.on(id, |node| node.open_door());
            return;
        }
        self.front.world().count(|tally| tally.removed += 1);
        let (fleet, lingers) = (self.fleet.clone(), self.rng.below(4_000));
        drop(SimRuntime::spawn(async move {
            SimRuntime::sleep(Duration::from_millis(lingers)).await;
            fleet.remove(id);
        }));
    }

    /// Asks at one door after the other; whether it was done.
    async fn ask(&mut self, what: &str, request: MemberRequest, tries: usize) -> bool {
        for _ in 0..tries {
            let request = Request::Membership(request.clone());
            match self.front.ask_within(&mut self.rng, what, request, WITHIN_MS).await {
                Some(Ok(Reply::Done)) => return true,
                Some(Err(Refusal::Invalid(_) | Refusal::NotFound(_))) => return false,
                Some(Ok(_) | Err(_)) | None => {}
            }
            if self.front.is_over() {
                return false;
            }
            SimRuntime::sleep(Duration::from_millis(200 + self.rng.below(800))).await;
        }
        false
    }
}
