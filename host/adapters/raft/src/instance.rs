//! One life of openraft, and the place where the present one stands.
//!
//! The watchdog may end a life and begin another over the same log and the same
//! machine; everything else asks the slot and takes what it finds.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use openraft::Config;
use openraft::errors::Fatal;
use openraft_rt::AsyncRuntime;
use quorate_types::{Disk, NodeId};

use crate::log::LogStore;
use crate::machine::Machine;
use crate::network::Factory;
use crate::outbox::Outbox;
use crate::settings::{LogSize, Timing};
use crate::state_machine::{Shelf, StateMachine};
use crate::types::Tc;

pub(crate) type Instance<RT, D> = openraft::Raft<Tc<RT>, StateMachine<RT, D>>;

/// What stands in the slot.
enum Life<RT: AsyncRuntime, D: Disk> {
    Running(Instance<RT, D>),
    /// One has ended and the next has not begun.
    Between,
    Ended,
}

/// The place of the present instance.
pub(crate) struct Slot<RT: AsyncRuntime, D: Disk>(ArcSwap<Life<RT, D>>);

impl<RT: AsyncRuntime, D: Disk> Slot<RT, D> {
    pub(crate) fn new(instance: Instance<RT, D>) -> Self {
        Self(ArcSwap::from_pointee(Life::Running(instance)))
    }

    /// The instance that runs, if one does.
    pub(crate) fn current(&self) -> Option<Instance<RT, D>> {
        match &**self.0.load() {
            Life::Running(instance) => Some(instance.clone()),
            Life::Between | Life::Ended => None,
        }
    }

    /// Whether none will run any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(**self.0.load(), Life::Ended)
    }

    pub(crate) fn run(&self, instance: Instance<RT, D>) {
        self.0.store(Arc::new(Life::Running(instance)));
    }

    pub(crate) fn pause(&self) {
        self.0.store(Arc::new(Life::Between));
    }

    pub(crate) fn end(&self) {
        self.0.store(Arc::new(Life::Ended));
    }
}

/// Why a life did not begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log could not be made durable or read.
    #[error("the log cannot be used: {0}")]
    Log(io::Error),
    /// The newest snapshot on disk cannot be read.
    #[error("the newest snapshot cannot be used: {0}")]
    Snapshot(io::Error),
    /// The log and the snapshot do not fit together, or an entry cannot be applied.
    #[error("raft did not start: {0}")]
    Raft(String),
}

/// What every life of a group on a node begins with.
pub(crate) struct Opener<RT: AsyncRuntime, D: Disk> {
    pub(crate) node: NodeId,
    pub(crate) config: Arc<Config>,
    pub(crate) log_size: LogSize,
    pub(crate) snapshot_bytes_per_s: u64,
    pub(crate) timing: Timing,
    pub(crate) outbox: Arc<Outbox<RT>>,
    pub(crate) log: LogStore<RT, D>,
    pub(crate) machine: Arc<Machine>,
    pub(crate) shelf: Arc<Shelf<RT, D>>,
}

impl<RT: AsyncRuntime, D: Disk> Opener<RT, D> {
    /// The first life: state from the newest snapshot, then the log after it.
    pub(crate) async fn open(&self) -> Result<Instance<RT, D>, OpenError> {
        let state_machine = self.state_machine();
        state_machine.restore().await.map_err(OpenError::Snapshot)?;
        self.begin(state_machine).await
    }

    /// A later life: the machine keeps its state, and all that was submitted to the log becomes
    /// durable first. The former life must have ended.
    pub(crate) async fn reopen(&self) -> Result<Instance<RT, D>, OpenError> {
        let state_machine = self.state_machine();
        self.log.clone().settle().await.map_err(OpenError::Log)?;
        self.begin(state_machine).await
    }

    fn state_machine(&self) -> StateMachine<RT, D> {
        StateMachine::new(Arc::clone(&self.machine), Arc::clone(&self.shelf))
    }

    async fn begin(
        &self,
        state_machine: StateMachine<RT, D>,
    ) -> Result<Instance<RT, D>, OpenError> {
        let network = Factory {
            outbox: Arc::clone(&self.outbox),
            timing: self.timing,
            snapshot_bytes_per_s: self.snapshot_bytes_per_s,
        };
        let (config, log) = (Arc::clone(&self.config), self.log.clone());
        let begun = Instance::new(self.node.0, config, network, log, state_machine).await;
        begun.map_err(|fatal: Fatal<Tc<RT>>| {
            OpenError::Raft(self.machine.failure().unwrap_or_else(|| fatal.to_string()))
        })
    }
}
