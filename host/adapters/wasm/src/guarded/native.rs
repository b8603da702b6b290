//! The native reference that stands in for a component, and the table it is given.

use quorate_policy::{Balancer, Descriptor, Fault, Feature, Observation, Slot};

use crate::members::Members;

/// The native policy that stands in for a component of a name that is not built in.
const LAST_RESORT: &str = "round-robin";

/// The stand-in; made when it is first needed.
#[derive(Default)]
pub(super) struct Native {
    balancer: Option<Box<dyn Balancer>>,
    /// Whether it has the table of now.
    pub(super) current: bool,
}

/// The pool as the host last gave it.
#[derive(Default)]
pub(super) struct Table {
    pub(super) revision: u64,
    pub(super) members: Members,
    pub(super) columns: Vec<i64>,
}

impl Native {
    /// The stand-in with the table of now.
    pub(super) fn ready(
        &mut self,
        name: &str,
        config: &[u8],
        seed: u64,
        table: &Table,
        descriptor: &Descriptor,
    ) -> Result<&mut dyn Balancer, Fault> {
        let balancer = match &mut self.balancer {
            Some(balancer) => balancer,
            none => none.insert(native(name, config, seed)?),
        };
        if !self.current {
            let columns = table.columns_for(&balancer.describe().features, &descriptor.features);
            balancer.replace(table.revision, table.members.slots(), &columns)?;
            self.current = true;
        }
        Ok(balancer.as_mut())
    }

    pub(super) fn patch(&mut self, feature: Feature, slots: &[Slot], values: &[i64]) {
        let Some(balancer) = self.balancer.as_mut().filter(|_| self.current) else { return };
        let wants = balancer.describe().features.contains(&feature);
        if wants && balancer.patch(feature, slots, values).is_err() {
            self.current = false;
        }
    }

    pub(super) fn observe(&mut self, ended: &[Observation]) -> Result<(), Fault> {
        match self.balancer.as_mut().filter(|_| self.current) {
            Some(balancer) => balancer.observe(ended),
            None => Ok(()),
        }
    }
}

/// The native reference of this name; round-robin where there is none or it refuses
/// the configuration that the component took.
fn native(name: &str, config: &[u8], seed: u64) -> Result<Box<dyn Balancer>, Fault> {
    quorate_policy::by_name(name, config, seed)
        .or_else(|| quorate_policy::by_name(LAST_RESORT, &[], seed))
        .ok_or_else(|| Fault::Internal(format!("there is no native policy `{LAST_RESORT}`")))
}

impl Table {
    pub(super) fn replace(&mut self, revision: u64, slots: &[Slot], columns: &[i64]) {
        self.revision = revision;
        self.members.replace(slots);
        self.columns.clear();
        self.columns.extend_from_slice(columns);
    }

    pub(super) fn patch(&mut self, place: u32, slots: &[Slot], values: &[i64]) {
        let members = self.members.slots();
        let column = usize::try_from(place).unwrap_or(usize::MAX).saturating_mul(members.len());
        if slots == members {
            self.columns[column..column + members.len()].copy_from_slice(values);
            return;
        }
        for (slot, value) in slots.iter().zip(values) {
            if let Ok(seat) = members.binary_search(slot) {
                self.columns[column + seat] = *value;
            }
        }
    }

    /// The columns in another order; a feature that the table lacks has its neutral value.
    pub(super) fn columns_for(&self, wanted: &[Feature], had: &[Feature]) -> Vec<i64> {
        let length = self.members.len();
        let mut columns = Vec::with_capacity(wanted.len() * length);
        for feature in wanted {
            match had.iter().position(|one| one == feature) {
                Some(place) => {
                    columns.extend_from_slice(&self.columns[place * length..(place + 1) * length]);
                }
                None => columns.extend(std::iter::repeat_n(neutral(*feature), length)),
            }
        }
        columns
    }
}

const fn neutral(feature: Feature) -> i64 {
    match feature {
        Feature::InFlight | Feature::Load | Feature::LatencyUs => 0,
        Feature::SuccessPpm => 1_000_000,
        Feature::Weight | Feature::Capacity => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_feature_and_neutral_where_missing() {
        let mut table = Table::default();
        table.replace(1, &[3, 9], &[10, 11, 20, 21]);
        table.patch(1, &[9], &[99]);
        table.patch(0, &[3, 9], &[12, 13]);
        let had = [Feature::InFlight, Feature::LatencyUs];
        let wanted = [Feature::LatencyUs, Feature::SuccessPpm, Feature::InFlight];
        assert_eq!(table.columns_for(&wanted, &had), [20, 99, 1_000_000, 1_000_000, 12, 13]);
    }
}
