//! What is asked of a searcher, and what it answers.

use alloc::vec::Vec;

use crate::Digest;
use crate::bytes::{FormatError, Reader, put_count};
use crate::postings::{Hit, put_hits, read_hits};

const QUERY_MAGIC: &[u8; 4] = b"QIQ1";
const ANSWER_MAGIC: &[u8; 4] = b"QIA1";

/// Words to look up in an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// All shards of the index, in the order of their numbers. Only those that a word is
    /// in are loaded.
    pub shards: Vec<Digest>,
    /// The words.
    pub words: Vec<Vec<u8>>,
}

impl Query {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = QUERY_MAGIC.to_vec();
        put_count(&mut out, self.shards.len());
        out.extend(self.shards.iter().flatten());
        put_count(&mut out, self.words.len());
        for word in &self.words {
            put_count(&mut out, word.len());
            out.extend_from_slice(word);
        }
        out
    }

    /// A query from its bytes. It has at least one shard, and its words are words.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut reader = Reader::of(QUERY_MAGIC, bytes)?;
        let mut query = Self::default();
        for _ in 0..reader.count()? {
            query.shards.push(reader.array()?);
        }
        for _ in 0..reader.count()? {
            query.words.push(reader.word()?.to_vec());
        }
        reader.end()?;
        if query.shards.is_empty() { Err(FormatError::Mismatch) } else { Ok(query) }
    }
}

/// The bytes of an answer: the hits of each word, in the order of the query.
pub fn encode_answer(answer: &[Vec<Hit>]) -> Result<Vec<u8>, FormatError> {
    let mut out = ANSWER_MAGIC.to_vec();
    put_count(&mut out, answer.len());
    for hits in answer {
        put_hits(&mut out, hits)?;
    }
    Ok(out)
}

/// An answer from its bytes.
pub fn decode_answer(bytes: &[u8]) -> Result<Vec<Vec<Hit>>, FormatError> {
    let mut reader = Reader::of(ANSWER_MAGIC, bytes)?;
    let count = reader.count()?;
    let mut answer = Vec::with_capacity(count);
    for _ in 0..count {
        let mut hits = Vec::new();
        read_hits(&mut reader, &mut hits)?;
        answer.push(hits);
    }
    reader.end()?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn query_and_answer_are_read_as_written() {
        let query =
            Query { shards: vec![[1; 32], [2; 32]], words: vec![b"fn".to_vec(), b"x_1".to_vec()] };
        assert_eq!(Query::decode(&query.encode()), Ok(query));
        let answer = vec![vec![], vec![Hit { file: 0, count: 1 }, Hit { file: 8, count: 99 }]];
        assert_eq!(decode_answer(&encode_answer(&answer).unwrap()), Ok(answer));
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        let word = |word: &[u8]| Query { shards: vec![[0; 32]], words: vec![word.to_vec()] };
        assert_eq!(Query::decode(&word(b"a b").encode()), Err(FormatError::Word));
        assert_eq!(Query::decode(&word(b"").encode()), Err(FormatError::Word));
        assert_eq!(Query::decode(&word(&[b'a'; 65]).encode()), Err(FormatError::Word));
        assert_eq!(Query::decode(&Query::default().encode()), Err(FormatError::Mismatch));
    }
}
