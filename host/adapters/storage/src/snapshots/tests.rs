//! Snapshots survive crashes whole, replace each other and refuse damage.

use openraft_rt::AsyncRuntime;
use openraft_rt_sim::SimRuntime;

use super::*;
use crate::MemoryDisk;

const GROUP: GroupId = GroupId(2);

fn sim<T>(scenario: impl Future<Output = T>) -> T {
    SimRuntime::with_seed(3).block_on(scenario)
}

fn meta(index: u64) -> SnapshotMeta {
    let membership = Bytes::from(format!("voters at {index}"));
    SnapshotMeta { index: Index(index), term: Term(4), membership }
}

fn body(bytes: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from(at * 7 % 251).unwrap_or(0)).collect()
}

async fn latest(disk: &MemoryDisk) -> Option<(SnapshotMeta, Bytes)> {
    let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
    snapshots.latest(GROUP).await.expect("sound")
}

#[test]
fn a_written_snapshot_survives_a_crash_at_every_size_of_its_last_block() {
    sim(async {
        for bytes in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 20 * BLOCK_BYTES + 5] {
            let disk = MemoryDisk::new();
            let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
            snapshots.write(GROUP, meta(9), body(bytes)).await.expect("written");
            assert_eq!(latest(&disk.crash()).await, Some((meta(9), body(bytes))), "{bytes}");
        }
    });
}

#[test]
fn the_newest_counts_and_older_ones_go() {
    sim(async {
        let disk = MemoryDisk::new();
        let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
        for index in [5, 90, 10] {
            snapshots.write(GROUP, meta(index), body(100)).await.expect("written");
        }
        snapshots.write(GroupId(3), meta(200), body(1)).await.expect("written");
        assert_eq!(snapshots.latest(GROUP).await.expect("sound"), Some((meta(90), body(100))));
        assert_eq!(disk.paths().len(), 2, "one a group: {:?}", disk.paths());
    });
}

#[test]
fn an_unfinished_write_shows_nothing_and_leaves_nothing() {
    sim(async {
        let disk = MemoryDisk::new();
        let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
        snapshots.write(GROUP, meta(1), body(10)).await.expect("written");
        disk.fail_syncs_after(0);
        let failed = snapshots.write(GROUP, meta(2), body(300)).await;
        assert!(matches!(failed, Err(SnapshotError::Disk(DiskError { act: "sync", .. }))));
        let disk = disk.kill();
        assert_eq!(latest(&disk).await, Some((meta(1), body(10))));
        assert_eq!(disk.paths().len(), 1, "{:?}", disk.paths());
    });
}

#[test]
fn a_flipped_bit_anywhere_is_refused_and_no_older_one_stands_in() {
    sim(async {
        let disk = MemoryDisk::new();
        let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
        snapshots.write(GROUP, meta(7), body(300)).await.expect("written");
        let path = disk.paths().pop().expect("one");
        let bytes = disk.bytes(&path).expect("there").len();
        for at in 0..bytes {
            disk.tamper(&path, |bytes| bytes[at] ^= 0x10);
            let refused = snapshots.latest(GROUP).await;
            assert!(matches!(refused, Err(SnapshotError::Damaged { .. })), "byte {at}");
            disk.tamper(&path, |bytes| bytes[at] ^= 0x10);
        }
        disk.tamper(&path, |content| content.truncate(bytes - 1));
        assert!(snapshots.latest(GROUP).await.is_err(), "cut");
    });
}

#[test]
fn a_block_of_another_snapshot_or_place_is_refused() {
    sim(async {
        let disk = MemoryDisk::new();
        let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
        snapshots.write(GROUP, meta(70), body(4 * BLOCK_BYTES)).await.expect("written");
        let path = disk.paths().pop().expect("one");
        let older = disk.bytes(&path).expect("there");
        let text = body(4 * BLOCK_BYTES + 1).slice(1..);
        snapshots.write(GROUP, meta(80), text.clone()).await.expect("written");
        let path = disk.paths().pop().expect("one");
        let newer = disk.bytes(&path).expect("there");
        let first = HEAD_BYTES + meta(80).membership.len() + SUM_BYTES;
        let block = |number: usize| {
            let at = first + number * (BLOCK_BYTES + SUM_BYTES);
            at..at + BLOCK_BYTES + SUM_BYTES
        };
        for (from, source, to) in [(1, &older, 1), (1, &newer, 2), (3, &newer, 0)] {
            let part = source[block(from)].to_vec();
            disk.tamper(&path, |bytes| bytes[block(to)].copy_from_slice(&part));
            let refused = snapshots.latest(GROUP).await;
            assert!(
                matches!(&refused, Err(SnapshotError::Damaged { offset, .. }) if *offset == block(to).start),
                "{refused:?}"
            );
            disk.tamper(&path, |bytes| bytes.copy_from_slice(&newer));
        }
        assert_eq!(snapshots.latest(GROUP).await.expect("sound"), Some((meta(80), text)));
    });
}

#[test]
fn a_full_disk_keeps_the_older_one_and_gives_back_what_it_took() {
    sim(async {
        let disk = MemoryDisk::new();
        let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
        snapshots.write(GROUP, meta(1), body(10)).await.expect("written");
        disk.fill_after(BLOCK_BYTES + 100);
        let refused = snapshots.write(GROUP, meta(2), body(3 * BLOCK_BYTES)).await;
        assert!(refused.is_err_and(|error| error.is_full()));
        assert_eq!(disk.paths().len(), 1, "{:?}", disk.paths());
        assert_eq!(latest(&disk.kill()).await, Some((meta(1), body(10))));
        disk.free_up();
        let snapshots = Snapshots::open(disk.kill()).await.expect("opens");
        snapshots.write(GROUP, meta(2), body(3 * BLOCK_BYTES)).await.expect("there is space again");
    });
}
