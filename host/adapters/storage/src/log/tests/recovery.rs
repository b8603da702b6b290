//! What a start makes of a disk: torn ends go, all other damage is refused and
//! left as it is.

use quorate_types::rng::Rng;

use super::frame::{
    Framing, HEAD_BYTES, Head, Kind, SEGMENT_FRAME_BYTES, SegmentBody, framed_bytes,
};
use super::segments::path_of;
use super::*;

const FIRST: &str = "log/00000000000000000001.wal";
/// A multiple of eight: no byte of such a frame is padding.
const BODY: &str = "sixteen bytes...";

/// A disk with `count` records of [`BODY`], each written by itself, after power loss.
async fn written(count: u64) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let log = open(&disk).await;
    for index in 1..=count {
        append(&log, A, record(index, 1, BODY)).await;
    }
    disk.crash()
}

/// Where the frame of entry `index` starts.
fn start_of(index: usize) -> usize {
    SEGMENT_FRAME_BYTES + (index - 1) * framed_bytes(BODY.len())
}

#[test]
fn a_crash_loses_only_what_was_not_acknowledged() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        for index in 1..=3 {
            append(&log, A, record(index, 1, "acknowledged")).await;
        }
        log.append(A, vec![record(4, 1, "still queued")], |_| panic!("never durable"))
            .expect("taken");
        let log = open(&disk.crash()).await;
        assert_eq!(indices(&log, A), [1, 2, 3]);
    });
}

#[test]
fn a_tail_torn_at_any_byte_is_dropped_and_the_log_goes_on() {
    sim(async {
        // 13 bytes: three of the frame are padding, which nobody reads.
        let disk = written(2).await;
        append(&open(&disk).await, A, record(3, 1, "thirteen byte")).await;
        let (start, frame) = (start_of(3), framed_bytes(13));
        for torn in 0..frame {
            for filler in [0, 0xee] {
                let disk = disk.fork();
                disk.tamper(FIRST, |bytes| bytes[start + torn..start + frame].fill(filler));
                let log = open(&disk).await;
                let kept: &[u64] = if torn < HEAD_BYTES + 13 { &[1, 2] } else { &[1, 2, 3] };
                assert_eq!(indices(&log, A), kept, "torn at {torn}");
                log.truncate_after(A, Index(2), drop).expect("taken");
                append(&log, A, record(3, 2, "instead")).await;
                let log = open(&disk.crash()).await;
                assert_eq!(log.read(A, Index(3)..Index(9)), [record(3, 2, "instead")]);
            }
        }
    });
}

/// Power loss in the middle of one write of many records, whose sectors land in any order.
async fn torn_write(seed: u64) {
    const SEGMENT_BYTES: u32 = 32 << 10;
    let none = Faults::none();
    let disk = MemoryDisk::new();
    let log: SimLog = open_with(&disk, SEGMENT_BYTES, &none).await.expect("opens").0;
    for index in 1..=3 {
        append(&log, A, record(index, 1, BODY)).await;
    }
    disk.fail_syncs_after(0);
    // Two sectors a frame, so that often one frame alone is lost between two that are whole.
    let text = |index: u64| format!("{index:04} {}", "y".repeat(979));
    for index in 4..=15 {
        log.append(A, vec![record(index, 1, &text(index))], drop).expect("taken");
    }
    log.save_vote(B, Bytes::from_static(b"unacknowledged"), drop).expect("taken");
    assert!(log.close().await.is_err(), "the write was not finished");
    let mut rng = Rng::new(seed);
    let disk = disk.crash_keeping(|| rng.chance(850_000));
    let opened = open_with::<SimRuntime>(&disk, SEGMENT_BYTES, &none).await;
    let log = opened.unwrap_or_else(|error| panic!("seed {seed}: {error}")).0;
    let found = log.read(A, EVERYTHING);
    assert!((3..=15).contains(&found.len()), "seed {seed}: {} entries", found.len());
    for (record, index) in found.iter().zip(1..) {
        let expected = if index <= 3 { BODY.to_owned() } else { text(index) };
        assert_eq!((record.index, &record.payload[..]), (Index(index), expected.as_bytes()));
    }
    assert!(found.len() == 15 || log.vote(B).is_none(), "seed {seed}: only a prefix counts");
    // The lost frame again, byte for byte: what tore behind it must not follow it.
    let next = u64::try_from(found.len()).expect("small") + 1;
    append(&log, A, record(next, 1, &text(next))).await;
    let log: SimLog = open_with(&disk.crash(), SEGMENT_BYTES, &none).await.expect("opens").0;
    assert_eq!(log.last(A), Some((Index(next), Term(1))), "seed {seed}");
}

#[test]
fn a_write_torn_by_the_sector_leaves_a_prefix() {
    for seed in 0..300 {
        sim(torn_write(seed));
    }
}

#[test]
fn a_flipped_bit_in_what_was_durable_is_refused_by_place_and_left_alone() {
    sim(async {
        let disk = written(8).await;
        for at in 0..start_of(8) {
            let rotten = disk.fork();
            rotten.tamper(FIRST, |bytes| bytes[at] ^= 1 << (at % 8));
            let before = dump(&rotten);
            let refused = refusal(&rotten).await;
            let OpenError::Damaged { file, offset, .. } = &refused else {
                panic!("byte {at}: {refused}");
            };
            let frame = (1..=7).map(start_of).filter(|start| *start <= at).max().unwrap_or(0);
            assert_eq!((file.as_str(), *offset), (FIRST, frame), "byte {at}");
            assert!(refused.to_string().contains("quorate node run"), "it says what to do");
            assert_eq!(dump(&rotten), before, "byte {at}: nothing is changed");
        }
        for at in start_of(8)..start_of(9) {
            let torn = disk.fork();
            torn.tamper(FIRST, |bytes| bytes[at] ^= 1 << (at % 8));
            let log = open(&torn).await;
            assert_eq!(log.last(A), Some((Index(7), Term(1))), "byte {at}: as if torn");
        }
    });
}

#[test]
fn a_seal_lets_rot_in_the_last_write_be_seen() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        append(&log, A, record(1, 1, BODY)).await;
        log.close().await.expect("closed");
        for at in 0..start_of(2) {
            let rotten = disk.fork();
            rotten.tamper(FIRST, |bytes| bytes[at] ^= 1);
            assert!(matches!(refusal(&rotten).await, OpenError::Damaged { .. }), "byte {at}");
        }
        assert_eq!(indices(&open(&disk).await, A), [1]);
    });
}

#[test]
fn rot_at_the_end_of_an_earlier_segment_is_refused() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        // All in one write but for the roll, so only the next segment knows where this one ends.
        let many = (1..=100).map(|index| record(index, 1, BODY)).collect();
        told::<SimRuntime>(|done| log.append(A, many, done)).await.expect("durable");
        let frames = (4096 - SEGMENT_FRAME_BYTES) / framed_bytes(BODY.len());
        let last = start_of(frames);
        disk.tamper(FIRST, |bytes| bytes[last + HEAD_BYTES] ^= 4);
        let refused = refusal(&disk.crash()).await;
        assert!(
            matches!(&refused, OpenError::Damaged { file, offset, .. } if file == FIRST && *offset == last),
            "{refused}"
        );
    });
}

#[test]
fn a_missing_or_cut_segment_is_refused() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        for index in 1..=200 {
            append(&log, A, record(index, 1, BODY)).await;
        }
        let disk = disk.crash();
        let missing = disk.fork();
        missing.remove(&path_of(2)).await.expect("removed");
        let refused = refusal(&missing).await;
        assert!(
            matches!(&refused, OpenError::Missing { file } if *file == path_of(2)),
            "{refused}"
        );
        let missing = disk.fork();
        missing.remove(FIRST).await.expect("removed");
        let refused = refusal(&missing).await;
        assert!(matches!(&refused, OpenError::Missing { file } if file == FIRST), "{refused}");
        let cut = disk.fork();
        cut.tamper(&path_of(2), |bytes| bytes.truncate(3_000));
        let refused = refusal(&cut).await;
        assert!(matches!(&refused, OpenError::Damaged { offset: 3_000, .. }), "{refused}");
    });
}

#[test]
fn another_directorys_segments_are_refused_and_not_taken_for_unused() {
    sim(async {
        let disk = written(3).await;
        let before = dump(&disk);
        let foreign = LogOptions { directory: DirectoryId([2; 16]), ..options(4096) };
        let refused = SimLog::open(disk.clone(), foreign, &Faults::none()).await;
        assert!(matches!(refused, Err(OpenError::Damaged { offset: 0, .. })));
        assert_eq!(dump(&disk), before);
    });
}

#[test]
fn a_newer_programs_log_is_refused_by_name() {
    sim(async {
        let disk = written(1).await;
        let framing = Framing::new(DirectoryId([0x1d; 16]), 1);
        let newer = disk.fork();
        newer.tamper(FIRST, |bytes| {
            let body = SegmentBody { format: 3, size: 4096, first: 1, previous_end: 0 };
            let mut out = bytes::BytesMut::new();
            framing.put(&mut out, Head::of_segment(Kind::Segment, 1), 0, &body.encode());
            bytes[..out.len()].copy_from_slice(&out);
        });
        let refused = refusal(&newer).await;
        assert!(matches!(refused, OpenError::Format { found: 3, known: 2, .. }), "{refused}");
    });
}

#[test]
fn truncated_entries_stay_gone_and_their_successors_stay() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        for index in 1..=6 {
            append(&log, A, record(index, 1, "old")).await;
        }
        log.truncate_after(A, Index(3), drop).expect("taken");
        append(&log, A, record(4, 2, "new")).await;
        let disk = disk.crash();
        let log = open(&disk).await;
        let tail = log.read(A, Index(3)..Index(9));
        assert_eq!(tail, [record(3, 1, "old"), record(4, 2, "new")]);
        told::<SimRuntime>(|done| log.truncate_after(A, Index(0), done)).await.expect("durable");
        let log = open(&disk.crash()).await;
        assert_eq!((log.last(A), indices(&log, A).len()), (None, 0));
    });
}

#[test]
fn what_a_start_found_is_made_durable_before_it_counts() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        append(&log, A, record(1, 1, "durable")).await;
        disk.fail_syncs_after(0);
        let failed = told::<SimRuntime>(|done| log.append(A, vec![record(2, 1, "written")], done));
        assert!(failed.await.is_err());
        // The process is killed: the page cache still has the record and a start finds it.
        let disk = disk.kill();
        let log = open(&disk).await;
        assert_eq!(indices(&log, A), [1, 2]);
        // Others may have been told of it by now. Then the power goes.
        let log = open(&disk.crash()).await;
        assert_eq!(indices(&log, A), [1, 2]);
    });
}

#[test]
fn a_crash_while_the_first_segment_is_made_leaves_a_log_that_opens() {
    sim(async {
        let disk = MemoryDisk::new();
        let log = open(&disk).await;
        disk.fail_syncs_after(0);
        let first = told::<SimRuntime>(|done| log.append(A, vec![record(1, 1, BODY)], done));
        assert!(first.await.is_err());
        for kept in 0..2 {
            let disk = disk.fork();
            disk.tamper(FIRST, |bytes| bytes[kept * SEGMENT_FRAME_BYTES..][..8].fill(0));
            let log = open(&disk).await;
            assert!(indices(&log, A).is_empty());
            append(&log, A, record(1, 2, BODY)).await;
            assert_eq!(log.last(A), open(&disk.crash()).await.last(A));
        }
    });
}

#[test]
fn the_position_of_what_is_durable_never_goes_back() {
    sim(async {
        let mut disk = MemoryDisk::new();
        let mut before = 0;
        for life in 1..=8 {
            let log = open(&disk).await;
            assert!(log.counts().position >= before, "life {life} begins behind the last");
            before = log.counts().position;
            for _ in 0..100 {
                vote(&log, A, "some words that fill a segment of 4 KiB in a while").await;
                assert!(log.counts().position > before);
                before = log.counts().position;
            }
            disk = if life % 2 == 0 { disk.crash() } else { disk.kill() };
        }
        // Rot in the last write looks torn; the position tells whoever remembers it.
        let (segment, end) = (before >> 32, usize::try_from(before & 0xffff_ffff).expect("small"));
        disk.tamper(&path_of(segment), |bytes| bytes[end - 8] ^= 1);
        assert!(open(&disk).await.counts().position < before);
    });
}
