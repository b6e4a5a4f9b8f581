//! What is in the guest's root, and its first process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::initramfs::Tree;
use crate::kernel::Kernel;
use crate::{libraries, modules, tools};

/// Where the guest's own script for the program lies.
const MAIN: &str = "/.berth/main";

/// The shell of the host and of the guest.
const SHELL: &str = "/bin/sh";

/// Where programs of the host stand in the guest.
const PROGRAMS: &str = "/usr/local/bin";

/// Where the guest finds programs: the host's first, then busybox.
const SEARCH: &str = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/.berth/busybox";

/// The number of the port that carries the program's output.
pub(crate) const OUTPUT_PORT: u32 = 1;

/// The number of the port that carries its exit code.
pub(crate) const STATUS_PORT: u32 = 2;

/// What a guest is to hold and run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    /// The program and its arguments.
    pub program: Vec<String>,
    /// Its environment, beside PATH and HOME.
    pub env: BTreeMap<String, String>,
    /// Files: where in the guest, from where on the host.
    pub files: BTreeMap<PathBuf, PathBuf>,
    /// More modules to load.
    pub modules: Vec<String>,
}

/// The guest's root.
pub(crate) fn tree(kernel: &Kernel, contents: &Contents) -> Result<Tree> {
    let mut tree = Tree::default();
    for dir in [
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/mnt",
        "/root",
        "/.berth/busybox",
    ] {
        tree.directory(dir, 0o755);
    }
    tree.directory("/tmp", 0o1777);
    tree.bytes("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n", 0o644);
    tree.bytes("/etc/group", "root:x:0:\n", 0o644);
    tree.link("/etc/mtab", "/proc/self/mounts");
    for file in ["/etc/mke2fs.conf", "/etc/ld.so.cache"] {
        if Path::new(file).is_file() {
            tree.host(file, file, 0o644);
        }
    }

    let mut programs = Vec::new();
    let busybox = tools::find("busybox")
        .ok_or_else(|| Error::Unexpected("busybox is not found on this machine".to_owned()))?;
    tree.host("/bin/busybox", &busybox, 0o755);
    programs.push(busybox);
    tree.link("/sbin/modprobe", "/bin/busybox");
    // Not busybox's: that one takes its own mount for the one on the path.
    tree.host(SHELL, SHELL, 0o755);
    programs.push(SHELL.into());
    for (name, file) in tools::all() {
        tree.host(Path::new("/usr/sbin").join(name), &file, 0o755);
        programs.push(file);
    }
    let mut files = contents.files.clone();
    let mut words = contents.program.clone();
    if let Some(program) = words.first_mut()
        && program.contains('/')
        && !files.contains_key(Path::new(program))
    {
        let host = PathBuf::from(&*program);
        let name = host.file_name().unwrap_or_default();
        let there = Path::new(PROGRAMS).join(name);
        *program = there.to_string_lossy().into_owned();
        files.insert(there, host);
    }
    for (there, host) in &files {
        if !host.is_file() {
            return Err(Error::Unexpected(format!(
                "{} is not a file of this machine, and only files can be brought along",
                host.display()
            )));
        }
        tree.host(there, host, mode(host)?);
        programs.push(host.clone());
    }
    for library in libraries::of(&programs)? {
        tree.host(&library, &library, 0o755);
    }

    let loaded = add_modules(&mut tree, kernel, &contents.modules)?;
    tree.bytes("/init", init(&loaded), 0o755);
    tree.bytes(MAIN, main_script(&contents.env, &words), 0o755);
    Ok(tree)
}

/// Puts modules in; the answer is what to load at once.
fn add_modules(tree: &mut Tree, kernel: &Kernel, more: &[String]) -> Result<Vec<String>> {
    let read = |name: &str| {
        let path = kernel.modules.join(name);
        std::fs::read_to_string(&path).map_err(Error::io("cannot read", path))
    };
    let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let loaded: Vec<String> = modules::LOADED
        .iter()
        .map(|m| (*m).to_owned())
        .chain(more.iter().cloned())
        .collect();
    let mut wanted: Vec<&str> = loaded.iter().map(String::as_str).collect();
    wanted.extend(modules::BROUGHT);
    let files = modules::closure(&dependencies, &builtin, &wanted).map_err(|module| {
        Error::Unexpected(format!(
            "the kernel {} has no module {module}",
            kernel.release
        ))
    })?;
    let there = Path::new("/lib/modules").join(&kernel.release);
    let lists = ["modules.dep", "modules.alias", "modules.builtin"];
    for file in files.into_iter().chain(lists) {
        tree.host(there.join(file), kernel.modules.join(file), 0o644);
    }
    Ok(loaded)
}

fn mode(file: &Path) -> Result<u32> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(file).map_err(Error::io("cannot look at", file))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

/// The first process. It may not end before the machine is off, and what goes
/// wrong with it shows among the kernel's messages.
fn init(modules: &[String]) -> String {
    let modules: Vec<_> = modules.iter().map(|m| quote(m)).collect();
    format!(
        "#!/bin/busybox sh
export PATH={SEARCH} HOME=/root
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox --install -s /.berth/busybox
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
ip link set lo up
hostname berth-vm
for module in {modules}; do
    modprobe \"$module\" || echo \"berth: the module $module does not load\" >/dev/kmsg
done
output=/dev/vport0p{OUTPUT_PORT}
status=/dev/vport0p{STATUS_PORT}
# The ports appear when host and driver have shaken hands.
until [ -c $output ] && [ -c $status ]; do usleep 10000; done
{MAIN} </dev/null >$output 2>&1
echo $? >$status
# Without a sync, so that every guest ends alike: by a power cut.
poweroff -f -n
",
        modules = modules.join(" "),
    )
}

/// The script that becomes the program.
fn main_script(env: &BTreeMap<String, String>, words: &[String]) -> String {
    let mut text = format!("#!{SHELL}\ncd /root\n");
    for (key, value) in env {
        text += &format!("export {key}={}\n", quote(value));
    }
    let words: Vec<_> = words.iter().map(|w| quote(w)).collect();
    text + &format!("exec {}\n", words.join(" "))
}

/// A word for the shell, whatever is in it.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        let words = ["printf", "%s|", "a b", "it's", "$HOME", "", "new\nline"];
        let words: Vec<_> = words.map(str::to_owned).into();
        let env = BTreeMap::from([("V".to_owned(), "x 'y'".to_owned())]);
        let script = main_script(&env, &words).replace("cd /root\n", "");
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, "a b|it's|$HOME||new\nline|");
        assert!(script.contains(r"export V='x '\''y'\'''"), "{script}");
    }
}
