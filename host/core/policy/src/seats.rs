//! What the reference answers share: a pool's rows in order of their slots, and
//! the checks that every `replace` and `patch` passes before it changes anything.

use crate::balancer::{Descriptor, Fault, Feature, Slot};

/// Most picks in one batch, of every built-in component; the answers here have no such bound.
pub(crate) const BATCH_MAX: u32 = 1024;

/// What a policy keeps of one slot.
pub(crate) trait Row {
    /// Takes the value of one feature that the policy asks for.
    fn set(&mut self, feature: Feature, value: i64);
}

/// A policy that asks for nothing.
impl Row for () {
    fn set(&mut self, _feature: Feature, _value: i64) {}
}

/// One row a slot, ascending.
#[derive(Clone, Debug)]
pub(crate) struct Seats<T> {
    rows: Vec<(Slot, T)>,
}

impl<T> Default for Seats<T> {
    fn default() -> Self {
        Self { rows: Vec::new() }
    }
}

impl<T: Row> Seats<T> {
    /// Seats as a predecessor saved them; their slots must ascend.
    pub(crate) fn restored(rows: Vec<(Slot, T)>) -> Result<Self, Fault> {
        if rows.is_sorted_by(|(left, _), (right, _)| left < right) {
            Ok(Self { rows })
        } else {
            Err(invalid("the slots of the saved state do not ascend"))
        }
    }

    /// New slots. `seat` makes each row from the one that the slot had before; then the row
    /// takes the slot's values, one a feature in the order of the descriptor.
    pub(crate) fn replace(
        &mut self,
        descriptor: &Descriptor,
        slots: &[Slot],
        columns: &[i64],
        seat: impl Fn(Option<T>) -> T,
    ) -> Result<(), Fault> {
        if !slots.is_sorted_by(|left, right| left < right) {
            return Err(invalid("the slots do not ascend"));
        }
        if columns.len() != slots.len() * descriptor.features.len() {
            return Err(invalid("the columns do not have one value a slot"));
        }
        let mut before = std::mem::take(&mut self.rows).into_iter().peekable();
        for (place, &slot) in slots.iter().enumerate() {
            while before.next_if(|(old, _)| *old < slot).is_some() {}
            let kept = before.next_if(|(old, _)| *old == slot).map(|(_, row)| row);
            let mut row = seat(kept);
            let values = columns.iter().skip(place).step_by(slots.len());
            for (feature, value) in descriptor.features.iter().zip(values) {
                row.set(*feature, *value);
            }
            self.rows.push((slot, row));
        }
        Ok(())
    }

    /// New values of one feature; no row takes its own before all of them are known to be in
    /// the pool.
    pub(crate) fn patch(
        &mut self,
        descriptor: &Descriptor,
        feature: Feature,
        slots: &[Slot],
        values: &[i64],
    ) -> Result<(), Fault> {
        if !descriptor.features.contains(&feature) {
            return Err(invalid("the policy has no such feature"));
        }
        if slots.len() != values.len() {
            return Err(invalid("there is not one value a slot"));
        }
        if slots.iter().any(|slot| self.place(*slot).is_none()) {
            return Err(invalid("a slot is not in the pool"));
        }
        for (slot, value) in slots.iter().zip(values) {
            if let Some(row) = self.get_mut(*slot) {
                row.set(feature, *value);
            }
        }
        Ok(())
    }

    /// The row of a slot, if the pool has it.
    pub(crate) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        let place = self.place(slot)?;
        self.rows.get_mut(place).map(|(_, row)| row)
    }

    /// The rows with their slots, ascending.
    pub(crate) fn rows(&self) -> &[(Slot, T)] {
        &self.rows
    }

    /// The row at a place in that order.
    pub(crate) fn row_mut(&mut self, place: usize) -> Option<&mut (Slot, T)> {
        self.rows.get_mut(place)
    }

    /// The place of the row with the lowest price; of equal ones the lowest slot's.
    pub(crate) fn cheapest<P: Ord>(&self, price: impl Fn(&T) -> P) -> Option<usize> {
        let places = self.rows.iter().enumerate();
        places.min_by_key(|(_, (_, row))| price(row)).map(|(place, _)| place)
    }

    fn place(&self, slot: Slot) -> Option<usize> {
        self.rows.binary_search_by_key(&slot, |(slot, _)| *slot).ok()
    }
}

/// A refusal of the caller's input.
pub(crate) fn invalid(why: &str) -> Fault {
    Fault::Invalid(why.to_owned())
}

/// The descriptor of a policy that reads what it writes.
pub(crate) fn descriptor(name: &str, state_schema: u32, features: &[Feature]) -> Descriptor {
    Descriptor {
        name: name.to_owned(),
        state_schema,
        reads_schemas: vec![state_schema],
        features: features.to_vec(),
        batch_max: BATCH_MAX,
    }
}

/// The count of `observe`d picks as it stands in a snapshot.
pub(crate) fn counted(applied: u64, more: usize) -> u64 {
    applied.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
}
