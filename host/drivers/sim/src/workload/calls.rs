//! Callers: each hears a reply or a typed refusal, within its deadline, once.

use crate::runtime::{SimInstant, SimRuntime};
use bytes::{Bytes, BytesMut};
use openraft_rt::{AsyncRuntime as _, Instant as _};
use quorate_types::rng::Rng;
use quorate_types::task::NAMESPACE_DEFAULT;
use quorate_types::view::{CallEvent, CallSpec};
use quorate_types::{Door as _, Refusal, TraceId};

use super::{Front, with_slack};
use crate::checkers::{AGAIN, ONCE};
use crate::guests::work_of;
use crate::law::Law;
use crate::node::CAPABILITY;

/// How a call ended, as its caller heard it.
enum End {
    Reply(Bytes),
    Refused(Refusal),
    /// Nothing more came, and no end had come.
    Silence,
    Late,
}

pub(super) async fn call(front: Front, mut rng: Rng, count: u64) {
    let Some(entrance) = front.any(&mut rng) else { return };
    let idempotent = rng.chance(500_000);
    let body = Bytes::from(format!("{}{count}", if idempotent { AGAIN } else { ONCE }));
    let deadline_ms = 300 + rng.below(3_000);
    let spec = CallSpec {
        namespace: NAMESPACE_DEFAULT.to_owned(),
        capabilities: vec![CAPABILITY.to_owned()],
        content_type: "text/plain".to_owned(),
        body: body.clone(),
        deadline_ms,
        idempotent,
        trace: TraceId::default(),
    };
    let due = SimInstant::now() + with_slack(deadline_ms);
    let mut events = entrance.handle.call(spec);
    let mut reply = BytesMut::new();
    let end = loop {
        let left = due - SimInstant::now();
        match SimRuntime::timeout(left, events.next()).await {
            Ok(Some(Ok(CallEvent::Chunk(part)))) => reply.extend_from_slice(&part),
            Ok(Some(Ok(CallEvent::Done { .. }))) => break End::Reply(reply.freeze()),
            Ok(Some(Err(refusal))) => break End::Refused(refusal),
            Ok(None) => break End::Silence,
            Err(_elapsed) => break End::Late,
        }
    };
    if front.is_open(&entrance) && !entrance.has_stood_still() {
        judge(&front, &body, end);
    }
}

fn judge(front: &Front, body: &Bytes, end: End) {
    let name = String::from_utf8_lossy(body).into_owned();
    match end {
        End::Reply(reply) => {
            front.world().count(|tally| tally.calls += 1);
            front.world().ask(|judges| judges.calls.answered(body, &reply, &work_of(body)));
        }
        End::Refused(
            Refusal::Timeout(_)
            | Refusal::Unavailable(_)
            | Refusal::Agent(_)
            | Refusal::Busy { .. },
        ) => front.world().count(|tally| tally.calls_refused += 1),
        End::Refused(
            refusal @ (Refusal::Invalid(_)
            | Refusal::NotFound(_)
            | Refusal::Conflict(_)
            | Refusal::Across(_)
            | Refusal::TooLarge { .. }
            | Refusal::Compacted(_)),
        ) => front.world().complain(Law::Call, format!("call {name} is refused: {refusal}")),
        End::Silence => front.world().complain(Law::Call, format!("call {name} has no end")),
        End::Late => front.world().complain(Law::Deadline, format!("call {name} is late")),
    }
}
