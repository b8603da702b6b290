//! What a node gives its HTTP door.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use quorate_types::Digest;

/// The bearer token, kept as its SHA-256.
#[derive(Clone)]
pub struct Secret(Digest);

impl Secret {
    /// Of this token.
    pub fn new(token: &str) -> Self {
        Self(Digest::of(token.as_bytes()))
    }

    /// Whether `token` is the one. Digests are compared whole, so that neither the length nor a
    /// common prefix shows in the time it takes.
    pub(crate) fn is(&self, token: &[u8]) -> bool {
        let given = Digest::of(token);
        let differing = self.0.0.iter().zip(given.0).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Options of [`serve`](crate::serve). There is no way to serve without a token.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// What callers must show.
    pub token: Secret,
    /// Host names (without ports) that a request may come by.
    pub allowed_hosts: Vec<String>,
    /// Policies that ship with the node, by name.
    pub builtins: BTreeMap<String, Bytes>,
    /// A JSON body, bytes. A full command (2 MiB) whose inputs are all base64 fits.
    pub json_bytes_max: u64,
    /// A policy component, bytes. The Rust and C toolchains make some tens of kB, JavaScript and
    /// Python components that carry an engine some ten MB.
    pub component_bytes_max: u64,
    /// Bytes of blobs and components being received or sent, over all requests; whoever comes
    /// next waits. Four of the largest.
    pub blob_bytes_in_hand_max: u64,
    /// Connections at once; the next waits in the kernel's queue. A long poll holds one, so this
    /// is also the number of outside workers of a node.
    pub connections_max: usize,
    /// Event streams and watches at once; the next is refused.
    pub streams_max: usize,
    /// Native streams at once; the next is refused. Each holds at most some MB.
    pub links_max: usize,
}

impl ApiOptions {
    /// With this token, for loopback.
    pub fn new(token: &str) -> Self {
        Self {
            token: Secret::new(token),
            allowed_hosts: ["127.0.0.1", "localhost", "[::1]"].map(str::to_owned).into(),
            builtins: BTreeMap::new(),
            json_bytes_max: 4 << 20,
            component_bytes_max: 32 << 20,
            blob_bytes_in_hand_max: 256 << 20,
            connections_max: 1024,
            streams_max: 256,
            links_max: 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let secret = Secret::new("correct horse");
        assert!(secret.is(b"correct horse"));
        for other in ["", "correct", "correct horse ", "correct hors"] {
            assert!(!secret.is(other.as_bytes()), "{other:?}");
        }
        assert_eq!(format!("{secret:?}"), "Secret", "a token never reaches a log");
    }
}
