//! The shards that are loaded, the last used ones within a bound.

use code_index_format::{Digest, Shard, hex};
use quorate_sdk::agent::load_blob;
use quorate_sdk::{Fault, invalid};

/// The instance has 64 MiB of memory. A shard that is being loaded stands beside the
/// shelf with a chunk of it on its way; 24 + 8 MiB leave half for an answer.
const SHELF_BYTES_MAX: usize = 24 << 20;
const SHARD_BYTES_MAX: usize = 8 << 20;

/// Shards in memory, the last used one at the end.
#[derive(Default)]
pub(crate) struct Shelf {
    shards: Vec<Loaded>,
}

struct Loaded {
    digest: Digest,
    bytes: usize,
    shard: Shard<Vec<u8>>,
}

impl Shelf {
    /// The shard of this digest; read from its blob where it is not here.
    pub(crate) fn shard(&mut self, digest: &Digest) -> Result<&Shard<Vec<u8>>, Fault> {
        let loaded = match self.shards.iter().position(|loaded| loaded.digest == *digest) {
            Some(place) => self.shards.remove(place),
            None => self.load(digest)?,
        };
        self.shards.push(loaded);
        match self.shards.last() {
            Some(loaded) => Ok(&loaded.shard),
            None => Err(Fault::Internal("a shard has gone from the shelf".into())),
        }
    }

    fn load(&mut self, digest: &Digest) -> Result<Loaded, Fault> {
        let bytes = load_blob(&hex(digest), SHARD_BYTES_MAX)?;
        let len = bytes.len();
        while self.shards.iter().map(|loaded| loaded.bytes).sum::<usize>() + len > SHELF_BYTES_MAX {
            self.shards.remove(0);
        }
        let shard = Shard::open(bytes).map_err(|error| invalid(error.reason()))?;
        Ok(Loaded { digest: *digest, bytes: len, shard })
    }
}
