//! Which life of a cluster: a cluster that is begun anew, from a backup or from what
//! is left of it, is another one under the same name. What nodes of one era promised
//! binds none of another, so they never take part in one log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::BadId;

/// An era. Shown and parsed as its number, and its mark behind a colon: `0`, `1:3f…`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Era {
    /// 0 from the founding on; one more each time the cluster is begun anew.
    pub number: u32,
    /// Drawn at that time, so that two beginnings from one state are two eras. 0 in the first.
    pub mark: u128,
}

impl Era {
    /// From the founding on.
    pub const FIRST: Self = Self { number: 0, mark: 0 };

    /// The one that begins here, with this mark.
    pub const fn next(self, mark: u128) -> Self {
        Self { number: self.number.saturating_add(1), mark }
    }
}

impl fmt::Display for Era {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { number, mark: 0 } => write!(f, "{number}"),
            Self { number, mark } => write!(f, "{number}:{mark:032x}"),
        }
    }
}

impl FromStr for Era {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { kind: "Era", text: text.to_owned() };
        let (number, mark) = match text.split_once(':') {
            None => (text, 0),
            Some((number, mark)) => {
                let whole = mark.len() == 32 && !mark.starts_with('+');
                let mark = whole.then(|| u128::from_str_radix(mark, 16).ok()).flatten();
                (number, mark.filter(|mark| *mark > 0).ok_or_else(bad)?)
            }
        };
        Ok(Self { number: number.parse().map_err(|_source| bad())?, mark })
    }
}

impl Serialize for Era {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Era {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_era_survives_text_and_follows_the_one_before() {
        let second = Era::FIRST.next(0xab);
        for era in [Era::FIRST, second, second.next(u128::MAX)] {
            assert_eq!(era.to_string().parse::<Era>().ok(), Some(era));
        }
        assert!(second > Era::FIRST && second.next(1) > second);
        assert_eq!(Era::FIRST.to_string(), "0");
        let unmarked = format!("1:{:032x}", 0);
        let plus = "1:+0000000000000000000000000000001";
        for other in ["", "x", "1:", "1:ab", plus, "-1", &unmarked] {
            assert!(other.parse::<Era>().is_err(), "{other}");
        }
        let sent = crate::cbor::encode(&second);
        assert_eq!(crate::cbor::decode::<Era>(&sent, 64).ok(), Some(second));
    }
}
