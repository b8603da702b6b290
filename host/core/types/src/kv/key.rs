//! Keys and prefixes: what they may look like, and which group they belong to.

use crate::door::Refusal;
use crate::id::GroupId;
use crate::kv::LeaseId;
use crate::layout::Layout;
use crate::limits::{KEY_BYTES_MAX, NAMESPACE_BYTES_MAX};

/// The first segment of a key or a prefix.
pub fn segment(key: &str) -> &str {
    key.split_once('/').map_or(key, |(first, _rest)| first)
}

/// The group that holds what is under this first segment of the namespace.
pub fn group_of(layout: Layout, namespace: &str, segment: &str) -> GroupId {
    layout.of_key(&[namespace.as_bytes(), segment.as_bytes()])
}

/// The group that keeps a lease. One that is of no shard of the cluster is missed in the first.
pub fn group_of_lease(layout: Layout, lease: LeaseId) -> GroupId {
    let keeps = GroupId(u32::from(lease.shard()));
    let mut shards = layout.shards();
    let first = shards.clone().next().unwrap_or(GroupId::SYSTEM);
    shards.find(|shard| *shard == keeps).unwrap_or(first)
}

/// Whether a namespace can hold keys.
///
/// # Errors
/// `Invalid` or `TooLarge`.
pub fn check_namespace(namespace: &str) -> Result<(), Refusal> {
    if namespace.is_empty() {
        return Err(Refusal::Invalid("the namespace is empty".to_owned()));
    }
    bounded("the namespace", namespace, NAMESPACE_BYTES_MAX)
}

/// Whether this is a key (or the name of a seat).
///
/// # Errors
/// `Invalid` or `TooLarge`.
pub fn check_key(key: &str) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::Invalid("the key is empty".to_owned()));
    }
    bounded("the key", key, KEY_BYTES_MAX)?;
    if key.split('/').any(str::is_empty) {
        return Err(Refusal::Invalid(format!(
            "key `{}` has an empty segment; write it without a `/` at its ends and without `//`",
            shown(key)
        )));
    }
    Ok(())
}

/// Whether a range can go by this prefix: it must name its first segment whole, `app/` or longer.
///
/// # Errors
/// `Across` where it does not, else `Invalid` or `TooLarge`.
pub fn check_prefix(prefix: &str) -> Result<(), Refusal> {
    bounded("the prefix", prefix, KEY_BYTES_MAX)?;
    match prefix.split_once('/') {
        None => Err(Refusal::Across(format!(
            "the prefix `{prefix}` covers more than one first segment; write `{}/` or longer",
            if prefix.is_empty() { "SEGMENT" } else { prefix }
        ))),
        Some((first, rest)) if first.is_empty() || rest.contains("//") || rest.starts_with('/') => {
            Err(Refusal::Invalid(format!("the prefix `{}` has an empty segment", shown(prefix))))
        }
        Some(_sound) => Ok(()),
    }
}

fn shown(text: &str) -> String {
    crate::text::clipped(text.to_owned(), 128)
}

fn bounded(what: &str, text: &str, limit: usize) -> Result<(), Refusal> {
    if text.len() <= limit {
        return Ok(());
    }
    let bytes = |count| u64::try_from(count).unwrap_or(u64::MAX);
    Err(Refusal::TooLarge { what: what.to_owned(), got: bytes(text.len()), limit: bytes(limit) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_path_without_empty_segments() {
        for sound in ["a", "app/config", "app/ä b/.."] {
            assert_eq!(check_key(sound), Ok(()), "{sound}");
        }
        for wrong in ["", "/a", "a/", "a//b", "/"] {
            assert!(matches!(check_key(wrong), Err(Refusal::Invalid(_))), "{wrong}");
        }
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        assert!(matches!(check_key(&long), Err(Refusal::TooLarge { .. })));
        assert_eq!(check_key(&long[1..]), Ok(()));
    }

    #[test]
    fn a_prefix_stays_within_one_first_segment() {
        for sound in ["app/", "app/con", "app/a/"] {
            assert_eq!(check_prefix(sound), Ok(()), "{sound}");
        }
        for across in ["", "app"] {
            assert!(matches!(check_prefix(across), Err(Refusal::Across(_))), "{across}");
        }
        for wrong in ["/", "/a", "a//"] {
            assert!(matches!(check_prefix(wrong), Err(Refusal::Invalid(_))), "{wrong}");
        }
        assert_eq!((segment("app/a/b"), segment("app")), ("app", "app"));
    }

    #[test]
    fn a_namespace_is_named_and_short() {
        let long = "n".repeat(NAMESPACE_BYTES_MAX + 1);
        assert!(matches!(check_namespace(""), Err(Refusal::Invalid(_))));
        assert!(matches!(
            check_namespace(&long),
            Err(Refusal::TooLarge { got: 129, limit: 128, .. })
        ));
        assert_eq!(check_namespace(&long[1..]), Ok(()));
    }

    #[test]
    fn a_refusal_names_the_key_as_far_as_people_read() {
        let told = check_key("app//a").map_err(|refusal| refusal.to_string());
        assert!(told.is_err_and(|told| told.contains("`app//a`")));
        let long = format!("{}//", "k".repeat(500));
        let told = check_key(&long).map_err(|refusal| refusal.to_string());
        assert!(told.is_err_and(|told| told.contains("kkk") && told.len() < 300));
    }

    #[test]
    fn a_lease_of_no_shard_is_asked_for_in_the_first() {
        let three = Layout::new(3).expect("a number of shards");
        let of = |layout, shard| group_of_lease(layout, LeaseId::new(shard, 1)).0;
        assert_eq!([1, 2, 3, 4, 0].map(|shard| of(three, shard)), [1, 2, 3, 1, 1]);
        assert_eq!([0, 1].map(|shard| of(Layout::ONE, shard)), [0, 0]);
        let spread: std::collections::BTreeSet<_> =
            ["a", "b", "c", "d", "e", "f"].map(|first| group_of(three, "n", first)).into();
        assert_eq!(spread.len(), 3, "first segments spread over the shards");
        assert_eq!(group_of(three, "n", "a"), three.of_key(&[b"n", b"a"]));
    }
}
