//! Contenders for locks and elections: each takes a lease, waits for the seat, writes
//! what it guards under its token, shows signs of life or does not, and goes in one
//! of three ways: it gives up the seat, ends its lease, or falls silent.

use std::time::Duration;

use openraft_rt::AsyncRuntime as _;
use quorate_types::door::Consistency;
use quorate_types::kv::{
    Act, ClientId, Done, Expect, KvFound, KvRead, KvRequest, LeaseId, Nonce, Op, OpDone, SeatAct,
    SeatKind, SeatStand, Value,
};
use quorate_types::rng::Rng;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::{Refusal, Reply, Request, Token};

use super::{Front, number_in};
use crate::law::Law;
use crate::runtime::{SimRuntime, elapsed};

/// A seat, and what it guards.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) kind: SeatKind,
    pub(super) segment: &'static str,
    pub(super) name: &'static str,
    pub(super) guarded: &'static str,
}

/// All that anybody contends for.
pub(super) const PLACES: [Place; 2] = [
    Place { kind: SeatKind::Lock, segment: "m0", name: "m0/lock", guarded: "m0/guarded" },
    Place { kind: SeatKind::Election, segment: "m1", name: "m1/chair", guarded: "m1/guarded" },
];

/// Leases last so long, milliseconds.
const TTLS: [u64; 3] = [600, 1_500, 3_000];
/// Once all is healed a seat is free within this span: a new leader gives each lease its whole time
/// again.
const FREE_WITHIN: Duration = Duration::from_secs(10);

struct Contender {
    front: Front,
    rng: Rng,
    id: ClientId,
    seq: u64,
}

/// One contender, until the run's requests are over; then it is silent.
pub(super) async fn contend(front: Front, mut rng: Rng) {
    let id = ClientId(u128::from(rng.next_u64()) << 64);
    let mut contender = Contender { front, rng, id, seq: 0 };
    while !contender.front.is_over() {
        contender.pause(1_500).await;
        let place = PLACES[usize::try_from(contender.rng.below(2)).unwrap_or(0)];
        contender.round(place).await;
    }
}

/// Once all is healed: every seat can be had.
pub(crate) async fn take_all(front: &Front, rng: &mut Rng) {
    let id = ClientId(u128::from(rng.next_u64()) << 64);
    let mut contender = Contender { front: front.clone(), rng: rng.fork(), id, seq: 0 };
    for place in PLACES {
        let end = elapsed() + FREE_WITHIN;
        let mut lease = None;
        while !contender.wins(place, &mut lease).await {
            if elapsed() >= end {
                let what = format!("{} is not to be had within {FREE_WITHIN:?}", place.name);
                return front.world().complain(Law::Liveness, what);
            }
            contender.pause(200).await;
        }
    }
}

impl Contender {
    async fn pause(&mut self, ms_max: u64) {
        SimRuntime::sleep(Duration::from_millis(10 + self.rng.below(ms_max))).await;
    }

    /// Asks once or twice under one number; none where nobody knows.
    async fn act(&mut self, act: Act) -> Option<Result<Done, Refusal>> {
        self.seq += 1;
        let nonce = Some(Nonce { client: self.id, seq: self.seq, below: self.seq });
        let request = KvRequest { namespace: NAMESPACE_DEFAULT.to_owned(), nonce, acts: vec![act] };
        for _ in 0..2 {
            let sent = Request::Kv(vec![request.clone()]);
            let answer = self.front.ask_any(&mut self.rng, "kv act", sent).await;
            if let Some(Ok(Reply::Kv(each))) = answer {
                return each.into_iter().flatten().next();
            }
            self.pause(100).await;
        }
        None
    }

    async fn grant(&mut self, place: Place, ttl_ms: u64) -> Option<LeaseId> {
        let begin = elapsed();
        let segment = place.segment.to_owned();
        match self.act(Act::Grant { segment, ttl_ms }).await? {
            Ok(Done::Granted(info)) => {
                self.lives(info.lease, begin, ttl_ms);
                Some(info.lease)
            }
            Ok(_) | Err(_) => None,
        }
    }

    fn lives(&self, lease: LeaseId, begin: Duration, ttl_ms: u64) {
        self.front.world().ask(|judges| {
            judges.locks.kept(lease, begin, Duration::from_millis(ttl_ms));
            Ok(())
        });
    }

    /// Whether the lease lives, as far as is known.
    async fn keep(&mut self, lease: LeaseId) -> bool {
        let begin = elapsed();
        match self.front.ask_any(&mut self.rng, "keep", Request::KvKeep(lease)).await {
            Some(Ok(Reply::Renewed(ttl_ms))) => {
                self.lives(lease, begin, ttl_ms);
                true
            }
            Some(Err(Refusal::NotFound(_))) => {
                self.front.world().ask(|judges| judges.locks.ended(lease, elapsed()));
                false
            }
            Some(Ok(_) | Err(_)) | None => true,
        }
    }

    async fn acquire(
        &mut self,
        place: Place,
        lease: LeaseId,
    ) -> Option<Result<SeatStand, Refusal>> {
        let (name, value) = (place.name.to_owned(), Value::from("here"));
        let act = SeatAct::Acquire { value };
        match self.act(Act::Seat { kind: place.kind, name, lease, act }).await? {
            Ok(Done::Seat(stand)) => {
                if let SeatStand::Holds { token, revision } = stand {
                    self.front.world().count(|tally| tally.seats += 1);
                    self.front.world().ask(|judges| {
                        judges.watches.acknowledged(place.name, revision);
                        judges.locks.holds(place.name, (lease, token, revision), elapsed())
                    });
                }
                Some(Ok(stand))
            }
            Ok(_) => None,
            Err(refusal) => {
                if let Refusal::NotFound(_) = refusal {
                    self.front.world().ask(|judges| judges.locks.ended(lease, elapsed()));
                }
                Some(Err(refusal))
            }
        }
    }

    async fn round(&mut self, place: Place) {
        let ttl_ms = TTLS[usize::try_from(self.rng.below(3)).unwrap_or(0)];
        let Some(lease) = self.grant(place, ttl_ms).await else { return };
        let is_lively = self.rng.chance(800_000);
        for _ in 0..12 {
            match self.acquire(place, lease).await {
                Some(Ok(SeatStand::Holds { token, .. })) => {
                    self.hold(place, lease, token, is_lively).await;
                    break;
                }
                Some(Ok(SeatStand::Waits { .. })) | None => {}
                Some(Ok(SeatStand::Gone) | Err(_)) => return,
            }
            self.pause(300).await;
            if is_lively && !self.keep(lease).await {
                return;
            }
        }
        self.leave(place, lease).await;
    }

    async fn hold(&mut self, place: Place, lease: LeaseId, token: Token, is_lively: bool) {
        for _ in 0..self.rng.below(5) {
            if !self.write(place, token).await || (is_lively && !self.keep(lease).await) {
                return;
            }
            self.pause(500).await;
        }
    }

    async fn leave(&mut self, place: Place, lease: LeaseId) {
        let way = self.rng.below(3);
        if way < 2 {
            self.front.world().ask(|judges| {
                judges.locks.leaves(lease);
                Ok(())
            });
        }
        let name = place.name.to_owned();
        let release = SeatAct::Release;
        match way {
            0 => drop(self.act(Act::Seat { kind: place.kind, name, lease, act: release }).await),
            1 => drop(self.act(Act::Revoke(lease)).await),
            _silence => {}
        }
    }

    /// Writes what the seat guards, unless a newer token has; whether it may go on.
    async fn write(&mut self, place: Place, token: Token) -> bool {
        let (namespace, key) = (NAMESPACE_DEFAULT.to_owned(), place.guarded.to_owned());
        let read = vec![KvRead::Get { namespace, key: key.clone() }];
        let read = Request::KvRead(read, Consistency::Linearizable);
        let answer = self.front.ask_any(&mut self.rng, "read guarded", read).await;
        let Some(Ok(Reply::KvFound(found, _))) = answer else { return true };
        let Some(Ok(KvFound::Get(record, _))) = found.into_iter().next() else { return true };
        if record.as_ref().and_then(number_in).map(Token) > Some(token) {
            return false;
        }
        let version = record.map_or(0, |record| record.version);
        // Some think for longer than their lease lasts.
        if self.rng.chance(200_000) {
            self.pause(3_000).await;
        }
        let (value, lease) = (Value::from(token.0.to_string().as_str()), None);
        let expect = Some(Expect::Version(version));
        let put = Act::Op(Op::Put { key, value, lease, expect });
        if let Some(Ok(Done::Op(OpDone::Put { revision, .. }))) = self.act(put).await {
            self.front.world().ask(|judges| {
                judges.watches.acknowledged(place.segment, revision);
                judges.locks.written(place.name, token, revision)
            });
        }
        true
    }

    /// One step towards the seat; whether it is held.
    async fn wins(&mut self, place: Place, lease: &mut Option<LeaseId>) -> bool {
        let Some(held) = *lease else {
            *lease = self.grant(place, TTLS[2]).await;
            return false;
        };
        match self.acquire(place, held).await {
            Some(Ok(SeatStand::Holds { .. })) => return true,
            Some(Err(Refusal::NotFound(_)) | Ok(SeatStand::Gone)) => *lease = None,
            Some(Ok(SeatStand::Waits { .. }) | Err(_)) | None => drop(self.keep(held).await),
        }
        false
    }
}
