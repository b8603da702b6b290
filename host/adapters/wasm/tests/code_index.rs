//! The code agents from end to end: files are indexed task by task, the postings merged,
//! the shards searched, and every answer compared with a plain count of the same bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use code_index_format::{Input, Query, Shard, decode_answer, encode_task, merge, shard_of};
use quorate_types::door::Pending;
use quorate_types::rng::Rng;
use quorate_types::{Digest, Payload, TraceId};
use quorate_wasm::{
    AgentEnv, AgentFault, AgentHost, AgentInstance, AgentLimits, Grants, Work, WorkKind, builtin,
};

const SHARDS: u32 = 5;

/// Blobs in memory, and how often each was read.
#[derive(Default)]
struct Store {
    blobs: Mutex<BTreeMap<Digest, Bytes>>,
    reads: Mutex<Vec<Digest>>,
}

impl Store {
    fn put(&self, content: impl Into<Bytes>) -> Digest {
        let content = content.into();
        let digest = Digest::of(&content);
        self.blobs.lock().unwrap().insert(digest, content);
        digest
    }

    fn get(&self, payload: Payload) -> Bytes {
        match payload {
            Payload::Inline(bytes) => bytes,
            Payload::Blob { digest, size } => {
                let content = self.blobs.lock().unwrap().get(&digest).cloned().unwrap();
                assert_eq!(u64::try_from(content.len()), Ok(size));
                content
            }
        }
    }
}

impl AgentEnv for Store {
    fn now_ms(&self) -> u64 {
        0
    }

    fn read_blob(&self, digest: Digest) -> Pending<Result<Bytes, String>> {
        self.reads.lock().unwrap().push(digest);
        let found = self.blobs.lock().unwrap().get(&digest).cloned();
        Box::pin(async move { found.ok_or_else(|| format!("no node has {digest}")) })
    }

    fn write_blob(&self, content: Bytes) -> Pending<Result<Digest, String>> {
        let digest = self.put(content);
        Box::pin(async move { Ok(digest) })
    }
}

/// An agent of this name over the store.
fn start(name: &str, store: &Arc<Store>) -> AgentInstance {
    let host = AgentHost::new(AgentLimits::simulated(), None).unwrap();
    let grants = Grants { blobs: true, ..Grants::NONE };
    let agent = host.admit(builtin::find(name).unwrap().bytes, grants).unwrap();
    agent.start(Arc::clone(store) as Arc<dyn AgentEnv>, 1)
}

fn work(capability: &str, input: Vec<u8>) -> Work {
    Work {
        kind: WorkKind::Call,
        id: "w1".to_owned(),
        attempt: 1,
        capability: capability.to_owned(),
        content_type: "application/octet-stream".to_owned(),
        input: Payload::Inline(input.into()),
        trace: TraceId(1),
        deadline_ms: 60_000,
    }
}

/// Files of words that repeat, some of which are no words, by a seed.
fn files(count: u32) -> Vec<Vec<u8>> {
    let mut random = Rng::new(77);
    let file = |size: u64, random: &mut Rng| {
        let mut text = Vec::new();
        for _ in 0..size {
            let number = random.below(1 + random.clone().below(60_000));
            match random.below(200) {
                0 => text.extend_from_slice("x".repeat(64).as_bytes()),
                1 => text.extend_from_slice("y".repeat(65).as_bytes()),
                2 => text.extend_from_slice("é".as_bytes()),
                _ => text.extend_from_slice(format!("w{number}_").as_bytes()),
            }
            let separators = b" \n\t.;:()\0-\xff";
            let place = usize::try_from(random.below(11)).unwrap();
            text.push(separators[place]);
        }
        text
    };
    // Sizes have a heavy tail: the largest is read in several chunks, one is empty.
    (0..count)
        .map(|id| file(if id == 3 { 80_000 } else { u64::from(id % 40) * 20 }, &mut random))
        .collect()
}

/// The words of these bytes, found by splitting: the plain way.
fn count_words(bytes: &[u8]) -> BTreeMap<&[u8], u64> {
    let mut counts = BTreeMap::new();
    for run in bytes.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_') {
        if (1..=64).contains(&run.len()) {
            *counts.entry(run).or_default() += 1;
        }
    }
    counts
}

async fn index(files: &[Vec<u8>], store: &Arc<Store>) -> Vec<Bytes> {
    let inputs: Vec<Input> = (0..)
        .zip(files)
        .map(|(id, content)| Input { id, digest: store.put(content.clone()).0 })
        .collect();
    let mut indexer = start("code-indexer", store);
    let mut results = Vec::new();
    for task in inputs.chunks(7) {
        let result = indexer.handle(work("code-index", encode_task(task))).await.unwrap();
        results.push(store.get(result));
    }
    assert_eq!(indexer.lives(), 1);
    results
}

#[tokio::test]
async fn what_is_indexed_is_found_as_a_plain_count_finds_it() {
    let store = Arc::new(Store::default());
    let files = files(100);
    let postings = index(&files, &store).await;
    assert!(postings.iter().any(|bytes| bytes.len() > 60 << 10), "one result must be a blob");
    let (shards, read) = merge(postings.iter().map(AsRef::as_ref), SHARDS).unwrap();
    let lengths: Vec<u64> = files.iter().map(|file| u64::try_from(file.len()).unwrap()).collect();
    assert_eq!(read.iter().map(|file| file.len).collect::<Vec<_>>(), lengths);

    let mut expected: BTreeMap<&[u8], Vec<(u32, u64)>> = BTreeMap::new();
    for (id, file) in (0..).zip(&files) {
        for (word, count) in count_words(file) {
            expected.entry(word).or_default().push((id, count));
        }
    }
    let words: usize = shards.iter().map(|shard| Shard::open(shard).unwrap().words()).sum();
    assert_eq!(words, expected.len(), "no word more and none less");

    let digests: Vec<[u8; 32]> = shards.into_iter().map(|shard| store.put(shard).0).collect();
    let mut searcher = start("code-searcher", &store);
    let asked: Vec<&[u8]> = expected.keys().copied().chain([&b"absent"[..]]).collect();
    for some in asked.chunks(1_000) {
        let words = some.iter().map(|word| word.to_vec()).collect();
        let query = Query { shards: digests.clone(), words };
        let reply = searcher.handle(work("code-search", query.encode())).await.unwrap();
        let answer = decode_answer(&store.get(reply)).unwrap();
        assert_eq!(answer.len(), some.len());
        for (word, hits) in some.iter().zip(answer) {
            let hits: Vec<(u32, u64)> = hits.iter().map(|hit| (hit.file, hit.count)).collect();
            assert_eq!(Some(&hits), expected.get(word).or(Some(&Vec::new())), "{word:?}");
        }
    }
    assert_eq!(searcher.lives(), 1);
}

#[tokio::test]
async fn equal_tasks_give_equal_bytes() {
    let store = Arc::new(Store::default());
    let files = files(20);
    assert_eq!(index(&files, &store).await, index(&files, &store).await);
}

#[tokio::test]
async fn a_searcher_loads_only_what_a_query_needs_and_keeps_it() {
    let store = Arc::new(Store::default());
    let postings = index(&[b"alpha beta".to_vec()], &store).await;
    let (shards, _read) = merge(postings.iter().map(AsRef::as_ref), SHARDS).unwrap();
    let digests: Vec<[u8; 32]> = shards.into_iter().map(|shard| store.put(shard).0).collect();
    let mut searcher = start("code-searcher", &store);
    store.reads.lock().unwrap().clear();
    for _ in 0..3 {
        let query = Query { shards: digests.clone(), words: vec![b"alpha".to_vec()] };
        searcher.handle(work("code-search", query.encode())).await.unwrap();
    }
    let place = usize::try_from(shard_of(b"alpha", SHARDS)).unwrap();
    assert_eq!(*store.reads.lock().unwrap(), [Digest(digests[place])]);

    let mut turned = digests.clone();
    turned.rotate_left(1);
    let query = Query { shards: turned, words: vec![b"alpha".to_vec()] };
    let refused = searcher.handle(work("code-search", query.encode())).await;
    assert!(matches!(refused, Err(AgentFault::Invalid(_))), "another's place: {refused:?}");
}

#[tokio::test]
async fn a_shelf_of_shards_stays_within_the_instance() {
    let store = Arc::new(Store::default());
    // Twelve indexes of one shard of about 6 MiB each: three times what the shelf holds.
    let queries: Vec<Query> = (0..12_u32)
        .map(|salt| {
            let mut out = b"QIS1\0\0\0\0\x01\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
            out.extend_from_slice(b"\x01w\x01\0\x01");
            out.extend_from_slice(&salt.to_le_bytes());
            out.resize(6 << 20, 0);
            Query { shards: vec![store.put(out).0], words: vec![b"w".to_vec()] }
        })
        .collect();
    let mut searcher = start("code-searcher", &store);
    for query in queries.iter().chain(&queries) {
        let reply = searcher.handle(work("code-search", query.encode())).await.unwrap();
        assert_eq!(decode_answer(&store.get(reply)).unwrap()[0].len(), 1);
    }
    assert_eq!(searcher.lives(), 1);
    let huge = Query { shards: vec![store.put(vec![0; (8 << 20) + 1]).0], ..queries[0].clone() };
    let refused = searcher.handle(work("code-search", huge.encode())).await;
    assert!(matches!(refused, Err(AgentFault::Invalid(_))), "{refused:?}");
}

#[tokio::test]
async fn bad_input_is_refused_and_the_agent_goes_on() {
    let store = Arc::new(Store::default());
    let mut indexer = start("code-indexer", &store);
    let mut searcher = start("code-searcher", &store);
    let twice = [Input { id: 1, digest: [0; 32] }; 2];
    let no_blob = [Input { id: 1, digest: [9; 32] }];
    for bad in [
        work("code-index", b"PK\x03\x04".to_vec()),
        work("code-index", encode_task(&twice)),
        work("code-search", encode_task(&[])),
    ] {
        let fault = indexer.handle(bad).await.unwrap_err();
        assert!(matches!(fault, AgentFault::Invalid(_)), "{fault}");
    }
    let absent = indexer.handle(work("code-index", encode_task(&no_blob))).await.unwrap_err();
    assert!(absent.is_retryable(), "a blob that no node has may come yet: {absent}");
    let words = vec![b"a-b".to_vec()];
    let query = Query { shards: vec![[0; 32]], words };
    let fault = searcher.handle(work("code-search", query.encode())).await.unwrap_err();
    assert!(matches!(fault, AgentFault::Invalid(_)), "{fault}");
    assert_eq!((indexer.lives(), searcher.lives()), (1, 1));
}
