//! Keys, leases and seats at the node that leads their group: requests that wait go
//! into one entry, reads stand behind one barrier, and the clock of every lease is
//! here, in memory.
//!
//! A sign of life counts only after a barrier, so that a leader of the past renews
//! nothing. A new leader gives every live lease one full term. Only the verdict that
//! a lease showed no sign of life enters the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_ledger::{Command, Ledger, Outcome, ShardCommand};
use quorate_types::clocks::Clocks;
use quorate_types::kv::{Act, KvAnswer, KvRead, KvRequest, LeaseId, Op, Txn, group_of_lease};
use quorate_types::{GroupId, Index, Refusal, Reply, Request, Time};

use crate::frame::{Done, Errand};
use crate::io::{Effect, LogSetback, Now, Ticket};
use crate::kernel::Kernel;

/// Requests in one entry. With `ENTRY_BYTES` it keeps an entry's apply below a few milliseconds.
const ENTRY_REQUESTS: usize = 1024;
/// Keys and values in one entry, bytes, where it is of more than one ask: half of what a command
/// may have.
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

    /// The verdict was applied.
    pub(crate) fn judged(&mut self, leases: &[LeaseId]) {
        leases.iter().for_each(|lease| {
            self.ending.remove(lease);
        });
    }
}

impl KvDesk {
    /// The asks that an entry answers, if the ticket is that of one.
    pub(crate) fn answered_by(&mut self, ticket: Ticket) -> Option<Vec<(u64, usize)>> {
        self.proposed.remove(&ticket)
    }
}

impl Kernel {
    /// Takes requests that this node must answer as the group's leader; they wait for the end of the
    /// step.
    pub(crate) fn kv_requested(&mut self, id: u64, group: GroupId) {
        self.kv.waiting.entry(group).or_default().push(id);
    }

    /// Proposes what waits: one entry for all, or as many as their size asks for.
    pub(crate) fn settle_kv(&mut self, now: Now) {
        for (group, waiting) in std::mem::take(&mut self.kv.waiting) {
            let (mut requests, mut asks, mut bytes) = (Vec::new(), Vec::new(), 0);
            for id in waiting {
                let Some(asked) = self.kv_requests_of(id) else { continue };
                let asked = std::mem::take(asked);
                let more = asked.iter().map(weight).sum::<usize>();
                // One that is too large by itself goes alone, so that it alone is refused.
                if bytes + more > ENTRY_BYTES || requests.len() >= ENTRY_REQUESTS {
                    let full = (std::mem::take(&mut requests), std::mem::take(&mut asks));
                    self.propose_kv(now, group, full);
                    bytes = 0;
                }
                bytes += more;
                asks.push((id, asked.len()));
                requests.extend(asked);
            }
            self.propose_kv(now, group, (requests, asks));
        }
    }

    fn propose_kv(
        &mut self,
        now: Now,
        group: GroupId,
        (requests, asks): (Vec<KvRequest>, Vec<(u64, usize)>),
    ) {
        if asks.is_empty() {
            return;
        }
        let command = Command::from(ShardCommand::Kv(requests));
        let entry = command.encode(self.stamped(now, group).wall);
        // What was lent to the entry goes back to its asks, which may have to be proposed again.
        if let Command::Shard(ShardCommand::Kv(requests)) = command {
            let mut requests = requests.into_iter();
            for (id, count) in &asks {
                let lent = requests.by_ref().take(*count).collect();
                if let Some(asked) = self.kv_requests_of(*id) {
                    *asked = lent;
                }
            }
        }
        let ticket = self.ticket();
        self.effects.push_back(Effect::Propose(ticket, group, entry));
        self.kv.proposed.insert(ticket, asks);
    }

    fn kv_requests_of(&mut self, id: u64) -> Option<&mut Vec<KvRequest>> {
        let ask = self.asks.table.get_mut(&id)?;
        let Errand::Door(request) = &mut ask.errand else {
            unreachable!("ask {id} brought no request about keys")
        };
        let Request::Kv(requests) = request.as_mut() else {
            unreachable!("ask {id} brought no request about keys")
        };
        Some(requests)
    }

    /// An entry of requests ended.
    pub(crate) fn kv_proposed(
        &mut self,
        now: Now,
        asks: Vec<(u64, usize)>,
        result: Result<(Index, Outcome), LogSetback>,
    ) {
        let mut answers = match result {
            Ok((_index, Outcome::Kv(answers))) => answers.into_iter(),
            Ok((_index, other)) => unreachable!("requests about keys came to {other:?}"),
            Err(setback) => {
                asks.iter().for_each(|(id, _count)| self.log_setback(now, *id, setback));
                return;
            }
        };
        for (id, count) in asks {
            let part: Vec<KvAnswer> = answers.by_ref().take(count).collect();
            assert_eq!(part.len(), count, "an entry answers each of its requests");
            self.finish(now, id, Ok(Done::Door(Box::new(Reply::Kv(part)))));
        }
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

impl Errand {
    /// Whether it asks for acts on keys, leases and seats.
    pub(crate) fn is_about_keys(&self) -> bool {
        matches!(self, Self::Door(request) if matches!(request.as_ref(), Request::Kv(_)))
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
