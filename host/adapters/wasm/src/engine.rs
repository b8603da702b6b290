//! The two engines. Each has a pool of fixed size; nothing that is not needed is on.

use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures};

use crate::admit::{AdmitError, HostError};
use crate::limits::{AgentLimits, PolicyLimits, ShapeLimits, Slice};
use crate::outline::Needs;
use crate::ticker::Ticker;
use crate::trap::reason;

/// A guest's stack, bytes. A deeper recursion traps.
const WASM_STACK_BYTES: usize = 512 << 10;

/// An agent's fiber, bytes: the guest's stack and as much again for host functions under it.
const FIBER_BYTES: usize = 1 << 20;

/// Room for wasmtime's own records of one instance, bytes (its default).
const INSTANCE_RECORD_BYTES: usize = 1 << 20;

/// How often a policy engine ticks. A policy is cut by fuel; the tick only serves the net.
pub(crate) const POLICY_TICK: Duration = Duration::from_millis(10);

/// Makes the engine for policies.
pub(crate) fn policy(limits: &PolicyLimits) -> Result<Engine, HostError> {
    let mut config = base(&limits.shape);
    // A failed policy is replaced, not debugged, within the step: no walk over its stack.
    config
        .consume_fuel(true)
        .epoch_interruption(limits.net.is_some())
        .wasm_backtrace_max_frames(None);
    make(&config, &limits.shape)
}

/// Makes the engine for agents.
pub(crate) fn agent(limits: &AgentLimits) -> Result<Engine, HostError> {
    let mut config = base(&limits.shape);
    config.async_stack_size(FIBER_BYTES);
    match limits.slice {
        Slice::Time(_) => config.epoch_interruption(true),
        Slice::Fuel(_) => config.consume_fuel(true),
    };
    make(&config, &limits.shape)
}

/// The ticker of an engine whose guests are cut or sliced by wall time.
pub(crate) fn ticker(engine: &Engine, period: Option<Duration>) -> Option<Ticker> {
    period.map(|period| Ticker::new(engine, period))
}

fn make(config: &Config, shape: &ShapeLimits) -> Result<Engine, HostError> {
    Engine::new(config).map_err(|error| HostError::Engine {
        instances: shape.instances_max,
        reason: reason(&error),
    })
}

fn base(shape: &ShapeLimits) -> Config {
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(shape)))
        // A call costs 120 ns without the component model's own tasks and 370 ns with them;
        // our worlds have plain functions only, which host futures suspend on a fiber.
        .concurrency_support(false)
        // One compile takes one core, so that consensus keeps the other.
        .parallel_compilation(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        .wasm_features(
            WasmFeatures::RELAXED_SIMD
                | WasmFeatures::THREADS
                | WasmFeatures::SHARED_EVERYTHING_THREADS
                | WasmFeatures::GC
                | WasmFeatures::FUNCTION_REFERENCES
                | WasmFeatures::EXCEPTIONS
                | WasmFeatures::LEGACY_EXCEPTIONS
                | WasmFeatures::STACK_SWITCHING
                | WasmFeatures::MEMORY64
                | WasmFeatures::WIDE_ARITHMETIC
                | WasmFeatures::CUSTOM_PAGE_SIZES,
            false,
        );
    config
}

fn pool(shape: &ShapeLimits) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(shape.instances_max)
        .max_component_instance_size(INSTANCE_RECORD_BYTES)
        .max_core_instance_size(INSTANCE_RECORD_BYTES)
        .max_core_instances_per_component(shape.core_instances_max)
        .max_memories_per_component(shape.memories_max)
        .max_tables_per_component(shape.tables_max)
        .max_memories_per_module(shape.memories_max)
        .max_tables_per_module(shape.tables_max)
        .total_core_instances(shape.instances_max.saturating_mul(shape.core_instances_max))
        .total_memories(shape.instances_max.saturating_mul(shape.memories_max))
        .total_tables(shape.instances_max.saturating_mul(shape.tables_max))
        .total_stacks(shape.instances_max)
        .max_memory_size(shape.memory_bytes_max)
        .table_elements(usize::try_from(shape.table_elements_max).unwrap_or(usize::MAX))
        // No slot stays warm for one component while another could see what it left.
        .max_unused_warm_slots(0);
    pool
}

/// Compares what a component needs, now that its instances are counted, with what
/// each instance of the pool is given.
pub(crate) fn check_needs(component: &Component, shape: &ShapeLimits) -> Result<(), AdmitError> {
    let required = component.resources_required().ok_or(AdmitError::NeedsUnknown)?;
    let needs = Needs {
        memories: u64::from(required.num_memories),
        memory_pages: required.max_initial_memory_size.unwrap_or(0),
        tables: u64::from(required.num_tables),
        table_elements: required.max_initial_table_size.unwrap_or(0),
    };
    needs.check(shape)
}
