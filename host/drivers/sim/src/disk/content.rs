//! The bytes of one file, and what of them would outlive a power loss.

use bytes::Bytes;
use quorate_types::rng::Rng;

/// What a disk writes at once or not at all, bytes.
pub(super) const SECTOR: usize = 512;
/// A write that so many later ones in its file followed is not the last of anything.
const FOLLOWED: usize = 6;

/// A change since the last sync, and how to undo it.
struct Change {
    number: u64,
    offset: usize,
    old: Vec<u8>,
    old_len: usize,
    new: Bytes,
    cuts: bool,
    /// A sync of it has failed: it is readable, and no later sync makes it durable.
    doomed: bool,
}

/// How a power loss treats writes that were not synced.
#[derive(Clone, Copy)]
pub(super) enum Loss {
    /// Those before this number are kept, and a part of this one.
    From(u64),
    /// Each sector of each is kept or lost by itself.
    Scattered,
}

#[derive(Default)]
pub(super) struct Content {
    now: Vec<u8>,
    pending: Vec<Change>,
    /// Where the newest writes lie, oldest first.
    newest: Vec<(usize, usize)>,
    /// A write that went elsewhere: what it should have been, and what it destroyed.
    astray: Option<Astray>,
}

struct Astray {
    right: (usize, Vec<u8>),
    destroyed: (usize, Vec<u8>),
    followed: usize,
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.now.len()
    }

    pub(super) fn read(&self, offset: usize, len: usize) -> Bytes {
        let start = offset.min(self.now.len());
        let end = start.saturating_add(len).min(self.now.len());
        Bytes::copy_from_slice(&self.now[start..end])
    }

    pub(super) fn is_unsynced(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn unsynced(&self) -> impl Iterator<Item = u64> + '_ {
        self.pending.iter().map(|change| change.number)
    }

    pub(super) fn change(&mut self, number: u64, offset: usize, new: Bytes) {
        let old_len = self.now.len();
        let end = old_len.min(offset + new.len());
        let old = self.now.get(offset..end).map_or_else(Vec::new, <[u8]>::to_vec);
        put(&mut self.now, offset, &new);
        if self.newest.len() == FOLLOWED {
            self.newest.remove(0);
        }
        self.newest.push((offset, new.len()));
        if let Some(astray) = &mut self.astray {
            astray.followed += 1;
        }
        let doomed = false;
        self.pending.push(Change { number, offset, old, old_len, new, cuts: false, doomed });
    }

    /// The write lands elsewhere in the file: what lay there is gone, what lay here stays.
    pub(super) fn misdirect(&mut self, number: u64, offset: usize, new: Bytes, draw: u64) {
        let sectors = self.now.len() / SECTOR;
        let drawn = usize::try_from(draw).unwrap_or(0) % sectors.max(1);
        let elsewhere = drawn * SECTOR;
        let is_beside = elsewhere + new.len() <= offset || offset + new.len() <= elsewhere;
        let fits = elsewhere + new.len() <= self.now.len() && offset + new.len() <= self.now.len();
        if !is_beside || !fits || self.astray.is_some() {
            self.change(number, offset, new);
            return;
        }
        let destroyed = self.read(elsewhere, new.len()).to_vec();
        let right = (offset, new.to_vec());
        self.change(number, elsewhere, new);
        self.newest.pop();
        self.astray = Some(Astray { right, destroyed: (elsewhere, destroyed), followed: 0 });
    }

    pub(super) fn cut(&mut self, number: u64, len: usize) {
        let old_len = self.now.len();
        let old = self.now.split_off(len);
        let (new, doomed) = (Bytes::new(), false);
        self.pending.push(Change { number, offset: len, old, old_len, new, cuts: true, doomed });
    }

    /// What was written before `number` is durable; how many writes those were.
    pub(super) fn sync(&mut self, number: u64) -> usize {
        let pending = self.pending.len();
        self.pending.retain(|change| change.number > number || change.doomed);
        pending - self.pending.len()
    }

    /// A sync has failed: the kernel takes its pages for clean, and the disk never had them.
    pub(super) fn doom(&mut self) {
        self.pending.iter_mut().for_each(|change| change.doomed = true);
    }

    /// Power is gone. Whether a write that went astray stays so.
    pub(super) fn lose(&mut self, loss: Loss, rng: &mut Rng) -> bool {
        let pending = std::mem::take(&mut self.pending);
        for change in pending.iter().rev() {
            self.now.resize(change.old_len, 0);
            put(&mut self.now, change.offset, &change.old);
        }
        for change in pending.iter().filter(|change| !change.doomed) {
            self.keep_of(change, loss, rng);
        }
        self.settle_astray()
    }

    fn keep_of(&mut self, change: &Change, loss: Loss, rng: &mut Rng) {
        let first_lost = match loss {
            Loss::From(first_lost) => first_lost,
            Loss::Scattered if change.cuts => u64::MAX * rng.below(2),
            Loss::Scattered => {
                let mut from = 0;
                while from < change.new.len() {
                    let to = sector_end(change.offset, from).min(change.new.len());
                    if rng.chance(500_000) {
                        put(&mut self.now, change.offset + from, &change.new[from..to]);
                    }
                    from = to;
                }
                return;
            }
        };
        if change.number < first_lost {
            if change.cuts {
                self.now.truncate(change.offset);
            } else {
                put(&mut self.now, change.offset, &change.new);
            }
        } else if change.number == first_lost {
            let part = torn(change, rng);
            put(&mut self.now, change.offset, &change.new[..part]);
        }
    }

    /// That the very last writes went astray nothing could tell from their loss, which a disk
    /// that keeps its promise does not cause: then it had not happened.
    fn settle_astray(&mut self) -> bool {
        match self.astray.take() {
            Some(astray) if astray.followed < FOLLOWED => {
                put(&mut self.now, astray.destroyed.0, &astray.destroyed.1);
                put(&mut self.now, astray.right.0, &astray.right.1);
                false
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Flips a bit that was durable for a while; whether there was one.
    pub(super) fn rot(&mut self, rng: &mut Rng) -> bool {
        let is_new =
            |at: usize| self.newest.iter().any(|(from, len)| (*from..from + len).contains(&at));
        let written = self.now.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        for _ in 0..64 {
            let drawn = rng.below(u64::try_from(written + 1).unwrap_or(1));
            let at = usize::try_from(drawn).unwrap_or(0);
            if !is_new(at)
                && let Some(byte) = self.now.get_mut(at)
            {
                *byte ^= 1 << (drawn % 8);
                return true;
            }
        }
        false
    }
}

fn sector_end(offset: usize, from: usize) -> usize {
    ((offset + from) / SECTOR + 1) * SECTOR - offset
}

/// How much of a torn write reached the disk: whole sectors from its start.
fn torn(change: &Change, rng: &mut Rng) -> usize {
    let sectors = change.new.len() / SECTOR + 1;
    let drawn = usize::try_from(rng.below(1 << 20)).unwrap_or(0) % (sectors + 1);
    if drawn == 0 {
        return 0;
    }
    let boundary = (change.offset / SECTOR + drawn) * SECTOR;
    (boundary - change.offset).min(change.new.len())
}

fn put(bytes: &mut Vec<u8>, offset: usize, new: &[u8]) {
    if new.is_empty() {
        return;
    }
    let end = offset + new.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parts: &[(usize, &'static [u8])]) -> Content {
        let mut content = Content::default();
        for (number, (offset, new)) in (1..).zip(parts) {
            content.change(number, *offset, Bytes::from_static(new));
        }
        content
    }

    #[test]
    fn what_was_synced_outlives_a_power_loss_and_what_was_not_may() {
        let mut content = written(&[(0, b"one"), (3, b"two")]);
        assert_eq!(content.sync(1), 1);
        content.lose(Loss::From(0), &mut Rng::new(1));
        assert_eq!(content.read(0, 99), "one");
        content.change(3, 3, Bytes::from_static(b"six"));
        content.lose(Loss::From(u64::MAX), &mut Rng::new(1));
        assert_eq!(content.read(0, 99), "onesix");
    }

    #[test]
    fn sectors_of_an_unsynced_write_are_kept_or_lost_by_themselves() {
        let patterns: std::collections::BTreeSet<Vec<bool>> = (0..64)
            .map(|seed| {
                let mut content = written(&[(0, &[0; 4 * SECTOR])]);
                content.sync(1);
                content.change(2, 100, Bytes::from_static(&[7; 3 * SECTOR]));
                content.lose(Loss::Scattered, &mut Rng::new(seed));
                (0..4).map(|sector| content.read(sector * SECTOR + 200, 1)[0] == 7).collect()
            })
            .collect();
        assert!(patterns.contains(&vec![true, false, true, false]), "{patterns:?}");
        assert_eq!(patterns.len(), 8, "{patterns:?}");
    }

    #[test]
    fn a_write_whose_sync_failed_is_never_durable() {
        let mut content = written(&[(0, b"one")]);
        content.doom();
        assert_eq!(content.sync(9), 0, "a second sync says that all is well");
        assert_eq!(content.read(0, 9), "one", "and it can be read");
        content.lose(Loss::From(u64::MAX), &mut Rng::new(1));
        assert_eq!(content.read(0, 9), "", "until the power goes");
    }

    #[test]
    fn a_write_goes_astray_only_where_others_followed_it() {
        let long: &'static [u8] = &[1; 8 * SECTOR];
        let astray = |followed: usize| {
            let mut content = written(&[(0, long)]);
            content.misdirect(2, 0, Bytes::from_static(&[2; SECTOR]), 5);
            for number in 0..followed {
                content.change(3, 6 * SECTOR + number, Bytes::from_static(&[3]));
            }
            content.sync(9);
            let stays = content.lose(Loss::From(0), &mut Rng::new(1));
            (stays, content.read(0, 1)[0], content.read(5 * SECTOR, 1)[0])
        };
        assert_eq!(astray(FOLLOWED), (true, 1, 2));
        assert_eq!(astray(1), (false, 2, 1));
    }

    #[test]
    fn rot_spares_the_newest_writes() {
        let mut content = written(&[(0, &[9; 64]), (64, &[9; 8])]);
        for number in 3..9 {
            content.change(number, 64, Bytes::from_static(&[9; 8]));
        }
        content.sync(99);
        for seed in 0..50 {
            assert!(content.rot(&mut Rng::new(seed)));
        }
        assert_eq!(content.read(64, 8), [9; 8].as_slice());
        assert_ne!(content.read(0, 64), [9; 64].as_slice());
    }
}
