//! Ends of work done here: a task's goes to the log, and is sent until the log has
//! it or will never take it; a call's goes to its caller.

use std::time::Duration;

use quorate_types::limits::REASON_BYTES_MAX;
use quorate_types::text::clipped;
use quorate_types::{GroupId, Payload, Refusal, Reply, Request};

use crate::asks::{Origin, Own, Target};
use crate::frame::{Done, Errand, Setback};
use crate::home::OWN_WITHIN;
use crate::io::{Effect, Now, WorkFault, WorkId};
use crate::kernel::Kernel;

/// An end that the log could not take is sent again after this span, not at once: a full log
/// refuses at once.
const RECORD_AGAIN: Duration = Duration::from_millis(20);

impl Kernel {
    pub(crate) fn drop_task_work(&mut self, work: WorkId) {
        let Some(gone) = self.home.works.remove(work) else { return };
        self.home.residents.task_ended(gone.agent);
        if gone.ended.is_none() {
            self.effects.push_back(Effect::CancelWork(work));
        }
    }

    /// An agent ended a piece of work: a task's end goes to the log, a call's to its caller.
    pub(crate) fn work_ended(
        &mut self,
        now: Now,
        work: WorkId,
        result: Result<Payload, WorkFault>,
    ) {
        let result = result.map_err(clip);
        let Some(running) = self.home.works.get(work) else {
            self.call_ended(now, work, result);
            return;
        };
        let (task, token) = running.lease;
        let took = now.mono.since(running.begun);
        self.home.residents.learn(running.agent, took, result.is_ok());
        let request = match result {
            Ok(output) => Request::Complete(task, token, output),
            Err(fault) => Request::Fail(task, token, fault.message, fault.retry),
        };
        self.home.works.set_ended(work, request.clone());
        self.record_end(now, work, request);
    }

    fn record_end(&mut self, now: Now, work: WorkId, request: Request) {
        let Some(running) = self.home.works.get(work) else { return };
        // A lease is of a task of this cluster.
        let group = self.config.layout.of_task(running.lease.0).unwrap_or(GroupId::SYSTEM);
        let errand = Errand::Door(Box::new(request));
        let leader = Target::Leader(group);
        self.begin(now, Origin::Own(Own::Finish(work)), leader, errand, OWN_WITHIN);
    }

    pub(crate) fn end_recorded(&mut self, now: Now, work: WorkId, result: Result<Done, Setback>) {
        match result {
            Ok(Done::Door(reply)) if *reply == Reply::Done => self.drop_task_work(work),
            Err(Setback::Refused(
                why @ (Refusal::Conflict(_) | Refusal::NotFound(_) | Refusal::Invalid(_)),
            )) => {
                // Fenced: the task was given to another meanwhile, or is no more.
                tracing::info!(%why, "the end of a piece of work was not recorded");
                self.drop_task_work(work);
            }
            Err(Setback::Refused(why @ Refusal::TooLarge { .. })) => {
                self.end_too_large(now, work, &why);
            }
            Ok(_) | Err(Setback::Refused(_) | Setback::NotLeader(_)) => {
                self.home.works.set_due(work, now.mono + RECORD_AGAIN);
            }
        }
    }

    /// The log will never take this end. A result that is too large is a failure of its agent; to
    /// let it go unsaid would leave the lease to be renewed with the agent's others.
    fn end_too_large(&mut self, now: Now, work: WorkId, why: &Refusal) {
        let ended = self.home.works.get(work).and_then(|running| running.ended.clone());
        tracing::error!(%why, "the end of a piece of work is too large to be recorded");
        if let Some(Request::Complete(task, token, _result)) = ended {
            let failed = Request::Fail(task, token, why.to_string(), false);
            self.home.works.set_ended(work, failed.clone());
            self.record_end(now, work, failed);
        } else {
            self.drop_task_work(work);
        }
    }

    /// What ran too long ends; an end that could not be recorded is sent again.
    pub(crate) fn move_works_on(&mut self, now: Now) {
        while let Some(work) = self.home.works.take_due(now.mono) {
            let Some(running) = self.home.works.get(work) else { continue };
            if let Some(end) = running.ended.clone() {
                self.record_end(now, work, end);
            } else {
                self.effects.push_back(Effect::CancelWork(work));
                let message = "the attempt ran longer than its run timeout".to_owned();
                self.work_ended(now, work, Err(WorkFault { message, retry: true }));
            }
        }
    }
}

/// A fault whose message is no longer than is kept: an agent's words may be of any length, and
/// beyond a frame's nobody would hear of the end.
fn clip(fault: WorkFault) -> WorkFault {
    WorkFault { message: clipped(fault.message, REASON_BYTES_MAX), ..fault }
}
