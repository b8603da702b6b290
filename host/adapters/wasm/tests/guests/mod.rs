//! Guests written by hand: a core module in text, made a component by wit-component.
//! Each scenario replaces one body and leaves the rest well behaved.

#![allow(dead_code, reason = "each test binary uses its own part of the cast")]
#![allow(clippy::unwrap_used, reason = "a guest that cannot be made is a failed test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A component from its text.
pub(crate) fn text(component: &str) -> Vec<u8> {
    wat::parse_str(component).unwrap()
}

/// The workspace's `wit`, whichever package's test this is.
fn wit() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().map(|folder| folder.join("wit")).find(|wit| wit.is_dir()).unwrap()
}

/// A core module as a component of `world`, whose packages lie in `folders` of `wit/`.
fn wrap(core: &str, folders: &[&str], world: &str) -> Vec<u8> {
    let wit = wit();
    let mut resolve = Resolve::default();
    let packages: Vec<_> =
        folders.iter().map(|folder| resolve.push_path(wit.join(folder)).unwrap().0).collect();
    let world = resolve.select_world(&packages, Some(world)).unwrap();
    let mut module = wat::parse_str(core).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

/// Memory, a bump allocator that every entry resets, and a name at address 64.
fn core(name: &str, imports: &str, memory_pages: u32, rest: &str) -> String {
    format!(
        r#"(module {imports}
        (memory (export "memory") {memory_pages})
        (global $bump (mut i32) (i32.const 4096))
        (data (i32.const 64) "{name}")
        (func $reset (global.set $bump (i32.const 4096)))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
          (local $at i32)
          (local.set $at (i32.and (i32.add (global.get $bump) (i32.const 7)) (i32.const -8)))
          (global.set $bump (i32.add (local.get $at) (local.get 3)))
          (block $fits
            (loop $more
              (br_if $fits (i32.le_u (global.get $bump) (i32.mul (memory.size) (i32.const 65536))))
              (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))
              (unreachable)))
          (local.get $at))
        {rest})"#
    )
}

const BALANCING: &str = "quorate:balancer/balancing@0.1.0-dev";

/// What a well-behaved policy does: name, export, signature, body. Results lie at address 128.
const FUNCTIONS: [(&str, &str, &str, &str); 9] = [
    ("describe", "describe", "(result i32)", ""),
    ("open", "[static]pool.open", "(param i32 i32 i64) (result i32)", OPENED),
    ("restore", "[static]pool.restore", "(param i32 i32 i64 i32 i64 i32 i32) (result i32)", OPENED),
    ("replace", "[method]pool.replace", "(param i32 i64 i32 i32 i32 i32) (result i32)", REMEMBER),
    ("patch", "[method]pool.patch", "(param i32 i32 i32 i32 i32 i32) (result i32)", TAKEN),
    ("pick", "[method]pool.pick", "(param i32 i64 i32) (result i32)", LOWEST),
    ("pick-batch", "[method]pool.pick-batch", "(param i32 i64 i32) (result i32)", MANY),
    ("observe", "[method]pool.observe", "(param i32 i32 i32 i32 i32 i32 i32)", ""),
    ("save", "[method]pool.save", "(param i32) (result i32)", SAVED),
];

const TAKEN: &str = "(i32.store8 (i32.const 128) (i32.const 0)) (i32.const 128)";

const OPENED: &str = "(i32.store8 (i32.const 128) (i32.const 0))
    (i32.store offset=8 (i32.const 128) (call $new (i32.const 1))) (i32.const 128)";

const REMEMBER: &str = "(global.set $count (local.get 3))
    (if (local.get 3) (then (global.set $lowest (i32.load (local.get 2)))))
    (i32.store8 (i32.const 128) (i32.const 0)) (i32.const 128)";

const LOWEST: &str = "(i32.store8 (i32.const 128) (i32.ne (global.get $count) (i32.const 0)))
    (i32.store offset=4 (i32.const 128) (global.get $lowest)) (i32.const 128)";

const MANY: &str = "(i32.store (i32.const 128) (i32.const 1024))
    (i32.store offset=4 (i32.const 128)
      (select (local.get 2) (i32.const 0) (global.get $count)))
    (loop $more
      (if (local.get 2) (then
        (local.set 2 (i32.sub (local.get 2) (i32.const 1)))
        (i32.store (i32.add (i32.const 1024) (i32.shl (local.get 2) (i32.const 2)))
          (global.get $lowest))
        (br $more))))
    (i32.const 128)";

const SAVED: &str = "(i32.store8 (i32.const 128) (i32.const 0))
    (i32.store offset=8 (i32.const 128) (i32.const 7))
    (i64.store offset=16 (i32.const 128) (i64.const 0))
    (i32.store offset=24 (i32.const 128) (i32.const 0))
    (i32.store offset=28 (i32.const 128) (i32.const 0)) (i32.const 128)";

/// A policy. It picks the lowest slot, ignores what it is told, and saves nothing.
pub(crate) struct PolicyGuest {
    name: &'static str,
    memory_pages: u32,
    features: &'static [&'static str],
    max_batch: u32,
    extra: String,
    bodies: BTreeMap<&'static str, String>,
}

impl PolicyGuest {
    pub(crate) fn named(name: &'static str) -> Self {
        Self {
            name,
            memory_pages: 2,
            features: &[],
            max_batch: 64,
            extra: String::new(),
            bodies: BTreeMap::new(),
        }
    }

    /// Replaces the body of `describe`, `open`, `replace`, `pick`, `pick-batch`, `observe` or `save`.
    pub(crate) fn body(mut self, function: &'static str, instructions: &str) -> Self {
        self.bodies.insert(function, instructions.to_owned());
        self
    }

    pub(crate) fn memory_pages(mut self, pages: u32) -> Self {
        self.memory_pages = pages;
        self
    }

    pub(crate) fn features(mut self, features: &'static [&'static str]) -> Self {
        self.features = features;
        self
    }

    pub(crate) fn max_batch(mut self, max_batch: u32) -> Self {
        self.max_batch = max_batch;
        self
    }

    /// Further fields of the core module.
    pub(crate) fn extra(mut self, fields: &str) -> Self {
        self.extra.push_str(fields);
        self
    }

    fn describe(&self) -> String {
        let mut stores = String::new();
        let mut at = 512;
        for (place, feature) in (0_u32..).zip(self.features) {
            let (pair, length) = (256 + 8 * place, feature.len());
            for byte in feature.bytes() {
                stores += &format!("(i32.store8 (i32.const {at}) (i32.const {byte}))");
                at += 1;
            }
            let start = at - u32::try_from(length).unwrap();
            stores += &format!("(i32.store (i32.const {pair}) (i32.const {start}))");
            stores += &format!("(i32.store offset=4 (i32.const {pair}) (i32.const {length}))");
        }
        format!(
            "{stores}
            (i32.store (i32.const 128) (i32.const 64))
            (i32.store (i32.const 132) (i32.const {name}))
            (i32.store (i32.const 136) (i32.const 7))
            (i32.store (i32.const 148) (i32.const 256))
            (i32.store (i32.const 152) (i32.const {features}))
            (i32.store (i32.const 156) (i32.const {batch}))
            (i32.const 128)",
            name = self.name.len(),
            features = self.features.len(),
            batch = self.max_batch,
        )
    }

    pub(crate) fn component(self) -> Vec<u8> {
        let describe = self.describe();
        let mut rest = self.extra.clone();
        rest += "(global $count (mut i32) (i32.const 0)) (global $lowest (mut i32) (i32.const 0))";
        for (name, export, signature, default) in FUNCTIONS {
            let default = if name == "describe" { &describe } else { default };
            let body = self.bodies.get(name).map_or(default, String::as_str);
            rest += &format!(
                "(func ${name} (export \"{BALANCING}#{export}\") {signature} (call $reset) {body})"
            );
        }
        let imports = format!(
            r#"(import "[export]{BALANCING}" "[resource-new]pool"
                (func $new (param i32) (result i32)))"#
        );
        let core = core(self.name, &imports, self.memory_pages, &rest);
        wrap(&core, &["common", "balancer"], "quorate:balancer/policy")
    }
}

/// An agent that imports what `imports` says and answers with what `handle` says.
///
/// `handle` leaves the address of its result on the stack; `$inline` makes one of
/// (address, length). Its parameters: 0 kind, 1–2 id, 3 attempt, 4–5 capability, 6–7
/// content type, 8 case of the input, 9–10 bytes or digest, 11 size, 12–13 trace.
pub(crate) fn agent(imports: &[&str], handle: &str) -> Vec<u8> {
    let api = "quorate:agent/working@0.1.0-dev";
    let rest = format!(
        r#"(global $calls (mut i32) (i32.const 0))
        (data (i32.const 80) "dig")
        (func $inline (param i32 i32) (result i32)
          (i32.store8 (i32.const 256) (i32.const 0))
          (i32.store8 (i32.const 264) (i32.const 0))
          (i32.store (i32.const 272) (local.get 0))
          (i32.store (i32.const 276) (local.get 1))
          (i32.const 256))
        (func $internal (result i32)
          (i32.store8 (i32.const 256) (i32.const 1))
          (i32.store8 (i32.const 264) (i32.const 4))
          (i32.store (i32.const 272) (i32.const 64))
          (i32.store (i32.const 276) (i32.const 6))
          (i32.const 256))
        (func (export "{api}#describe") (result i32)
          (i32.store (i32.const 128) (i32.const 64))
          (i32.store (i32.const 132) (i32.const 6))
          (i32.store (i32.const 136) (i32.const 144))
          (i32.store (i32.const 140) (i32.const 1))
          (i32.store (i32.const 144) (i32.const 80))
          (i32.store (i32.const 148) (i32.const 3))
          (i32.const 128))
        (func (export "{api}#handle")
          (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32) (result i32)
          (local $spare i32)
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          {handle})
        (func (export "cabi_post_{api}#handle") (param i32) (call $reset))"#
    );
    let imports = imports.iter().map(|import| import_text(import)).collect::<String>();
    let core = core("digger", &imports, 2, &rest);
    wrap(&core, &["common", "host", "agent"], "quorate:agent/agent")
}

/// A host function by its short name, imported under `$` and that name.
fn import_text(name: &str) -> String {
    let (interface, function, signature) = match name {
        "log" => ("log", "write", "(param i32 i32 i32)"),
        "now" => ("clock", "now-ms", "(result i64)"),
        "sleep" => ("clock", "sleep-ms", "(param i64)"),
        "draw" => ("random", "draw", "(result i64)"),
        "open" => ("blobs", "[static]reader.open", "(param i32 i32 i32)"),
        "read" => ("blobs", "[method]reader.read", "(param i32 i32 i32)"),
        "close" => ("blobs", "[resource-drop]reader", "(param i32)"),
        "create" => ("blobs", "[static]writer.create", "(param i32)"),
        "write" => ("blobs", "[method]writer.write", "(param i32 i32 i32 i32)"),
        "finish" => ("blobs", "[static]writer.finish", "(param i32 i32)"),
        other => panic!("no host function is called {other}"),
    };
    format!(
        r#"(import "quorate:host/{interface}@0.1.0-dev" "{function}" (func ${name} {signature}))"#
    )
}
