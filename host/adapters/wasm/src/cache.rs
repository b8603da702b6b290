//! Compiled components on disk, so that a restart does not compile.
//!
//! To load native code is to trust it wholly. So a file is read only if it carries a
//! seal, HMAC-SHA256 (RFC 2104) over its name's parts and its bytes, under a key that
//! was drawn here and lies beside the files, both with mode 0600 in a directory with mode 0700:
//! whoever can write the key can already run as us. A file that was copied in,
//! renamed, cut or flipped is removed and compiled again. A cache can only save
//! time: whatever fails here is logged, and the compiler does the work.

use std::fs::{File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use hmac::{Hmac, KeyInit as _, Mac as _};
use quorate_types::Digest;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::trap::reason;

/// Before everything in a sealed file; a new format is a new label.
const LABEL: &[u8] = b"quorate compiled component 1\n";

const SEAL_BYTES: usize = 32;
/// One block of SHA-256, which HMAC takes as it is.
const KEY_BYTES: usize = 64;
const KEY_NAME: &str = "seal.key";
const SUFFIX: &str = "cwasm";

/// Files kept; the oldest leave first. Several times what one node runs at once.
const FILES_MAX: usize = 256;

/// Largest file that is read, bytes. Native code is a few times the component's 32 MiB at most.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Why a cache directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The directory.
    #[error("the cache directory {path} could not be made or read")]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key file.
    #[error("the key {path} could not be made or read")]
    Key {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "{path} has mode {mode:03o}, so that others could plant compiled code; remove the \
         directory, or set mode {wanted:03o} if you trust its content"
    )]
    Loose {
        /// What.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it must have.
        wanted: u32,
    },
    /// The key file is not a key.
    #[error("the key {path} has {got} bytes instead of 64; remove the directory it is in")]
    NotKey {
        /// Where.
        path: PathBuf,
        /// Its size, bytes.
        got: usize,
    },
    /// No entropy.
    #[error("the system gave no random bytes for a key: {0}")]
    Entropy(String),
}

/// A directory of sealed, compiled components. Shared by all engines of a process.
pub struct CompileCache {
    directory: PathBuf,
    key: [u8; KEY_BYTES],
    temporaries: AtomicU64,
}

impl std::fmt::Debug for CompileCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompileCache").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// What native code depends on besides the component: engine settings, version, CPU.
pub(crate) struct EngineKey(Digest);

impl EngineKey {
    pub(crate) fn of(engine: &Engine) -> Self {
        let mut hasher = Sha256Hasher(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(Digest(hasher.0.finalize().into()))
    }
}

/// `Hash` into SHA-256; its 64-bit result is never asked for.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

impl CompileCache {
    /// Opens or makes the directory and its key.
    pub fn open(directory: &Path) -> Result<Self, CacheError> {
        let failed = |source| CacheError::Directory { path: directory.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        refuse_loose(directory, 0o700).map_err(failed)??;
        let key = read_or_make_key(&directory.join(KEY_NAME))?;
        Ok(Self { directory: directory.to_owned(), key, temporaries: AtomicU64::new(0) })
    }

    /// The compiled component, if this cache made it and it is whole.
    #[expect(
        unsafe_code,
        reason = "deserialising runs native code; the seal shows that we made it"
    )]
    pub(crate) fn load(&self, engine: &Engine, key: &EngineKey, wasm: Digest) -> Option<Component> {
        let path = self.path(key, wasm);
        let sealed = match read_bounded(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a cached component is unreadable");
                return None;
            }
        };
        let Some(code) = self.unseal(key, wasm, &sealed) else {
            tracing::warn!(path = %path.display(), "a cached component lacks our seal and is removed");
            discard(&path);
            return None;
        };
        // SAFETY: `code` came out of `Component::serialize` in a process that held this key, and
        // for an engine of the same compatibility hash; the seal covers every byte of it.
        match unsafe { Component::deserialize(engine, code) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!(
                    reason = reason(&error),
                    "a cached component does not fit and is removed"
                );
                discard(&path);
                None
            }
        }
    }

    /// Keeps the compiled component; on any failure it is merely not kept.
    pub(crate) fn store(&self, key: &EngineKey, wasm: Digest, component: &Component) {
        let kept = component
            .serialize()
            .map_err(|error| io::Error::other(reason(&error)))
            .and_then(|code| self.write(key, wasm, &code))
            .and_then(|()| self.shed());
        if let Err(error) = kept {
            tracing::warn!(%error, directory = %self.directory.display(), "a compiled component was not cached");
        }
    }

    fn write(&self, key: &EngineKey, wasm: Digest, code: &[u8]) -> io::Result<()> {
        let turn = self.temporaries.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("{}.{turn}.new", std::process::id()));
        let seal = self.mac(key, wasm, code).finalize().into_bytes();
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        [LABEL, &seal, code].into_iter().try_for_each(|part| file.write_all(part))?;
        // Not fsynced: after a power cut the seal fails and the component is compiled again.
        std::fs::rename(&temporary, self.path(key, wasm))
    }

    fn unseal<'a>(&self, key: &EngineKey, wasm: Digest, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (seal, code) = sealed.strip_prefix(LABEL)?.split_at_checked(SEAL_BYTES)?;
        self.mac(key, wasm, code).verify_slice(seal).is_ok().then_some(code)
    }

    fn mac(&self, key: &EngineKey, wasm: Digest, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        [LABEL, &key.0.0, &wasm.0, code].into_iter().for_each(|part| mac.update(part));
        mac
    }

    fn path(&self, key: &EngineKey, wasm: Digest) -> PathBuf {
        self.directory.join(format!("{wasm}-{}.{SUFFIX}", key.0.short()))
    }

    /// Removes the oldest files above the bound.
    fn shed(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|suffix| suffix == SUFFIX) {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort_unstable();
        let surplus = files.len().saturating_sub(FILES_MAX);
        files.iter().take(surplus).for_each(|(_age, path)| discard(path));
        Ok(())
    }
}

fn read_or_make_key(path: &Path) -> Result<[u8; KEY_BYTES], CacheError> {
    let failed = |source| CacheError::Key { path: path.to_owned(), source };
    let mut fresh = [0; KEY_BYTES];
    getrandom::fill(&mut fresh).map_err(|error| CacheError::Entropy(error.to_string()))?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(&fresh).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok(fresh)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            refuse_loose(path, 0o600).map_err(failed)??;
            let bytes = read_bounded(path).map_err(failed)?;
            let got = bytes.len();
            bytes.try_into().map_err(|_bytes| CacheError::NotKey { path: path.to_owned(), got })
        }
        Err(error) => Err(failed(error)),
    }
}

/// Refuses modes that let anyone but the owner read or write.
fn refuse_loose(path: &Path, wanted: u32) -> io::Result<Result<(), CacheError>> {
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    Ok(if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(CacheError::Loose { path: path.to_owned(), mode, wanted })
    })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")))
    }
}

fn discard(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(%error, path = %path.display(), "a cached component could not be removed");
    }
}

#[cfg(test)]
mod tests;
