//! A full disk: work is refused and nothing is lost; votes go on; it works again by
//! itself when there is space.

use std::time::Duration;

use super::segments::SPARE;
use super::*;

const SEGMENT_BYTES: u32 = 16 << 10;

async fn reopen(disk: &MemoryDisk) -> SimLog {
    open_with(disk, SEGMENT_BYTES, &Faults::none()).await.expect("opens").0
}

/// Appends until the log takes no more; the index of the last entry taken.
async fn append_until_refused(log: &SimLog) -> u64 {
    for index in log.last(A).map_or(0, |(last, _)| last.0) + 1.. {
        let (tell, waits) = <<SimRuntime as AsyncRuntime>::Oneshot as Oneshot>::channel();
        let done = move |result: Result<(), Arc<LogError>>| {
            drop(openraft_rt::OneshotSender::send(tell, result));
        };
        match log.append(A, vec![record(index, 1, &"x".repeat(300))], done) {
            Ok(()) => waits.await.expect("told").expect("durable"),
            Err(SubmitError::Full { .. }) => return index - 1,
            Err(error) => panic!("refused for another reason: {error}"),
        }
    }
    unreachable!("a full disk takes no more")
}

#[test]
fn a_full_disk_refuses_appends_takes_votes_and_recovers_when_freed() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = reopen(&disk).await;
        append(&log, A, record(1, 1, "before")).await;
        disk.fill_after(1_000);
        let last = append_until_refused(&log).await;
        assert!((20..=40).contains(&last), "half of a segment was there: {last}");
        assert!(log.is_full());
        assert_eq!(log.last(A), Some((Index(last), Term(1))), "what is refused is not seen");
        for _ in 0..30 {
            vote(&log, A, "a vote on a full disk").await;
        }
        log.save_committed(A, Bytes::from_static(b"mark")).expect("taken");
        told::<SimRuntime>(|done| log.truncate_after(A, Index(last - 1), done))
            .await
            .expect("done");

        disk.free_up();
        log.room().await;
        assert!(!log.is_full(), "it looks again by itself");
        append(&log, A, record(last, 2, "after")).await;
        let log = reopen(&disk.crash()).await;
        assert_eq!(log.last(A), Some((Index(last), Term(2))));
        assert_eq!(indices(&log, A), (1..=last).collect::<Vec<_>>());
        assert_eq!(log.vote(A), Some(Bytes::from_static(b"a vote on a full disk")));
    });
}

#[test]
fn a_start_on_a_full_disk_comes_up_as_it_was_and_recovers_too() {
    sim(async {
        let disk = MemoryDisk::new();
        disk.fill_after(20_000);
        let last = append_until_refused(&reopen(&disk).await).await;
        let disk = disk.crash();
        disk.fill_after(100);
        let log = reopen(&disk).await;
        let more = append_until_refused(&log).await;
        assert!(more <= last + 3, "it learns at once that there is none: {more} after {last}");
        vote(&log, A, "still").await;
        disk.free_up();
        log.room().await;
        append(&log, A, record(more + 1, 2, "after")).await;
        assert_eq!(reopen(&disk.crash()).await.last(A), Some((Index(more + 1), Term(2))));
    });
}

#[test]
fn what_was_taken_before_the_disk_was_full_waits_and_is_told_in_the_end() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = reopen(&disk).await;
        disk.fill_after(0);
        let told_of = Arc::new(Mutex::new(Vec::new()));
        for index in 1..=60 {
            let told_of = Arc::clone(&told_of);
            let done = move |result: Result<(), _>| {
                told_of.lock().expect("sound").push((index, result.is_ok()));
            };
            log.append(A, vec![record(index, 1, &"x".repeat(900))], done).expect("taken");
        }
        SimRuntime::sleep(Duration::from_secs(5)).await;
        assert!(
            log.is_full() && told_of.lock().expect("sound").is_empty(),
            "one batch, not yet durable"
        );
        disk.free_up();
        vote(&log, A, "behind them all").await;
        let expected: Vec<_> = (1..=60).map(|index| (index, true)).collect();
        assert_eq!(*told_of.lock().expect("sound"), expected);
        assert!(!log.is_full());
        assert_eq!(indices(&reopen(&disk.crash()).await, A).len(), 60);
    });
}

#[test]
fn closing_does_not_wait_for_space_and_says_what_was_not_written() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = reopen(&disk).await;
        disk.fill_after(0);
        for index in 1..=60 {
            log.append(A, vec![record(index, 1, &"x".repeat(900))], drop).expect("taken");
        }
        let error = log.close().await.expect_err("there is no room");
        let LogError::Disk(error) = &*error;
        assert!(error.is_full(), "{error}");
        let log = reopen(&disk.crash()).await;
        let found = indices(&log, A);
        assert_eq!(found, (1..=u64::try_from(found.len()).expect("small")).collect::<Vec<_>>());
    });
}

#[test]
fn a_spare_outlives_a_restart_and_a_failed_sync_of_one_is_final() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = reopen(&disk).await;
        append(&log, A, record(1, 1, &"x".repeat(10_000))).await;
        SimRuntime::sleep(Duration::from_millis(1)).await;
        assert!(disk.paths().contains(&SPARE.to_owned()), "{:?}", disk.paths());
        let disk = disk.crash();
        disk.fill_after(0);
        let log = reopen(&disk).await;
        append(&log, A, record(2, 1, &"x".repeat(10_000))).await;
        assert!(!disk.paths().contains(&SPARE.to_owned()), "it is the active one now");

        let disk = MemoryDisk::new();
        let log = reopen(&disk).await;
        disk.fail_syncs_after(1);
        append(&log, A, record(1, 1, &"x".repeat(10_000))).await;
        SimRuntime::sleep(Duration::from_millis(1)).await;
        let next = told::<SimRuntime>(|done| log.save_vote(A, Bytes::new(), done)).await;
        assert!(next.is_err(), "a sync failed");
        assert!(matches!(log.save_vote(A, Bytes::new(), drop), Err(SubmitError::Failed(_))));
    });
}
