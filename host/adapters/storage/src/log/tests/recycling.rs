//! Segments go round: nothing live is lost with one, nothing dead comes back
//! with one, and their number follows what is live.

use super::frame::{Framing, NoFrame};
use super::segments::{number_of, path_of};
use super::*;

/// The numbers of the segment files.
fn numbers(disk: &MemoryDisk) -> Vec<u64> {
    let name = |path: &String| number_of(path.strip_prefix("log/")?);
    disk.paths().iter().filter_map(name).collect()
}

/// The seeded runtime takes 100,000 polls at one instant for a livelock.
async fn let_time_pass() {
    SimRuntime::sleep(std::time::Duration::from_millis(1)).await;
}

/// A busy group that keeps its last 40 entries, through `rounds` of 50.
async fn busy(log: &SimLog, group: GroupId, rounds: std::ops::RangeInclusive<u64>) {
    for round in rounds {
        for index in (round - 1) * 50 + 1..=round * 50 {
            let text =
                format!("entry {index} {}", "x".repeat(usize::try_from(index % 90).unwrap_or(0)));
            log.append(group, vec![record(index, round, &text)], drop).expect("taken");
            if index % 10 == 0 {
                vote(log, group, "busy").await;
            }
        }
        log.purge_upto(group, Index(round * 50 - 40), Term(round), drop).expect("taken");
        let_time_pass().await;
    }
}

#[test]
fn an_idle_group_outlives_hundreds_of_segments() {
    sim(async {
        let mut disk = MemoryDisk::new();
        let mut log = open(&disk).await;
        vote(&log, B, "idle").await;
        for index in 1..=5 {
            append(&log, B, record(index, 1, &"idle entry ".repeat(20))).await;
        }
        log.purge_upto(B, Index(2), Term(1), drop).expect("taken");
        log.save_committed(B, Bytes::from_static(b"mark")).expect("taken");
        let idle = seen(&log, B);
        for stage in 0..6 {
            busy(&log, A, stage * 20 + 1..=stage * 20 + 20).await;
            vote(&log, A, "stage").await;
            let before = seen(&log, A);
            // Every other time the process is killed rather than the power cut.
            disk = if stage % 2 == 0 { disk.crash() } else { disk.kill() };
            log = open(&disk).await;
            assert_eq!(seen(&log, A), before, "stage {stage}");
            assert_eq!(seen(&log, B), idle, "stage {stage}");
            assert_eq!(log.committed(B), Some(Bytes::from_static(b"mark")), "stage {stage}");
            let numbers = numbers(&disk);
            // About 14 KB are live: 4 segments, doubled, and the slack and free ones.
            assert!(numbers.len() <= 14, "stage {stage}: {numbers:?}");
        }
        let newest = numbers(&disk).last().copied().unwrap_or(0);
        assert!(newest > 150, "only {newest} segments went round");
    });
}

#[test]
fn a_recycled_segment_holds_stale_frames_and_none_of_them_counts() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        busy(&log, A, 1..=20).await;
        vote(&log, A, "end").await;
        let before = seen(&log, A);
        let newest = numbers(&disk).last().copied().expect("one");
        let bytes = disk.bytes(&path_of(newest)).expect("there");
        // Frames of the file's former number lie behind the end, whole.
        let stale = (1..newest).filter(|number| {
            let framing = Framing::new(DirectoryId([0x1d; 16]), *number);
            (0..bytes.len()).step_by(8).any(|at| framing.read(&bytes, at).is_ok())
        });
        assert!(stale.count() > 0, "the scenario must recycle");
        let framing = Framing::new(DirectoryId([0x1d; 16]), newest);
        let ours = (0..bytes.len()).step_by(8).filter(|at| framing.read(&bytes, *at).is_ok());
        assert!(ours.count() > 0);
        assert_eq!(framing.read(&bytes, bytes.len() - 8).err(), Some(NoFrame::Unreadable));
        let opened = open_with::<SimRuntime>(&disk.crash(), 4096, &Faults::none()).await;
        let (log, recovered) = opened.expect("opens");
        assert_eq!((seen(&log, A), recovered.torn_bytes), (before, 0));
    });
}

#[test]
fn much_live_data_keeps_its_segments_and_they_go_when_it_goes() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        for index in 1..=1_000 {
            log.append(A, vec![record(index, 1, &"x".repeat(200))], drop).expect("taken");
            if index % 20 == 0 {
                vote(&log, A, "v").await;
                let_time_pass().await;
            }
        }
        let full = numbers(&disk).len();
        assert!((59..=140).contains(&full), "240 KB are live in {full} segments of 4 KiB");
        log.purge_upto(A, Index(990), Term(1), drop).expect("taken");
        for _ in 0..300 {
            vote(&log, B, "this group fills the segment and is never live twice").await;
        }
        let left = numbers(&disk).len();
        assert!(left <= 8, "{left} segments for 10 entries");
        let disk = disk.crash();
        let log = open(&disk).await;
        assert_eq!(indices(&log, A), (991..=1_000).collect::<Vec<_>>());
        // A start knows which of the many are gone for good, and goes round with what is left.
        busy(&log, GroupId(2), 1..=20).await;
        vote(&log, B, "still going").await;
        assert_eq!(indices(&open(&disk.crash()).await, A), (991..=1_000).collect::<Vec<_>>());
    });
}

#[test]
fn a_truncation_outlives_the_segment_it_lies_in() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open_with::<SimRuntime>(&disk, 1024, &Faults::none()).await.expect("opens").0;
        let long = "x".repeat(150);
        log.append(A, (1..=4).map(|index| record(index, 1, &long)).collect(), drop).expect("taken");
        log.append(B, (1..=9).map(|index| record(index, 1, &long)).collect(), drop).expect("taken");
        log.truncate_after(A, Index(2), drop).expect("taken");
        log.append(B, (10..=13).map(|index| record(index, 1, &long)).collect(), drop)
            .expect("taken");
        // Frees them all at once: the file of the truncated entries stays, to be used again, and
        // that of the truncation is one too many.
        told::<SimRuntime>(|done| log.purge_upto(B, Index(13), Term(1), done))
            .await
            .expect("durable");
        assert!(disk.paths().contains(&path_of(1)), "{:?}", disk.paths());
        assert!(!disk.paths().contains(&path_of(3)), "{:?}", disk.paths());
        let opened = open_with::<SimRuntime>(&disk.kill(), 1024, &Faults::none()).await;
        let log = opened.expect("opens").0;
        assert_eq!(indices(&log, A), [1, 2]);
        // Nor does the log miss the file when it frees what follows.
        busy(&log, GroupId(2), 1..=5).await;
        vote(&log, B, "still going").await;
    });
}

#[test]
fn segments_of_another_size_are_read_and_leave() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        busy(&log, A, 1..=5).await;
        vote(&log, B, "kept").await;
        let before = (seen(&log, A), seen(&log, B));
        let disk = disk.crash();
        let opened = open_with::<SimRuntime>(&disk, 8192, &Faults::none()).await;
        let log = opened.expect("opens").0;
        assert_eq!((seen(&log, A), seen(&log, B)), before);
        busy(&log, A, 6..=40).await;
        vote(&log, A, "end").await;
        let sizes = dump(&disk).into_iter().map(|(_, content)| content.len());
        assert_eq!(sizes.filter(|size| *size != 8192).count(), 0, "{:?}", disk.paths());
        let opened = open_with::<SimRuntime>(&disk.crash(), 1024, &Faults::none()).await;
        let log = opened.expect("what is live fits").0;
        assert_eq!(seen(&log, B).vote, Some(Bytes::from_static(b"kept")));
    });
}

#[test]
fn segments_too_small_for_what_is_live_are_refused() {
    sim(async {
        let disk = MemoryDisk::new();
        append(&open(&disk).await, A, record(1, 1, &"x".repeat(3_000))).await;
        let refused = open_with::<SimRuntime>(&disk.crash(), 1024, &Faults::none()).await;
        let Err(OpenError::SegmentBytes { got: 1024, least }) = refused else {
            panic!("not refused as it should be: {refused:?}");
        };
        let least = u32::try_from(least).expect("small");
        assert!(body_bytes_max(least) >= 3_000 && body_bytes_max(least - 8) < 3_000);
    });
}
