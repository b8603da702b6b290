//! Clients of the store: each numbers its requests, asks again under the same number
//! where it was not answered, and gives some up, whose outcome is then unknown.
//!
//! They meet on a few keys under a few first segments, and go on to others after a
//! while, so that no history grows long.

mod words;

use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use quorate_types::door::Consistency;
use quorate_types::kv::{
    self, ClientId, Done, KvFound, KvRead, KvRecord, KvRequest, Nonce, OpDone,
};
use quorate_types::rng::Rng;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{Refusal, Reply, Request};

use self::words::{NAMES, path, prefix, wire_of};
use super::{Front, WITHIN_MS, number_in};
use crate::checkers::keys::{Act, Answer, Ask, Cell, Cells, Is, KEYS, Seen, Told};
use crate::law::Law;
use crate::linear::Operation;
use crate::runtime::{SimRuntime, elapsed};

/// Segments in use at a time.
const SEGMENTS: u64 = 2;
/// And for so long.
const EPOCH_S: u64 = 12;
/// A request is sent so often before its client gives up.
const TRIES: usize = 3;
/// At the end it is sent until it is answered, so often.
const TRIES_AT_END: usize = 8;

/// A client under way.
struct Client {
    front: Front,
    rng: Rng,
    id: ClientId,
    seq: u64,
    /// Values that it gave; each is another.
    given: u64,
    number: u64,
}

/// What came of a request, act by act.
enum End {
    /// Each by itself: one whose share of the request was not answered has no answer.
    Answered(Vec<Option<(Answer, Vec<Held>)>>),
    /// Nobody knows whether it was done.
    Unknown,
    /// It was not taken.
    Untouched,
}

/// What a key had from a revision on.
type Held = (usize, kv::Revision, u64);

/// One client, until the run's requests are over.
pub(super) async fn client(front: Front, mut rng: Rng, number: u64, pause: Duration) {
    let id = ClientId((u128::from(rng.next_u64()) << 64) | u128::from(number));
    let mut client = Client { front, rng, id, seq: 0, given: 0, number };
    let pause_us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
    loop {
        SimRuntime::sleep(Duration::from_micros(1 + client.rng.below(2 * pause_us))).await;
        if client.front.is_over() {
            return;
        }
        if client.rng.chance(250_000) { client.read().await } else { client.ask().await }
    }
}

/// Once all is healed: each segment as it is now.
pub(crate) async fn read_all(front: &Front, rng: &mut Rng) {
    for segment in front.world().know(|judges| judges.keys.segments()) {
        let begin = moment();
        for _ in 0..TRIES_AT_END {
            if let Some(cells) = range(front, rng, &segment).await {
                let act =
                    Seen { acts: vec![Act::Range], answers: Some(vec![Answer::Range(cells)]) };
                let operation = Operation { begin, end: Some(moment()), act };
                front.world().ask(|judges| {
                    judges.keys.done(&segment, operation);
                    Ok(())
                });
                break;
            }
        }
    }
    let (verdict, unjudged) = front.world().know(|judges| judges.keys.end());
    front.world().judge(verdict);
    front.world().count(|tally| tally.unjudged += unjudged);
}

/// By the clock that all callers share, nanoseconds.
fn moment() -> u64 {
    u64::try_from(elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A linearizable look at all keys of a segment.
async fn range(front: &Front, rng: &mut Rng, segment: &str) -> Option<Cells> {
    let (namespace, prefix) = (NAMESPACE_DEFAULT.to_owned(), prefix(segment));
    let read = KvRead::Range { namespace, prefix, cursor: None, limit: 100 };
    let found = found(front, rng, read).await?;
    let KvFound::Range(page) = &found else { return misfit(front, &found) };
    let mut cells = [None; KEYS];
    for record in &page.keys {
        let (key, cell) = cell_of(front, segment, record)?;
        cells[key] = cell;
    }
    Some(cells)
}

async fn found(front: &Front, rng: &mut Rng, read: KvRead) -> Option<KvFound> {
    let entrance = front.any(rng)?;
    let request = Request::KvRead(vec![read], Consistency::Linearizable);
    match front.ask(&entrance, "kv read", request, WITHIN_MS).await? {
        Ok(Reply::KvFound(mut each, false)) if each.len() == 1 => each.pop()?.ok(),
        Ok(other) => misfit(front, &other),
        Err(refusal) => {
            expect_passing(front, &refusal);
            None
        }
    }
}

/// A record's key and what it holds; noted for the judge of revisions.
fn cell_of(front: &Front, segment: &str, record: &KvRecord) -> Option<(usize, Cell)> {
    let key = NAMES.iter().position(|name| *record.key == format!("{segment}/{name}"));
    let (Some(key), Some(value)) = (key, number_in(record)) else { return misfit(front, record) };
    front.world().ask(|judges| judges.keys.held(segment, key, record.modified, value));
    Some((key, Some((value, record.version))))
}

fn misfit<T>(front: &Front, got: &impl std::fmt::Debug) -> Option<T> {
    front.world().complain(Law::Linearizable, format!("a question was answered by {got:?}"));
    None
}

/// Nothing is wrong with a request of ours; whatever refuses it must pass.
fn expect_passing(front: &Front, refusal: &Refusal) {
    match refusal {
        Refusal::Unavailable(_) | Refusal::Timeout(_) | Refusal::Busy { .. } => {}
        Refusal::Invalid(_)
        | Refusal::NotFound(_)
        | Refusal::Conflict(_)
        | Refusal::Agent(_)
        | Refusal::TooLarge { .. }
        | Refusal::Compacted(_)
        | Refusal::Across(_) => {
            front.world().complain(Law::Linearizable, format!("a sound request: {refusal}"));
        }
    }
}

impl Client {
    fn segment(&mut self) -> String {
        format!("k{}-{}", elapsed().as_secs() / EPOCH_S, self.rng.below(SEGMENTS))
    }

    fn key(&mut self) -> usize {
        usize::try_from(self.rng.below(3)).unwrap_or(0)
    }

    async fn read(&mut self) {
        let (segment, begin) = (self.segment(), moment());
        let (act, answer) = if self.rng.chance(500_000) {
            let cells = range(&self.front, &mut self.rng, &segment).await;
            (Act::Range, cells.map(Answer::Range))
        } else {
            let key = self.key();
            (Act::One(Ask::Get(key)), self.get(&segment, key).await)
        };
        let Some(answer) = answer else { return };
        self.front.world().count(|tally| tally.keys += 1);
        let act = Seen { acts: vec![act], answers: Some(vec![answer]) };
        self.note(&segment, Operation { begin, end: Some(moment()), act });
    }

    async fn get(&mut self, segment: &str, key: usize) -> Option<Answer> {
        let namespace = NAMESPACE_DEFAULT.to_owned();
        let read = KvRead::Get { namespace, key: path(segment, key) };
        let found = found(&self.front, &mut self.rng, read).await?;
        let KvFound::Get(record, _) = &found else { return misfit(&self.front, &found) };
        let cell = match record {
            Some(record) => cell_of(&self.front, segment, record)?.1,
            None => None,
        };
        Some(Answer::One(Told::Got(cell)))
    }

    fn note(&self, segment: &str, operation: Operation<Seen>) {
        self.front.world().ask(|judges| {
            judges.keys.done(segment, operation);
            Ok(())
        });
    }

    /// One to three acts, now and then on two segments.
    fn draw(&mut self) -> Vec<(String, Act)> {
        let segment = self.segment();
        let count = if self.rng.chance(200_000) { 2 + self.rng.below(2) } else { 1 };
        (0..count)
            .map(|_| {
                let elsewhere = self.rng.chance(200_000);
                let segment = if elsewhere { self.segment() } else { segment.clone() };
                (segment, self.draw_act())
            })
            .collect()
    }

    fn draw_act(&mut self) -> Act {
        if self.rng.chance(850_000) {
            return Act::One(self.draw_ask(300_000));
        }
        let compare = (0..1 + self.rng.below(2)).map(|_| (self.key(), self.draw_is())).collect();
        let mut asks =
            |chance| (0..1 + self.rng.below(2)).map(|_| self.draw_ask(chance)).collect::<Vec<_>>();
        let (then, otherwise) = (asks(100_000), asks(0));
        Act::Txn { compare, then, otherwise }
    }

    fn draw_ask(&mut self, expects_ppm: u32) -> Ask {
        let key = self.key();
        let is = self.rng.chance(expects_ppm).then(|| self.draw_is());
        match self.rng.below(10) {
            0 | 1 => Ask::Get(key),
            2 => Ask::Delete(key, is),
            3 if self.rng.chance(300_000) => Ask::DeleteAll,
            _put => {
                self.given += 1;
                Ask::Put(key, self.number * 1_000_000 + self.given, is)
            }
        }
    }

    fn draw_is(&mut self) -> Is {
        match self.rng.below(5) {
            0 => Is::Absent,
            1 => Is::Present,
            2 => Is::Value(self.number * 1_000_000 + self.given),
            _guess => Is::Version(self.rng.below(4)),
        }
    }

    async fn ask(&mut self) {
        let acts = self.draw();
        self.seq += 1;
        let nonce = Nonce { client: self.id, seq: self.seq, below: self.seq };
        let wire = acts.iter().map(|(segment, act)| wire_of(segment, act)).collect();
        let namespace = NAMESPACE_DEFAULT.to_owned();
        let request = KvRequest { namespace, nonce: Some(nonce), acts: wire };
        let begin = moment();
        let answers = match self.send(&request, &acts).await {
            End::Untouched => return,
            End::Unknown => acts.iter().map(|_| None).collect(),
            End::Answered(each) => each,
        };
        let end = moment();
        self.judge(&acts, answers, (begin, end));
    }

    /// What was done to each segment is one operation, if all of it was answered.
    fn judge(
        &mut self,
        acts: &[(String, Act)],
        answers: Vec<Option<(Answer, Vec<Held>)>>,
        (begin, end): (u64, u64),
    ) {
        let mut segments: Vec<&String> = acts.iter().map(|(segment, _)| segment).collect();
        segments.dedup();
        segments.sort_unstable();
        segments.dedup();
        for segment in segments {
            let (mut own, mut told) = (Vec::new(), Some(Vec::new()));
            for ((of, act), answer) in acts.iter().zip(&answers) {
                if of != segment {
                    continue;
                }
                own.push(act.clone());
                let Some((answer, held)) = answer else {
                    told = None;
                    continue;
                };
                for (key, at, value) in held {
                    self.front.world().ask(|judges| judges.keys.held(segment, *key, *at, *value));
                }
                if let Some(told) = &mut told {
                    told.push(answer.clone());
                }
            }
            let known = told.is_some();
            self.front.world().count(|tally| {
                tally.keys += u64::from(known);
                tally.keys_unknown += u64::from(!known);
            });
            let act = Seen { acts: own, answers: told };
            self.note(segment, Operation { begin, end: known.then_some(end), act });
        }
    }

    /// Sends a request until it is answered whole, or the client has had enough.
    async fn send(&mut self, request: &KvRequest, acts: &[(String, Act)]) -> End {
        let tries = 1 + usize::try_from(self.rng.below(3)).unwrap_or(0);
        let mut end = End::Unknown;
        for nth in 0..tries.min(TRIES) {
            let sent = Request::Kv(vec![request.clone()]);
            let answer = self.front.ask_any(&mut self.rng, "kv", sent).await;
            match answer {
                Some(Ok(Reply::Kv(mut each))) if each.len() == 1 => {
                    let each = each.pop().unwrap_or_default();
                    let read: Vec<_> = acts
                        .iter()
                        .zip(&each)
                        .map(|((_, act), one)| self.read_of(act, one))
                        .collect();
                    let whole = read.iter().all(Option::is_some);
                    end = End::Answered(read);
                    if whole {
                        self.repeat(request, &each).await;
                        return end;
                    }
                }
                Some(Ok(other)) => {
                    misfit::<()>(&self.front, &other);
                    return end;
                }
                // It was never sent before, so nothing of it can have been done.
                Some(Err(Refusal::Busy { .. })) if nth == 0 && self.rng.chance(500_000) => {
                    return End::Untouched;
                }
                Some(Err(refusal)) => expect_passing(&self.front, &refusal),
                None => {}
            }
            SimRuntime::sleep(Duration::from_millis(20 + self.rng.below(300))).await;
        }
        end
    }

    /// Some say it again, as one whose answer was lost, and hear the same.
    async fn repeat(&mut self, request: &KvRequest, first: &kv::KvAnswer) {
        if !self.rng.chance(100_000) {
            return;
        }
        SimRuntime::sleep(Duration::from_millis(self.rng.below(500))).await;
        let sent = Request::Kv(vec![request.clone()]);
        let Some(Ok(Reply::Kv(each))) = self.front.ask_any(&mut self.rng, "kv again", sent).await
        else {
            return;
        };
        let again = each.first().cloned().unwrap_or_default();
        let passing = |one: &Result<Done, Refusal>| {
            matches!(one, Err(Refusal::Unavailable(_) | Refusal::Timeout(_) | Refusal::Busy { .. }))
        };
        if !again.iter().any(passing) && again != *first {
            let what = format!("{request:?} was answered by {first:?} and then by {again:?}");
            self.front.world().complain(Law::Idempotency, what);
        }
    }

    /// An act's answer as the judge reads it; none where nobody knows.
    fn read_of(&self, act: &Act, told: &Result<Done, Refusal>) -> Option<(Answer, Vec<Held>)> {
        let mut held = Vec::new();
        let answer = match (act, told) {
            (Act::One(ask), Ok(Done::Op(done))) => Answer::One(self.told(*ask, done, &mut held)?),
            (Act::Txn { then, otherwise, .. }, Ok(Done::Txn { held: yes, results })) => {
                let asks = if *yes { then } else { otherwise };
                let told = asks.iter().zip(results);
                let results: Option<Vec<Told>> =
                    told.map(|(ask, done)| self.told(*ask, done, &mut held)).collect();
                Answer::Txn { held: *yes, results: results? }
            }
            (_, Err(Refusal::Conflict(_))) => Answer::Conflict,
            (_, Err(refusal)) => {
                expect_passing(&self.front, refusal);
                return None;
            }
            (_, Ok(other)) => return misfit(&self.front, other),
        };
        Some((answer, held))
    }

    fn told(&self, ask: Ask, done: &OpDone, held: &mut Vec<Held>) -> Option<Told> {
        match (ask, done) {
            (Ask::Get(_), OpDone::Got(None)) => Some(Told::Got(None)),
            (Ask::Get(key), OpDone::Got(Some(record))) => {
                let value = number_in(record)?;
                held.push((key, record.modified, value));
                Some(Told::Got(Some((value, record.version))))
            }
            (Ask::Put(key, value, _), OpDone::Put { revision, version }) => {
                held.push((key, *revision, value));
                Some(Told::Put(*version))
            }
            (Ask::Delete(..) | Ask::DeleteAll, OpDone::Deleted { count, .. }) => {
                Some(Told::Deleted(*count))
            }
            (_, other) => misfit(&self.front, other),
        }
    }
}
