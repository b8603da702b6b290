//! The indexing agent. What it takes and gives stands in `README.md` beside this
//! file's folder.

mod words;

use code_index_format::{FileEntry, FormatError, Postings, decode_task, hex};
use quorate_sdk::agent::{Agent, Payload, Work, load, read_blob, reply};
use quorate_sdk::{Fault, invalid};

use crate::words::Words;

/// A list of 29,000 files.
const INPUT_BYTES_MAX: usize = 1 << 20;

struct CodeIndexer;

impl Agent for CodeIndexer {
    const NAME: &'static str = "code-indexer";
    const CAPABILITIES: &'static [&'static str] = &["code-index"];

    fn start() -> Self {
        Self
    }

    fn handle(&mut self, work: Work) -> Result<Payload, Fault> {
        if work.capability != "code-index" {
            return Err(invalid("this agent only indexes"));
        }
        let input = load(work.input, INPUT_BYTES_MAX)?;
        let inputs = decode_task(&input).map_err(refusal)?;
        let mut words = Words::default();
        let mut files = Vec::with_capacity(inputs.len());
        for input in inputs {
            let mut len = 0;
            read_blob(&hex(&input.digest), |chunk| {
                len += chunk.len() as u64;
                words.read(chunk);
            })?;
            words.end_file(input.id);
            files.push(FileEntry { id: input.id, len });
        }
        reply(postings(&files, &words).map_err(own_error)?)
    }
}

fn postings(files: &[FileEntry], words: &Words) -> Result<Vec<u8>, FormatError> {
    let mut postings = Postings::begin(files, words.len())?;
    words.sorted(|word, hits| postings.word(word, hits))?;
    postings.finish()
}

fn refusal(error: FormatError) -> Fault {
    invalid(error.reason())
}

fn own_error(error: FormatError) -> Fault {
    Fault::Internal(error.reason().into())
}

quorate_sdk::export_agent!(CodeIndexer);
