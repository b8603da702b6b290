//! What clients asked of keys and were told, and the judge of it.

#![allow(dead_code, reason = "each test uses its own part")]

pub(crate) mod caller;
pub(crate) mod judge;
pub(crate) mod meter;
pub(crate) mod recorder;
