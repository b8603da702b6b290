//! The last changes, for watchers: state like the keys themselves, so that every
//! node has the same ones.

use std::sync::Arc;

use imbl::OrdMap;

use quorate_types::kv::{Change, Holder, Revision, SeatKind, Subject, What};

use super::{Kept, Kv, weight};
use crate::set_hash::{Canon, Canonical, Mark};

/// What a change counts beside its value, bytes.
const CHANGE_BYTES: u64 = 64;

/// What changed, as it is kept: a value that is still there is not kept twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Put(Arc<Kept>),
    Deleted { key: Arc<str>, expired: bool },
    Seat { kind: SeatKind, name: Arc<str>, holder: Option<Holder> },
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) namespace: Arc<str>,
    pub(crate) told: Told,
    mark: Mark,
}

/// The changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) changes: OrdMap<Revision, Arc<Noted>>,
    bytes: u64,
}

impl Told {
    fn bytes(&self) -> u64 {
        let long = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        CHANGE_BYTES
            + match self {
                Self::Put(kept) => weight(&kept.record),
                Self::Deleted { key, .. } => long(key.len()),
                Self::Seat { name, holder, .. } => {
                    let shown = holder.as_ref().map_or(0, |holder| holder.value.0.len());
                    long(name.len() + shown)
                }
            }
    }

    fn is_about(&self, subject: &Subject) -> bool {
        match (self, subject) {
            (Self::Put(kept), Subject::Key(wanted)) => *kept.record.key == **wanted,
            (Self::Put(kept), Subject::Prefix(prefix)) => kept.record.key.starts_with(&**prefix),
            (Self::Deleted { key, .. }, Subject::Key(wanted)) => **key == **wanted,
            (Self::Deleted { key, .. }, Subject::Prefix(prefix)) => key.starts_with(&**prefix),
            (Self::Seat { kind, name, .. }, Subject::Seat(of, named)) => {
                kind == of && **name == **named
            }
            (Self::Seat { .. }, Subject::Key(_) | Subject::Prefix(_))
            | (Self::Put(_) | Self::Deleted { .. }, Subject::Seat(..)) => false,
        }
    }

    /// As watchers are told.
    pub(crate) fn shown(&self) -> What {
        match self {
            Self::Put(kept) => What::Put(kept.record.clone()),
            Self::Deleted { key, expired } => {
                What::Deleted { key: Arc::clone(key), expired: *expired }
            }
            Self::Seat { kind, name, holder } => {
                What::Seat { kind: *kind, name: Arc::clone(name), holder: holder.clone() }
            }
        }
    }
}

impl Canonical for Told {
    fn write(&self, canon: &mut Canon) {
        match self {
            Self::Put(kept) => {
                0_u8.write(canon);
                kept.mark.write(canon);
            }
            Self::Deleted { key, expired } => {
                (1_u8, *expired).write(canon);
                key.write(canon);
            }
            Self::Seat { kind, name, holder } => {
                (2_u8, *kind).write(canon);
                name.write(canon);
                holder.write(canon);
            }
        }
    }
}

/// A change with all that its hash covers.
struct Of<'a>(Revision, &'a Arc<str>, &'a Told);

impl Canonical for Of<'_> {
    fn write(&self, canon: &mut Canon) {
        self.0.write(canon);
        self.1.write(canon);
        self.2.write(canon);
    }
}

impl Window {
    /// The newest change.
    pub(crate) fn newest(&self) -> Option<Revision> {
        self.changes.get_max().map(|(revision, _noted)| *revision)
    }

    /// The marks of the changes, from scratch.
    pub(super) fn marks(&self) -> impl Iterator<Item = Mark> {
        let of = |(revision, noted): (&Revision, &Arc<Noted>)| {
            Mark::of("kv-change", &Of(*revision, &noted.namespace, &noted.told))
        };
        self.changes.iter().map(of)
    }

    /// Some changes to a subject after a revision, oldest first.
    pub(crate) fn after<'a>(
        &'a self,
        namespace: &'a str,
        subject: &'a Subject,
        after: Revision,
    ) -> impl Iterator<Item = Change> + 'a {
        let later = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        self.changes
            .range(later)
            .filter(move |(_revision, noted)| {
                &*noted.namespace == namespace && noted.told.is_about(subject)
            })
            .map(|(revision, noted)| Change { revision: *revision, what: noted.told.shown() })
    }
}

impl Kv {
    /// Keeps no change any more: whoever watches from before this revision lists again.
    pub(super) fn forget_changes(&mut self, upto: Revision) {
        for noted in std::mem::take(&mut self.window).changes.values() {
            self.sum.remove(noted.mark);
        }
        self.counters.forgotten = upto;
    }

    /// Notes a change, and forgets the oldest beyond the bounds.
    pub(super) fn tell(&mut self, namespace: &Arc<str>, revision: Revision, told: Told) {
        let mark = Mark::of("kv-change", &Of(revision, namespace, &told));
        self.sum.add(mark);
        self.window.bytes += told.bytes();
        let noted = Noted { namespace: Arc::clone(namespace), told, mark };
        let twice = self.window.changes.insert(revision, Arc::new(noted));
        assert!(twice.is_none(), "revision {revision} is given once");
        while self.window.changes.len() > self.bounds.window_max
            || self.window.bytes > self.bounds.window_bytes_max
        {
            let oldest = self.window.changes.get_min().map(|(revision, _noted)| *revision);
            let Some(oldest) = oldest else { return };
            if let Some(noted) = self.window.changes.remove(&oldest) {
                self.sum.remove(noted.mark);
                self.window.bytes -= noted.told.bytes();
                self.counters.forgotten = oldest;
            }
        }
    }
}
