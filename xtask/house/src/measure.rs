//! The numbers of a package.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ExprUnsafe, ImplItem, Item, ItemImpl, Macro, Type};

use crate::files::{Source, attributes, is_test};

/// The numbers of a package's production code.
#[derive(Debug, Default)]
pub struct Measure {
    /// How many files there are.
    pub files: usize,
    /// How many lines, with comments.
    pub lines: usize,
    /// The lines of the middle one of its files.
    pub median: usize,
    /// The longest file and its lines.
    pub longest: (String, usize),
    /// The type with the most methods of its own.
    pub largest: Largest,
    /// How many `unsafe` blocks there are.
    pub unsafe_blocks: usize,
}

/// The type with the most methods.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Largest {
    /// Its name.
    pub name: String,
    /// How many methods its own `impl` blocks have, those of traits left out.
    pub methods: usize,
    /// In how many files those blocks stand.
    pub files: usize,
}

impl Measure {
    pub(crate) fn of(source: &Source) -> Self {
        let mut counter = Counter::default();
        for (number, file) in source.files.iter().enumerate() {
            counter.file = number;
            for item in &file.items {
                counter.visit_item(item);
            }
        }
        let mut lines: Vec<_> = source.files.iter().map(|file| file.lines).collect();
        lines.sort_unstable();
        Self {
            files: lines.len(),
            lines: lines.iter().sum(),
            median: lines.get(lines.len() / 2).copied().unwrap_or_default(),
            longest: source
                .files
                .iter()
                .map(|file| (file.name.clone(), file.lines))
                .max_by_key(|(_, lines)| *lines)
                .unwrap_or_default(),
            largest: counter.largest(),
            unsafe_blocks: counter.unsafe_blocks,
        }
    }
}

#[derive(Default)]
struct Counter {
    file: usize,
    methods: BTreeMap<String, (usize, BTreeSet<usize>)>,
    unsafe_blocks: usize,
}

impl Counter {
    fn largest(&self) -> Largest {
        self.methods
            .iter()
            .map(|(name, (methods, files))| Largest {
                name: name.clone(),
                methods: *methods,
                files: files.len(),
            })
            .max_by_key(|largest| largest.methods)
            .unwrap_or_default()
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let mut after_unsafe = false;
        for token in tokens {
            if let TokenTree::Group(group) = &token {
                self.unsafe_blocks += usize::from(after_unsafe);
                self.tokens(group.stream());
            }
            after_unsafe = matches!(&token, TokenTree::Ident(word) if word == "unsafe");
        }
    }
}

impl<'ast> Visit<'ast> for Counter {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if let (None, Type::Path(of)) = (&item.trait_, &*item.self_ty)
            && let Some(name) = of.path.segments.last()
        {
            let methods = item.items.iter();
            let methods = methods.filter(|i| matches!(i, ImplItem::Fn(f) if !is_test(&f.attrs)));
            let entry = self.methods.entry(name.ident.to_string()).or_default();
            entry.0 += methods.count();
            entry.1.insert(self.file);
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast ExprUnsafe) {
        self.unsafe_blocks += 1;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.tokens(item.tokens.clone());
    }
}
