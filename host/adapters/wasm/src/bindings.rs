//! What wasmtime generates from `wit/`: one module a world. The types that both
//! worlds share are generated twice; they never meet.

/// The world `quorate:balancer/policy`.
pub(crate) mod policy {
    wasmtime::component::bindgen!({
        world: "quorate:balancer/policy",
        path: ["../../../wit/common", "../../../wit/balancer"],
    });
}

/// The world `quorate:agent/agent`. Imports that wait are futures and suspend the
/// guest's fiber; any import may trap.
pub(crate) mod agent {
    wasmtime::component::bindgen!({
        world: "quorate:agent/agent",
        path: ["../../../wit/common", "../../../wit/host", "../../../wit/agent"],
        imports: {
            "quorate:host/clock.sleep-ms": async | trappable,
            "quorate:host/blobs.[static]reader.open": async | trappable,
            "quorate:host/blobs.[static]writer.finish": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "quorate:host/blobs.reader": crate::agent::blobs::Reader,
            "quorate:host/blobs.writer": crate::agent::blobs::Writer,
        },
    });
}
