//! Keys, leases and seats at the node that leads their group: requests that wait go
//! into one entry, reads stand behind one barrier, and the clock of every lease is
//! here, in memory.
//!
//! A sign of life counts only after a barrier, so that a leader of the past renews
//! nothing. A new leader gives every live lease one full term. Only the verdict that
//! a lease showed no sign of life enters the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_ledger::{Ledger, Outcome, ShardCommand};
use quorate_types::clocks::Clocks;
use quorate_types::kv::{Act, KvAnswer, KvRead, KvRequest, LeaseId, Op, Txn, group_of_lease};
use quorate_types::{GroupId, Index, Refusal, Reply, Request, Time};

use crate::frame::{Done, Errand};
use crate::io::{LogSetback, Now, Ticket};
use crate::kernel::Kernel;

/// Requests in one entry. With `ENTRY_BYTES` it keeps an entry's apply below a few milliseconds.
const ENTRY_REQUESTS: usize = 1024;
/// Keys and values in one entry, bytes, beyond its last request: half of what a command may have.
const ENTRY_BYTES: usize = 1 << 20;
/// A verdict that was not committed is proposed again after this span.
const PROPOSE_AGAIN: Duration = Duration::from_millis(500);
/// Leases ended by one entry. Each may have a thousand keys; the rest follows in the next.
const EXPIRED_BATCH: usize = 16;

/// Requests that wait for an entry, and entries that wait for the log.
#[derive(Debug, Default)]
pub(crate) struct KvDesk {
    waiting: BTreeMap<GroupId, Vec<u64>>,
    /// The asks that an entry answers, each with the number of its requests.
    proposed: BTreeMap<Ticket, Vec<(u64, usize)>>,
}

/// A leader's clocks of leases.
#[derive(Debug, Default)]
pub(crate) struct KvClocks {
    clocks: Clocks<LeaseId>,
    /// Leases below this one were seen. They are numbered in order.
    unseen: LeaseId,
    /// Leases whose end is proposed: no sign of life helps them any more.
    ending: BTreeSet<LeaseId>,
}

impl KvClocks {
    pub(crate) fn first(&self) -> Option<Time> {
        self.clocks.first()
    }

    /// Starts the clocks of leases that were not seen before.
    pub(crate) fn follow(&mut self, now: Now, view: &Ledger) {
        for (lease, ttl_ms) in view.kv_leases_from(self.unseen) {
            self.clocks.set(lease, now.mono + Duration::from_millis(ttl_ms));
            self.unseen = LeaseId(lease.0 + 1);
        }
    }

    fn renew(&mut self, now: Now, lease: LeaseId, ttl_ms: u64) -> bool {
        let alive = !self.ending.contains(&lease);
        if alive {
            self.clocks.set(lease, now.mono + Duration::from_millis(ttl_ms));
        }
        alive
    }

    /// Leases that must end now.
    pub(crate) fn run_out(&mut self, now: Now, view: &Ledger) -> Vec<LeaseId> {
        let again = now.mono + PROPOSE_AGAIN;
        let silent = self.clocks.run_out(now.mono, again, EXPIRED_BATCH);
        let (there, gone): (Vec<_>, Vec<_>) =
            silent.into_iter().partition(|lease| view.kv_lease_ttl(*lease).is_some());
        gone.into_iter().for_each(|lease| self.clocks.stop(lease));
        self.ending.extend(&there);
        there
    }

    /// The verdict was applied, or came to nothing and will be proposed again.
    pub(crate) fn judged(&mut self, leases: &[LeaseId]) {
        leases.iter().for_each(|lease| {
            self.ending.remove(lease);
        });
    }
}

impl Kernel {
    /// Takes requests that this node must answer as the group's leader.
    pub(crate) fn kv_requested(&mut self, id: u64, group: GroupId) {
        self.kv.waiting.entry(group).or_default().push(id);
    }

    /// Proposes what waits: one entry for all, or as many as their size asks for.
    pub(crate) fn settle_kv(&mut self, now: Now) {
        for (group, waiting) in std::mem::take(&mut self.kv.waiting) {
            let (mut requests, mut asks, mut bytes) = (Vec::new(), Vec::new(), 0);
            for id in waiting {
                let Some(asked) = self.kv_requests_of(id) else { continue };
                bytes += asked.iter().map(weight).sum::<usize>();
                asks.push((id, asked.len()));
                requests.extend(asked);
                if requests.len() >= ENTRY_REQUESTS || bytes >= ENTRY_BYTES {
                    let full = (std::mem::take(&mut requests), std::mem::take(&mut asks));
                    self.propose_kv(now, group, full);
                    bytes = 0;
                }
            }
            if !asks.is_empty() {
                self.propose_kv(now, group, (requests, asks));
            }
        }
    }

    fn propose_kv(
        &mut self,
        now: Now,
        group: GroupId,
        (requests, asks): (Vec<KvRequest>, Vec<(u64, usize)>),
    ) {
        let ticket = self.propose(now, group, ShardCommand::Kv(requests));
        self.kv.proposed.insert(ticket, asks);
    }

    fn kv_requests_of(&self, id: u64) -> Option<Vec<KvRequest>> {
        if let Errand::Door(request) = &self.asks.table.get(&id)?.errand
            && let Request::Kv(requests) = request.as_ref()
        {
            return Some(requests.clone());
        }
        unreachable!("ask {id} brought no request about keys")
    }

    /// Whether the ticket was one of an entry of requests, which is dealt with here.
    pub(crate) fn kv_proposed(
        &mut self,
        now: Now,
        ticket: Ticket,
        result: &Result<(Index, Outcome), LogSetback>,
    ) -> bool {
        let Some(asks) = self.kv.proposed.remove(&ticket) else { return false };
        let mut answers = match result {
            Ok((_index, Outcome::Kv(answers))) => answers.iter(),
            Ok((_index, other)) => unreachable!("requests about keys came to {other:?}"),
            Err(setback) => {
                asks.iter().for_each(|(id, _count)| self.log_setback(now, *id, *setback));
                return true;
            }
        };
        for (id, count) in asks {
            let part: Vec<KvAnswer> = answers.by_ref().take(count).cloned().collect();
            assert_eq!(part.len(), count, "an entry answers each of its requests");
            self.finish(now, id, Ok(Done::Door(Box::new(Reply::Kv(part)))));
        }
        true
    }

    /// Reads from the view.
    pub(crate) fn kv_found(&self, reads: &[KvRead], stale: bool) -> Reply {
        Reply::KvFound(reads.iter().map(|read| self.view.kv_read(read)).collect(), stale)
    }

    /// A sign of life of a lease; a barrier has passed.
    pub(crate) fn kv_renew(&mut self, now: Now, lease: LeaseId) -> Result<u64, Refusal> {
        let gone = || Refusal::NotFound(format!("lease {lease} (any more)"));
        let group = group_of_lease(self.config.layout, lease);
        let view = self.view.group(group).ok_or_else(gone)?;
        let ttl_ms = view.kv_lease_ttl(lease).ok_or_else(gone)?;
        let Some(leading) = self.leading.get_mut(&group) else {
            return Err(Refusal::Unavailable("the leader changed".to_owned()));
        };
        leading.kv.follow(now, view);
        if leading.kv.renew(now, lease, ttl_ms) { Ok(ttl_ms) } else { Err(gone()) }
    }
}

/// About how much a request takes in an entry, bytes.
fn weight(request: &KvRequest) -> usize {
    const HEAD: usize = 64;
    let op = |op: &Op| match op {
        Op::Put { key, value, .. } => HEAD + key.len() + value.0.len(),
        Op::Get { key } | Op::Delete { key, .. } => HEAD + key.len(),
        Op::DeleteRange { prefix } => HEAD + prefix.len(),
    };
    let act = |act: &Act| match act {
        Act::Op(one) => op(one),
        Act::Txn(Txn { compare, then, otherwise }) => {
            let compared: usize = compare.iter().map(|compare| HEAD + compare.key.len()).sum();
            compared + then.iter().chain(otherwise).map(op).sum::<usize>()
        }
        Act::Grant { .. } | Act::Revoke(_) | Act::Seat { .. } => 2 * HEAD,
    };
    HEAD + request.acts.iter().map(act).sum::<usize>()
}
