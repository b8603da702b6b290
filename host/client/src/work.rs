//! An outside worker's side: present oneself, live on, take work, report it.

use std::time::Duration;

use quorate_types::door::Consistency;
use quorate_types::http::{
    Agents, Beat, Complete, Fail, Leases, Register, Registered, Renew, Renewed, Take,
};
use quorate_types::view::{AgentView, LeaseGrant};
use quorate_types::{AgentId, Incarnation, LoadReading, Payload, TaskId, Token};
use reqwest::Method;

use crate::ask::Ask;
use crate::client::Client;
use crate::error::ClientError;
use crate::tasks::consistency_name;

impl Client {
    /// Registers an agent, or a new life of it. Use what the last registration answered: an
    /// earlier one, whose answer was lost, is fenced by it.
    pub async fn register(&self, agent: &Register) -> Result<Registered, ClientError> {
        self.ask(Ask::post(&["v1", "agents"]).json(agent)?).await
    }

    /// A sign of life; renews every lease that the agent holds.
    pub async fn heartbeat(
        &self,
        agent: AgentId,
        incarnation: Incarnation,
        reading: Option<LoadReading>,
    ) -> Result<(), ClientError> {
        let ask = Ask::post(&["v1", "agents", &agent.to_string(), "heartbeat"]);
        self.ask_done(ask.json(&Beat { incarnation, reading })?).await
    }

    /// Retires an agent.
    pub async fn deregister(
        &self,
        agent: AgentId,
        incarnation: Incarnation,
    ) -> Result<(), ClientError> {
        let ask = Ask::new(Method::DELETE, &["v1", "agents", &agent.to_string()]);
        self.ask_done(ask.query("incarnation", incarnation.0)).await
    }

    /// Agents that have all these capabilities.
    pub async fn agents(
        &self,
        capabilities: &[String],
        consistency: Consistency,
    ) -> Result<Vec<AgentView>, ClientError> {
        let ask = Ask::get(&["v1", "agents"]).query("consistency", consistency_name(consistency));
        let ask = capabilities.iter().fold(ask, |ask, name| ask.query("capability", name));
        Ok(self.ask::<Agents>(ask).await?.agents)
    }

    /// Takes up to `max` leases, waiting up to `wait` for the first; empty when the wait ended.
    ///
    /// `holding` names every lease that the worker knows to hold. One that it was given and does not
    /// name, since the answer was lost on the way, is told again a moment later. Who polls several
    /// times at once may so be told of a lease twice, and knows it by its token.
    pub async fn take(
        &self,
        agent: AgentId,
        incarnation: Incarnation,
        holding: &[Token],
        max: u32,
        wait: Duration,
    ) -> Result<Vec<LeaseGrant>, ClientError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let ask = Ask::post(&["v1", "agents", &agent.to_string(), "leases"])
            .timeout(wait + self.0.timeout)
            .try_min(wait + Duration::from_secs(1))
            .json(&Take { incarnation, max, wait_ms, holding: Some(holding.to_vec()) })?;
        Ok(self.ask::<Leases>(ask).await?.leases)
    }

    /// Renews one lease; answers the term that begins now.
    pub async fn renew(&self, task: TaskId, token: Token) -> Result<Duration, ClientError> {
        let ask = Ask::post(&["v1", "tasks", &task.to_string(), "renew"]);
        let renewed: Renewed = self.ask(ask.json(&Renew { token })?).await?;
        Ok(Duration::from_millis(renewed.term_ms))
    }

    /// Finishes a task. `Ok` means that a quorum has the completion on disk.
    pub async fn complete(
        &self,
        task: TaskId,
        token: Token,
        result: Payload,
    ) -> Result<(), ClientError> {
        let ask = Ask::post(&["v1", "tasks", &task.to_string(), "complete"]);
        self.ask_done(ask.json(&Complete { token, result })?).await
    }

    /// Reports a failed attempt; `retry` asks for another.
    pub async fn fail(
        &self,
        task: TaskId,
        token: Token,
        reason: &str,
        retry: bool,
    ) -> Result<(), ClientError> {
        let ask = Ask::post(&["v1", "tasks", &task.to_string(), "fail"]);
        self.ask_done(ask.json(&Fail { token, reason: reason.to_owned(), retry })?).await
    }
}
