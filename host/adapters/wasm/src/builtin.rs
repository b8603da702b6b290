//! The components that ship inside the binary; `build.rs` makes them from `plugins/`.

/// What a component is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// It chooses endpoints.
    Balancer,
    /// It does work.
    Agent,
}

/// One component.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// Its name, which it also gives in `describe`.
    pub name: &'static str,
    /// What it is for.
    pub world: World,
    /// Its bytes.
    pub bytes: &'static [u8],
}

macro_rules! builtin {
    ($name:literal, $world:ident) => {
        Builtin {
            name: $name,
            world: World::$world,
            bytes: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")),
        }
    };
}

static BUILTINS: [Builtin; 6] = [
    builtin!("round-robin", Balancer),
    builtin!("least-used", Balancer),
    builtin!("load-aware", Balancer),
    builtin!("peak-ewma", Balancer),
    builtin!("code-indexer", Agent),
    builtin!("code-searcher", Agent),
];

/// All of them.
pub fn all() -> &'static [Builtin] {
    &BUILTINS
}

/// The one of this name.
pub fn find(name: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|builtin| builtin.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outline;

    #[test]
    fn each_is_a_small_component_that_imports_types_or_what_agents_are_granted() {
        for builtin in all() {
            assert!(builtin.bytes.len() < 64 * 1024, "{}: {}", builtin.name, builtin.bytes.len());
            let imports = Outline::read(builtin.bytes).unwrap().imports;
            let granted: &[&str] = match builtin.world {
                World::Balancer => &["quorate:common/types@0.1.0-dev"],
                World::Agent => &["quorate:common/types@0.1.0-dev", "quorate:host/blobs@0.1.0-dev"],
            };
            assert_eq!(imports, granted, "{}", builtin.name);
        }
        assert!(find("peak-ewma").is_some());
        assert!(find("no-such").is_none());
    }
}
