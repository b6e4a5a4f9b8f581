//! Which file names what of which other.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ImplItem, Item, ItemMod, ItemUse, Macro, Path, Visibility};

use crate::files::{Source, attributes, is_test};
use crate::modules::{ModuleId, file_of, paths};

/// The files on which each file depends, by number.
pub(crate) fn of(source: &Source) -> Vec<BTreeSet<usize>> {
    source
        .files
        .iter()
        .enumerate()
        .map(|(number, file)| {
            let mut names = Names {
                source,
                here: file.module,
                found: BTreeSet::new(),
            };
            for item in &file.items {
                names.visit_item(item);
            }
            names.found.remove(&number);
            names.found
        })
        .collect()
}

struct Names<'a> {
    source: &'a Source,
    here: ModuleId,
    found: BTreeSet<usize>,
}

impl Names<'_> {
    fn note(&mut self, path: &[String]) {
        // `pub(super)` in what is given to a macro names nothing.
        if path == ["super"] {
            return;
        }
        self.found
            .extend(file_of(&self.source.modules, self.here, path));
    }

    /// Paths in what is given to a macro, which is no syntax yet.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if colons == 2 => {
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Ident(name) => {
                    self.note(&std::mem::take(&mut path));
                    path = vec![name.to_string()];
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.note(&std::mem::take(&mut path));
                    colons = 0;
                    self.tokens(group.stream());
                }
                _ => {
                    self.note(&std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.note(&path);
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let for_tests = match item {
            ImplItem::Fn(item) => is_test(&item.attrs),
            ImplItem::Const(item) => is_test(&item.attrs),
            _ => false,
        };
        if !for_tests {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        // Another file's items are that file's.
        if item.content.is_none() {
            return;
        }
        let outer = self.here;
        if let Some(inner) = self.source.modules[outer]
            .children
            .get(&item.ident.to_string())
        {
            self.here = *inner;
            visit::visit_item_mod(self, item);
            self.here = outer;
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if matches!(item.vis, Visibility::Inherited) {
            for (path, _) in paths(&item.tree) {
                self.note(&path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Vec<_> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.note(&names);
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {
        // `pub(crate)` names who may use a thing, and uses nothing itself.
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }
}
