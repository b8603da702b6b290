//! An agent as its author sees it: work in, payload or fault out.

use crate::{Fault, invalid};

pub use crate::bindings::agent::exports::quorate::agent::working as contract;
pub use crate::bindings::agent::exports::quorate::agent::working::{Kind, Payload, Work};
pub use crate::bindings::agent::quorate::host::{clock, log, random};

use crate::bindings::agent::quorate::host::blobs;

/// Results up to this many bytes go inline; the contract allows 64 KiB in a task, and
/// the rest is left to the envelope.
pub const INLINE_BYTES_MAX: usize = 60 * 1024;

/// One read or write of a blob, bytes; the host gives at most 1 MiB.
const CHUNK_BYTES: u32 = 256 * 1024;

/// A worker. One instance does one piece of work at a time and may keep what it likes
/// between them; the host may drop it at any time.
pub trait Agent: Sized + 'static {
    /// Its name.
    const NAME: &'static str;
    /// The names under which tasks and calls find it.
    const CAPABILITIES: &'static [&'static str];

    /// A new instance.
    fn start() -> Self;

    /// Does one piece of work.
    fn handle(&mut self, work: Work) -> Result<Payload, Fault>;
}

/// The bytes of a payload that must fit into memory: at most `bytes_max`.
pub fn load(payload: Payload, bytes_max: usize) -> Result<Vec<u8>, Fault> {
    match payload {
        Payload::Inline(bytes) => Ok(bytes),
        Payload::Blob((digest, _)) => load_blob(&digest, bytes_max),
    }
}

/// A whole blob of at most `bytes_max`.
pub fn load_blob(digest: &str, bytes_max: usize) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let reader = blobs::Reader::open(digest)?;
    match usize::try_from(reader.size()) {
        Ok(size) if size <= bytes_max => bytes.reserve_exact(size),
        _ => return Err(invalid("the blob is larger than this agent reads")),
    }
    loop {
        let chunk = reader.read(CHUNK_BYTES)?;
        if chunk.is_empty() {
            return Ok(bytes);
        }
        if bytes.len() + chunk.len() > bytes_max {
            return Err(invalid("the blob is larger than this agent reads"));
        }
        bytes.extend_from_slice(&chunk);
    }
}

/// Reads a blob from beginning to end, and gives its chunks to `each`.
pub fn read_blob(digest: &str, mut each: impl FnMut(&[u8])) -> Result<(), Fault> {
    let reader = blobs::Reader::open(digest)?;
    loop {
        let chunk = reader.read(CHUNK_BYTES)?;
        if chunk.is_empty() {
            return Ok(());
        }
        each(&chunk);
    }
}

/// A result: inline where it is small, else written as a blob.
pub fn reply(bytes: Vec<u8>) -> Result<Payload, Fault> {
    if bytes.len() <= INLINE_BYTES_MAX {
        return Ok(Payload::Inline(bytes));
    }
    let writer = blobs::Writer::create()?;
    for chunk in bytes.chunks(CHUNK_BYTES as usize) {
        writer.write(chunk)?;
    }
    let digest = blobs::Writer::finish(writer)?;
    Ok(Payload::Blob((digest, bytes.len() as u64)))
}

/// What `describe` says of an agent.
#[doc(hidden)]
pub fn descriptor<A: Agent>() -> contract::Descriptor {
    contract::Descriptor {
        name: A::NAME.into(),
        capabilities: A::CAPABILITIES.iter().map(|name| (*name).into()).collect(),
    }
}

/// Makes a component of a type that implements [`agent::Agent`](crate::agent::Agent).
#[macro_export]
macro_rules! export_agent {
    ($agent:ty) => {
        std::thread_local! {
            // The guest has one thread, so this is the instance.
            static QUORATE_AGENT: std::cell::RefCell<Option<$agent>> =
                const { std::cell::RefCell::new(None) };
        }

        #[doc(hidden)]
        struct QuorateComponent;

        impl $crate::agent::contract::Guest for QuorateComponent {
            fn describe() -> $crate::agent::contract::Descriptor {
                $crate::agent::descriptor::<$agent>()
            }

            fn handle(
                work: $crate::agent::Work,
            ) -> Result<$crate::agent::Payload, $crate::Fault> {
                QUORATE_AGENT.with_borrow_mut(|agent| {
                    let agent =
                        agent.get_or_insert_with(<$agent as $crate::agent::Agent>::start);
                    $crate::agent::Agent::handle(agent, work)
                })
            }
        }

        $crate::exported::agent::export_agent!(
            QuorateComponent with_types_in $crate::exported::agent
        );
    };
}
