//! CBOR (RFC 8949) for control messages and records, with sizes checked first.

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

/// How deep a value may nest; ours nest fewer than ten levels.
const DEPTH_MAX: usize = 32;

/// The CBOR of `value`.
///
/// # Panics
/// Never for types of this workspace: writing to memory does not fail, and no
/// type of ours has a map key that CBOR cannot express.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    if let Err(error) = ciborium::into_writer(value, &mut bytes) {
        unreachable!("a value of our own types has no CBOR: {error}");
    }
    bytes
}

/// The value that `bytes` (at most `limit`) hold, whole and alone.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge { got: bytes.len(), limit });
    }
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH_MAX)
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_trailing_bytes_are_refused() {
        let bytes = encode(&(1_u8, "two"));
        assert_eq!(decode::<(u8, String)>(&bytes, 64).ok(), Some((1, "two".to_owned())));
        assert!(matches!(
            decode::<(u8, String)>(&bytes, 2),
            Err(DecodeError::TooLarge { got: 6, limit: 2 })
        ));
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(decode::<(u8, String)>(&longer, 64), Err(DecodeError::Trailing(1))));
    }
}
