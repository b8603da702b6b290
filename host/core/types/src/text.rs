//! Text that others wrote, cut to a bound.

/// As much of `text` as fits `bytes_max` bytes, cut at a character's boundary.
pub fn clipped(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let cut = |bytes_max| clipped("aéz".to_owned(), bytes_max);
        assert_eq!([0, 1, 2, 3, 4, 9].map(cut), ["", "a", "a", "aé", "aéz", "aéz"]);
    }
}
