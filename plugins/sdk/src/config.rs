//! A policy's configuration: a flat JSON object of whole numbers, `{"choices": 2}`.
//!
//! That is all a policy has needed so far, and a whole JSON reader would be larger
//! than most policies. Keys are plain: a backslash in one is refused.

use crate::{Fault, invalid};

/// The members, in the order in which they stand.
#[derive(Debug, Default)]
pub struct Config {
    members: Vec<(String, u64)>,
}

impl Config {
    /// Reads it and refuses any key but `keys`. No bytes at all are an empty object.
    pub fn parse(bytes: &[u8], keys: &[&str]) -> Result<Self, Fault> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let malformed = || invalid("the configuration is not an object of whole numbers");
        let members = Reader { rest: bytes }.object().ok_or_else(malformed)?;
        match members.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
            Some((key, _)) => {
                Err(Fault::Invalid(["the configuration has an unknown key: ", key].concat()))
            }
            None => Ok(Self { members }),
        }
    }

    /// The number under `key`, `default` where it is absent; it must be in `1..=max`.
    pub fn number(&self, key: &str, default: u64, max: u64) -> Result<u64, Fault> {
        // Of two members with one key the last counts, as in most readers.
        let found = self.members.iter().rev().find(|(name, _)| name == key);
        let number = found.map_or(default, |(_, number)| *number);
        if (1..=max).contains(&number) {
            Ok(number)
        } else {
            Err(invalid("a number of the configuration is out of range"))
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn object(mut self) -> Option<Vec<(String, u64)>> {
        let mut members = Vec::new();
        self.expect(b'{')?;
        if !self.taken(b'}') {
            loop {
                let key = self.key()?;
                self.expect(b':')?;
                members.push((key, self.number()?));
                if self.taken(b'}') {
                    break;
                }
                self.expect(b',')?;
            }
        }
        self.skip_space();
        self.rest.is_empty().then_some(members)
    }

    fn key(&mut self) -> Option<String> {
        self.expect(b'"')?;
        let end = self.rest.iter().position(|byte| *byte == b'"')?;
        let (key, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        if key.iter().any(|byte| *byte == b'\\' || *byte < b' ') {
            return None;
        }
        String::from_utf8(key.to_vec()).ok()
    }

    fn number(&mut self) -> Option<u64> {
        self.skip_space();
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        if digits.is_empty() || (digits[0] == b'0' && digits.len() > 1) {
            return None;
        }
        digits.iter().try_fold(0_u64, |number, digit| {
            number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        })
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.taken(byte).then_some(())
    }

    fn taken(&mut self, byte: u8) -> bool {
        self.skip_space();
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn skip_space(&mut self) {
        while let Some((b' ' | b'\t' | b'\n' | b'\r', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<u64>> {
        let config = Config::parse(text.as_bytes(), &["a", "b"]).ok()?;
        Some(config.members.iter().map(|(_, number)| *number).collect())
    }

    #[test]
    fn flat_objects_of_whole_numbers_are_read() {
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(read(" { } "), Some(vec![]));
        assert_eq!(read("{\"a\":0,\n \"b\" : 18446744073709551615}"), Some(vec![0, u64::MAX]));
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            " ",
            "{",
            "[]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":-1}",
            "{\"a\":1.0}",
            "{\"a\":1e3}",
            "{\"a\":01}",
            "{\"a\":18446744073709551616}",
            "{\"a\":1,}",
            "{\"a\":1} x",
            "{a:1}",
            "{\"c\":1}",
            "{\"\\u0061\":1}",
            "{\"a\":\"1\"}",
            "null",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_have_defaults_and_bounds() {
        let config = Config::parse(b"{\"a\":7,\"a\":8}", &["a", "b"]);
        let number = |key, default, max| config.as_ref().ok()?.number(key, default, max).ok();
        assert_eq!(number("a", 1, 8), Some(8));
        assert_eq!(number("a", 1, 7), None);
        assert_eq!(number("b", 3, 8), Some(3));
    }
}
