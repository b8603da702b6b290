//! What desks say to each other: short frames on the lane `Control`, with a head of
//! their own, since the kernel's begin with CBOR. Numbers are big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_storage::{DirectoryId, Life, Verdict};

/// Names frames of this room and their version. CBOR reads its first byte as a text of four bytes.
const HEAD: [u8; 4] = *b"dir2";
const LIFE_BYTES: usize = 16 + 3 * 8;
const HERE_BYTES: usize = HEAD.len() + 1 + LIFE_BYTES;
pub(super) const WORD_BYTES_MAX: usize = HERE_BYTES + 8 + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// This is what I vote from.
    Here(Life),
    /// To the process of this boot: what is thought of you, by what is remembered.
    Heard { boot: u64, verdict: Verdict, known: Life },
}

impl Word {
    pub(super) fn write(self) -> Bytes {
        let mut out = BytesMut::with_capacity(WORD_BYTES_MAX);
        out.put_slice(&HEAD);
        match self {
            Self::Here(life) => {
                out.put_u8(b'?');
                put_life(&mut out, &life);
            }
            Self::Heard { boot, verdict, known } => {
                out.put_u8(b'!');
                put_life(&mut out, &known);
                out.put_u64(boot);
                out.put_u8(number(verdict));
            }
        }
        out.freeze()
    }

    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let (kind, mut rest) = frame.strip_prefix(&HEAD)?.split_first()?;
        match (kind, rest.len()) {
            (b'?', LIFE_BYTES) => Some(Self::Here(life(&mut rest))),
            (b'!', len) if len == LIFE_BYTES + 8 + 1 => {
                let known = life(&mut rest);
                let boot = rest.get_u64();
                Some(Self::Heard { boot, verdict: verdict(rest.get_u8())?, known })
            }
            _unknown => None,
        }
    }
}

fn put_life(out: &mut BytesMut, life: &Life) {
    out.put_slice(&life.directory.0);
    out.put_u64(life.life);
    out.put_u64(life.boot);
    out.put_u64(life.position);
}

/// Reads what the caller has measured.
fn life(rest: &mut &[u8]) -> Life {
    let mut directory = [0; 16];
    rest.copy_to_slice(&mut directory);
    Life {
        directory: DirectoryId(directory),
        life: rest.get_u64(),
        boot: rest.get_u64(),
        position: rest.get_u64(),
    }
}

const VERDICTS: [Verdict; 4] =
    [Verdict::Sound, Verdict::OtherDirectory, Verdict::Behind, Verdict::Elsewhere];

const fn number(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Sound => 0,
        Verdict::OtherDirectory => 1,
        Verdict::Behind => 2,
        Verdict::Elsewhere => 3,
    }
}

fn verdict(number: u8) -> Option<Verdict> {
    VERDICTS.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_wire_and_are_no_frames_of_the_kernel() {
        let known = Life { directory: DirectoryId([7; 16]), life: 3, boot: 1 << 63, position: 5 };
        let heard = VERDICTS.map(|verdict| Word::Heard { boot: 9, verdict, known });
        for word in heard.into_iter().chain([Word::Here(known)]) {
            let frame = word.write();
            assert!(frame.len() <= WORD_BYTES_MAX);
            assert_eq!(Word::read(&frame), Some(word));
            assert_eq!(Word::read(&frame[1..]), None);
            assert_eq!(Word::read(&frame[..frame.len() - 1]), None);
            assert!(
                quorate_types::cbor::decode::<(u16, u8)>(&frame, WORD_BYTES_MAX).is_err(),
                "the kernel's frames are an array with a version"
            );
        }
        assert_eq!(Word::read(b"dir2?short"), None);
    }
}
