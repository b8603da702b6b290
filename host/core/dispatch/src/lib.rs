//! quorate-dispatch
