//! Calls: some all the time, through kill and swap, and the thousand at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use code_index_format::PostingsReader;
use quorate_types::Digest;
use tokio::task::JoinSet;

use super::oracle;
use super::stage::Stage;

/// Callers at once.
pub(crate) const CALLERS: usize = 40;
/// Completions that make the first, small index.
pub(crate) const WARM_TASKS: usize = 60;
const WARM_QUERIES: usize = 200;

/// Words with what must be found for each.
#[derive(Debug)]
pub(crate) struct Questions {
    pub(crate) shards: Vec<Digest>,
    pub(crate) words: Vec<Vec<u8>>,
    pub(crate) expected: Vec<Vec<(u32, u64)>>,
}

/// Waits for the first completions and makes questions of them, so that there is something to call
/// for while the rest is indexed.
pub(crate) async fn warm(stage: &Stage, files: &[Bytes], seed: u64) -> anyhow::Result<Questions> {
    stage.wait_heard(WARM_TASKS.min(files.len())).await?;
    let results = stage.record().results();
    let postings = stage.postings(results).await?;
    let (shards, _stored) = stage.store_index(&postings, 2).await?;
    // Ids stay as they are: a file that is not in the small index is an empty one here.
    let mut known = vec![Bytes::new(); files.len()];
    for bytes in &postings {
        for file in PostingsReader::new(bytes)?.files() {
            let at = usize::try_from(file.id)?;
            known[at] = files[at].clone();
        }
    }
    let words = oracle::queries(&oracle::index(&known), WARM_QUERIES, seed);
    let expected = oracle::scan(&known, &words)?;
    Ok(Questions { shards, words, expected })
}

/// Calls until told to stop.
pub(crate) async fn keep_calling(
    stage: Arc<Stage>,
    questions: Arc<Questions>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<()> {
    let mut callers = JoinSet::new();
    for first in 0..CALLERS {
        let (stage, questions, stop) =
            (Arc::clone(&stage), Arc::clone(&questions), Arc::clone(&stop));
        callers.spawn(async move {
            let mut at = first;
            while !stop.load(Ordering::Relaxed) {
                let place = at % questions.words.len();
                let (word, expected) = (&questions.words[place], &questions.expected[place]);
                stage.search_and_compare(&questions.shards, word, expected).await;
                at += CALLERS;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended?;
    }
    Ok(())
}

/// Asks every question once.
pub(crate) async fn ask_all(stage: Arc<Stage>, questions: Arc<Questions>) -> anyhow::Result<()> {
    let mut callers = JoinSet::new();
    for first in 0..CALLERS {
        let (stage, questions) = (Arc::clone(&stage), Arc::clone(&questions));
        callers.spawn(async move {
            for at in (first..questions.words.len()).step_by(CALLERS) {
                let (word, expected) = (&questions.words[at], &questions.expected[at]);
                stage.search_and_compare(&questions.shards, word, expected).await;
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended?;
    }
    Ok(())
}
