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

    #[test]
    fn no_smaller_set_would_do() {
        for voters in 1..=9 {
            assert!(2 * (majority(voters) - 1) <= voters, "{voters}");
        }
        assert_eq!([1, 3, 5, 7].map(majority), [1, 2, 3, 4]);
    }
}
