//! The ledger by scenario, and by a model that random histories are held against.

mod delivery;
mod entries;
mod fixture;
mod histories;
mod oracle;
mod rebirth;
mod registry;
mod roster;
mod time;
