//! What is held while somebody lives: a lease with signs of life, a lock, a
//! leadership. Each is given up when it is dropped, and when the connection ends.

use std::time::Duration;

use quorate_types::Token;
use quorate_types::kv::{
    Act, Holder, KvRequest, KvWatch, LeaseId, Revision, SeatAct, SeatInfo, SeatKind, SeatStand,
    Subject, Value, What,
};
use quorate_types::link::Asked;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{KvStream, Link};
use crate::error::ClientError;

/// How long a node tries to revoke a lease that nobody waits for.
const REVOKE_WITHIN_MS: u64 = 10_000;
/// Signs of life within one term.
const SIGNS: u32 = 3;

/// A lease that lives as long as this does, and its connection.
#[derive(Debug)]
pub struct LinkLease {
    link: Link,
    namespace: String,
    lease: LeaseId,
    lost: watch::Receiver<bool>,
    keeping: JoinHandle<()>,
}

impl Link {
    /// A lease for what is under the first segment of `name`, kept alive and bound to the stream.
    ///
    /// # Errors
    /// As [`Link::act`].
    pub async fn lease(
        &self,
        namespace: &str,
        name: &str,
        ttl: Duration,
    ) -> Result<LinkLease, ClientError> {
        let lease = self.grant(namespace, name, ttl).await?.lease;
        self.bind(namespace, lease).await;
        let (tell, lost) = watch::channel(false);
        let link = self.clone();
        let keeping = tokio::spawn(async move {
            let mut since = tokio::time::Instant::now();
            loop {
                tokio::time::sleep(ttl / SIGNS).await;
                let asked = tokio::time::Instant::now();
                match link.keep(lease).await {
                    Ok(_term) => since = asked,
                    Err(ClientError::Refused(problem)) if problem.status == 404 => break,
                    // It lives on, for what is left of its term.
                    Err(_later) if since.elapsed() < ttl => {}
                    Err(_silence) => break,
                }
            }
            tell.send_replace(true);
        });
        Ok(LinkLease { link: self.clone(), namespace: namespace.to_owned(), lease, lost, keeping })
    }

    /// Waits in order for a lock, and holds it until the guard is released or lost.
    ///
    /// # Errors
    /// As [`Link::act`].
    pub async fn lock(
        &self,
        namespace: &str,
        name: &str,
        ttl: Duration,
    ) -> Result<LockGuard, ClientError> {
        self.sit(namespace, SeatKind::Lock, name, ttl, Value::default()).await
    }

    /// Campaigns in an election, and leads from the moment this returns.
    ///
    /// # Errors
    /// As [`Link::act`].
    pub async fn campaign(
        &self,
        namespace: &str,
        name: &str,
        ttl: Duration,
        value: Value,
    ) -> Result<Campaign, ClientError> {
        self.sit(namespace, SeatKind::Election, name, ttl, value).await.map(Campaign)
    }

    async fn sit(
        &self,
        namespace: &str,
        kind: SeatKind,
        name: &str,
        ttl: Duration,
        value: Value,
    ) -> Result<LockGuard, ClientError> {
        let lease = self.lease(namespace, name, ttl).await?;
        let subject = Subject::Seat(kind, name.to_owned());
        // Watched from before it is asked for, so that no hand-over is missed.
        let (_seat, as_of) = self.seat(namespace, kind, name).await?;
        let watch = KvWatch { namespace: namespace.to_owned(), subject, after: Some(as_of) };
        let mut changes = self.watch(watch).await;
        let act = SeatAct::Acquire { value };
        let stand = self.on_seat(namespace, kind, name, lease.lease, act).await?;
        let mut token = match stand {
            SeatStand::Holds { token, .. } => Some(token),
            SeatStand::Waits { .. } | SeatStand::Gone => None,
        };
        while token.is_none() {
            let mut lost = lease.lost.clone();
            let change = tokio::select! {
                change = changes.next() => change,
                _ended = lost.wait_for(|lost| *lost) => None,
            };
            let Some(change) = change else { return Err(lease.gone()) };
            let What::Seat { holder, .. } = change?.what else { continue };
            token = holder.filter(|holder| holder.lease == lease.lease).map(|holder| holder.token);
        }
        let token = token.unwrap_or_default();
        Ok(LockGuard { lease, kind, name: name.to_owned(), token })
    }

    /// The holder of a lock or an election now, and each that follows.
    ///
    /// # Errors
    /// As [`Link::get`].
    pub async fn observe(
        &self,
        namespace: &str,
        kind: SeatKind,
        name: &str,
    ) -> Result<Observed, ClientError> {
        let (seat, as_of) = self.seat(namespace, kind, name).await?;
        let subject = Subject::Seat(kind, name.to_owned());
        let watch = KvWatch { namespace: namespace.to_owned(), subject, after: Some(as_of) };
        let changes = self.watch(watch).await;
        Ok(Observed { first: Some((seat, as_of)), changes })
    }
}

impl LinkLease {
    /// Which.
    pub const fn id(&self) -> LeaseId {
        self.lease
    }

    /// Returns when the lease is known to have ended, or may have.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that nobody keeps it alive any more, which is the same.
        let _lost_or_gone = lost.wait_for(|lost| *lost).await;
    }

    fn gone(&self) -> ClientError {
        let refusal = quorate_types::Refusal::NotFound(format!("lease {} (any more)", self.lease));
        quorate_types::problem::Problem::from(refusal).into()
    }

    /// Ends it.
    ///
    /// # Errors
    /// When there is no answer in time; then its term ends it.
    pub async fn revoke(self) -> Result<(), ClientError> {
        self.keeping.abort();
        self.link.revoke(&self.namespace, self.lease).await
    }
}

impl Drop for LinkLease {
    /// Says that it is over, and waits for no answer: where the word is lost the term ends it.
    fn drop(&mut self) {
        self.keeping.abort();
        let (namespace, acts) = (self.namespace.clone(), vec![Act::Revoke(self.lease)]);
        let request = KvRequest { namespace, nonce: None, acts };
        self.link.tell_now(Asked::Kv { ask: (self.link.number(), REVOKE_WITHIN_MS), request });
    }
}

/// A lock that is held.
#[derive(Debug)]
pub struct LockGuard {
    lease: LinkLease,
    kind: SeatKind,
    name: String,
    token: Token,
}

impl LockGuard {
    /// Greater than that of every holder before: whoever is asked under a smaller one refuses.
    pub const fn token(&self) -> Token {
        self.token
    }

    /// Its lease.
    pub const fn lease(&self) -> &LinkLease {
        &self.lease
    }

    /// Gives it up.
    ///
    /// # Errors
    /// When there is no answer in time; then its term ends it.
    pub async fn release(self) -> Result<(), ClientError> {
        self.lease.revoke().await
    }
}

/// A leadership.
#[derive(Debug)]
pub struct Campaign(LockGuard);

impl Campaign {
    /// Greater than that of every leader before.
    pub const fn token(&self) -> Token {
        self.0.token()
    }

    /// Its lease.
    pub const fn lease(&self) -> &LinkLease {
        self.0.lease()
    }

    /// Shows another value.
    ///
    /// # Errors
    /// When it leads no more (`Conflict`), or there is no answer in time.
    pub async fn proclaim(&self, value: Value) -> Result<(), ClientError> {
        let LockGuard { lease, kind, name, .. } = &self.0;
        let act = SeatAct::Proclaim { value };
        lease.link.on_seat(&lease.namespace, *kind, name, lease.lease, act).await.map(|_stand| ())
    }

    /// Leads no more.
    ///
    /// # Errors
    /// When there is no answer in time; then its term ends it.
    pub async fn resign(self) -> Result<(), ClientError> {
        self.0.release().await
    }
}

/// Holders, one after the other.
#[derive(Debug)]
pub struct Observed {
    first: Option<(SeatInfo, Revision)>,
    changes: KvStream,
}

impl Observed {
    /// The holder from this revision on, if there is one; the first is the present.
    pub async fn next(&mut self) -> Option<Result<(Revision, Option<Holder>), ClientError>> {
        if let Some((seat, as_of)) = self.first.take() {
            return Some(Ok((as_of, seat.holder)));
        }
        loop {
            match self.changes.next().await? {
                Ok(change) => {
                    if let What::Seat { holder, .. } = change.what {
                        return Some(Ok((change.revision, holder)));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
