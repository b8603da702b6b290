//! Where policies come from. The kernel asks for an instance by digest; the node
//! answers with a component behind its native fallback, the simulator with the
//! native answer or a component, as the scenario says.

use quorate_policy::Balancer;
use quorate_types::{Digest, PolicyEpoch};

/// What is plugged into a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRef {
    /// Its name, for people and for the native fallback.
    pub name: String,
    /// The component.
    pub digest: Digest,
    /// The activation.
    pub epoch: PolicyEpoch,
    /// As given at activation.
    pub config: Vec<u8>,
}

/// A balancer that always answers: what the component cannot say, its native
/// fallback does.
pub trait Guarded: Send {
    /// What to ask.
    fn balancer(&mut self) -> &mut dyn Balancer;

    /// Whether the last answer was the fallback's.
    fn fell_back(&self) -> bool;
}

/// Gives instances of policies.
pub trait PolicySource: Send {
    /// An instance of this policy with this seed. Where the component is not here
    /// or not fit, its native fallback, which says so by `fell_back`.
    fn open(&self, policy: &PolicyRef, seed: u64) -> Box<dyn Guarded>;

    /// Whether the component itself would answer.
    fn ready(&self, digest: &Digest) -> bool;
}

/// What answers where a policy has no native answer of its own name.
const LAST_RESORT: &str = "round-robin";

/// The native reference answers as they are: what the simulator runs, and the
/// last resort everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeSource;

impl PolicySource for NativeSource {
    fn open(&self, policy: &PolicyRef, seed: u64) -> Box<dyn Guarded> {
        let native = quorate_policy::by_name(&policy.name, &policy.config, seed)
            .or_else(|| quorate_policy::by_name(LAST_RESORT, &[], seed));
        let Some(native) = native else { unreachable!("{LAST_RESORT} takes no configuration") };
        Box::new(Native(native))
    }

    fn ready(&self, _digest: &Digest) -> bool {
        true
    }
}

/// A native answer in its own right, so nothing falls back.
struct Native(Box<dyn Balancer>);

impl Guarded for Native {
    fn balancer(&mut self) -> &mut dyn Balancer {
        self.0.as_mut()
    }
    fn fell_back(&self) -> bool {
        false
    }
}
