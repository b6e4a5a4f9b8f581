//! qemu's command line, and one run of it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::guest::{OUTPUT_PORT, STATUS_PORT};

/// The files of one guest, as qemu is to open them.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub kernel: PathBuf,
    pub initramfs: PathBuf,
    /// Receives the kernel's messages.
    pub log: PathBuf,
    /// Receives the program's exit code.
    pub status: PathBuf,
    pub disks: Vec<PathBuf>,
}

/// qemu's arguments for a guest with `memory` MiB and `processors`.
pub(crate) fn arguments(files: &Files, memory: u64, processors: usize) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|w| (*w).to_owned()));
    add(&["-nodefaults", "-no-user-config", "-display", "none"]);
    // Emulated on purpose: guests under KVM hang on some machines that are guests themselves.
    add(&["-machine", "pc", "-accel", "tcg", "-cpu", "max"]);
    add(&["-m", &memory.to_string(), "-smp", &processors.to_string()]);
    add(&["-kernel", &text(&files.kernel)]);
    add(&["-initrd", &text(&files.initramfs)]);
    // A kernel that fails ends the guest at once, instead of hanging until the limit.
    add(&["-no-reboot", "-append"]);
    add(&["console=ttyS0 panic=-1 oops=panic mitigations=off random.trust_cpu=on"]);
    let log = format!("file,id=log,path={}", option(&files.log));
    add(&["-chardev", &log, "-serial", "chardev:log"]);
    add(&["-device", "virtio-serial-pci"]);
    let status = option(&files.status);
    for (id, number, path) in [
        ("output", OUTPUT_PORT, "/dev/stdout"),
        ("status", STATUS_PORT, status.as_str()),
    ] {
        let device = format!("virtserialport,chardev={id},nr={number},name={id}");
        add(&["-chardev", &format!("file,id={id},path={path}")]);
        add(&["-device", &device]);
    }
    for (number, disk) in files.disks.iter().enumerate() {
        let file = option(disk);
        let drive = format!(
            "if=none,id=disk{number},format=raw,discard=unmap,detect-zeroes=unmap,file={file}"
        );
        let device = format!("virtio-blk-pci,drive=disk{number},serial=disk{number}");
        add(&["-drive", &drive, "-device", &device]);
    }
    args
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A path within an option: a comma is doubled.
fn option(path: &Path) -> String {
    text(path).replace(',', ",,")
}

/// The command as one line for people.
pub(crate) fn line(args: &[String]) -> String {
    let mut line = "qemu-system-x86_64".to_owned();
    for arg in args {
        let plain = arg
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./=:,+".contains(&b));
        line.push(' ');
        if plain {
            line += arg;
        } else {
            line += &crate::guest::quote(arg);
        }
    }
    line
}

/// A running qemu, ended with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, and then both say so.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs qemu until it ends, the guest's output going to `output`; `None` when it
/// had to be ended after `limit`.
pub(crate) fn run(
    args: &[String],
    limit: Duration,
    output: &mut dyn Write,
) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    // The kernel ends qemu when this thread is gone, also after a SIGKILL.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Error::io("cannot start", "setpriv"))?;
    let mut running = Running(child);
    let mut pipe = running.0.stdout.take().ok_or_else(|| {
        Error::Unexpected("qemu was started without a pipe for its output".to_owned())
    })?;
    let (sender, receiver) = channel();
    let reader = std::thread::spawn(move || {
        let mut block = vec![0; 1 << 16];
        while let Ok(size @ 1..) = pipe.read(&mut block) {
            if sender.send(block[..size].to_vec()).is_err() {
                break;
            }
        }
    });
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => output
                .write_all(&bytes)
                .and_then(|()| output.flush())
                .map_err(Error::io("cannot write", "the guest's output"))?,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // It has sent everything; a reader that panicked has sent what there is.
    let _ = reader.join();
    let status = running.0.wait();
    status
        .map(Some)
        .map_err(Error::io("cannot wait for", "qemu-system-x86_64"))
}

/// All of a file, without carriage returns.
pub(crate) fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    // An unreadable log makes a poorer message, not another error.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

/// The lines of the kernel's messages that matter most, at most `count`: from its
/// first word about a failure of its own, else the end.
pub(crate) fn excerpt(log: &str, count: usize) -> String {
    let lines: Vec<_> = log.lines().filter(|l| !l.is_empty()).collect();
    let failed = lines.iter().position(|line| {
        ["Kernel panic", "BUG:", "Oops:"]
            .iter()
            .any(|word| line.contains(word))
    });
    let from = failed.unwrap_or(lines.len().saturating_sub(count));
    let to = lines.len().min(from + count);
    lines[from..to].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_every_file_and_emulates() {
        let files = Files {
            kernel: "/k".into(),
            initramfs: "/i".into(),
            log: "/a,b".into(),
            status: "/s".into(),
            disks: vec!["/d0".into(), "/d1".into()],
        };
        let line = line(&arguments(&files, 512, 2));
        for part in [
            "-accel tcg",
            "-m 512 -smp 2 -kernel /k -initrd /i",
            "file,id=log,path=/a,,b",
            "file,id=status,path=/s -device virtserialport,chardev=status,nr=2",
            "file=/d1 -device virtio-blk-pci,drive=disk1",
            "-append 'console=ttyS0 panic=-1",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("kvm"), "{line}");
    }

    #[test]
    fn messages_are_cut_to_a_failure_or_to_their_end() {
        assert_eq!(excerpt("one\n\ntwo\nthree\n", 2), "two\nthree");
        let log = "[1] a\n[2] Kernel panic - not syncing\n[3] b\n[4] c\n";
        assert_eq!(excerpt(log, 2), "[2] Kernel panic - not syncing\n[3] b");
        assert_eq!(excerpt("", 2), "");
    }
}
