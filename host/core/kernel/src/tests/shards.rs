//! Several groups at one kernel: each request finds its own, and what spans them is
//! put together.

use std::collections::BTreeSet;

use quorate_types::WireEvent;
use quorate_types::door::{AgentFilter, TaskFilter};

use super::*;
use crate::frame::{self, Control, Done, Errand, Setback};

const S1: GroupId = GroupId(1);
const S2: GroupId = GroupId(2);
const PEER: NodeId = NodeId(2);

fn two() -> Layout {
    Layout::new(2).expect("a number of shards")
}

impl One {
    /// A kernel that leads every group of a cluster of one, with two shards.
    fn sharded(agents: &[(&str, &str)]) -> Self {
        let mut one = Self::laid_out(two(), agents, &[NODE]);
        one.lead(true);
        one
    }

    /// Polls until an outside agent has a lease for each of its slots.
    fn take_four(&mut self, (agent, incarnation): (AgentId, Incarnation)) -> Vec<TaskId> {
        let mut held = Vec::new();
        for _poll in 0..4 {
            let max = 4;
            let poll = Request::Take { agent, incarnation, max, wait_ms: 500, holding: None };
            let poll = self.ask(poll);
            self.pass(Duration::from_millis(600));
            held.extend(self.leases(poll).iter().map(|grant| grant.lease.task));
        }
        assert_eq!(held.len(), 4, "as many as it has slots, over both shards");
        held
    }

    /// Submits tasks with these keys at once.
    fn submit_keyed(&mut self, capability: &str, keys: &[&str]) -> Vec<TaskId> {
        let submission = |key: &&str| {
            let spec = TaskSpec { idempotency_key: Some((*key).to_owned()), ..task(capability) };
            Submission { spec, nonce: (0, 0, 0) }
        };
        let batch: Vec<_> = keys.iter().map(submission).collect();
        let Reply::Submitted(each) = self.reply(Request::Submit(batch)) else {
            panic!("a submission is answered with its tasks")
        };
        each.into_iter().map(|one| one.expect("taken").id).collect()
    }
}

fn groups_of(tasks: &[TaskId]) -> BTreeSet<GroupId> {
    tasks.iter().filter_map(|task| two().of_task(*task)).collect()
}

#[test]
fn a_batch_is_parted_by_key_and_answered_in_order() {
    let mut one = One::sharded(&[("default", "echo")]);
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let tasks = one.submit_keyed("none", &keys);
    assert_eq!(groups_of(&tasks), BTreeSet::from([S1, S2]));
    let before = [S1, S2].map(|shard| one.index(shard));
    assert_eq!(one.submit_keyed("none", &keys), tasks, "the same keys are the same tasks");
    let after = [S1, S2].map(|shard| one.index(shard));
    assert_eq!(after, before.map(|index| index + 1), "one entry a shard");

    let filter = TaskFilter { limit: 3, ..TaskFilter::default() };
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let filter = TaskFilter { cursor, ..filter.clone() };
        let Reply::Tasks(page) = one.reply(Request::Tasks(filter, Consistency::Linearizable))
        else {
            panic!("asked for tasks")
        };
        assert_eq!(page.counts[&TaskState::Queued], 8, "counted over both shards");
        seen.extend(page.tasks.iter().map(|task| task.id));
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let mut sorted = tasks.clone();
    sorted.sort_unstable();
    assert_eq!(seen, sorted, "pages go from one shard to the next");
}

#[test]
fn work_of_both_shards_shares_the_slots_of_an_agent() {
    let mut one = One::sharded(&[("default", "echo")]);
    let keys: Vec<String> = (0..12).map(|number| format!("key-{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut left: BTreeSet<TaskId> = one.submit_keyed("echo", &keys).into_iter().collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        assert!(one.work.len() <= 2, "two slots, however many shards");
        assert!(!one.work.is_empty(), "slots are free and {} tasks wait", left.len());
        let (work, at) = one.work.remove(0);
        let task = at.task.expect("a task");
        order.push(two().of_task(task).expect("of this cluster"));
        left.remove(&task);
        one.give(Input::WorkEnded(work, Ok(Payload::default())));
    }
    let first_half = &order[..6];
    assert!(first_half.contains(&S1) && first_half.contains(&S2), "in turns: {order:?}");
}

#[test]
fn an_agent_that_ends_is_fenced_in_every_shard() {
    let mut one = One::sharded(&[]);
    let worker = one.register("echo");
    let (agent, incarnation) = worker;
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let tasks = one.submit_keyed("echo", &keys);
    let held = one.take_four((agent, incarnation));
    assert_eq!(groups_of(&held).len(), 2, "of both shards");
    let Reply::Agents(agents) =
        one.reply(Request::Agents(AgentFilter::default(), Consistency::Linearizable))
    else {
        panic!("asked for agents")
    };
    assert_eq!(agents[0].leases, 4, "as many as it has slots, over both shards");

    assert_eq!(one.reply(Request::Deregister(agent, incarnation)), Reply::Done);
    for task in tasks {
        assert_eq!(one.state(task), TaskState::Queued, "{task}");
    }
}

#[test]
fn a_sign_of_life_keeps_the_leases_of_every_shard() {
    let mut one = One::sharded(&[]);
    let (agent, incarnation) = one.register("echo");
    let tasks = one.submit_keyed("echo", &["a", "b", "c", "d"]);
    assert_eq!(groups_of(&tasks).len(), 2);
    one.take_four((agent, incarnation));
    for _beat in 0..4 {
        one.pass(TERM / 2);
        assert_eq!(one.reply(Request::Beat(agent, incarnation, None)), Reply::Done);
    }
    for task in &tasks {
        assert_eq!(one.state(*task), TaskState::Leased);
    }
    one.pass(TERM + Duration::from_secs(1));
    for task in &tasks {
        assert_eq!(one.state(*task), TaskState::Queued, "silence ends them");
    }
}

#[test]
fn a_read_at_a_follower_waits_until_it_has_applied_what_the_leaders_name() {
    let mut one = One::laid_out(two(), &[], &[NODE, PEER]);
    one.give(Input::Wire(WireEvent::PeerUp(PEER)));
    for group in two().groups() {
        one.give(Input::Leadership { group, leader: Some(PEER), term: Term(1) });
    }
    one.sent.clear();
    let filter = TaskFilter::default();
    let ask = one.ask(Request::Tasks(filter.clone(), Consistency::Linearizable));
    let later = one.ask(Request::Tasks(filter, Consistency::Linearizable));
    let questions = one.questions();
    assert_eq!(
        questions.len(),
        2,
        "one to each shard's leader; the second read waits: {questions:?}"
    );
    for (id, group) in questions {
        let index = if group == S1 { Index(1) } else { Index(0) };
        one.told_barrier(id, index);
    }
    assert_eq!(one.answer(ask), None, "the first entry of g1 is not applied here yet");
    let sweep = quorate_ledger::ShardCommand::Sweep;
    let entry = Command::from(sweep).encode(one.now);
    let [applied, _proposed] = one.commit(Ticket(0), S1, &entry);
    one.give(applied);
    assert!(matches!(one.answer(ask), Some(Ok(Reply::Tasks(_)))));

    assert_eq!(one.answer(later), None, "its question came after that one's answer");
    for (id, group) in one.questions() {
        one.told_barrier(id, Index(one.index(group)));
    }
    assert!(matches!(one.answer(later), Some(Ok(Reply::Tasks(_)))));
}

#[test]
fn what_is_of_another_group_is_refused_before_it_is_logged() {
    let mut one = One::sharded(&[]);
    let before = [0, 1, 2].map(|group| one.index(GroupId(group)));
    let submission = Submission { spec: task("echo"), nonce: (1, 1, 1) };
    let of = two().of_submission(&submission);
    let submit = Request::Submit(vec![submission]);
    let up = Errand::NodeUp { api: None, shards: 2, boot: 9 };
    let wrong = [
        (GroupId::SYSTEM, Errand::Door(Box::new(submit.clone()))),
        (if of == S1 { S2 } else { S1 }, Errand::Door(Box::new(submit))),
        (GroupId::SYSTEM, Errand::Door(Box::new(Request::Submit(Vec::new())))),
        (S1, up),
        (S1, Errand::Door(Box::new(Request::Deregister(AgentId(1), Incarnation(1))))),
    ];
    for (group, errand) in wrong {
        let ask = Control::Ask { id: 7, group: Some(group), errand, within_ms: 1_000 };
        let frame = frame::encode(&ask);
        one.give(Input::Wire(WireEvent::Frame { from: PEER, lane: Lane::Control, frame }));
        let (_to, _lane, frame) = one.sent.pop().expect("an answer");
        let answer = frame::decode(&frame).expect("a frame of our own");
        let Control::Answer { result: Err(Setback::Refused(Refusal::Invalid(why))), .. } = answer
        else {
            panic!("{answer:?}")
        };
        assert!(why.contains("does not do"), "{why}");
    }
    assert_eq!([0, 1, 2].map(|group| one.index(GroupId(group))), before, "nothing was logged");
    assert_eq!(one.reply(Request::Submit(Vec::new())), Reply::Submitted(Vec::new()));
    let nothing = Request::KvRead(Vec::new(), Consistency::Linearizable);
    assert_eq!(one.reply(nothing), Reply::KvFound(Vec::new(), false));
}

impl One {
    /// What the leaders were asked for reads.
    fn questions(&mut self) -> Vec<(u64, GroupId)> {
        let frames = std::mem::take(&mut self.sent).into_iter();
        let asked = frames.filter_map(|(_to, _lane, frame)| match frame::decode(&frame) {
            Ok(Control::Ask { id, group: Some(group), errand: Errand::Barrier, .. }) => {
                Some((id, group))
            }
            Ok(_) | Err(_) => None,
        });
        asked.collect()
    }

    fn told_barrier(&mut self, id: u64, index: Index) {
        let frame = frame::encode(&Control::Answer { id, result: Ok(Done::Barrier(index)) });
        self.give(Input::Wire(WireEvent::Frame { from: PEER, lane: Lane::Control, frame }));
    }
}

#[test]
fn nothing_is_handed_to_a_node_that_was_never_heard() {
    let mut one = One::laid_out(two(), &[], &[NODE, PEER]);
    one.give(Input::Wire(WireEvent::PeerUp(PEER)));
    for group in two().groups() {
        let voters = vec![NODE, PEER];
        one.give(Input::GroupMembers { group, voters, learners: Vec::new() });
    }
    one.lead(true);
    one.changes.clear();
    one.pass(Duration::from_secs(60));
    assert_eq!(one.changes, [], "it leads all three, and nobody is known to live");
}
