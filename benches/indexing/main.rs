//! Code indexing: MB/s of the component in its host against a native implementation, each
//! on one core, over a generated corpus. Both give the same bytes, which is checked first.
//!
//! An operation is a byte of the corpus, so that the board's M ops/s are MB/s. The
//! component's figure has in it what running in a host costs: blobs by digest through
//! the environment, copies in and out of its memory, slices.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed bench")]

mod corpus;
mod native;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use code_index_format::{Input, encode_task};
use criterion::Criterion;
use quorate_benches::{Board, Case, runs_once};
use quorate_types::door::Pending;
use quorate_types::{Digest, Payload, TraceId};
use quorate_wasm::{
    AgentEnv, AgentHost, AgentInstance, AgentLimits, Grants, Work, WorkKind, builtin,
};
use tokio::runtime::{Builder, Runtime};

const SEED: u64 = 11;
/// Files in one task.
const FILES_PER_TASK: usize = 16;

/// Blobs in memory.
#[derive(Default)]
struct Store(Mutex<BTreeMap<Digest, Bytes>>);

impl Store {
    fn put(&self, content: Bytes) -> Digest {
        let digest = Digest::of(&content);
        self.0.lock().unwrap().insert(digest, content);
        digest
    }

    fn bytes_of(&self, payload: Payload) -> Bytes {
        match payload {
            Payload::Inline(bytes) => bytes,
            Payload::Blob { digest, .. } => self.0.lock().unwrap()[&digest].clone(),
        }
    }
}

impl AgentEnv for Store {
    fn now_ms(&self) -> u64 {
        0
    }

    fn read_blob(&self, digest: Digest) -> Pending<Result<Bytes, String>> {
        let found = self.0.lock().unwrap().get(&digest).cloned();
        Box::pin(async move { found.ok_or_else(|| format!("no blob {digest}")) })
    }

    fn write_blob(&self, content: Bytes) -> Pending<Result<Digest, String>> {
        let digest = self.put(content);
        Box::pin(async move { Ok(digest) })
    }
}

/// The component, its blobs and the core it runs on.
struct Component {
    runtime: Runtime,
    store: Arc<Store>,
    agent: AgentInstance,
}

impl Component {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let host = AgentHost::new(AgentLimits::hot(), None).unwrap();
        let grants = Grants { blobs: true, ..Grants::NONE };
        let component = host.admit(builtin::find("code-indexer").unwrap().bytes, grants).unwrap();
        let store = Arc::new(Store::default());
        let agent = component.start(Arc::clone(&store) as Arc<dyn AgentEnv>, SEED);
        Self { runtime, store, agent }
    }

    fn index(&mut self, task: &[u8]) -> Payload {
        let work = Work {
            kind: WorkKind::Call,
            id: "bench".to_owned(),
            attempt: 1,
            capability: "code-index".to_owned(),
            content_type: "application/octet-stream".to_owned(),
            input: Payload::Inline(Bytes::copy_from_slice(task)),
            trace: TraceId(1),
            deadline_ms: 60_000,
        };
        self.runtime.block_on(self.agent.handle(work)).unwrap()
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(10))
        .configure_from_args();
    let files = corpus::files(SEED, if runs_once() { 256 << 10 } else { 8 << 20 });
    let bytes: usize = files.iter().map(Vec::len).sum();
    let files: Vec<(u32, &[u8])> = (0..).zip(files.iter().map(Vec::as_slice)).collect();
    let tasks: Vec<&[(u32, &[u8])]> = files.chunks(FILES_PER_TASK).collect();

    let mut component = Component::start();
    let encode = |task: &&[(u32, &[u8])]| {
        let put = |content: &[u8]| component.store.put(Bytes::copy_from_slice(content)).0;
        let inputs = task.iter().map(|(id, content)| Input { id: *id, digest: put(content) });
        encode_task(&inputs.collect::<Vec<_>>())
    };
    let encoded: Vec<Vec<u8>> = tasks.iter().map(encode).collect();
    for (task, encoded) in tasks.iter().zip(&encoded) {
        let answer = component.index(encoded);
        let same = component.store.bytes_of(answer) == native::index(task);
        assert!(same, "component and native index differ");
    }

    let ops = u64::try_from(bytes).unwrap();
    let mut board = Board::new();
    let mut group = board.group(&mut criterion, "code-index");
    board.run(&mut group, "code-index", Case::new("native").of(ops), |iterations| {
        for _ in 0..iterations {
            for task in &tasks {
                black_box(native::index(black_box(task)));
            }
        }
    });
    board.run(&mut group, "code-index", Case::new("component").of(ops), |iterations| {
        for _ in 0..iterations {
            for task in &encoded {
                black_box(component.index(task));
            }
        }
    });
    group.finish();
    assert_eq!(component.agent.lives(), 1, "the component failed on its way");
    criterion.final_summary();
    board.print();
}
