//! `quorate call …`

use std::time::Duration;

use bytes::Bytes;
use quorate_client::CallRequest;
use quorate_types::task::Payload;
use quorate_types::{AgentId, PolicyEpoch, TraceId};
use serde::Serialize;

use super::{Session, content};
use crate::args::CallArgs;
use crate::output::{Table, raw, remark};

#[derive(Serialize)]
struct Reply {
    reply: Payload,
    agent: AgentId,
    policy_epoch: PolicyEpoch,
    attempts: u32,
    trace: TraceId,
}

#[derive(Serialize)]
struct Part {
    chunk: Payload,
}

impl Session<'_> {
    pub(super) async fn call(&self, args: &CallArgs) -> anyhow::Result<()> {
        let deadline = args
            .deadline_ms
            .map_or(Duration::from_secs(self.global.timeout), Duration::from_millis);
        let request = CallRequest {
            namespace: self.global.namespace.clone(),
            capabilities: args.capabilities.clone(),
            content_type: args.content_type.clone(),
            body: content(args.input.as_deref(), args.file.as_deref())?,
            deadline,
            idempotent: args.idempotent,
        };
        if args.stream { self.streamed(&request).await } else { self.whole(&request).await }
    }

    async fn whole(&self, request: &CallRequest) -> anyhow::Result<()> {
        let reply = self.client.call(request).await?;
        if !self.output.is_json() {
            raw(&reply.body)?;
            let attempts = if reply.attempts == 1 { "attempt" } else { "attempts" };
            remark(&format!("by {} in {} {attempts}", reply.agent, reply.attempts));
            return Ok(());
        }
        let shown = Reply {
            reply: Payload::Inline(reply.body),
            agent: reply.agent,
            policy_epoch: reply.policy_epoch,
            attempts: reply.attempts,
            trace: reply.trace,
        };
        self.output.one(&shown, |_| Table::of_fields())
    }

    async fn streamed(&self, request: &CallRequest) -> anyhow::Result<()> {
        let mut parts = self.client.call_stream(request).await?;
        while let Some(part) = parts.next().await {
            let part: Bytes = part?;
            if self.output.is_json() {
                self.output.next(&Part { chunk: Payload::Inline(part) }, |_| String::new())?;
            } else {
                raw(&part)?;
            }
        }
        Ok(())
    }
}
