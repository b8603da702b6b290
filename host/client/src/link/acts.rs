//! What can be asked over a link.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer of any other kind than the question's is a misfit, also one that is added"
)]

use std::time::Duration;

use quorate_types::door::Consistency;
use quorate_types::kv::{
    Act, Done, KvAnswer, KvFound, KvRead, KvRecord, KvRequest, LeaseId, LeaseInfo, Op, OpDone,
    RangePage, Revision, SeatAct, SeatInfo, SeatKind, SeatPage, SeatStand, Txn, Value, segment,
};
use quorate_types::limits::{COMMAND_BYTES_MAX, SUBMIT_BATCH_MAX};
use quorate_types::link::{Asked, Said};
use quorate_types::problem::Problem;
use quorate_types::view::Submitted;
use quorate_types::{Payload, Refusal, TaskSpec};

use super::Link;
use crate::error::ClientError;

fn refused(refusal: Refusal) -> ClientError {
    Problem::from(refusal).into()
}

impl Link {
    /// Acts on keys, leases and seats, each with its own outcome, done once however often the
    /// connection breaks.
    ///
    /// # Errors
    /// When there is no answer in time, or the request as a whole is refused.
    pub async fn kv(&self, namespace: &str, acts: Vec<Act>) -> Result<KvAnswer, ClientError> {
        let request = KvRequest { namespace: namespace.to_owned(), nonce: None, acts };
        request.check().map_err(refused)?;
        fits(request.acts.iter().map(act_bytes).sum())?;
        match self.ask(|ask| Asked::Kv { ask, request }).await? {
            Said::Kv(_, answer) => answer.map_err(refused),
            other => Err(self.misfit(&other)),
        }
    }

    /// One act.
    ///
    /// # Errors
    /// As [`Link::kv`], and when the act is refused.
    pub async fn act(&self, namespace: &str, act: Act) -> Result<Done, ClientError> {
        act.check().map_err(refused)?;
        let answer = self.kv(namespace, vec![act]).await?;
        match <[_; 1]>::try_from(answer) {
            Ok([outcome]) => outcome.map_err(refused),
            Err(more) => Err(self.misfit(&more)),
        }
    }

    /// One act on keys.
    ///
    /// # Errors
    /// As [`Link::act`].
    pub async fn op(&self, namespace: &str, op: Op) -> Result<OpDone, ClientError> {
        match self.act(namespace, Act::Op(op)).await? {
            Done::Op(done) => Ok(done),
            other => Err(self.misfit(&other)),
        }
    }

    /// Gives a key a value; its revision and version.
    ///
    /// # Errors
    /// As [`Link::act`].
    pub async fn put(
        &self,
        namespace: &str,
        key: &str,
        value: Value,
    ) -> Result<(Revision, u64), ClientError> {
        let op = Op::Put { key: key.to_owned(), value, lease: None, expect: None };
        match self.op(namespace, op).await? {
            OpDone::Put { revision, version } => Ok((revision, version)),
            other => Err(self.misfit(&other)),
        }
    }

    /// A transaction: whether its conditions held, and what came of the list that was done.
    ///
    /// # Errors
    /// As [`Link::act`].
    pub async fn txn(&self, namespace: &str, txn: Txn) -> Result<(bool, Vec<OpDone>), ClientError> {
        match self.act(namespace, Act::Txn(txn)).await? {
            Done::Txn { held, results } => Ok((held, results)),
            other => Err(self.misfit(&other)),
        }
    }

    async fn read(&self, read: KvRead, consistency: Consistency) -> Result<KvFound, ClientError> {
        let reads = vec![read];
        match self.ask(|ask| Asked::Read { ask, reads, consistency }).await? {
            Said::Found(_, Ok((found, _stale))) => match <[_; 1]>::try_from(found) {
                Ok([found]) => found.map_err(refused),
                Err(more) => Err(self.misfit(&more)),
            },
            Said::Found(_, Err(refusal)) => Err(refused(refusal)),
            other => Err(self.misfit(&other)),
        }
    }

    /// A key, and the revision to watch after.
    ///
    /// # Errors
    /// When there is no answer in time, or the key is none.
    pub async fn get(
        &self,
        namespace: &str,
        key: &str,
        consistency: Consistency,
    ) -> Result<(Option<KvRecord>, Revision), ClientError> {
        let read = KvRead::Get { namespace: namespace.to_owned(), key: key.to_owned() };
        match self.read(read, consistency).await? {
            KvFound::Get(record, as_of) => Ok((record, as_of)),
            other => Err(self.misfit(&other)),
        }
    }

    /// Keys under a prefix.
    ///
    /// # Errors
    /// As [`Link::get`].
    pub async fn range(
        &self,
        namespace: &str,
        prefix: &str,
        cursor: Option<String>,
        limit: u32,
        consistency: Consistency,
    ) -> Result<RangePage, ClientError> {
        let (namespace, prefix) = (namespace.to_owned(), prefix.to_owned());
        let read = KvRead::Range { namespace, prefix, cursor, limit };
        match self.read(read, consistency).await? {
            KvFound::Range(page) => Ok(page),
            other => Err(self.misfit(&other)),
        }
    }

    /// A lock or an election, and the revision to watch after.
    ///
    /// # Errors
    /// As [`Link::get`].
    pub async fn seat(
        &self,
        namespace: &str,
        kind: SeatKind,
        name: &str,
    ) -> Result<(SeatInfo, Revision), ClientError> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        match self.read(KvRead::Seat { namespace, kind, name }, Consistency::Linearizable).await? {
            KvFound::Seat(seat, as_of) => Ok((seat, as_of)),
            other => Err(self.misfit(&other)),
        }
    }

    /// Locks or elections of a namespace.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn seats(
        &self,
        namespace: &str,
        kind: SeatKind,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<SeatPage, ClientError> {
        let read = KvRead::Seats { namespace: namespace.to_owned(), kind, cursor, limit };
        match self.read(read, Consistency::Linearizable).await? {
            KvFound::Seats(page) => Ok(page),
            other => Err(self.misfit(&other)),
        }
    }

    /// A lease for what is under the first segment of `name`.
    ///
    /// # Errors
    /// As [`Link::act`].
    pub async fn grant(
        &self,
        namespace: &str,
        name: &str,
        ttl: Duration,
    ) -> Result<LeaseInfo, ClientError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let act = Act::Grant { segment: segment(name).to_owned(), ttl_ms };
        match self.act(namespace, act).await? {
            Done::Granted(info) => Ok(info),
            other => Err(self.misfit(&other)),
        }
    }

    /// A sign of life; the term that begins now.
    ///
    /// # Errors
    /// When there is no answer in time, or the lease has ended (`NotFound`).
    pub async fn keep(&self, lease: LeaseId) -> Result<Duration, ClientError> {
        match self.ask(|ask| Asked::Keep { ask, lease }).await? {
            Said::Kept(_, kept) => kept.map(Duration::from_millis).map_err(refused),
            other => Err(self.misfit(&other)),
        }
    }

    /// Ends a lease.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn revoke(&self, namespace: &str, lease: LeaseId) -> Result<(), ClientError> {
        self.act(namespace, Act::Revoke(lease)).await.map(|_revoked| ())
    }

    /// From now on the lease ends when the connection breaks, however it breaks.
    pub async fn bind(&self, namespace: &str, lease: LeaseId) {
        self.tell(Asked::Bind { namespace: namespace.to_owned(), lease }).await;
    }

    /// An act on a lock or an election.
    ///
    /// # Errors
    /// As [`Link::act`].
    pub async fn on_seat(
        &self,
        namespace: &str,
        kind: SeatKind,
        name: &str,
        lease: LeaseId,
        act: SeatAct,
    ) -> Result<SeatStand, ClientError> {
        let act = Act::Seat { kind, name: name.to_owned(), lease, act };
        match self.act(namespace, act).await? {
            Done::Seat(stand) => Ok(stand),
            other => Err(self.misfit(&other)),
        }
    }

    /// Submits tasks, each by itself and once; answers in their order.
    ///
    /// # Errors
    /// When there is no answer in time, or too many are given.
    pub async fn submit(
        &self,
        specs: Vec<TaskSpec>,
    ) -> Result<Vec<Result<Submitted, Box<Problem>>>, ClientError> {
        if specs.len() > SUBMIT_BATCH_MAX {
            let what = format!("{} tasks at once; the limit is {SUBMIT_BATCH_MAX}", specs.len());
            return Err(refused(Refusal::Invalid(what)));
        }
        fits(specs.iter().map(spec_bytes).sum())?;
        let specs = specs.into_iter().map(|spec| self.completed(spec)).collect();
        match self.ask(|ask| Asked::Submit { ask, specs }).await? {
            Said::Submitted(_, Ok(each)) => {
                let told = |one: Result<Submitted, Refusal>| {
                    one.map_err(|refusal| Box::new(Problem::from(refusal)))
                };
                Ok(each.into_iter().map(told).collect())
            }
            Said::Submitted(_, Err(refusal)) => Err(refused(refusal)),
            other => Err(self.misfit(&other)),
        }
    }

    fn completed(&self, mut spec: TaskSpec) -> TaskSpec {
        spec.idempotency_key.get_or_insert_with(|| self.0.client.fresh_key());
        spec
    }

    pub(super) fn misfit(&self, answer: &impl std::fmt::Debug) -> ClientError {
        let mut what = format!("{answer:?} is not what was asked for");
        what.truncate(what.floor_char_boundary(256));
        ClientError::Garbled { url: self.0.url.clone(), what }
    }
}

/// Whether a request can be sent at all; what it says of single keys and values the node checks.
fn fits(bytes: usize) -> Result<(), ClientError> {
    if bytes <= COMMAND_BYTES_MAX {
        return Ok(());
    }
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let (got, limit) = (wide(bytes), wide(COMMAND_BYTES_MAX));
    Err(refused(Refusal::TooLarge { what: "the request".to_owned(), got, limit }))
}

fn op_bytes(op: &Op) -> usize {
    match op {
        Op::Put { key, value, .. } => key.len() + value.0.len(),
        Op::Get { key } | Op::Delete { key, .. } => key.len(),
        Op::DeleteRange { prefix } => prefix.len(),
    }
}

fn act_bytes(act: &Act) -> usize {
    match act {
        Act::Op(op) => op_bytes(op),
        Act::Txn(txn) => txn.then.iter().chain(&txn.otherwise).map(op_bytes).sum(),
        Act::Grant { .. } | Act::Revoke(_) | Act::Seat { .. } => 0,
    }
}

fn spec_bytes(spec: &TaskSpec) -> usize {
    match &spec.input {
        Payload::Inline(bytes) => bytes.len(),
        Payload::Blob { .. } => 0,
    }
}
