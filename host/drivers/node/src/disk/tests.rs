//! Files behave as the seam says, and the log lives on them.

use openraft_rt_tokio::TokioRuntime;
use quorate_storage::{Blobs, DirectoryId, Log, LogOptions, Record, Snapshots};
use quorate_types::{Digest, Faults, GroupId, Index, Term};
use tempfile::TempDir;

use super::*;

fn fresh() -> (TempDir, FileDisk) {
    let dir = TempDir::new().expect("a temporary directory");
    let disk = FileDisk::open(&dir.path().join("data")).expect("opens");
    (dir, disk)
}

#[tokio::test]
async fn a_file_is_read_as_written_and_ends_where_it_ends() {
    let (_dir, disk) = fresh();
    let file = disk.open("a.bin", Open::New).await.expect("new");
    file.write_at(3, Bytes::from_static(b"abc")).await.expect("written");
    file.write_and_sync(6, Bytes::from_static(b"def")).await.expect("written");
    assert_eq!(file.read_at(0, 100).await.expect("read")[..], b"\0\0\0abcdef"[..]);
    assert_eq!(file.read_at(8, 1).await.expect("read")[..], b"f"[..]);
    assert!(file.read_at(9, 10).await.expect("read").is_empty());
    assert!(file.read_at(u64::MAX, 10).await.expect("read").is_empty());
    assert_eq!(file.len().await.expect("length"), 9);
}

#[tokio::test]
async fn growing_writes_zeroes_and_cutting_cuts() {
    let (_dir, disk) = fresh();
    let file = disk.open("a.bin", Open::Any).await.expect("any");
    let size = 2 * u64::try_from(ZEROES_BYTES).expect("fits") + 5;
    file.set_len(size).await.expect("grown");
    file.sync().await.expect("synced");
    let bytes = file.read_at(0, usize::MAX).await.expect("read");
    assert!(bytes.len() == 2 * ZEROES_BYTES + 5 && bytes.iter().all(|byte| *byte == 0));
    file.set_len(4).await.expect("cut");
    assert_eq!(file.len().await.expect("length"), 4);
}

#[tokio::test]
async fn files_are_made_found_and_refused_as_asked() {
    let (_dir, disk) = fresh();
    let absent = disk.open("x", Open::Existing).await.expect_err("absent");
    assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    drop(disk.open("x", Open::New).await.expect("new"));
    let present = disk.open("x", Open::New).await.expect_err("present");
    assert_eq!(present.kind(), io::ErrorKind::AlreadyExists);
    disk.create_dir("deep/er").await.expect("made");
    assert!(disk.list("deep").await.expect("listed").is_empty(), "folders are not files");
    assert!(disk.list("nowhere").await.expect("listed").is_empty());
    disk.rename("x", "deep/y").await.expect("renamed");
    drop(disk.open("deep/a", Open::New).await.expect("new"));
    for dir in ["deep", ""] {
        disk.sync_dir(dir).await.expect("synced");
    }
    assert_eq!(disk.list("deep").await.expect("listed"), ["a", "y"]);
    disk.remove("deep/y").await.expect("removed");
    let gone = disk.remove("deep/y").await.expect_err("gone");
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn no_path_leads_out_of_the_directory() {
    let (dir, disk) = fresh();
    std::fs::write(dir.path().join("secret"), "x").expect("written");
    for path in ["../secret", "/etc/passwd", "a/../../secret", "a//b", "./a", "a\\b", "a\0", "a/"] {
        let refused = disk.open(path, Open::Any).await.expect_err(path);
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{path}");
        let refused = disk.remove(path).await.expect_err(path);
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{path}");
        let refused = disk.rename("a", path).await.expect_err(path);
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{path}");
    }
    assert!(dir.path().join("secret").exists());
}

#[tokio::test]
async fn a_directory_has_one_disk_at_a_time() {
    let (dir, disk) = fresh();
    let root = dir.path().join("data");
    let refused = FileDisk::open(&root).expect_err("in use");
    assert!(matches!(&refused, FileDiskError::InUse { root: named } if *named == root));
    let file = disk.open("a", Open::New).await.expect("new");
    drop(disk);
    assert!(FileDisk::open(&root).is_err(), "an open file keeps the directory");
    drop(file);
    // The threads let go of the lock when they notice, which nothing announces.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while let Err(error) = FileDisk::open(&root) {
        assert!(std::time::Instant::now() < deadline, "still locked: {error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_written_any_more() {
    let (_dir, disk) = fresh();
    let file = disk.open("a", Open::New).await.expect("new");
    file.write_and_sync(0, Bytes::from_static(b"kept")).await.expect("durable");
    // There is no such folder: the sync fails, as one would on a broken disk.
    let failed = disk.sync_dir("nowhere").await.expect_err("no such folder");
    assert_eq!(failed.kind(), io::ErrorKind::Other, "a failed sync is never a full disk");
    for refused in [
        file.write_at(0, Bytes::from_static(b"lost")).await,
        file.sync().await,
        file.write_and_sync(4, Bytes::from_static(b"lost")).await,
        file.set_len(1).await,
        disk.rename("a", "b").await,
        disk.remove("a").await,
        disk.sync_dir("").await,
    ] {
        let said = refused.expect_err("the directory is done with").to_string();
        assert!(said.contains("sync failed"), "{said}");
    }
    assert_eq!(file.read_at(0, 10).await.expect("read")[..], b"kept"[..]);
    assert!(disk.failure().is_some_and(|why| why.contains("data")), "{:?}", disk.failure());
}

#[tokio::test]
async fn what_the_owner_has_is_the_owners() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, disk) = fresh();
    drop(disk.open("a", Open::New).await.expect("new"));
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let root = dir.path().join("data");
    assert_eq!((mode(&root), mode(&root.join("a"))), (0o700, 0o600));
}

#[tokio::test]
async fn a_directory_opened_to_read_is_not_changed() {
    let (dir, disk) = fresh();
    let root = dir.path().join("data");
    let file = disk.open("a", Open::New).await.expect("new");
    file.write_and_sync(0, Bytes::from_static(b"kept")).await.expect("durable");
    assert!(matches!(FileDisk::open_to_read(&root), Err(FileDiskError::InUse { .. })));
    drop((file, disk));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let disk = loop {
        match FileDisk::open_to_read(&root) {
            Ok(disk) => break disk,
            Err(error) => assert!(std::time::Instant::now() < deadline, "still locked: {error}"),
        }
        tokio::task::yield_now().await;
    };
    let file = disk.open("a", Open::Any).await.expect("there");
    assert_eq!(file.read_at(0, 10).await.expect("read")[..], b"kept"[..]);
    for refused in [
        file.write_at(0, Bytes::from_static(b"x")).await,
        file.set_len(0).await,
        file.sync().await,
        disk.create_dir("new").await,
        disk.remove("a").await,
        disk.sync_dir("").await,
    ] {
        let kind = refused.expect_err("to read only").kind();
        assert_eq!(kind, io::ErrorKind::ReadOnlyFilesystem);
    }
    assert!(disk.open("b", Open::New).await.is_err());
    assert!(FileDisk::open_to_read(&dir.path().join("nowhere")).is_err());
    assert!(!dir.path().join("nowhere").exists());
}

type FileLog = Log<TokioRuntime, FileDisk>;

fn options() -> LogOptions {
    LogOptions { segment_bytes: 64 << 10, ..LogOptions::new(DirectoryId([5; 16])) }
}

async fn open_log(disk: &FileDisk) -> FileLog {
    Log::open(disk.clone(), options(), &Faults::none()).await.expect("opens").0
}

#[tokio::test]
async fn the_log_rolls_recycles_and_comes_back_over_files() {
    const GROUP: GroupId = GroupId(0);
    let (_dir, disk) = fresh();
    let log = open_log(&disk).await;
    for index in 1..=2_000_u64 {
        let payload = Bytes::from(vec![u8::try_from(index % 251).expect("small"); 300]);
        let record = Record { index: Index(index), term: Term(1), payload };
        let (durable, waits) = tokio::sync::oneshot::channel();
        let done = move |result| drop(durable.send(result));
        log.append(GROUP, vec![record], done).expect("taken");
        if index % 100 == 0 {
            log.purge_upto(GROUP, Index(index - 50), Term(1), drop).expect("taken");
        }
        waits.await.expect("told").expect("durable");
    }
    log.close().await.expect("closed");
    let files = disk.list("log").await.expect("listed");
    assert!(files.len() <= 8, "680 KiB went through segments of 64 KiB: {files:?}");
    drop(log);
    let log = open_log(&disk).await;
    assert_eq!(log.last(GROUP), Some((Index(2_000), Term(1))));
    let live = log.read(GROUP, Index(0)..Index(u64::MAX));
    assert_eq!(live.first().map(|record| record.index), Some(Index(1_951)));
    assert!(live.iter().all(|record| u64::from(record.payload[0]) == record.index.0 % 251));
}

#[tokio::test]
async fn blobs_and_snapshots_live_on_files() {
    let (_dir, disk) = fresh();
    let content = Bytes::from(vec![3; 3 << 20]);
    let digest = Digest::of(&content);
    let blobs = Blobs::open(disk.clone()).await.expect("opens");
    blobs.put(digest, content.clone()).await.expect("kept");
    let blobs = Blobs::open(disk.clone()).await.expect("opens");
    assert_eq!(blobs.get(digest).await.expect("sound"), Some(content.clone()));
    assert_eq!(blobs.list().await.expect("listed"), [digest]);
    let membership = Bytes::from_static(b"voters");
    let meta = quorate_storage::SnapshotMeta { index: Index(4), term: Term(2), membership };
    let snapshots = Snapshots::open(disk.clone()).await.expect("opens");
    snapshots.write(GroupId(1), meta.clone(), content.clone()).await.expect("written");
    let snapshots = Snapshots::open(disk).await.expect("opens");
    assert_eq!(snapshots.latest(GroupId(1)).await.expect("sound"), Some((meta, content)));
}
