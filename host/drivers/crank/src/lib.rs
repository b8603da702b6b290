//! quorate-crank
