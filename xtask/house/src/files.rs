//! The files of a package, found by following `mod` from its roots, and the modules
//! that they make.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Attribute, Item, ItemMod, Meta};

use crate::modules::{Module, ModuleId};

/// The production code of a package.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) files: Vec<File>,
    pub(crate) modules: Vec<Module>,
}

/// One file.
#[derive(Debug)]
pub(crate) struct File {
    /// Its path below `src`.
    pub(crate) name: String,
    /// Its items, without those for tests.
    pub(crate) items: Vec<Item>,
    /// The module that it is.
    pub(crate) module: ModuleId,
    /// Lines that are not for tests.
    pub(crate) lines: usize,
}

impl Source {
    /// Reads the package whose sources lie in `src`.
    pub(crate) fn read(src: &Path) -> Result<Self> {
        let mut source = Self {
            files: Vec::new(),
            modules: Vec::new(),
        };
        let mut roots = vec![src.join("lib.rs"), src.join("main.rs")];
        let mut programs: Vec<_> = fs::read_dir(src.join("bin"))
            .into_iter()
            .flatten()
            .flatten()
            .flat_map(|entry| [entry.path(), entry.path().join("main.rs")])
            .filter(|path| path.extension().is_some_and(|e| e == "rs"))
            .collect();
        programs.sort();
        roots.append(&mut programs);
        for root in roots.iter().filter(|root| root.is_file()) {
            let dir = root.parent().unwrap_or(src);
            source.add_file(src, root, dir, None)?;
        }
        Ok(source)
    }

    /// Reads `path` as a module whose children lie in `dir`.
    fn add_file(
        &mut self,
        src: &Path,
        path: &Path,
        dir: &Path,
        parent: Option<ModuleId>,
    ) -> Result<ModuleId> {
        let text =
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut syntax =
            syn::parse_file(&text).with_context(|| format!("{} is no Rust", path.display()))?;
        let tests: usize = syntax
            .items
            .iter()
            .filter(|item| is_test(attributes(item)))
            .map(|item| lines_of(item.span(), attributes(item)))
            .sum();
        syntax.items.retain(|item| !is_test(attributes(item)));
        let file = self.files.len();
        let module = self.add_module(Module::new(file, parent));
        self.files.push(File {
            name: path.strip_prefix(src).unwrap_or(path).display().to_string(),
            items: Vec::new(),
            module,
            lines: text.lines().count() - tests,
        });
        self.declare(src, dir, module, &syntax.items)?;
        self.files[file].items = syntax.items;
        Ok(module)
    }

    /// Adds what `items` declare to `module`; its children's files lie in `dir`.
    fn declare(&mut self, src: &Path, dir: &Path, module: ModuleId, items: &[Item]) -> Result<()> {
        for item in items {
            match item {
                Item::Mod(inner) if !is_test(&inner.attrs) => {
                    let name = inner.ident.to_string();
                    let child = match &inner.content {
                        Some((_, items)) => {
                            let file = self.modules[module].file;
                            let child = self.add_module(Module::new(file, Some(module)));
                            self.declare(src, &dir.join(&name), child, items)?;
                            child
                        }
                        None => {
                            let (path, dir) = file_of(inner, dir)?;
                            self.add_file(src, &path, &dir, Some(module))?
                        }
                    };
                    self.modules[module].children.insert(name, child);
                }
                other => self.modules[module].declare(other),
            }
        }
        Ok(())
    }

    fn add_module(&mut self, module: Module) -> ModuleId {
        self.modules.push(module);
        self.modules.len() - 1
    }

    /// The names of files by number.
    pub(crate) fn names(&self) -> BTreeMap<usize, &str> {
        self.files
            .iter()
            .enumerate()
            .map(|(n, file)| (n, file.name.as_str()))
            .collect()
    }
}

/// Where the module `inner` of a file is, whose children lie in `dir`, and where its
/// own children lie.
fn file_of(inner: &ItemMod, dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let name = inner.ident.to_string();
    let own = dir.join(&name);
    let named = inner
        .attrs
        .iter()
        .find_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(path),
                    ..
                }) => Some(dir.join(path.value())),
                _ => None,
            },
            _ => None,
        });
    [
        named,
        Some(dir.join(format!("{name}.rs"))),
        Some(own.join("mod.rs")),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.is_file())
    .map(|path| (path, own))
    .with_context(|| format!("the module {name} has no file in {}", dir.display()))
}

/// Whether an item is compiled for tests alone.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string();
            condition == "test"
                || condition.starts_with("any (test")
                || condition.starts_with("all (test")
                || condition == "feature = \"testing\""
        }
        _ => false,
    })
}

/// The attributes of an item.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::ExternCrate(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::ForeignMod(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::TraitAlias(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

/// How many lines an item takes with its attributes.
fn lines_of(span: Span, attributes: &[Attribute]) -> usize {
    let first = attributes
        .iter()
        .map(|attribute| attribute.span().start().line)
        .chain([span.start().line])
        .min()
        .unwrap_or(0);
    span.end().line + 1 - first
}
