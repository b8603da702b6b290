//! The reference answers by name, and the configuration they read.

use std::collections::BTreeMap;

use crate::balancer::{Balancer, Fault, Snapshot};
use crate::least_used::{self, LeastUsed};
use crate::load_aware::{self, LoadAware};
use crate::peak_ewma::{self, PeakEwma};
use crate::round_robin::{self, RoundRobin};
use crate::seats::invalid;

/// The built-in policies; each is also a component of the same name.
pub const NAMES: [&str; 4] = ["round-robin", "least-used", "load-aware", "peak-ewma"];

/// The policy that routes where nothing else was asked for.
pub const DEFAULT: &str = "peak-ewma";

/// The reference answer of this name, to stand in for its component. None when there is
/// none or it refuses the configuration.
pub fn by_name(name: &str, config: &[u8], seed: u64) -> Option<Box<dyn Balancer>> {
    open(name, config, seed, None)?.ok()
}

/// The reference answer of this name in the state that `prior` holds, where given. None
/// when there is no such policy.
pub fn open(
    name: &str,
    config: &[u8],
    seed: u64,
    prior: Option<&Snapshot>,
) -> Option<Result<Box<dyn Balancer>, Fault>> {
    match name {
        "round-robin" => Some(accept(config, &[], prior, round_robin::STATE_SCHEMA, |_| {
            RoundRobin::open(prior).map(boxed)
        })),
        "least-used" => Some(accept(config, &[], prior, least_used::STATE_SCHEMA, |_| {
            LeastUsed::open(prior).map(boxed)
        })),
        "load-aware" => Some(accept(config, &[], prior, load_aware::STATE_SCHEMA, |_| {
            LoadAware::open(prior).map(boxed)
        })),
        "peak-ewma" => {
            let keys = ["choices", "half-life"];
            Some(accept(config, &keys, prior, peak_ewma::STATE_SCHEMA, |config| {
                PeakEwma::open(config, seed, prior).map(boxed)
            }))
        }
        _ => None,
    }
}

/// What every policy checks before it opens: the configuration, then the schema.
fn accept(
    config: &[u8],
    keys: &[&str],
    prior: Option<&Snapshot>,
    schema: u32,
    open: impl FnOnce(&Config) -> Result<Box<dyn Balancer>, Fault>,
) -> Result<Box<dyn Balancer>, Fault> {
    let config = Config::parse(config, keys)?;
    match prior {
        Some(prior) if prior.schema != schema => Err(Fault::UnsupportedSchema(prior.schema)),
        Some(_) | None => open(&config),
    }
}

fn boxed(policy: impl Balancer + 'static) -> Box<dyn Balancer> {
    Box::new(policy)
}

/// A policy's configuration: a flat JSON object of whole numbers, or nothing.
#[derive(Debug, Default)]
pub struct Config(BTreeMap<String, u64>);

impl Config {
    /// Reads it and refuses any key but `keys`.
    pub fn parse(bytes: &[u8], keys: &[&str]) -> Result<Self, Fault> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let members: BTreeMap<String, u64> = serde_json::from_slice(bytes).map_err(|error| {
            Fault::Invalid(format!("the configuration is not an object of whole numbers: {error}"))
        })?;
        match members.keys().find(|key| !keys.contains(&key.as_str())) {
            Some(key) => {
                Err(Fault::Invalid(format!("the configuration has an unknown key: {key}")))
            }
            None => Ok(Self(members)),
        }
    }

    /// The number under `key`, `default` where it is absent; it must be in `1..=max`.
    pub fn number(&self, key: &str, default: u64, max: u64) -> Result<u64, Fault> {
        match self.0.get(key).copied().unwrap_or(default) {
            number if (1..=max).contains(&number) => Ok(number),
            _ => Err(invalid("a number of the configuration is out of range")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_policy_opens_under_its_name() {
        for name in NAMES {
            let policy = by_name(name, b"", 7).unwrap();
            assert_eq!(policy.describe().name, name);
            assert!(policy.describe().reads_schemas.contains(&policy.describe().state_schema));
        }
        assert!(by_name("no-such", b"", 7).is_none());
        assert!(NAMES.contains(&DEFAULT));
    }

    #[test]
    fn a_configuration_is_read_strictly() {
        let refusal = |config: &[u8]| match open("peak-ewma", config, 0, None).unwrap() {
            Ok(_) => String::new(),
            Err(fault) => fault.to_string(),
        };
        assert_eq!(refusal(br#" { "choices" : 2, "half-life": 10 } "#), "");
        assert!(refusal(br#"{"choice": 2}"#).contains("unknown key: choice"));
        assert!(refusal(br#"{"choices": 0}"#).contains("out of range"));
        assert!(refusal(br#"{"choices": 17}"#).contains("out of range"));
        assert!(refusal(b"[1]").contains("not an object"));
        assert!(by_name("round-robin", br#"{"choices": 2}"#, 0).is_none());
    }

    #[test]
    fn state_of_another_policy_is_refused_by_its_schema() {
        let saved = by_name("round-robin", b"", 0).unwrap().save().unwrap();
        let refused = open("load-aware", b"", 0, Some(&saved)).unwrap().err();
        assert_eq!(refused, Some(Fault::UnsupportedSchema(round_robin::STATE_SCHEMA)));
    }
}
