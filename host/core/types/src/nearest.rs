//! "Did you mean": the known word closest to one that is not known.

/// The word of `known` that needs the fewest edits to become `word`, if a third of its letters
/// suffice; the first of several. An edit inserts, deletes, replaces, or swaps two neighbours
/// (optimal string alignment).
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters: Vec<char> = word.chars().flat_map(char::to_lowercase).collect();
    let (distance, found) = known
        .into_iter()
        .map(|candidate| (edits(&letters, &candidate.chars().collect::<Vec<_>>()), candidate))
        .min_by_key(|(distance, _candidate)| *distance)?;
    (distance <= letters.len().div_ceil(3)).then_some(found)
}

fn edits(from: &[char], to: &[char]) -> usize {
    // Three rows of the table: a swap of neighbours looks two rows back.
    let mut older = vec![0; to.len() + 1];
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1; to.len() + 1];
        for (j, b) in to.iter().enumerate() {
            let replaced = above[j] + usize::from(a != b);
            row[j + 1] = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                row[j + 1] = row[j + 1].min(older[j - 1] + 1);
            }
        }
        older = std::mem::replace(&mut above, row);
    }
    above[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{edits, nearest};

    #[test]
    fn it_forgives_a_slip_and_nothing_more() {
        let known = ["namespace", "queue", "priority", "input"];
        assert_eq!(nearest("prioritty", known), Some("priority"));
        assert_eq!(nearest("qeueu", known), Some("queue"), "two swaps are two edits");
        assert_eq!(nearest("Input", known), Some("input"), "case is no edit");
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", []), None);
    }

    /// The definition, without a table.
    fn by_definition(from: &[char], to: &[char]) -> usize {
        let ([before @ .., last], [to_before @ .., to_last]) = (from, to) else {
            return from.len().max(to.len());
        };
        let replaced = by_definition(before, to_before) + usize::from(last != to_last);
        let deleted = by_definition(before, to) + 1;
        let inserted = by_definition(from, to_before) + 1;
        let best = replaced.min(deleted).min(inserted);
        match (before, to_before) {
            ([rest @ .., one], [to_rest @ .., to_one]) if one == to_last && to_one == last => {
                best.min(by_definition(rest, to_rest) + 1)
            }
            _no_swap => best,
        }
    }

    #[test]
    fn the_table_is_what_the_definition_says() {
        let mut words = vec![Vec::new()];
        for length in 1..=4_u32 {
            for number in 0..3_u32.pow(length) {
                let digit = |place| char::from_digit(number / 3_u32.pow(place) % 3, 3);
                words.push((0..length).filter_map(digit).collect::<Vec<_>>());
            }
        }
        for from in &words {
            for to in &words {
                assert_eq!(edits(from, to), by_definition(from, to), "{from:?} {to:?}");
            }
        }
    }
}
