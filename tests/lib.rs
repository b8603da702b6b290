//! Tests that belong to no single room. See `tidy.rs`; the tests of real processes
//! in `processes/` are targets of the cli package, since only there does cargo tell
//! a test where the binary is.
