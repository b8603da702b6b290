//! What can be done, and what comes of it.

use serde::{Deserialize, Serialize};

use crate::door::Refusal;
use crate::id::{GroupId, Token};
use crate::kv::key::{check_key, check_namespace, check_prefix};
use crate::kv::{
    ClientId, KvRecord, LeaseId, LeaseInfo, Revision, SeatKind, Value, group_of, group_of_lease,
    segment,
};
use crate::layout::Layout;
use crate::limits::{KV_ACTS_MAX, KV_OPS_MAX, KV_VALUE_BYTES_MAX, LEASE_MS_MAX, LEASE_MS_MIN};

/// What must be true of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expect {
    /// There is no such key.
    Absent,
    /// There is one.
    Present,
    /// It was put so many times since it was created.
    Version(u64),
    /// It was changed last at this revision.
    Modified(Revision),
    /// It holds this.
    Value(Value),
}

/// One act on one key, or on the keys under a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Op {
    /// Read it.
    Get {
        /// The key.
        key: String,
    },
    /// Give it a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Value,
        /// The key goes when this lease ends.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lease: Option<LeaseId>,
        /// Refused (`Conflict`) unless this holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<Expect>,
    },
    /// Take it away.
    Delete {
        /// The key.
        key: String,
        /// Refused (`Conflict`) unless this holds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expect: Option<Expect>,
    },
    /// Take away every key under a prefix.
    DeleteRange {
        /// The prefix, within one first segment.
        prefix: String,
    },
}

impl Op {
    /// The key or prefix that it is about.
    pub fn path(&self) -> &str {
        match self {
            Self::Get { key } | Self::Put { key, .. } | Self::Delete { key, .. } => key,
            Self::DeleteRange { prefix } => prefix,
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Get { key } | Self::Delete { key, .. } => check_key(key),
            Self::Put { key, value, .. } => {
                check_key(key)?;
                check_value(value)
            }
            Self::DeleteRange { prefix } => check_prefix(prefix),
        }
    }
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The key.
    pub key: String,
    /// What must be true of it.
    pub is: Expect,
}

/// Where all conditions hold one list of acts is done, else the other; as one act, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// Done where all hold.
    pub then: Vec<Op>,
    /// Done where one does not.
    #[serde(rename = "else")]
    pub otherwise: Vec<Op>,
}

/// What can be done to a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeatAct {
    /// Take it, or wait for it in order of asking. Asking again tells how it stands.
    Acquire {
        /// Shown to those who watch while this lease holds the seat.
        value: Value,
    },
    /// Give it up, or wait no more.
    Release,
    /// Its holder shows another value.
    Proclaim {
        /// The value.
        value: Value,
    },
}

/// One act of a request. Each is done whole or not at all, and has an outcome of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// On keys.
    Op(Op),
    /// On keys, where conditions hold.
    Txn(Txn),
    /// A lease for things under one first segment.
    Grant {
        /// The first segment.
        segment: String,
        /// It ends so long after its last sign of life, milliseconds.
        ttl_ms: u64,
    },
    /// End a lease, and with it what hangs on it.
    Revoke(LeaseId),
    /// On a lock or an election.
    Seat {
        /// Which kind.
        kind: SeatKind,
        /// Its name, a key.
        name: String,
        /// By whom.
        lease: LeaseId,
        /// What.
        act: SeatAct,
    },
}

impl Act {
    /// Whether it can be carried out at all: names, sizes, and all in one first segment.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge` or `Across`.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Op(op) => op.check(),
            Self::Txn(txn) => txn.check(),
            Self::Grant { segment: first, ttl_ms } => {
                check_key(first)?;
                if first.contains('/') {
                    return Err(Refusal::Across(format!(
                        "a lease is for one first segment, such as `{}`, not for `{first}`",
                        segment(first)
                    )));
                }
                if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(ttl_ms) {
                    return Err(Refusal::Invalid(format!(
                        "a lease of {ttl_ms} ms; it goes from {LEASE_MS_MIN} to {LEASE_MS_MAX}"
                    )));
                }
                Ok(())
            }
            Self::Revoke(_lease) => Ok(()),
            Self::Seat { name, act, .. } => {
                check_key(name)?;
                match act {
                    SeatAct::Acquire { value } | SeatAct::Proclaim { value } => check_value(value),
                    SeatAct::Release => Ok(()),
                }
            }
        }
    }

    /// The group that it belongs to.
    pub fn group(&self, layout: Layout, namespace: &str) -> GroupId {
        let of = |segment| group_of(layout, namespace, segment);
        match self {
            Self::Op(op) => of(segment(op.path())),
            Self::Txn(txn) => of(txn.paths().next().map_or("", segment)),
            Self::Grant { segment, .. } => of(segment),
            Self::Revoke(lease) => group_of_lease(layout, *lease),
            Self::Seat { name, .. } => of(segment(name)),
        }
    }
}

impl Txn {
    fn paths(&self) -> impl Iterator<Item = &str> {
        let ops = self.then.iter().chain(&self.otherwise).map(Op::path);
        self.compare.iter().map(|compare| compare.key.as_str()).chain(ops)
    }

    fn check(&self) -> Result<(), Refusal> {
        let count = self.compare.len() + self.then.len() + self.otherwise.len();
        if count > KV_OPS_MAX {
            return Err(Refusal::Invalid(format!(
                "{count} conditions and acts in one transaction; the limit is {KV_OPS_MAX}"
            )));
        }
        self.compare.iter().try_for_each(|compare| check_key(&compare.key))?;
        self.then.iter().chain(&self.otherwise).try_for_each(Op::check)?;
        let mut segments = self.paths().map(segment);
        let first = segments.next();
        match first.zip(segments.find(|other| Some(*other) != first)) {
            None => Ok(()),
            Some((one, other)) => Err(Refusal::Across(format!(
                "a transaction stays within one first segment; this one is about `{one}` and \
                 `{other}`"
            ))),
        }
    }
}

fn check_value(value: &Value) -> Result<(), Refusal> {
    let bytes = |count| u64::try_from(count).unwrap_or(u64::MAX);
    if value.0.len() <= KV_VALUE_BYTES_MAX {
        return Ok(());
    }
    let (got, limit) = (bytes(value.0.len()), bytes(KV_VALUE_BYTES_MAX));
    Err(Refusal::TooLarge { what: "the value".to_owned(), got, limit })
}

/// What tells a request from its repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nonce {
    /// Who asks.
    pub client: ClientId,
    /// Which of its requests.
    pub seq: u64,
    /// It waits for no answer to a request below this one, and will repeat none.
    pub below: u64,
}

/// Acts that one client asks for together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvRequest {
    /// Whose keys.
    pub namespace: String,
    /// So that a repeat is known. Without one a repeat is done again.
    pub nonce: Option<Nonce>,
    /// At most `KV_ACTS_MAX`. Those of one group are done together, in order.
    pub acts: Vec<Act>,
}

impl KvRequest {
    /// Whether it can be sent at all. What is wrong with a single act is that act's own outcome.
    ///
    /// # Errors
    /// `Invalid` for a request that is empty or too long.
    pub fn check(&self) -> Result<(), Refusal> {
        check_namespace(&self.namespace)?;
        if self.acts.len() > KV_ACTS_MAX {
            return Err(Refusal::Invalid(format!(
                "{} acts in one request; the limit is {KV_ACTS_MAX}",
                self.acts.len()
            )));
        }
        if self.acts.is_empty() {
            return Err(Refusal::Invalid("a request without an act".to_owned()));
        }
        Ok(())
    }

    /// The group that each of its acts belongs to, in order.
    pub fn groups(&self, layout: Layout) -> impl Iterator<Item = GroupId> {
        self.acts.iter().map(move |act| act.group(layout, &self.namespace))
    }

    /// The group that all of it belongs to, where there is one.
    pub fn group(&self, layout: Layout) -> Option<GroupId> {
        let mut groups = self.groups(layout);
        let first = groups.next()?;
        groups.all(|group| group == first).then_some(first)
    }
}

/// What came of an act on keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpDone {
    /// To `Get`.
    Got(Option<KvRecord>),
    /// To `Put`.
    Put {
        /// Where in the history.
        revision: Revision,
        /// The key's version now.
        version: u64,
    },
    /// To `Delete` and `DeleteRange`.
    Deleted {
        /// How many keys there were.
        count: u64,
        /// Where in the history the last of them went.
        revision: Option<Revision>,
    },
}

/// How a lease stands with a seat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeatStand {
    /// It holds it.
    Holds {
        /// Greater than that of every holder before.
        token: Token,
        /// Since when.
        revision: Revision,
    },
    /// It waits for it.
    Waits {
        /// How many are before it, the holder included.
        before: u64,
    },
    /// Neither.
    Gone,
}

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// Of one on keys.
    Op(OpDone),
    /// Of a transaction.
    Txn {
        /// Whether all conditions held.
        held: bool,
        /// Of each act of the list that was done.
        results: Vec<OpDone>,
    },
    /// The lease.
    Granted(LeaseInfo),
    /// What hung on it is gone.
    Revoked,
    /// How the lease stands now.
    Seat(SeatStand),
}

/// What came of a request's acts, in order.
pub type KvAnswer = Vec<Result<Done, Refusal>>;

#[cfg(test)]
mod tests;
