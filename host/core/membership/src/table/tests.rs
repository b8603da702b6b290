use super::*;
use proptest::prelude::*;

const LIFE: Incarnation = Incarnation(5);

fn delta<'b>(
    incarnation: Incarnation,
    since: u64,
    upto: u64,
    records: Vec<Record<'b>>,
) -> Delta<'b> {
    Delta { owner: 1, incarnation: incarnation.0, since, upto, records }
}

fn record(counter: u64, id: u64, value: Option<&[u8]>) -> Record<'_> {
    Record { counter, kind: 4, id, value }
}

/// What an owner wrote, and deltas of it as peers may see them: taken at any moment, after any
/// mark, each possibly twice, in any order.
#[derive(Debug)]
struct History {
    owner: Table,
    deltas: Vec<OwnedDelta>,
}

#[derive(Clone, Debug)]
struct OwnedDelta {
    incarnation: Incarnation,
    since: u64,
    upto: u64,
    records: Vec<(u64, Key, Option<Vec<u8>>)>,
}

impl OwnedDelta {
    fn of(table: &Table, since: u64) -> Self {
        let owned =
            |record: Record<'_>| (record.counter, record.key(), record.value.map(<[u8]>::to_vec));
        let Version { incarnation, counter } = table.seen();
        let records = table.after(since).map(owned).collect();
        Self { incarnation, since, upto: counter, records }
    }

    fn borrowed(&self) -> Delta<'_> {
        let borrowed =
            |(counter, key, value): &(u64, Key, Option<Vec<u8>>)| (*counter, *key, value.is_some());
        let records = self.records.iter().map(|owned| {
            let (counter, key, _) = borrowed(owned);
            Record { counter, kind: key.kind, id: key.id, value: owned.2.as_deref() }
        });
        delta(self.incarnation, self.since, self.upto, records.collect())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u8),
    Delete(u64),
    Rebirth,
    Take(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u64, any::<u8>()).prop_map(|(id, byte)| Step::Write(id, byte)),
        1 => (0..6_u64).prop_map(Step::Delete),
        1 => Just(Step::Rebirth),
        3 => (0..20_u64).prop_map(Step::Take),
    ]
}

fn history(steps: Vec<Step>) -> History {
    let mut owner = Table::new(LIFE);
    let mut deltas = Vec::new();
    for step in steps {
        match step {
            Step::Write(id, byte) => owner.write(Key::extension(id), Some(&[byte])).unwrap(),
            Step::Delete(id) => owner.write(Key::extension(id), None).unwrap(),
            Step::Rebirth => owner.begin(Incarnation(owner.incarnation().0 + 1)),
            Step::Take(since) => {
                deltas.push(OwnedDelta::of(&owner, since.min(owner.seen().counter)));
            }
        }
    }
    // An owner that never spoke in its life is nothing to compare with.
    owner.write(Key::PRESENCE, Some(b"here")).unwrap();
    deltas.push(OwnedDelta::of(&owner, 0));
    History { owner, deltas }
}

fn merged(deltas: &[OwnedDelta]) -> Table {
    let mut table = Table::default();
    for delta in deltas {
        assert_eq!(table.check(&delta.borrowed(), Origin::Relay), Ok(()));
        table.merge(&delta.borrowed());
    }
    table
}

proptest! {
    #[test]
    fn any_order_and_repetition_of_deltas_ends_in_the_owners_table(
        steps in prop::collection::vec(step(), 0..60),
        order in any::<u64>(),
    ) {
        let History { owner, mut deltas } = history(steps);
        deltas.extend(deltas.clone());
        let mut rng = quorate_types::rng::Rng::new(order);
        for place in (1..deltas.len()).rev() {
            let other = rng.below(u64::try_from(place).unwrap() + 1);
            deltas.swap(place, usize::try_from(other).unwrap());
        }
        let there = merged(&deltas);
        deltas.reverse();
        let back = merged(&deltas);
        prop_assert_eq!(&there.records, &owner.records);
        prop_assert_eq!(&back.records, &owner.records);
        prop_assert_eq!(there.seen(), owner.seen());
        prop_assert_eq!(&there, &back);
    }

    #[test]
    fn a_mark_never_claims_what_is_not_there(
        steps in prop::collection::vec(step(), 0..60),
        lost in any::<u64>(),
    ) {
        let History { owner, mut deltas } = history(steps);
        let mut rng = quorate_types::rng::Rng::new(lost);
        deltas.retain(|_delta| !rng.chance(400_000));
        let mut table = merged(&deltas);
        // Whatever was lost, what follows the mark completes the table.
        let since = if table.incarnation() == owner.incarnation() { table.seen().counter } else { 0 };
        table.merge(&OwnedDelta::of(&owner, since).borrowed());
        prop_assert_eq!(&table.records, &owner.records);
    }
}

#[test]
fn a_lost_delta_leaves_the_mark_behind_and_later_records_still_count() {
    let mut table = Table::default();
    table.merge(&delta(LIFE, 0, 2, vec![record(1, 1, Some(b"a")), record(2, 2, Some(b"b"))]));
    table.merge(&delta(LIFE, 3, 4, vec![record(4, 1, Some(b"d"))]));
    assert_eq!(table.seen().counter, 2, "the third write is missing");
    assert_eq!(table.value(Key::extension(1)), Some(&b"d"[..]));
    table.merge(&delta(LIFE, 2, 4, vec![record(3, 3, Some(b"c")), record(4, 1, Some(b"d"))]));
    assert_eq!(table.seen().counter, 4);
}

#[test]
fn a_new_life_drops_what_the_old_one_said_and_an_old_one_says_nothing_more() {
    let mut table = Table::default();
    table.merge(&delta(LIFE, 0, 1, vec![record(1, 1, Some(b"old"))]));
    let newer = Incarnation(LIFE.0 + 1);
    let changed = table.merge(&delta(newer, 0, 1, vec![record(1, 2, Some(b"new"))]));
    assert_eq!(changed, BTreeSet::from([Key::extension(1), Key::extension(2)]));
    assert_eq!(table.value(Key::extension(1)), None);
    assert!(table.merge(&delta(LIFE, 1, 2, vec![record(2, 1, Some(b"ghost"))])).is_empty());
}

#[test]
fn what_no_owner_can_have_written_is_refused() {
    let mut table = Table::default();
    table.merge(&delta(LIFE, 0, 7, vec![record(7, 1, Some(b"a"))]));
    let fault = |delta: &Delta<'_>| table.check(delta, Origin::Relay).unwrap_err();

    let far = 8 + COUNTER_AHEAD_MAX;
    let ahead = DeltaFault::CounterAhead { counter: far, known: 7 };
    assert_eq!(fault(&delta(LIFE, 7, 8, vec![record(far, 1, None)])), ahead);
    assert_eq!(fault(&delta(LIFE, 7, far, vec![])), ahead);

    let vast = Incarnation(LIFE.0 + INCARNATION_AHEAD_MAX + 1);
    let ahead = DeltaFault::IncarnationAhead { incarnation: vast, known: LIFE };
    assert_eq!(fault(&delta(vast, 0, 1, vec![])), ahead);
    assert_eq!(table.check(&delta(vast, 0, 1, vec![]), Origin::Owner), Ok(()));
    assert!(table.check(&delta(INCARNATION_MAX, 0, 1, vec![]), Origin::Owner).is_err());

    let backward = vec![record(9, 1, None), record(9, 2, None)];
    assert_eq!(fault(&delta(LIFE, 7, 9, backward)), DeltaFault::Disorder);
    assert_eq!(fault(&delta(LIFE, 7, 9, vec![record(7, 1, None)])), DeltaFault::Disorder);
    assert_eq!(fault(&delta(LIFE, 7, 6, vec![])), DeltaFault::Disorder);

    let large = vec![0; VALUE_BYTES_MAX + 1];
    let too_large = DeltaFault::ValueTooLarge { bytes: large.len() };
    assert_eq!(fault(&delta(LIFE, 7, 8, vec![record(8, 1, Some(&large))])), too_large);

    let limit = u64::try_from(KEYS_MAX).unwrap();
    let many = (0..limit).map(|id| record(8 + id, 100 + id, None)).collect();
    assert_eq!(fault(&delta(LIFE, 7, 8, many)), DeltaFault::OwnerTooLarge);
}

#[test]
fn an_owner_keeps_within_the_limits_that_others_hold_it_to() {
    let mut owner = Table::new(LIFE);
    let large = vec![0; VALUE_BYTES_MAX];
    let mut written = 0;
    let refused = loop {
        match owner.write(Key::extension(written), Some(&large)) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, PublishError::TooManyBytes);
    assert_eq!(written, 1024);
    let whole = OwnedDelta::of(&owner, 0);
    assert_eq!(Table::default().check(&whole.borrowed(), Origin::Owner), Ok(()));
    owner.write(Key::extension(0), None).unwrap();
    owner.write(Key::extension(written), Some(&large)).unwrap();
}

#[test]
fn an_owner_knows_its_own_words() {
    let mut owner = Table::new(LIFE);
    owner.write(Key::extension(1), Some(b"a")).unwrap();
    owner.write(Key::extension(1), Some(b"b")).unwrap();
    let belied = |delta: &Delta<'_>| owner.is_belied_by(delta);
    assert!(!belied(&delta(LIFE, 0, 1, vec![record(1, 1, Some(b"a"))])), "it did say that");
    assert!(!belied(&delta(LIFE, 0, 2, vec![record(2, 1, Some(b"b"))])));
    assert!(belied(&delta(LIFE, 0, 2, vec![record(2, 2, Some(b"x"))])), "a key it never wrote");
    assert!(belied(&delta(LIFE, 2, 3, vec![])), "a counter it never reached");
    assert!(belied(&delta(Incarnation(6), 0, 0, vec![])), "a life it never had");
    assert!(!belied(&delta(Incarnation(4), 0, 9, vec![record(9, 9, None)])), "a life long over");
}
