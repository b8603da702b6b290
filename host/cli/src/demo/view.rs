//! The live view: a few lines on standard error, drawn over themselves.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::chaos;
use super::stage::Stage;

const DRAW_EVERY: Duration = Duration::from_millis(250);
const BAR: usize = 40;

/// Draws until dropped. Does nothing where nobody looks.
pub(crate) async fn show(stage: Arc<Stage>, total: usize, headless: bool) {
    if headless || !stderr().is_terminal() {
        return std::future::pending().await;
    }
    let begun = Instant::now();
    let mut last = (begun, 0);
    let mut lines = 0;
    loop {
        let leader = tokio::time::timeout(DRAW_EVERY, chaos::leader(&stage)).await;
        let leader = match leader {
            Ok(Ok(Some(node))) => node.to_string(),
            Ok(Ok(None) | Err(_)) | Err(_) => "none".to_owned(),
        };
        let heard = stage.record().heard();
        let now = Instant::now();
        let rate = per_second(heard - last.1.min(heard), now - last.0);
        last = (now, heard);
        draw(&text(&stage, total, &leader, rate, now - begun), &mut lines);
        tokio::time::sleep(DRAW_EVERY).await;
    }
}

/// What is shown at one moment: progress, leader, policy, throughput, counts, and what happens.
fn text(stage: &Stage, total: usize, leader: &str, rate: u128, ran: Duration) -> [String; 4] {
    let (submitted, heard, requeued, policy) = {
        let record = stage.record();
        let policy = record.policies.last_key_value().map(|(_epoch, name)| name.clone());
        (record.submitted(), record.heard(), record.requeued, policy.unwrap_or_default())
    };
    let filled = BAR * heard.min(total) / total.max(1);
    let calls = stage.tally.calls.load(Ordering::Relaxed);
    [
        format!("[{}{}] {heard}/{total} indexed", "#".repeat(filled), " ".repeat(BAR - filled)),
        format!("leader {leader}   policy {policy}   {rate}/s   {} s", ran.as_secs()),
        format!("submitted {submitted}   requeued {requeued}   calls {calls}"),
        stage.noted(),
    ]
}

fn per_second(count: usize, span: Duration) -> u128 {
    let count = u128::try_from(count).unwrap_or(0);
    count * 1000 / span.as_millis().max(1)
}

fn draw(text: &[String], lines: &mut usize) {
    let mut frame = String::new();
    if *lines > 0 {
        frame += &format!("\x1b[{lines}A");
    }
    for line in text {
        frame += &format!("\r\x1b[2K{line}\n");
    }
    *lines = text.len();
    // A terminal that went away is no reason to end the demo.
    stderr().write_all(frame.as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate_client::{Client, ClientOptions};
    use quorate_types::{EventKind, PolicyEpoch, TaskId, TaskState};

    use super::*;

    #[test]
    fn the_view_shows_progress_leader_policy_and_what_happens() {
        let nobody = ["http://127.0.0.1:1".to_owned()];
        let stage = Stage::new(Client::new(ClientOptions::new(nobody, None)).expect("a client"));
        for task in 0..2 {
            stage.record().hear(&EventKind::Task {
                task: TaskId(task),
                namespace: "default".to_owned(),
                state: TaskState::Completed,
                agent: None,
                token: None,
                attempt: 1,
                policy_epoch: None,
                reason: None,
                result: None,
                labels: BTreeMap::new(),
            });
        }
        stage.record().policies.insert(PolicyEpoch(1), "round-robin".to_owned());
        stage.note("killed n1");
        let shown = text(&stage, 4, "n2", 7, Duration::from_secs(3));
        let bar = format!("[{}{}] 2/4 indexed", "#".repeat(BAR / 2), " ".repeat(BAR / 2));
        let counts = "submitted 0   requeued 0   calls 0";
        let state = "leader n2   policy round-robin   7/s   3 s";
        assert_eq!(shown, [bar.as_str(), state, counts, "killed n1"]);
    }
}
