//! An agent at work.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::{Either, select};
use quorate_types::limits::{BLOB_BYTES_MAX, CALL_BYTES_MAX, INLINE_BYTES_MAX, REASON_BYTES_MAX};
use quorate_types::rng::Rng;
use quorate_types::text::clipped;
use quorate_types::{Digest, Payload, TraceId};
use tracing::Instrument as _;
use wasmtime::Store;

use super::env::AgentEnv;
use super::host::{AgentComponent, AgentState, Lines};
use crate::bindings::agent::Agent;
use crate::bindings::agent::exports::quorate::agent::working;
use crate::limits::Slice;
use crate::trap::{Cut, reason};

/// What kind of work it is; results are bounded by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// A durable task.
    Task,
    /// A routed call.
    Call,
}

/// One piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Task or call.
    pub kind: WorkKind,
    /// Its id; the same when the same attempt is delivered again.
    pub id: String,
    /// Its attempt, from 1.
    pub attempt: u32,
    /// What is wanted of the agent.
    pub capability: String,
    /// Media type of the input.
    pub content_type: String,
    /// The input.
    pub input: Payload,
    /// The trace it belongs to.
    pub trace: TraceId,
    /// Cut after this span, milliseconds.
    pub deadline_ms: u64,
}

/// Why work was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentFault {
    /// The agent says that the input is wrong. Not retried.
    #[error("the agent refused its input: {0}")]
    Invalid(String),
    /// The agent cannot do it now.
    #[error("the agent is unavailable; try again in {0} ms")]
    Unavailable(u64),
    /// The agent failed and says so.
    #[error("the agent failed: {0}")]
    Failed(String),
    /// The agent trapped; its instance is gone.
    #[error("the agent trapped and was ended: {0}")]
    Trapped(String),
    /// The deadline passed; the instance is gone.
    #[error("the agent was ended after {0} ms without an answer")]
    Deadline(u64),
    /// Its answer is not one that can be taken.
    #[error("the agent's answer cannot be taken: {0}")]
    BadAnswer(String),
    /// No instance could be made.
    #[error("the agent could not be started: {0}")]
    Start(String),
}

impl AgentFault {
    /// Whether another attempt may succeed.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Invalid(_) => false,
            Self::Unavailable(_)
            | Self::Failed(_)
            | Self::Trapped(_)
            | Self::Deadline(_)
            | Self::BadAnswer(_)
            | Self::Start(_) => true,
        }
    }
}

/// An agent, with an instance while it is well.
pub struct AgentInstance {
    component: Arc<AgentComponent>,
    env: Arc<dyn AgentEnv>,
    seeds: Rng,
    lines: Arc<Mutex<Lines>>,
    life: Option<Life>,
    lives: u64,
}

/// One store and the instance in it.
struct Life {
    store: Store<AgentState>,
    agent: Agent,
}

impl AgentInstance {
    pub(crate) fn new(component: Arc<AgentComponent>, env: Arc<dyn AgentEnv>, seed: u64) -> Self {
        let (seeds, lines) = (Rng::new(seed), Arc::default());
        Self { component, env, seeds, lines, life: None, lives: 0 }
    }

    /// The component it is an instance of.
    pub fn component(&self) -> &Arc<AgentComponent> {
        &self.component
    }

    /// Instances begun so far; one more than the first means that some were lost.
    pub fn lives(&self) -> u64 {
        self.lives
    }

    /// Does the work. Dropping the future cancels it and ends the instance.
    pub async fn handle(&mut self, work: Work) -> Result<Payload, AgentFault> {
        let span = tracing::info_span!(
            "agent",
            name = self.component.descriptor().name,
            work = work.id,
            attempt = work.attempt,
            trace = %work.trace,
        );
        async {
            tracing::debug!("work begins");
            let ended = self.handle_in_span(work).await;
            match &ended {
                Ok(_answer) => tracing::debug!("work ended"),
                Err(fault) => tracing::debug!(%fault, "work failed"),
            }
            ended
        }
        .instrument(span)
        .await
    }

    async fn handle_in_span(&mut self, work: Work) -> Result<Payload, AgentFault> {
        let _hold = self.component.shared.hold();
        let (kind, deadline_ms) = (work.kind, work.deadline_ms);
        let deadline = self.env.sleep(deadline_ms);
        // Out of `self` while it works: whoever drops this future drops the store.
        let life = self.life.take();
        let answer = match select(pin!(self.work(life, work)), deadline).await {
            Either::Left((answer, _deadline)) => answer?,
            Either::Right(((), _work)) => return Err(AgentFault::Deadline(deadline_ms)),
        };
        payload(kind, answer)
    }

    /// Lets the instance work and keeps it if it comes back well.
    async fn work(
        &mut self,
        life: Option<Life>,
        work: Work,
    ) -> Result<working::Payload, AgentFault> {
        let mut life = match life {
            Some(life) => life,
            None => self.begin().await?,
        };
        let work = to_guest(work);
        let working = life.agent.quorate_agent_working();
        match working.call_handle(&mut life.store, &work).await {
            Ok(answer) => {
                self.life = Some(life);
                answer.map_err(fault)
            }
            Err(error) => {
                tracing::warn!(
                    reason = reason(&error),
                    "an agent trapped and its instance is gone"
                );
                Err(AgentFault::Trapped(Cut::of(&error).to_string()))
            }
        }
    }

    async fn begin(&mut self) -> Result<Life, AgentFault> {
        let failed = |error: wasmtime::Error| AgentFault::Start(reason(&error));
        let shared = &self.component.shared;
        let state = AgentState::new(
            Arc::clone(&self.env),
            shared.limits.clone(),
            self.seeds.next_u64(),
            Arc::clone(&self.lines),
        );
        let mut store = shared.store(state);
        match shared.limits.slice {
            Slice::Time(_) => {
                store.set_epoch_deadline(1);
                store.epoch_deadline_async_yield_and_update(1);
            }
            Slice::Fuel(units) => {
                store.set_fuel(u64::MAX).map_err(failed)?;
                store.fuel_async_yield_interval(Some(units)).map_err(failed)?;
            }
        }
        self.lives += 1;
        let agent = self.component.pre.instantiate_async(&mut store).await.map_err(failed)?;
        // Called once before anything else, as the world says; admission has judged the answer.
        agent.quorate_agent_working().call_describe(&mut store).await.map_err(failed)?;
        Ok(Life { store, agent })
    }
}

fn to_guest(work: Work) -> working::Work {
    working::Work {
        kind: match work.kind {
            WorkKind::Task => working::Kind::Task,
            WorkKind::Call => working::Kind::Call,
        },
        id: work.id,
        attempt: work.attempt,
        capability: work.capability,
        content_type: work.content_type,
        input: match work.input {
            Payload::Inline(bytes) => working::Payload::Inline(bytes.into()),
            Payload::Blob { digest, size } => working::Payload::Blob((digest.to_string(), size)),
        },
        trace: work.trace.to_string(),
    }
}

/// The guest's answer, if a task's record or a call's reply can hold it.
fn payload(kind: WorkKind, answer: working::Payload) -> Result<Payload, AgentFault> {
    let inline_max = match kind {
        WorkKind::Task => INLINE_BYTES_MAX,
        WorkKind::Call => CALL_BYTES_MAX,
    };
    match answer {
        working::Payload::Inline(bytes) if bytes.len() <= inline_max => {
            Ok(Payload::Inline(Bytes::from(bytes)))
        }
        working::Payload::Inline(bytes) => Err(AgentFault::BadAnswer(format!(
            "it has {} bytes inline and the limit is {inline_max}; write a blob and give its digest",
            bytes.len()
        ))),
        working::Payload::Blob((digest, size)) => {
            let digest: Digest =
                digest.parse().map_err(|error| AgentFault::BadAnswer(format!("{error}")))?;
            if size > BLOB_BYTES_MAX {
                let reason = format!("a blob of {size} bytes and the limit is {BLOB_BYTES_MAX}");
                return Err(AgentFault::BadAnswer(reason));
            }
            Ok(Payload::Blob { digest, size })
        }
    }
}

fn fault(said: working::Fault) -> AgentFault {
    match said {
        working::Fault::Invalid(reason) => AgentFault::Invalid(clipped(reason, REASON_BYTES_MAX)),
        working::Fault::UnsupportedSchema(schema) => {
            AgentFault::Failed(format!("it does not read schema {schema}"))
        }
        working::Fault::OverBudget => AgentFault::Failed("it gave up: over its budget".to_owned()),
        working::Fault::Unavailable(ms) => AgentFault::Unavailable(ms),
        working::Fault::Internal(reason) => AgentFault::Failed(clipped(reason, REASON_BYTES_MAX)),
    }
}
