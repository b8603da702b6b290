//! Requests that several groups must each do a share of: submissions whose tasks
//! belong to different shards, acts on keys of different shards, and signs of life of
//! a worker that may hold leases of each. The node at whose door such a request stands parts it, and answers when the
//! last share has ended.

use std::collections::BTreeMap;

use quorate_types::kv::{self, Act, KvRequest};
use quorate_types::view::Submitted;
use quorate_types::{AgentId, GroupId, Incarnation, Refusal, Reply, Request, Submission};

use crate::asks::{Origin, Own, Target, misfit};
use crate::frame::{Done, Errand, Setback};
use crate::io::Now;
use crate::kernel::Kernel;

/// An answer to each of some items, in order, as the shares bring them.
#[derive(Debug)]
struct Answers<T>(Vec<Option<Result<T, Refusal>>>);

impl<T: std::fmt::Debug> Answers<T> {
    fn of(items: usize) -> Self {
        Self(std::iter::repeat_with(|| None).take(items).collect())
    }

    /// Takes a share's answers; a refusal where they are not as many as its items.
    fn fill(&mut self, places: &[usize], each: Vec<Result<T, Refusal>>) -> Result<(), Refusal> {
        if each.len() != places.len() {
            return Err(misfit(&each));
        }
        for (at, answer) in places.iter().zip(each) {
            self.0[*at] = Some(answer);
        }
        Ok(())
    }

    fn refuse(&mut self, places: &[usize], refusal: &Refusal) {
        for at in places {
            self.0[*at] = Some(Err(refusal.clone()));
        }
    }

    fn in_order(self) -> impl Iterator<Item = Result<T, Refusal>> {
        self.0.into_iter().flatten()
    }
}

/// What is gathered.
#[derive(Debug)]
enum Gathered {
    /// An answer to each submission, in order.
    Submitted(Answers<Submitted>),
    /// What came of each act on keys, in order, and how many acts each request has.
    Kept(Answers<kv::Done>, Vec<usize>),
    /// The first refusal, if there was one.
    Beaten(Option<Refusal>),
}

#[derive(Debug)]
struct Parting {
    /// Which of the request's items each share has.
    shares: Vec<Vec<usize>>,
    waiting: usize,
    gathered: Gathered,
}

/// Parted requests, by their asks.
#[derive(Debug, Default)]
pub(crate) struct Partings(BTreeMap<u64, Parting>);

impl Partings {
    /// Nobody waits for it any more. Its shares come to their ends.
    pub(crate) fn forget(&mut self, ask: u64) {
        self.0.remove(&ask);
    }
}

impl Parting {
    fn take(&mut self, share: usize, result: Result<Done, Setback>) {
        self.waiting -= 1;
        let refusal = match result {
            Ok(done) => match self.keep(share, done) {
                Ok(()) => return,
                Err(misfit) => misfit,
            },
            Err(Setback::Refused(refusal)) => refusal,
            Err(Setback::NotLeader(_)) => Refusal::Unavailable("the leader changed".to_owned()),
        };
        let places = &self.shares[share];
        match &mut self.gathered {
            Gathered::Submitted(answers) => answers.refuse(places, &refusal),
            Gathered::Kept(answers, _lengths) => answers.refuse(places, &refusal),
            Gathered::Beaten(first) => *first = first.take().or(Some(refusal)),
        }
    }

    /// Takes what a share came to; a refusal where it is not of the kind that was asked for.
    fn keep(&mut self, share: usize, done: Done) -> Result<(), Refusal> {
        let Done::Door(reply) = done else { return Err(misfit(&done)) };
        let places = &self.shares[share];
        match &mut self.gathered {
            Gathered::Submitted(answers) => {
                let Reply::Submitted(each) = *reply else { return Err(misfit(&reply)) };
                answers.fill(places, each)
            }
            Gathered::Kept(answers, _lengths) => {
                let Reply::Kv(each) = *reply else { return Err(misfit(&reply)) };
                answers.fill(places, each.into_iter().flatten().collect())
            }
            Gathered::Beaten(_) if *reply == Reply::Done => Ok(()),
            Gathered::Beaten(_) => Err(misfit(&reply)),
        }
    }

    fn end(self) -> Result<Done, Setback> {
        let reply = match self.gathered {
            Gathered::Submitted(answers) => Reply::Submitted(answers.in_order().collect()),
            Gathered::Kept(answers, lengths) => {
                let mut answers = answers.in_order();
                let each =
                    lengths.into_iter().map(|length| answers.by_ref().take(length).collect());
                Reply::Kv(each.collect())
            }
            Gathered::Beaten(Some(refusal)) => return Err(Setback::Refused(refusal)),
            Gathered::Beaten(None) => Reply::Done,
        };
        Ok(Done::Door(Box::new(reply)))
    }
}

impl Kernel {
    /// Sends each submission to its shard.
    pub(crate) fn part_submissions(&mut self, now: Now, ask: u64, batch: Vec<Submission>) {
        let mut shares: BTreeMap<GroupId, (Vec<usize>, Vec<Submission>)> = BTreeMap::new();
        let answers = Answers::of(batch.len());
        for (at, submission) in batch.into_iter().enumerate() {
            let group = self.config.layout.of_submission(&submission);
            let (places, share) = shares.entry(group).or_default();
            places.push(at);
            share.push(submission);
        }
        let shares = shares.into_iter();
        let shares = shares.map(|(group, (at, share))| (group, at, Request::Submit(share)));
        self.part(now, ask, Gathered::Submitted(answers), shares.collect());
    }

    /// Sends each act on keys to its shard. Those of one request stay together as far as they go.
    pub(crate) fn part_kv(&mut self, now: Now, ask: u64, requests: Vec<KvRequest>) {
        let layout = self.config.layout;
        let mut shares: BTreeMap<GroupId, (Vec<usize>, Vec<KvRequest>)> = BTreeMap::new();
        let lengths: Vec<usize> = requests.iter().map(|request| request.acts.len()).collect();
        let mut place = 0;
        for request in requests {
            let groups: Vec<GroupId> = request.groups(layout).collect();
            let KvRequest { namespace, nonce, acts } = request;
            let mut parts: BTreeMap<GroupId, Vec<Act>> = BTreeMap::new();
            for (group, act) in groups.into_iter().zip(acts) {
                shares.entry(group).or_default().0.push(place);
                parts.entry(group).or_default().push(act);
                place += 1;
            }
            for (group, acts) in parts {
                let part = KvRequest { namespace: namespace.clone(), nonce, acts };
                shares.entry(group).or_default().1.push(part);
            }
        }
        let gathered = Gathered::Kept(Answers::of(place), lengths);
        let shares = shares.into_iter();
        let shares = shares.map(|(group, (at, share))| (group, at, Request::Kv(share)));
        self.part(now, ask, gathered, shares.collect());
    }

    /// Tells the leader of each shard that an outside agent lives.
    pub(crate) fn part_beat(&mut self, now: Now, ask: u64, agent: AgentId, life: Incarnation) {
        let shards = self.config.layout.shards();
        let shares = shards.map(|group| (group, Vec::new(), Request::Beat(agent, life, None)));
        self.part(now, ask, Gathered::Beaten(None), shares.collect());
    }

    /// Sends each group its share: the places of the items that it has, and what is asked of it.
    fn part(
        &mut self,
        now: Now,
        ask: u64,
        gathered: Gathered,
        shares: Vec<(GroupId, Vec<usize>, Request)>,
    ) {
        let Some(within) = self.asks.left(now, ask) else { return };
        let (places, requests): (Vec<_>, Vec<_>) =
            shares.into_iter().map(|(group, at, request)| (at, (group, request))).unzip();
        let parting = Parting { waiting: places.len(), shares: places, gathered };
        self.partings.0.insert(ask, parting);
        for (share, (group, request)) in requests.into_iter().enumerate() {
            let origin = Origin::Own(Own::Share(ask, share));
            let errand = Errand::Door(Box::new(request));
            self.begin(now, origin, Target::Leader(group), errand, within);
        }
        self.end_parting(now, ask);
    }

    /// A share has ended.
    pub(crate) fn share_ended(
        &mut self,
        now: Now,
        ask: u64,
        share: usize,
        result: Result<Done, Setback>,
    ) {
        if let Some(parting) = self.partings.0.get_mut(&ask) {
            parting.take(share, result);
            self.end_parting(now, ask);
        }
    }

    fn end_parting(&mut self, now: Now, ask: u64) {
        if self.partings.0.get(&ask).is_some_and(|parting| parting.waiting == 0)
            && let Some(parting) = self.partings.0.remove(&ask)
        {
            self.finish(now, ask, parting.end());
        }
    }
}
