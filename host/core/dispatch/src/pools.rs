//! The pools that are open, one for each set of agents that work was wanted of.
//! Who asks chooses the set, so their number is bounded: the pool that was used
//! least lately makes room, and what it had learned is gone with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_types::Wanted;

use crate::pool::Pool;

/// Pools open at once. Each holds an instance of the policy's component, of which a node has 64;
/// when they are out every pool answers by its fallback. A node that leads has two tables, one of
/// calls and one of tasks: with 24 in each, 16 instances are left for trying components out. A
/// pool that was closed too early costs a new instance, some 30 µs.
pub const POOLS_MAX: usize = 24;

/// Which pool a pick is of. A pool that is opened again is another one, which knows nothing of the
/// picks of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolId(u64);

#[derive(Debug)]
struct Opened {
    pool: Pool,
    id: PoolId,
    used: u64,
    seen: u64,
}

/// Pools by what is wanted of their agents.
#[derive(Debug, Default)]
pub struct Pools {
    pools: BTreeMap<Arc<Wanted>, Opened>,
    /// Grows with each use, so that no two are alike.
    uses: u64,
}

impl Pools {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.pools.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty()
    }

    /// Closes all of them.
    pub fn clear(&mut self) {
        self.pools.clear();
    }

    /// The pool for such work, which has been shown the agents of this revision; none where it has
    /// not, or is not open.
    pub fn current(&mut self, wanted: &Wanted, revision: u64) -> Option<(PoolId, &mut Pool)> {
        let opened = self.pools.get_mut(wanted).filter(|opened| opened.seen == revision)?;
        self.uses += 1;
        opened.used = self.uses;
        Some((opened.id, &mut opened.pool))
    }

    /// The pool for such work, opened if need be, to be shown the agents of this revision.
    pub fn open(
        &mut self,
        wanted: &Arc<Wanted>,
        revision: u64,
        open: impl FnOnce() -> Pool,
    ) -> (PoolId, &mut Pool) {
        if !self.pools.contains_key(wanted) {
            self.make_room();
        }
        self.uses += 1;
        let (used, id) = (self.uses, PoolId(self.uses));
        let fresh = || Opened { pool: open(), id, used, seen: revision };
        let opened = self.pools.entry(Arc::clone(wanted)).or_insert_with(fresh);
        (opened.used, opened.seen) = (used, revision);
        (opened.id, &mut opened.pool)
    }

    fn make_room(&mut self) {
        while self.pools.len() >= POOLS_MAX {
            let idle = self.pools.iter().min_by_key(|(_wanted, opened)| opened.used);
            let Some(wanted) = idle.map(|(wanted, _opened)| Arc::clone(wanted)) else { return };
            self.pools.remove(&wanted);
        }
    }

    /// The pool that a pick is of, if it is still open.
    pub fn of(&mut self, wanted: &Wanted, id: PoolId) -> Option<&mut Pool> {
        let opened = self.pools.get_mut(wanted).filter(|opened| opened.id == id)?;
        Some(&mut opened.pool)
    }
}
