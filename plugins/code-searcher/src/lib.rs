//! The searching agent. What it takes and gives stands in `README.md` beside this
//! file's folder.

mod shelf;

use code_index_format::{FormatError, Query, encode_answer, shard_of};
use quorate_sdk::agent::{Agent, Payload, Work, load, reply};
use quorate_sdk::{Fault, invalid};

use crate::shelf::Shelf;

/// A query of 100,000 words.
const INPUT_BYTES_MAX: usize = 1 << 20;

/// Hits in one answer; they take 8 MiB of the instance's memory, and as many again
/// while they are encoded.
const HITS_MAX: usize = 1 << 19;

struct CodeSearcher {
    shelf: Shelf,
}

impl Agent for CodeSearcher {
    const NAME: &'static str = "code-searcher";
    const CAPABILITIES: &'static [&'static str] = &["code-search"];

    fn start() -> Self {
        Self { shelf: Shelf::default() }
    }

    fn handle(&mut self, work: Work) -> Result<Payload, Fault> {
        if work.capability != "code-search" {
            return Err(invalid("this agent only searches"));
        }
        let input = load(work.input, INPUT_BYTES_MAX)?;
        let query = Query::decode(&input).map_err(refusal)?;
        let shards = u32::try_from(query.shards.len()).map_err(|_| refusal(FormatError::Number))?;
        let mut answer = vec![Vec::new(); query.words.len()];
        let mut hits_left = HITS_MAX;
        // Shard by shard, so that an index larger than the shelf is loaded once a query.
        for (digest, number) in query.shards.iter().zip(0..) {
            let asked: Vec<usize> = (0..query.words.len())
                .filter(|place| shard_of(&query.words[*place], shards) == number)
                .collect();
            if asked.is_empty() {
                continue;
            }
            let shard = self.shelf.shard(digest)?;
            if (shard.number(), shard.shards()) != (number, shards) {
                return Err(refusal(FormatError::Mismatch));
            }
            for place in asked {
                let hits = shard.find(&query.words[place]).map_err(refusal)?;
                hits_left = hits_left
                    .checked_sub(hits.len())
                    .ok_or_else(|| invalid("the answer has more hits than this agent gives"))?;
                answer[place] = hits;
            }
        }
        reply(encode_answer(&answer).map_err(refusal)?)
    }
}

fn refusal(error: FormatError) -> Fault {
    invalid(error.reason())
}

quorate_sdk::export_agent!(CodeSearcher);
