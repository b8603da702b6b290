//! What indexing gives: which files were read, and for each word the files that
//! have it.
//!
//! An **entry** is one word: length varint, its bytes, count varint, then for each
//! file id delta varint (the id for the first, the id less the one before less one
//! for the others) and count varint, at least 1. The list of files stands for
//! itself, so that a file without a word is known to have been read, and one that
//! was read twice is seen.

use alloc::vec::Vec;

use crate::bytes::{Ascending, FormatError, Reader, check_word, put_count, put_varint};

const MAGIC: &[u8; 4] = b"QIP1";

/// A file that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileEntry {
    /// Its id.
    pub id: u32,
    /// Its length, bytes.
    pub len: u64,
}

/// How often a word stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// The file.
    pub file: u32,
    /// How often, at least once.
    pub count: u64,
}

/// Postings in the making.
#[derive(Clone, Debug)]
pub struct Postings {
    out: Vec<u8>,
    words_left: usize,
}

impl Postings {
    /// With these files, ascending, and room for as many words.
    pub fn begin(files: &[FileEntry], words: usize) -> Result<Self, FormatError> {
        let (mut out, mut order) = (MAGIC.to_vec(), Ascending::default());
        put_count(&mut out, files.len());
        for file in files {
            order.put(&mut out, file.id)?;
            put_varint(&mut out, file.len);
        }
        put_count(&mut out, words);
        Ok(Self { out, words_left: words })
    }

    /// Appends a word. Words must ascend; the reader refuses them otherwise.
    pub fn word(&mut self, word: &[u8], hits: &[Hit]) -> Result<(), FormatError> {
        self.words_left = self.words_left.checked_sub(1).ok_or(FormatError::Mismatch)?;
        put_entry(&mut self.out, word, hits)
    }

    /// The bytes, when all words have come.
    pub fn finish(self) -> Result<Vec<u8>, FormatError> {
        if self.words_left == 0 { Ok(self.out) } else { Err(FormatError::Mismatch) }
    }
}

/// Postings being read, word by word.
#[derive(Clone, Debug)]
pub struct PostingsReader<'a> {
    reader: Reader<'a>,
    files: Vec<FileEntry>,
    words_left: usize,
    last: &'a [u8],
}

impl<'a> PostingsReader<'a> {
    /// Reads the list of files.
    pub fn new(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::of(MAGIC, bytes)?;
        let count = reader.count()?;
        let (mut files, mut order) = (Vec::with_capacity(count), Ascending::default());
        for _ in 0..count {
            files.push(FileEntry { id: order.read(&mut reader)?, len: reader.varint()? });
        }
        let words_left = reader.count()?;
        Ok(Self { reader, files, words_left, last: &[] })
    }

    /// The files that were read.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The next word with its hits, which are put into `hits`; none at the end.
    pub fn next(&mut self, hits: &mut Vec<Hit>) -> Result<Option<&'a [u8]>, FormatError> {
        if self.words_left == 0 {
            self.reader.end()?;
            return Ok(None);
        }
        self.words_left -= 1;
        let word = self.reader.word()?;
        if word <= self.last {
            return Err(FormatError::Order);
        }
        self.last = word;
        hits.clear();
        read_hits(&mut self.reader, hits)?;
        Ok(Some(word))
    }
}

/// Appends one word with its hits.
pub(crate) fn put_entry(out: &mut Vec<u8>, word: &[u8], hits: &[Hit]) -> Result<(), FormatError> {
    check_word(word)?;
    put_count(out, word.len());
    out.extend_from_slice(word);
    put_hits(out, hits)
}

/// Appends hits.
pub(crate) fn put_hits(out: &mut Vec<u8>, hits: &[Hit]) -> Result<(), FormatError> {
    let mut order = Ascending::default();
    put_count(out, hits.len());
    for hit in hits {
        order.put(out, hit.file)?;
        put_varint(out, hit.count);
    }
    Ok(())
}

/// Reads hits and appends them.
pub(crate) fn read_hits(reader: &mut Reader<'_>, hits: &mut Vec<Hit>) -> Result<(), FormatError> {
    let count = reader.count()?;
    let mut order = Ascending::default();
    hits.reserve(count);
    for _ in 0..count {
        let hit = Hit { file: order.read(reader)?, count: reader.varint()? };
        if hit.count == 0 {
            return Err(FormatError::Number);
        }
        hits.push(hit);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(file: u32, count: u64) -> Hit {
        Hit { file, count }
    }

    #[test]
    fn postings_are_read_as_written() {
        let files = [FileEntry { id: 2, len: 0 }, FileEntry { id: 9, len: 1 << 33 }];
        let mut postings = Postings::begin(&files, 2).unwrap();
        postings.word(b"fn", &[hit(2, 1), hit(9, 700)]).unwrap();
        postings.word(b"main", &[hit(9, 1)]).unwrap();
        let bytes = postings.finish().unwrap();
        let mut reader = PostingsReader::new(&bytes).unwrap();
        let mut hits = Vec::new();
        assert_eq!(reader.files(), files);
        assert_eq!(reader.next(&mut hits), Ok(Some(&b"fn"[..])));
        assert_eq!(hits, [hit(2, 1), hit(9, 700)]);
        assert_eq!(reader.next(&mut hits), Ok(Some(&b"main"[..])));
        assert_eq!(hits, [hit(9, 1)]);
        assert_eq!(reader.next(&mut hits), Ok(None));
    }

    #[test]
    fn disorder_is_refused_by_writer_and_reader() {
        let file = FileEntry { id: 2, len: 0 };
        assert_eq!(Postings::begin(&[file, file], 0).err(), Some(FormatError::Order));
        let mut postings = Postings::begin(&[file], 2).unwrap();
        assert_eq!(postings.word(b"no-word", &[]), Err(FormatError::Word));
        let mut postings = Postings::begin(&[file], 2).unwrap();
        postings.word(b"b", &[hit(2, 1)]).unwrap();
        assert_eq!(postings.clone().finish(), Err(FormatError::Mismatch));
        postings.word(b"a", &[hit(2, 1)]).unwrap();
        assert_eq!(postings.word(b"c", &[hit(2, 1)]), Err(FormatError::Mismatch));
    }

    #[test]
    fn cut_bytes_are_refused_wherever_the_cut_is() {
        let mut postings = Postings::begin(&[FileEntry { id: 0, len: 9 }], 2).unwrap();
        postings.word(b"alpha", &[hit(0, 2)]).unwrap();
        postings.word(b"beta", &[hit(0, 200)]).unwrap();
        let bytes = postings.finish().unwrap();
        let read = |bytes: &[u8]| -> Result<usize, FormatError> {
            let (mut reader, mut hits) = (PostingsReader::new(bytes)?, Vec::new());
            let mut words = 0;
            while reader.next(&mut hits)?.is_some() {
                words += 1;
            }
            Ok(words)
        };
        assert_eq!(read(&bytes), Ok(2));
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "cut at {len}");
        }
        assert_eq!(read(&[&bytes[..], b"x"].concat()), Err(FormatError::Trailing));
    }
}
