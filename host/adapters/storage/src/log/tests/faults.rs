//! Planted faults do what they say, and without them the same scenario holds.

use super::*;

/// Crashes `disk` at the moment when the operation is acknowledged.
fn crash_when_told(disk: &MemoryDisk) -> (Arc<Mutex<Option<MemoryDisk>>>, Done) {
    let crashed = Arc::new(Mutex::new(None));
    let (disk, slot) = (disk.clone(), Arc::clone(&crashed));
    let done = move |result: Result<(), _>| {
        assert!(result.is_ok(), "acknowledged");
        *slot.lock().expect("sound") = Some(disk.crash());
    };
    (crashed, Box::new(done))
}

/// What is left after power loss right at the acknowledgement that `submit` asks for.
fn left_after(faults: &Faults, submit: impl FnOnce(&SimLog, Done)) -> (Seen, Seen) {
    sim(async {
        let disk = MemoryDisk::new();
        vote(&open(&disk).await, B, "before").await;
        let disk = disk.crash();
        let log = open_with(&disk, 4096, faults).await.expect("opens").0;
        let (crashed, done) = crash_when_told(&disk);
        submit(&log, done);
        // Ends when the writer has met the disk that is gone, or has nothing left to write.
        drop(log.close().await);
        let disk = crashed.lock().expect("sound").take().expect("acknowledged");
        let log = open(&disk).await;
        (seen(&log, A), seen(&log, B))
    })
}

#[test]
fn a_vote_acknowledged_early_is_lost_with_the_power() {
    let submit = |log: &SimLog, done| {
        log.save_vote(B, Bytes::from_static(b"after"), done).expect("taken");
    };
    let (_, sound) = left_after(&Faults::none(), submit);
    assert_eq!(sound.vote, Some(Bytes::from_static(b"after")));
    let faults = Faults { vote_acked_early: true, ..Faults::none() };
    let (_, lost) = left_after(&faults, submit);
    assert_eq!(lost.vote, Some(Bytes::from_static(b"before")), "the planted bug is there");
}

#[test]
fn an_append_acknowledged_early_is_lost_with_the_power() {
    let submit = |log: &SimLog, done| {
        log.append(A, vec![record(1, 1, "x")], done).expect("taken");
    };
    let (sound, _) = left_after(&Faults::none(), submit);
    assert_eq!(sound.entries, [record(1, 1, "x")]);
    let faults = Faults { append_acked_early: true, ..Faults::none() };
    let (lost, kept) = left_after(&faults, submit);
    assert!(lost.entries.is_empty(), "the planted bug is there");
    assert!(kept.vote.is_some(), "and it is about appends only");
}

#[test]
fn a_recovery_that_drops_the_last_entry_does() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        for index in 1..=3 {
            append(&log, A, record(index, 1, "durable")).await;
        }
        let disk = disk.crash();
        let faults = Faults { recovery_drops_last: true, ..Faults::none() };
        let log: SimLog = open_with(&disk.fork(), 4096, &faults).await.expect("opens").0;
        assert_eq!(indices(&log, A), [1, 2]);
        append(&log, A, record(3, 2, "another")).await;
        assert_eq!(indices(&open(&disk).await, A), [1, 2, 3]);
    });
}
