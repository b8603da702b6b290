//! What can be read off a component without compiling it: its imports, its
//! exports, and how large its functions are.
//!
//! Linear in the component's size and without recursion; nothing here trusts a
//! length that the reader has not checked.

use wasmparser::{Encoding, Parser, Payload};

use crate::admit::AdmitError;
use crate::limits::ShapeLimits;

/// Size of a WebAssembly page, bytes.
const PAGE_BYTES: u64 = 64 << 10;

/// A component's outline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Names that the component itself imports, in order.
    pub imports: Vec<String>,
    /// Names that the component itself exports, in order.
    pub exports: Vec<String>,
    /// Size of each core function body in it and in all it contains, bytes.
    pub bodies: Vec<usize>,
    /// First size of each linear memory that it or what it contains defines, pages.
    pub memories: Vec<u64>,
    /// First size of each table that it or what it contains defines, elements.
    pub tables: Vec<u64>,
}

impl Outline {
    /// Reads `bytes`.
    pub fn read(bytes: &[u8]) -> Result<Self, AdmitError> {
        let mut outline = Self::default();
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|source| not_component(&source))?;
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "a foreign, open enum of section kinds, most of which say nothing here"
            )]
            match payload {
                Payload::Version { encoding, .. } => {
                    if depth == 0 && encoding == Encoding::Module {
                        return Err(AdmitError::CoreModule);
                    }
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CodeSectionEntry(body) => outline.bodies.push(body.range().len()),
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory.map_err(|source| not_component(&source))?;
                        outline.memories.push(memory.initial);
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        let table = table.map_err(|source| not_component(&source))?;
                        outline.tables.push(table.ty.initial);
                    }
                }
                Payload::ComponentImportSection(section) if depth == 1 => {
                    for import in section {
                        let import = import.map_err(|source| not_component(&source))?;
                        outline.imports.push(import.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 1 => {
                    for export in section {
                        let export = export.map_err(|source| not_component(&source))?;
                        outline.exports.push(export.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    /// The size of the largest function body, bytes.
    pub fn largest_body(&self) -> usize {
        self.bodies.iter().copied().max().unwrap_or(0)
    }

    /// The sum of the squares of all function bodies' sizes, bytes²: in the worst case the
    /// compiler's time grows with it.
    pub fn compile_cost(&self) -> u64 {
        let square =
            |size: &usize| u64::try_from(*size).map_or(u64::MAX, |size| size.saturating_mul(size));
        self.bodies.iter().map(square).fold(0, u64::saturating_add)
    }

    /// Reads `bytes` if they are within `limits`.
    pub(crate) fn read_within(bytes: &[u8], limits: &ShapeLimits) -> Result<Self, AdmitError> {
        if bytes.len() > limits.component_bytes_max {
            let (got, limit) = (bytes.len(), limits.component_bytes_max);
            return Err(AdmitError::TooLarge { got, limit });
        }
        if wasmtime::Engine::detect_precompiled(bytes).is_some() {
            return Err(AdmitError::Precompiled);
        }
        let outline = Self::read(bytes)?;
        let limit = limits.function_bytes_max;
        if let Some((index, &got)) = (0..).zip(&outline.bodies).find(|(_, size)| **size > limit) {
            return Err(AdmitError::FunctionTooLarge { index, got, limit });
        }
        let (cost, cost_max) = (outline.compile_cost(), limits.compile_cost_max);
        if cost > cost_max {
            return Err(AdmitError::CompileTooCostly { cost, limit: cost_max });
        }
        outline.needs().check(limits)?;
        Ok(outline)
    }

    /// What it needs if each module in it is instantiated once.
    fn needs(&self) -> Needs {
        let largest = |sizes: &[u64]| sizes.iter().copied().max().unwrap_or(0);
        let number = |sizes: &[u64]| u64::try_from(sizes.len()).unwrap_or(u64::MAX);
        Needs {
            memories: number(&self.memories),
            memory_pages: largest(&self.memories),
            tables: number(&self.tables),
            table_elements: largest(&self.tables),
        }
    }

    /// Refuses what is not of the world: `export` must be there, and `may` judges each import.
    pub(crate) fn check_world(
        &self,
        world: &'static str,
        export: &'static str,
        may: impl Fn(&str) -> Result<(), AdmitError>,
    ) -> Result<(), AdmitError> {
        self.imports.iter().try_for_each(|import| may(import))?;
        if self.exports.iter().any(|name| name == export) {
            return Ok(());
        }
        let found = if self.exports.is_empty() {
            "nothing".to_owned()
        } else {
            format!("`{}`", self.exports.join("`, `"))
        };
        Err(AdmitError::LacksWorld { export, world, found })
    }
}

/// What one instance takes from its pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    pub(crate) memories: u64,
    /// The largest memory's first size.
    pub(crate) memory_pages: u64,
    pub(crate) tables: u64,
    /// The largest table's first size.
    pub(crate) table_elements: u64,
}

impl Needs {
    /// Compares with what each instance of the pool is given.
    pub(crate) fn check(self, limits: &ShapeLimits) -> Result<(), AdmitError> {
        let memory_pages = u64::try_from(limits.memory_bytes_max).unwrap_or(u64::MAX) / PAGE_BYTES;
        let figures = [
            ("linear memories", self.memories, u64::from(limits.memories_max)),
            ("pages of 64 KiB to begin with", self.memory_pages, memory_pages),
            ("tables", self.tables, u64::from(limits.tables_max)),
            (
                "table elements to begin with",
                self.table_elements,
                u64::from(limits.table_elements_max),
            ),
        ];
        match figures.into_iter().find(|(_what, needs, has)| needs > has) {
            Some((what, needs, has)) => Err(AdmitError::NeedsTooMuch { what, needs, has }),
            None => Ok(()),
        }
    }
}

fn not_component(source: &wasmparser::BinaryReaderError) -> AdmitError {
    AdmitError::NotComponent { reason: source.to_string() }
}
