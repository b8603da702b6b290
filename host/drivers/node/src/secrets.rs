//! Keys and tokens: files that only their owner can read, and the system's entropy.

use std::path::Path;

use quorate_types::Digest;

use crate::node::StartError;

/// A fresh node key: an ed25519 seed from the system's entropy, as hexadecimal digits.
pub fn new_key() -> String {
    Digest(entropy::<32>()).to_string()
}

/// The peer id of a key as [`new_key`] gives it.
pub fn peer_id_of(key: &str) -> Option<String> {
    key.trim().parse::<Digest>().ok().map(|seed| quorate_transport::peer_id_of(&seed.0))
}

pub(crate) fn entropy<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Without entropy there is no key and no identity; nothing sensible can go on.
        panic!("the system gives no entropy: {error}");
    }
    bytes
}

pub(crate) fn read_key(file: &Path) -> Result<[u8; 32], StartError> {
    let bad = |reason: String| StartError::File { file: file.to_owned(), reason };
    refuse_open_file(file)?;
    let text = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    let seed: Digest = text
        .trim()
        .parse()
        .map_err(|_bad| bad("a node key is 64 hexadecimal digits".to_owned()))?;
    Ok(seed.0)
}

/// Refuses a secret that others can read.
fn refuse_open_file(file: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::PermissionsExt as _;
    let bad = |reason: String| StartError::File { file: file.to_owned(), reason };
    let mode =
        std::fs::metadata(file).map_err(|error| bad(error.to_string()))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(bad(format!(
        "its mode is {:o}, so others can read it; type `chmod 600 {}`",
        mode & 0o777,
        file.display()
    )))
}

/// Reads a bearer token from a file that only its owner can read.
pub fn read_token(file: &Path) -> Result<String, StartError> {
    let bad = |reason: String| StartError::File { file: file.to_owned(), reason };
    refuse_open_file(file)?;
    let token = std::fs::read_to_string(file).map_err(|error| bad(error.to_string()))?;
    let token = token.trim().to_owned();
    if token.len() < 16 {
        return Err(bad("a token has at least 16 characters".to_owned()));
    }
    Ok(token)
}
