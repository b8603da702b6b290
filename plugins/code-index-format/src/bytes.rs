//! Reading and writing the few shapes that all formats share.

use alloc::vec::Vec;
use core::fmt;

/// Why bytes are not of the format they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// They begin otherwise.
    Magic,
    /// They end too early.
    Short,
    /// Something follows the end.
    Trailing,
    /// A number does not fit where it stands.
    Number,
    /// A list that must ascend does not.
    Order,
    /// A word that is empty, too long or has other bytes.
    Word,
    /// Parts that do not belong together.
    Mismatch,
}

impl FormatError {
    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Magic => "the bytes are of another format",
            Self::Short => "the bytes end too early",
            Self::Trailing => "bytes follow the end",
            Self::Number => "a number does not fit where it stands",
            Self::Order => "a list does not ascend",
            Self::Word => "a word is empty, too long or has other bytes",
            Self::Mismatch => "the parts do not belong together",
        }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl core::error::Error for FormatError {}

/// Appends a number.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends the number of items in a list.
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    put_varint(out, count as u64);
}

/// The rest of what is being read.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// After the four bytes of a format.
    pub(crate) fn of(magic: &[u8; 4], bytes: &'a [u8]) -> Result<Self, FormatError> {
        match bytes.strip_prefix(magic) {
            Some(rest) => Ok(Self { rest }),
            None => Err(FormatError::Magic),
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(FormatError::Short)?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(FormatError::Short)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, FormatError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(FormatError::Short)?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            // The shortest form is the only one: no empty last byte, no bit beyond 64.
            if (shift > 0 && *byte == 0) || (bits << shift) >> shift != bits {
                return Err(FormatError::Number);
            }
            number |= bits << shift;
            if *byte < 0x80 {
                return Ok(number);
            }
        }
        Err(FormatError::Number)
    }

    /// A number of items that follow; each has at least one byte, so that a lie about it
    /// cannot make the reader allocate more than it was given.
    pub(crate) fn count(&mut self) -> Result<usize, FormatError> {
        let count = usize::try_from(self.varint()?).map_err(|_| FormatError::Number)?;
        if count > self.rest.len() { Err(FormatError::Short) } else { Ok(count) }
    }

    pub(crate) fn word(&mut self) -> Result<&'a [u8], FormatError> {
        let len = self.count()?;
        let word = self.take(len)?;
        check_word(word)?;
        Ok(word)
    }

    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn end(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Trailing) }
    }
}

/// Whether these bytes are a word.
pub(crate) fn check_word(word: &[u8]) -> Result<(), FormatError> {
    let fits = (1..=crate::WORD_BYTES_MAX).contains(&word.len());
    if fits && word.iter().all(|byte| crate::is_word_byte(*byte)) {
        Ok(())
    } else {
        Err(FormatError::Word)
    }
}

/// File ids ascend and are written as what they are above the one before, less one
/// after the first, so that no two can be equal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ascending {
    next: u64,
}

impl Ascending {
    pub(crate) fn put(&mut self, out: &mut Vec<u8>, id: u32) -> Result<(), FormatError> {
        let delta = u64::from(id).checked_sub(self.next).ok_or(FormatError::Order)?;
        put_varint(out, delta);
        self.next = u64::from(id) + 1;
        Ok(())
    }

    pub(crate) fn read(&mut self, reader: &mut Reader<'_>) -> Result<u32, FormatError> {
        let id = reader.varint()?.checked_add(self.next).ok_or(FormatError::Number)?;
        self.next = id + 1;
        u32::try_from(id).map_err(|_| FormatError::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(number));
            assert_eq!(reader.end(), Ok(()));
        }
        assert_eq!(Reader::new(&[0x80, 0]).varint(), Err(FormatError::Number), "padded");
        assert_eq!(Reader::new(&[0xff; 11]).varint(), Err(FormatError::Number), "too long");
        let mut beyond = [0xff; 10];
        beyond[9] = 2;
        assert_eq!(Reader::new(&beyond).varint(), Err(FormatError::Number), "bit 64");
        assert_eq!(Reader::new(&[0x80]).varint(), Err(FormatError::Short));
    }

    #[test]
    fn a_count_cannot_promise_more_than_there_is() {
        assert_eq!(Reader::new(&[3, 0, 0]).count(), Err(FormatError::Short));
        assert_eq!(Reader::new(&[2, 0, 0]).count(), Ok(2));
    }
}
