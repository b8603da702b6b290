//! When the log is cut by its size.
//!
//! openraft counts entries; a thousand of the largest commands are two gigabytes.
//! So whoever watches over the group also asks for a snapshot once the entries after
//! the newest one have so many bytes, and has entries that a snapshot covers cut
//! where more bytes of them are kept than a follower that was away for a moment is
//! worth.

use openraft_rt::{AsyncRuntime, WatchReceiver};
use quorate_types::{Disk, GroupId, Index};

use crate::instance::Instance;
use crate::log::LogStore;
use crate::settings::LogSize;
use crate::types::index_or_none;

/// Looks at the log, and asks for what its size calls for. Asked again while openraft is at it, it
/// is not done twice.
pub(crate) async fn by_size<RT: AsyncRuntime, D: Disk>(
    group: GroupId,
    size: LogSize,
    log: &LogStore<RT, D>,
    instance: &Instance<RT, D>,
) {
    let (snapshot, purged, applied) = {
        let metrics = instance.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id| index_or_none(id);
        (
            index(metrics.snapshot.as_ref()),
            index(metrics.purged.as_ref()),
            index(metrics.last_applied.as_ref()),
        )
    };
    let trigger = instance.trigger();
    if applied > snapshot && log.bytes_after(snapshot) > size.bytes_per_snapshot {
        tracing::debug!(%group, %snapshot, %applied, "the log has grown to a snapshot's size");
        if let Err(error) = trigger.snapshot().await {
            tracing::debug!(%group, %error, "no snapshot after the end");
        }
    }
    let upto = log.last_beyond(size.bytes_kept).unwrap_or(Index(0)).min(snapshot);
    if upto > purged
        && let Some(theirs) = upto.0.checked_sub(1)
        && let Err(error) = trigger.purge_log(theirs).await
    {
        tracing::debug!(%group, %error, "nothing is cut after the end");
    }
}
