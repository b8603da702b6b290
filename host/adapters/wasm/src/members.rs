//! Which slots are in a pool: a bit each where slots are small numbers, as the
//! host gives them, and a search where they are not.

use quorate_policy::Slot;

/// Slots below this have a bit; 2^20 bits are 128 KiB.
const DENSE_MAX: Slot = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Members {
    ascending: Vec<Slot>,
    bits: Vec<u64>,
}

impl Members {
    /// The slots from now on; `ascending` must be so, strictly.
    pub(crate) fn replace(&mut self, ascending: &[Slot]) {
        self.ascending.clear();
        self.ascending.extend_from_slice(ascending);
        self.bits.clear();
        let Some(&last) = ascending.last().filter(|last| **last < DENSE_MAX) else { return };
        self.bits.resize(word(last) + 1, 0);
        for &slot in ascending {
            self.bits[word(slot)] |= 1 << (slot % 64);
        }
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        match self.bits.get(word(slot)) {
            Some(bits) => bits >> (slot % 64) & 1 == 1,
            None => self.bits.is_empty() && self.ascending.binary_search(&slot).is_ok(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ascending.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ascending.is_empty()
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.ascending
    }
}

fn word(slot: Slot) -> usize {
    usize::try_from(slot / 64).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_slots_are_found_and_no_others() {
        for slots in
            [vec![], vec![0], vec![0, 63, 64, 700], vec![5, DENSE_MAX - 1], vec![7, u32::MAX]]
        {
            let mut members = Members::default();
            members.replace(&[1, 2, 3]);
            members.replace(&slots);
            for probe in [0, 1, 2, 3, 5, 7, 62, 63, 64, 65, 700, DENSE_MAX - 1, DENSE_MAX, u32::MAX]
            {
                assert_eq!(members.contains(probe), slots.contains(&probe), "{probe} in {slots:?}");
            }
        }
    }
}
