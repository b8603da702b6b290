//! A node's rooms in numbers, beside those of its kernel: the wire, the log, the
//! guests. Read when somebody asks; nothing here is on a path that works.

use std::sync::Arc;

use openraft_rt_tokio::TokioRuntime;
use quorate_crank::Groups;
use quorate_raft::GroupStatus;
use quorate_storage::{Log, LogCounts};
use quorate_transport::{Counts, LaneCounts, PeerState, Peers, Transport};
use quorate_types::metrics::Page;
use quorate_types::{Lane, NodeId};
use quorate_wasm::{AgentHost, CompileCounts, GuardCounts};

use crate::disk::FileDisk;
use crate::policies::Policies;

/// The rooms that count.
pub(crate) struct Rooms {
    pub(crate) transport: Transport,
    pub(crate) log: Log<TokioRuntime, FileDisk>,
    pub(crate) groups: Groups<TokioRuntime, FileDisk>,
    pub(crate) policies: Policies,
    pub(crate) agents: Arc<AgentHost>,
}

impl Rooms {
    /// Writes what all of them have counted.
    pub(crate) fn write(&self, page: &mut Page) {
        transport(page, &self.transport.counts(), &self.transport.peers());
        log(page, &self.log.counts());
        self::groups(page, &self.groups.statuses());
        guards(page, &self.policies.guards(), self.policies.stand_ins());
        let engines = [("policy", self.policies.compiles()), ("agent", self.agents.compiles())];
        compiles(page, engines);
    }
}

const fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Append => "append",
        Lane::Vote => "vote",
        Lane::Snapshot => "snapshot",
        Lane::Gossip => "gossip",
        Lane::Call => "call",
        Lane::Control => "control",
        Lane::Blob => "blob",
    }
}

/// The wire.
fn transport(page: &mut Page, counts: &Counts, peers: &Peers) {
    lanes(page, counts);
    connections(page, counts);
    let up = peers.values().filter(|peer| peer.state == PeerState::Up).count();
    page.gauge("quorate_transport_peers_up", "Members that frames can be exchanged with.", up);
}

fn lanes(page: &mut Page, counts: &Counts) {
    let by_lane = |of: fn(&LaneCounts) -> u64| {
        Lane::ALL.map(|lane| ([("lane", lane_name(lane))], of(&counts.lane(lane))))
    };
    for (name, help, of) in [
        (
            "quorate_transport_frames_sent_total",
            "Frames written to peers.",
            (|lane| lane.frames_sent) as fn(&LaneCounts) -> u64,
        ),
        ("quorate_transport_frames_received_total", "Frames read from peers.", |lane| {
            lane.frames_received
        }),
        (
            "quorate_transport_sent_bytes_total",
            "Bytes in the bodies of frames written to peers.",
            |lane| lane.bytes_sent,
        ),
        (
            "quorate_transport_received_bytes_total",
            "Bytes in the bodies of frames read from peers.",
            |lane| lane.bytes_received,
        ),
    ] {
        page.counters(name, help, by_lane(of));
    }
    let dropped = Lane::ALL.into_iter().flat_map(|lane| {
        let count = counts.lane(lane);
        [
            ("full", count.refused_full),
            ("unconnected", count.refused_unconnected),
            ("too_large", count.refused_too_large),
            ("connection_lost", count.lost),
        ]
        .map(|(why, count)| ([("lane", lane_name(lane)), ("reason", why)], count))
    });
    page.counters(
        "quorate_transport_frames_dropped_total",
        "Frames that never reached a connection, and why.",
        dropped,
    );
}

fn connections(page: &mut Page, counts: &Counts) {
    for (name, help, count) in [
        (
            "quorate_transport_connections_total",
            "Connections to members on which all lanes opened.",
            counts.connections,
        ),
        (
            "quorate_transport_redials_total",
            "Dials of members that failed; each is tried again.",
            counts.dials_failed,
        ),
        (
            "quorate_transport_wrong_identity_total",
            "Dials that met another key than the member's.",
            counts.wrong_identity,
        ),
        (
            "quorate_transport_strangers_refused_total",
            "Connections from peers outside the cluster file, refused after their handshake.",
            counts.strangers_refused,
        ),
        (
            "quorate_transport_malformed_total",
            "Connections closed because the peer broke the framing.",
            counts.malformed,
        ),
        (
            "quorate_transport_pings_failed_total",
            "Connections closed because pings failed.",
            counts.pings_failed,
        ),
        (
            "quorate_transport_lanes_reopened_total",
            "Lanes opened again on a living connection.",
            counts.lanes_reopened,
        ),
    ] {
        page.counter(name, help, count);
    }
}

/// The write-ahead log.
fn log(page: &mut Page, counts: &LogCounts) {
    for (name, help, count) in [
        ("quorate_log_syncs_total", "Writes to the log, each with its fsync.", counts.syncs),
        ("quorate_log_written_bytes_total", "Bytes in those writes.", counts.bytes),
        ("quorate_log_batches_total", "Group commits made durable.", counts.batches),
        ("quorate_log_operations_total", "Operations in those group commits.", counts.operations),
    ] {
        page.counter(name, help, count);
    }
    page.gauge(
        "quorate_log_batch_operations_max",
        "Operations in the largest group commit.",
        counts.batch_operations_max,
    );
}

/// A Raft group.
fn groups(page: &mut Page, statuses: &[GroupStatus]) {
    let names: Vec<String> = statuses.iter().map(|status| status.group.to_string()).collect();
    let of = |value: fn(&GroupStatus) -> u64| {
        let values = names.iter().zip(statuses);
        values.map(move |(name, status)| ([("group", name.as_str())], value(status)))
    };
    for (name, help, value) in [
        (
            "quorate_raft_last_log_index",
            "The last entry in the log.",
            (|status| status.last_log.0) as fn(&GroupStatus) -> u64,
        ),
        ("quorate_raft_committed_index", "The last entry known to be committed.", |status| {
            status.committed.0
        }),
        ("quorate_raft_snapshot_index", "The last entry in the newest snapshot.", |status| {
            status.snapshot.0
        }),
        ("quorate_raft_purged_index", "The last entry cut off the log.", |status| status.purged.0),
        ("quorate_raft_leader", "The leading node, 0 while none is known.", |status| {
            number(status.leader)
        }),
    ] {
        page.gauges(name, help, of(value));
    }
    let ages = names.iter().zip(statuses).filter_map(|(name, status)| {
        Some(([("group", name.as_str())], status.quorum_ack_age?.as_secs_f64()))
    });
    page.gauges(
        "quorate_raft_quorum_ack_age_seconds",
        "On a leader, how long ago a quorum last answered.",
        ages,
    );
}

fn number(node: Option<NodeId>) -> u64 {
    node.map_or(0, |node| node.0)
}

/// Policies behind their guards, by name.
fn guards(page: &mut Page, counts: &[(String, GuardCounts)], stand_ins: u64) {
    let by_policy = |of: fn(&GuardCounts) -> u64| {
        counts.iter().map(move |(policy, count)| ([("policy", policy.as_str())], of(count)))
    };
    let failures = counts.iter().flat_map(|(policy, count)| {
        [
            ("trap", count.traps),
            ("deadline", count.over_budget),
            ("illegal", count.illegal),
            ("refused", count.refused),
        ]
        .map(|(kind, count)| ([("policy", policy.as_str()), ("kind", kind)], count))
    });
    page.counters(
        "quorate_policy_failures_total",
        "Calls of a policy component that failed: traps, missed deadlines (fuel or time), illegal \
         picks, refused tables.",
        failures,
    );
    page.counters(
        "quorate_policy_fallbacks_total",
        "Decisions that the native reference made in place of a component.",
        by_policy(|count| count.fallbacks),
    );
    page.counters(
        "quorate_policy_restarts_total",
        "Fresh instances of a policy component after a failure.",
        by_policy(|count| count.restarts),
    );
    page.counter(
        "quorate_policy_stand_ins_total",
        "Pools that began on the native reference, because the component was not compiled here.",
        stand_ins,
    );
}

/// Compiled components, by engine.
fn compiles(page: &mut Page, engines: [(&str, CompileCounts); 2]) {
    let samples = engines.into_iter().flat_map(|(engine, count)| {
        [
            ("memory", count.from_memory),
            ("disk", count.from_disk),
            ("compiler", count.compiled),
            ("refused", count.refused),
        ]
        .map(|(from, count)| ([("engine", engine), ("from", from)], count))
    });
    page.counters(
        "quorate_component_compiles_total",
        "Components asked for, by where their compiled code came from: a cache, or the compiler.",
        samples,
    );
}
