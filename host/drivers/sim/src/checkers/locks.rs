//! Locks and elections: a token is one holder's, tokens grow with each, what stands
//! behind a token is never written under an older one again, and a lease lives on
//! for its time after each sign of life that was acknowledged.
//!
//! Nobody sees when a lease ends; so the judge waits until somebody says that it has,
//! or that another holds its seat.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_types::Token;
use quorate_types::kv::{LeaseId, Revision};

use crate::law::{Law, Verdict};

/// Of a lease's time so much may be missing: how far a leader's clock can be off its rate, one part
/// in so many,
const SLACK_PART: u32 = 32;
/// and its rounding.
const SLACK: Duration = Duration::from_millis(20);

/// Who came to a seat, and where in the history.
struct Tenure {
    lease: LeaseId,
    since: Revision,
}

#[derive(Default)]
struct Seat {
    holders: BTreeMap<Token, Tenure>,
    /// What was written under which token.
    written: BTreeMap<Revision, Token>,
}

#[derive(Default)]
pub(crate) struct Locks {
    seats: BTreeMap<String, Seat>,
    /// Until when each lease lives at least.
    kept: BTreeMap<LeaseId, Duration>,
    /// Leases whose holders may have given them up.
    left: BTreeSet<LeaseId>,
}

impl Locks {
    /// A sign of life was sent at `begin` and acknowledged for so long.
    pub(crate) fn kept(&mut self, lease: LeaseId, begin: Duration, ttl: Duration) {
        let until = (begin + ttl).saturating_sub(ttl / SLACK_PART + SLACK);
        let kept = self.kept.entry(lease).or_default();
        *kept = until.max(*kept);
    }

    /// Its holder gives a lease or its seat up, and may not hear whether it has.
    pub(crate) fn leaves(&mut self, lease: LeaseId) {
        self.left.insert(lease);
    }

    /// A door says at `now` that a lease has ended.
    pub(crate) fn ended(&self, lease: LeaseId, now: Duration) -> Verdict {
        let lives = self.kept.get(&lease).is_some_and(|until| *until > now);
        if !lives || self.left.contains(&lease) {
            return Ok(());
        }
        Law::Lock.broken(format!("lease {lease} has ended before its time"))
    }

    /// A door says at `now` that this lease holds the seat.
    pub(crate) fn holds(
        &mut self,
        seat: &str,
        (lease, token, since): (LeaseId, Token, Revision),
        now: Duration,
    ) -> Verdict {
        let holders = &mut self.seats.entry(seat.to_owned()).or_default().holders;
        let first = holders.entry(token).or_insert(Tenure { lease, since });
        if (first.lease, first.since) != (lease, since) {
            let other = first.lease;
            return Law::Lock
                .broken(format!("{seat} is held by {other} and {lease} under token {token}"));
        }
        let before = holders.range(..token).next_back();
        let after = holders.range(Token(token.0 + 1)..).next();
        let goes_back = before.is_some_and(|(_, tenure)| tenure.since >= since)
            || after.is_some_and(|(_, tenure)| tenure.since <= since);
        if goes_back {
            return Law::Lock.broken(format!("tokens of {seat} do not grow with time at {token}"));
        }
        let earlier: Vec<LeaseId> =
            holders.range(..token).map(|(_, tenure)| tenure.lease).collect();
        earlier.into_iter().filter(|other| *other != lease).try_for_each(|other| {
            self.ended(other, now).map_err(|breach| {
                let what = format!("{}: {lease} holds {seat} after it", breach.what);
                crate::law::Breach { what, ..breach }
            })
        })
    }

    /// What the seat guards was written under this token.
    pub(crate) fn written(&mut self, seat: &str, token: Token, at: Revision) -> Verdict {
        let written = &mut self.seats.entry(seat.to_owned()).or_default().written;
        let before = written.range(..at).next_back().is_some_and(|(_, other)| *other > token);
        let after = written.range(at..).next().is_some_and(|(_, other)| *other < token);
        written.insert(at, token);
        if before || after {
            let what = format!("what {seat} guards was written under {token} at {at}, out of turn");
            return Law::Lock.broken(what);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::Index;

    use super::*;

    const A: LeaseId = LeaseId(1);
    const B: LeaseId = LeaseId(2);

    fn at(index: u64) -> Revision {
        Revision { index: Index(index), ordinal: 0 }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn law(verdict: Verdict) -> Option<Law> {
        verdict.err().map(|breach| breach.law)
    }

    #[test]
    fn two_holders_of_one_token_and_tokens_that_go_back_are_seen() {
        let mut judge = Locks::default();
        assert_eq!(judge.holds("s", (A, Token(2), at(5)), secs(1)), Ok(()));
        assert_eq!(judge.holds("s", (A, Token(2), at(5)), secs(2)), Ok(()), "as it was told");
        assert_eq!(law(judge.holds("s", (B, Token(2), at(5)), secs(2))), Some(Law::Lock));
        assert_eq!(law(judge.holds("s", (B, Token(3), at(4)), secs(2))), Some(Law::Lock));
        assert_eq!(law(judge.holds("s", (B, Token(1), at(6)), secs(2))), Some(Law::Lock));
        assert_eq!(judge.holds("t", (B, Token(1), at(6)), secs(2)), Ok(()), "another seat");
    }

    #[test]
    fn a_lease_that_ends_before_its_time_is_seen() {
        let mut judge = Locks::default();
        judge.kept(A, secs(10), secs(3));
        assert_eq!(judge.holds("s", (A, Token(1), at(1)), secs(10)), Ok(()));
        assert_eq!(law(judge.ended(A, secs(12))), Some(Law::Lock));
        assert_eq!(law(judge.holds("s", (B, Token(2), at(2)), secs(12))), Some(Law::Lock));
        assert_eq!(judge.ended(A, secs(13)), Ok(()));
        assert_eq!(judge.holds("s", (B, Token(2), at(2)), secs(13)), Ok(()));
        judge.leaves(A);
        assert_eq!(judge.ended(A, secs(11)), Ok(()), "its holder may have ended it");
    }

    #[test]
    fn a_write_under_an_older_token_after_a_newer_one_is_seen() {
        let mut judge = Locks::default();
        assert_eq!(judge.written("s", Token(1), at(1)), Ok(()));
        assert_eq!(judge.written("s", Token(2), at(3)), Ok(()));
        assert_eq!(judge.written("s", Token(1), at(2)), Ok(()), "told late");
        assert_eq!(law(judge.written("s", Token(1), at(4))), Some(Law::Lock));
    }
}
