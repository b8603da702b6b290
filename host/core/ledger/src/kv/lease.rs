//! Leases. One is for things under one first segment of a namespace; when it ends,
//! all that hangs on it ends with it, in the same entry.

use std::sync::Arc;

use imbl::OrdSet;

use quorate_types::kv::{Done, LeaseId, LeaseInfo, Revision};
use quorate_types::{Refusal, Token};

use super::{Attached, Kv, Lease, Turn, full};
use crate::rebirth::LEAP;
use crate::set_hash::Mark;
use crate::shard::Moment;

impl Kv {
    pub(super) fn grant(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        segment: String,
        ttl_ms: u64,
    ) -> Result<Done, Refusal> {
        if self.leases.len() >= self.bounds.leases_max {
            return Err(full("the table of leases", self.bounds.leases_max));
        }
        let id = LeaseId::new(self.shard, self.counters.leases);
        self.counters.leases += 1;
        let granted = turn.revision();
        let lease = Lease { id, namespace: Arc::clone(namespace), segment, ttl_ms, granted };
        let info = self.describe(&lease);
        self.store_lease(lease);
        Ok(Done::Granted(info))
    }

    pub(super) fn revoke(
        &mut self,
        turn: &mut Turn,
        namespace: &str,
        id: LeaseId,
    ) -> Result<Done, Refusal> {
        // Whoever revokes wants it gone; that it is gone already is no news.
        if self.leases.get(&id).is_some_and(|lease| &*lease.namespace != namespace) {
            return Err(missing(id));
        }
        self.end_lease(turn, id);
        Ok(Done::Revoked)
    }

    /// Ends a lease, if there is one.
    pub(super) fn end_lease(&mut self, turn: &mut Turn, id: LeaseId) {
        let Some(lease) = self.leases.remove(&id) else { return };
        self.sum.remove(Mark::of("kv-lease", &*lease));
        let attached = self.attached.get(&id).cloned().unwrap_or_default();
        for what in attached {
            match what {
                Attached::Key(key) => {
                    self.delete(turn, &lease.namespace, &key, true);
                }
                Attached::Seat(kind, name) => {
                    self.leave(turn, &lease.namespace, &(kind, name), id);
                }
            }
        }
        assert!(!self.attached.contains_key(&id), "lease {id} ends with all that hangs on it");
    }

    /// A lease that may hold things here.
    pub(super) fn lease_for(
        &self,
        namespace: &str,
        segment: &str,
        id: LeaseId,
    ) -> Result<(), Refusal> {
        let lease = self.leases.get(&id).filter(|lease| &*lease.namespace == namespace);
        let lease = lease.ok_or_else(|| missing(id))?;
        if lease.segment == segment {
            return Ok(());
        }
        Err(Refusal::Across(format!(
            "lease {id} is for `{}`; ask for another for `{segment}`",
            lease.segment
        )))
    }

    /// Whether one more thing may hang on it.
    pub(super) fn room_on(&self, id: LeaseId) -> Result<(), Refusal> {
        if self.attached.get(&id).map_or(0, OrdSet::len) >= self.bounds.attached_max {
            return Err(full(&format!("lease {id}"), self.bounds.attached_max));
        }
        Ok(())
    }

    /// Another era of the cluster: nobody holds a lease, and no number that was given comes again.
    pub(crate) fn reborn(&mut self, at: Moment) {
        let mut turn = Turn { now: at.now, index: at.index, next: 0 };
        self.counters.leases += LEAP;
        self.counters.token = Token(self.counters.token.0 + LEAP);
        let held: Vec<LeaseId> = self.leases.keys().copied().collect();
        for lease in held {
            self.end_lease(&mut turn, lease);
        }
        assert!(self.attached.is_empty(), "nothing hangs on a lease where there is none");
        self.forget_changes(Revision::end_of(at.index));
    }

    pub(super) fn describe(&self, lease: &Lease) -> LeaseInfo {
        let holds = self.attached.get(&lease.id).map_or(0, OrdSet::len);
        LeaseInfo {
            lease: lease.id,
            namespace: lease.namespace.to_string(),
            segment: lease.segment.clone(),
            ttl_ms: lease.ttl_ms,
            granted: lease.granted,
            holds: u64::try_from(holds).unwrap_or(u64::MAX),
        }
    }
}

pub(super) fn missing(id: LeaseId) -> Refusal {
    Refusal::NotFound(format!("lease {id} (any more)"))
}
