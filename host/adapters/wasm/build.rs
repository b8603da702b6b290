//! Builds the components that ship inside the binary, from `plugins/`.
//!
//! The guests are a workspace of their own for another target, so cargo runs once
//! more, within this build. It must not see the outer build's settings (clippy's
//! and llvm-cov's wrappers, profile overrides, flags), and it writes to a target
//! folder of its own, because the outer cargo holds the lock of the outer one. The
//! modules become components here; no committed binary, no tool to install.
//!
//! Equal sources give equal bytes wherever they are built: components are known by
//! their digest, so the paths of this machine are mapped away.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const GUEST_TARGET: &str = "wasm32-unknown-unknown";

/// Each is a package of `plugins/` and becomes `OUT_DIR/<name>.wasm`.
const PLUGINS: [&str; 6] =
    ["round-robin", "least-used", "load-aware", "peak-ewma", "code-indexer", "code-searcher"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        // As text: an error that `main` returns is shown with its line ends escaped.
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let out_dir = PathBuf::from(needed("OUT_DIR")?);
    let root = PathBuf::from(needed("CARGO_MANIFEST_DIR")?).join("../../..").canonicalize()?;
    watch(&root);
    add_target()?;
    let target_dir = guest_target_dir(&out_dir);
    build_guests(&root, &target_dir)?;
    for name in PLUGINS {
        let module = format!("{GUEST_TARGET}/release/{}.wasm", name.replace('-', "_"));
        let component = componentize(&fs::read(target_dir.join(module))?)
            .map_err(|why| format!("the plugin {name} does not make a component: {why}"))?;
        fs::write(out_dir.join(format!("{name}.wasm")), component)?;
    }
    Ok(())
}

/// Runs again when a source, the contract or the lock file changes; never for what the
/// guests' own builds leave behind.
fn watch(root: &Path) {
    let plugins = root.join("plugins");
    let mut watched =
        vec![root.join("wit"), plugins.join("Cargo.toml"), plugins.join("Cargo.lock")];
    for package in PLUGINS.iter().chain(&["sdk", "code-index-format"]) {
        watched.push(plugins.join(package).join("src"));
        watched.push(plugins.join(package).join("Cargo.toml"));
    }
    for path in watched {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// Makes sure that the guests' target is installed, or says what to type.
fn add_target() -> Result<(), Box<dyn Error>> {
    let sysroot = Command::new(needed("RUSTC")?).args(["--print", "sysroot"]).output()?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout)?.trim());
    let lib = sysroot.join("lib/rustlib").join(GUEST_TARGET).join("lib");
    if lib.is_dir() {
        return Ok(());
    }
    // Under rustup a toolchain's folder has the toolchain's name.
    let toolchain = env::var("RUSTUP_TOOLCHAIN").ok();
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", GUEST_TARGET]);
    if let Some(toolchain) = &toolchain {
        rustup.args(["--toolchain", toolchain]);
    }
    let why = match rustup.status() {
        Ok(_) if lib.is_dir() => return Ok(()),
        Ok(status) => format!("`rustup target add` ended with {status}"),
        Err(error) => format!("rustup could not be started ({error})"),
    };
    let toolchain = toolchain.map_or(String::new(), |name| format!(" --toolchain {name}"));
    Err(format!(
        "Rust's {GUEST_TARGET} target is missing under {} and could not be added: {why}.\n\
         Components are built with it. With a network, type\n\n    \
         rustup target add {GUEST_TARGET}{toolchain}\n\n\
         and build again. Without rustup, install your system's package of Rust's standard \
         library for {GUEST_TARGET}, of the same version as rustc.",
        sysroot.display()
    )
    .into())
}

/// A folder that every profile of this workspace shares, since the guests are always
/// built the same way: `plugins` in the outer target folder, which cargo tags.
fn guest_target_dir(out_dir: &Path) -> PathBuf {
    let tagged = out_dir.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    tagged.unwrap_or(out_dir).join("plugins")
}

fn build_guests(root: &Path, target_dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut cargo = Command::new(needed("CARGO")?);
    for (name, _) in env::vars_os() {
        if belongs_to_outer_build(&name) {
            cargo.env_remove(name);
        }
    }
    cargo
        .args(["build", "--release", "--locked", "--target", GUEST_TARGET])
        .arg("--manifest-path")
        .arg(root.join("plugins/Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        .args(PLUGINS.iter().flat_map(|name| ["--package", name]))
        .env("CARGO_ENCODED_RUSTFLAGS", guest_flags(root))
        .current_dir(root.join("plugins"));
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("building the plugins failed: {cargo:?} ended with {status}").into());
    }
    Ok(())
}

/// What cargo, clippy and llvm-cov set for the outer build. Where cargo keeps its own
/// files, which registry it asks and how many jobs may run stays.
fn belongs_to_outer_build(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    let kept = ["CARGO_HOME", "CARGO_MAKEFLAGS", "CARGO_TERM_COLOR"].contains(&name)
        || ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_"]
            .iter()
            .any(|prefix| name.starts_with(prefix));
    let outer = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "CLIPPY_", "LLVM_PROFILE_FILE"];
    !kept && outer.iter().any(|prefix| name.starts_with(prefix))
}

/// Flags separated by the byte that cargo splits at. Also set where there is nothing to
/// say, since it is what keeps flags of a user's cargo configuration out.
fn guest_flags(root: &Path) -> String {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let mut flags = vec![format!("--remap-path-prefix={}=quorate", root.display())];
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags.join("\u{1f}")
}

/// Wraps a core module, whose world stands in a custom section that wit-bindgen left.
fn componentize(module: &[u8]) -> Result<Vec<u8>, String> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| format!("{error:#}"))
}

fn needed(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"))
}
