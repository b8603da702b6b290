//! `quorate sim` as a user meets it: a seed that fails prints the command that shows it again.

#![expect(clippy::expect_used, reason = "a scenario that cannot go on must stop")]

use std::process::Command;

use serde_json::Value;

/// How a command ended: its code, what it printed, what it remarked.
fn quorate(arguments: &[&str]) -> (i32, String, String) {
    let run = Command::new(env!("CARGO_BIN_EXE_quorate")).args(arguments).env_clear().output();
    let output = run.expect("it starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

fn json(out: &str) -> Value {
    serde_json::from_str(out).expect("one JSON document")
}

#[test]
fn seeds_run_under_the_flags_they_are_given() {
    let flags = ["--rate", "20", "--seconds", "5", "--nodes", "5", "-o", "json"];
    let run: Vec<&str> = ["sim", "run", "--seeds", "1..3"].into_iter().chain(flags).collect();
    let (code, out, err) = quorate(&run);
    assert_eq!((code, err.as_str()), (0, ""));
    let ran = json(&out);
    assert_eq!((&ran["seeds"], &ran["violations"]), (&Value::from(2), &Value::Array(Vec::new())));
    assert!(ran["acknowledgements"].as_u64().is_some_and(|acks| acks > 20), "{ran}");

    let replay: Vec<&str> = ["sim", "replay", "1"].into_iter().chain(flags).collect();
    let [first, second] = [(); 2].map(|()| json(&quorate(&replay).1));
    assert_eq!(first, second, "the same seed under the same flags is the same run");
    assert!(first["trace"].as_array().is_some_and(|lines| lines.len() > 1_000));
}

#[test]
fn a_failing_seed_prints_the_command_that_shows_it_again() {
    let run = "sim run --seeds 1..2 --seconds 10 --fault double-completion=20 -o json";
    let (code, out, err) = quorate(&run.split(' ').collect::<Vec<_>>());
    let again = "quorate sim replay 1 --seconds 10 --fault double-completion=20";
    assert_eq!(code, 7);
    assert!(err.contains(again), "{err}");
    let violation = json(&out)["violations"][0].clone();
    assert_eq!(violation["replay"], again);
    let replay = format!("{again} -o json");
    let (code, out, _err) = quorate(&replay.split(' ').skip(1).collect::<Vec<_>>());
    assert_eq!(code, 7);
    assert_eq!(json(&out)["complaints"], violation["complaints"]);
}

#[test]
fn an_unknown_fault_is_refused_by_name() {
    let (code, out, err) = quorate(&["sim", "replay", "1", "--fault", "late-vote"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("late-vote") && err.contains("early-vote"), "{err}");
}
