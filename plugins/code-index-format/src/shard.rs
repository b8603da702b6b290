//! An index shard: the words of one part of the index, searched where they lie.
//!
//! Which shard a word is in, its hash decides (FNV-1a, 64 bits, modulo the number of
//! shards), so that a searcher loads only what a query needs. The offsets count
//! from the first entry; words ascend, so a lookup is a binary search over the
//! bytes as loaded, and loading costs nothing beyond the bytes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::bytes::{FormatError, Reader};
use crate::postings::{FileEntry, Hit, PostingsReader, put_entry, read_hits};

const MAGIC: &[u8; 4] = b"QIS1";
const HEAD_LEN: usize = 16;

/// Which of `shards` shards a word is in.
pub fn shard_of(word: &[u8], shards: u32) -> u32 {
    let hash = word.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // What is below a u32 is one.
    u32::try_from(hash % u64::from(shards.max(1))).unwrap_or(0)
}

/// A shard over its bytes, owned or borrowed.
#[derive(Clone, Debug)]
pub struct Shard<B> {
    bytes: B,
    number: u32,
    shards: u32,
    words: usize,
}

impl<B: AsRef<[u8]>> Shard<B> {
    /// Reads the head; entries are checked when they are looked up.
    pub fn open(bytes: B) -> Result<Self, FormatError> {
        let mut reader = Reader::of(MAGIC, bytes.as_ref())?;
        let (number, shards) = (reader.u32()?, reader.u32()?);
        let words = usize::try_from(reader.u32()?).map_err(|_| FormatError::Number)?;
        if number >= shards {
            return Err(FormatError::Number);
        }
        if words > reader.left() / 4 {
            return Err(FormatError::Short);
        }
        Ok(Self { bytes, number, shards, words })
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How many shards the index has.
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// How many words are in it.
    pub fn words(&self) -> usize {
        self.words
    }

    /// The word at a place, and its hits.
    pub fn entry(&self, place: usize) -> Result<(&[u8], Vec<Hit>), FormatError> {
        let mut reader = self.at(place)?;
        let word = reader.word()?;
        let mut hits = Vec::new();
        read_hits(&mut reader, &mut hits)?;
        Ok((word, hits))
    }

    /// The files that have this word, ascending; none when no file has it.
    pub fn find(&self, word: &[u8]) -> Result<Vec<Hit>, FormatError> {
        let (mut low, mut high) = (0, self.words);
        while low < high {
            let middle = low + (high - low) / 2;
            let mut reader = self.at(middle)?;
            match reader.word()?.cmp(word) {
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
                core::cmp::Ordering::Equal => {
                    let mut hits = Vec::new();
                    read_hits(&mut reader, &mut hits)?;
                    return Ok(hits);
                }
            }
        }
        Ok(Vec::new())
    }

    fn at(&self, place: usize) -> Result<Reader<'_>, FormatError> {
        let table = self.bytes.as_ref().get(HEAD_LEN..).ok_or(FormatError::Short)?;
        let (offsets, entries) =
            table.split_at_checked(4 * self.words).ok_or(FormatError::Short)?;
        let mut offsets = Reader::new(offsets);
        offsets.take(4 * place)?;
        let offset = usize::try_from(offsets.u32()?).map_err(|_| FormatError::Number)?;
        entries.get(offset..).map(Reader::new).ok_or(FormatError::Short)
    }
}

/// Merges postings into `shards` shards, and gives the files that they cover.
///
/// Every file must be in exactly one of the postings: the same file in two of them
/// is [`FormatError::Order`], and means that work was applied twice.
pub fn merge<'a>(
    postings: impl IntoIterator<Item = &'a [u8]>,
    shards: u32,
) -> Result<(Vec<Vec<u8>>, Vec<FileEntry>), FormatError> {
    let mut index: Vec<BTreeMap<&'a [u8], Vec<Hit>>> = Vec::new();
    index.resize_with(shards.max(1) as usize, BTreeMap::new);
    let (mut files, mut hits) = (Vec::new(), Vec::new());
    for bytes in postings {
        let mut reader = PostingsReader::new(bytes)?;
        files.extend_from_slice(reader.files());
        while let Some(word) = reader.next(&mut hits)? {
            let shard = &mut index[shard_of(word, shards) as usize];
            shard.entry(word).or_default().extend_from_slice(&hits);
        }
    }
    files.sort_unstable();
    if files.windows(2).any(|pair| pair[0].id == pair[1].id) {
        return Err(FormatError::Order);
    }
    let encoded = index.into_iter().zip(0..).map(|(words, number)| encode(number, shards, words));
    Ok((encoded.collect::<Result<_, _>>()?, files))
}

fn encode(
    number: u32,
    shards: u32,
    words: BTreeMap<&[u8], Vec<Hit>>,
) -> Result<Vec<u8>, FormatError> {
    let number_of = |len: usize| u32::try_from(len).map_err(|_| FormatError::Number);
    let mut entries = Vec::new();
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&shards.max(1).to_le_bytes());
    out.extend_from_slice(&number_of(words.len())?.to_le_bytes());
    for (word, mut hits) in words {
        out.extend_from_slice(&number_of(entries.len())?.to_le_bytes());
        hits.sort_unstable();
        put_entry(&mut entries, word, &hits)?;
    }
    out.append(&mut entries);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postings::Postings;
    use alloc::vec;

    fn postings(file: u32, words: &[(&[u8], u64)]) -> Vec<u8> {
        let mut out = Postings::begin(&[FileEntry { id: file, len: 10 }], words.len()).unwrap();
        for (word, count) in words {
            out.word(word, &[Hit { file, count: *count }]).unwrap();
        }
        out.finish().unwrap()
    }

    #[test]
    fn merged_words_are_found_in_their_shard() {
        let tasks =
            [postings(7, &[(b"alpha", 2), (b"beta", 1)]), postings(3, &[(b"beta", 5), (b"x", 1)])];
        let (shards, files) = merge(tasks.iter().map(Vec::as_slice), 4).unwrap();
        assert_eq!(files.iter().map(|file| file.id).collect::<Vec<_>>(), [3, 7]);
        let find = |word: &[u8]| {
            let shard = Shard::open(&shards[shard_of(word, 4) as usize]).unwrap();
            assert_eq!((shard.number(), shard.shards()), (shard_of(word, 4), 4));
            shard.find(word).unwrap()
        };
        assert_eq!(find(b"beta"), [Hit { file: 3, count: 5 }, Hit { file: 7, count: 1 }]);
        assert_eq!(find(b"alpha"), [Hit { file: 7, count: 2 }]);
        assert_eq!(find(b"gamma"), []);
        let words: usize = shards.iter().map(|bytes| Shard::open(bytes).unwrap().words()).sum();
        assert_eq!(words, 3);
    }

    #[test]
    fn the_order_of_tasks_does_not_show() {
        let tasks: Vec<_> = (0..20).map(|file| postings(file, &[(b"w", 1), (b"z", 2)])).collect();
        let forward = merge(tasks.iter().map(Vec::as_slice), 3).unwrap();
        let backward = merge(tasks.iter().rev().map(Vec::as_slice), 3).unwrap();
        assert_eq!(forward, backward);
    }

    #[test]
    fn a_file_applied_twice_is_refused() {
        let task = postings(7, &[(b"alpha", 2)]);
        assert_eq!(merge([&task[..], &task[..]], 2), Err(FormatError::Order));
    }

    #[test]
    fn broken_shards_are_refused_at_the_door_or_at_the_word() {
        let (shards, _) = merge([&postings(1, &[(b"alpha", 2)])[..]], 1).unwrap();
        for len in 0..shards[0].len() {
            let cut = Shard::open(&shards[0][..len]).and_then(|shard| shard.find(b"alpha"));
            assert!(cut.is_err(), "cut at {len}");
        }
        let mut wild = shards[0].clone();
        wild[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Shard::open(&wild).unwrap().find(b"alpha"), Err(FormatError::Short));
        assert_eq!(Shard::open(vec![0; 40]).err(), Some(FormatError::Magic));
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the reference tables of Fowler, Noll and Vo.
        assert_eq!(
            0x85944171f73967e8_u64 % u64::from(u32::MAX),
            shard_of(b"foobar", u32::MAX).into()
        );
    }
}
