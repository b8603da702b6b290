//! Workers outside: they register at a door, take leases there, renew, complete and
//! fail at any; some forget a lease, some come with a token that was never theirs.

use std::time::Duration;

use crate::runtime::SimRuntime;
use openraft_rt::AsyncRuntime as _;
use quorate_types::rng::Rng;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::view::{LeaseGrant, LeaseView};
use quorate_types::{
    AgentId, AgentSpec, CapabilitySet, Incarnation, Payload, Refusal, Reply, Request, Token,
};

use super::{Entrance, Front, WITHIN_MS};
use crate::guests::work_of;
use crate::law::Law;

/// What only they can do.
pub(crate) const OUTSIDE: &str = "outside";

const SLOTS: u32 = 4;
/// A long poll.
const WAIT_MS: u64 = 1_000;
/// A completion is sent so often before its worker gives up.
const TRIES: usize = 5;
/// Far above every token that is given.
const NOBODYS: u64 = 1 << 40;

/// One worker, over all its lives, until the run ends.
pub(super) async fn work(front: Front, mut rng: Rng, name: String) {
    loop {
        if let Some(entrance) = front.any(&mut rng)
            && let Some(life) = register(&front, &entrance, &name).await
        {
            live(&front, &entrance, life, &mut rng).await;
        }
        SimRuntime::sleep(Duration::from_millis(100 + rng.below(300))).await;
    }
}

async fn register(
    front: &Front,
    entrance: &Entrance,
    name: &str,
) -> Option<(AgentId, Incarnation)> {
    let spec = AgentSpec {
        namespace: NAMESPACE_DEFAULT.to_owned(),
        name: name.to_owned(),
        node: entrance.node,
        node_incarnation: Incarnation::default(),
        capabilities: CapabilitySet::from(vec![OUTSIDE.to_owned()]),
        slots: SLOTS,
        hosted: false,
    };
    match front.ask(entrance, "register", Request::Register(spec), WITHIN_MS).await? {
        Ok(Reply::Registered(agent, incarnation)) => Some((agent, incarnation)),
        Ok(_) | Err(_) => None,
    }
}

/// Takes leases until this life is over or another is drawn.
async fn live(
    front: &Front,
    entrance: &Entrance,
    (agent, incarnation): (AgentId, Incarnation),
    rng: &mut Rng,
) {
    for _ in 0..10 + rng.below(40) {
        let holding = None;
        let take = Request::Take { agent, incarnation, max: 2, wait_ms: WAIT_MS, holding };
        match front.ask(entrance, "take", take, WAIT_MS + WITHIN_MS).await {
            Some(Ok(Reply::Leases(grants))) => {
                for grant in grants {
                    drop(SimRuntime::spawn(perform(front.clone(), rng.fork(), grant)));
                }
            }
            Some(Ok(_) | Err(_)) | None => return,
        }
    }
    if rng.chance(500_000) {
        let leave = Request::Deregister(agent, incarnation);
        // Whatever the answer, the next life begins by registering.
        drop(front.ask(entrance, "deregister", leave, WITHIN_MS).await);
    }
}

async fn perform(front: Front, mut rng: Rng, LeaseGrant { lease, spec }: LeaseGrant) {
    SimRuntime::sleep(Duration::from_millis(10 + rng.below(200))).await;
    let LeaseView { task, token, .. } = lease;
    // Once all is healed everybody does what is right, so that all comes to its end.
    match if front.is_over() { 20 } else { rng.below(20) } {
        0 => return,
        1 => {
            let forged = Request::Complete(task, Token(token.0 + NOBODYS), Payload::default());
            if let Some(Ok(_)) = front.ask_any(&mut rng, "complete", forged).await {
                let what = format!("a token that was never given completed {task}");
                front.world().complain(Law::Fencing, what);
            }
        }
        2 | 3 => {
            let again = rng.chance(700_000);
            let fail = Request::Fail(task, token, "drawn to fail".to_owned(), again);
            drop(front.ask_any(&mut rng, "fail", fail).await);
            return;
        }
        4 | 5 => {
            drop(front.ask_any(&mut rng, "renew", Request::Renew(task, token)).await);
            SimRuntime::sleep(Duration::from_millis(rng.below(2_000))).await;
        }
        _right => {}
    }
    let Payload::Inline(input) = spec.input else { return };
    let result = Payload::Inline(work_of(&input));
    for _ in 0..TRIES {
        let complete = Request::Complete(task, token, result.clone());
        match front.ask_any(&mut rng, "complete", complete).await {
            Some(Ok(_done)) => {
                front.world().count(|tally| tally.outside += 1);
                front.world().ask(|judges| judges.tasks.completed(task, token));
                return;
            }
            Some(Err(Refusal::Conflict(_))) => return,
            Some(Err(_)) | None => {
                SimRuntime::sleep(Duration::from_millis(20 + rng.below(200))).await;
            }
        }
    }
}
