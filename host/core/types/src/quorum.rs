//! Quorum arithmetic.

/// The smallest majority of `voters` crash-prone voters (Raft): ⌊n/2⌋ + 1.
pub const fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

#[cfg(test)]
mod tests {
    use super::majority;

    #[test]
    fn any_two_majorities_meet() {
        for voters in 1..=9 {
            assert!(2 * majority(voters) > voters, "{voters}");
        }
    }
}
