//! Blocks that a disk put in a wrong place, or that are as they were some writes
//! ago; files exchanged, copied over each other or lost. Whatever it is, a start
//! finds a state that was, or refuses: never a mixture, and never less than was
//! acknowledged where the end of the log is untouched.

use proptest::prelude::*;

use super::segments::{number_of, path_of};
use super::*;

const SEGMENT_BYTES: u32 = 16 << 10;
const WRITES: u64 = 260;

/// A log's whole past: its files and what readers saw after each write.
struct Past {
    disks: Vec<MemoryDisk>,
    states: Vec<(Seen, Seen)>,
    /// The newest segment, and where in it the last write begins.
    last: (String, usize),
}

fn state(log: &SimLog) -> (Seen, Seen) {
    (seen(log, A), seen(log, B))
}

async fn reopen(disk: &MemoryDisk) -> Result<SimLog, OpenError> {
    Ok(open_with(disk, SEGMENT_BYTES, &Faults::none()).await?.0)
}

/// Where the frames of a segment end.
fn end_of(disk: &MemoryDisk, path: &str) -> usize {
    let number = number_of(path.strip_prefix("log/").unwrap_or(path)).expect("a segment");
    let framing = super::frame::Framing::new(DirectoryId([0x1d; 16]), number);
    let bytes = disk.bytes(path).expect("there");
    let mut end = 0;
    while let Ok(frame) = framing.read(&bytes, end) {
        end = frame.end;
    }
    end
}

/// Two groups, one of them long idle; segments go round several times.
async fn past() -> Past {
    let disk = MemoryDisk::new();
    let log = reopen(&disk).await.expect("opens");
    for index in 1..=3 {
        append(&log, B, record(index, 1, "idle")).await;
    }
    vote(&log, B, "idle").await;
    let mut past = Past { disks: Vec::new(), states: vec![state(&log)], last: (String::new(), 0) };
    for index in 1..=WRITES {
        if index == WRITES {
            let path = disk.paths().pop().expect("segments");
            past.last = (path.clone(), end_of(&disk, &path));
        }
        let text =
            format!("entry {index} {}", "x".repeat(usize::try_from(index * 37 % 700).unwrap_or(0)));
        append(&log, A, record(index, 1 + index / 50, &text)).await;
        past.states.push(state(&log));
        if index % 40 == 0 {
            let mark = Index(index - 15);
            told::<SimRuntime>(|done| log.purge_upto(A, mark, Term(1), done))
                .await
                .expect("durable");
            past.states.push(state(&log));
        }
        if index % 10 == 0 {
            past.disks.push(disk.fork());
        }
    }
    past.disks.push(disk.fork());
    let newest = past.disks.last().expect("forked").paths().pop().expect("segments");
    assert_eq!(newest, past.last.0, "the last write did not roll");
    past
}

thread_local! {
    static PAST: Past = sim(past());
}

/// One misdeed of a disk.
#[derive(Clone, Debug)]
enum Misdeed {
    /// A block gets what another block has.
    Copy { from: (usize, usize), to: (usize, usize) },
    /// Two blocks change places.
    Swap { one: (usize, usize), other: (usize, usize) },
    /// A block is as it was when the log was younger.
    Revert { block: (usize, usize), age: usize },
}

fn misdeed() -> impl Strategy<Value = Misdeed> {
    let block = || {
        (any::<prop::sample::Index>(), any::<prop::sample::Index>())
            .prop_map(|(file, block)| (file.index(1 << 20), block.index(1 << 20)))
    };
    prop_oneof![
        (block(), block()).prop_map(|(from, to)| Misdeed::Copy { from, to }),
        (block(), block()).prop_map(|(one, other)| Misdeed::Swap { one, other }),
        (block(), any::<prop::sample::Index>())
            .prop_map(|(block, age)| Misdeed::Revert { block, age: age.index(1 << 20) }),
    ]
}

/// A block of `size` bytes: its file, and where it lies.
fn place(disk: &MemoryDisk, (file, block): (usize, usize), size: usize) -> (String, usize) {
    let paths = disk.paths();
    let path = paths[file % paths.len()].clone();
    let blocks = disk.bytes(&path).expect("there").len() / size;
    (path, block % blocks * size)
}

fn block(disk: &MemoryDisk, (path, at): &(String, usize), size: usize) -> Option<Vec<u8>> {
    Some(disk.bytes(path)?[*at..at + size].to_vec())
}

fn put_block(disk: &MemoryDisk, (path, at): &(String, usize), block: &[u8]) {
    assert!(disk.tamper(path, |bytes| bytes[*at..at + block.len()].copy_from_slice(block)));
}

/// Does it, and says which blocks it changed.
fn commit(past: &Past, disk: &MemoryDisk, misdeed: &Misdeed, size: usize) -> Vec<(String, usize)> {
    match *misdeed {
        Misdeed::Copy { from, to } => {
            let (from, to) = (place(disk, from, size), place(disk, to, size));
            put_block(disk, &to, &block(disk, &from, size).expect("there"));
            vec![to]
        }
        Misdeed::Swap { one, other } => {
            let (one, other) = (place(disk, one, size), place(disk, other, size));
            let (first, second) = (block(disk, &one, size), block(disk, &other, size));
            put_block(disk, &one, &second.expect("there"));
            put_block(disk, &other, &first.expect("there"));
            vec![one, other]
        }
        Misdeed::Revert { block: which, age } => {
            let which = place(disk, which, size);
            // The file had another name once; what was in it then is what a lost write leaves.
            let older = &past.disks[age % past.disks.len()];
            let paths = older.paths();
            let path = if older.bytes(&which.0).is_some() {
                which.0.clone()
            } else {
                paths[age % paths.len()].clone()
            };
            let old = block(older, &(path, which.1), size).expect("there");
            put_block(disk, &which, &old);
            vec![which]
        }
    }
}

async fn judge(
    past: &Past,
    disk: &MemoryDisk,
    changed: &[(String, usize)],
    size: usize,
) -> Result<bool, TestCaseError> {
    let now = past.states.last().expect("one");
    let Ok(log) = reopen(&disk.crash()).await else { return Ok(false) };
    let found = state(&log);
    let end_touched =
        changed.iter().any(|(path, at)| *path == past.last.0 && at + size > past.last.1);
    prop_assert!(past.states.contains(&found), "a state that never was: {found:?}");
    prop_assert!(end_touched || found == *now, "acknowledged writes are gone: {found:?}");
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_elsewhere_or_of_another_time_never_become_another_log(
        misdeed in misdeed(),
        size in prop_oneof![Just(512_usize), Just(4096)],
    ) {
        PAST.with(|past| {
            let disk = past.disks.last().expect("forked").fork();
            let changed = commit(past, &disk, &misdeed, size);
            sim(judge(past, &disk, &changed, size)).map(drop)
        })?;
    }
}

#[test]
fn every_block_of_the_live_log_is_missed_when_it_is_another() {
    PAST.with(|past| {
        let now = past.disks.last().expect("forked");
        let (mut refused, mut kept) = (0, 0);
        for path in now.paths() {
            for at in (0..end_of(now, &path)).step_by(512).filter(|at| at + 512 <= past.last.1) {
                let disk = now.fork();
                let elsewhere = (path.clone(), (at + 1024) % 8192);
                put_block(&disk, &(path.clone(), at), &block(now, &elsewhere, 512).expect("there"));
                let changed = [(path.clone(), at)];
                let opened = sim(judge(past, &disk, &changed, 512)).expect("never another log");
                if opened { kept += 1 } else { refused += 1 }
            }
        }
        assert!(refused > 40, "only {refused} refused: the scenario has no live blocks");
        assert!(kept < refused, "{kept} of dead segments, {refused} of live ones");
    });
}

#[test]
fn files_exchanged_copied_or_lost_are_refused_or_do_not_matter() {
    PAST.with(|past| {
        let now = past.disks.last().expect("forked");
        let paths = now.paths();
        let newest = paths.last().expect("segments").clone();
        let mut refused = 0;
        for one in &paths {
            for other in paths.iter().filter(|other| *other != one) {
                for swap in [false, true] {
                    let disk = now.fork();
                    let (mine, theirs) =
                        (now.bytes(one).expect("there"), now.bytes(other).expect("there"));
                    disk.tamper(one, |bytes| *bytes = theirs);
                    if swap {
                        disk.tamper(other, |bytes| *bytes = mine);
                    }
                    // The files are whole, so that even at the end of the log nothing excuses a loss.
                    let opened = sim(judge(past, &disk, &[], 512)).expect("never another log");
                    refused += usize::from(!opened);
                    assert!(
                        !(opened && (*one == newest || (swap && *other == newest))),
                        "{one} {other}"
                    );
                }
            }
            let disk = now.fork();
            sim(disk.remove(one)).expect("removed");
            if *one != newest {
                sim(judge(past, &disk, &[], 512)).expect("never another log");
            }
        }
        assert!(refused > paths.len(), "{refused}");
        assert!(
            paths
                .iter()
                .all(|path| number_of(path.strip_prefix("log/").expect("a segment")).is_some())
        );
        assert_ne!(newest, path_of(1), "segments went round");
    });
}
