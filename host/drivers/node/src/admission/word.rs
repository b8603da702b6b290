//! What desks say to each other: short frames on the lane `Control`, with a head of
//! their own, since the kernel's begin with CBOR. Numbers are big-endian. In the first
//! era of a cluster a word does not name its era, as before there were any.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_storage::{DirectoryId, Life, Verdict};
use quorate_types::Era;

/// Names frames of this room and their version. CBOR reads its first byte as a text of four bytes.
const HEAD: [u8; 4] = *b"dir2";
/// The same with an era.
const HEAD_OF_ERA: [u8; 4] = *b"dir3";
const ERA_BYTES: usize = 4 + 16;
/// The number of no era: that of one who joins and has learned none.
const UNKNOWN: u32 = u32::MAX;
const LIFE_BYTES: usize = 16 + 3 * 8;
const HERE_BYTES: usize = HEAD.len() + ERA_BYTES + 1 + LIFE_BYTES;
pub(super) const WORD_BYTES_MAX: usize = HERE_BYTES + 8 + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// This is what I vote from.
    Here(Life),
    /// To the process of this boot: what is thought of you, by what is remembered.
    Heard { boot: u64, verdict: Verdict, known: Life },
}

/// A word, and the era of who says it; none where it joins and has learned none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) era: Option<Era>,
    pub(super) word: Word,
}

impl Said {
    pub(super) fn write(self) -> Bytes {
        let mut out = BytesMut::with_capacity(WORD_BYTES_MAX);
        match self.era {
            Some(Era::FIRST) => out.put_slice(&HEAD),
            era => {
                let Era { number, mark } = era.unwrap_or(Era { number: UNKNOWN, mark: 0 });
                out.put_slice(&HEAD_OF_ERA);
                out.put_u32(number);
                out.put_u128(mark);
            }
        }
        match self.word {
            Word::Here(life) => {
                out.put_u8(b'?');
                put_life(&mut out, &life);
            }
            Word::Heard { boot, verdict, known } => {
                out.put_u8(b'!');
                put_life(&mut out, &known);
                out.put_u64(boot);
                out.put_u8(number(verdict));
            }
        }
        out.freeze()
    }

    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let (era, rest) = match frame.strip_prefix(&HEAD) {
            Some(rest) => (Some(Era::FIRST), rest),
            None => {
                let rest = frame.strip_prefix(&HEAD_OF_ERA)?;
                let (mut era, rest) = rest.split_at_checked(ERA_BYTES)?;
                let era = Era { number: era.get_u32(), mark: era.get_u128() };
                (Some(era).filter(|era| era.number != UNKNOWN), rest)
            }
        };
        let (kind, mut rest) = rest.split_first()?;
        let word = match (kind, rest.len()) {
            (b'?', LIFE_BYTES) => Word::Here(life(&mut rest)),
            (b'!', len) if len == LIFE_BYTES + 8 + 1 => {
                let known = life(&mut rest);
                let boot = rest.get_u64();
                Word::Heard { boot, verdict: verdict(rest.get_u8())?, known }
            }
            _unknown => return None,
        };
        Some(Self { era, word })
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

const VERDICTS: [Verdict; 5] = [
    Verdict::Sound,
    Verdict::OtherDirectory,
    Verdict::Behind,
    Verdict::Elsewhere,
    Verdict::OtherEra,
];

const fn number(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Sound => 0,
        Verdict::OtherDirectory => 1,
        Verdict::Behind => 2,
        Verdict::Elsewhere => 3,
        Verdict::OtherEra => 4,
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
        let words = heard.into_iter().chain([Word::Here(known)]);
        let eras = [Some(Era::FIRST), Some(Era::FIRST.next(5)), None];
        for said in words.flat_map(|word| eras.map(|era| Said { era, word })) {
            let frame = said.write();
            assert!(frame.len() <= WORD_BYTES_MAX);
            assert_eq!(Said::read(&frame), Some(said));
            assert_eq!(Said::read(&frame[1..]), None);
            assert_eq!(Said::read(&frame[..frame.len() - 1]), None);
            assert!(
                quorate_types::cbor::decode::<(u16, u8)>(&frame, WORD_BYTES_MAX).is_err(),
                "the kernel's frames are an array with a version"
            );
        }
        assert_eq!(Said::read(b"dir2?short"), None);
    }
}
