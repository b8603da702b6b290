//! The place of the lowest of many keys, kept while single keys change.
//!
//! A tournament tree (Knuth, TAOCP 3, 5.4.1): the leaves are places, each inner
//! node is the winner of its two children, the root is the answer. A change replays
//! one path, so a pick among n costs log n comparisons where a scan costs n.

/// Keys at places `0..len`, and who is lowest; of equal keys, the lowest place.
#[derive(Clone, Debug, Default)]
pub struct Tournament {
    keys: Vec<i64>,
    /// `winners[1]` is the root; node i has children 2i and 2i + 1. The leaves are not
    /// stored: below the last row the place itself stands.
    winners: Vec<usize>,
}

impl Tournament {
    /// A tree over these keys.
    pub fn new(mut keys: Vec<i64>) -> Self {
        let leaves = keys.len().next_power_of_two();
        // Empty places lose against every key, also an equal one, since they are further right.
        keys.resize(leaves, i64::MAX);
        let mut tree = Self { keys, winners: vec![0; leaves] };
        for node in (1..leaves).rev() {
            tree.play(node);
        }
        tree
    }

    /// The key at a place.
    #[inline]
    pub fn key(&self, place: usize) -> i64 {
        self.keys.get(place).copied().unwrap_or(i64::MAX)
    }

    /// Puts another key at a place.
    #[inline]
    pub fn set(&mut self, place: usize, key: i64) {
        let Some(old) = self.keys.get_mut(place) else { return };
        *old = key;
        let mut node = (place + self.keys.len()) / 2;
        while node > 0 {
            self.play(node);
            node /= 2;
        }
    }

    /// The lowest place with the lowest key; 0 in an empty tree.
    #[inline]
    pub fn lowest(&self) -> usize {
        if self.keys.len() > 1 { self.winners[1] } else { 0 }
    }

    #[inline]
    fn play(&mut self, node: usize) {
        let leaves = self.keys.len();
        let [left, right] = [2 * node, 2 * node + 1]
            .map(|child| if child < leaves { self.winners[child] } else { child - leaves });
        self.winners[node] = if self.keys[left] <= self.keys[right] { left } else { right };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;

    #[test]
    fn it_agrees_with_a_scan() {
        for len in [0_u32, 1, 2, 3, 7, 8, 9, 100] {
            let mut random = SplitMix64::new(len.into());
            let mut keys: Vec<i64> = (0..len).map(|_| random.below(6).into()).collect();
            let mut tree = Tournament::new(keys.clone());
            for _ in 0..500 {
                let scanned = (0..keys.len()).min_by_key(|place| keys[*place]);
                assert_eq!(tree.lowest(), scanned.unwrap_or(0));
                if len > 0 {
                    let place = random.below(len) as usize;
                    keys[place] = random.below(6).into();
                    tree.set(place, keys[place]);
                    assert_eq!(tree.key(place), keys[place]);
                }
            }
        }
    }
}
