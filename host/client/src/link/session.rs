//! What a link remembers, in one task: no lock is taken for a request.
//!
//! The task sends and reads in turns and never waits for the one without the other,
//! so that two ends which both have much to say do not wait for each other.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use quorate_types::Refusal;
use quorate_types::kv::{Changes, ClientId, KvWatch, Nonce};
use quorate_types::link::{Asked, Said, put_frame, read_frame, take_frame};
use tokio::sync::{mpsc, oneshot};

use super::dial::Socket;
use crate::client::Client;

/// Requests taken at once.
const TAKEN_MAX: usize = 512;
/// Unsent bytes at which no more requests are taken.
const UNSENT_MAX: usize = 1 << 20;
/// Read at once, bytes.
const READ_BYTES: usize = 256 << 10;
/// One search for a node, after which those who gave up are forgotten.
const DIAL_WITHIN: Duration = Duration::from_secs(5);

/// What the holders of a link want of its task.
#[derive(Debug)]
pub(super) enum Command {
    Ask {
        id: u64,
        asked: Asked,
        answer: oneshot::Sender<Said>,
    },
    /// Nobody waits for it any more.
    Forget(u64),
    Tell(Asked),
    Watch {
        id: u64,
        watch: KvWatch,
        changes: mpsc::Sender<Result<Changes, Refusal>>,
    },
    Unwatch(u64),
}

struct Pending {
    asked: Asked,
    answer: oneshot::Sender<Said>,
    /// The number of acts, for the log.
    seq: Option<u64>,
}

struct Watching {
    watch: KvWatch,
    changes: mpsc::Sender<Result<Changes, Refusal>>,
}

pub(super) struct Session {
    client: Client,
    me: ClientId,
    commands: mpsc::Receiver<Command>,
    pending: BTreeMap<u64, Pending>,
    /// Acts numbered so far. They are numbered here, in the order in which they are sent: whoever
    /// asks took its id earlier, and may be overtaken by one with a later id, whose `below` would
    /// then cut it off.
    numbered: u64,
    /// Numbers of acts that wait for an answer; the first is what `below` says.
    open: BTreeSet<u64>,
    watches: BTreeMap<u64, Watching>,
    out: BytesMut,
    read: BytesMut,
}

/// Why a connection is left.
enum Left {
    /// No holder is left.
    Done,
    Broken(io::Error),
}

impl Session {
    pub(super) fn new(client: Client, commands: mpsc::Receiver<Command>) -> Self {
        Self {
            me: ClientId(client.fresh_trace().0),
            client,
            commands,
            pending: BTreeMap::new(),
            numbered: 0,
            open: BTreeSet::new(),
            watches: BTreeMap::new(),
            out: BytesMut::with_capacity(READ_BYTES),
            read: BytesMut::with_capacity(READ_BYTES),
        }
    }

    /// Serves its holders over one connection after the other.
    pub(super) async fn run(mut self, first: Socket) {
        let mut socket = first;
        loop {
            self.read = std::mem::take(&mut socket.early);
            match self.serve(&socket).await {
                Left::Done => return,
                Left::Broken(_error) => self.client.prefer(self.client.preferred() + 1),
            }
            let Some(next) = self.dial_again().await else { return };
            socket = next;
            self.ask_again();
        }
    }

    /// Another connection; none when no holder is left meanwhile.
    async fn dial_again(&mut self) -> Option<Socket> {
        loop {
            if let Ok((socket, _url)) = self.client.dial_any(DIAL_WITHIN).await {
                return Some(socket);
            }
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            self.pending.retain(|_id, pending| !pending.answer.is_closed());
            self.open = self.pending.values().filter_map(|pending| pending.seq).collect();
            if self.commands.is_closed() && self.commands.is_empty() {
                return None;
            }
        }
    }

    /// All that is not answered, to be sent once more.
    fn ask_again(&mut self) {
        self.out.clear();
        for pending in self.pending.values() {
            put(&mut self.out, &pending.asked);
        }
        for (id, watching) in &self.watches {
            let asked = Asked::Watch { id: *id, watch: watching.watch.clone() };
            put(&mut self.out, &asked);
        }
    }

    async fn serve(&mut self, socket: &Socket) -> Left {
        let stream = &socket.stream;
        let mut taken = Vec::with_capacity(TAKEN_MAX);
        loop {
            if let Err(error) = self.hear() {
                return Left::Broken(error);
            }
            let (unsent, room) = (!self.out.is_empty(), self.out.len() < UNSENT_MAX);
            tokio::select! {
                count = self.commands.recv_many(&mut taken, TAKEN_MAX), if room => {
                    if count == 0 {
                        return Left::Done;
                    }
                    for command in taken.drain(..) {
                        self.take(command);
                    }
                    // What can go goes at once.
                    match stream.try_write(&self.out) {
                        Ok(sent) => self.out.advance(sent),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Left::Broken(error),
                    }
                }
                ready = stream.readable() => {
                    self.read.reserve(READ_BYTES);
                    match ready.and_then(|()| stream.try_read_buf(&mut self.read)) {
                        Ok(0) => return Left::Broken(io::ErrorKind::UnexpectedEof.into()),
                        Ok(_more) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Left::Broken(error),
                    }
                }
                ready = stream.writable(), if unsent => {
                    match ready.and_then(|()| stream.try_write(&self.out)) {
                        Ok(sent) => self.out.advance(sent),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Left::Broken(error),
                    }
                }
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Ask { id, mut asked, answer } => {
                if answer.is_closed() {
                    return;
                }
                let mut seq = None;
                if let Asked::Kv { request, .. } = &mut asked {
                    self.numbered += 1;
                    self.open.insert(self.numbered);
                    let below = self.open.first().copied().unwrap_or(self.numbered);
                    request.nonce = Some(Nonce { client: self.me, seq: self.numbered, below });
                    seq = Some(self.numbered);
                }
                put(&mut self.out, &asked);
                self.pending.insert(id, Pending { asked, answer, seq });
            }
            Command::Forget(id) => {
                self.forget(id);
            }
            Command::Tell(asked) => put(&mut self.out, &asked),
            Command::Watch { id, watch, changes } => {
                put(&mut self.out, &Asked::Watch { id, watch: watch.clone() });
                self.watches.insert(id, Watching { watch, changes });
            }
            Command::Unwatch(id) => {
                if self.watches.remove(&id).is_some() {
                    put(&mut self.out, &Asked::Unwatch { id });
                }
            }
        }
    }

    fn forget(&mut self, id: u64) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        if let Some(seq) = pending.seq {
            self.open.remove(&seq);
        }
        Some(pending)
    }

    /// Hands out every answer that is there.
    fn hear(&mut self) -> io::Result<()> {
        while let Some(frame) = take_frame(&mut self.read).map_err(io::Error::other)? {
            let said: Said = read_frame(&frame).map_err(io::Error::other)?;
            let id = match &said {
                Said::Kv(id, _)
                | Said::Found(id, _)
                | Said::Kept(id, _)
                | Said::Submitted(id, _) => *id,
                Said::Changed(id, _) => {
                    let id = *id;
                    self.changed(id, said);
                    continue;
                }
            };
            if let Some(pending) = self.forget(id) {
                // The asker may have given up in this very moment.
                drop(pending.answer.send(said));
            }
        }
        Ok(())
    }

    fn changed(&mut self, id: u64, said: Said) {
        let (Said::Changed(_, result), Some(watching)) = (said, self.watches.get_mut(&id)) else {
            return;
        };
        match result {
            Ok(changes) => {
                let seen = changes.seen;
                match watching.changes.try_send(Ok(changes)) {
                    Ok(()) => watching.watch.after = Some(seen),
                    Err(mpsc::error::TrySendError::Full(_)) => self.too_slow(id),
                    Err(mpsc::error::TrySendError::Closed(_)) => {
                        self.watches.remove(&id);
                        put(&mut self.out, &Asked::Unwatch { id });
                    }
                }
            }
            // The node stops; the next one goes on.
            Err(Refusal::Unavailable(_)) => {}
            Err(refusal) => {
                if let Some(watching) = self.watches.remove(&id) {
                    watching.changes.try_send(Err(refusal)).ok();
                }
            }
        }
    }

    /// A reader that is behind gets the rest from the node once more, when it has caught up a little.
    fn too_slow(&mut self, id: u64) {
        let Some(watching) = self.watches.remove(&id) else { return };
        put(&mut self.out, &Asked::Unwatch { id });
        let why = "the watch (its reader was too slow), and so a change".to_owned();
        let changes = watching.changes;
        tokio::spawn(async move { changes.send(Err(Refusal::Compacted(why))).await.ok() });
    }
}

fn put(out: &mut BytesMut, asked: &Asked) {
    if let Err(error) = put_frame(out, asked) {
        unreachable!("requests are held to their size before: {error}");
    }
}
