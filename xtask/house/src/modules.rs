//! Modules, and where a path in one of them leads.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Item, UseTree};

/// A module by its number.
pub(crate) type ModuleId = usize;

/// How many names in a row may stand for another, before a circle is taken for one.
const DEPTH: usize = 16;

/// What a module declares.
#[derive(Debug)]
pub(crate) struct Module {
    /// The file that it stands in.
    pub(crate) file: usize,
    pub(crate) parent: Option<ModuleId>,
    pub(crate) children: BTreeMap<String, ModuleId>,
    /// Names that `use` brings, and their paths.
    names: BTreeMap<String, Vec<String>>,
    /// Paths of which everything is brought.
    globs: Vec<Vec<String>>,
    /// What it defines itself.
    items: BTreeSet<String>,
}

impl Module {
    pub(crate) fn new(file: usize, parent: Option<ModuleId>) -> Self {
        Self {
            file,
            parent,
            children: BTreeMap::new(),
            names: BTreeMap::new(),
            globs: Vec::new(),
            items: BTreeSet::new(),
        }
    }

    /// Adds what an item declares.
    pub(crate) fn declare(&mut self, item: &Item) {
        let name = match item {
            Item::Use(item) => {
                for (path, name) in paths(&item.tree) {
                    match name.as_str() {
                        "*" => self.globs.push(path),
                        _ => drop(self.names.insert(name, path)),
                    }
                }
                return;
            }
            Item::Const(i) => &i.ident,
            Item::Enum(i) => &i.ident,
            Item::Fn(i) => &i.sig.ident,
            Item::Static(i) => &i.ident,
            Item::Struct(i) => &i.ident,
            Item::Trait(i) => &i.ident,
            Item::Type(i) => &i.ident,
            Item::Union(i) => &i.ident,
            Item::Macro(i) => match &i.ident {
                Some(name) => name,
                None => return,
            },
            _ => return,
        };
        self.items.insert(name.to_string());
    }
}

/// The paths of a `use` and the names that they get here; `*` for all.
pub(crate) fn paths(tree: &UseTree) -> Vec<(Vec<String>, String)> {
    fn walk(tree: &UseTree, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
        match tree {
            UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                walk(&inner.tree, path, found);
                path.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                let own = path.last().cloned().unwrap_or_default();
                found.push((path.clone(), own));
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                found.push(([&path[..], std::slice::from_ref(&name)].concat(), name));
            }
            UseTree::Rename(inner) => {
                let mut whole = path.clone();
                if inner.ident != "self" {
                    whole.push(inner.ident.to_string());
                }
                found.push((whole, inner.rename.to_string()));
            }
            UseTree::Glob(_) => found.push((path.clone(), "*".to_owned())),
            UseTree::Group(group) => group
                .items
                .iter()
                .for_each(|tree| walk(tree, path, &mut *found)),
        }
    }
    let mut found = Vec::new();
    walk(tree, &mut Vec::new(), &mut found);
    found
}

/// What a path leads to.
#[derive(Clone, Copy)]
enum Target {
    Module(ModuleId),
    /// Something that a module of this file defines.
    Item(usize),
}

/// The file that defines what `path` names in the module `here`; none if that is no
/// part of this package.
pub(crate) fn file_of(modules: &[Module], here: ModuleId, path: &[String]) -> Option<usize> {
    match lead(modules, here, path, DEPTH)? {
        Target::Module(module) => Some(modules[module].file),
        Target::Item(file) => Some(file),
    }
}

fn lead(modules: &[Module], here: ModuleId, path: &[String], depth: usize) -> Option<Target> {
    let (first, rest) = path.split_first()?;
    let mut target = match first.as_str() {
        "crate" => {
            let mut root = here;
            while let Some(parent) = modules[root].parent {
                root = parent;
            }
            Target::Module(root)
        }
        "self" => Target::Module(here),
        "super" => Target::Module(modules[here].parent?),
        name => find(modules, here, name, depth)?,
    };
    for name in rest {
        let Target::Module(module) = target else {
            return Some(target);
        };
        target = match name.as_str() {
            "super" => Target::Module(modules[module].parent?),
            // What a macro defines is not seen; it stands in the module's file.
            name => {
                find(modules, module, name, depth).unwrap_or(Target::Item(modules[module].file))
            }
        };
    }
    Some(target)
}

/// What `name` means in a module.
fn find(modules: &[Module], here: ModuleId, name: &str, depth: usize) -> Option<Target> {
    let depth = depth.checked_sub(1)?;
    let module = &modules[here];
    if let Some(child) = module.children.get(name) {
        return Some(Target::Module(*child));
    }
    if module.items.contains(name) {
        return Some(Target::Item(module.file));
    }
    if let Some(path) = module.names.get(name) {
        // `use tokio::sync;` makes a name of somebody else's.
        return (path.first().map(String::as_str) != Some(name) || path.len() > 1)
            .then(|| lead(modules, here, path, depth))
            .flatten();
    }
    module
        .globs
        .iter()
        .find_map(|path| match lead(modules, here, path, depth)? {
            Target::Module(other) if other != here => find(modules, other, name, depth),
            _ => None,
        })
}
