//! No package may have a circle of files but those of `circles.txt`, a list that only
//! shrinks. `UPDATE=1 cargo test -p berth-house` shrinks it.
#![allow(clippy::unwrap_used, reason = "tests, and what helps them")]

use std::{env, fs, path::Path};

use berth_house::{Allowed, Member, checkout, members};
use expect_test::expect;

#[test]
fn no_circle_of_files_is_new_and_none_on_the_list_is_gone() {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("circles.txt");
    let allowed = Allowed::parse(&fs::read_to_string(&list).unwrap());
    let mut there = Allowed::default();
    for member in members(&checkout()).unwrap() {
        for circle in member.circles() {
            there.add(&member.name, circle);
        }
    }
    if env::var_os("UPDATE").is_some() {
        let growth = allowed.growth(&there);
        assert!(growth.is_empty(), "{}", growth.join("\n"));
        fs::write(&list, there.text()).unwrap();
        return;
    }
    let problems = allowed.judge(&there);
    assert!(
        problems.is_empty(),
        "{}\nA list that is too long is cut by: UPDATE=1 cargo test -p berth-house",
        problems.join("\n")
    );
}

/// A package of these files, and what is found in it.
fn package(files: &[(&str, &str)]) -> Member {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Cargo.toml"), "[package]\nname = \"p\"\n").unwrap();
    for (name, text) in files {
        let path = dir.path().join("src").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Member::read(dir.path()).unwrap()
}

fn circles(files: &[(&str, &str)]) -> Vec<String> {
    let found = package(files).circles();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn visibility_in_a_macro_names_nothing() {
    let files = [
        ("lib.rs", "mod a;\nfn f() { a::f() }"),
        (
            "a.rs",
            "macro_rules! kind { () => { pub(super) enum A {} } }",
        ),
    ];
    assert_eq!(circles(&files), Vec::<String>::new());
}

#[test]
fn every_way_to_name_a_thing_counts() {
    for back in [
        "use crate::a::A;",
        "use super::a;",
        "use super::{a::{self, A}};",
        "fn f() { crate::a::f() }",
        "fn f(_: super::a::A) {}",
        "fn f() { println!(\"{}\", super::a::A) }",
        "use crate::A;",
        "mod inner { use super::super::a::A; }",
        "fn f() { use crate::a::A; }",
    ] {
        let found = circles(&[
            ("lib.rs", "mod a;\nmod b;\npub use a::A;"),
            ("a.rs", "use crate::b;\npub struct A;"),
            ("b.rs", back),
        ]);
        assert_eq!(found, ["a.rs b.rs"], "{back}");
    }
}

#[test]
fn tests_second_names_and_other_packages_do_not_count() {
    for back in [
        "#[cfg(test)]\nmod tests { use crate::a::A; }",
        "#[cfg(test)]\nuse crate::a::A;",
        "pub use super::a::A;",
        "use other::a::A;",
        "use tokio::a;",
        "pub(super) fn f() {}\npub(crate) struct B;",
        "/// See [`crate::a::A`].\nfn f() {}",
        "fn f() { println!(\"crate::a\") }",
    ] {
        let found = circles(&[
            ("lib.rs", "mod a;\nmod b;\nuse a::A;"),
            ("a.rs", "use crate::b;\npub struct A;"),
            ("b.rs", back),
        ]);
        assert!(found.is_empty(), "{back}: {found:?}");
    }
}

#[test]
fn a_longer_circle_and_folders_are_seen() {
    let found = circles(&[
        ("lib.rs", "mod a;\nmod c;\n#[path = \"d_file.rs\"]\nmod d;"),
        ("a/mod.rs", "mod b;\npub(crate) fn f() { b::g() }"),
        ("a/b.rs", "pub(crate) fn g() { crate::c::h() }"),
        ("c.rs", "use crate::d::*;\npub(crate) fn h() { i() }"),
        ("d_file.rs", "pub(crate) fn i() { crate::a::f() }"),
    ]);
    assert_eq!(found, ["a/b.rs a/mod.rs c.rs d_file.rs"]);
}

#[test]
fn tests_are_not_measured() {
    let measure = package(&[
        (
            "lib.rs",
            "mod a;\nstruct T;\nimpl T {\n    fn f() { unsafe { g() } }\n    fn g() {}\n}\n\
             #[cfg(test)]\nmod tests {\n    fn h() { unsafe { g() } }\n}\n",
        ),
        ("a.rs", "impl super::T {\n    fn h() {}\n}\nimpl Default for super::T {\n    fn default() {}\n}\n"),
    ])
    .measure();
    expect![[r#"
        Measure {
            files: 2,
            lines: 12,
            median: 6,
            longest: (
                "a.rs",
                6,
            ),
            largest: Largest {
                name: "T",
                methods: 3,
                files: 2,
            },
            unsafe_blocks: 1,
        }
    "#]]
    .assert_debug_eq(&measure);
}
