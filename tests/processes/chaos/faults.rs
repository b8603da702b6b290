//! What befalls the cluster, done to it and undone. Each act gives the moment it
//! began, or why it could not be done; afterwards every node runs, if not yet ready.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quorate_types::history::{Asked, End};
use quorate_types::rng::Rng;
use tokio::time::sleep;

use crate::air::Way;
use crate::history::caller::Caller;
use crate::mounts::signal;
use crate::plan::{Kind, below, shuffle};
use crate::stage::{WITHIN, said};
use crate::town::Town;
use crate::work::Workers;

/// How late frames are on half of the links.
const LATE_MS: u16 = 500;
/// How many of a thousand frames are lost.
const LOST: u16 = 100;
/// What is left free on a full disk is less than a node needs for anything.
const FILL_BYTES: usize = 1 << 20;
/// A value that uses up a segment in a few hundred puts, below `KV_VALUE_BYTES_MAX`.
const LARGE_BYTES: usize = 60 << 10;
/// So long they may take.
const USE_UP_MAX: Duration = Duration::from_secs(10);
/// What a node says when it finds no space.
const FULL: &str = "the disk is full: work is refused until there is space again";

type Done = Result<Instant, String>;

/// Does it, for a while that is drawn, and undoes it.
pub(crate) async fn befall(
    town: &mut Town,
    workers: &mut Workers,
    kind: Kind,
    rng: &mut Rng,
) -> Done {
    let dwell = Duration::from_millis(500 + rng.below(1_000));
    match kind {
        Kind::FollowerKilled => {
            let victim = follower(town, rng).await?;
            kill(town, &[victim], dwell).await
        }
        Kind::LeaderKilled => {
            let victim = leader(town).await?;
            kill(town, &[victim], dwell).await
        }
        Kind::LeadersInCascade => cascade(town, dwell).await,
        Kind::LeaderPaused => {
            let pid = town.pid(leader(town).await?);
            let at = Instant::now();
            signal(pid, "STOP");
            sleep(dwell).await;
            signal(pid, "CONT");
            Ok(at)
        }
        Kind::OneWay => {
            let (leader, other) = (leader(town).await?, follower(town, rng).await?);
            let link = if rng.below(2) == 0 { (leader, other) } else { (other, leader) };
            spoil(town, &[link], Way::Cut, dwell).await
        }
        Kind::Isolated => {
            let victim = below(rng, town.nodes);
            let mut links = town.air.links();
            links.retain(|(from, to)| *from == victim || *to == victim);
            spoil(town, &links, Way::Cut, dwell).await
        }
        Kind::HalfLate => {
            let mut links = town.air.links();
            shuffle(&mut links, rng);
            links.truncate(links.len() / 2);
            spoil(town, &links, Way::Late(LATE_MS), dwell).await
        }
        Kind::Lossy => {
            let links = town.air.links();
            spoil(town, &links, Way::Lossy(LOST), dwell).await
        }
        Kind::AgentsKilled => {
            let at = Instant::now();
            workers.kill_some(rng);
            sleep(dwell).await;
            workers.fill();
            Ok(at)
        }
        Kind::SyncFails => sync_fails(town, rng).await,
        Kind::DiskFull => disk_full(town, dwell).await,
        Kind::PowerCut => {
            let at = Instant::now();
            cut_power(town).map(|()| at)
        }
        Kind::SyncLies => sync_lies(town, dwell).await,
        Kind::LeaderMoved => {
            let to = town.id(follower(town, rng).await?).0;
            let at = Instant::now();
            let (code, said) = town.quorate(format!("cluster leader transfer --to {to}")).await;
            if code == Some(0) { Ok(at) } else { Err(format!("it was refused: {said}")) }
        }
        Kind::Restarted => {
            let victim = below(rng, town.nodes);
            let at = Instant::now();
            signal(town.pid(victim), "TERM");
            let status = ended(town, victim).await?;
            assert!(status.success(), "told to stop, node {} ended with {status}", victim + 1);
            start(town, victim);
            Ok(at)
        }
    }
}

async fn leader(town: &Town) -> Result<usize, String> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match town.leader().await {
            Some(leader) => return Ok(leader),
            None if Instant::now() >= until => return Err("no leader was agreed on".to_owned()),
            None => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn follower(town: &Town, rng: &mut Rng) -> Result<usize, String> {
    let leader = leader(town).await?;
    Ok((leader + 1 + below(rng, town.nodes - 1)) % town.nodes)
}

fn start(town: &mut Town, at: usize) {
    town.cluster.start_node(at).expect("it starts");
}

async fn kill(town: &mut Town, victims: &[usize], dwell: Duration) -> Done {
    let mut at = None;
    for victim in victims {
        let killed = town.cluster.kill_node(*victim).expect("it ran");
        at.get_or_insert(killed);
    }
    sleep(dwell).await;
    victims.iter().for_each(|victim| start(town, *victim));
    at.ok_or_else(|| "nobody to kill".to_owned())
}

/// Kills whoever leads, again and again, down to the smallest quorum.
async fn cascade(town: &mut Town, dwell: Duration) -> Done {
    let most = (town.nodes - 1) / 2;
    if most < 2 {
        return Err(format!("{} nodes bear the loss of {most}", town.nodes));
    }
    let mut dead = Vec::new();
    let mut at = None;
    let mut why = None;
    while dead.len() < most {
        match leader(town).await {
            Ok(leader) if dead.contains(&leader) => sleep(Duration::from_millis(10)).await,
            Ok(leader) => {
                let killed = town.cluster.kill_node(leader).expect("it ran");
                at.get_or_insert(killed);
                dead.push(leader);
            }
            Err(error) => {
                why = Some(error);
                break;
            }
        }
    }
    sleep(dwell).await;
    dead.iter().for_each(|victim| start(town, *victim));
    match why {
        Some(why) => Err(format!("after {} of {most}: {why}", dead.len())),
        None => at.ok_or_else(|| "nobody to kill".to_owned()),
    }
}

async fn spoil(town: &Town, links: &[(usize, usize)], way: Way, dwell: Duration) -> Done {
    let at = Instant::now();
    links.iter().for_each(|(from, to)| town.air.set(*from, *to, way));
    sleep(dwell).await;
    town.air.clear();
    Ok(at)
}

async fn ended(town: &mut Town, at: usize) -> Result<std::process::ExitStatus, String> {
    let until = Instant::now() + WITHIN;
    loop {
        if let Some(status) = town.ended(at) {
            return Ok(status);
        }
        if Instant::now() >= until {
            return Err(format!("node {} did not end", at + 1));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// A tracer of a running process that turns its system calls into something else.
struct Tracer(Child);

impl Tracer {
    fn on(pid: u32, inject: &str) -> Self {
        let pid = pid.to_string();
        let inject = format!("inject={inject}");
        let child = Command::new("strace")
            .args(["-qq", "-f", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &inject])
            .args(["-p", &pid])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("it was there a moment ago"))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Told so, it lets go of what it traces.
        signal(self.0.id(), "TERM");
        self.0.wait().ok();
    }
}

/// A node whose sync failed must say so and end, and is as good as new when it starts again.
async fn sync_fails(town: &mut Town, rng: &mut Rng) -> Done {
    let victim = below(rng, town.nodes);
    let at = Instant::now();
    let tracer = Tracer::on(town.pid(victim), "fsync,fdatasync:error=EIO");
    let status = ended(town, victim).await;
    drop(tracer);
    let status = status?;
    assert!(!status.success(), "after a failed sync node {} ended as if well", victim + 1);
    start(town, victim);
    Ok(at)
}

/// No longer than until the node finds that there is no space: what it had allocated before is
/// used up by one large value, put again and again.
async fn disk_full(town: &mut Town, dwell: Duration) -> Done {
    let last = town.nodes - 1;
    let log = town.cluster.log_file(last).to_owned();
    let noticed = || said(&log, FULL).len();
    let before = noticed();
    let ballast = town.small.point.join("ballast");
    let at = Instant::now();
    let mut file = std::fs::File::create(&ballast).map_err(|error| error.to_string())?;
    let full = loop {
        if let Err(error) = std::io::Write::write_all(&mut file, &[7; FILL_BYTES]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    let mut caller = Caller::new(&town.cluster.urls(), town.cluster.token(), 0, USE_UP_MAX);
    let large = Asked::Put("x".repeat(LARGE_BYTES));
    while noticed() == before && at.elapsed() < USE_UP_MAX {
        for _put in 0..8 {
            // Refused or not: the log says when it is enough.
            let _end: End = caller.ask("filler/large", &large).await;
        }
    }
    sleep(dwell).await;
    std::fs::remove_file(&ballast).expect("ours");
    if let Some(status) = town.ended(last) {
        return Err(format!("for want of space the node ended with {status}: {}", log.display()));
    }
    if noticed() == before { Err("the node did not notice".to_owned()) } else { Ok(at) }
}

/// What was not synced is gone from the node on the image, which starts again.
fn cut_power(town: &mut Town) -> Result<(), String> {
    let victim = town.nodes - 2;
    std::fs::write(town.image.point.join("witness"), at_random()).expect("writable");
    signal(town.pid(victim), "STOP");
    let copy = town.image.copy_image();
    town.cluster.kill_node(victim).expect("it ran");
    let before = std::fs::read(town.image.point.join("witness")).expect("written");
    town.image.come_back_as(copy);
    let after = std::fs::read(town.image.point.join("witness")).unwrap_or_default();
    assert_ne!(before, after, "what was not synced must be gone");
    start(town, victim);
    Ok(())
}

/// A disk that says it has synced, and has not when the power goes: the others know better than
/// the node what it had, refuse it, and another takes its place.
async fn sync_lies(town: &mut Town, dwell: Duration) -> Done {
    let victim = town.nodes - 2;
    let log = town.cluster.log_file(victim).to_owned();
    let at = Instant::now();
    let tracer = Tracer::on(town.pid(victim), "fsync,fdatasync:retval=0");
    sleep(dwell).await;
    let cut = cut_power(town);
    drop(tracer);
    cut?;
    let until = Instant::now() + WITHIN;
    while Instant::now() < until {
        if town.ended(victim).is_some() {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let told = text.lines().rev().take(20).any(|line| line.contains("older than the node"));
            assert!(told, "it must be refused by name: {}", log.display());
            return town.replace(victim).await.map(|()| at);
        }
        if town.cluster.wait_ready(victim, Duration::from_millis(100)).await.is_ok() {
            return Err("the disk had kept everything".to_owned());
        }
    }
    Err("the node neither served nor ended".to_owned())
}

/// Words that no earlier witness had.
fn at_random() -> String {
    format!("{:?}", std::time::SystemTime::now())
}
