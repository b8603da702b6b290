//! Who is held to be alive, suspect or down, and when.

use quorate_membership::{Reason, Status};
use quorate_types::{AgentId, Gone, Incarnation};

use crate::harness::{Cluster, Verdict, ms, n, named};

fn statuses(cluster: &Cluster, of: u64) -> Vec<(Status, Reason)> {
    cluster.verdicts_of(n(of)).map(|verdict| (verdict.to, verdict.reason)).collect()
}

#[test]
fn a_killed_process_is_down_at_once_for_everybody() {
    for count in [2, 3, 60] {
        let mut cluster = Cluster::settled(count, 21);
        cluster.kill(n(2));
        // They are told after a millisecond; no timer has to pass after that.
        cluster.run(ms(1));
        assert!(cluster.all_say(n(2), Status::Down));
        assert!(cluster.verdicts.iter().all(|verdict| verdict.reason == Reason::Refused));
        cluster.run(ms(5000));
        assert_eq!(cluster.verdicts.len(), usize::try_from(count).unwrap() - 1, "nothing else");
        assert!(cluster.all_alive(), "the others are");
    }
}

#[test]
fn a_silent_node_is_suspect_within_half_a_second_and_down_after_its_suspicion() {
    for (count, seed) in [(3, 1), (5, 2), (60, 3)] {
        let mut cluster = Cluster::settled(count, seed);
        cluster.vanish(n(2));
        let suspect = cluster.run_until(ms(470), |cluster| cluster.all_say(n(2), Status::Suspect));
        let down = cluster.run_until(ms(2500), |cluster| cluster.all_say(n(2), Status::Down));
        println!("{count} nodes: suspect everywhere after {suspect:?}, down {down:?} later");
        assert!(suspect >= ms(200), "not before it was asked");
        assert!(down >= ms(1500), "others confirmed, but not before the shortest suspicion");
        cluster.run(ms(10_000));
        let others = usize::try_from(count).unwrap() - 1;
        assert_eq!(cluster.verdicts.len(), 2 * others, "each said suspect, then down");
        let reasons = [Reason::ProbesFailed, Reason::SuspicionExpired];
        assert!(cluster.verdicts.iter().all(|verdict| reasons.contains(&verdict.reason)));
    }
}

#[test]
fn a_quiet_cluster_and_a_lossy_one_accuse_nobody() {
    for (seed, loss_ppm) in [(1, 0), (2, 1_000), (3, 10_000)] {
        let mut cluster = Cluster::settled(12, seed);
        cluster.loss_ppm = loss_ppm;
        cluster.run(ms(120_000));
        let down = cluster.verdicts.iter().filter(|verdict| verdict.to == Status::Down).count();
        let suspect =
            cluster.verdicts.iter().filter(|verdict| verdict.to == Status::Suspect).count();
        println!("loss {loss_ppm} ppm: {suspect} suspicions, {down} deaths in 24 node-minutes");
        assert_eq!(down, 0);
        assert!(suspect <= usize::try_from(loss_ppm / 5_000).unwrap(), "{suspect} suspicions");
    }
}

#[test]
fn one_cut_link_accuses_nobody_since_others_are_asked() {
    let mut cluster = Cluster::settled(3, 22);
    cluster.cut(n(1), n(2));
    cluster.run(ms(10_000));
    cluster.disconnect(n(1), n(2), Gone::Timeout);
    cluster.run(ms(10_000));
    assert_eq!(cluster.verdicts, []);
}

#[test]
fn a_node_that_stood_still_refutes_the_suspicion() {
    let mut cluster = Cluster::settled(5, 23);
    cluster.stall(n(2), ms(900));
    let suspect = cluster.run_until(ms(600), |cluster| cluster.all_say(n(2), Status::Suspect));
    cluster.run(ms(950) - suspect);
    assert!(cluster.core(n(2)).health() > 0, "it came late and was accused");
    assert!(cluster.all_alive());
    cluster.run(ms(2000));
    let of_it: Vec<Verdict> = cluster.verdicts_of(n(2)).copied().collect();
    assert!(of_it.iter().all(|verdict| verdict.to != Status::Down));
    assert_eq!(of_it.len(), 8, "four suspected it and four took that back");
    let others = cluster.verdicts.iter().filter(|verdict| verdict.of != n(2));
    assert_eq!(others.count(), 0, "it slept itself and blames nobody");
    assert_eq!(cluster.core(n(2)).health(), 0, "it is sound again");
}

/// Cuts node 1 off until it waits for answers from everybody, and stops it there. Nothing waits
/// in its socket when it goes on: whoever judges at once is wrong.
fn stop_while_it_waits(cluster: &mut Cluster, span: u64) {
    for peer in [2, 3] {
        cluster.cut(n(1), n(peer));
    }
    cluster.run(ms(240));
    cluster.stall(n(1), ms(span));
    cluster.run(ms(span - 1));
    cluster.heal();
}

#[test]
fn a_late_tick_asks_again_before_it_judges() {
    for span in [260, 300, 700, 2000, 8000] {
        let mut cluster = Cluster::settled(3, 24);
        stop_while_it_waits(&mut cluster, span);
        cluster.run(ms(3000));
        let blamed = cluster.verdicts.iter().filter(|verdict| verdict.by == n(1)).count();
        assert_eq!(blamed, 0, "after {span} ms");
        assert!(cluster.all_alive());
    }
}

#[test]
fn a_suspicion_that_ends_in_a_stall_of_ones_own_is_no_death() {
    let mut cluster = Cluster::settled(3, 34);
    cluster.stall(n(2), ms(1000));
    cluster.run(ms(600));
    assert_eq!(cluster.status(n(1), n(2)), Status::Suspect);
    stop_while_it_waits(&mut cluster, 9000);
    cluster.run(ms(3000));
    let deaths = |verdict: &&Verdict| verdict.by == n(1) && verdict.to == Status::Down;
    assert_eq!(cluster.verdicts.iter().find(deaths), None);
    assert!(cluster.all_alive());
}

#[test]
fn a_node_that_always_comes_late_still_sees_the_dead() {
    let mut cluster = Cluster::settled(3, 25);
    cluster.vanish(n(2));
    cluster.vanish(n(3));
    // Longer than any of its timeouts, even at ninefold: each of its ticks is late.
    for _ in 0..20 {
        cluster.stall(n(1), ms(2000));
        cluster.run(ms(2001));
    }
    assert_eq!(cluster.status(n(1), n(2)), Status::Down);
    assert_eq!(cluster.core(n(1)).health(), 8);
}

#[test]
fn a_node_in_a_busy_cluster_that_sends_no_pings_trusts_itself_again() {
    let mut cluster = Cluster::settled(3, 33);
    cluster.stall(n(1), ms(500));
    for round in 0..120 {
        for node in cluster.members() {
            cluster.publish(node, node.0, round);
        }
        cluster.run(ms(50));
        if round == 12 {
            assert!(cluster.core(n(1)).health() > 0);
        }
    }
    assert_eq!(cluster.core(n(1)).health(), 0);
}

#[test]
fn a_restarted_node_is_alive_and_what_its_old_life_said_is_gone() {
    for (incarnation, seed) in [(2_000_000, 26), (500_000, 27), (1_000_000, 28)] {
        let mut cluster = Cluster::settled(3, seed);
        cluster.command(n(2), |core| core.set_presence(named("first")).unwrap());
        for agent in 0..5 {
            cluster.publish(n(2), agent, 1);
        }
        cluster.run(ms(50));
        cluster.kill(n(2));
        cluster.run(ms(100));
        assert_eq!(cluster.holders(1, 1), 2, "its last words are remembered");
        cluster.start(n(2), incarnation);
        cluster.command(n(2), |core| core.set_presence(named("second")).unwrap());
        cluster.publish(n(2), 77, 7);
        cluster.connect(n(2), n(1));
        cluster.connect(n(2), n(3));
        let reborn = |cluster: &Cluster| {
            let second = |by| cluster.core(by).presence(n(2)).is_some_and(|it| it.name == "second");
            cluster.all_alive() && cluster.running().all(second) && cluster.holders(77, 7) == 3
        };
        let took = cluster.run_until(ms(50), reborn);
        println!("incarnation {incarnation}: back after {took:?}");
        assert_eq!(cluster.holders(1, 1), 0, "the old life's readings are gone");
        let lives = |by| cluster.core(by).members().find(|it| it.node == n(2)).unwrap().incarnation;
        assert!(lives(n(1)) > Incarnation(1_000_000) && lives(n(1)) == lives(n(2)));
    }
}

#[test]
fn a_node_that_was_down_is_alive_again_once_anyone_can_reach_it() {
    let mut cluster = Cluster::settled(4, 29);
    for peer in [1, 3, 4] {
        cluster.cut(n(2), n(peer));
        cluster.disconnect(n(2), n(peer), Gone::Timeout);
    }
    cluster.run(ms(15_000));
    assert!(cluster.all_say(n(2), Status::Down) && cluster.status(n(2), n(1)) == Status::Down);
    cluster.verdicts.clear();
    // One link comes back; the others hear of it through that one.
    cluster.heal();
    cluster.connect(n(2), n(3));
    let took = cluster.run_until(ms(4000), Cluster::all_alive);
    println!("reachable through one node again after {took:?}");
    let heard = cluster.verdicts_of(n(2)).map(|verdict| verdict.reason).collect::<Vec<_>>();
    assert_eq!(heard[0], Reason::Heard, "by the one that is connected");
    assert_eq!(heard[1..], [Reason::HeardByOthers; 2]);
}

#[test]
fn a_member_that_was_never_heard_is_suspect_and_then_down() {
    let mut cluster = Cluster::of(3, 30);
    cluster.vanish(n(3));
    cluster.connect(n(1), n(2));
    cluster.run(ms(9000));
    assert!(cluster.all_say(n(3), Status::Suspect));
    assert_eq!(cluster.status(n(1), n(2)), Status::Alive);
    cluster.run(ms(2000));
    assert_eq!(statuses(&cluster, 3), [(Status::Down, Reason::SuspicionExpired); 2]);
}

#[test]
fn readings_of_a_node_that_is_down_yield_to_those_of_one_that_is_not() {
    let mut cluster = Cluster::settled(3, 31);
    cluster.publish(n(2), 5, 2);
    cluster.run(ms(50));
    cluster.publish(n(3), 5, 3);
    cluster.run(ms(50));
    cluster.publish(n(2), 5, 4);
    cluster.run(ms(50));
    let held = |cluster: &Cluster| cluster.core(n(1)).reading(AgentId(5)).unwrap().0.in_flight;
    assert_eq!(held(&cluster), 4, "the newest");
    let (_, received) = cluster.core(n(1)).reading(AgentId(5)).unwrap();
    assert!(cluster.now.since(received) <= ms(50));
    cluster.kill(n(2));
    cluster.run(ms(50));
    assert_eq!(held(&cluster), 3);
}

#[test]
fn two_nodes_have_nobody_to_ask_and_still_judge() {
    let mut cluster = Cluster::settled(2, 32);
    cluster.vanish(n(2));
    cluster.run_until(ms(470), |cluster| cluster.all_say(n(2), Status::Suspect));
    cluster.run_until(ms(2100), |cluster| cluster.all_say(n(2), Status::Down));
}
