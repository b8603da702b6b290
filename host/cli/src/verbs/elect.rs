//! `quorate elect …`

use std::time::Duration;

use quorate_types::Token;
use quorate_types::kv::{Holder, LeaseId, Revision, SeatKind, Value};
use serde::Serialize;

use super::Session;
use super::kv::shown;
use super::lock::{pass_on, run_while};
use crate::exit::{Exit, ended};
use crate::key_args::{ElectArgs, ElectVerb};

#[derive(Serialize)]
struct Led {
    election: String,
    token: Token,
    lease: LeaseId,
}

#[derive(Serialize)]
struct Seen {
    revision: Revision,
    holder: Option<Holder>,
}

impl Session<'_> {
    pub(super) async fn elect(&self, args: &ElectArgs) -> anyhow::Result<()> {
        let name = match (&args.verb, &args.name) {
            (Some(ElectVerb::Observe { name }), _) => return self.observe(name).await,
            (Some(ElectVerb::Ls), _) => return self.list_seats(SeatKind::Election).await,
            (None, Some(name)) => name,
            (None, None) => unreachable!("a name or a verb is asked for"),
        };
        let link = self.client.connect_stream().await?;
        let ttl = Duration::from_secs(args.term.ttl);
        let value = Value::from(args.value.as_str());
        let led = link.campaign(&self.global.namespace, name, ttl, value).await?;
        if !args.command.is_empty() {
            let status = run_while(&args.command, led.token(), led.lease()).await?;
            led.resign().await?;
            return pass_on(status);
        }
        let mut signals = crate::signals::Signals::listen()?;
        let told = Led { election: name.clone(), token: led.token(), lease: led.lease().id() };
        self.output.next(&told, |told| {
            format!("leads {} under token {}, until interrupted", told.election, told.token)
        })?;
        tokio::select! {
            _word = signals.next() => {}
            () = led.lease().lost() => {
                let what = "the leadership was lost";
                let next = format!("see who leads: `quorate elect observe {name}`");
                return Err(ended(Exit::Conflict, what, next));
            }
        }
        Ok(led.resign().await?)
    }

    async fn observe(&self, name: &str) -> anyhow::Result<()> {
        let link = self.client.connect_stream().await?;
        let mut seen = link.observe(&self.global.namespace, SeatKind::Election, name).await?;
        while let Some(next) = seen.next().await {
            let (revision, holder) = next?;
            self.output.next(&Seen { revision, holder }, |seen| match &seen.holder {
                None => format!("{} nobody leads", seen.revision),
                Some(holder) => format!(
                    "{} {} leads under token {}: {}",
                    seen.revision,
                    holder.lease,
                    holder.token,
                    shown(&holder.value)
                ),
            })?;
        }
        Ok(())
    }
}
