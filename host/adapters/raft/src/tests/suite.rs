//! openraft's conformance suite on our log and state machine.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft_rt::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use openraft_rt_tokio::TokioRuntime;
use quorate_storage::{DirectoryId, Log, LogOptions, MemoryDisk, Snapshots};
use quorate_types::{Faults, Layout};

use super::Deaf;
use super::cluster::GROUP;
use crate::allow_list::AllowList;
use crate::log::LogStore;
use crate::machine::Machine;
use crate::state_machine::{Shelf, StateMachine};
use crate::types::Tc;

struct Fresh;

impl<RT: AsyncRuntime> StoreBuilder<Tc<RT>, LogStore<RT, MemoryDisk>, StateMachine<RT, MemoryDisk>>
    for Fresh
{
    async fn build(
        &self,
    ) -> Result<((), LogStore<RT, MemoryDisk>, StateMachine<RT, MemoryDisk>), StorageError<Tc<RT>>>
    {
        let (disk, faults) = (MemoryDisk::new(), Faults::none());
        let options = LogOptions::new(DirectoryId([1; 16]));
        let (log, _recovered) = Log::open(disk.clone(), options, &faults).await.unwrap();
        let snapshots = Snapshots::open(disk).await.unwrap();
        let (hears, admits) = (Arc::new(Deaf), AllowList::default());
        let machine = Arc::new(Machine::new(Layout::ONE, GROUP, faults, hears, admits));
        let shelf = Arc::new(Shelf::new(GROUP, snapshots));
        Ok(((), LogStore::new(log, GROUP), StateMachine::new(machine, shelf)))
    }
}

async fn conforms<RT: AsyncRuntime>() {
    Suite::<Tc<RT>, _, _, _, _>::test_all(Fresh).await.unwrap();
}

#[test]
fn log_and_state_machine_conform_on_tokio() {
    TokioRuntime::new(2).block_on(conforms::<TokioRuntime>());
}

#[test]
fn log_and_state_machine_conform_under_a_seed() {
    SimRuntime::with_seed(1).block_on(conforms::<SimRuntime>());
}
