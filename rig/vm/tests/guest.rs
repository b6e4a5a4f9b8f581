//! The rig on itself: a guest boots, runs what it was given, says how that ended,
//! and its kernel limits directories by project on xfs and ext4.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::time::Duration;

use berth_qemu::suite::{Filesystem, Suite};
use berth_qemu::{Error, Vm};

const GIB: u64 = 1 << 30;

/// Runs a guest and answers with its code, its output and the trace of a failure.
fn run(vm: &Vm) -> (u8, String, String) {
    let mut output = Vec::new();
    let outcome = vm.run(&mut output).unwrap();
    let text = String::from_utf8(output).unwrap();
    (outcome.code, text, outcome.trace().to_owned())
}

#[test]
fn directories_have_limits_on_xfs_and_ext4() {
    let mut vm = Vm::new(env!("CARGO_BIN_EXE_quota-proof"), [""; 0]);
    vm.disk(2 * GIB).disk(2 * GIB);
    let (code, text, trace) = run(&vm);
    assert_eq!(code, 0, "{text}\n{trace}");
    // xfs says at a project's limit what it says on a full disk.
    assert_eq!(
        text,
        "xfs: statfs 32 MiB, ENOSPC within 32 MiB, neighbour 64 MiB\n\
         ext4: statfs 32 MiB, EDQUOT within 32 MiB, neighbour 64 MiB\n"
    );
}

#[test]
fn the_provisioners_cases_pass_with_project_quotas() {
    let suite = Suite::build("berth-provisioner", &["project-quota".to_owned()]).unwrap();
    let cases = suite.cases().unwrap();
    assert!(!cases.is_empty());
    // Cases make disks of their own, on loop devices; this one carries them all.
    let mut vm = suite.vm(Filesystem::Xfs, &[]);
    vm.memory(2048).limit(Duration::from_secs(1800));
    let (code, text, trace) = run(&vm);
    assert_eq!(code, 0, "{text}\n{trace}");
    println!("{text}");
    // By name: a target that ran none of its cases succeeds as well.
    for case in &cases {
        let passed = format!("test {case} ... ok");
        assert!(text.lines().any(|line| line == passed), "{case}: {text}");
    }
    let summary = format!("{} passed; 0 failed; 0 ignored", cases.len());
    assert!(text.contains(&summary), "{text}");
}

#[test]
fn output_code_files_and_environment_pass_through() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"of the host").unwrap();
    let script = "printf 'a\\r\\n\\000'; echo err >&2; echo \"$WORD\"; cat /etc/x/f; \
                  test -b /dev/vda && ! test -b /dev/vdb && exit 7";
    let mut vm = Vm::new("sh", ["-c", script]);
    vm.disk(GIB)
        .copy(file.path(), "/etc/x/f")
        .env("WORD", "it's $HOME")
        .module("dm-mod");
    let (code, text, trace) = run(&vm);
    assert_eq!(
        (code, text.as_str()),
        (7, "a\r\n\0err\nit's $HOME\nof the host"),
        "{trace}"
    );

    let (_, log) = trace.split_once("kernel's messages: ").unwrap();
    let (log, command) = log.split_once("\ncommand: ").unwrap();
    assert!(command.starts_with("qemu-system-x86_64 -"), "{command}");
    let messages = std::fs::read_to_string(log).unwrap();
    std::fs::remove_file(log).unwrap();
    assert!(messages.contains("device-mapper: ioctl"), "{messages}");
}

#[test]
fn a_file_as_a_disk_keeps_what_was_synced_and_no_more() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(GIB).unwrap();
    let boot = |script: &str| {
        let mut vm = Vm::new("sh", ["-c", script]);
        let (code, text, trace) = run(vm.disk_file(disk.path()));
        assert_eq!(code, 0, "{text}\n{trace}");
        text
    };
    boot(
        "set -e; mkfs.ext4 -q /dev/vda; mount /dev/vda /mnt; cd /mnt; \
         echo kept >a; sync; echo lost >b",
    );
    let text = boot("set -e; mount /dev/vda /mnt; cd /mnt; cat a; touch b; cat b");
    assert_eq!(text, "kept\n");
}

#[test]
fn a_panic_and_a_program_without_end_are_errors_that_say_what_the_kernel_said() {
    let log = |text: &str| {
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("kernel's messages: "));
        std::fs::remove_file(line.unwrap()).unwrap();
    };
    let panic = Vm::new("sh", ["-c", "echo c >/proc/sysrq-trigger"]);
    let error = panic.run(&mut Vec::new()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::NoAnswer { .. }), "{text}");
    assert!(text.contains("Kernel panic"), "{text}");
    log(&text);

    let mut endless = Vm::new("sleep", ["1000000"]);
    endless.limit(Duration::from_secs(1));
    let error = endless.run(&mut Vec::new()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Timeout { .. }), "{text}");
    log(&text);
}

#[test]
fn what_cannot_be_brought_along_is_named() {
    let error = Vm::new("./no/such/program", [""; 0]).run(&mut Vec::new());
    let text = error.unwrap_err().to_string();
    assert!(text.contains("./no/such/program is not a file"), "{text}");
}
