//! Hosted agents: for each of its slots an instance of the component, on threads
//! of their own, so that work never holds back the node.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quorate_crank::Guests;
use quorate_kernel::{WorkFault, WorkOrder};
use quorate_types::door::Pending;
use quorate_types::{CapabilitySet, Digest, Door, Payload};
use quorate_wasm::{
    AgentComponent, AgentEnv, AgentFault, AgentHost, AgentInstance, Work, WorkKind,
};
use tokio::sync::Semaphore;

use crate::policies::Policies;

/// An attempt is cut after this span unless its task says less: a stuck agent frees its slot.
const RUN_MS_MAX: u64 = 600_000;

/// The node's blobs, for agents. Set once the node runs; weakly, since the node has the agents.
#[derive(Clone, Default)]
pub(crate) struct Environment(Arc<OnceLock<Weak<dyn Door>>>);

impl Environment {
    pub(crate) fn open(&self, door: &Arc<dyn Door>) {
        assert!(self.0.set(Arc::downgrade(door)).is_ok(), "a node has one door");
    }

    fn door(&self) -> Result<Arc<dyn Door>, String> {
        let door = self.0.get().ok_or_else(|| "the node is starting".to_owned())?;
        door.upgrade().ok_or_else(|| "the node has stopped".to_owned())
    }
}

impl AgentEnv for Environment {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn read_blob(&self, digest: Digest) -> Pending<Result<Bytes, String>> {
        let door = self.door();
        Box::pin(async move { door?.get_blob(digest).await.map_err(|refusal| refusal.to_string()) })
    }

    fn write_blob(&self, content: Bytes) -> Pending<Result<Digest, String>> {
        let door = self.door();
        Box::pin(
            async move { door?.put_blob(content).await.map_err(|refusal| refusal.to_string()) },
        )
    }
}

/// One hosted agent.
pub(crate) struct HostedAgent {
    component: Arc<AgentComponent>,
    /// One permit an instance.
    free: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<AgentInstance>>>,
    seed: u64,
}

impl HostedAgent {
    pub(crate) fn new(component: Arc<AgentComponent>, slots: u32, seed: u64) -> Self {
        let slots = usize::try_from(slots).unwrap_or(Semaphore::MAX_PERMITS);
        Self { component, free: Arc::new(Semaphore::new(slots)), idle: Arc::default(), seed }
    }

    /// What the component says it can do.
    pub(crate) fn capabilities(&self) -> CapabilitySet {
        self.component.descriptor().capabilities.clone()
    }
}

/// Everything that runs as a guest on this node.
pub(crate) struct Components {
    pub(crate) agents: Vec<HostedAgent>,
    pub(crate) policies: Policies,
    /// What admitted the agents.
    pub(crate) host: Arc<AgentHost>,
    pub(crate) environment: Environment,
    /// Where work runs.
    pub(crate) threads: tokio::runtime::Handle,
}

impl Guests for Components {
    fn run(&self, order: WorkOrder) -> Pending<Result<Payload, WorkFault>> {
        let Some(agent) = self.agents.get(order.agent) else {
            let message = format!("agent {} is not configured here", order.agent);
            return Box::pin(async { Err(WorkFault { message, retry: true }) });
        };
        let (component, free, idle) =
            (Arc::clone(&agent.component), Arc::clone(&agent.free), Arc::clone(&agent.idle));
        let (environment, seed) = (self.environment.clone(), agent.seed);
        let work = self.threads.spawn(async move {
            let Ok(_permit) = free.acquire_owned().await else {
                return Err(AgentFault::Unavailable(0));
            };
            let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut instance =
                waiting.unwrap_or_else(|| component.start(Arc::new(environment), seed));
            let result = instance.handle(work_of(order)).await;
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(instance);
            result
        });
        // Dropping the guard aborts the work, which drops the instance with it.
        let guard = AbortOnDrop(work.abort_handle());
        Box::pin(async move {
            let _guard = guard;
            match work.await {
                Ok(result) => result.map_err(fault_of),
                Err(error) => Err(WorkFault { message: error.to_string(), retry: true }),
            }
        })
    }

    fn prepare(&self, digest: Digest, component: Bytes) -> Pending<Result<(), String>> {
        let policies = self.policies.clone();
        let work = self.threads.spawn_blocking(move || policies.admit(digest, &component));
        Box::pin(async move { work.await.map_err(|error| error.to_string())? })
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn work_of(order: WorkOrder) -> Work {
    Work {
        kind: if order.task.is_some() { WorkKind::Task } else { WorkKind::Call },
        id: order.id,
        attempt: order.attempt,
        capability: order.capability,
        content_type: order.content_type,
        input: order.input,
        trace: order.trace,
        deadline_ms: RUN_MS_MAX,
    }
}

fn fault_of(fault: AgentFault) -> WorkFault {
    let retry = !matches!(fault, AgentFault::Invalid(_));
    WorkFault { message: fault.to_string(), retry }
}
