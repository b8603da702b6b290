//! Which blobs may go.

use super::*;

fn blob(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn content(name: &str) -> Payload {
    Payload::Blob { digest: blob(name), size: 100_000 }
}

impl One {
    /// What was dropped of these, when the node asks.
    fn drop_of(&mut self, names: &[&str]) -> Vec<Digest> {
        self.dropped.clear();
        self.give(Input::Unused(names.iter().map(|name| blob(name)).collect()));
        self.dropped.clone()
    }
}

#[test]
fn what_a_task_a_result_or_a_policy_needs_is_never_dropped() {
    let mut one = One::with_agents(&["echo"]);
    one.submit_spec(TaskSpec { input: content("queued"), ..task("nobody") });
    one.submit_spec(TaskSpec { input: content("running"), ..task("echo") });
    let done = one.submit_spec(TaskSpec { input: content("worked off"), ..task("echo") });
    let at = one.work.iter().position(|(_work, order)| order.task == Some(done));
    let (work, _order) = one.work.remove(at.expect("it was begun"));
    one.give(Input::WorkEnded(work, Ok(content("result"))));
    let apply = Request::ApplyPolicy {
        slot: "balancer".to_owned(),
        name: "least-used".to_owned(),
        digest: blob("policy"),
        force: false,
    };
    let Reply::Applied(_policy) = one.reply(apply) else { panic!("it was applied") };

    let needed = ["queued", "running", "worked off", "result", "policy"];
    assert_eq!(one.drop_of(&needed), []);
    assert_eq!(one.drop_of(&["policy", "unused", "queued"]), [blob("unused")]);
}

#[test]
fn what_a_task_needed_goes_once_its_record_is_forgotten() {
    let mut one = One::with_agents(&["echo"]);
    let spec = TaskSpec { input: content("input"), retention_ms: 1_000, ..task("echo") };
    let task = one.submit_spec(spec);
    let (work, _order) = one.work.pop().expect("it was begun");
    one.give(Input::WorkEnded(work, Ok(content("result"))));
    assert_eq!(one.drop_of(&["input", "result"]), [], "kept as long as the record");
    one.pass(Duration::from_secs(2));
    assert!(one.ledger().was_forgotten(task));
    assert_eq!(one.drop_of(&["input", "result"]), [blob("input"), blob("result")]);
}

#[test]
fn without_a_leader_everything_stays() {
    let mut one = One::with_agents(&[]);
    one.lead(false);
    assert_eq!(one.drop_of(&["unused"]), []);
    one.pass(Duration::from_secs(15));
    one.lead(true);
    one.pass(Duration::from_secs(1));
    assert_eq!(one.dropped, [], "the question is over; the next look asks again");
    assert_eq!(one.drop_of(&["unused"]), [blob("unused")]);
}
