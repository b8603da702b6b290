//! The shared generator, as the trait wants one.

use std::convert::Infallible;

use quorate_types::rng::Rng;

/// A stream of its own for whoever asks, drawn from the run's.
#[derive(Clone, Debug)]
pub(crate) struct SimRng(Rng);

impl SimRng {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }
}

impl rand::rand_core::TryRng for SimRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.0.next_u64() >> 32).unwrap_or(u32::MAX))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.0.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}
