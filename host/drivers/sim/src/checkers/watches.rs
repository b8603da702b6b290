//! Watches: each change comes once, in order, and the same to everybody; whatever a
//! door acknowledged comes to all who watch it, at whatever nodes they went on.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::kv::{Changes, Revision, What};

use crate::law::{Law, Verdict};

/// One watch, over all the nodes that it went on at.
struct Watcher {
    subject: String,
    /// What came after this it is to be shown.
    from: Revision,
    seen: Revision,
    shown: BTreeSet<Revision>,
}

#[derive(Default)]
pub(crate) struct Watches {
    watchers: BTreeMap<u64, Watcher>,
    /// What each change was, as it was shown first.
    told: BTreeMap<(String, Revision), String>,
    /// Changes that doors acknowledged, by their subject.
    acknowledged: BTreeMap<String, BTreeSet<Revision>>,
}

impl Watches {
    /// A watch begins after this revision.
    pub(crate) fn begins(&mut self, watcher: u64, subject: &str, from: Revision) {
        let (subject, shown) = (subject.to_owned(), BTreeSet::new());
        self.watchers.insert(watcher, Watcher { subject, from, seen: from, shown });
    }

    /// A door says that the subject changed so.
    pub(crate) fn acknowledged(&mut self, subject: &str, at: Revision) {
        self.acknowledged.entry(subject.to_owned()).or_default().insert(at);
    }

    /// A watch is shown some changes.
    pub(crate) fn shown(&mut self, watcher: u64, changes: &Changes) -> Verdict {
        let Some(watcher) = self.watchers.get_mut(&watcher) else { return Ok(()) };
        for change in &changes.changes {
            let (at, subject) = (change.revision, &watcher.subject);
            if at <= watcher.seen || at > changes.seen {
                let what = format!("a watch of {subject} was shown {at} after {}", watcher.seen);
                return Law::Watch.broken(what);
            }
            watcher.seen = at;
            watcher.shown.insert(at);
            let text = text_of(&change.what);
            let first = self.told.entry((subject.clone(), at)).or_insert_with(|| text.clone());
            if *first != text {
                let what = format!("change {at} of {subject} is {first} and {text}");
                return Law::Watch.broken(what);
            }
        }
        if changes.seen < watcher.seen {
            let what = format!("a watch of {} goes back to {}", watcher.subject, changes.seen);
            return Law::Watch.broken(what);
        }
        watcher.seen = changes.seen;
        Ok(())
    }

    /// The last word, once all were given the time to catch up.
    pub(crate) fn end(&self) -> Verdict {
        for Watcher { subject, from, seen, shown } in self.watchers.values() {
            let due = self.acknowledged.get(subject).into_iter().flatten();
            let all = self.told.range((subject.clone(), *from)..);
            let all = all.take_while(|((of, _), _)| of == subject).map(|((_, at), _)| at);
            for at in due.chain(all).filter(|at| *at > from) {
                if !shown.contains(at) {
                    let where_it_is = if at <= seen { "passed over" } else { "not come to" };
                    return Law::Watch
                        .broken(format!("a watch of {subject} has {where_it_is} change {at}"));
                }
            }
        }
        Ok(())
    }
}

fn text_of(what: &What) -> String {
    match what {
        What::Put(record) => format!("{}={:?}", record.key, record.value.0),
        What::Deleted { key, expired } => format!("{key} gone, {expired}"),
        What::Seat { name, holder, .. } => {
            let holder = holder.as_ref().map(|holder| (holder.lease, holder.token));
            format!("{name} held by {holder:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::Index;
    use quorate_types::kv::Change;

    use super::*;

    fn at(index: u64) -> Revision {
        Revision { index: Index(index), ordinal: 0 }
    }

    fn changes(keys: &[(u64, &str)], seen: u64) -> Changes {
        let one = |(index, key): &(u64, &str)| {
            let what = What::Deleted { key: (*key).into(), expired: false };
            Change { revision: at(*index), what }
        };
        Changes { changes: keys.iter().map(one).collect(), seen: at(seen) }
    }

    fn law(verdict: Verdict) -> Option<Law> {
        verdict.err().map(|breach| breach.law)
    }

    #[test]
    fn what_comes_twice_or_out_of_order_or_differs_is_seen() {
        let mut judge = Watches::default();
        judge.begins(1, "s", at(0));
        assert_eq!(judge.shown(1, &changes(&[(1, "a"), (3, "b")], 4)), Ok(()));
        assert_eq!(law(judge.shown(1, &changes(&[(3, "b")], 5))), Some(Law::Watch));
        judge.begins(2, "s", at(2));
        assert_eq!(law(judge.shown(2, &changes(&[(3, "c")], 3))), Some(Law::Watch));
        judge.begins(3, "s", at(9));
        assert_eq!(law(judge.shown(3, &changes(&[], 8))), Some(Law::Watch));
    }

    #[test]
    fn what_was_acknowledged_or_shown_to_another_and_passed_over_is_seen() {
        let mut judge = Watches::default();
        judge.begins(1, "s", at(0));
        judge.begins(2, "s", at(2));
        judge.acknowledged("s", at(2));
        assert_eq!(law(judge.end()), Some(Law::Watch), "not shown yet");
        assert_eq!(judge.shown(1, &changes(&[(2, "a")], 4)), Ok(()));
        assert_eq!(judge.end(), Ok(()));
        assert_eq!(judge.shown(1, &changes(&[(5, "b")], 6)), Ok(()));
        assert_eq!(law(judge.end()), Some(Law::Watch), "the other was not shown it");
    }
}
