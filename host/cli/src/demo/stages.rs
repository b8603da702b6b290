//! Where a task's time goes, from the upload of its file to the event of its end, by the demo's
//! own clock. Stages follow one another, so that their sum is the task's whole time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_types::TaskId;
use serde::Serialize;

/// What the submitter knows of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submission {
    /// Its file's upload began.
    pub(crate) begun: Instant,
    /// The file is stored.
    pub(crate) stored: Instant,
    /// Its submission, which waits for the rest of its batch, began.
    pub(crate) sent: Instant,
    /// It was acknowledged.
    pub(crate) acked: Instant,
}

/// One task's moments; events may be heard before the acknowledgement.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    submission: Option<Submission>,
    leased: Option<Instant>,
    ended: Option<Instant>,
}

/// All tasks' moments.
#[derive(Debug, Default)]
pub(crate) struct Stages(BTreeMap<TaskId, Moments>);

/// Mean time of a task and the share of each stage in it, 0 to 1.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Shares {
    /// Seconds from the upload's begin to the end, the mean over all tasks.
    pub(crate) mean: f64,
    /// The upload of the file as a blob.
    pub(crate) upload: f64,
    /// Waiting until the batch of the submission is whole.
    pub(crate) batch: f64,
    /// From submission to acknowledgement: an entry in the log, synced on a quorum.
    pub(crate) submit: f64,
    /// From acknowledgement to the last lease.
    pub(crate) queue: f64,
    /// From the lease to the completion, synced on a quorum.
    pub(crate) run: f64,
}

impl Stages {
    pub(crate) fn submitted(&mut self, task: TaskId, submission: Submission) {
        self.0.entry(task).or_default().submission = Some(submission);
    }

    pub(crate) fn leased(&mut self, task: TaskId, at: Instant) {
        self.0.entry(task).or_default().leased = Some(at);
    }

    pub(crate) fn ended(&mut self, task: TaskId, at: Instant) {
        self.0.entry(task).or_default().ended = Some(at);
    }

    /// Over every task that went through all stages; none if no task did.
    pub(crate) fn shares(&self) -> Option<Shares> {
        let mut sums = [Duration::ZERO; 5];
        let mut tasks = 0_u32;
        for moments in self.0.values() {
            let (Some(by), Some(leased), Some(ended)) =
                (moments.submission, moments.leased, moments.ended)
            else {
                continue;
            };
            tasks += 1;
            // The lease may be heard of before the answer to the submission: then nothing waited.
            let leased = leased.max(by.acked);
            let marks = [by.begun, by.stored, by.sent, by.acked, leased, ended.max(leased)];
            for (sum, pair) in sums.iter_mut().zip(marks.windows(2)) {
                *sum += pair[1].saturating_duration_since(pair[0]);
            }
        }
        let whole: Duration = sums.iter().sum();
        if tasks == 0 || whole.is_zero() {
            return None;
        }
        let [upload, batch, submit, queue, run] =
            sums.map(|sum| sum.as_secs_f64() / whole.as_secs_f64());
        let mean = whole.as_secs_f64() / f64::from(tasks);
        Some(Shares { mean, upload, batch, submit, queue, run })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_whole() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let mut stages = Stages::default();
        assert!(stages.shares().is_none());
        let submission = Submission { begun: at(0), stored: at(10), sent: at(20), acked: at(40) };
        stages.submitted(TaskId(1), submission);
        stages.leased(TaskId(1), at(50));
        stages.leased(TaskId(1), at(60));
        assert!(stages.shares().is_none(), "it has not ended");
        stages.ended(TaskId(1), at(100));
        let shares = stages.shares().expect("one task");
        let close = |left: f64, right: f64| (left - right).abs() < 1e-9;
        assert!(close(shares.mean, 0.1) && close(shares.upload, 0.1) && close(shares.batch, 0.1));
        assert!(close(shares.submit, 0.2) && close(shares.queue, 0.2) && close(shares.run, 0.4));
    }
}
