//! quorate-api
