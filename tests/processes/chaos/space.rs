//! Network namespaces, one a node, made and taken away by `ip`. A thread that enters
//! one stays there, so what must happen inside happens in a thread of its own.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::mounts::run;

/// What the names of all of them begin with; the process that made them comes next.
const PREFIX: &str = "quorate-";

/// A namespace; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Space {
    name: String,
}

impl Space {
    /// Makes the namespace of this node.
    pub(crate) fn new(node: usize) -> Result<Self, String> {
        let space = Self { name: format!("{}{node}", Self::prefix()) };
        run("ip", &["netns", "add", &space.name])?;
        space.ip("link set lo up")?;
        Ok(space)
    }

    /// What the names of this run begin with.
    pub(crate) fn prefix() -> String {
        format!("{PREFIX}{}-", std::process::id())
    }

    /// Takes away what runs that were killed have left.
    pub(crate) fn sweep() {
        let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
            let Some((owner, _node)) = owner else { continue };
            if !PathBuf::from(format!("/proc/{owner}")).exists() {
                run("ip", &["netns", "del", &name]).ok();
            }
        }
    }

    /// Runs `ip` on what is in it.
    pub(crate) fn ip(&self, words: &str) -> Result<(), String> {
        let words: Vec<&str> = ["-n", &self.name].into_iter().chain(words.split(' ')).collect();
        run("ip", &words)
    }

    /// Does something inside, in a thread that ends with it.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("it was made");
        std::thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(file.as_fd(), kind).expect("who made it may enter it");
            drop(file);
            act()
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        run("ip", &["netns", "del", &self.name]).ok();
    }
}
