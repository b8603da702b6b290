//! What every node comes to know, and how fast.

use std::time::Duration;

use quorate_membership::VALUE_BYTES_MAX;
use quorate_types::{AgentId, Gone};

use crate::harness::{Cluster, ms, n, named};

/// Each node names itself and publishes five readings.
fn speak(cluster: &mut Cluster) {
    for node in cluster.members() {
        let name = format!("node-{}", node.0);
        cluster.command(node, |core| core.set_presence(named(&name)).unwrap());
        for agent in 0..5 {
            cluster.publish(node, node.0 * 10 + agent, 7);
        }
    }
}

fn everybody_knows(cluster: &Cluster) -> bool {
    let everybody = cluster.running().count();
    cluster.members().all(|of| {
        let name = format!("node-{}", of.0);
        let knows = |by| cluster.core(by).presence(of).is_some_and(|said| said.name == name);
        cluster.running().all(knows)
            && (0..5).all(|agent| cluster.holders(of.0 * 10 + agent, 7) == everybody)
    })
}

#[test]
fn three_five_and_sixty_nodes_know_everything_of_each_other_in_milliseconds() {
    for (count, seed) in [(3, 1), (5, 2), (60, 3)] {
        let mut cluster = Cluster::of(count, seed);
        speak(&mut cluster);
        cluster.connect_all();
        let took = cluster.run_until(ms(50), everybody_knows);
        println!("{count} nodes: everything known after {took:?}");
        assert!(cluster.all_alive());
        assert_eq!(cluster.faults, [""; 0]);
        assert!(
            cluster.members().all(
                |by| cluster.core(by).readings().count() == 5 * usize::try_from(count).unwrap()
            )
        );
    }
}

#[test]
fn with_one_frame_in_twenty_lost_everything_still_reaches_everyone() {
    for seed in 0..3 {
        let mut cluster = Cluster::of(60, seed);
        cluster.loss_ppm = 50_000;
        cluster.connect_all();
        cluster.run(ms(1000));
        speak(&mut cluster);
        let begin = cluster.now;
        while !everybody_knows(&cluster) {
            cluster.run(ms(20));
            assert!(cluster.now.since(begin) <= ms(8000), "seed {seed}");
        }
        let took = cluster.now.since(begin);
        println!("seed {seed}: all 60 know all after {took:?} at 5 % loss");
    }
}

/// Spans until all 60 nodes hold an update of one, sorted; `traffic` comes before each.
fn spread(cluster: &mut Cluster, traffic: impl Fn(&mut Cluster, u32)) -> Vec<Duration> {
    let mut spans = Vec::new();
    for round in 0..100_u32 {
        traffic(cluster, round);
        let node = n(1 + cluster.rng.below(60));
        cluster.publish(node, 9999, round);
        spans.push(cluster.run_until(ms(50), |cluster| cluster.holders(9999, round) == 60));
        cluster.command(node, |core| core.retract(AgentId(9999)));
        cluster.run(ms(12));
    }
    spans.sort();
    spans
}

#[test]
fn one_update_at_sixty_nodes_is_everywhere_after_a_flush_span_and_a_delay() {
    // No wait for a flush: the owner said nothing for a while.
    let idle = spread(&mut Cluster::settled(60, 11), |cluster, _round| {
        let pause = cluster.rng.below(30_000);
        cluster.run(ms(10) + Duration::from_micros(pause));
    });
    // Each node publishes about every 6 ms, so the owner flushed less than a span ago.
    let busy = spread(&mut Cluster::settled(60, 12), |cluster, round| {
        for _sweep in 0..5 {
            for node in cluster.members() {
                cluster.publish(node, node.0, round);
                let pause = cluster.rng.below(200);
                cluster.run(Duration::from_micros(pause));
            }
        }
    });
    for (label, spans, limit) in [("idle", idle, ms(3)), ("busy", busy, ms(13))] {
        let (p50, p99) = (spans[49], spans[98]);
        println!("one update known to all 60, {label}: p50 {p50:?}, p99 {p99:?}");
        assert!(p99 <= limit, "{label}: {p99:?}");
    }
}

#[test]
fn a_healed_partition_merges_what_both_sides_said() {
    let mut cluster = Cluster::settled(5, 4);
    let sides = ([n(1), n(2)], [n(3), n(4), n(5)]);
    for one in sides.0 {
        for other in sides.1 {
            cluster.cut(one, other);
            cluster.disconnect(one, other, Gone::Timeout);
        }
    }
    cluster.publish(n(1), 1, 11);
    cluster.publish(n(5), 5, 55);
    cluster.run(ms(20_000));
    assert_eq!((cluster.holders(1, 11), cluster.holders(5, 55)), (2, 3));
    cluster.heal();
    for one in sides.0 {
        for other in sides.1 {
            cluster.connect(one, other);
        }
    }
    let both = |cluster: &Cluster| cluster.holders(1, 11) == 5 && cluster.holders(5, 55) == 5;
    let took = cluster.run_until(ms(50), |cluster| both(cluster) && cluster.all_alive());
    println!("healed after {took:?}");
}

#[test]
fn a_node_that_cannot_hear_another_hears_of_it_through_the_rest() {
    let mut cluster = Cluster::settled(5, 5);
    cluster.disconnect(n(1), n(2), Gone::Closed);
    cluster.cut(n(1), n(2));
    cluster.run(ms(100));
    for round in 1..=5 {
        cluster.publish(n(2), 2, round);
        // Each of the two sends a digest a second, and so does each of the three between.
        cluster.run_until(ms(2500), |cluster| cluster.holders(2, round) == 5);
    }
    assert!(cluster.all_alive(), "others have its answers");
}

#[test]
fn a_node_that_joins_late_learns_what_was_deleted_and_what_was_not() {
    let mut cluster = Cluster::of(4, 6);
    for (one, other) in [(1, 2), (1, 3), (2, 3)] {
        cluster.connect(n(one), n(other));
    }
    speak(&mut cluster);
    cluster.command(n(2), |core| core.retract(AgentId(20)));
    cluster.run(ms(100));
    assert_eq!(cluster.holders(20, 7), 0);
    for other in 1..=3 {
        cluster.connect(n(4), n(other));
    }
    cluster.run(ms(100));
    assert_eq!(cluster.holders(20, 7), 0);
    assert_eq!(cluster.holders(21, 7), 4);
}

#[test]
fn a_lost_push_is_repaired_by_its_owner() {
    let mut cluster = Cluster::settled(2, 10);
    cluster.cut(n(1), n(2));
    cluster.publish(n(1), 1, 1);
    cluster.run(ms(50));
    cluster.heal();
    cluster.publish(n(1), 2, 2);
    cluster.run(ms(50));
    assert_eq!((cluster.holders(1, 1), cluster.holders(2, 2)), (1, 2), "the second, not the first");
    cluster.run_until(ms(1050), |cluster| cluster.holders(1, 1) == 2);
}

#[test]
fn a_full_table_crosses_in_bounded_frames() {
    let mut cluster = Cluster::of(3, 7);
    cluster.connect_all();
    cluster.run(ms(100));
    cluster.command(n(1), |core| {
        for agent in 0..4000 {
            core.publish_reading(AgentId(agent), crate::harness::reading(3));
        }
        for id in 0..700 {
            core.publish_extension(id, Some(&[9; VALUE_BYTES_MAX])).unwrap();
        }
    });
    // The harness asserts the limit of each frame.
    cluster.run(ms(1000));
    assert_eq!(cluster.core(n(3)).readings().count(), 4000);
    assert_eq!(cluster.core(n(3)).extension(n(1), 699), Some(&[9; VALUE_BYTES_MAX][..]));
    // And by digest alone, to a node that was cut off from its owner all along.
    let mut late = Cluster::of(3, 8);
    late.connect(n(1), n(2));
    late.command(n(1), |core| {
        for id in 0..900 {
            core.publish_extension(id, Some(&[9; VALUE_BYTES_MAX])).unwrap();
        }
    });
    late.run(ms(100));
    late.connect(n(2), n(3));
    // The digest at the connection is enough; none of the later ones is waited for.
    late.run_until(ms(20), |late| late.core(n(3)).extension(n(1), 899).is_some());
    assert_eq!(late.core(n(3)).extension(n(1), 0), Some(&[9; VALUE_BYTES_MAX][..]));
}

#[test]
fn agents_that_come_and_go_for_ever_do_not_fill_the_table() {
    let mut cluster = Cluster::settled(3, 9);
    for agent in 0..20_000 {
        cluster
            .command(n(1), |core| core.publish_reading(AgentId(agent), crate::harness::reading(1)));
        if agent >= 3 {
            cluster.command(n(1), |core| core.retract(AgentId(agent - 3)));
        }
    }
    cluster.run(ms(100));
    for node in cluster.members() {
        let left: Vec<_> = cluster.core(node).readings().map(|view| view.agent.0).collect();
        assert_eq!(left, [19_997, 19_998, 19_999], "at {node}");
    }
    assert!(cluster.all_alive());
    assert_eq!(cluster.verdicts, [], "a new incarnation is no death");
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let trace = |seed| {
        let mut cluster = Cluster::of(9, seed);
        cluster.loss_ppm = 20_000;
        cluster.connect_all();
        speak(&mut cluster);
        cluster.run(ms(1500));
        cluster.kill(n(3));
        cluster.stall(n(4), ms(900));
        cluster.run(ms(4000));
        (cluster.trace, cluster.frames, cluster.bytes, cluster.verdicts.clone())
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1).0, trace(2).0);
}
