//! Disks that fail on purpose: a file system in an image whose power can be cut, one
//! that is small, and syncs that lie or fail. All of it by programs of the machine,
//! and undone whichever way a test ends.

#![allow(dead_code, reason = "each test uses its own part")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where tests may not be skipped. The program under test does not read it.
const NO_SKIPS: &str = "QUORATE_CI";
/// An unmount waits for processes that have just been killed.
const UNMOUNT_WITHIN: Duration = Duration::from_secs(10);

/// What a test needs, or nothing with the reason printed.
pub(crate) fn need<T>(what: &str, found: Result<T, String>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(why) => {
            let forbidden = std::env::var_os(NO_SKIPS).is_some();
            assert!(!forbidden, "{what} is needed and cannot be had: {why}");
            eprintln!("skipped, for want of {what}: {why}");
            None
        }
    }
}

/// Runs a program of the machine to its end; what it said where it failed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("`{program}` does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program} {}`: {}", arguments.join(" "), said.trim()))
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// A mounted file system; unmounted when dropped.
pub(crate) struct Mount {
    /// Where it is seen.
    pub(crate) point: PathBuf,
    image: Option<PathBuf>,
    base: TempDir,
    cuts: u32,
}

impl Mount {
    fn new() -> Self {
        let base = tempfile::Builder::new().prefix("quorate-mount-").tempdir().expect("a folder");
        let point = base.path().join("mount");
        fs::create_dir(&point).expect("a folder");
        Self { point, image: None, base, cuts: 0 }
    }

    /// An ext4 in an image file, which writes what is not synced only after a minute.
    pub(crate) fn ext4(mebibytes: u64) -> Result<Self, String> {
        let mut mount = Self::new();
        let image = mount.base.path().join("image-0");
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(mebibytes << 20).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", text(&image)])?;
        mount.attach(image)?;
        Ok(mount)
    }

    /// A file system in memory, of this size.
    pub(crate) fn tmpfs(mebibytes: u64) -> Result<Self, String> {
        let mount = Self::new();
        let size = format!("size={mebibytes}m");
        run("mount", &["-t", "tmpfs", "-o", &size, "quorate-test", text(&mount.point)])?;
        Ok(mount)
    }

    fn attach(&mut self, image: PathBuf) -> Result<(), String> {
        run("mount", &["-o", "loop,commit=60,noatime", text(&image), text(&self.point)])?;
        self.image = Some(image);
        Ok(())
    }

    /// Makes all that lies there durable.
    pub(crate) fn sync(&self) {
        run("sync", &["-f", text(&self.point)]).expect("synced");
    }

    /// The image as power loss would leave it now: what was synced, and little else. Whatever runs
    /// on it must stand still.
    pub(crate) fn copy_image(&mut self) -> PathBuf {
        self.cuts += 1;
        let copy = self.base.path().join(format!("image-{}", self.cuts));
        let image = self.image.as_ref().expect("an image is mounted");
        run("cp", &["--sparse=always", text(image), text(&copy)]).expect("copied");
        copy
    }

    /// Puts a copy in place of what is mounted; nothing may run on it any more.
    pub(crate) fn come_back_as(&mut self, copy: PathBuf) {
        self.unmount().expect("unmounted");
        let old = self.image.replace(copy.clone()).expect("an image was mounted");
        fs::remove_file(old).expect("ours");
        self.attach(copy).expect("a journal is replayed at the mount");
    }

    fn unmount(&self) -> Result<(), String> {
        let deadline = Instant::now() + UNMOUNT_WITHIN;
        loop {
            match run("umount", &[text(&self.point)]) {
                Err(why) if Instant::now() >= deadline => return Err(why),
                Err(_busy) => std::thread::sleep(Duration::from_millis(20)),
                Ok(()) => return Ok(()),
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if mounts.contains(text(&self.point)) && self.unmount().is_err() {
            // Detached, it goes with the last file that is open on it.
            run("umount", &["-l", text(&self.point)]).ok();
        }
    }
}

/// A program that is `quorate`, whose system calls a test may turn into failures: the file
/// `inject-node-N` beside it holds what `strace -e inject=` is to do to that node.
pub(crate) struct Tampered {
    dir: PathBuf,
    /// The program.
    pub(crate) program: PathBuf,
}

impl Tampered {
    pub(crate) fn new(dir: &Path, quorate: &str) -> Result<Self, String> {
        run("strace", &["-qq", "-f", "-o", "/dev/null", "-e", "inject=fsync:error=EIO", "true"])?;
        let (program, dir) = (dir.join("quorate-tampered"), dir.to_owned());
        let script = format!(
            "#!/bin/sh\nfor file in '{}'/inject-node-*; do\n  node=\"${{file##*/inject-}}/\"\n  \
             case \"$*\" in *\"$node\"*)\n    exec strace -qq -f --seccomp-bpf -o /dev/null -e \
             trace=fsync,fdatasync -e \"inject=$(cat \"$file\")\" '{quorate}' \"$@\";;\n  \
             esac\ndone\nexec '{quorate}' \"$@\"\n",
            dir.display()
        );
        fs::write(&program, script).map_err(|error| error.to_string())?;
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&program, mode).map_err(|error| error.to_string())?;
        Ok(Self { dir, program })
    }

    /// What happens to this node's syncs from its next start on.
    pub(crate) fn inject(&self, node: u64, what: &str) {
        fs::write(self.dir.join(format!("inject-node-{node}")), what).expect("writable");
    }

    pub(crate) fn leave_alone(&self, node: u64) {
        fs::remove_file(self.dir.join(format!("inject-node-{node}"))).expect("injected");
    }
}

/// Sends a signal to a process, and to the one that it traces.
pub(crate) fn signal(pid: u32, name: &str) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let traced = children.unwrap_or_default();
    for target in traced.split_whitespace().chain([pid.to_string().as_str()]) {
        // A tracer ends with what it traces.
        run("kill", &["-s", name, target]).ok();
    }
}
