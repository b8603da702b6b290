//! What wit-bindgen makes of the two worlds. The types that both share are made once.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from wit/")]

pub mod policy {
    wit_bindgen::generate!({
        path: ["../../wit/common", "../../wit/balancer"],
        world: "quorate:balancer/policy",
        generate_all,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_policy",
        default_bindings_module: "quorate_sdk::exported::policy",
    });
}

pub mod agent {
    wit_bindgen::generate!({
        path: ["../../wit/common", "../../wit/host", "../../wit/agent"],
        world: "quorate:agent/agent",
        generate_all,
        with: { "quorate:common/types@0.1.0-dev": crate::bindings::policy::quorate::common::types },
        pub_export_macro: true,
        export_macro_name: "export_agent",
        default_bindings_module: "quorate_sdk::exported::agent",
    });
}
