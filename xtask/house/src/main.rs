//! `cargo xtask house`: the numbers of each package, and its circles.

use std::fs;
use std::path::Path;

use anyhow::Result;
use berth_house::{checkout, members};

fn main() -> Result<()> {
    let root = match std::env::args_os().nth(1) {
        Some(path) => path.into(),
        None => checkout(),
    };
    println!(
        "{:<20} {:>6} {:>7} {:>7}  {:<32} {:<38} {:>7} {:>8}",
        "package", "files", "lines", "median", "longest file", "most methods", "unsafe", "circles"
    );
    let mut circles = Vec::new();
    let (mut files, mut lines, mut unsafe_blocks) = (0, 0, 0);
    for member in members(&root)? {
        let measure = member.measure();
        let found = member.circles();
        let (name, longest) = &measure.longest;
        let largest = &measure.largest;
        println!(
            "{:<20} {:>6} {:>7} {:>7}  {:<32} {:<38} {:>7} {:>8}",
            member.name,
            measure.files,
            measure.lines,
            measure.median,
            format!("{name} {longest}"),
            format!(
                "{} {} in {} files",
                largest.name, largest.methods, largest.files
            ),
            measure.unsafe_blocks,
            found.len()
        );
        files += measure.files;
        lines += measure.lines;
        unsafe_blocks += measure.unsafe_blocks;
        circles.extend(found.into_iter().map(|c| format!("{}: {c}", member.name)));
    }
    println!("together: {files} files, {lines} lines, {unsafe_blocks} unsafe blocks");
    println!("circles of files: {}", circles.len());
    for circle in circles {
        println!("  {circle}");
    }
    print_image(&root);
    Ok(())
}

/// The size of the image that `cargo image` wrote last, if it did.
fn print_image(root: &Path) {
    let image = root.join("target/berth-image.tar");
    if let Ok(file) = fs::metadata(&image) {
        println!(
            "image: {:.1} MB ({})",
            file.len() as f64 / 1e6,
            image.display()
        );
    }
}
