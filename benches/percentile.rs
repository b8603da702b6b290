//! Percentiles by nearest rank: always a value that was measured.

/// The smallest of the values, which ascend, that at least `per_cent` in a hundred of
/// them do not exceed. None of none.
pub fn percentile<T: Copy>(ascending: &[T], per_cent: usize) -> Option<T> {
    let rank = (ascending.len() * per_cent).div_ceil(100).max(1);
    ascending.get(rank.min(ascending.len()).checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), Some(50));
        assert_eq!(percentile(&hundred, 99), Some(99));
        assert_eq!(percentile(&hundred, 100), Some(100));
        assert_eq!(percentile(&[7, 9], 50), Some(7));
        assert_eq!(percentile(&[7, 9], 99), Some(9));
        assert_eq!(percentile(&[7], 0), Some(7));
        assert_eq!(percentile::<u32>(&[], 50), None);
    }
}
