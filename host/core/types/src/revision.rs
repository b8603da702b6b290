//! How far a watcher has come: a position in the log of each group. Nodes bring the
//! events of one group in one order, and those of different groups as they come, so
//! that one number would not say what was seen.
//!
//! As text `group-index.ordinal`, joined by `_`, by group; opaque to users.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{BadId, GroupId, Index};

/// An event's place in its group's log: its entry, and its ordinal within the entry.
pub type Place = (Index, u32);

/// A place in each group's log, or none of it yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision(BTreeMap<GroupId, Place>);

impl Revision {
    /// Up to where this group's events were seen.
    pub fn at(&self, group: GroupId) -> Option<Place> {
        self.0.get(&group).copied()
    }

    /// This group's events were seen up to here; never back.
    pub fn advance(&mut self, group: GroupId, place: Place) {
        let seen = self.0.entry(group).or_insert(place);
        *seen = (*seen).max(place);
    }

    /// Each group that has been seen, with its place.
    pub fn places(&self) -> impl Iterator<Item = (GroupId, Place)> {
        self.0.iter().map(|(group, place)| (*group, *place))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (GroupId(group), (index, ordinal))) in self.0.iter().enumerate() {
            let joint = if at == 0 { "" } else { "_" };
            write!(f, "{joint}{group}-{index}.{ordinal}")?;
        }
        Ok(())
    }
}

impl FromStr for Revision {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let place = |part: &str| {
            let (group, place) = part.split_once('-')?;
            let (index, ordinal) = place.split_once('.')?;
            let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
            if ![group, index, ordinal].into_iter().all(number) {
                return None;
            }
            let place = (Index(index.parse().ok()?), ordinal.parse().ok()?);
            Some((GroupId(group.parse().ok()?), place))
        };
        let places: Option<Vec<_>> = text.split('_').map(place).collect();
        let revision = places.map(|places| Self(places.into_iter().collect()));
        // One text for each revision, so that texts can be compared.
        revision
            .filter(|revision| revision.to_string() == text)
            .ok_or_else(|| BadId { kind: "revision", text: text.to_owned() })
    }
}

impl Serialize for Revision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Revision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_survives_text_and_other_text_is_refused() {
        let mut revision = Revision::default();
        revision.advance(GroupId(2), (Index(u64::MAX), 7));
        revision.advance(GroupId(0), (Index(12), 0));
        revision.advance(GroupId(0), (Index(11), 9));
        assert_eq!(revision.to_string(), "0-12.0_2-18446744073709551615.7");
        let at = [0, 1, 2].map(|group| revision.at(GroupId(group)));
        assert_eq!(at, [Some((Index(12), 0)), None, Some((Index(u64::MAX), 7))]);
        let sent = crate::cbor::encode(&revision);
        assert_eq!(crate::cbor::decode::<Revision>(&sent, 64).ok().as_ref(), Some(&revision));
        assert_eq!(revision.to_string().parse(), Ok(revision));
        for other in
            ["", "7", "0-1", "0-1.0_", "1-1.0_0-1.0", "0-01.0", "0-1.0_0-2.0", "é-1.0", "0-+1.0"]
        {
            assert!(other.parse::<Revision>().is_err(), "{other}");
        }
    }
}
