//! What doors read: keys, leases, seats, and changes after a revision.

use std::ops::Bound;
use std::sync::Arc;

use quorate_types::Refusal;
use quorate_types::kv::{
    Changes, KvFound, KvRead, KvWatch, LeaseId, RangePage, Revision, SeatInfo, SeatKind, SeatPage,
    Subject, check_key, check_prefix,
};

use super::{Kept, Kv, Lease, Seat, lease, weight};
use crate::Ledger;

/// Things on a page, at most.
const PAGE_MAX: usize = 1000;
/// A page, bytes: a frame between nodes is four times as large.
const PAGE_BYTES_MAX: u64 = 1 << 20;
/// What a record on a page counts beside its value, bytes.
const RECORD_BYTES: u64 = 128;

impl Kv {
    /// Keys under a prefix, in order, after one of them.
    pub(super) fn under<'a>(
        &'a self,
        namespace: &str,
        prefix: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Kept>> + 'a {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let keys = self.spaces.get(namespace).map(|space| &space.keys);
        keys.into_iter()
            .flat_map(move |keys| {
                keys.range::<(Bound<&str>, Bound<&str>), str>((from, Bound::Unbounded))
            })
            .take_while(move |(key, _kept)| key.starts_with(prefix))
            .map(|(_key, kept)| kept)
    }

    fn range(
        &self,
        namespace: &str,
        prefix: &str,
        cursor: Option<&str>,
        limit: u32,
        as_of: Revision,
    ) -> RangePage {
        let mut page = RangePage { as_of, ..RangePage::default() };
        let mut bytes = 0;
        for kept in self.under(namespace, prefix, cursor) {
            bytes += RECORD_BYTES + weight(&kept.record);
            let full = page.keys.len() == page_of(limit) || bytes > PAGE_BYTES_MAX;
            if full && !page.keys.is_empty() {
                page.cursor = page.keys.last().map(|record| record.key.to_string());
                break;
            }
            page.keys.push(kept.record.clone());
        }
        page
    }

    fn seats(&self, namespace: &str, kind: SeatKind, cursor: Option<&str>, limit: u32) -> SeatPage {
        let mut page = SeatPage::default();
        let Some(space) = self.spaces.get(namespace) else { return page };
        let from = match cursor {
            Some(after) => Bound::Excluded((kind, Arc::from(after))),
            None => Bound::Included((kind, Arc::from(""))),
        };
        for ((of, name), seat) in space.seats.range((from, Bound::Unbounded)) {
            if *of != kind {
                break;
            }
            if page.seats.len() == page_of(limit) {
                page.cursor = page.seats.last().map(|seat| seat.name.to_string());
                break;
            }
            debug_assert_eq!(*name, seat.name, "a seat stands under its name");
            page.seats.push(info(seat));
        }
        page
    }
}

/// Two shards' answers to one question about all of a namespace, as one. Each brought a full page
/// where it has as much, so that nothing below the last of the joined page is missing.
pub(crate) fn joined(read: &KvRead, one: KvFound, other: KvFound) -> KvFound {
    match (read, one, other) {
        (KvRead::Leases { limit, .. }, KvFound::Leases(mut one), KvFound::Leases(other)) => {
            one.extend(other);
            one.sort_unstable_by_key(|info| info.lease);
            one.truncate(page_of(*limit));
            KvFound::Leases(one)
        }
        (KvRead::Seats { limit, .. }, KvFound::Seats(mut one), KvFound::Seats(other)) => {
            let more = one.cursor.is_some() || other.cursor.is_some();
            one.seats.extend(other.seats);
            one.seats.sort_by(|one, other| one.name.cmp(&other.name));
            let more = more || one.seats.len() > page_of(*limit);
            one.seats.truncate(page_of(*limit));
            one.cursor = one.seats.last().filter(|_last| more).map(|seat| seat.name.to_string());
            KvFound::Seats(one)
        }
        (_of_one_group, one, _other) => one,
    }
}

fn page_of(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX)
}

fn info(seat: &Seat) -> SeatInfo {
    SeatInfo {
        kind: seat.kind,
        name: Arc::clone(&seat.name),
        holder: Some(seat.holder.clone()),
        waiting: seat.waiting.iter().map(|waiter| waiter.lease).collect(),
    }
}

/// Keys, leases and seats.
impl Ledger {
    /// What is there, as of this state.
    ///
    /// # Errors
    /// `NotFound` for a lease that is not there; `Invalid` and `Across` for what cannot be asked.
    pub fn kv_read(&self, read: &KvRead) -> Result<KvFound, Refusal> {
        let kv = &self.shard.kv;
        let as_of = Revision::end_of(self.index);
        match read {
            KvRead::Get { namespace, key } => {
                check_key(key)?;
                let record = kv.kept(namespace, key).map(|kept| kept.record.clone());
                Ok(KvFound::Get(record, as_of))
            }
            KvRead::Range { namespace, prefix, cursor, limit } => {
                check_prefix(prefix)?;
                let page = kv.range(namespace, prefix, cursor.as_deref(), *limit, as_of);
                Ok(KvFound::Range(page))
            }
            KvRead::Lease(id) => {
                let found = kv.leases.get(id).map(|lease| kv.describe(lease));
                found.map(KvFound::Lease).ok_or_else(|| lease::missing(*id))
            }
            KvRead::Leases { namespace, limit } => {
                let ours = |lease: &&Arc<Lease>| &*lease.namespace == namespace.as_str();
                let leases = kv.leases.values().filter(ours).take(page_of(*limit));
                Ok(KvFound::Leases(leases.map(|lease| kv.describe(lease)).collect()))
            }
            KvRead::Seat { namespace, kind, name } => {
                check_key(name)?;
                let at = (*kind, Arc::from(name.as_str()));
                let seat = kv.seat_at(namespace, &at).map(|seat| info(seat));
                let free =
                    || SeatInfo { kind: *kind, name: at.1, holder: None, waiting: Vec::new() };
                Ok(KvFound::Seat(seat.unwrap_or_else(free), as_of))
            }
            KvRead::Seats { namespace, kind, cursor, limit } => {
                Ok(KvFound::Seats(kv.seats(namespace, *kind, cursor.as_deref(), *limit)))
            }
        }
    }

    /// Changes to a subject after the revision that the watch names; none where it names none.
    ///
    /// # Errors
    /// `Compacted` where changes right after it are no longer kept; `Invalid` and `Across` for a
    /// subject that cannot be watched.
    pub fn kv_changes(&self, watch: &KvWatch, limit: usize) -> Result<Changes, Refusal> {
        match &watch.subject {
            Subject::Key(key) | Subject::Seat(_, key) => check_key(key)?,
            Subject::Prefix(prefix) => check_prefix(prefix)?,
        }
        let (kv, as_of) = (&self.shard.kv, Revision::end_of(self.index));
        let Some(after) = watch.after else {
            return Ok(Changes { changes: Vec::new(), seen: as_of });
        };
        if after < kv.counters.forgotten {
            return Err(Refusal::Compacted(format!("what changed right after revision {after}")));
        }
        let mut bytes = 0;
        let mut changes = Vec::new();
        for change in kv.window.after(&watch.namespace, &watch.subject, after) {
            bytes += RECORD_BYTES + shown_bytes(&change.what);
            if changes.len() == limit || (bytes > PAGE_BYTES_MAX && !changes.is_empty()) {
                let seen =
                    changes.last().map_or(after, |last: &quorate_types::kv::Change| last.revision);
                return Ok(Changes { changes, seen });
            }
            changes.push(change);
        }
        Ok(Changes { changes, seen: after.max(as_of) })
    }

    /// The newest change; two views with the same one have nothing new for a watcher.
    pub fn kv_newest(&self) -> Option<Revision> {
        self.shard.kv.window.newest()
    }

    /// Leases from this one on, with their times to live, milliseconds.
    pub fn kv_leases_from(&self, first: LeaseId) -> impl Iterator<Item = (LeaseId, u64)> {
        self.shard.kv.leases.range(first..).map(|(id, lease)| (*id, lease.ttl_ms))
    }

    /// A lease's time to live, milliseconds.
    pub fn kv_lease_ttl(&self, lease: LeaseId) -> Option<u64> {
        self.shard.kv.leases.get(&lease).map(|lease| lease.ttl_ms)
    }
}

fn shown_bytes(what: &quorate_types::kv::What) -> u64 {
    use quorate_types::kv::What;
    match what {
        What::Put(record) => weight(record),
        What::Deleted { key, .. } => u64::try_from(key.len()).unwrap_or(u64::MAX),
        What::Seat { holder, .. } => {
            let shown = holder.as_ref().map_or(0, |holder| holder.value.0.len());
            u64::try_from(shown).unwrap_or(u64::MAX)
        }
    }
}
