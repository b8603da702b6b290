//! Calls that agents of this node are asked to do. The node that hosts an agent
//! grants the permits: beyond its slots and a short queue for each, a call is
//! refused as busy before it begins, and the caller's router picks again. At its
//! deadline a call is cancelled, whether its caller's node says so or not.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_types::clocks::Clocks;
use quorate_types::limits::CALL_BYTES_MAX;
use quorate_types::view::CallSpec;
use quorate_types::{AgentId, CallId, Incarnation, NodeId, Payload, Time};

use crate::frame::{Routed, Said};
use crate::io::{Effect, Now, WorkFault, WorkId, WorkOrder};
use crate::kernel::Kernel;

/// Calls that wait for each slot of an agent, beyond the one it works on (bulkhead).
const QUEUED_PER_SLOT: u32 = 3;

#[derive(Debug)]
struct HostedCall {
    from: NodeId,
    call: CallId,
    attempt: u32,
    agent: usize,
    begun: Time,
}

/// Calls in the hands of this node's agents.
#[derive(Debug, Default)]
pub(crate) struct Hosting {
    works: BTreeMap<WorkId, HostedCall>,
    by_call: BTreeMap<(NodeId, CallId, u32), WorkId>,
    deadlines: Clocks<WorkId>,
}

impl Hosting {
    /// When the next call's deadline comes.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.first()
    }
}

impl Kernel {
    pub(crate) fn host_call(
        &mut self,
        now: Now,
        from: NodeId,
        (call, attempt): (CallId, u32),
        (agent, incarnation): (AgentId, Incarnation),
        within: Duration,
        spec: CallSpec,
    ) {
        let Some(at) = self.home.residents.place_of(agent, incarnation) else {
            self.say(now, from, call, attempt, Said::Unknown);
            return;
        };
        if self.hosting.by_call.contains_key(&(from, call, attempt)) {
            // The wire promises at most once; a second copy must not run a second time.
            return;
        }
        if !self.home.residents.admit_call(at, QUEUED_PER_SLOT) {
            self.say(now, from, call, attempt, Said::Busy);
            return;
        }
        let work = self.home.work_id();
        let hosted = HostedCall { from, call, attempt, agent: at, begun: now.mono };
        self.hosting.works.insert(work, hosted);
        self.hosting.by_call.insert((from, call, attempt), work);
        self.hosting.deadlines.set(work, now.mono + within);
        let order = WorkOrder {
            agent: at,
            task: None,
            id: format!("{from}-{call}"),
            attempt,
            capability: spec.capabilities.first().cloned().unwrap_or_default(),
            content_type: spec.content_type,
            input: Payload::Inline(spec.body),
            trace: spec.trace,
        };
        self.effects.push_back(Effect::StartWork(work, Box::new(order)));
    }

    /// The caller's node wants it no more, or is gone.
    pub(crate) fn drop_hosted(&mut self, from: NodeId, call: CallId, attempt: u32) {
        if let Some(work) = self.hosting.by_call.get(&(from, call, attempt)).copied() {
            self.forget_hosted(work);
            self.effects.push_back(Effect::CancelWork(work));
        }
    }

    /// Cancels the calls whose deadlines have come. Their callers tell the end: they have the same
    /// deadline, by their own clocks.
    pub(crate) fn settle_hosting(&mut self, now: Now) {
        while let Some(work) = self.hosting.deadlines.take(now.mono) {
            self.forget_hosted(work);
            self.effects.push_back(Effect::CancelWork(work));
        }
    }

    pub(crate) fn drop_hosted_for(&mut self, peer: NodeId) {
        let orphaned: Vec<WorkId> = self
            .hosting
            .works
            .iter()
            .filter(|(_work, hosted)| hosted.from == peer)
            .map(|(work, _hosted)| *work)
            .collect();
        for work in orphaned {
            self.forget_hosted(work);
            self.effects.push_back(Effect::CancelWork(work));
        }
    }

    fn forget_hosted(&mut self, work: WorkId) -> Option<HostedCall> {
        let hosted = self.hosting.works.remove(&work)?;
        self.hosting.by_call.remove(&(hosted.from, hosted.call, hosted.attempt));
        self.hosting.deadlines.stop(work);
        self.home.residents.call_ended(hosted.agent);
        Some(hosted)
    }

    pub(crate) fn call_ended(
        &mut self,
        now: Now,
        work: WorkId,
        result: Result<Payload, WorkFault>,
    ) {
        let Some(hosted) = self.forget_hosted(work) else { return };
        let HostedCall { from, call, attempt, agent, begun } = hosted;
        self.home.residents.learn(agent, now.mono.since(begun), result.is_ok());
        match result {
            Ok(Payload::Inline(reply)) => {
                let bytes = u64::try_from(reply.len()).unwrap_or(u64::MAX);
                let mut rest = reply;
                while !rest.is_empty() {
                    let part = rest.split_to(rest.len().min(CALL_BYTES_MAX));
                    self.say(now, from, call, attempt, Said::Chunk(part));
                }
                self.say(now, from, call, attempt, Said::Done(bytes));
            }
            Ok(Payload::Blob { digest, .. }) => {
                let why = format!("its reply is blob {digest} and was not brought inline");
                self.say(now, from, call, attempt, Said::Failed(why));
            }
            Err(fault) => self.say(now, from, call, attempt, Said::Failed(fault.message)),
        }
    }

    fn say(&mut self, now: Now, to: NodeId, call: CallId, attempt: u32, said: Said) {
        if to == self.config.node {
            self.deliver_call(now, to, (call, attempt), said.into());
        } else {
            self.send_routed(to, &Routed::Said { call, attempt, said });
        }
    }
}
