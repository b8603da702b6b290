//! Calls: each attempt runs at most once, and one whose owner did not call it
//! idempotent runs at most once altogether. A body names its call and says which.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::law::{Law, Verdict};

/// A body that begins so is not to run twice.
pub(crate) const ONCE: &str = "once-";
/// A body that begins so may run again in another attempt.
pub(crate) const AGAIN: &str = "again-";

#[derive(Default)]
pub(crate) struct Calls {
    /// The attempts that ran, by body.
    ran: BTreeMap<Bytes, Vec<u32>>,
}

impl Calls {
    /// An agent begins this attempt of a call.
    pub(crate) fn ran(&mut self, body: &Bytes, attempt: u32) -> Verdict {
        let ran = self.ran.entry(body.clone()).or_default();
        let before = ran.clone();
        ran.push(attempt);
        let name = String::from_utf8_lossy(body);
        if before.contains(&attempt) {
            return Law::Call.broken(format!("attempt {attempt} of call {name} ran twice"));
        }
        if body.starts_with(ONCE.as_bytes()) && !before.is_empty() {
            let what =
                format!("call {name} may run once and ran as attempts {before:?}, {attempt}");
            return Law::Call.broken(what);
        }
        Ok(())
    }

    /// What a caller has heard, against what there was to say.
    pub(crate) fn answered(&self, body: &Bytes, reply: &Bytes, right: &Bytes) -> Verdict {
        let name = String::from_utf8_lossy(body);
        if reply != right {
            let (got, of) = (reply.len(), right.len());
            return Law::Call.broken(format!("call {name} has a wrong reply: {got} bytes of {of}"));
        }
        if !self.ran.contains_key(body) {
            return Law::Call.broken(format!("call {name} was answered and never ran"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_runs_too_often_is_seen() {
        let law = |verdict: Verdict| verdict.err().map(|breach| breach.law);
        let mut judge = Calls::default();
        let (once, again) = (Bytes::from_static(b"once-1"), Bytes::from_static(b"again-2"));
        assert_eq!(law(judge.answered(&once, &again, &again)), Some(Law::Call), "nobody ran it");
        assert_eq!(judge.ran(&once, 2), Ok(()));
        assert_eq!(law(judge.ran(&once, 3)), Some(Law::Call));
        assert_eq!((judge.ran(&again, 1), judge.ran(&again, 2)), (Ok(()), Ok(())));
        assert_eq!(law(judge.ran(&again, 2)), Some(Law::Call));
        assert_eq!(judge.answered(&once, &again, &again), Ok(()));
        assert_eq!(law(judge.answered(&once, &again, &once)), Some(Law::Call));
    }
}
