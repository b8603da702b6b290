//! Whole groups in one process: the same scenarios on tokio and under a seed.

mod cluster;
mod judges;
mod mesh;
mod scenarios;
mod seeds;
mod suite;
