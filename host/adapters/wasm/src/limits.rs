//! Budgets, as values. Each number says what it was derived from.
//!
//! Figures in fuel are instructions as wasmtime counts them; measured for a
//! compiled Rust policy: a pick by power of two choices 138, a scan of 100
//! endpoints 5,257, the same at every optimisation level.

use std::time::Duration;

/// What a component may be, and what its instances may hold. A pool is fixed when
/// its engine is made, so that each class of limits is an engine of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeLimits {
    /// The whole component, bytes.
    pub component_bytes_max: usize,
    /// One function body, bytes. The compiler's time grows faster than the body.
    pub function_bytes_max: usize,
    /// Sum of the squares of all function bodies' sizes, bytes²: what the compiler's time
    /// is bounded by.
    pub compile_cost_max: u64,
    /// One linear memory, bytes; growth beyond answers −1.
    pub memory_bytes_max: usize,
    /// Elements of one table.
    pub table_elements_max: u32,
    /// Linear memories in one component.
    pub memories_max: u32,
    /// Tables in one component.
    pub tables_max: u32,
    /// Core instances in one component. wit-component makes three where there are imports.
    pub core_instances_max: u32,
    /// Instances alive at once in the process, per engine.
    pub instances_max: u32,
    /// How long an admission waits for the compiler.
    pub compile_time_max: Duration,
}

/// Largest function body, bytes, in any component. The largest of our own guests has
/// 12,844 (the code indexer); a test holds every one below a quarter of the cap.
pub const FUNCTION_BYTES_MAX: usize = 64 << 10;

/// What the compiler may be asked for, bytes². The worst bodies known (chains of loops) take it 1.2–2 ns for each byte² in a development build: 2.3 s for 43 kB, 8.9 s for
/// 86 kB. So this is about 13 s of one core, two bodies at the cap, and thirty times what the
/// code indexer needs; a compile that its caller gave up ends soon after.
const COMPILE_COST_MAX: u64 = 1 << 33;

/// A policy's budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Shape and pool.
    pub shape: ShapeLimits,
    /// Fuel for one pick, before the pool's size is counted.
    pub pick_fuel: u64,
    /// Further fuel for one pick, for each slot of the pool: ten times what a scan takes.
    pub slot_fuel: u64,
    /// Fuel for one call that is not a pick, before its items are counted.
    pub bulk_fuel: u64,
    /// Further fuel for such a call, for each item given.
    pub item_fuel: u64,
    /// Fuel to instantiate, describe, open or restore.
    pub open_fuel: u64,
    /// What `save` may give and `restore` may be given, bytes.
    pub snapshot_bytes_max: usize,
    /// Wall time after which a call is cut whatever its fuel says: a safety net.
    /// `None` where nothing may depend on wall time, as in simulation.
    pub net: Option<Duration>,
}

impl PolicyLimits {
    /// The class `hot`: Rust and C.
    pub const fn hot() -> Self {
        Self {
            shape: ShapeLimits {
                component_bytes_max: 4 << 20,
                function_bytes_max: FUNCTION_BYTES_MAX,
                compile_cost_max: COMPILE_COST_MAX,
                memory_bytes_max: 16 << 20,
                table_elements_max: 4096,
                memories_max: 1,
                tables_max: 4,
                core_instances_max: 8,
                // A worker has the active instance, one that soaks, one that shadows.
                instances_max: 64,
                compile_time_max: Duration::from_secs(10),
            },
            pick_fuel: 50_000,
            slot_fuel: 500,
            bulk_fuel: 500_000,
            item_fuel: 2_000,
            // 50 ms at about one instruction a nanosecond.
            open_fuel: 50_000_000,
            snapshot_bytes_max: 1 << 20,
            // A hundred times a scan of 1,000 endpoints, rounded up to the ticker's grain.
            net: Some(Duration::from_millis(200)),
        }
    }

    /// The class `hot` in simulation: fuel alone cuts.
    pub const fn simulated() -> Self {
        let mut limits = Self::hot();
        limits.net = None;
        limits
    }
}

/// When a running agent lets others run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// After this much wall time.
    Time(Duration),
    /// After this much fuel: the same on every run, for simulation.
    Fuel(u64),
}

/// An agent's budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLimits {
    /// Shape and pool.
    pub shape: ShapeLimits,
    /// How long it runs before it yields.
    pub slice: Slice,
    /// Readers and writers open at once.
    pub resources_max: usize,
    /// Bytes in all its open readers and writers together: one of each at full size.
    pub held_bytes_max: u64,
    /// Bytes that one call from the guest may hand to the host.
    pub call_bytes_max: usize,
    /// Lines it may log in a second.
    pub log_lines_max: u32,
    /// Bytes of one line; the rest is cut off.
    pub log_line_bytes_max: usize,
}

impl AgentLimits {
    /// The class `hot`: Rust and C.
    pub const fn hot() -> Self {
        Self {
            shape: ShapeLimits {
                component_bytes_max: 8 << 20,
                function_bytes_max: FUNCTION_BYTES_MAX,
                compile_cost_max: 2 * COMPILE_COST_MAX,
                memory_bytes_max: 64 << 20,
                table_elements_max: 16_384,
                memories_max: 1,
                tables_max: 8,
                core_instances_max: 16,
                // 256 reservations of 4 GiB are 1 TiB of the 128 TiB of address space.
                instances_max: 256,
                compile_time_max: Duration::from_secs(30),
            },
            slice: Slice::Time(Duration::from_millis(1)),
            resources_max: 64,
            held_bytes_max: 2 * quorate_types::limits::BLOB_BYTES_MAX,
            // Lifted lists and strings cost their bytes; a result of 1 MiB fits many times.
            call_bytes_max: 8 << 20,
            log_lines_max: 100,
            log_line_bytes_max: 8 << 10,
        }
    }

    /// The class `hot` in simulation: slices by fuel.
    pub const fn simulated() -> Self {
        let mut limits = Self::hot();
        limits.slice = Slice::Fuel(1_000_000);
        limits
    }
}

/// Bytes that one `read` of a blob gives at most.
pub const READ_BYTES_MAX: usize = 1 << 20;

/// Longest sleep an agent may ask for, milliseconds; longer is cut to it.
pub const SLEEP_MS_MAX: u64 = 60_000;
