//! An open log: what readers see, what is refused, how many syncs it takes.

use openraft_rt_tokio::TokioRuntime;

use super::*;

/// The whole life of a small log on any runtime.
async fn round_trip<RT: AsyncRuntime>() {
    let disk = MemoryDisk::new();
    let none = Faults::none();
    let (log, recovered) = open_with::<RT>(&disk, 4096, &none).await.expect("opens");
    assert_eq!(recovered, Recovered::default());
    let records: Vec<_> = (1..=5).map(|index| record(index, 1, "body")).collect();
    log.append(A, records.clone(), drop).expect("taken");
    assert_eq!(log.read(A, Index(2)..Index(4)), records[1..3], "seen before it is durable");
    assert_eq!((log.last(A), log.last(B)), (Some((Index(5), Term(1))), None));
    log.save_vote(B, Bytes::from_static(b"for b"), drop).expect("taken");
    log.truncate_after(A, Index(3), drop).expect("taken");
    log.append(A, vec![record(4, 2, "instead")], drop).expect("taken");
    log.save_committed(A, Bytes::from_static(b"3")).expect("taken");
    told::<RT>(|done| log.purge_upto(A, Index(1), Term(1), done)).await.expect("durable");
    let before = (seen(&log, A), seen(&log, B));
    assert_eq!(before.0.purged, Some((Index(1), Term(1))));
    assert_eq!(
        before.0.entries,
        [record(2, 1, "body"), record(3, 1, "body"), record(4, 2, "instead")]
    );
    drop(log);

    let (log, recovered) = open_with::<RT>(&disk.crash(), 4096, &none).await.expect("opens");
    assert_eq!((seen(&log, A), seen(&log, B)), before);
    assert_eq!(log.committed(A), Some(Bytes::from_static(b"3")));
    let expected = RecoveredGroup {
        vote: None,
        committed: Some(Bytes::from_static(b"3")),
        purged: Some((Index(1), Term(1))),
        last: Some((Index(4), Term(2))),
        entries: 3,
    };
    assert_eq!(recovered.groups.get(&A), Some(&expected));
    assert_eq!(recovered.torn_bytes, 0);
}

#[test]
fn a_log_comes_back_as_it_was_on_the_seeded_runtime() {
    sim(round_trip::<SimRuntime>());
}

#[test]
fn a_log_comes_back_as_it_was_on_tokio() {
    TokioRuntime::run(round_trip::<TokioRuntime>());
}

#[test]
fn many_appends_at_once_cost_one_sync() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        append(&log, A, record(1, 1, "first")).await;
        let before = disk.syncs();
        for index in 2..=15 {
            log.append(A, vec![record(index, 1, "in a batch")], drop).expect("taken");
        }
        append(&log, A, record(16, 1, "last")).await;
        assert_eq!(disk.syncs() - before, 1, "fifteen appends");
        append(&log, A, record(17, 1, "alone")).await;
        assert_eq!(disk.syncs() - before, 2, "an append on an idle log waits for nobody");
    });
}

#[test]
fn tasks_that_append_at_once_share_syncs() {
    const TASKS: u32 = 400;
    const ROUNDS: u64 = 5;
    sim(async {
        let disk = MemoryDisk::new();
        let opened = open_with::<SimRuntime>(&disk, 1 << 20, &Faults::none()).await;
        let log = opened.expect("opens").0;
        let before = disk.syncs();
        let task = |group: u32| {
            let log = log.clone();
            SimRuntime::spawn(async move {
                for index in 1..=ROUNDS {
                    append(&log, GroupId(group), record(index, 1, "x")).await;
                }
            })
        };
        let tasks: Vec<_> = (0..TASKS).map(task).collect();
        for task in tasks {
            task.await.expect("ran");
        }
        let syncs = disk.syncs() - before;
        assert!((ROUNDS..3 * ROUNDS).contains(&syncs), "{syncs} syncs for 2,000 appends");
        let counts = log.counts();
        assert_eq!(counts.operations, u64::from(TASKS) * ROUNDS);
        assert_eq!((counts.batches, counts.syncs), (syncs, syncs), "one write a batch");
        assert!(counts.batch_operations_max >= 100, "{counts:?}");
        assert!(counts.bytes > counts.operations, "{counts:?}");
    });
}

#[test]
fn completions_come_in_order() {
    sim(async {
        let log = open(&MemoryDisk::new()).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        for index in 1..=9 {
            let order = Arc::clone(&order);
            let done = move |_| order.lock().expect("sound").push(index);
            log.append(A, vec![record(index, 1, "x")], done).expect("taken");
        }
        vote(&log, B, "last").await;
        assert_eq!(*order.lock().expect("sound"), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    });
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    sim(async {
        let log = open(&MemoryDisk::new()).await;
        log.append(A, (5..=9).map(|index| record(index, 1, "x")).collect(), drop).expect("taken");
        let before = seen(&log, A);
        for wrong in [
            vec![record(9, 2, "again")],
            vec![record(11, 2, "gap")],
            vec![record(10, 2, "sound"), record(12, 2, "gap within")],
        ] {
            let refused = log.append(A, wrong, drop);
            assert!(matches!(refused, Err(SubmitError::OutOfOrder { last: Index(9), .. })));
        }
        assert!(log.append(B, vec![record(0, 1, "no such index")], drop).is_err());
        assert_eq!(seen(&log, A), before);
        log.purge_upto(A, Index(7), Term(1), drop).expect("taken");
        let refused = log.truncate_after(A, Index(6), drop);
        assert!(matches!(refused, Err(SubmitError::OutOfOrder { .. })), "it was purged");
        assert_eq!(indices(&log, A), [8, 9]);
    });
}

#[test]
fn a_body_that_no_segment_holds_is_refused_and_the_largest_is_kept() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        let limit = body_bytes_max(4096);
        let refused = log.append(A, vec![record(1, 1, &"x".repeat(limit + 1))], drop);
        assert!(
            matches!(refused, Err(SubmitError::TooLarge { limit: named, .. }) if named == limit)
        );
        for index in 1..=4 {
            append(&log, A, record(index, 1, &"x".repeat(limit))).await;
        }
        let log = open(&disk.crash()).await;
        assert_eq!(indices(&log, A), [1, 2, 3, 4]);
    });
}

#[test]
fn a_full_queue_says_busy_and_room_comes_back() {
    sim(async {
        let disk = MemoryDisk::new();
        let opened = open_with::<SimRuntime>(&disk, 16 << 20, &Faults::none()).await;
        let log = opened.expect("opens").0;
        let payload = Bytes::from(vec![0; 4 << 20]);
        let big = |index| {
            let payload = payload.clone();
            vec![Record { index: Index(index), term: Term(1), payload }]
        };
        for index in 1..=16 {
            log.append(A, big(index), drop).expect("64 MiB fit");
        }
        let refused = log.append(A, big(17), drop);
        assert!(matches!(refused, Err(SubmitError::Busy { queued: 16, .. })), "{refused:?}");
        assert_eq!(log.last(A), Some((Index(16), Term(1))), "a refused append is not seen");
        log.save_vote(A, Bytes::from_static(b"v"), drop).expect("a vote is never held up");
        log.room().await;
        log.append(A, big(17), drop).expect("there is room");
    });
}

#[test]
fn a_failed_sync_is_final_and_told_to_all() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        append(&log, A, record(1, 1, "durable")).await;
        disk.fail_syncs_after(0);
        let first = told::<SimRuntime>(|done| log.append(A, vec![record(2, 1, "lost")], done));
        let failed = first.await.expect_err("told so");
        let LogError::Disk(error) = &*failed;
        assert_eq!(
            (error.act, error.file.as_str()),
            ("write and sync", "log/00000000000000000001.wal")
        );
        // The disk would sync again. The log must not believe it.
        disk.fail_syncs_after(100);
        let later = log.append(A, vec![record(3, 1, "too late")], drop);
        assert!(matches!(later, Err(SubmitError::Failed(_))));
        assert!(log.save_vote(A, Bytes::new(), drop).is_err());
        assert!(log.save_committed(A, Bytes::new()).is_err());
        log.room().await;
        assert!(log.close().await.is_err());
        let log = open(&disk.crash()).await;
        assert_eq!(indices(&log, A), [1]);
        append(&log, A, record(2, 1, "a new start goes on")).await;
    });
}

#[test]
fn operations_behind_a_failed_batch_are_told_too() {
    sim(async {
        let disk = MemoryDisk::new();
        let opened = open_with::<SimRuntime>(&disk, 16 << 20, &Faults::none()).await;
        let log = opened.expect("opens").0;
        disk.fail_syncs_after(0);
        let results = Arc::new(Mutex::new(Vec::new()));
        for index in 1..=3 {
            let results = Arc::clone(&results);
            let done = move |result: Result<(), _>| {
                results.lock().expect("sound").push(result.is_err());
            };
            // Each is a batch of its own.
            let payload = Bytes::from(vec![0; 5 << 20]);
            let big = Record { index: Index(index), term: Term(1), payload };
            log.append(A, vec![big], done).expect("taken");
        }
        assert!(log.close().await.is_err());
        assert_eq!(*results.lock().expect("sound"), [true; 3]);
    });
}

#[test]
fn a_committed_mark_is_never_ahead_of_its_entries() {
    sim(async {
        let disk = MemoryDisk::new();
        let opened = open_with::<SimRuntime>(&disk, 16 << 20, &Faults::none()).await;
        let log = opened.expect("opens").0;
        for index in 1..=2 {
            let payload = Bytes::from(vec![0; 5 << 20]);
            let a_batch_of_its_own = Record { index: Index(index), term: Term(1), payload };
            log.append(A, vec![a_batch_of_its_own], drop).expect("taken");
        }
        log.save_committed(A, Bytes::from_static(b"2")).expect("taken");
        disk.fail_syncs_after(1);
        assert!(log.close().await.is_err());
        let opened = open_with::<SimRuntime>(&disk.crash(), 16 << 20, &Faults::none()).await;
        let log = opened.expect("opens").0;
        assert_eq!((indices(&log, A), log.committed(A)), (vec![1], None));
    });
}

#[test]
fn a_log_whose_writer_is_gone_takes_nothing() {
    sim(async {
        let log = open(&MemoryDisk::new()).await;
        let caller_with_a_bug = |_| panic!("planted");
        log.append(A, vec![record(1, 1, "x")], caller_with_a_bug).expect("taken");
        log.room().await;
        SimRuntime::sleep(std::time::Duration::from_millis(1)).await;
        assert!(matches!(log.append(A, vec![record(2, 1, "x")], drop), Err(SubmitError::Closed)));
    });
}

#[test]
fn a_closed_log_is_whole_and_takes_nothing_more() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        log.append(A, vec![record(1, 1, "x")], drop).expect("taken");
        log.save_committed(A, Bytes::from_static(b"lazy")).expect("taken");
        log.close().await.expect("closed");
        assert!(matches!(log.append(A, vec![record(2, 1, "x")], drop), Err(SubmitError::Closed)));
        assert!(matches!(log.save_committed(A, Bytes::new()), Err(SubmitError::Closed)));
        log.close().await.expect("closing twice is closing once");
        let disk = disk.crash();
        let opened = open_with::<SimRuntime>(&disk, 4096, &Faults::none()).await;
        let (log, recovered) = opened.expect("opens");
        assert!(recovered.sealed, "it was closed");
        assert_eq!(indices(&log, A), [1]);
        assert_eq!(log.committed(A), Some(Bytes::from_static(b"lazy")));
        append(&log, A, record(2, 1, "y")).await;
        let opened = open_with::<SimRuntime>(&disk.crash(), 4096, &Faults::none()).await;
        assert!(!opened.expect("opens").1.sealed, "it was written to and not closed");
    });
}

#[test]
fn what_was_taken_is_written_when_the_last_handle_goes() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        let waits = {
            let (tell, waits) = <<SimRuntime as AsyncRuntime>::Oneshot as Oneshot>::channel();
            let done = move |result| drop(openraft_rt::OneshotSender::send(tell, result));
            log.append(A, vec![record(1, 1, "x")], done).expect("taken");
            waits
        };
        drop(log);
        let result: Result<(), Arc<LogError>> = waits.await.expect("told");
        result.expect("durable");
        assert_eq!(indices(&open(&disk.crash()).await, A), [1]);
    });
}

#[test]
fn equal_seeds_leave_equal_bytes() {
    let run = || {
        SimRuntime::with_seed(99).block_on(async {
            let disk = MemoryDisk::new();
            let log = open(&disk).await;
            for index in 1..=200 {
                log.append(A, vec![record(index, 1, "some content")], drop).expect("taken");
                if index % 7 == 0 {
                    vote(&log, B, "again").await;
                }
                if index % 50 == 0 {
                    log.purge_upto(A, Index(index - 10), Term(1), drop).expect("taken");
                }
            }
            log.close().await.expect("closed");
            dump(&disk)
        })
    };
    assert_eq!(run(), run());
}
