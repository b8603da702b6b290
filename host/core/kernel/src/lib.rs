//! quorate-kernel
