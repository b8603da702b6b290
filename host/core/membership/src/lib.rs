//! quorate-membership
