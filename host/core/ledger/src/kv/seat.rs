//! Locks and named elections. A seat has one holder and a queue in order of asking;
//! whoever comes to hold it gets a fencing token that is greater than every token
//! before. When the holder's lease ends or gives up, the next one holds the seat by
//! the same entry.

use std::sync::Arc;

use quorate_types::kv::{Holder, LeaseId, SeatAct, SeatKind, SeatStand, Value, segment};
use quorate_types::{Refusal, Token};

use super::window::Told;
use super::{Attached, Kv, Seat, Turn, Waiter, full};

/// Which seat of a namespace.
pub(super) type At = (SeatKind, Arc<str>);

impl Kv {
    pub(super) fn seat(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        at: At,
        lease: LeaseId,
        act: SeatAct,
    ) -> Result<SeatStand, Refusal> {
        match act {
            SeatAct::Acquire { value } => self.acquire(turn, namespace, at, lease, value),
            SeatAct::Release => {
                self.leave(turn, namespace, &at, lease);
                Ok(SeatStand::Gone)
            }
            SeatAct::Proclaim { value } => self.proclaim(turn, namespace, &at, lease, value),
        }
    }

    pub(super) fn seat_at(&self, namespace: &str, at: &At) -> Option<&Arc<Seat>> {
        self.spaces.get(namespace)?.seats.get(at)
    }

    fn acquire(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        at: At,
        lease: LeaseId,
        value: Value,
    ) -> Result<SeatStand, Refusal> {
        self.lease_for(namespace, segment(&at.1), lease)?;
        let Some(seat) = self.seat_at(namespace, &at).cloned() else {
            return self.take_empty(turn, namespace, at, lease, value);
        };
        match stand(&seat, lease) {
            told @ (SeatStand::Holds { .. } | SeatStand::Waits { .. }) => return Ok(told),
            SeatStand::Gone => {}
        }
        if seat.waiting.len() >= self.bounds.waiting_max {
            return Err(full(
                &format!("the queue for {} `{}`", at.0, at.1),
                self.bounds.waiting_max,
            ));
        }
        self.room_on(lease)?;
        let mut seat = Seat::clone(&seat);
        seat.waiting.push(Waiter { lease, value });
        let stand = stand(&seat, lease);
        self.store_seat(seat);
        self.attach(Some(lease), Attached::Seat(at.0, at.1));
        Ok(stand)
    }

    fn take_empty(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        (kind, name): At,
        lease: LeaseId,
        value: Value,
    ) -> Result<SeatStand, Refusal> {
        if self.totals.seats >= self.bounds.seats_max {
            return Err(full("the table of locks and elections", self.bounds.seats_max));
        }
        self.room_on(lease)?;
        self.attach(Some(lease), Attached::Seat(kind, Arc::clone(&name)));
        let holder = self.next_holder(turn, Waiter { lease, value });
        let stand = SeatStand::Holds { token: holder.token, revision: holder.revision };
        let namespace = Arc::clone(namespace);
        self.install(Seat { namespace, kind, name, holder, waiting: Vec::new() });
        Ok(stand)
    }

    fn next_holder(&mut self, turn: &mut Turn, Waiter { lease, value }: Waiter) -> Holder {
        let token = Token(self.counters.token.0 + 1);
        self.counters.token = token;
        Holder { lease, token, revision: turn.revision(), value }
    }

    /// Stores a seat whose holder, or what it shows, is new.
    fn install(&mut self, seat: Seat) {
        let (namespace, holder) = (Arc::clone(&seat.namespace), seat.holder.clone());
        let told = Told::Seat {
            kind: seat.kind,
            name: Arc::clone(&seat.name),
            holder: Some(holder.clone()),
        };
        self.store_seat(seat);
        self.tell(&namespace, holder.revision, told);
    }

    fn proclaim(
        &mut self,
        turn: &mut Turn,
        namespace: &Arc<str>,
        at: &At,
        lease: LeaseId,
        value: Value,
    ) -> Result<SeatStand, Refusal> {
        let seat = self.seat_at(namespace, at).filter(|seat| seat.holder.lease == lease);
        let Some(seat) = seat else {
            return Err(Refusal::Conflict(format!(
                "lease {lease} does not hold {} `{}`",
                at.0, at.1
            )));
        };
        let mut seat = Seat::clone(seat);
        // What it shows is new; since when it holds the seat is not.
        seat.holder.value = value;
        let holder = seat.holder.clone();
        let stand = stand(&seat, lease);
        self.store_seat(seat);
        let told = Told::Seat { kind: at.0, name: Arc::clone(&at.1), holder: Some(holder) };
        self.tell(namespace, turn.revision(), told);
        Ok(stand)
    }

    /// The lease neither holds nor waits any more; whoever is next holds the seat.
    pub(super) fn leave(&mut self, turn: &mut Turn, namespace: &Arc<str>, at: &At, lease: LeaseId) {
        let Some(seat) = self.seat_at(namespace, at).cloned() else { return };
        match stand(&seat, lease) {
            SeatStand::Gone => return,
            SeatStand::Waits { .. } => {
                let mut seat = Seat::clone(&seat);
                seat.waiting.retain(|waiter| waiter.lease != lease);
                self.store_seat(seat);
            }
            SeatStand::Holds { .. } => self.hand_over(turn, namespace, at, &seat),
        }
        self.detach(Some(lease), &Attached::Seat(at.0, Arc::clone(&at.1)));
    }

    fn hand_over(&mut self, turn: &mut Turn, namespace: &Arc<str>, at: &At, seat: &Seat) {
        let mut seat = Seat::clone(seat);
        if seat.waiting.is_empty() {
            self.drop_seat(namespace, at);
            let told = Told::Seat { kind: at.0, name: Arc::clone(&at.1), holder: None };
            self.tell(namespace, turn.revision(), told);
            self.drop_if_empty(namespace);
            return;
        }
        let next = seat.waiting.remove(0);
        seat.holder = self.next_holder(turn, next);
        self.install(seat);
    }
}

fn stand(seat: &Seat, lease: LeaseId) -> SeatStand {
    let Holder { lease: holder, token, revision, .. } = &seat.holder;
    if *holder == lease {
        return SeatStand::Holds { token: *token, revision: *revision };
    }
    let place = seat.waiting.iter().position(|waiter| waiter.lease == lease);
    place.map_or(SeatStand::Gone, |place| SeatStand::Waits {
        before: u64::try_from(place + 1).unwrap_or(u64::MAX),
    })
}
