//! CBOR (RFC 8949) for control messages and records, with sizes checked first.

use std::convert::Infallible;

use bytes::BytesMut;
use minicbor::encode::Write;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be read as a value.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the place allows.
    #[error("{got} bytes of CBOR where at most {limit} are allowed")]
    TooLarge {
        /// Bytes given.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not CBOR, or not of this shape.
    #[error("not the expected CBOR: {0}")]
    Malformed(String),
    /// A value, and then more.
    #[error("{0} bytes follow the CBOR value")]
    Trailing(usize),
}

/// The CBOR of `value`.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    write(value, &mut bytes);
    bytes
}

/// Appends the CBOR of `value`.
pub fn append<T: Serialize>(out: &mut BytesMut, value: &T) {
    write(value, End(out));
}

/// The value that `bytes` (at most `limit`) hold, whole and alone.
///
/// # Errors
/// What is wrong with them. A length inside is believed no further than the bytes go.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { got: bytes.len(), limit });
    }
    let mut rest = bytes;
    let value = decode_first(&mut rest)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(rest.len())) }
}

/// The first of the values that `rest` holds, which then begins after it.
///
/// # Errors
/// `Malformed`; `rest` is as it was.
pub fn decode_first<T: DeserializeOwned>(rest: &mut &[u8]) -> Result<T, DecodeError> {
    let mut deserializer = minicbor_serde::Deserializer::new(rest);
    let value = T::deserialize(&mut deserializer)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    let read = deserializer.decoder().position();
    *rest = rest.get(read..).unwrap_or_default();
    Ok(value)
}

fn write<T: Serialize, W: Write<Error = Infallible>>(value: &T, out: W) {
    if let Err(error) = value.serialize(&mut minicbor_serde::Serializer::new(out)) {
        unreachable!("memory takes any value of our own types: {error}");
    }
}

/// The end of a buffer.
struct End<'a>(&'a mut BytesMut);

impl Write for End<'_> {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Bare,
        New(u64),
        Pair(i8, String),
        Fields { at: Option<i64>, data: serde_bytes::ByteBuf },
    }

    fn kinds() -> BTreeMap<u32, Vec<Kind>> {
        let some = vec![
            Kind::Bare,
            Kind::New(u64::MAX),
            Kind::Pair(-7, "päir".to_owned()),
            Kind::Fields { at: Some(i64::MIN), data: serde_bytes::ByteBuf::from(vec![0, 255]) },
            Kind::Fields { at: None, data: serde_bytes::ByteBuf::new() },
        ];
        BTreeMap::from([(3, some), (70_000, Vec::new())])
    }

    #[test]
    fn another_library_reads_and_writes_the_same_bytes() {
        let mut theirs = Vec::new();
        ciborium::into_writer(&kinds(), &mut theirs).expect("memory takes it");
        assert_eq!(encode(&kinds()), theirs);
        let read: BTreeMap<u32, Vec<Kind>> = decode(&theirs, 1 << 10).expect("it is whole");
        assert_eq!(read, kinds());
        let mut appended = BytesMut::from(&b"before"[..]);
        append(&mut appended, &kinds());
        assert_eq!(appended.strip_prefix(b"before"), Some(theirs.as_slice()));
    }

    #[test]
    fn a_cut_value_is_refused_at_every_length() {
        let bytes = encode(&kinds());
        for length in 0..bytes.len() {
            let cut = bytes.get(..length).unwrap_or_default();
            let read = decode::<BTreeMap<u32, Vec<Kind>>>(cut, 1 << 10);
            assert!(matches!(read, Err(DecodeError::Malformed(_))), "{length}: {read:?}");
        }
    }

    #[test]
    fn a_length_that_lies_takes_no_memory() {
        // An array of 2^60 numbers, and a text of 2^60 bytes.
        for head in [0x9b, 0x7b] {
            let bytes = [&[head][..], &(1_u64 << 60).to_be_bytes(), &[1]].concat();
            assert!(matches!(decode::<Vec<u64>>(&bytes, 64), Err(DecodeError::Malformed(_))));
            assert!(matches!(decode::<String>(&bytes, 64), Err(DecodeError::Malformed(_))));
        }
    }

    #[test]
    fn values_follow_one_another() {
        let bytes = [encode(&1_u8), encode(&"two")].concat();
        let mut rest = bytes.as_slice();
        assert_eq!(decode_first::<u8>(&mut rest).ok(), Some(1));
        assert!(decode_first::<u8>(&mut rest).is_err());
        assert_eq!(decode_first::<String>(&mut rest).ok().as_deref(), Some("two"));
        assert!(rest.is_empty());
    }

    #[test]
    fn a_deep_value_in_a_field_of_tomorrow_is_passed_over_without_a_deep_stack() {
        #[derive(Debug, Deserialize)]
        struct Known {
            known: u8,
        }
        let deep = [&[0x81; 1 << 20][..], &[0]].concat();
        let head = [encode(&"known"), encode(&9_u8), encode(&"new")].concat();
        let bytes = [&[0xa2][..], &head, &deep].concat();
        let read: Known = decode(&bytes, 2 << 20).expect("what is not known is passed over");
        assert_eq!(read.known, 9);
    }

    #[test]
    fn sizes_and_trailing_bytes_are_refused() {
        let bytes = encode(&(1_u8, "two"));
        assert_eq!(decode::<(u8, String)>(&bytes, 64).ok(), Some((1, "two".to_owned())));
        assert!(decode::<(u8, String)>(&bytes, bytes.len()).is_ok_and(|read| read.0 == 1), "at it");
        assert!(matches!(
            decode::<(u8, String)>(&bytes, 2),
            Err(DecodeError::TooLarge { got: 6, limit: 2 })
        ));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(decode::<(u8, String)>(&longer, 64), Err(DecodeError::Trailing(1))));
    }
}
