//! What clients of the key-value store asked and were told, and when: plain data
//! that a load writes and a checker of linearizability (Herlihy and Wing, TOPLAS
//! 1990) judges. Times are of one clock, the recorder's; an operation takes effect
//! somewhere between its call and its return, and one whose end is unknown may take
//! effect at any time after its call, or never.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// What was asked of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// Read it.
    Get,
    /// Give it this value.
    Put(String),
    /// Give it this value if it has been put so many times.
    PutIf {
        /// The version; 0 where there must be no such key.
        version: u64,
        /// The value.
        value: String,
    },
    /// Take it away.
    Delete,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// To `Get`: what it held and its version, if there was such a key.
    Found(Option<(String, u64)>),
    /// To `Put` and `PutIf`: done; the key's version since.
    Put(u64),
    /// To `PutIf`: the key was not as expected, and nothing was done.
    Mismatch,
    /// To `Delete`: done; whether there was such a key.
    Deleted(bool),
    /// Surely not done.
    Failed,
    /// Nobody knows whether it was done, or will be.
    Unknown,
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked. A client has one operation at a time.
    pub client: u32,
    /// Of which key.
    pub key: String,
    /// What.
    pub asked: Asked,
    /// When it was asked.
    pub called: Time,
    /// When the end came; none while it has none, as with `Unknown`.
    pub returned: Option<Time>,
    /// The end.
    pub end: End,
}

/// Operations in the order of their calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The operations.
    pub operations: Vec<Operation>,
}

impl History {
    /// Notes a call; gives its place, to end it by.
    pub fn call(&mut self, client: u32, key: &str, asked: Asked, now: Time) -> usize {
        let key = key.to_owned();
        let (returned, end) = (None, End::Unknown);
        self.operations.push(Operation { client, key, asked, called: now, returned, end });
        self.operations.len() - 1
    }

    /// Notes how a call ended.
    pub fn end(&mut self, place: usize, end: End, now: Time) {
        let Some(operation) = self.operations.get_mut(place) else {
            unreachable!("operation {place} was never called")
        };
        assert!(operation.returned.is_none(), "operation {place} ends once");
        operation.returned = (end != End::Unknown).then_some(now);
        operation.end = end;
    }

    /// The operations on each key: a history is linearizable if each key's part is (locality).
    pub fn by_key(&self) -> std::collections::BTreeMap<&str, Vec<&Operation>> {
        let mut keys = std::collections::BTreeMap::<&str, Vec<&Operation>>::new();
        for operation in &self.operations {
            keys.entry(&operation.key).or_default().push(operation);
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_stays_open_and_keys_are_apart() {
        let mut history = History::default();
        let put = history.call(1, "a", Asked::Put("x".to_owned()), Time(1));
        let get = history.call(2, "b", Asked::Get, Time(2));
        let lost = history.call(3, "a", Asked::Delete, Time(3));
        history.end(get, End::Found(None), Time(4));
        history.end(put, End::Put(1), Time(5));
        history.end(lost, End::Unknown, Time(6));
        assert_eq!(history.operations[lost].returned, None, "it may happen yet");
        assert_eq!(history.operations[put].returned, Some(Time(5)));
        let keys = history.by_key();
        assert_eq!((keys["a"].len(), keys["b"].len()), (2, 1));
    }
}
