//! A damaged log is reported and written anew, whole or not at all.

use super::salvage::{Anew, Remains, Salvage};
use super::segments::path_of;
use super::*;

const BODY: &str = "an entry of some length that fills segments of four kilobytes in a while";

/// A log of several segments, its third byte-rotten in the middle.
async fn damaged() -> (MemoryDisk, OpenError) {
    let disk = MemoryDisk::new();
    let log = open(&disk).await;
    vote(&log, B, "b's vote").await;
    for index in 1..=200 {
        append(&log, A, record(index, 1 + index / 100, BODY)).await;
    }
    vote(&log, A, "a's vote").await;
    let disk = disk.crash();
    disk.tamper(&path_of(3), |bytes| bytes[1_000] ^= 1);
    let error = refusal(&disk).await;
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    (disk, error)
}

async fn look(disk: &MemoryDisk, error: OpenError) -> Salvage {
    Salvage::of(disk, &options(4096), error).await.expect("readable").expect("others can help")
}

/// What another voter has.
fn anew() -> BTreeMap<GroupId, Anew> {
    let vote = Some(Bytes::from_static(b"a higher term"));
    let a = Anew {
        vote: vote.clone(),
        committed: Some(Bytes::from_static(b"mark")),
        purged: Some((Index(40), Term(1))),
        records: (41..=210).map(|index| record(index, 2, BODY)).collect(),
    };
    BTreeMap::from([(A, a), (B, Anew { vote, ..Anew::default() })])
}

async fn rewrite(salvage: &Salvage, disk: &MemoryDisk) -> Result<(), super::salvage::RewriteError> {
    salvage.rewrite(PhantomData::<SimRuntime>, disk, &options(4096), anew()).await
}

fn assert_anew(log: &SimLog) {
    let vote = Some(Bytes::from_static(b"a higher term"));
    let purged = Some((Index(40), Term(1)));
    let entries = anew().remove(&A).expect("there").records;
    assert_eq!(seen(log, A), Seen { entries, purged, vote: vote.clone() });
    assert_eq!(seen(log, B), Seen { entries: Vec::new(), purged: None, vote });
    assert_eq!(log.committed(A), Some(Bytes::from_static(b"mark")));
}

#[test]
fn what_is_readable_of_a_damaged_log_is_reported() {
    sim(async {
        let (disk, error) = damaged().await;
        let before = dump(&disk);
        let salvage = look(&disk, error).await;
        let a = Remains {
            votes: vec![Bytes::from_static(b"a's vote")],
            term: Term(3),
            entries: Some((Index(1), Index(200))),
        };
        assert_eq!(salvage.groups.get(&A), Some(&a));
        assert_eq!(salvage.groups[&B].votes, [Bytes::from_static(b"b's vote")]);
        assert!(salvage.damage.to_string().contains("damaged at byte"));
        assert_eq!(dump(&disk), before, "looking changes nothing");
    });
}

#[test]
fn a_log_written_anew_opens_goes_on_and_frees_the_damaged_one() {
    sim(async {
        let (disk, error) = damaged().await;
        let position = {
            let segment = disk.paths().len();
            u64::try_from(segment).expect("small") << 32
        };
        rewrite(&look(&disk, error).await, &disk).await.expect("written");
        let disk = disk.crash();
        let log = open(&disk).await;
        assert_anew(&log);
        assert!(log.counts().position > position, "it does not go back");
        for index in 211..=600 {
            append(&log, A, record(index, 4, BODY)).await;
        }
        told::<SimRuntime>(|done| log.purge_upto(A, Index(590), Term(4), done))
            .await
            .expect("done");
        for _ in 0..200 {
            vote(&log, B, "segments go round over what was damaged").await;
        }
        let log = open(&disk.crash()).await;
        assert_eq!(indices(&log, A), (591..=600).collect::<Vec<_>>());
    });
}

#[test]
fn a_crash_at_any_sync_of_a_rewrite_leaves_the_damaged_log_or_the_new_one() {
    sim(async {
        let (mut refused, mut opened) = (0, 0);
        for syncs in 0..40 {
            for kept in [0, 500_000, 1_000_000] {
                let (disk, error) = damaged().await;
                let salvage = look(&disk, error).await;
                disk.fail_syncs_after(syncs);
                let rewritten = rewrite(&salvage, &disk).await;
                let mut rng = quorate_types::rng::Rng::new(syncs);
                let disk = disk.crash_keeping(|| rng.chance(kept));
                match open_with::<SimRuntime>(&disk, 4096, &Faults::none()).await {
                    Ok((log, _)) => {
                        assert_anew(&log);
                        opened += 1;
                    }
                    Err(error) => {
                        assert!(rewritten.is_err(), "{error}");
                        let again = look(&disk, error).await;
                        rewrite(&again, &disk).await.expect("it is tried again");
                        assert_anew(&open(&disk.crash()).await);
                        refused += 1;
                    }
                }
            }
        }
        assert!(refused > 10 && opened > 10, "{refused} refused, {opened} opened");
    });
}

/// Folder syncs do not count in the disk's faults, so a death between two renames is made by hand.
#[test]
fn segments_that_moved_before_the_first_are_not_yet_a_log() {
    sim(async {
        let (disk, error) = damaged().await;
        let newest =
            disk.paths().into_iter().rfind(|path| path.ends_with(".wal")).expect("several");
        let done = disk.fork();
        rewrite(&look(&done, error).await, &done).await.expect("written");
        let added: Vec<String> = done
            .paths()
            .into_iter()
            .filter(|path| path.starts_with("log/") && disk.bytes(path).is_none())
            .collect();
        assert!(added.len() > 2, "{added:?}");
        for missing in 1..added.len() {
            let half = done.fork();
            for path in &added[..missing] {
                half.remove(path).await.expect("there");
            }
            let error = refusal(&half).await;
            assert!(
                matches!(&error, OpenError::Missing { file } if added[..missing].contains(file)),
                "{error}"
            );
            rewrite(&look(&half, error).await, &half).await.expect("it is tried again");
            assert_anew(&open(&half.crash()).await);
        }
        assert!(added[0] > newest, "behind all that ever was");
    });
}

#[test]
fn what_is_no_log_is_not_written_and_what_is_no_damage_is_not_repaired() {
    sim(async {
        let (disk, error) = damaged().await;
        let salvage = look(&disk, error).await;
        let gap = Anew { records: vec![record(5, 1, "x"), record(7, 1, "y")], ..Anew::default() };
        let behind = Anew {
            purged: Some((Index(9), Term(1))),
            records: vec![record(9, 1, "x")],
            ..Anew::default()
        };
        let large = Anew { records: vec![record(1, 1, &"x".repeat(5_000))], ..Anew::default() };
        for wrong in [gap, behind, large] {
            let groups = BTreeMap::from([(A, wrong)]);
            let runtime = PhantomData::<SimRuntime>;
            let refused = salvage.rewrite(runtime, &disk, &options(4096), groups).await;
            assert!(matches!(refused, Err(super::salvage::RewriteError::Refused { group: A, .. })));
        }
        let newer = OpenError::Format { file: "f".to_owned(), found: 9, known: 2 };
        let told = Salvage::of(&disk, &options(4096), newer).await.expect("readable");
        assert!(matches!(told, Err(OpenError::Format { .. })));
    });
}
