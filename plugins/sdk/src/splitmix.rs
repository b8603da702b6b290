//! The generator that the balancer contract names: SplitMix64.

/// A stream of random numbers that the seed decides.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    /// Where the stream stands; the seed at first.
    pub state: u64,
}

impl SplitMix64 {
    /// The stream of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`: the upper 64 bits of the 128-bit product of one draw and
    /// `bound`. WebAssembly has no such product; with 32 bits of `bound` the two halves
    /// of the draw give it exactly.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        let draw = self.draw();
        let bound = u64::from(bound);
        let low = (draw & 0xffff_ffff) * bound;
        let high = (draw >> 32) * bound + (low >> 32);
        (high >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_products_are_the_whole_one() {
        let mut halves = SplitMix64::new(1_234_567);
        let mut whole = halves.clone();
        assert_eq!(whole.clone().draw(), 6_457_827_717_110_365_317, "Vigna's reference value");
        for bound in [1, 2, 3, 5, 1_000, 65_537, u32::MAX - 1, u32::MAX] {
            for _ in 0..1_000 {
                let expected = (u128::from(whole.draw()) * u128::from(bound)) >> 64;
                assert_eq!(u128::from(halves.below(bound)), expected);
            }
        }
    }
}
