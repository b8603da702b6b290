//! Whole backups come back, and no other bytes do.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_types::{Digest, Era, GroupId, Index, NodeId, Term, Time};

use super::*;

fn head() -> BackupHead {
    BackupHead {
        cluster: "harbour".to_owned(),
        era: Era::FIRST,
        shards: 2,
        feature_level: 1,
        node: NodeId(3),
        taken: Time(7),
        blobs: true,
    }
}

fn group(number: u32, content: &Bytes) -> BackupGroup {
    let digest = Digest::of(content);
    let bytes = length(content.len());
    BackupGroup { group: GroupId(number), index: Index(40), term: Term(2), digest, bytes }
}

/// A backup of these groups and blobs, and of one blob that nobody had.
fn written(groups: &[Bytes], blobs: &[Bytes]) -> Vec<u8> {
    let (mut writer, first) = BackupWriter::begin(&head());
    let mut file = first.to_vec();
    let parts = |writer: &mut BackupWriter, file: &mut Vec<u8>, mut content: Bytes| {
        while !content.is_empty() {
            file.extend_from_slice(&writer.part(&mut content));
        }
    };
    for (number, content) in (0..).zip(groups) {
        file.extend_from_slice(&writer.group(&group(number, content)));
        parts(&mut writer, &mut file, content.clone());
    }
    for content in blobs {
        file.extend_from_slice(&writer.blob(Digest::of(content), content.len()));
        parts(&mut writer, &mut file, content.clone());
    }
    file.extend_from_slice(&writer.absent(Digest::of(b"lost")));
    file.extend_from_slice(&writer.end());
    file
}

fn read(file: &[u8]) -> Result<Vec<BackupItem>, BackupError> {
    let (mut reader, found) = BackupReader::open(file)?;
    assert_eq!(found, head());
    let mut items = Vec::new();
    while let Some(item) = reader.next_item()? {
        items.push(item);
    }
    assert!(matches!(reader.next_item(), Ok(None)), "nothing comes after the end");
    Ok(items)
}

fn small() -> (Vec<Bytes>, Vec<Bytes>) {
    let groups = ["system", "shard one", ""].map(|text| Bytes::from_static(text.as_bytes()));
    (groups.into(), vec![Bytes::from_static(b"a blob"), Bytes::new()])
}

#[test]
fn what_was_written_is_read() {
    let long = Bytes::from(vec![7; 2 * PAYLOAD_BYTES_MAX + 5]);
    let (groups, blobs) = small();
    let groups = [groups, vec![long.clone()]].concat();
    let blobs = [blobs, vec![long]].concat();
    let items = read(&written(&groups, &blobs)).expect("sound");
    let of_groups = (0..)
        .zip(&groups)
        .map(|(number, content)| BackupItem::Group(group(number, content), content.clone()));
    let of_blobs = blobs.iter().map(|blob| BackupItem::Blob(Digest::of(blob), blob.clone()));
    let wanted: Vec<BackupItem> =
        of_groups.chain(of_blobs).chain([BackupItem::Absent(Digest::of(b"lost"))]).collect();
    let (end, rest) = items.split_last().expect("there is an end");
    assert_eq!(rest, wanted);
    let BackupItem::End(totals) = end else { panic!("it ends with {end:?}") };
    assert_eq!((totals.groups, totals.blobs, totals.absent), (4, 3, 1));
}

#[test]
fn every_cut_is_told_from_an_end() {
    let (groups, blobs) = small();
    let file = written(&groups, &blobs);
    for at in 0..file.len() {
        let error = read(&file[..at]).expect_err("it was cut");
        let cut = matches!(error, BackupError::Cut { .. });
        let too_short_to_tell = at < 12 && matches!(error, BackupError::Strange);
        assert!(cut || too_short_to_tell, "cut at {at}: {error}");
    }
    let longer = [file.as_slice(), b"x"].concat();
    assert!(matches!(read(&longer), Err(BackupError::Damaged { .. })));
}

#[test]
fn every_flipped_bit_is_found() {
    let (groups, blobs) = small();
    let mut file = written(&groups, &blobs);
    for bit in 0..file.len() * 8 {
        file[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&file).is_err(), "bit {bit}");
        file[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(read(&file).is_ok());
}

#[test]
fn another_format_is_named() {
    let (groups, blobs) = small();
    let mut file = written(&groups, &blobs);
    file[8] = 9;
    assert!(matches!(read(&file), Err(BackupError::Format { found: 9, known: BACKUP_FORMAT })));
    assert!(matches!(read(b"PK\x03\x04 and so on"), Err(BackupError::Strange)));
}

#[test]
fn frames_in_another_order_are_found() {
    let (mut writer, first) = BackupWriter::begin(&head());
    let absent = [b"one", b"two"].map(|blob| writer.absent(Digest::of(blob)));
    let end = writer.end();
    let in_order = [&first[..], &absent[0], &absent[1], &end].concat();
    let swapped = [&first[..], &absent[1], &absent[0], &end].concat();
    let doubled = [&first[..], &absent[0], &absent[0], &absent[1], &end].concat();
    assert!(read(&in_order).is_ok());
    assert!(read(&swapped).is_err() && read(&doubled).is_err());
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (groups, blobs) = small();
        let file = written(&groups, &blobs);
        let at = file.len() / 2;
        prop_assert!(read(&[&file[..at], &bytes].concat()).is_err());
        prop_assert!(BackupReader::open(&bytes[..]).is_err());
    }
}
