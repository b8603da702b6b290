//! Lives of a follower's agents, as a slow or faulty leader numbers them.

use quorate_ledger::{Assignment, NodeDown, NodeUp, ShardCommand, SystemCommand};
use quorate_types::{LoadReading, PolicyEpoch, WireEvent};

use super::*;
use crate::asks::ASKS_MAX;
use crate::frame::{self, Control, Done, Errand, Setback};

const LEADER: NodeId = NodeId(2);

impl One {
    /// A kernel that follows node 2, which the test plays.
    fn follower(agents: &[&str]) -> Self {
        let agents: Vec<_> = agents.iter().map(|capability| ("default", *capability)).collect();
        let mut one = Self::made(&agents, &[NODE, LEADER]);
        one.give(Input::Wire(WireEvent::PeerUp(LEADER)));
        let leader = Some(LEADER);
        one.give(Input::Leadership { group: GroupId::SYSTEM, leader, term: Term(1) });
        one
    }

    /// What the leader was asked since the last look.
    fn asked(&mut self) -> Vec<(u64, Errand)> {
        let frames = std::mem::take(&mut self.sent).into_iter();
        let asked = frames.filter_map(|(to, lane, frame)| {
            assert_eq!((to, lane), (LEADER, Lane::Control));
            match frame::decode(&frame) {
                Ok(Control::Ask { id, errand, .. }) => Some((id, errand)),
                Ok(_) => None,
                Err(error) => panic!("{error}"),
            }
        });
        asked.collect()
    }

    fn answered(&mut self, id: u64, result: Result<Done, Setback>) {
        let frame = frame::encode(&Control::Answer { id, result });
        self.give(Input::Wire(WireEvent::Frame { from: LEADER, lane: Lane::Control, frame }));
    }

    /// The leader numbers the node's life.
    fn number(&mut self) {
        let asked = self.asked();
        let [(id, Errand::NodeUp { api, shards, boot })] = &asked[..] else { panic!("{asked:?}") };
        let up = NodeUp {
            node: NODE,
            name: "one".into(),
            api: api.clone(),
            shards: *shards,
            boot: *boot,
        };
        let Outcome::NodeUp(life) = self.apply(SystemCommand::NodeUp(up)) else {
            panic!("a life has a number")
        };
        self.answered(*id, Ok(Done::NodeUp(life)));
    }

    /// The only registration that the leader was asked for.
    fn registration(&mut self) -> (u64, AgentSpec) {
        let mut asked = self.asked();
        let Some((id, Errand::Door(request))) = asked.pop() else { panic!("{asked:?}") };
        let Request::Register(spec) = *request else { panic!("{request:?}") };
        assert!(asked.is_empty(), "{asked:?}");
        (id, spec)
    }

    fn registered(&mut self, spec: &AgentSpec) -> Reply {
        let outcome = self.apply(SystemCommand::RegisterAgent(spec.clone()));
        let Outcome::Registered(agent, incarnation) = outcome else { panic!("{outcome:?}") };
        for adoption in Ledger::adoptions(self.ledger(), self.ledger()) {
            self.apply(adoption);
        }
        Reply::Registered(agent, incarnation)
    }

    /// The leader leases a task to this life of an agent.
    fn lease(&mut self, capability: &str, agent: AgentId, incarnation: Incarnation) -> TaskId {
        let submission =
            Submission { spec: task(capability), nonce: (1, 1, self.index(GroupId::SYSTEM)) };
        let Outcome::Submitted(each) = self.apply(ShardCommand::Submit(vec![submission])) else {
            panic!("a submission is answered with its tasks")
        };
        let task = each[0].as_ref().expect("taken").id;
        let assignment = Assignment {
            task,
            agent,
            incarnation,
            policy_epoch: PolicyEpoch(0),
            policy: "round-robin".to_owned(),
            fallback: false,
            candidates: 1,
            reading: LoadReading::default(),
            term_ms: 10_000,
        };
        let outcome = self.apply(ShardCommand::Assign(vec![assignment]));
        assert!(matches!(&outcome, Outcome::Assigned(tokens) if tokens[0].is_ok()), "{outcome:?}");
        task
    }
}

#[test]
fn an_agent_that_was_registered_twice_works_in_its_last_life() {
    for (mute, answer_last) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut one = One::follower(&["echo"]);
        one.mute = mute;
        one.number();
        let (id, spec) = one.registration();
        one.pass(Duration::from_millis(1_100));
        assert_eq!(
            one.registration(),
            (id, spec.clone()),
            "the commit is slow, so it is sent again"
        );

        let first = one.registered(&spec);
        if !answer_last {
            one.answered(id, Ok(Done::Door(Box::new(first.clone()))));
        }
        let Reply::Registered(agent, last) = one.registered(&spec) else { panic!("registered") };
        if answer_last {
            one.answered(id, Ok(Done::Door(Box::new(first))));
        }
        assert_eq!(last, Incarnation(2));
        let task = one.lease("echo", agent, last);
        let begun: Vec<_> = one.work.iter().map(|(_work, order)| order.task).collect();
        assert_eq!(begun, [Some(task)], "mute {mute}, answered last {answer_last}");
    }
}

#[test]
fn a_peer_that_answers_with_something_else_is_not_believed_and_harms_nobody() {
    let mut one = One::follower(&["echo"]);
    let odd = [
        Done::Unused(Vec::new()),
        Done::Door(Box::new(Reply::Done)),
        Done::NodeUp(Incarnation(1)),
        Done::Door(Box::new(Reply::Leases(Vec::new()))),
    ];
    for done in &odd[..2] {
        let (id, errand) = one.asked().pop().expect("a number is asked for");
        assert!(matches!(errand, Errand::NodeUp { .. }));
        one.answered(id, Ok(done.clone()));
        one.pass(Duration::from_millis(500));
    }
    one.number();
    for done in &odd {
        let (id, _spec) = one.registration();
        one.answered(id, Ok(done.clone()));
        one.pass(Duration::from_millis(500));
    }
    let (id, spec) = one.registration();
    let registered = one.registered(&spec);
    one.answered(id, Ok(Done::Door(Box::new(registered.clone()))));
    let Reply::Registered(agent, life) = registered else { panic!("registered") };
    one.lease("echo", agent, life);
    let (work, _order) = one.work.pop().expect("it works all the same");

    one.give(Input::WorkEnded(work, Ok(Payload::default())));
    for done in &odd[2..] {
        let (id, errand) = one.asked().pop().expect("the end is to be recorded");
        let Errand::Door(request) = &errand else { panic!("{errand:?}") };
        assert!(matches!(**request, Request::Complete(..)), "{request:?}");
        one.answered(id, Ok(done.clone()));
        one.pass(Duration::from_millis(100));
    }

    one.sent.clear();
    let door = one.ask(Request::Policies(Consistency::Linearizable));
    let (id, _errand) = one.asked().pop().expect("the leader says how far to apply");
    one.answered(id, Ok(odd[0].clone()));
    assert_eq!((one.answer(door), one.asked()), (None, vec![]), "not at once again");
    one.pass(Duration::from_millis(100));
    let (id, errand) = one.asked().pop().expect("it is asked again");
    assert_eq!(errand, Errand::Barrier);
    one.answered(id, Ok(Done::Barrier(Index(0))));
    assert!(matches!(one.answer(door), Some(Ok(Reply::Policies(_)))));
}

#[test]
fn a_node_with_a_full_table_of_requests_still_begins_a_new_life() {
    let mut one = One::with_agents(&["echo"]);
    one.lead(false);
    for number in 0..u64::try_from(ASKS_MAX).expect("a number") {
        let request = Request::Policies(Consistency::Linearizable);
        let (id, within) = (AskId(1_000_000 + number), Duration::from_secs(60));
        one.kernel.handle(one.now(), Input::Ask { id, request, within });
    }
    let late = one.ask(Request::Policies(Consistency::Linearizable));
    assert!(matches!(one.answer(late), Some(Err(Refusal::Busy { .. }))), "it is full");

    let reason = "taken for dead".to_owned();
    let down = NodeDown { node: NODE, incarnation: Incarnation(1), reason };
    one.apply(SystemCommand::NodeDown(down));
    assert!(one.kernel.ready().is_err(), "its life is over");
    one.lead(true);
    assert!(one.kernel.ready().is_ok(), "it has begun another");
    let task = one.submit("echo");
    assert_eq!(one.state(task), TaskState::Leased, "and its agents with it");
}

#[test]
fn an_agent_that_the_log_will_not_have_is_not_proposed_for_ever() {
    let unfit = "x".repeat(10_000);
    let mut one = One::with_agents(&["echo", &unfit]);
    let before = one.index(GroupId::SYSTEM);
    one.pass(Duration::from_secs(5));
    assert_eq!(
        one.index(GroupId::SYSTEM),
        before,
        "a refusal of the agent itself is the last word"
    );
    let task = one.submit("echo");
    assert_eq!(one.state(task), TaskState::Leased, "the others work");
}

#[test]
fn a_busy_leader_is_asked_for_a_life_again_after_a_pause() {
    let mut one = One::follower(&["echo"]);
    let busy = || Err(Setback::Refused(Refusal::Busy { what: "log".into(), retry_after_ms: 20 }));
    let mut asked = 0;
    let end = one.now + Duration::from_secs(1);
    while one.now < end {
        for (id, _errand) in one.asked() {
            asked += 1;
            one.answered(id, busy());
        }
        one.pass(Duration::from_millis(10));
    }
    assert!((4..=6).contains(&asked), "{asked} times within a second");
}
