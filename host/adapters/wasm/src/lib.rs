//! quorate-wasm
