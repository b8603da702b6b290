//! The event stream: in the order of the log, without a gap, over whatever node answers.

use quorate_types::EventKind;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;
use crate::reader::Reader;

/// An event with its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Opaque; ask for what comes after it.
    pub revision: String,
    /// What happened.
    pub kind: EventKind,
}

/// Events, in order. It reconnects by itself after the last event it gave out; what it cannot ask
/// for again it reports: [`ClientError::Gap`], or a problem of kind `Compacted`.
#[derive(Debug)]
pub struct EventStream {
    reader: Reader,
    after: Option<String>,
    ended: bool,
}

impl Client {
    /// Events after this revision, or from now on. It is connected when this returns, so that
    /// what is done afterwards is seen.
    pub async fn events(&self, after: Option<String>) -> Result<EventStream, ClientError> {
        let ask = match &after {
            Some(after) => events_after(after),
            None => events(),
        };
        let reader = Reader::open(self, ask).await?;
        Ok(EventStream { reader, after, ended: false })
    }
}

impl EventStream {
    /// The revision of the last event, to go on from later.
    pub fn revision(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The next event; none after an error, which is always the last item.
    pub async fn next(&mut self) -> Option<Result<Seen, ClientError>> {
        if self.ended {
            return None;
        }
        let next = self.advance().await;
        self.ended = next.is_err();
        Some(next)
    }

    async fn advance(&mut self) -> Result<Seen, ClientError> {
        let after = self.after.as_deref();
        let frame = self.reader.next(|| after.map(events_after)).await?;
        let kind = self.reader.json(&frame)?;
        self.after = Some(frame.id.clone());
        Ok(Seen { revision: frame.id, kind })
    }
}

fn events() -> Ask {
    Ask::get(&["v1", "events"]).endless()
}

fn events_after(revision: &str) -> Ask {
    events().header("last-event-id", revision)
}
