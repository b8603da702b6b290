//! One node's disk: names, contents, what ails it, and what a power loss leaves.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::time::Duration;

use quorate_types::Open;
use quorate_types::rng::Rng;

use super::content::{Content, Loss};

pub(super) type Names = BTreeMap<String, u64>;

/// A change of names since the last sync of their directory.
enum Naming {
    Set(String, u64),
    Remove(String),
    Move(String, String, u64),
}

/// What is wrong with the disk now.
#[derive(Default)]
pub(super) struct Ills {
    /// Every access takes this long more.
    pub(super) stall: Duration,
    pub(super) full: bool,
    pub(super) fail_write: bool,
    pub(super) fail_sync: bool,
    /// The next write goes elsewhere, by this draw.
    pub(super) misdirect: Option<u64>,
    /// Whether it has failed in this life, so that its node may.
    pub(super) failed: bool,
    /// Whether bytes have changed by themselves, in this life or one before.
    pub(super) damaged: bool,
    /// Whether they may yet: it was drawn for that.
    pub(super) marred: bool,
}

pub(super) struct Platter {
    pub(super) life: u64,
    pub(super) names: Names,
    durable: Names,
    namings: Vec<Naming>,
    pub(super) contents: BTreeMap<u64, Content>,
    next: u64,
    pub(super) rng: Rng,
    pub(super) sync_us_max: u64,
    pub(super) ills: Ills,
}

impl Platter {
    pub(super) fn new(seed: u64, sync_us_max: u64) -> Self {
        Self {
            life: 0,
            names: Names::new(),
            durable: Names::new(),
            namings: Vec::new(),
            contents: BTreeMap::new(),
            next: 0,
            rng: Rng::new(seed),
            sync_us_max,
            ills: Ills::default(),
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// How long an access takes.
    pub(super) fn span(&mut self, syncs: bool) -> Duration {
        let most = if syncs { self.sync_us_max } else { 100 };
        Duration::from_micros(50 + self.rng.below(most)) + self.ills.stall
    }

    pub(super) fn open(&mut self, path: &str, how: Open) -> io::Result<u64> {
        match (self.names.get(path).copied(), how) {
            (Some(_), Open::New) => Err(io::ErrorKind::AlreadyExists.into()),
            (None, Open::Existing) => Err(io::ErrorKind::NotFound.into()),
            (Some(id), Open::Existing | Open::Any) => Ok(id),
            (None, Open::New | Open::Any) => {
                self.room(true)?;
                let id = self.number();
                self.names.insert(path.to_owned(), id);
                self.namings.push(Naming::Set(path.to_owned(), id));
                self.contents.insert(id, Content::default());
                Ok(id)
            }
        }
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<u64> {
        let id = self.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.names.insert(to.to_owned(), id);
        self.namings.push(Naming::Move(from.to_owned(), to.to_owned(), id));
        Ok(id)
    }

    pub(super) fn remove(&mut self, path: &str) -> io::Result<u64> {
        let id = self.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        self.namings.push(Naming::Remove(path.to_owned()));
        Ok(id)
    }

    /// The names in a directory are as durable as the disk.
    pub(super) fn keep_names(&mut self, dir: &str) {
        let namings = std::mem::take(&mut self.namings);
        for naming in namings {
            let (Naming::Set(path, _) | Naming::Remove(path) | Naming::Move(_, path, _)) = &naming;
            if parent(path) == dir {
                settle(&mut self.durable, naming);
            } else {
                self.namings.push(naming);
            }
        }
        self.forget_nameless();
    }

    /// A file without a name is gone, also after a power loss.
    fn forget_nameless(&mut self) {
        let (names, durable, namings) = (&self.names, &self.durable, &self.namings);
        self.contents.retain(|id, _| {
            names.values().any(|named| named == id)
                || durable.values().any(|named| named == id)
                || namings.iter().any(|naming| {
                    matches!(naming, Naming::Set(_, set) | Naming::Move(_, _, set) if set == id)
                })
        });
    }

    /// Whether there is room for more.
    pub(super) fn room(&mut self, grows: bool) -> io::Result<()> {
        if grows && self.ills.full {
            self.ills.failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Power is gone. Of the names a prefix of the changes is kept; of the bytes a prefix of the
    /// writes over all files in their order, or any sectors of any.
    pub(super) fn crash(&mut self) {
        self.life += 1;
        let kept = self.rng.below(u64::try_from(self.namings.len()).unwrap_or(0) + 1);
        let kept = usize::try_from(kept).unwrap_or(0);
        for naming in std::mem::take(&mut self.namings).into_iter().take(kept) {
            settle(&mut self.durable, naming);
        }
        self.names = self.durable.clone();
        let mut numbers: Vec<u64> = self.contents.values().flat_map(Content::unsynced).collect();
        numbers.sort_unstable();
        let loss = if self.rng.chance(500_000) {
            Loss::Scattered
        } else {
            let kept = self.rng.below(u64::try_from(numbers.len()).unwrap_or(0) + 1);
            let first_lost = usize::try_from(kept).ok().and_then(|at| numbers.get(at)).copied();
            Loss::From(first_lost.unwrap_or(u64::MAX))
        };
        for content in self.contents.values_mut() {
            let astray = content.lose(loss, &mut self.rng);
            self.ills.damaged |= astray;
        }
        self.forget_nameless();
        self.ills.failed = false;
        (self.ills.fail_write, self.ills.fail_sync) = (false, false);
        self.ills.misdirect = None;
    }

    /// Nothing is left on it.
    pub(super) fn wipe(&mut self) {
        self.names.clear();
        self.durable.clear();
        self.namings.clear();
        self.contents.clear();
        self.ills.marred = true;
    }

    /// Flips a bit of some file; whether any had one to flip.
    pub(super) fn rot(&mut self, draw: u64) -> bool {
        let mut rng = Rng::new(draw);
        let files: Vec<u64> = self.names.values().copied().collect();
        for _ in 0..16 {
            let at = rng.below(u64::try_from(files.len()).unwrap_or(0).max(1));
            let file = usize::try_from(at).ok().and_then(|at| files.get(at));
            let content = file.and_then(|file| self.contents.get_mut(file));
            if content.is_some_and(|content| content.rot(&mut rng)) {
                (self.ills.damaged, self.ills.marred) = (true, true);
                return true;
            }
        }
        false
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

fn settle(names: &mut Names, naming: Naming) {
    match naming {
        Naming::Set(path, id) => {
            names.insert(path, id);
        }
        Naming::Remove(path) => {
            names.remove(&path);
        }
        Naming::Move(from, to, id) => {
            names.remove(&from);
            names.insert(to, id);
        }
    }
}

/// What lies directly in `dir`, by its name there.
pub(super) fn within<'a>(names: &'a Names, dir: &str) -> impl Iterator<Item = &'a str> {
    let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
    names
        .range::<str, _>((Bound::Included(prefix.clone().as_str()), Bound::Unbounded))
        .map_while(move |(path, _)| path.strip_prefix(prefix.as_str()))
        .filter(|rest| !rest.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_loss_keeps_some_of_the_first_changes_of_names() {
        let left = |seed: u64| {
            let mut platter = Platter::new(seed, 100);
            platter.open("dir/kept", Open::New).unwrap();
            platter.keep_names("dir");
            platter.open("dir/new", Open::New).unwrap();
            platter.rename("dir/new", "dir/kept").unwrap();
            platter.open("other/new", Open::New).unwrap();
            platter.keep_names("elsewhere");
            platter.crash();
            platter.names.into_iter().map(|(name, id)| format!("{name} {id}")).collect::<Vec<_>>()
        };
        let states: std::collections::BTreeSet<_> = (0..64).map(left).collect();
        let states: Vec<String> = states.into_iter().map(|names| names.join(", ")).collect();
        assert_eq!(
            states,
            ["dir/kept 1", "dir/kept 1, dir/new 2", "dir/kept 2", "dir/kept 2, other/new 3"],
            "never one without the other"
        );
    }
}
