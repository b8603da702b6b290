//! Answers that are kept so that a request which comes again is answered again and
//! not done again (Raft thesis, section 6.3). A client numbers its requests, and says
//! with each below which number it waits for nothing: those answers go. A client that
//! was silent for [`SILENT_MAX`] is forgotten, and of too many the one that was silent
//! longest; its repeats would be done anew.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use quorate_types::kv::{ClientId, Done, KvAnswer, Nonce, OpDone, SeatStand};
use quorate_types::{Refusal, Time};

use super::{Kv, weight};
use crate::set_hash::{Canon, Canonical, Mark};

/// Twice the longest deadline of a door, within which repeats come.
pub(super) const SILENT_MAX: Duration = Duration::from_secs(600);
/// Clients forgotten by one entry; more wait for the next.
const FORGOTTEN_MAX: usize = 16;
/// What an answer may hold, bytes: below what one node sends another.
pub(super) const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// What an answer counts beside the values in it, bytes.
const ANSWER_BYTES: u64 = 96;

pub(super) fn too_much() -> Refusal {
    Refusal::TooLarge {
        what: "the answer to this request so far".to_owned(),
        got: ANSWER_BYTES_MAX + 1,
        limit: ANSWER_BYTES_MAX,
    }
}

/// An answer that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answered {
    pub(crate) nonce: Nonce,
    pub(crate) at: Time,
    pub(crate) answer: KvAnswer,
}

impl Answered {
    fn bytes(&self) -> u64 {
        let one = |outcome: &Result<Done, Refusal>| match outcome {
            Ok(Done::Op(done)) => op_bytes(done),
            Ok(Done::Txn { results, .. }) => results.iter().map(op_bytes).sum(),
            Ok(Done::Granted(_) | Done::Revoked | Done::Seat(_)) | Err(_) => ANSWER_BYTES,
        };
        self.answer.iter().map(one).sum::<u64>() + ANSWER_BYTES
    }

    fn mark(&self) -> Mark {
        Mark::of("kv-answer", self)
    }
}

fn op_bytes(done: &OpDone) -> u64 {
    match done {
        OpDone::Got(record) => ANSWER_BYTES + record.as_ref().map_or(0, weight),
        OpDone::Put { .. } | OpDone::Deleted { .. } => ANSWER_BYTES,
    }
}

/// The answers to one client. What else is known of it follows from them: the newest is always
/// there, and it was the last to say what is waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Client {
    answers: OrdMap<u64, Arc<(Answered, Mark)>>,
    below: u64,
    used: Time,
}

impl Client {
    pub(crate) fn answers(&self) -> impl Iterator<Item = &Answered> {
        self.answers.values().map(|kept| &kept.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.answers.len()
    }

    /// The marks of its answers, from scratch.
    pub(super) fn marks(&self) -> impl Iterator<Item = Mark> {
        self.answers.values().map(|kept| kept.0.mark())
    }
}

/// Clients are ordered by seconds, so that a busy one moves rarely.
fn second(at: Time) -> u64 {
    at.0 / 1_000_000
}

impl Kv {
    /// The answer to a request that was answered before, or may not be done any more.
    pub(super) fn answered(&self, nonce: &Nonce, acts: usize) -> Option<KvAnswer> {
        let client = self.clients.get(&nonce.client)?;
        if let Some(kept) = client.answers.get(&nonce.seq) {
            return Some(kept.0.answer.clone());
        }
        let refusal = if nonce.seq < client.below {
            Refusal::Conflict(format!(
                "request {} comes again, and its client waits for none below {}",
                nonce.seq, client.below
            ))
        } else if client.answers.len() >= self.bounds.answers_max {
            super::full("the table of this client's answers", self.bounds.answers_max)
        } else {
            return None;
        };
        Some(vec![Err(refusal); acts])
    }

    pub(super) fn remember(&mut self, now: Time, nonce: &Nonce, answer: &KvAnswer) {
        self.keep(Answered { nonce: *nonce, at: now, answer: answer.clone() });
        while self.clients.len() > self.bounds.clients_max
            || self.totals.answer_bytes > self.bounds.answer_bytes_max
        {
            let silent = self.idle.iter().map(|(_second, id)| *id).find(|id| *id != nonce.client);
            let Some(silent) = silent else { return };
            self.forget_client(silent);
        }
    }

    /// Puts an answer where it belongs, whether it is new or from a snapshot.
    pub(super) fn keep(&mut self, answered: Answered) {
        let Nonce { client: id, seq, below } = answered.nonce;
        let (mark, bytes) = (answered.mark(), answered.bytes());
        self.sum.add(mark);
        self.totals.answer_bytes += bytes;
        let client = self.clients.entry(id).or_default();
        let before = (!client.answers.is_empty()).then(|| second(client.used));
        client.below = client.below.max(below);
        client.used = client.used.max(answered.at);
        let used = second(client.used);
        let mut gone = Vec::new();
        let stale = client.answers.insert(seq, Arc::new((answered, mark)));
        gone.extend(stale);
        while let Some((oldest, _kept)) = client.answers.get_min() {
            let oldest = *oldest;
            if oldest >= client.below {
                break;
            }
            gone.extend(client.answers.remove(&oldest));
        }
        for kept in gone {
            self.sum.remove(kept.1);
            self.totals.answer_bytes -= kept.0.bytes();
        }
        if before != Some(used) {
            if let Some(before) = before {
                self.idle.remove(&(before, id));
            }
            self.idle.insert((used, id));
        }
    }

    /// Forgets some of those that were silent for too long.
    pub(super) fn forget_silent(&mut self, now: Time) {
        for _bounded in 0..FORGOTTEN_MAX {
            let Some((used, id)) = self.idle.get_min().copied() else { return };
            if second(now).saturating_sub(used) <= SILENT_MAX.as_secs() {
                return;
            }
            self.forget_client(id);
        }
    }

    fn forget_client(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(&id) else { return };
        self.idle.remove(&(second(client.used), id));
        for kept in client.answers.values() {
            self.sum.remove(kept.1);
            self.totals.answer_bytes -= kept.0.bytes();
        }
    }
}

impl Canonical for Answered {
    fn write(&self, canon: &mut Canon) {
        let Self { nonce: Nonce { client, seq, below }, at, answer } = self;
        (client.0, *seq, *below).write(canon);
        at.write(canon);
        answer.iter().for_each(|outcome| write_outcome(outcome, canon));
    }
}

fn write_outcome(outcome: &Result<Done, Refusal>, canon: &mut Canon) {
    match outcome {
        Ok(Done::Op(done)) => {
            0_u8.write(canon);
            write_op(done, canon);
        }
        Ok(Done::Txn { held, results }) => {
            (1_u8, *held).write(canon);
            results.iter().for_each(|done| write_op(done, canon));
        }
        Ok(Done::Granted(info)) => (2_u8, info.lease).write(canon),
        Ok(Done::Revoked) => 3_u8.write(canon),
        Ok(Done::Seat(SeatStand::Holds { token, revision })) => {
            (4_u8, *token, *revision).write(canon);
        }
        Ok(Done::Seat(SeatStand::Waits { before })) => (5_u8, *before).write(canon),
        Ok(Done::Seat(SeatStand::Gone)) => 6_u8.write(canon),
        Err(refusal) => {
            7_u8.write(canon);
            refusal.to_string().write(canon);
        }
    }
}

fn write_op(done: &OpDone, canon: &mut Canon) {
    match done {
        OpDone::Got(record) => {
            0_u8.write(canon);
            record.write(canon);
        }
        OpDone::Put { revision, version } => (1_u8, *revision, *version).write(canon),
        OpDone::Deleted { count, revision } => {
            (2_u8, *count).write(canon);
            revision.write(canon);
        }
    }
}
