//! The seeded generator that all rooms share: `SplitMix64` (Steele, Lea, Flood,
//! OOPSLA 2014). Small, fast, passes `BigCrush`; not for secrets.

/// A `SplitMix64` stream.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of this seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Where the stream stands: `Rng::new` of it goes on from here.
    pub const fn state(&self) -> u64 {
        self.0
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound` by multiply-shift (Lemire 2019, without rejection:
    /// the bias is below `bound` / 2^64). `bound` must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing lies below zero");
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// True with probability `ppm` in a million.
    pub fn chance(&mut self, ppm: u32) -> bool {
        self.below(1_000_000) < u64::from(ppm)
    }

    /// An independent stream, for a part that must not disturb this one.
    pub fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_splitmix64() {
        let mut rng = Rng::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        // The reference values of the public-domain C code by Vigna.
        assert_eq!(
            drawn,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn a_chance_is_as_large_as_it_is_said_to_be() {
        let mut rng = Rng::new(7);
        let mut hits = |ppm, draws: u32| (0..draws).filter(|_| rng.chance(ppm)).count();
        assert_eq!(hits(0, 10_000_000), 0, "never");
        assert_eq!(hits(1_000_000, 100_000), 100_000, "always");
        assert!((4_700..5_300).contains(&hits(50_000, 100_000)), "one in twenty");
    }

    #[test]
    fn a_stream_goes_on_from_its_state_and_a_fork_is_another() {
        let mut rng = Rng::new(9);
        rng.next_u64();
        let mut same = Rng::new(rng.state());
        assert_eq!(same.next_u64(), rng.next_u64());
        assert_ne!(rng.fork().next_u64(), rng.next_u64());
    }
}
