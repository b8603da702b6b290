//! Why a component was not taken. Each refusal says what, why, and what to try.

use crate::cache::CacheError;

/// Why a component was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// Too large as a whole.
    #[error(
        "the component has {got} bytes and the limit is {limit}; build it in release mode and \
         strip its debug information"
    )]
    TooLarge {
        /// Its size, bytes.
        got: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// Code that was compiled elsewhere.
    #[error(
        "this is a precompiled artefact, which a node never runs because it cannot check it; give \
         the `.wasm` component it was made from and each node compiles for itself"
    )]
    Precompiled,
    /// A core module.
    #[error(
        "this is a core WebAssembly module, not a component; wrap it with \
         `wasm-tools component new`"
    )]
    CoreModule,
    /// Not WebAssembly, or broken.
    #[error(
        "this is not a valid WebAssembly component: {reason}; build it again and compare its digest"
    )]
    NotComponent {
        /// What the reader met, and where.
        reason: String,
    },
    /// One function is too large.
    #[error(
        "function body {index} has {got} bytes and the limit is {limit}, because compile time \
         grows faster than the body; split the function, or build it with less inlining"
    )]
    FunctionTooLarge {
        /// Which body, counted from 0 through the whole component.
        index: u32,
        /// Its size, bytes.
        got: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// Its functions together are too large.
    #[error(
        "compiling the component may cost {cost} bytes² (the squares of its function bodies' \
         sizes, added up) and the limit is {limit}; split its largest functions"
    )]
    CompileTooCostly {
        /// The sum, bytes².
        cost: u64,
        /// The limit, bytes².
        limit: u64,
    },
    /// It imports what no host offers.
    #[error(
        "the component imports `{import}`, which the world `{world}` does not have; it may import \
         {allowed}, so build it for that world and without WASI"
    )]
    UnknownImport {
        /// The import.
        import: String,
        /// The world it was admitted to.
        world: &'static str,
        /// What it may import.
        allowed: String,
    },
    /// It imports what it was not granted.
    #[error(
        "the component imports `{import}`, which it was not granted; grant `{grant}` or build it \
         without"
    )]
    NotGranted {
        /// The import.
        import: String,
        /// The grant it would need.
        grant: &'static str,
    },
    /// It does not export what its world demands.
    #[error(
        "the component does not export `{export}`, so it is not of the world `{world}` (it exports \
         {found}); build it against that version of the WIT packages"
    )]
    LacksWorld {
        /// The missing export.
        export: &'static str,
        /// The world it was admitted to.
        world: &'static str,
        /// What it exports.
        found: String,
    },
    /// Names agree and types do not.
    #[error(
        "the component names the world `{world}` but differs from it: {reason}; build it against \
         this node's WIT packages"
    )]
    WorldDiffers {
        /// The world it was admitted to.
        world: &'static str,
        /// Where they differ.
        reason: String,
    },
    /// The compiler refused it.
    #[error(
        "the component does not compile: {reason}; features beyond the WebAssembly 2.0 core are off"
    )]
    DoesNotCompile {
        /// What the compiler said.
        reason: String,
    },
    /// The compiler took too long.
    #[error(
        "compiling the component took longer than {limit_ms} ms and was given up; split its \
         largest functions"
    )]
    CompileTooSlow {
        /// The limit, milliseconds.
        limit_ms: u128,
    },
    /// The compiler has too much before it.
    #[error("the compiler has {waiting} components before this one; try again in a moment")]
    CompilerBusy {
        /// How many may wait.
        waiting: usize,
    },
    /// What it needs cannot be known.
    #[error(
        "what the component needs cannot be known beforehand, because it instantiates a module or \
         component that it imports; link that into it"
    )]
    NeedsUnknown,
    /// It needs more than the pool has.
    #[error(
        "the component needs {needs} {what} and this node's pool gives {has}; build it to need less"
    )]
    NeedsTooMuch {
        /// Of what, with its unit.
        what: &'static str,
        /// How much it needs.
        needs: u64,
        /// How much there is.
        has: u64,
    },
    /// Its first life failed.
    #[error("the component failed in its first `{step}`: {reason}; try it with `{step}` alone")]
    FirstLife {
        /// What it was asked.
        step: &'static str,
        /// How it failed.
        reason: String,
    },
    /// It describes itself in a way that no host can serve.
    #[error("the component describes itself with {what}; {expected}")]
    BadDescription {
        /// What it said.
        what: String,
        /// What is expected.
        expected: String,
    },
}

/// Why a host could not be made.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The engine or its pool.
    #[error("the engine or its pool of {instances} instances could not be made: {reason}")]
    Engine {
        /// Instances that the pool was to have.
        instances: u32,
        /// What wasmtime said.
        reason: String,
    },
    /// The compile cache.
    #[error("the compile cache could not be opened")]
    Cache(#[from] CacheError),
}

/// Why an instance was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No instance came to be.
    #[error("the component could not be instantiated: {0}")]
    Instantiate(String),
    /// It refused or failed.
    #[error("the component did not open a pool")]
    Open(#[source] quorate_policy::Fault),
    /// A snapshot beyond the limit.
    #[error("the snapshot has {got} bytes and the limit is {limit}")]
    SnapshotTooLarge {
        /// Its size, bytes.
        got: usize,
        /// The limit, bytes.
        limit: usize,
    },
}
